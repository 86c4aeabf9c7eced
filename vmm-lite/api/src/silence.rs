//! Finds out why a VM is silent while a verb waits for it.
//!
//! The query uses another connection, so that it does not matter which of the VM's threads hangs,
//! or that the whole process does not run.

use crate::{Request, Stats, answer::Line, hang, verb};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

/// How long a VM may be silent before it is queried, and again after that.
const QUIET: Duration = Duration::from_secs(2);
/// Limit for the length of an answer.
const ANSWER_MAX: u64 = 1 << 20;

/// Waits until there is something to be read. If that takes long, `say` gets the reason, whenever
/// that changes: a thread of the VM that hangs, or a process that does not answer.
pub(crate) fn wait(stream: &UnixStream, say: &mut dyn FnMut(&str)) {
    let mut said = String::new();
    // If waiting fails, reading reports why.
    while matches!(readable(stream), Ok(false)) {
        let Some((which, what)) = matter(stream) else { continue };
        if which != said {
            say(&what);
            said = which;
        }
    }
}

fn readable(stream: &UnixStream) -> io::Result<bool> {
    let mut entries = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(QUIET).unwrap_or(PollTimeout::MAX);
    match poll(&mut entries, timeout) {
        // Nothing is known then: wait again.
        Err(nix::errno::Errno::EINTR) => Ok(false),
        ready => Ok(ready? != 0),
    }
}

/// The reason: a short form, to compare with the last one, and one in words.
fn matter(stream: &UnixStream) -> Option<(String, String)> {
    match stats(stream) {
        Ok(Some(stats)) => {
            let first = stats.stalled.first()?;
            let words = stats.stalled.iter().map(|one| hang::stalled(stats.pid, one));
            Some((first.tid.to_string(), words.collect::<Vec<_>>().join("; and ")))
        }
        // It answers with something else, such as that it has too many clients: so it is
        // responsive.
        Ok(None) => None,
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let pid = getsockopt(stream, PeerCredentials).ok()?.pid();
            let state = hang::state(pid.cast_unsigned()).unwrap_or_else(|| "unknown".into());
            let what = format!(
                "process {pid}, which answers nobody: it is starting, was stopped, or hangs (state \
                 {state})"
            );
            Some((state, what))
        }
        // Most likely it has ended, which the waiting client notices.
        Err(_) => None,
    }
}

/// Requests the VM's statistics, on a new connection; `None` if it refuses.
fn stats(stream: &UnixStream) -> io::Result<Option<Stats>> {
    let mut other = UnixStream::connect_addr(&stream.peer_addr()?)?;
    other.set_read_timeout(Some(QUIET))?;
    other.set_write_timeout(Some(QUIET))?;
    let request = serde_json::to_string(&Request::from(verb::Stats::default()))?;
    other.write_all((request + "\n").as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(other.take(ANSWER_MAX)).read_until(b'\n', &mut line)?;
    Ok(match serde_json::from_slice(&line)? {
        Line::Ok { ok } => Some(ok),
        Line::Progress { .. } | Line::Error(_) => None,
    })
}
