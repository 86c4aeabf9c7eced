//! Directories: made, listed, removed, and refusals.

use crate::check::{Failure, Outcome, not_on_hermit};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

checks!["folders": make_and_remove, make_all, list, list_empty, list_many, entries_know_their_type,
    unusual_names, paths_with_dots, not_empty, exists_already, through_a_file,
    remove_all, rename, canonical];

/// A directory that is removed, with the files and directories in it, when the check ends.
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new, empty directory.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let root = std::env::temp_dir();
        if !fs::exists(&root)? {
            fs::create_dir_all(&root)?;
        }
        // Other runs may be under way on the same system.
        use std::hash::{BuildHasher, RandomState};
        let path =
            root.join(format!("std-check-{name}-{:016x}", RandomState::new().hash_one(name)));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A failed cleanup after a failed check is not worth another failure.
        let _ = remove_tree(&self.0);
    }
}

/// Like `remove_dir_all`, which not every std has.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_tree(&entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
        }
    }
    fs::remove_dir(path)
}

fn names(path: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(names.insert(name.clone()), "{name} is listed twice");
    }
    Ok(names)
}

fn make_and_remove() -> Outcome {
    let dir = TempDir::new("make_and_remove")?;
    let path = dir.join("d");
    fs::create_dir(&path)?;
    ensure!(fs::metadata(&path)?.is_dir(), "not a directory");
    ensure!(!fs::metadata(&path)?.is_file(), "a directory is a file");
    fs::write(path.join("f"), b"x")?;
    fs::remove_file(path.join("f"))?;
    fs::remove_dir(&path)?;
    ensure!(!fs::exists(&path)?, "it is still there");
    Ok(())
}

fn make_all() -> Outcome {
    let dir = TempDir::new("make_all")?;
    let deep = dir.join("a/b/c/d/e");
    fs::create_dir_all(&deep)?;
    fs::create_dir_all(&deep)?; // Again does no harm.
    fs::write(deep.join("f"), b"deep")?;
    ensure_eq!(fs::read(dir.join("a/b/../b/./c/d/e/f"))?, b"deep");
    Ok(())
}

fn list() -> Outcome {
    let dir = TempDir::new("list")?;
    for name in ["b", "a", "with space", "ümlaut"] {
        fs::write(dir.join(name), name)?;
    }
    fs::create_dir(dir.join("d"))?;
    let listed = names(dir.path())?;
    ensure_eq!(
        listed.iter().map(String::as_str).collect::<Vec<_>>(),
        ["a", "b", "d", "with space", "ümlaut"]
    );
    fs::remove_file(dir.join("a"))?;
    ensure_eq!(names(dir.path())?.len(), 4);
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        ensure!(fs::exists(entry.path())?, "{} is listed and not there", entry.path().display());
    }
    Ok(())
}

fn list_empty() -> Outcome {
    let dir = TempDir::new("list_empty")?;
    if fs::read_dir(dir.path()).is_err() {
        not_on_hermit("reading an empty directory: it takes the empty answer for an error")?;
    }
    ensure_eq!(names(dir.path())?.len(), 0);
    Ok(())
}

fn list_many() -> Outcome {
    let dir = TempDir::new("list_many")?;
    for n in 0..1000 {
        fs::write(dir.join(&format!("file number {n}")), [])?;
    }
    ensure_eq!(names(dir.path())?.len(), 1000);
    Ok(())
}

fn entries_know_their_type() -> Outcome {
    let dir = TempDir::new("entries_know_their_type")?;
    fs::write(dir.join("f"), b"123")?;
    fs::create_dir(dir.join("d"))?;
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        let is_dir = entry.file_name() == "d";
        ensure_eq!(entry.file_type()?.is_dir(), is_dir);
        ensure_eq!(entry.metadata()?.is_dir(), is_dir);
        ensure!(is_dir || entry.metadata()?.len() == 3, "the file's length is wrong");
    }
    Ok(())
}

fn unusual_names() -> Outcome {
    let dir = TempDir::new("unusual_names")?;
    let long = "n".repeat(255);
    let wanted: BTreeSet<String> =
        [" ", "…", "Füße 世界", ".hidden", "a\\b", "new\nline", &long].map(str::to_owned).into();
    for name in &wanted {
        fs::write(dir.join(name), name)?;
    }
    ensure_eq!(names(dir.path())?, wanted);
    for name in &wanted {
        ensure_eq!(&fs::read_to_string(dir.join(name))?, name);
    }
    ensure!(fs::write(dir.join(""), b"x").is_err(), "a file without a name was written");
    ensure_error!(fs::write(dir.join("a\0b"), b"x"), InvalidInput);
    Ok(())
}

fn paths_with_dots() -> Outcome {
    let dir = TempDir::new("paths_with_dots")?;
    fs::create_dir(dir.join("a"))?;
    fs::create_dir(dir.join("b"))?;
    fs::write(dir.join("a/../b/./f"), b"by a long way")?;
    ensure_eq!(fs::read(dir.join("b//f"))?, b"by a long way");
    ensure!(fs::metadata(dir.join("a/.."))?.is_dir(), "a/.. is no directory");
    ensure_error!(fs::read(dir.join("none/../b/f")), NotFound);
    ensure!(fs::metadata("/..")?.is_dir(), "/.. is no directory");
    Ok(())
}

fn not_empty() -> Outcome {
    let dir = TempDir::new("not_empty")?;
    fs::create_dir(dir.join("d"))?;
    fs::write(dir.join("d/f"), b"x")?;
    ensure_error!(fs::remove_dir(dir.join("d")), DirectoryNotEmpty);
    ensure_eq!(fs::read(dir.join("d/f"))?, b"x");
    Ok(())
}

fn exists_already() -> Outcome {
    let dir = TempDir::new("exists_already")?;
    fs::create_dir(dir.join("d"))?;
    fs::write(dir.join("f"), b"x")?;
    ensure_error!(fs::create_dir(dir.join("d")), AlreadyExists);
    ensure_error!(fs::create_dir(dir.join("f")), AlreadyExists);
    Ok(())
}

fn through_a_file() -> Outcome {
    let dir = TempDir::new("through_a_file")?;
    fs::write(dir.join("f"), b"x")?;
    ensure_error!(fs::read(dir.join("f/g")), NotADirectory);
    ensure_error!(fs::read_dir(dir.join("f")), NotADirectory);
    ensure_error!(fs::remove_dir(dir.join("f")), NotADirectory);
    ensure_error!(fs::read_dir(dir.join("none")), NotFound);
    Ok(())
}

fn remove_all() -> Outcome {
    not_on_hermit("fs::remove_dir_all")?;
    let dir = TempDir::new("remove_all")?;
    fs::create_dir_all(dir.join("a/b"))?;
    fs::write(dir.join("a/b/f"), b"x")?;
    fs::remove_dir_all(dir.join("a"))?;
    ensure!(!fs::exists(dir.join("a"))?, "it is still there");
    Ok(())
}

fn rename() -> Outcome {
    not_on_hermit("fs::rename")?;
    let dir = TempDir::new("rename")?;
    fs::write(dir.join("a"), b"x")?;
    fs::write(dir.join("b"), b"y")?;
    fs::rename(dir.join("a"), dir.join("b"))?;
    ensure_eq!(fs::read(dir.join("b"))?, b"x");
    ensure!(!fs::exists(dir.join("a"))?, "the old name is still there");
    Ok(())
}

fn canonical() -> Outcome {
    not_on_hermit("fs::canonicalize")?;
    let dir = TempDir::new("canonical")?;
    ensure_eq!(fs::canonicalize(dir.join("."))?, fs::canonicalize(dir.path())?);
    Ok(())
}
