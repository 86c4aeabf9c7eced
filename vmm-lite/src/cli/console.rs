//! `vmm-lite console`.

use api::verb::Console;
use serde_json::json;
use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

/// Attach to a VM's console
///
/// Prints what the VM printed lately, then what it prints, and sends it the input, until the VM
/// ends, moves away, or Ctrl-C. Any number of clients may be attached; they never slow the VM down.
/// The end of this input is not the end of the VM's.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vmm-lite console kv\n  vmm-lite console kv < /dev/null | grep error"
)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// Print {"text": …} lines instead of the bare output
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or the connection fails.
pub fn run(args: Args) -> super::Result {
    let mut client = super::connect(&args.name)?;
    client.call(Console {})?;
    let (ahead, mut output) = client.into_raw();
    let mut input = output.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = io::stdin().lock().read(&mut buffer) {
            if input.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    });
    let mut to = io::stdout().lock();
    print(&mut to, &ahead, args.json)?;
    let mut buffer = [0; 8192];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(n) => print(&mut to, &buffer[..n], args.json)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn print(to: &mut impl Write, bytes: &[u8], as_json: bool) -> io::Result<()> {
    if as_json && !bytes.is_empty() {
        writeln!(to, "{}", json!({ "text": String::from_utf8_lossy(bytes) }))?;
    } else {
        to.write_all(bytes)?;
    }
    to.flush()
}
