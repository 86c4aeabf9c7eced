//! The requests `snapshot`, `fork` and `revert` of the control socket.

use super::{
    Error, reports,
    server::{Answer, Reply},
};
use api::{
    Response,
    progress::{Pages, Progress as Told},
    verb,
};
use std::{fs::File, io, os::fd::RawFd, time::Duration};
use vmm::{
    capture::Way,
    migration::progress,
    snapshot::{
        GuestClock,
        operations::{self, Options, Progress},
    },
    vm::{Observer, Vm},
};

impl Observer<Progress> for Reply {
    fn progress(&mut self, progress: Progress) -> io::Result<()> {
        self.tell(match progress {
            Progress::Pages { done, of } => {
                Told::Pages(Pages { pages: done as u64, of: of as u64 })
            }
            Progress::Waiting { waiting, since } => {
                Told::Event(reports::event(progress::waiting(&waiting, since)))
            }
        })
    }

    fn fd(&self) -> RawFd {
        self.stream_fd()
    }
}

fn files<const N: usize>(files: Vec<File>) -> Result<[File; N], Error> {
    let wrong = |files: Vec<File>| Error::Files { came: files.len(), expected: N };
    files.try_into().map_err(wrong)
}

/// Saves the VM to the first file, as the difference to the second if there is one.
pub fn snapshot(vm: &Vm, verb: verb::Snapshot, mut came: Vec<File>, reply: &mut Reply) -> Answer {
    let options = Options {
        stay_paused: verb.stay_paused,
        way: match verb.mode {
            verb::CopyMode::Auto => Way::Auto,
            verb::CopyMode::Rounds => Way::Rounds,
            verb::CopyMode::CopyOnWrite => Way::CopyOnWrite,
        },
        timeout: verb.timeout_ns.map(Duration::from_nanos),
    };
    let base = if came.len() == 2 { came.pop() } else { None };
    let [file] = files(came)?;
    let saved = operations::snapshot(vm, file, base, options, reply)?;
    Ok(Response::Saved(reports::saved(saved)))
}

/// Copies the VM into a template: the first file receives its memory, the second its manifest and
/// state.
pub fn fork(vm: &Vm, verb: verb::Fork, came: Vec<File>, reply: &mut Reply) -> Answer {
    let [memory, seed] = files(came)?;
    let timeout = verb.timeout_ns.map(Duration::from_nanos);
    let forked = operations::fork(vm, memory, seed, timeout, reply)?;
    Ok(Response::Forked(reports::forked(forked)))
}

/// Puts the VM back to the snapshot in the file.
pub fn revert(vm: &Vm, verb: verb::Revert, came: Vec<File>, reply: &mut Reply) -> Answer {
    let [file] = files(came)?;
    let clock = match verb.clock {
        verb::Clock::Continue => GuestClock::Continue,
        verb::Clock::Jump => GuestClock::Jump,
    };
    let timeout = verb.timeout_ns.map(Duration::from_nanos);
    let reverted = operations::put_back(vm, file, clock, timeout, reply)?;
    Ok(Response::Reverted(reports::reverted(reverted)))
}
