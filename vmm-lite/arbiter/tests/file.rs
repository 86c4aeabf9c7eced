//! The file arbiter, where processes are killed and the storage hangs.

mod common;

use arbiter::{Arb, Error, MemberId, Outcome, SetId, Swap, Version, in_thread};
use common::{LONG, first, random, record, version, win};
use nix::fcntl::{FcntlArg, fcntl};
use proptest::prelude::*;
use std::{
    collections::HashSet,
    env,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(100);

fn arb(dir: &Path) -> Arb {
    format!("file:{}", dir.display()).parse().unwrap()
}

fn stored(dir: &TempDir, set: SetId, what: &str) -> PathBuf {
    dir.path().join(format!("{set}.{what}"))
}

/// Has the lock of all sets, as a member that hangs in the storage.
fn hold_locks(dir: &Path) -> Vec<File> {
    let hold = |n| {
        let path = dir.join(format!("lock-{n:02}"));
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path).unwrap();
        let lock = libc::flock {
            l_type: libc::F_WRLCK as _,
            l_whence: libc::SEEK_SET as _,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        file
    };
    (0..64).map(hold).collect()
}

#[test]
fn storage_that_hangs_delays_nobody_beyond_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let swap = Swap::new(made, first.next(first.active, [])).unwrap();
    let locks = hold_locks(dir.path());
    let began = Instant::now();
    // More requests than the process has threads.
    for _ in 0..6 {
        assert!(matches!(client.read(first.set, SHORT), Err(Error::Unreachable(_))));
        assert!(matches!(client.swap(&swap, SHORT), Err(Error::Unreachable(_))));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(locks);
    // *Unreachable* means that the swap does not happen later either.
    assert_eq!(version(&mut client, first.set), made);
    assert_eq!(version(&mut in_thread(arb(dir.path())).unwrap(), first.set), made);
    assert!(matches!(client.swap(&swap, LONG), Ok(Outcome::Won(_))));
}

#[test]
fn unusable_directories_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let said = |path: &Path| match in_thread(arb(path)).unwrap().read(SetId(random()), LONG) {
        Err(Error::Refused(said)) => said,
        other => panic!("{other:?}"),
    };
    let text = said(&dir.path().join("none"));
    assert!(text.contains("is the shared file system mounted?"), "{text}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(said(&file).contains("Not a directory"));
    // Nobody may make files there, root included.
    let text = said(Path::new("/sys"));
    assert!(text.contains("must be writable"), "{text}");
}

#[test]
fn a_link_in_the_place_of_a_record_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let set = SetId(random());
    std::os::unix::fs::symlink("/etc/passwd", stored(&dir, set, "record")).unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    assert!(matches!(client.read(set, LONG), Err(Error::Refused(_))));
}

#[test]
fn removing_a_set_removes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let first = first();
    client.announce(first.set, first.active, LONG).unwrap();
    let made = win(&mut client, Version::NONE, first.clone());
    let other = common::first();
    win(&mut client, Version::NONE, other.clone());
    client.forget(first.set, made, LONG).unwrap();
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("lock-"))
        .collect();
    left.sort();
    assert_eq!(left, [format!("{}.record", other.set)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A process may be killed, and the power may fail, at any point of a swap: what lies beside
    /// the record has no meaning.
    #[test]
    fn what_an_interrupted_swap_leaves_is_ignored(
        left in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut client = in_thread(arb(dir.path())).unwrap();
        let first = first();
        let new = stored(&dir, first.set, "new");
        fs::write(&new, &left).unwrap();
        prop_assert_eq!(client.read(first.set, LONG), Ok(None));
        let made = win(&mut client, Version::NONE, first.clone());
        let content = fs::read(stored(&dir, first.set, "record")).unwrap();
        fs::write(&new, &content[..cut.index(content.len())]).unwrap();
        prop_assert_eq!(version(&mut client, first.set), made);
        win(&mut client, made, first.next(first.active, []));
    }

    /// Storage that loses data is found out, and never taken for no record.
    #[test]
    fn a_damaged_record_lets_nobody_win(cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut client = in_thread(arb(dir.path())).unwrap();
        let first = first();
        let made = win(&mut client, Version::NONE, first.clone());
        let path = stored(&dir, first.set, "record");
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..cut.index(content.len())]).unwrap();
        for expected in [Version::NONE, made] {
            let swap = Swap::new(expected, first.next(first.active, [])).unwrap();
            prop_assert!(matches!(client.swap(&swap, LONG), Err(Error::Damaged(_))));
        }
        prop_assert!(matches!(client.read(first.set, LONG), Err(Error::Damaged(_))));
    }
}

/// Set for the processes that race: the directory, the set and the file for what they won.
const RACE: &str = "VMM_LITE_ARBITER_RACE";

/// A process of [`killed_processes_leave_one_winner_a_term`]; no test of its own.
#[test]
fn racer() {
    let Ok(race) = env::var(RACE) else { return };
    let [dir, set, log] = race.split('\n').collect::<Vec<_>>()[..] else { panic!("{race}") };
    let set = SetId(u128::from_str_radix(set, 16).unwrap().to_be_bytes());
    let mut log = OpenOptions::new().append(true).open(log).unwrap();
    let (mut client, member) = (in_thread(arb(Path::new(dir))).unwrap(), MemberId(random()));
    loop {
        let current = client.read(set, LONG).unwrap().unwrap();
        let swap = Swap::new(current.version, current.record.next(member, [])).unwrap();
        if let Outcome::Won(version) = client.swap(&swap, LONG).unwrap() {
            // One write, which a kill does not divide.
            let line = format!("{} {}\n", swap.new.term, version.0);
            log.write_all(line.as_bytes()).unwrap();
        }
    }
}

#[test]
fn killed_processes_leave_one_winner_a_term() {
    const RACERS: usize = 4;
    const KILLS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("won.log");
    File::create(&log).unwrap();
    let first = first();
    let mut client = in_thread(arb(dir.path())).unwrap();
    win(&mut client, Version::NONE, record(first.set, 1, first.active));
    let race = format!("{}\n{}\n{}", dir.path().display(), first.set, log.display());
    let start = || -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "racer", "--nocapture"]).env(RACE, &race);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut racers: Vec<_> = (0..RACERS).map(|_| start()).collect();
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    for _ in 0..KILLS {
        // Progress, and then a random moment.
        let before = lines();
        let end = Instant::now() + LONG;
        while lines() == before {
            assert!(Instant::now() < end, "no member wins any more");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(fastrand::u64(..3000)));
        let n = fastrand::usize(..RACERS);
        racers[n].kill().unwrap();
        racers[n].wait().unwrap();
        racers[n] = start();
    }
    for mut racer in racers {
        racer.kill().unwrap();
        racer.wait().unwrap();
    }
    let text = fs::read_to_string(&log).unwrap();
    let won: Vec<(u64, u64)> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(term, version)| (term.parse().unwrap(), version.parse().unwrap()))
        .collect();
    let terms: HashSet<_> = won.iter().map(|(term, _)| term).collect();
    assert_eq!(terms.len(), won.len(), "a term was won twice: {text}");
    let versions: HashSet<_> = won.iter().map(|(_, version)| version).collect();
    assert_eq!(versions.len(), won.len(), "a version came twice: {text}");
    // What was answered as won is stored; what was killed before its answer may be.
    let last = client.read(first.set, LONG).unwrap().unwrap().record.term.0;
    let most = won.iter().map(|(term, _)| *term).max().unwrap();
    assert!((most..=most + 1).contains(&last), "{most} won, {last} stored");
    let missing = last - 1 - won.len() as u64;
    assert!(missing <= KILLS as u64 + RACERS as u64, "{missing} of {last} terms by no one");
}
