//! The standard library for the guest's target, compiled once for each toolchain.
//!
//! The result is a directory for the compiler's `--sysroot`, as rustup installs it for a target
//! with a prebuilt library. So a crate is built as for any other target: by a stable compiler's own
//! rules, with the crate's profile and patches affecting only the crate, and without a minute for
//! `std` in each target directory. The build script of this crate uses this file too.

use super::toolchain::Toolchain;
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// The guest's target.
pub const TARGET: &str = "x86_64-unknown-hermit";

/// Flags for all code of a guest, `std`'s and the program's: a fixed address, and frame pointers,
/// so that a fault has a backtrace.
pub const CODEGEN: [&str; 2] = ["-Crelocation-model=static", "-Cforce-frame-pointers=yes"];

/// For programs whose profile asks for LTO.
const BITCODE: &str = "-Cembed-bitcode=yes";

/// Source of the panic runtime.
const PANIC_RUNTIME: &str = include_str!("panic_runtime.rs");
/// The name under which `std` looks for it.
const PANIC_RUNTIME_NAME: &str = "panic_abort";

/// The crates to build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Library {
    /// `std` and all below it.
    Std,
    /// `core` and `alloc`.
    Alloc,
}

impl Library {
    fn crates(self) -> &'static str {
        match self {
            Self::Std => "std,panic_abort",
            Self::Alloc => "core,alloc",
        }
    }
}

/// Why there is no sysroot.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// A file operation in the cache failed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The compilation failed; cargo has printed why.
    #[error("the standard library could not be compiled with {rustc} ({status}); see above")]
    Compile {
        /// The compiler.
        rustc: String,
        /// How cargo ended.
        status: ExitStatus,
    },
}

/// The sysroot of `toolchain` in `cache`, compiled if it does not exist; `announce` is called
/// before that. Concurrent callers wait for each other.
///
/// # Errors
/// [`Error`].
pub fn ensure(
    toolchain: &Toolchain,
    library: Library,
    cache: &Path,
    announce: impl FnOnce(),
) -> Result<PathBuf, Error> {
    let sysroot = cache.join(format!("sysroot-{:016x}", fingerprint(toolchain, library)));
    if sysroot.is_dir() {
        return Ok(sysroot);
    }
    fs::create_dir_all(cache).map_err(file("make", cache))?;
    let lock = cache.join("lock");
    let held = File::create(&lock).map_err(file("make", &lock))?;
    held.lock().map_err(file("lock", &lock))?;
    if sysroot.is_dir() {
        return Ok(sysroot);
    }
    announce();
    // Files of an interrupted run are useless: nothing tells how far it got.
    let work = cache.join("unfinished");
    remove(&work)?;
    let made = compile(toolchain, library, &work)?;
    fs::rename(&made, &sysroot).map_err(file("make", &sysroot))?;
    remove(&work)?;
    Ok(sysroot)
}

/// Identifies everything that the content depends on.
fn fingerprint(toolchain: &Toolchain, library: Library) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&toolchain.version, &toolchain.library, library, CODEGEN, BITCODE, PANIC_RUNTIME)
        .hash(&mut hasher);
    hasher.finish()
}

/// Compiles into `work` and returns the finished sysroot in it.
fn compile(toolchain: &Toolchain, library: Library, work: &Path) -> Result<PathBuf, Error> {
    // An empty crate, so that cargo builds the library.
    let dummy = work.join("crate");
    let source = dummy.join("lib.rs");
    let manifest = dummy.join("Cargo.toml");
    fs::create_dir_all(&dummy).map_err(file("make", &dummy))?;
    fs::write(&manifest, MANIFEST).map_err(file("write", &manifest))?;
    fs::write(&source, "#![no_std]\n").map_err(file("write", &source))?;

    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(&dummy)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Zbuild-std-features=compiler-builtins-mem",
        ])
        .arg(format!("-Zbuild-std={}", library.crates()))
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(work.join("target"));
    let vendor = toolchain.library.join("vendor");
    if vendor.is_dir() {
        let directory = toml_string(&vendor.to_string_lossy());
        cargo.args(["--config", "source.crates-io.replace-with='vmm-lite-vendor'"]);
        cargo.arg("--config").arg(format!("source.vmm-lite-vendor.directory={directory}"));
    }
    let mut flags = CODEGEN.to_vec();
    flags.push(BITCODE);
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // `-Zbuild-std`, with a compiler of the stable channel. Only the standard library is
        // compiled this way.
        .env("RUSTC_BOOTSTRAP", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let start = |source| Error::File { what: "start", path: toolchain.cargo.clone(), source };
    let mut child = cargo.spawn().map_err(start)?;
    let stdout = child.stdout.take().expect("standard output is piped");
    let mut libraries = Vec::new();
    for line in BufReader::new(stdout).lines() {
        libraries.extend(rlib(&line.map_err(start)?));
    }
    let status = child.wait().map_err(start)?;
    if !status.success() {
        return Err(Error::Compile { rustc: toolchain.short_version().into(), status });
    }

    let sysroot = work.join("sysroot");
    let lib = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&lib).map_err(file("make", &lib))?;
    for rlib in libraries {
        let name = rlib.file_name().expect("a file of cargo's has a name");
        if !name.to_string_lossy().starts_with(&format!("lib{PANIC_RUNTIME_NAME}-")) {
            fs::copy(&rlib, lib.join(name)).map_err(file("copy", &rlib))?;
        }
    }
    if library == Library::Std {
        compile_panic_runtime(toolchain, work, &sysroot, &lib)?;
    }
    Ok(sysroot)
}

/// Puts our panic runtime in place of the original.
fn compile_panic_runtime(
    toolchain: &Toolchain,
    work: &Path,
    sysroot: &Path,
    lib: &Path,
) -> Result<(), Error> {
    let source = work.join("panic_runtime.rs");
    fs::write(&source, PANIC_RUNTIME).map_err(file("write", &source))?;
    let status = Command::new(&toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--crate-name", PANIC_RUNTIME_NAME, "--crate-type", "rlib", "--edition", "2024"])
        .args(["--target", TARGET, "-Copt-level=3", "-Cpanic=abort", BITCODE])
        .args(CODEGEN)
        .arg("--sysroot")
        .arg(sysroot)
        .arg("-o")
        .arg(lib.join(format!("lib{PANIC_RUNTIME_NAME}-vmm_lite.rlib")))
        .arg(&source)
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::File { what: "start", path: toolchain.rustc.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Compile { rustc: toolchain.short_version().into(), status })
}

const MANIFEST: &str = "\
[package]
name = \"std-of-vmm-lite\"
version = \"0.0.0\"
edition = \"2024\"
[lib]
path = \"lib.rs\"
[profile.release]
opt-level = 3
debug = false
overflow-checks = false
[workspace]
";

/// The target's library in a message of cargo's. Libraries of the host, and the empty crate, are
/// not in the target's `deps`.
fn rlib(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message["filenames"][0].as_str()?);
    let for_target = path.ancestors().any(|d| d.ends_with(TARGET));
    let rlib = path.extension().is_some_and(|e| e == "rlib");
    let dependency = path.parent().is_some_and(|d| d.ends_with("deps"));
    (for_target && rlib && dependency).then_some(path)
}

/// A TOML string with any content.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file("remove", directory)(e)),
        _ => Ok(()),
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { what, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_target_are_distinguished_from_others() {
        let artifact = |path: &str| {
            rlib(
                &serde_json::json!({"reason": "compiler-artifact", "filenames": [path]})
                    .to_string(),
            )
        };
        let core = "/c/target/x86_64-unknown-hermit/release/deps/libcore-1.rlib";
        assert_eq!(artifact(core), Some(core.into()));
        assert_eq!(
            artifact("/c/target/x86_64-unknown-hermit/release/libstd_of_vmm_lite.rlib"),
            None
        );
        assert_eq!(artifact("/c/target/release/build/libc-1/build-script-build"), None);
        assert_eq!(rlib("not JSON"), None);
        assert_eq!(rlib(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
