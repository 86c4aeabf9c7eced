//! The requests `snapshot`, `fork` and `revert` of the control socket.

use super::server::{Answer, Reply};
use api::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs::File, io, os::fd::RawFd, time::Duration};
use vmm::{
    capture::Way,
    migration::progress,
    snapshot::{
        Error, GuestClock,
        operations::{self, Options, Progress},
    },
    vm::{Observer, Vm},
};

/// A function that serves one of them, given the VM, the request, the files that came with it, and
/// the reply channel.
pub type Serve = fn(&Vm, &Request, Vec<File>, &mut Reply) -> Answer;

/// The function that serves `verb`, if it is one of these.
#[must_use]
pub fn verb(verb: &str) -> Option<Serve> {
    Some(match verb {
        "snapshot" => snapshot,
        "fork" => fork,
        "revert" => revert,
        _ => return None,
    })
}

impl Observer<Progress> for Reply {
    fn progress(&mut self, progress: Progress) -> io::Result<()> {
        match progress {
            Progress::Pages { done, of } => self.tell(&json!({ "pages": done, "of": of })),
            Progress::Waiting { waiting, since } => self.tell(&progress::waiting(&waiting, since)),
        }
    }

    fn fd(&self) -> RawFd {
        self.stream_fd()
    }
}

fn timeout(request: &Request) -> Result<Option<Duration>, Error> {
    let timeout = request.members().get("timeout_ns").filter(|value| !value.is_null());
    let nanoseconds = |value: &Value| value.as_u64().map(Duration::from_nanos);
    let wrong = || Error::Options("timeout_ns is not a number".into());
    timeout.map(|value| nanoseconds(value).ok_or_else(wrong)).transpose()
}

fn files<const N: usize>(files: Vec<File>) -> Result<[File; N], Error> {
    let wrong = |files: Vec<File>| {
        Error::Options(format!("{} files came with the request, {N} were expected", files.len()))
    };
    files.try_into().map_err(wrong)
}

fn snapshot(vm: &Vm, request: &Request, mut came: Vec<File>, reply: &mut Reply) -> Answer {
    let way = request.members().get("mode").cloned().unwrap_or_else(|| "auto".into());
    let options = Options {
        stay_paused: request.flag("stay_paused"),
        way: serde_json::from_value::<Way>(way).map_err(|_| Error::Mode)?,
        timeout: timeout(request)?,
    };
    let base = if came.len() == 2 { came.pop() } else { None };
    let [file] = files(came)?;
    Ok(serde_json::to_value(operations::snapshot(vm, file, base, options, reply)?)?)
}

/// Copies the VM into a template: the first file receives its memory, the second its manifest and
/// state.
fn fork(vm: &Vm, request: &Request, came: Vec<File>, reply: &mut Reply) -> Answer {
    let [memory, seed] = files(came)?;
    Ok(serde_json::to_value(operations::fork(vm, memory, seed, timeout(request)?, reply)?)?)
}

fn revert(vm: &Vm, request: &Request, came: Vec<File>, reply: &mut Reply) -> Answer {
    let [file] = files(came)?;
    let clock = request.members().get("clock").map(GuestClock::deserialize).transpose();
    let clock = clock.map_err(|e| Error::Options(format!("clock: {e}")))?.unwrap_or_default();
    Ok(serde_json::to_value(operations::put_back(vm, file, clock, timeout(request)?, reply)?)?)
}
