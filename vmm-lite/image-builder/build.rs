//! Compiles the kernel into one object that exports `sys_*` and the entry and nothing else. The
//! program contains it, and `vmm-lite build` links it into images (see `src/`).
//!
//! `VMM_LITE_KERNEL` names a ready object to use instead, for a build without a toolchain for the
//! guest.

#[path = "src/sysroot.rs"]
#[allow(dead_code, reason = "the program uses all of it")]
mod sysroot;
#[path = "src/toolchain.rs"]
#[allow(dead_code, reason = "the program uses all of it")]
mod toolchain;

use object::{Object, ObjectSymbol, read::archive::ArchiveFile};
use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use sysroot::{CODEGEN, Library, TARGET};
use toolchain::Toolchain;

/// The symbols that the image uses: the ABI, and the entry.
const EXPORTED: [&str; 2] = ["sys_*", "_start"];

fn main() {
    if let Err(error) = make() {
        // One `cargo::error` for each line; they fail the build without a backtrace of this
        // program.
        for line in causes(&*error).lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn make() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = out.join("kernel.o");
    println!("cargo::rerun-if-env-changed=VMM_LITE_KERNEL");
    if let Some(ready) = env::var_os("VMM_LITE_KERNEL").filter(|path| !path.is_empty()) {
        println!("cargo::rerun-if-changed={}", Path::new(&ready).display());
        fs::copy(&ready, &object).map_err(|e| {
            format!("cannot copy {} (VMM_LITE_KERNEL): {e}", Path::new(&ready).display())
        })?;
        return Ok(());
    }

    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let top = here.ancestors().nth(2).ok_or("the crate lies in its workspace")?;
    for input in
        ["kernel/Cargo.toml", "kernel/src", "vmm-lite/interface", "Cargo.toml", "Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={}", top.join(input).display());
    }
    for input in ["build.rs", "src/sysroot.rs", "src/toolchain.rs"] {
        println!("cargo::rerun-if-changed={}", here.join(input).display());
    }
    println!("cargo::rerun-if-env-changed={}", toolchain::VARIABLE);

    let toolchain = toolchain::find(None, &here)?;
    let work = work_directory(&out);
    let sysroot = sysroot::ensure(&toolchain, Library::Alloc, &work, || ())?;
    let archive = compile(&toolchain, &sysroot, top, &work.join("target"))?;
    prelink(&archive, &object)
}

/// The directory for all profiles of this package, next to theirs in the target directory, so that
/// the kernel is compiled once.
fn work_directory(out: &Path) -> PathBuf {
    // OUT_DIR is …/PROFILE/build/PACKAGE-HASH/out.
    out.ancestors().nth(4).unwrap_or(out).join("vmm-lite-kernel")
}

/// Returns the kernel as a static library.
fn compile(
    toolchain: &Toolchain,
    sysroot: &Path,
    top: &Path,
    target: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(top)
        .args(["rustc", "--package", "vmm-lite-kernel", "--lib", "--crate-type", "staticlib"])
        .args(["--release", "--target", TARGET, "--target-dir"])
        .arg(target);
    let sysroot = format!("--sysroot={}", sysroot.display());
    let flags: Vec<&str> = CODEGEN.into_iter().chain([sysroot.as_str()]).collect();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for (key, value) in [
        ("OPT_LEVEL", "3"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("DEBUG", "false"),
        ("STRIP", "none"),
        ("DEBUG_ASSERTIONS", "false"),
        ("OVERFLOW_CHECKS", "false"),
        ("INCREMENTAL", "false"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    run(&mut cargo, "the kernel does not compile")?;
    Ok(target.join(TARGET).join("release/libkernel.a"))
}

/// Joins the members of the archive that the exported functions need, and hides all other names, so
/// that the kernel's own `core` does not clash with the program's.
fn prelink(archive: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    let mut ld = Command::new("ld");
    ld.args(["-r", "-o"]).arg(object);
    for name in exported(archive)? {
        ld.args(["-u", &name]);
    }
    run(ld.arg(archive), "the kernel cannot be linked")?;
    let mut objcopy = Command::new("objcopy");
    // The bitcode of compiler-builtins has no use after this.
    objcopy.args(["--wildcard", "--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    for name in EXPORTED {
        objcopy.arg(format!("--keep-global-symbol={name}"));
    }
    run(objcopy.arg(object), "the kernel's names cannot be hidden")
}

/// The archive's functions that images use.
fn exported(archive: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let data = fs::read(archive).map_err(|e| format!("cannot read {}: {e}", archive.display()))?;
    let mut names = BTreeSet::new();
    for member in ArchiveFile::parse(&*data)?.members() {
        // Members that are not objects contain no functions.
        let Ok(file) = object::File::parse(member?.data(&*data)?) else { continue };
        let defined = file.symbols().filter(|s| s.is_global() && s.is_definition());
        let names_of = defined.filter_map(|s| s.name().ok().map(str::to_owned));
        names.extend(names_of.filter(|n| n.starts_with("sys_") || n == "_start"));
    }
    if names.contains("_start") {
        return Ok(names);
    }
    Err("the kernel has no _start".into())
}

/// Runs a tool; prints its output if it fails.
fn run(command: &mut Command, failed: &str) -> Result<(), Box<dyn Error>> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| {
        format!("cannot start {tool}: {e} (ld and objcopy: apt-get install binutils)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{failed}:\n{}", String::from_utf8_lossy(&output.stderr)).into())
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
