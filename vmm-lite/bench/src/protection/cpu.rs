//! CPU time of processes, with their threads and the child processes that run.

use std::{fs, io};

use vmm_lite_lab::{Result, error::Doing};

/// A tick of `/proc/PID/stat`: USER_HZ is 100 on Linux.
const TICK_US: f64 = 10_000.0;

/// CPU time so far of a process and of its descendants that run, user and system, in µs.
///
/// # Errors
/// If the process does not exist.
pub fn of_tree(pid: u32) -> Result<f64> {
    let all: Vec<Charged> = fs::read_dir("/proc")
        .doing("list processes")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        // A process may end meanwhile.
        .filter_map(|pid| {
            Charged::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        })
        .collect();
    if !all.iter().any(|process| process.pid == pid) {
        return Err(io::Error::from(io::ErrorKind::NotFound)).doing(format!("find process {pid}"));
    }
    let mut family = vec![pid];
    let mut ticks = 0.0;
    while let Some(of) = family.pop() {
        family.extend(all.iter().filter(|p| p.parent == of).map(|p| p.pid));
        ticks += all.iter().filter(|p| p.pid == of).map(|p| p.ticks).sum::<f64>();
    }
    Ok(ticks * TICK_US)
}

/// CPU time so far of everything that ran on this machine, in µs: also interrupts and the kernel's
/// threads, which no process is charged for.
///
/// # Errors
/// If the kernel does not report it.
pub fn of_machine() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").doing("read /proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the guests' time is a part of user.
    let busy = |at: usize| ticks.get(at).copied().unwrap_or_default();
    Ok([0, 1, 2, 5, 6].map(busy).iter().sum::<f64>() * TICK_US)
}

/// A process, and what it has used.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Charged {
    pid: u32,
    parent: u32,
    ticks: f64,
}

impl Charged {
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        // The name, in parentheses, may contain spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        let ticks = f64::from(number(11)?) + f64::from(number(12)?);
        Some(Self { pid, parent: number(1)?, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 3 0 5 6 7";
        assert_eq!(Charged::parse(7, stat), Some(Charged { pid: 7, parent: 1, ticks: 42.0 }));
        assert_eq!(Charged::parse(7, "7 (a"), None);
    }

    #[test]
    fn this_process_has_used_the_cpu() {
        assert!(of_machine().unwrap() > 0.0);
        assert!(of_tree(std::process::id()).is_ok());
    }
}
