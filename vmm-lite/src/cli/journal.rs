//! Options of a VM's journal.

use super::arguments;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use vmm::{
    replication::journal::{Journal, Keep, Options, Snapshots, SyncPolicy, Until},
    vm::{RecordOptions, Vm},
};

/// How a VM's journal is kept.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Journal")]
#[group(skip)]
pub struct Args {
    /// Keep everything that the VM is given there, on disk: after a power cut it goes on where it
    /// was, with `vmm-lite restore --journal`. The directory is made, or must be empty
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,

    #[command(flatten)]
    pub how: How,
}

/// The options besides the directory.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct How {
    /// When the journal is synced. `always`: whatever leaves the VM waits for that, so nothing that
    /// it has answered is lost, whatever fails. A time, or `never`: the end of this process loses
    /// nothing, a power cut what is not synced yet
    #[arg(long, value_name = "always|TIME|never", default_value = "always",
        value_parser = sync, help_heading = "Journal")]
    sync: Sync,

    /// Save the VM in its journal this often while it runs, so that it need not be replayed from
    /// its beginning; `never`: only at its start
    #[arg(long, value_name = "TIME|never", default_value = "60s", value_parser = snapshot_every,
        help_heading = "Journal")]
    snapshot_every: Often,

    /// How much of the past the journal keeps: a number of snapshots, a time like 60min, or a size
    /// like 1G. What lies before the oldest snapshot that is kept is removed
    #[arg(long, value_name = "N|TIME|SIZE", default_value = "2", value_parser = keep,
        help_heading = "Journal")]
    keep: Keeps,

    /// Put digests of the VM's memory and registers into the journal at one of this many exits, by
    /// which a replay is checked; 0: only when the program ends
    #[arg(long, value_name = "N", default_value = "4096", help_heading = "Journal")]
    check_every: u64,

    /// Keep the journal although the program reads clocks or random numbers of the CPU by itself:
    /// what it makes of them may make a replay, and what goes on after a power cut, go another way
    #[arg(long, help_heading = "Journal")]
    allow_own_clock: bool,

    /// The digests are of all of the memory, and not of a part each
    #[arg(long, help_heading = "Journal")]
    check_whole: bool,
}

/// When a journal is synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sync(SyncPolicy);

fn sync(text: &str) -> Result<Sync, String> {
    Ok(Sync(match text {
        "always" => SyncPolicy::Always,
        "never" => SyncPolicy::Never,
        time => SyncPolicy::Every(
            arguments::duration(time).map_err(|e| format!("{e}, or always, or never"))?,
        ),
    }))
}

/// How often a VM is saved in its journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Often(Option<Duration>);

fn snapshot_every(text: &str) -> Result<Often, String> {
    if text == "never" {
        return Ok(Often(None));
    }
    let time = arguments::duration(text).map_err(|e| format!("{e}, or never"))?;
    if time < Duration::from_millis(100) {
        return Err("at least 100ms: each is a copy of the VM".into());
    }
    Ok(Often(Some(time)))
}

/// What a journal keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keeps(Keep);

fn keep(text: &str) -> Result<Keeps, String> {
    if let Ok(count) = text.parse() {
        return match count {
            0 => Err("the last snapshot is always kept: at least 1".into()),
            count => Ok(Keeps(Keep::Snapshots(count))),
        };
    }
    if let Ok(time) = arguments::duration(text) {
        return Ok(Keeps(Keep::For(time)));
    }
    let size = arguments::size(text).map_err(|_| "write a number, a time or a size like 1G")?;
    Ok(Keeps(Keep::Bytes(size)))
}

impl How {
    /// Has a journal make snapshots of its VM, if it is to.
    ///
    /// # Errors
    /// If the host cannot start a thread.
    pub fn make_snapshots(self, journal: &Journal, vm: &Vm) -> io::Result<()> {
        let Some(every) = self.snapshot_every.0 else { return Ok(()) };
        journal.make_snapshots(vm, Snapshots { every, keep: self.keep.0 })
    }

    /// The options.
    pub fn options(self) -> Options {
        let Self { check_every, check_whole, allow_own_clock, .. } = self;
        let record = RecordOptions { check_every, check_whole, allow_own_clock };
        Options { sync: self.sync.0, record }
    }
}

/// A moment in a journal, as the user names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment(u64, bool);

/// The number of a record, or a time.
///
/// # Errors
/// A text for the user.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(record) = text.parse() {
        return Ok(Moment(record, false));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        "write the number of a record, or a time like 2026-11-30T17:45:00.250Z".to_owned()
    })?;
    let ns = u64::try_from(time.unix_timestamp_nanos()).map_err(|_| "a time after 1970")?;
    Ok(Moment(ns, true))
}

/// The moment, or else the end.
pub fn until(moment: Option<Moment>) -> Until {
    match moment {
        None => Until::End,
        Some(Moment(record, false)) => Until::Record(record),
        Some(Moment(wall, true)) => Until::Wall(wall),
    }
}

/// Checks that a process that is jailed could keep a journal in `dir`.
///
/// # Errors
/// A text for the user.
pub fn check_jail(jail_has_files: bool, dir: &Path) -> Result<(), String> {
    if !jail_has_files {
        return Ok(());
    }
    Err(format!(
        "a jailed VM can open no files, and its journal makes new ones in {}: leave that part of \
         the jail out with --jail-without files",
        dir.display()
    ))
}

/// Ends a journal: what its VM did last is durable, and has left.
pub fn finish(journal: Option<Journal>) {
    if let Some(Err(e)) = journal.map(|journal| journal.flush()) {
        eprintln!("vmm-lite: the journal lacks its end: {}", vmm::host::with_causes(&e));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_records_or_times() {
        assert_eq!(until(Some(moment("17").unwrap())), Until::Record(17));
        let noon = until(Some(moment("2026-11-30T12:00:00.5Z").unwrap()));
        assert_eq!(noon, Until::Wall(1_796_040_000_500_000_000));
        assert_eq!(until(None), Until::End);
        for wrong in ["", "yesterday", "-1", "1960-01-01T00:00:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn journals_are_synced_always_now_and_then_or_never() {
        assert_eq!(sync("always"), Ok(Sync(SyncPolicy::Always)));
        let ten = Duration::from_millis(10);
        assert_eq!(sync("10ms"), Ok(Sync(SyncPolicy::Every(ten))));
        assert_eq!(sync("never"), Ok(Sync(SyncPolicy::Never)));
        assert!(sync("sometimes").unwrap_err().contains("always"));
    }

    #[test]
    fn what_is_kept_is_a_number_a_time_or_a_size() {
        assert_eq!(keep("3"), Ok(Keeps(Keep::Snapshots(3))));
        assert_eq!(keep("60min"), Ok(Keeps(Keep::For(Duration::from_secs(3600)))));
        assert_eq!(keep("1G"), Ok(Keeps(Keep::Bytes(1 << 30))));
        assert!(keep("0").is_err() && keep("all").is_err());
        assert_eq!(snapshot_every("never"), Ok(Often(None)));
        assert!(snapshot_every("1ms").is_err());
    }
}
