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
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(100);

fn arb(dir: &Path) -> Arb {
    format!("file:{}", dir.display()).parse().unwrap()
}

/// A set's directory.
fn dir_of(dir: &TempDir, set: SetId) -> PathBuf {
    dir.path().join(set.to_string())
}

/// The file of a set's version.
fn stored(dir: &TempDir, set: SetId, version: Version) -> PathBuf {
    dir_of(dir, set).join(format!("{:020}.record", version.0))
}

/// Has the lock of a set, as a member that hangs in the storage.
fn hold_lock(dir: &TempDir, set: SetId) -> File {
    let file = OpenOptions::new().write(true).open(dir_of(dir, set).join("lock")).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    file
}

#[test]
fn storage_that_hangs_delays_nobody_beyond_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let swap = Swap::new(made, first.next(first.active, [])).unwrap();
    let lock = hold_lock(&dir, first.set);
    let began = Instant::now();
    // More requests than the process has threads.
    for _ in 0..6 {
        assert!(matches!(client.read(first.set, SHORT), Err(Error::Unreachable(_))));
        assert!(matches!(client.swap(&swap, SHORT), Err(Error::Unreachable(_))));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(lock);
    // *Unreachable* means that the swap does not happen later either.
    assert_eq!(version(&mut client, first.set), made);
    assert_eq!(version(&mut in_thread(arb(dir.path())).unwrap(), first.set), made);
    assert!(matches!(client.swap(&swap, LONG), Ok(Outcome::Won(_))));
}

#[test]
fn unusable_directories_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let swap = Swap::new(Version::NONE, first()).unwrap();
    let said = |path: &Path| match in_thread(arb(path)).unwrap().swap(&swap, LONG) {
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
    let [one, other] = [SetId(random()), SetId(random())];
    fs::create_dir(dir_of(&dir, one)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", stored(&dir, one, Version(1))).unwrap();
    std::os::unix::fs::symlink("/tmp", dir_of(&dir, other)).unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    for set in [one, other] {
        assert!(matches!(client.read(set, LONG), Err(Error::Refused(_))));
    }
}

#[test]
fn removed_sets_are_remembered_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let mut remove = |age: Duration| {
        let first = first();
        let made = win(&mut client, Version::NONE, first.clone());
        assert!(matches!(client.forget(first.set, made, LONG), Ok(Outcome::Won(_))));
        let path = dir_of(&dir, first.set);
        File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let hour = Duration::from_secs(3600);
    let (old, recent, last) = (remove(25 * hour), remove(23 * hour), remove(Duration::ZERO));
    assert!(!old.exists() && recent.exists() && last.exists());
    // One that was not removed stays, however old.
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let path = dir_of(&dir, first.set);
    File::open(&path).unwrap().set_modified(SystemTime::now() - 1000 * hour).unwrap();
    let other = common::first();
    let version_of_other = win(&mut client, Version::NONE, other.clone());
    client.forget(other.set, version_of_other, LONG).unwrap();
    assert_eq!(version(&mut client, first.set), made);
}

#[test]
fn a_set_takes_a_few_files_however_often_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let mut record = first();
    let mut last = win(&mut client, Version::NONE, record.clone());
    for _ in 0..20 {
        record = record.next(MemberId(random()), []);
        last = win(&mut client, last, record.clone());
    }
    let mut names: Vec<_> = fs::read_dir(dir_of(&dir, record.set))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [format!("{:020}.record", last.0), "lock".into()]);
}

#[test]
fn other_users_get_the_rights_that_the_directory_gives() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2770)).unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir_of(&dir, first.set)), 0o2770);
    assert_eq!(mode(&dir_of(&dir, first.set).join("lock")), 0o660);
    assert_eq!(mode(&stored(&dir, first.set, made)), 0o660);
}

/// NFS takes locks away from a host that is cut off, and executes that host's last call when the
/// link is back.
#[test]
fn a_change_that_completes_after_its_lock_was_lost_wins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = in_thread(arb(dir.path())).unwrap();
    let first = first();
    let made = win(&mut client, Version::NONE, first.clone());
    let late = Swap::new(made, first.next(MemberId(random()), [])).unwrap();
    let taken = first.next(MemberId(random()), []);
    let won = win(&mut client, made, taken.clone());
    // What the host of `late` had prepared.
    let prepared = dir_of(&dir, first.set).join(format!("{}.new", late.nonce));
    fs::write(&prepared, "its content").unwrap();
    let same = fs::hard_link(&prepared, stored(&dir, first.set, won));
    assert_eq!(same.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    // Later, when the version that it wanted to be is long gone.
    let newer = win(&mut client, won, taken.next(taken.active, []));
    fs::write(&prepared, "its content").unwrap();
    fs::hard_link(&prepared, stored(&dir, first.set, won)).unwrap();
    assert_eq!(version(&mut client, first.set), newer);
    assert!(matches!(client.swap(&late, LONG), Ok(Outcome::Lost(Some(_)))));
    // Nor does it revive a removed set.
    client.forget(first.set, newer, LONG).unwrap();
    fs::write(&prepared, "its content").unwrap();
    let _ = fs::hard_link(&prepared, stored(&dir, first.set, won));
    assert_eq!(client.read(first.set, LONG), Ok(None));
    assert_eq!(client.swap(&late, LONG), Ok(Outcome::Lost(None)));
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
        let new = dir_of(&dir, first.set).join("00112233445566778899aabbccddeeff.new");
        fs::create_dir(dir_of(&dir, first.set)).unwrap();
        fs::write(&new, &left).unwrap();
        prop_assert_eq!(client.read(first.set, LONG), Ok(None));
        let made = win(&mut client, Version::NONE, first.clone());
        let content = fs::read(stored(&dir, first.set, made)).unwrap();
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
        let path = stored(&dir, first.set, made);
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
