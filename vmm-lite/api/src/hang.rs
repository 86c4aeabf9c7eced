//! Where in the kernel a thread of another process waits. For verbs: a process with a VM may not
//! open files of `/proc`.

use crate::stats::Stalled;
use std::fs;

/// A stalled thread as `stats` reports it, in words, and where it is in the kernel.
#[must_use]
pub fn stalled(pid: u32, stalled: &Stalled) -> String {
    let Stalled { thread, tid, doing, for_ms } = stalled;
    let seconds = *for_ms as f64 / 1e3;
    let kernel = of(pid, *tid, thread).map_or_else(String::new, |at| format!(" ({at})"));
    format!(
        "thread {thread} ({tid}), which has not answered for {seconds:.1} s: it {doing}{kernel}"
    )
}

/// What thread `tid` of process `pid` waits for in the kernel, in words, as far as this user may
/// know. `None` if there is no such thread of that name.
#[must_use]
pub fn of(pid: u32, tid: i32, name: &str) -> Option<String> {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}"));
    let comm = read("comm").ok()?;
    // The main thread has the program's name. Another PID namespace has other numbers.
    if comm.trim_end() != name && pid.cast_signed() != tid {
        return None;
    }
    let mut text = format!("state {}", state_in(&read("status").ok()?)?);
    if let Some(wchan) = read("wchan").ok().filter(|w| !w.is_empty() && w != "0") {
        text += &format!(", in {wchan}");
    }
    let syscall = read("syscall").unwrap_or_default();
    let number = syscall.split(' ').next().and_then(|n| n.parse::<usize>().ok());
    if let Some(call) = number.and_then(syscalls::Sysno::new) {
        text += &format!(", system call {call}");
    }
    Some(text)
}

/// A process's state: the kernel's letter and word for it.
#[must_use]
pub fn state(pid: u32) -> Option<String> {
    state_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn state_in(status: &str) -> Option<String> {
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?;
    Some(state.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_thread_is_reported_as_such() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let sleeps = move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = gone.recv();
        };
        let thread = std::thread::Builder::new().name("sleeps".into()).spawn(sleeps).unwrap();
        let (pid, tid) = (std::process::id(), told.recv().unwrap());
        while !of(pid, tid, "sleeps").unwrap().contains("state S (sleeping)") {
            std::thread::yield_now();
        }
        assert_eq!(of(pid, tid, "another"), None);
        assert!(state(std::process::id()).is_some());
        drop(go);
        thread.join().unwrap();
    }
}
