//! Files that appear in the journal's directory whole or not at all.

use crate::{
    Error,
    format::names,
    storage::{Directory, Stored},
};
use std::io;

/// Makes a file under a temporary name, has `fill` write and sync it, gives it its name in place of
/// the file that has it, and makes the name durable. A file that cannot be made is removed.
pub fn publish(
    dir: &dyn Directory,
    name: &str,
    fill: impl FnOnce(&dyn Stored) -> Result<(), Error>,
) -> Result<Box<dyn Stored>, Error> {
    let file = prepare(dir, name, fill)?;
    rename(dir, &names::unfinished(name), name)?;
    Ok(file)
}

/// The first half of [`publish`]: all but the name.
fn prepare(
    dir: &dyn Directory,
    name: &str,
    fill: impl FnOnce(&dyn Stored) -> Result<(), Error>,
) -> Result<Box<dyn Stored>, Error> {
    let temporary = names::unfinished(name);
    remove(dir, &temporary)?;
    let path = dir.path(&temporary).display().to_string();
    let file = dir.create(&temporary).map_err(Error::io("create", path))?;
    if let Err(e) = fill(&*file) {
        // The space is needed more than the error of this.
        let _ = dir.remove(&temporary);
        return Err(e);
    }
    Ok(file)
}

/// Makes a file with this content, durable under its temporary name.
pub fn prepare_bytes(dir: &dyn Directory, name: &str, content: &[u8]) -> Result<(), Error> {
    prepare(dir, name, |file| {
        let path = dir.path(&names::unfinished(name)).display().to_string();
        file.write_at(content, 0).map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))
    })
    .map(drop)
}

/// Makes a file with this content.
pub fn publish_bytes(dir: &dyn Directory, name: &str, content: &[u8]) -> Result<(), Error> {
    prepare_bytes(dir, name, content)?;
    rename(dir, &names::unfinished(name), name)
}

/// Renames a file whose content is durable, and makes the new name durable.
pub fn rename(dir: &dyn Directory, from: &str, to: &str) -> Result<(), Error> {
    let path = dir.path(from).display().to_string();
    dir.rename(from, to).map_err(Error::io("rename", path))?;
    sync(dir)
}

/// Removes a file, if it is there.
pub fn remove(dir: &dyn Directory, name: &str) -> Result<(), Error> {
    match dir.remove(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", dir.path(name).display().to_string())),
    }
}

/// Makes names durable.
pub fn sync(dir: &dyn Directory) -> Result<(), Error> {
    dir.sync().map_err(Error::io("sync", dir.path("").display().to_string()))
}
