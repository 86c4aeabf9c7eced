//! The kernel that is linked into every image: one object, compiled with this program and contained
//! in it.

use super::Error;
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Made by the build script.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel.o"));

/// Writes the object into `cache` and returns its path. Its name contains a hash of its content, so
/// a program is linked again when the kernel changes, and only then.
///
/// # Errors
/// If it cannot be written.
pub fn unpack(cache: &Path) -> Result<PathBuf, Error> {
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    let path = cache.join(format!("kernel-{:016x}.o", hasher.finish()));
    if fs::metadata(&path).is_ok_and(|m| m.len() == OBJECT.len() as u64) {
        return Ok(path);
    }
    let file = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { what, path, source }
    };
    fs::create_dir_all(cache).map_err(file("make", cache))?;
    // Under a temporary name first, so that the file is complete when it appears under its own.
    let mut partial = tempfile::NamedTempFile::new_in(cache).map_err(file("write in", cache))?;
    partial.write_all(OBJECT).map_err(file("write in", cache))?;
    partial.persist(&path).map_err(|e| file("write", &path)(e.error))?;
    Ok(path)
}
