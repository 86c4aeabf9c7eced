//! Why an image could not be made.

use super::{sysroot, toolchain};
use std::{io, path::PathBuf};

/// What went wrong, with what to do about it.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The path leads to no manifest.
    #[error("{} is not a Rust crate: there is no Cargo.toml", .0.display())]
    NotACrate(PathBuf),
    /// Cargo cannot read the manifest.
    #[error("{0}")]
    Manifest(String),
    /// Cargo could not be asked.
    #[error("cannot read the manifest with cargo metadata")]
    Metadata(#[source] Box<cargo_metadata::Error>),
    /// A package of another name.
    #[error("there is no package {name} in this workspace; it has {}", there.join(", "))]
    NoSuchPackage {
        /// The name asked for.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// Several packages could be meant.
    #[error("this workspace has several packages with a program; choose with -p: {}", .0.join(", \
        "))]
    WhichPackage(Vec<String>),
    /// A library.
    #[error("{0} has no program (no src/main.rs, no [[bin]]): an image is made of a program")]
    NoProgram(String),
    /// A program of another name.
    #[error("{package} has no program {name}; it has {}", there.join(", "))]
    NoSuchBin {
        /// The name asked for.
        name: String,
        /// The package.
        package: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// Several programs could be meant.
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
        /// What `-o` says.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// No toolchain.
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    /// No standard library.
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
    /// A file or directory.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Cargo could not be started.
    #[error("cannot start {}", cargo.display())]
    Start {
        /// Which.
        cargo: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program does not compile; cargo has said why.
    #[error("{program} does not compile; see above")]
    Compile {
        /// The program.
        program: String,
        /// Cargo's exit code.
        code: u8,
    },
    /// Cargo succeeded, and named no file.
    #[error("cargo built {0}, and did not say where")]
    NoArtifact(String),
    /// What was linked is no image.
    #[error("what was linked is no usable image")]
    Image(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something that the kernel does not have.
    #[error("{} needs what the kernel does not have: {}", path.display(), symbols.join(", "))]
    Undefined {
        /// The image.
        path: PathBuf,
        /// The names.
        symbols: Vec<String>,
    },
}
