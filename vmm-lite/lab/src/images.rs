//! Programs and images of this workspace, built if they do not exist.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Doing, Error, Result},
    process::run,
};

/// The workspace's root directory.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the lab is two levels down")
        .into()
}

/// The directory this test or program was built into: `target/debug` or `target/release`.
fn profile_dir() -> Result<PathBuf> {
    let exe = env::current_exe().doing("find this program")?;
    exe.ancestors()
        .skip(1)
        .find(|d| !d.ends_with("deps") && !d.ends_with("examples"))
        .map(Path::to_path_buf)
        .ok_or_else(|| Error::NoFile(exe.clone()))
}

/// The `vmm-lite` binary: `$VMM_LITE_BIN`, or the one beside this program.
///
/// # Errors
/// [`Error::Missing`] if it has not been built.
pub fn vmm_lite() -> Result<PathBuf> {
    if let Some(path) = env::var_os("VMM_LITE_BIN") {
        return Ok(path.into());
    }
    let path = profile_dir()?.join("vmm-lite");
    if path.exists() {
        return Ok(path);
    }
    Err(Error::Missing {
        program: "vmm-lite".into(),
        hint: "cargo build -p vmm-lite in the same profile, or set VMM_LITE_BIN".into(),
    })
}

/// The unikernel image of the application `apps/NAME`, built if it is missing or older than its
/// sources. `$VMM_LITE_IMAGES` may name a directory with ready `NAME.img` files.
///
/// # Errors
/// The build's error.
pub fn image(name: &str) -> Result<PathBuf> {
    if let Some(dir) = env::var_os("VMM_LITE_IMAGES") {
        let path = PathBuf::from(dir).join(format!("{name}.img"));
        return if path.exists() { Ok(path) } else { Err(Error::NoFile(path)) };
    }
    let dir = profile_dir()?.join("images");
    fs::create_dir_all(&dir).doing(format!("make {}", dir.display()))?;
    let path = dir.join(format!("{name}.img"));
    // Tests in several processes ask at once: one builds, and the others wait for it.
    let lock = File::create(dir.join("lock")).doing("make the lock of the images")?;
    lock.lock().doing("lock the images")?;
    let app = workspace().join("apps").join(name);
    run(Command::new(vmm_lite()?).arg("build").arg(app).arg("-o").arg(&path))?;
    Ok(path)
}

/// Whether a program is on the PATH.
///
/// # Errors
/// [`Error::Missing`] with the Debian package that contains it.
pub fn installed(program: &str, package: &str) -> Result<()> {
    let found = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if found {
        return Ok(());
    }
    Err(Error::Missing { program: program.into(), hint: format!("apt-get install {package}") })
}
