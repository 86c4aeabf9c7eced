//! Why an image could not be made.

use super::{sysroot, toolchain};
use std::{io, path::PathBuf};

/// Why it failed, and how to fix it.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// There is no manifest at the path.
    #[error("{} is not a Rust crate: there is no Cargo.toml", .0.display())]
    NotACrate(PathBuf),
    /// Cargo cannot read the manifest.
    #[error("{0}")]
    Manifest(String),
    /// Cargo could not read the metadata.
    #[error("cannot read the manifest with cargo metadata")]
    Metadata(#[source] Box<cargo_metadata::Error>),
    /// The workspace has no package of this name.
    #[error("there is no package {name} in this workspace; it has {}", there.join(", "))]
    NoSuchPackage {
        /// The requested name.
        name: String,
        /// The existing ones.
        there: Vec<String>,
    },
    /// Several packages are possible.
    #[error("this workspace has several packages with a program; choose with -p: {}", .0.join(", \
        "))]
    WhichPackage(Vec<String>),
    /// A library.
    #[error("{0} has no program (no src/main.rs, no [[bin]]): an image is made of a program")]
    NoProgram(String),
    /// The package has no program of this name.
    #[error("{package} has no program {name}; it has {}", there.join(", "))]
    NoSuchBin {
        /// The requested name.
        name: String,
        /// The package.
        package: String,
        /// The existing ones.
        there: Vec<String>,
    },
    /// Several programs are possible.
    #[error("{package} has several programs; choose with --bin: {}", there.join(", "))]
    WhichBin {
        /// The package.
        package: String,
        /// Its programs.
        there: Vec<String>,
    },
    /// `-o` names a file, and there are several images.
    #[error("{} is one file, and {count} images are to be made: name a directory with \
        -o", path.display())]
    OneOutput {
        /// The argument of `-o`.
        path: PathBuf,
        /// The number of images.
        count: usize,
    },
    /// There is no toolchain.
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    /// There is no standard library.
    #[error(transparent)]
    Sysroot(#[from] sysroot::Error),
    /// A tool that is not installed.
    #[error("{tool} is not installed: apt-get install {package}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error(
        "no place for the compiled standard library: set VMM_LITE_CACHE, XDG_CACHE_HOME or HOME"
    )]
    NoCache,
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Cargo could not be started.
    #[error("cannot start {}", cargo.display())]
    Start {
        /// Its path.
        cargo: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The program does not compile; cargo has printed why.
    #[error("{program} does not compile; see above")]
    Compile {
        /// The program.
        program: String,
        /// Cargo's exit code.
        code: u8,
    },
    /// Cargo succeeded, but named no file.
    #[error("cargo built {0}, and did not say where")]
    NoArtifact(String),
    /// The linked file is not an image.
    #[error("the linked file is not a usable image")]
    Image(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The image, or the kernel object, cannot be read.
    #[error("the linked file, or the kernel in it, is not a usable object file")]
    Object(#[source] object::Error),
    /// The kernel has no note for clock readings.
    #[error(
        "the kernel in this vmm-lite has no note for clock readings; leave VMM_LITE_KERNEL out, or \
         name a kernel of the same version when vmm-lite is built"
    )]
    Note,
    /// The program uses symbols that the kernel does not have.
    #[error("{} uses symbols that the kernel lacks: {}", path.display(), symbols.join(", "))]
    Undefined {
        /// The image.
        path: PathBuf,
        /// The names.
        symbols: Vec<String>,
    },
}
