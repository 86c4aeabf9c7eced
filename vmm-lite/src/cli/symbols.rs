//! `vmm-lite symbols`.

use super::arguments;
use std::{path::PathBuf, process::ExitCode};
use vmm::{boot::Image, vm::Symbols};

const EXAMPLES: &str = "\
The report of a guest that failed names functions where its image is. A VM that was moved, \
restored or forked has none: its report ends with the command that names
them, to be run where the image is that the VM was first started from. Another build of the same \
program has other addresses.

Examples:
  vmm-lite symbols kv.img 0x10a2f4 0x10bb01";

/// Name the functions at addresses of an image
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The image, made by `vmm-lite build`
    image: PathBuf,

    /// Addresses in the program, in hexadecimal
    #[arg(required = true, value_name = "ADDRESS", value_parser = arguments::address)]
    addresses: Vec<u64>,
}

/// Runs the verb: prints a line for each address.
///
/// # Errors
/// If the file is not an image, or has no symbols.
pub fn run(args: Args) -> super::Result {
    let image = Image::open(&args.image)?;
    let symbols = Symbols::of(image.file())?;
    if symbols.is_empty() {
        return Err(format!("{} was stripped: it has no names", args.image.display()).into());
    }
    for address in args.addresses {
        let name = symbols.name(address).unwrap_or_else(|| "?".into());
        println!("{address:#014x} {name}");
    }
    Ok(ExitCode::SUCCESS)
}
