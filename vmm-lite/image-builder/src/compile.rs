//! The program, compiled by cargo and linked with the kernel.

use super::{
    Error, Request,
    select::Program,
    sysroot::{CODEGEN, TARGET},
    toolchain::Toolchain,
};
use cargo_metadata::Message;
use std::{
    io::BufReader,
    path::{Path, PathBuf},
    process::Stdio,
};
use vmm_lite_interface::layout::IMAGE_BASE;

/// The inputs of a program's build.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Compiler and cargo.
    pub toolchain: &'a Toolchain,
    /// The standard library.
    pub sysroot: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// Cargo's target directory.
    pub target_directory: &'a Path,
}

/// A linked program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    /// The file, in cargo's target directory.
    pub path: PathBuf,
    /// Nothing had changed since the last time.
    pub fresh: bool,
}

/// Compiles and links `program`. Cargo shows its progress and the compiler's messages on standard
/// error.
///
/// # Errors
/// [`Error::Compile`] with cargo's exit code if the program does not compile.
pub fn compile(request: &Request, program: &Program, parts: &Parts<'_>) -> Result<Linked, Error> {
    let mut cargo = parts.toolchain.cargo();
    cargo
        .args(["rustc", "--message-format=json-render-diagnostics", "--target", TARGET])
        .args(["--profile", &request.profile, "--bin", &program.bin])
        .arg("--manifest-path")
        .arg(&program.manifest)
        .arg("--target-dir")
        .arg(parts.target_directory)
        .args(&request.cargo_options);
    for list in &request.features {
        cargo.args(["--features", list]);
    }
    // Flags of the final link only: what is compiled before it does not depend on the kernel.
    cargo.arg("--").args(link_flags(parts.kernel));

    // With `--target`, these do not apply to build scripts and procedural macros. They replace
    // flags that the user's configuration sets for programs of the host.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", guest_flags(parts.sysroot));

    let start = |source| Error::Start { cargo: parts.toolchain.cargo.clone(), source };
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let stdout = child.stdout.take().expect("standard output is piped");
    let mut linked = None;
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message.map_err(start)?
            && let Some(path) = artifact.executable
            && artifact.target.name == program.bin
        {
            linked = Some(Linked { path: path.into(), fresh: artifact.fresh });
        }
    }
    let status = child.wait().map_err(start)?;
    if !status.success() {
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Err(Error::Compile { program: program.bin.clone(), code });
    }
    linked.ok_or_else(|| Error::NoArtifact(program.bin.clone()))
}

/// The flags for all code of the guest, in the form of `CARGO_ENCODED_RUSTFLAGS`.
#[must_use]
pub fn guest_flags(sysroot: &Path) -> String {
    let sysroot = format!("--sysroot={}", sysroot.display());
    CODEGEN.into_iter().chain([sysroot.as_str()]).collect::<Vec<_>>().join("\x1f")
}

/// One static executable at a fixed address, with nothing undefined, that starts in the kernel.
fn link_flags(kernel: &Path) -> Vec<String> {
    let linker = [
        "--no-dynamic-linker",
        "-zdefs",
        "-znorelro",
        "-zmax-page-size=4096",
        "--build-id=none",
        // Without it, linking a program without the kernel would give an empty image and no error.
        "--require-defined=_start",
        // std's entry, which only the kernel calls.
        "--undefined=runtime_entry",
        &format!("-Ttext-segment={IMAGE_BASE:#x}"),
        &kernel.to_string_lossy(),
    ]
    .map(|arg| format!("-Clink-arg={arg}"));
    ["-Clinker=ld", "-Clinker-flavor=ld"].map(str::to_owned).into_iter().chain(linker).collect()
}
