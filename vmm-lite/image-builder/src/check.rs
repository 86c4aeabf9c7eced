//! Checks an image after the link.

use super::{Accepts, Error};
use object::{Object, ObjectSymbol, ReadCache};
use std::{fs::File, path::Path};

/// Checks the file: the VMM accepts it, and nothing is left undefined.
///
/// # Errors
/// The file's error.
pub fn check(path: &Path, accepts: &Accepts<'_>) -> Result<(), Error> {
    accepts(path).map_err(Error::Image)?;
    let file = File::open(path).map_err(|source| Error::File {
        what: "read",
        path: path.into(),
        source,
    })?;
    let cache = ReadCache::new(file);
    let symbols = match object::File::parse(&cache) {
        Ok(object) => object
            .symbols()
            .filter(|s| s.is_undefined() && !s.is_weak())
            .filter_map(|s| s.name().ok().filter(|n| !n.is_empty()).map(str::to_owned))
            .collect::<Vec<_>>(),
        // The headers are valid, so a profile has stripped the symbol table.
        Err(_) => Vec::new(),
    };
    if symbols.is_empty() {
        return Ok(());
    }
    Err(Error::Undefined { path: path.into(), symbols })
}
