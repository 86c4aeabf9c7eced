//! A VM that says nothing while a verb waits for it: what is the matter with it.
//!
//! Asked on another connection, so that it does not matter which of its threads hangs, or that the
//! whole process does not run.

use crate::hang;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

/// How long a VM may be silent before it is asked, and again after that.
const QUIET: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const ANSWER_MAX: u64 = 1 << 20;

/// Waits until there is something to be read. If that takes long, `say` is told what is waited for,
/// whenever that is another: a thread of the VM that hangs, or a process that answers nobody.
pub(crate) fn wait(stream: &UnixStream, say: &mut dyn FnMut(&str)) {
    let mut said = String::new();
    // What cannot be waited for is read, which tells why.
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
        // Nothing is known then: it is waited for again.
        Err(nix::errno::Errno::EINTR) => Ok(false),
        ready => Ok(ready? != 0),
    }
}

/// What is the matter: in short, to tell whether it is the same as before, and in words.
fn matter(stream: &UnixStream) -> Option<(String, String)> {
    match stats(stream) {
        Ok(Some(stats)) => {
            let stalled = stats["stalled"].as_array()?;
            let first = stalled.first()?;
            let pid = stats["pid"].as_u64().unwrap_or(0);
            let words: Vec<_> = stalled.iter().map(|one| hang::stalled(pid, one)).collect();
            Some((format!("{}", first["tid"]), words.join("; and ")))
        }
        // It has something else to say to that, such as that there are too many clients: it
        // answers.
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
        // It has ended, most likely, which whoever waits learns.
        Err(_) => None,
    }
}

/// Asks for the VM's figures, on a new connection; `None`: it refuses.
fn stats(stream: &UnixStream) -> io::Result<Option<Value>> {
    let mut other = UnixStream::connect_addr(&stream.peer_addr()?)?;
    other.set_read_timeout(Some(QUIET))?;
    other.set_write_timeout(Some(QUIET))?;
    other.write_all(b"{\"verb\":\"stats\"}\n")?;
    let mut line = Vec::new();
    BufReader::new(other.take(ANSWER_MAX)).read_until(b'\n', &mut line)?;
    let mut answer: Value = serde_json::from_slice(&line)?;
    Ok(answer.get_mut("ok").map(Value::take))
}
