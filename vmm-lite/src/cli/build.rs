//! `vmm-lite build`.

use image_builder::{Built, Error, Request};
use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};
use vmm::boot::Image;

const EXAMPLES: &str = r#"Examples:
  vmm-lite build                          the crate in this directory → NAME.img
  vmm-lite build apps/kv -o /srv/kv.img
  vmm-lite build -p hello -p echo -o images/
  vmm-lite build --bin server --features tls --profile dev
  (eval "$(vmm-lite build --print-env)" && cargo clippy)        a check for the guest's target

Needs a Rust toolchain that has the source of the standard library (rustup component add rust-src;
or Debian's rustc-web, cargo-web, rust-web-src), and ld (binutils). The standard library is compiled
once, for about a minute, and kept in $XDG_CACHE_HOME/vmm-lite (or $VMM_LITE_CACHE), which may be
removed at any time.

Exit codes: 0 done, 101 the program does not compile (cargo's code), 1 anything else."#;

/// Make a unikernel image from a Rust crate
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The crate: its directory or Cargo.toml [default: the current directory]
    path: Option<PathBuf>,

    /// Package of the workspace (may be given several times)
    #[arg(short, long = "package", value_name = "PKG", num_args = 1..)]
    package: Vec<String>,

    /// Which of the package's programs
    #[arg(long, value_name = "NAME")]
    bin: Option<String>,

    /// Features to enable, separated by commas or spaces
    #[arg(short = 'F', long, value_name = "FEATURES")]
    features: Vec<String>,

    /// Enable all features
    #[arg(long)]
    all_features: bool,

    /// Disable the default features
    #[arg(long)]
    no_default_features: bool,

    /// Build with the release profile; this is the default
    #[arg(short, long, conflicts_with = "profile")]
    release: bool,

    /// Build with this profile
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,

    /// The image; a directory if it exists or ends with `/` [default: NAME.img]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,

    /// Directory for cargo's output [default: vmm-lite in the crate's target directory]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,

    /// Rust toolchain: a rustup name, or the directory that holds bin/rustc [env:
    /// VMM_LITE_TOOLCHAIN]
    #[arg(long, value_name = "TOOLCHAIN")]
    toolchain: Option<OsString>,

    /// Do not change Cargo.lock
    #[arg(long)]
    locked: bool,

    /// Do not use the network
    #[arg(long)]
    offline: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Print one JSON object for each image
    #[arg(long)]
    json: bool,

    /// Build nothing; print the environment that other cargo commands need to see the guest's
    /// target, for eval in a shell
    #[arg(long)]
    print_env: bool,
}

/// Runs the verb.
///
/// # Errors
/// See [`Error`]; a program that does not compile is reported by an exit code.
pub fn run(args: Args) -> super::Result {
    let (json, quiet, print_env) = (args.json, args.quiet, args.print_env);
    let request = request(args);
    let tell = |text: &str| {
        if !quiet {
            eprintln!("vmm-lite: {text}");
        }
    };
    if print_env {
        for (name, value) in image_builder::environment(&request, tell)? {
            writeln!(std::io::stdout(), "export {name}={}", shell_quoted(&value))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut printed = Ok(());
    let report = |built: &Built| {
        let text = if json { json_line(built) } else { line(built) };
        if (json || !quiet) && printed.is_ok() {
            printed = writeln!(std::io::stdout(), "{text}");
        }
    };
    let accepts = |path: &std::path::Path| Ok(Image::open(path).map(drop)?);
    match image_builder::build(&request, &accepts, tell, report) {
        Ok(()) => {
            printed?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ Error::Compile { code, .. }) => {
            eprintln!("vmm-lite: {error}");
            Ok(ExitCode::from(code))
        }
        Err(error) => Err(error.into()),
    }
}

fn request(args: Args) -> Request {
    let options = [
        ("--all-features", args.all_features),
        ("--no-default-features", args.no_default_features),
        ("--locked", args.locked),
        ("--offline", args.offline),
        ("--quiet", args.quiet),
    ];
    let set = options.into_iter().filter(|(_, set)| *set);
    Request {
        path: args.path,
        packages: args.package,
        bin: args.bin,
        features: args.features,
        profile: args.profile,
        cargo_options: set.map(|(option, _)| option.to_owned()).collect(),
        output: args.output,
        target_directory: args.target_dir,
        toolchain: args.toolchain,
    }
}

/// Quotes a text as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `kv.img  1.2 MiB, built in 0.4 s`.
fn line(built: &Built) -> String {
    let size = match built.size {
        0..0x10_0000 => format!("{} KiB", built.size.div_ceil(1024)),
        size => format!("{:.1} MiB", size as f64 / f64::from(1 << 20)),
    };
    let how = if built.fresh { "unchanged" } else { "built" };
    format!("{}  {size}, {how} in {:.1} s", built.path.display(), built.took.as_secs_f64())
}

fn json_line(built: &Built) -> String {
    serde_json::json!({
        "image": built.path,
        "package": built.package,
        "bin": built.bin,
        "size": built.size,
        "unchanged": built.fresh,
        "seconds": built.took.as_secs_f64(),
    })
    .to_string()
}
