//! `vmm-lite merge`.

use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use vmm::snapshot::{merge, new_file::NewFile};

/// Merge a snapshot and a difference to it into a complete snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vmm-lite merge sunday.snap monday.snap -o whole.snap")]
pub struct Args {
    /// The difference's base
    base: PathBuf,
    /// The difference
    diff: PathBuf,
    /// The new snapshot
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If they do not belong together, are damaged, or the new one cannot be written.
pub fn run(args: Args) -> super::Result {
    let open = |path: &PathBuf| {
        files::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let (base, diff) = (open(&args.base)?, open(&args.diff)?);
    let cannot = |e| format!("cannot write {}: {e}", args.output.display());
    let output = NewFile::at(&args.output).map_err(cannot)?;
    let header = merge::merge(base, diff, output.file().try_clone()?)?;
    output.publish().map_err(cannot)?;
    let id = vmm::snapshot::operations::hex(&header.id);
    if args.json {
        println!(
            "{}",
            json!({ "id": id, "bytes": header.file_size, "pages_saved": header.data_pages })
        );
    } else {
        println!("{} is complete: {} pages", args.output.display(), header.data_pages);
    }
    Ok(ExitCode::SUCCESS)
}
