//! What a clone costs that does nothing: memory that it shares with nobody.

use std::{fs, thread, time::Duration};

use vmm_lite_lab::{Error, Result};

/// For so long they have nothing to do before that: what a clone does when it starts is behind it.
const IDLE: Duration = Duration::from_secs(1);

/// Private memory of each of these processes after a while in which nobody asked anything of them,
/// in bytes.
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

/// What there is of private memory in such a file; `None` if that does not say.
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
