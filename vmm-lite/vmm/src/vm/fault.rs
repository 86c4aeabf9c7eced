//! Function names for addresses in a guest's program.

use object::{Object, ObjectSymbol, SymbolKind};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// The functions of an image.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Start, length and name, by start.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Reads them from an open image; a stripped one has none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(image: &File) -> io::Result<Self> {
        let mut image = image;
        let mut data = Vec::new();
        image.seek(SeekFrom::Start(0))?;
        image.read_to_end(&mut data)?;
        let file = object::File::parse(&*data).map_err(io::Error::other)?;
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.address() != 0)
            .filter_map(|s| Some((s.address(), s.size(), demangled(s.name().ok()?))))
            .collect();
        functions.sort_unstable();
        Ok(Self { functions })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function that contains `address`, and the offset in it.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A function that the compiler does not inline.
    #[inline(never)]
    fn a_function_of_its_own(numbers: &[u64]) -> u64 {
        numbers.iter().map(|n| std::hint::black_box(n) / 7).sum()
    }

    #[test]
    fn functions_of_a_program_are_named() {
        assert_eq!(a_function_of_its_own(&[7, 14]), 3);
        let symbols = Symbols::of(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
        let named = |f: &&(u64, u64, String)| f.2.ends_with("a_function_of_its_own") && f.1 > 8;
        let (start, size, name) = symbols.functions.iter().find(named).expect("the function");
        assert!(
            name.starts_with(concat!(module_path!(), "::")),
            "demangled, without its hash: {name}"
        );
        assert_eq!(symbols.name(start + 5), Some(format!("{name}+0x5")));
        assert_ne!(symbols.name(start + size), Some(format!("{name}+{size:#x}")));
        assert_eq!(symbols.name(0), None);
        assert_eq!(Symbols::default().name(1), None);
    }
}
