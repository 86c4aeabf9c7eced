//! Makes images: a Rust crate, the standard library and the kernel in one file.
//!
//! The crate is compiled unchanged, for the stock target `x86_64-unknown-hermit`, by its own cargo
//! with its own lock file:
//!
//! 1. [`toolchain`]: a compiler with the source of the standard library
//! 2. [`select`]: selects the program
//! 3. [`sysroot`]: the standard library for the target, compiled once for each compiler and kept in
//!    the user's cache
//! 4. [`kernel`]: the kernel object that this program contains
//! 5. [`compile`]: cargo compiles the program and links it with the kernel
//! 6. [`check`]: the result is an image that the VMM accepts
//! 7. [`own_clock`]: whether the program reads clocks or random numbers of the CPU by itself

pub mod check;
pub mod compile;
mod error;
pub mod kernel;
pub mod own_clock;
pub mod select;
pub mod sysroot;
pub mod toolchain;

pub use error::Error;

use compile::Parts;
use own_clock::OwnClock;
use select::Program;
use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// What to build.
#[derive(Clone, Debug)]
pub struct Request {
    /// The crate's directory or manifest; `None`: the one around the current directory.
    pub path: Option<PathBuf>,
    /// Packages of its workspace; none: the one at the path.
    pub packages: Vec<String>,
    /// Which program of the package; `None`: its only one.
    pub bin: Option<String>,
    /// Features, as lists in cargo's form.
    pub features: Vec<String>,
    /// Profile, `release` by default.
    pub profile: String,
    /// Options that are passed to cargo: `--locked`, `--quiet`, `--no-default-features` and the
    /// like.
    pub cargo_options: Vec<String>,
    /// The image, or a directory for it; `None`: `NAME.img` in the current directory.
    pub output: Option<PathBuf>,
    /// Cargo's target directory; `None`: `vmm-lite` in the crate's target directory.
    pub target_directory: Option<PathBuf>,
    /// A rustup toolchain's name, or a directory.
    pub toolchain: Option<OsString>,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub path: PathBuf,
    /// The package it was made from.
    pub package: String,
    /// The program it was made from.
    pub bin: String,
    /// Size of the file, in bytes.
    pub size: u64,
    /// Nothing had changed since the last time.
    pub fresh: bool,
    /// Clocks and random numbers of the CPU that the program reads by itself.
    pub own_clock: OwnClock,
    /// How long it took.
    pub took: Duration,
}

/// Checks that the VMM accepts a file as an image; the error says why not.
pub type Accepts<'a> = dyn Fn(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Makes the images of `request`, one after the other; each must be one that the VMM `accepts`, and
/// is then passed to `done`. `tell` is called before long steps that cargo does not announce.
///
/// # Errors
/// The error of the first image that cannot be made.
pub fn build(
    request: &Request,
    accepts: &Accepts<'_>,
    tell: impl Fn(&str),
    mut done: impl FnMut(&Built),
) -> Result<(), Error> {
    let mut began = (Instant::now(), SystemTime::now());
    let toolchain = toolchain::find(request.toolchain.as_deref(), &directory(request))?;
    let selection = select::select(request, &toolchain)?;
    let outputs = outputs(request.output.as_deref(), &selection.programs)?;
    linker()?;

    let cache = cache_directory()?;
    let sysroot = standard_library(&toolchain, &cache, tell)?;
    let kernel = kernel::unpack(&cache)?;
    let kernel_object = read(&kernel)?;
    let target_directory = request
        .target_directory
        .clone()
        .unwrap_or_else(|| selection.target_directory.join("vmm-lite"));
    let parts = Parts {
        toolchain: &toolchain,
        sysroot: &sysroot,
        kernel: &kernel,
        target_directory: &target_directory,
    };
    for (program, output) in selection.programs.iter().zip(outputs) {
        let linked = compile::compile(request, program, &parts)?;
        check::check(&linked.path, accepts)?;
        let mut image = read(&linked.path)?;
        let own_clock = own_clock::find(&image, &kernel_object)?;
        own_clock::write(&mut image, &own_clock)?;
        deliver(&image, &linked.path, &output, began.1)?;
        done(&Built {
            path: output,
            package: program.package.clone(),
            bin: program.bin.clone(),
            size: image.len() as u64,
            fresh: linked.fresh,
            own_clock,
            took: began.0.elapsed(),
        });
        began = (Instant::now(), SystemTime::now());
    }
    Ok(())
}

/// The environment with which other cargo commands (`check`, `clippy`) find the guest's target as
/// [`build`] does, as pairs of name and value.
///
/// # Errors
/// If there is no toolchain, or no standard library for it.
pub fn environment(
    request: &Request,
    tell: impl Fn(&str),
) -> Result<Vec<(&'static str, String)>, Error> {
    let toolchain = toolchain::find(request.toolchain.as_deref(), &directory(request))?;
    let sysroot = standard_library(&toolchain, &cache_directory()?, tell)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let bin = toolchain.sysroot.join("bin");
    Ok(vec![
        // Cargo's subcommands are found there, and must be of the compiler's version.
        ("PATH", format!("{}:{}", bin.display(), path.to_string_lossy())),
        ("RUSTC", toolchain.rustc.display().to_string()),
        ("CARGO_BUILD_TARGET", sysroot::TARGET.into()),
        ("CARGO_ENCODED_RUSTFLAGS", compile::guest_flags(&sysroot)),
    ])
}

/// The directory of the request: a `rust-toolchain.toml` there selects the toolchain.
fn directory(request: &Request) -> PathBuf {
    let directory = match &request.path {
        Some(path) if path.is_dir() => path.clone(),
        Some(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        None => PathBuf::new(),
    };
    if directory.as_os_str().is_empty() { ".".into() } else { directory }
}

/// The sysroot with `std`, compiled now if it does not exist yet.
fn standard_library(
    toolchain: &toolchain::Toolchain,
    cache: &Path,
    tell: impl Fn(&str),
) -> Result<PathBuf, Error> {
    let announce = || {
        let compiler = toolchain.short_version();
        tell(&format!(
            "compiling the standard library with {compiler}: once, kept in {}",
            cache.display()
        ));
    };
    Ok(sysroot::ensure(toolchain, sysroot::Library::Std, cache, announce)?)
}

/// The cache for compiled standard libraries and the kernel: `$VMM_LITE_CACHE`, else `vmm-lite` in
/// the user's cache.
fn cache_directory() -> Result<PathBuf, Error> {
    let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("VMM_LITE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("vmm-lite")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/vmm-lite")))
        .ok_or(Error::NoCache)?;
    std::path::absolute(&cache).map_err(|source| Error::File { what: "find", path: cache, source })
}

/// Checked early: the compiler would report it after a minute, and in many more words.
fn linker() -> Result<(), Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join("ld").is_file()) {
        return Ok(());
    }
    Err(Error::Tool { tool: "ld", package: "binutils" })
}

/// Each image's path.
fn outputs(asked: Option<&Path>, programs: &[Program]) -> Result<Vec<PathBuf>, Error> {
    let name = |program: &Program| format!("{}.img", program.bin);
    let Some(path) = asked else {
        return Ok(programs.iter().map(|p| PathBuf::from(name(p))).collect());
    };
    let is_directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_directory {
        return Ok(programs.iter().map(|p| path.join(name(p))).collect());
    }
    match programs.len() {
        1 => Ok(vec![path.into()]),
        count => Err(Error::OneOutput { path: path.into(), count }),
    }
}

/// The content of a file.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { what: "read", path: path.into(), source })
}

/// Puts `image`, made from the `linked` program, at its path, whole or not at all. A VM that runs
/// the previous image there is not affected.
///
/// The image gets the time `began`, when its build began: later changes are newer than it, and it
/// is not newer than cargo's own files, as a newer file in the crate's directory makes cargo run
/// its build script again. For the same reason an identical image is not touched.
fn deliver(image: &[u8], linked: &Path, output: &Path, began: SystemTime) -> Result<(), Error> {
    let file = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source: io::Error| Error::File { what, path, source }
    };
    files::may_replace(output).map_err(file("replace", output))?;
    if fs::read(output).is_ok_and(|there| there == image) {
        return Ok(());
    }
    let directory = output.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(file("make", directory))?;
    let mut partial =
        tempfile::NamedTempFile::new_in(directory).map_err(file("write in", directory))?;
    partial
        .write_all(image)
        .and_then(|()| partial.as_file().set_modified(began))
        .and_then(|()| partial.as_file().set_permissions(fs::metadata(linked)?.permissions()))
        .and_then(|()| partial.persist(output).map(drop).map_err(|e| e.error))
        .map_err(file("write", output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(names: &[&str]) -> Vec<Program> {
        let program = |name: &&str| Program {
            manifest: "Cargo.toml".into(),
            package: (*name).into(),
            bin: (*name).into(),
        };
        names.iter().map(program).collect()
    }

    #[test]
    fn images_are_named_after_their_programs() {
        let two = programs(&["a", "b"]);
        assert_eq!(outputs(None, &two).unwrap(), [Path::new("a.img"), Path::new("b.img")]);
        let there = outputs(Some(Path::new("new/")), &two).unwrap();
        assert_eq!(there, [Path::new("new/a.img"), Path::new("new/b.img")]);
        let one = outputs(Some(Path::new("x")), &two[..1]).unwrap();
        assert_eq!(one, [Path::new("x")]);
        let error = outputs(Some(Path::new("x")), &two).unwrap_err();
        assert!(matches!(error, Error::OneOutput { count: 2, .. }), "{error}");
    }

    #[test]
    fn an_image_replaces_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("deep/er/to.img"));
        let began = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (content, at, dated) in [("first", 1, 1), ("second one", 2, 2), ("second one", 3, 2)] {
            fs::write(&from, content).unwrap();
            deliver(content.as_bytes(), &from, &to, began(at)).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), content);
            assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), began(dated));
        }
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "nothing is left");
        for (odd, _) in vmm_lite_lab::files::odd_paths(dir.path()) {
            let (from, to) = (from.clone(), odd.clone());
            let delivered =
                vmm_lite_lab::files::at_once(move || deliver(b"", &from, &to, began(1)));
            assert!(delivered.is_err(), "{}", odd.display());
        }
    }
}
