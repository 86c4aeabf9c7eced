//! Finds the Rust toolchain that builds for the guest.
//!
//! The target has no prebuilt standard library, so it takes a toolchain that has the library's
//! source: rustup's active one with `rust-src`, else Debian's. The build script of this crate uses
//! this file too.

use std::{
    env,
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest compiler that is known to work.
pub const OLDEST: (u32, u32) = (1, 95);
/// Names a toolchain, like `--toolchain`.
pub const VARIABLE: &str = "VMM_LITE_TOOLCHAIN";
/// Where Debian's packages install theirs.
const DEBIAN: &str = "/usr";

/// A compiler, its cargo, and the source of its standard library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    /// Where it is installed.
    pub sysroot: PathBuf,
    /// Its compiler.
    pub rustc: PathBuf,
    /// Its cargo, the same version as the compiler.
    pub cargo: PathBuf,
    /// The standard library's workspace.
    pub library: PathBuf,
    /// Output of `rustc -vV`: version, commit, host.
    pub version: String,
}

/// Why there is no toolchain to use.
#[derive(Debug)]
pub enum Error {
    /// The requested one cannot be used.
    Unusable {
        /// Its name, as requested.
        name: String,
        /// The reason.
        why: String,
    },
    /// None was found.
    NoneFound {
        /// The toolchains that were tried, with the reason for each.
        tried: Vec<String>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        match self {
            Self::Unusable { name, why } => write!(f, "the toolchain {name} cannot be used: {why}"),
            Self::NoneFound { tried } => {
                writeln!(f, "no Rust toolchain here can build for unikernels:")?;
                for why in tried {
                    writeln!(f, "  - {why}")?;
                }
                write!(
                    f,
                    "install one of these, {major}.{minor} or newer:\n  \
                     rustup component add rust-src\n  \
                     apt-get install --no-install-recommends rustc-web cargo-web rust-web-src   \
                     (Debian 12, from bookworm-security)"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// Finds the toolchain for `directory`, where a `rust-toolchain.toml` may select it. `asked` is the
/// name of a rustup toolchain, or a directory with `bin/rustc` in it.
///
/// # Errors
/// [`Error`], which says what to install.
pub fn find(asked: Option<&OsStr>, directory: &Path) -> Result<Toolchain, Error> {
    let from_env = env::var_os(VARIABLE).filter(|name| !name.is_empty());
    if let Some(name) = asked.map(OsStr::to_owned).or(from_env) {
        let shown = name.to_string_lossy().into_owned();
        let sysroot = if Path::new(&name).is_dir() {
            Ok(PathBuf::from(&name))
        } else {
            let toolchain = shown.trim_start_matches('+');
            sysroot_of(Command::new("rustup").args(["run", toolchain, "rustc"]))
        };
        return sysroot
            .and_then(|sysroot| Toolchain::at(&sysroot))
            .map_err(|why| Error::Unusable { name: shown, why });
    }
    let mut tried = Vec::new();
    match sysroot_of(Command::new("rustc").current_dir(directory)) {
        Ok(sysroot) => match Toolchain::at(&sysroot) {
            Ok(toolchain) => return Ok(toolchain),
            Err(why) => tried.push(why),
        },
        Err(why) => tried.push(why),
    }
    match Toolchain::at(Path::new(DEBIAN)) {
        Ok(toolchain) => Ok(toolchain),
        Err(why) => {
            tried.push(why);
            tried.dedup();
            Err(Error::NoneFound { tried })
        }
    }
}

impl Toolchain {
    /// The toolchain installed at `sysroot`, or what it lacks.
    fn at(sysroot: &Path) -> Result<Self, String> {
        let [rustc, cargo] = ["rustc", "cargo"].map(|tool| sysroot.join("bin").join(tool));
        let library = sysroot.join("lib/rustlib/src/rust/library");
        if !rustc.is_file() {
            return Err(format!("{} is not there", rustc.display()));
        }
        let version = output(Command::new(&rustc).arg("-vV"))?;
        let short = version.lines().next().unwrap_or_default();
        if release(&version).is_none_or(|found| found < OLDEST) {
            return Err(format!("{} is too old ({short})", rustc.display()));
        }
        if !library.join("std/Cargo.toml").is_file() {
            return Err(format!(
                "{} ({short}) has no source of the standard library",
                sysroot.display()
            ));
        }
        if !cargo.is_file() {
            return Err(format!("{} is not there", cargo.display()));
        }
        Ok(Self { sysroot: sysroot.into(), rustc, cargo, library, version })
    }

    /// Its cargo, set to use its compiler and no other.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.env("RUSTC", &self.rustc);
        // Variables that a calling cargo sets for its own purposes.
        for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"] {
            cargo.env_remove(name);
        }
        // Meant for programs of the host.
        for name in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        cargo
    }

    /// `rustc 1.96.0 (…)`.
    #[must_use]
    pub fn short_version(&self) -> &str {
        self.version.lines().next().unwrap_or_default()
    }
}

fn sysroot_of(rustc: &mut Command) -> Result<PathBuf, String> {
    output(rustc.args(["--print", "sysroot"])).map(|path| path.trim().into())
}

/// A command's output, or why it fails, in one line.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("no {name} on the PATH"),
        _ => format!("cannot start {name}: {e}"),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", said.lines().next().unwrap_or("failed without a message")))
}

/// Major and minor of `rustc -vV`.
fn release(version: &str) -> Option<(u32, u32)> {
    let release = version.lines().find_map(|line| line.strip_prefix("release: "))?;
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(release("rustc 1.96.0\nhost: x\nrelease: 1.96.0\n"), Some((1, 96)));
        assert_eq!(release("release: 1.97.0-nightly"), Some((1, 97)));
        assert_eq!(release("rustc 1.96.0"), None);
    }

    #[test]
    fn a_missing_toolchain_is_named() {
        let error = find(Some(OsStr::new("/tmp")), Path::new("/")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the toolchain /tmp cannot be used: /tmp/bin/rustc is not there"
        );
    }

    #[test]
    fn the_error_says_what_to_install() {
        let text = Error::NoneFound { tried: vec!["no rustc on the PATH".into()] }.to_string();
        assert!(text.contains("rustup component add rust-src"));
        assert!(text.contains("apt-get install"));
        assert!(text.contains("no rustc on the PATH"));
    }
}
