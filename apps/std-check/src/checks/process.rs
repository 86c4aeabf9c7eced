//! The process itself. `--die` tests how it ends.

use crate::check::{Outcome, skip};
use crate::{checks, ensure};
use std::process::{Command, Stdio};

checks!["process": commands, executable];

fn commands() -> Outcome {
    match Command::new("/bin/true").stdin(Stdio::null()).status() {
        Err(error) if cfg!(target_os = "hermit") => {
            ensure!(
                error.kind() == std::io::ErrorKind::Unsupported,
                "a unikernel's refusal is {error:?}"
            );
            skip("a unikernel has one process; starting another is refused, as it should be")
        }
        Err(error) => Err(error.into()),
        Ok(status) => {
            ensure!(status.success(), "/bin/true ended with {status}");
            Ok(())
        }
    }
}

fn executable() -> Outcome {
    match std::env::current_exe() {
        Ok(path) => ensure!(!path.as_os_str().is_empty(), "an empty path"),
        Err(error) if cfg!(target_os = "hermit") => {
            return skip(format_args!("std for hermit has none: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
