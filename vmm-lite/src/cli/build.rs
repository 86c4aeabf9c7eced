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

An instruction of the program's own that reads a clock or random numbers of the CPU (rdtsc, rdrand
and the like) is reported: such a program can be neither protected nor replayed.

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
        if let Some(warning) = warning(built) {
            eprintln!("{warning}");
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

/// About instructions that read clocks or random numbers of the CPU.
fn warning(built: &Built) -> Option<String> {
    let found = &built.own_clock;
    let times = match found.count {
        0 => return None,
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let bin = &built.bin;
    let mut text =
        format!("vmm-lite: warning: {bin} reads clocks of the CPU by itself, {times}:\n");
    for reading in &found.first {
        let of = reading.crate_name().map(|name| format!(" (crate {name})")).unwrap_or_default();
        text += &format!("  {reading}{of}\n");
    }
    if found.count as usize > found.first.len() {
        text += "  ...\n";
    }
    if found.first.iter().any(|reading| reading.function.is_none()) {
        text += "Without `strip` in its profile, the functions would be named.\n";
    }
    text += "It runs, moves and is saved as any other. But the input log lacks what these \
             instructions return,\nso its runs cannot be repeated: `protect`, `run --journal` and \
             `replay` refuse it unless\n--allow-own-clock is given. The clocks of std::time, and \
             random numbers of std and getrandom,\nare in the log.";
    Some(text)
}

fn json_line(built: &Built) -> String {
    serde_json::json!({
        "image": built.path,
        "package": built.package,
        "bin": built.bin,
        "size": built.size,
        "unchanged": built.fresh,
        "seconds": built.took.as_secs_f64(),
        "own_clock": {
            "count": built.own_clock.count,
            "first": built.own_clock.first.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_builder::own_clock::{OwnClock, Reading};

    #[test]
    fn a_warning_names_function_and_crate() {
        let reading = |function: Option<&str>| Reading {
            function: function.map(Into::into),
            offset: 0x10,
            instruction: "rdtsc",
        };
        let mut built = Built {
            path: "kv.img".into(),
            package: "kv".into(),
            bin: "kv".into(),
            size: 1,
            fresh: false,
            own_clock: OwnClock::default(),
            took: std::time::Duration::ZERO,
        };
        assert_eq!(warning(&built), None);
        built.own_clock = OwnClock { count: 1, first: vec![reading(Some("quanta::now"))] };
        let said = warning(&built).unwrap();
        assert!(said.contains("  quanta::now+0x10: rdtsc (crate quanta)\nIt runs"), "{said}");
        assert!(said.lines().all(|line| line.len() <= 100), "{said}");
        built.own_clock = OwnClock { count: 9, first: vec![reading(None)] };
        let said = warning(&built).unwrap();
        assert!(said.contains("9 times") && said.contains("...\nWithout `strip`"), "{said}");
    }
}
