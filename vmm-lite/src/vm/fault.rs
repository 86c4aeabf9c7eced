//! Names for addresses in a guest's program.

use object::{Object, ObjectSymbol, SymbolKind};
use std::{io, path::Path};

/// The functions of an image.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Start, length and name, by start.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Reads them from an image; an image that was stripped has none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(image: &Path) -> io::Result<Self> {
        let data = std::fs::read(image)?;
        let file = object::File::parse(&*data).map_err(io::Error::other)?;
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.address() != 0)
            .filter_map(|s| Some((s.address(), s.size(), demangled(s.name().ok()?))))
            .collect();
        functions.sort_unstable();
        Ok(Self { functions })
    }

    /// The function that `address` lies in, and how far.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(after.checked_sub(1)?)?;
        let offset = address - start;
        (offset < (*size).max(1)).then(|| format!("{name}+{offset:#x}"))
    }
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}
