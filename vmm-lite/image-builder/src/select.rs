//! Selects the programs of an invocation.

use super::{Error, Request, toolchain::Toolchain};
use cargo_metadata::{Metadata, MetadataCommand, Package, Target, TargetKind};
use std::path::{Path, PathBuf};

/// A program to build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The manifest of its package.
    pub manifest: PathBuf,
    /// Name of its package.
    pub package: String,
    /// Name of the program.
    pub bin: String,
}

/// The selected programs, and cargo's directory for them.
#[derive(Debug)]
pub struct Selection {
    /// In the requested order.
    pub programs: Vec<Program>,
    /// Cargo's target directory for the workspace.
    pub target_directory: PathBuf,
}

/// Reads the manifests of `request` and selects its programs.
///
/// # Errors
/// The error in the request or the manifest.
pub fn select(request: &Request, toolchain: &Toolchain) -> Result<Selection, Error> {
    let manifest = manifest(request)?;
    let mut cargo = MetadataCommand::new();
    cargo.cargo_path(&toolchain.cargo).no_deps().env("RUSTC", &toolchain.rustc);
    if let Some(manifest) = &manifest {
        cargo.manifest_path(manifest);
    }
    let metadata = cargo.exec().map_err(|e| match e {
        cargo_metadata::Error::CargoMetadata { stderr } => Error::Manifest(said(&stderr)),
        other => Error::Metadata(Box::new(other)),
    })?;
    let mut programs = Vec::new();
    for package in packages(request, manifest.as_deref(), &metadata)? {
        let target = bin(package, request.bin.as_deref())?;
        programs.push(Program {
            manifest: package.manifest_path.clone().into(),
            package: package.name.to_string(),
            bin: target.name.clone(),
        });
    }
    Ok(Selection { programs, target_directory: metadata.target_directory.into() })
}

/// The manifest at the path; without a path, cargo searches from the current directory upwards.
fn manifest(request: &Request) -> Result<Option<PathBuf>, Error> {
    let Some(path) = &request.path else { return Ok(None) };
    let manifest = if path.is_dir() { path.join("Cargo.toml") } else { path.clone() };
    let fits = manifest.is_file() && manifest.extension().is_some_and(|e| e == "toml");
    if !fits {
        return Err(Error::NotACrate(path.clone()));
    }
    std::path::absolute(&manifest).map(Some).map_err(|_| Error::NotACrate(path.clone()))
}

/// The packages requested by name; else the one at the path or around the current directory; else
/// the only one of the workspace that has a program.
fn packages<'m>(
    request: &Request,
    manifest: Option<&Path>,
    metadata: &'m Metadata,
) -> Result<Vec<&'m Package>, Error> {
    let members = metadata.workspace_packages();
    let names = |packages: &[&Package]| packages.iter().map(|p| p.name.to_string()).collect();
    if !request.packages.is_empty() {
        let named =
            |name: &String| {
                members.iter().copied().find(|p| p.name.as_str() == name).ok_or_else(|| {
                    Error::NoSuchPackage { name: name.clone(), there: names(&members) }
                })
            };
        return request.packages.iter().map(named).collect();
    }
    let here = match manifest {
        Some(manifest) => manifest.canonicalize().ok(),
        None => std::env::current_dir().ok().and_then(|dir| nearest_manifest(&dir)),
    };
    let is_here = |p: &&&Package| Some(p.manifest_path.as_std_path()) == here.as_deref();
    if let Some(package) = members.iter().find(is_here) {
        return Ok(vec![package]);
    }
    let with_programs: Vec<&Package> =
        members.iter().copied().filter(|p| bins(p).next().is_some()).collect();
    match with_programs.as_slice() {
        [only] => Ok(vec![only]),
        [] => Err(Error::NoProgram(metadata.workspace_root.to_string())),
        several => Err(Error::WhichPackage(names(several))),
    }
}

fn nearest_manifest(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().map(|d| d.join("Cargo.toml")).find(|m| m.is_file())
}

/// The package's program of that name; without a name its `default-run`, or its only one.
fn bin<'m>(package: &'m Package, asked: Option<&str>) -> Result<&'m Target, Error> {
    let there: Vec<&Target> = bins(package).collect();
    let names = || there.iter().map(|t| t.name.clone()).collect();
    if let Some(name) = asked.or(package.default_run.as_deref()) {
        return there.iter().copied().find(|t| t.name == name).ok_or_else(|| Error::NoSuchBin {
            name: name.into(),
            package: package.name.to_string(),
            there: names(),
        });
    }
    match there.as_slice() {
        [only] => Ok(only),
        [] => Err(Error::NoProgram(package.name.to_string())),
        _ => Err(Error::WhichBin { package: package.name.to_string(), there: names() }),
    }
}

fn bins(package: &Package) -> impl Iterator<Item = &Target> {
    package.targets.iter().filter(|t| t.kind.contains(&TargetKind::Bin))
}

/// Cargo's message, without its prefix.
fn said(stderr: &str) -> String {
    stderr.trim().trim_start_matches("error: ").into()
}
