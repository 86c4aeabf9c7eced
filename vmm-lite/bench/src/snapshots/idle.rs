//! The cost of an idle clone: memory that it does not share.

use std::{fs, thread, time::Duration};

use vmm_lite_lab::{Error, Result};

/// How long they are idle before the measurement, so that their start is over.
const IDLE: Duration = Duration::from_secs(1);

/// Private memory of each of these processes after a time without requests, in bytes.
pub fn private(pids: &[u64]) -> Result<Vec<u64>> {
    thread::sleep(IDLE);
    pids.iter().map(|pid| of(*pid)).collect()
}

fn of(pid: u64) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path)
        .map_err(|source| Error::Io { what: format!("read {path}"), source })?;
    sum(&text).ok_or(Error::Protocol { what: path, said: text })
}

/// The private memory in such a file; `None` if the file does not contain it.
fn sum(text: &str) -> Option<u64> {
    let kib = |field: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
        rest.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("Private_Clean:")? + kib("Private_Dirty:")?) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_counted_and_no_other() {
        let text = "00400000-7ffd r 00:00 0 [rollup]\nRss:  900 kB\nShared_Clean:  700 \
            kB\nPrivate_Clean:  12 kB\nPrivate_Dirty:  188 kB\n";
        assert_eq!(sum(text), Some(200 << 10));
        assert_eq!(sum("Rss: 900 kB\n"), None);
    }
}
