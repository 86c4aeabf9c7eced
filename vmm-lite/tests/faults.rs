//! The fault matrix: at every message of a move the link breaks, the source dies, or the
//! destination dies. Exactly one VM runs, or none where its only host died; and the next try
//! succeeds.

use migrate::wire::Kind;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use vmm_lite_lab::{
    images::image,
    process::Process,
    relay::{Fate, Passing, Relay},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

const PORT: u16 = 7000;

/// What goes wrong, at a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Link(Fate),
    SourceDies,
    DestinationDies,
}

const FAULTS: [Fault; 5] = [
    Fault::Link(Fate::CutBefore),
    Fault::Link(Fate::CutWithin),
    Fault::Link(Fate::CutAfter),
    Fault::SourceDies,
    Fault::DestinationDies,
];

/// A message, by direction, kind and number.
type Place = (bool, Kind, usize);

struct Lab {
    site: Site,
    vmms: [Vmm; 2],
    image: PathBuf,
}

fn lab(test: &str) -> Option<Lab> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    Some(Lab { site, vmms, image: image("dirtier").unwrap() })
}

fn dirtier(vmm: &Vmm, image: &Path) -> Process {
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "256"];
    let vm = vmm.run(image, &args).unwrap();
    vm.wait_for_line("nonce", TIMEOUT).unwrap();
    vm
}

/// A round of some tens of milliseconds, in which the guest writes to all of its pages however busy
/// the host is: these are left for post-copy.
const SLOWLY: [&str; 2] = ["--bandwidth", "40MB"];

/// The state of the VM on a host, if there is one.
fn state(vmm: &Vmm) -> Option<String> {
    let stats = vmm.json(&["stats", "d", "--json"]).ok()?;
    Some(stats["state"].as_str()?.to_owned())
}

fn runs(vmm: &Vmm) -> bool {
    state(vmm).as_deref() == Some("running")
}

/// Waits until `so` is true; fails with the state of both hosts.
#[track_caller]
fn until(what: &str, vmms: &[Vmm; 2], mut so: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !so() {
        let states = || (state(&vmms[0]), state(&vmms[1]));
        assert!(Instant::now() < end, "{what}: {:?}", states());
        std::thread::yield_now();
    }
}

/// A move with a fault in it.
struct Attempt {
    source: Process,
    destination: Process,
    migrate: Child,
    /// Whether the source has sent the commit.
    committed: Arc<AtomicBool>,
}

/// Begins a move and lets `fault` happen at `place`; returns afterwards.
fn attempt(lab: &Lab, mode: &str, place: Place, fault: Fault) -> Attempt {
    let source = dirtier(&lab.vmms[0], &lab.image);
    let destination = lab.vmms[1].receive(PORT, &["--plaintext", "--lost-after", "300ms"]).unwrap();
    let (committed, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, tell) = (Arc::clone(&done), Arc::clone(&committed));
    let pids = [source.pid(), destination.pid()].map(|pid| Pid::from_raw(pid.cast_signed()));
    let judge = move |passing: &Passing| {
        let here = (passing.to_destination, passing.kind, passing.nth) == place;
        tell.fetch_or(passing.kind == Kind::Commit, SeqCst);
        let mut fate = Fate::Pass;
        match fault {
            Fault::Link(cut) if here => fate = cut,
            Fault::SourceDies if here => kill(pids[0], Signal::SIGKILL).unwrap(),
            Fault::DestinationDies if here => kill(pids[1], Signal::SIGKILL).unwrap(),
            _ => {}
        }
        told.fetch_or(here, SeqCst);
        fate
    };
    let to = format!("{}:{PORT}", lab.vmms[1].host().migration_ip);
    let relay = Relay::start(&lab.site.hosts[0].ns, to, judge).unwrap();
    let args = ["migrate", "d", &relay.url(), "--plaintext", "--mode", mode];
    let mut command = lab.vmms[0].command(&[&args[..], &SLOWLY].concat()).unwrap();
    let migrate = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let attempt = Attempt { source, destination, migrate, committed };
    until("the fault happens", &lab.vmms, || done.load(SeqCst));
    attempt
}

/// What must hold after a fault.
fn check(lab: &Lab, what: &str, fault: Fault, attempt: Attempt) {
    let Attempt { mut source, mut destination, mut migrate, committed } = attempt;
    let [here, there] = &lab.vmms;
    // Until it is clear which host has the VM: the verb has ended, or the source queries a
    // destination that is dead.
    let asks_for_ever = |committed: bool| fault == Fault::DestinationDies && committed;
    until(what, &lab.vmms, || {
        migrate.try_wait().unwrap().is_some() || asks_for_ever(committed.load(SeqCst))
    });
    // What a source sent before it died may pass after that.
    let committed_by_now = || committed.load(SeqCst);
    let committed = committed_by_now();
    let told_moved = migrate.try_wait().unwrap().is_some_and(|status| status.success());
    match fault {
        Fault::SourceDies => {
            source.wait(TIMEOUT).unwrap();
            if committed {
                // It runs there, or waits there for memory that is lost, and then ends and reports
                // that.
                until(what, &lab.vmms, || runs(there) || !destination.is_running());
            } else {
                // Passing on the commit is noted before it is done.
                assert!(!runs(there) || committed_by_now(), "{what}");
            }
        }
        Fault::DestinationDies if committed => {
            // Whether it ran there is unknown: it does not run here, and no verb can make it.
            destination.wait(TIMEOUT).unwrap();
            assert!(!runs(here), "{what}: {:?}", state(here));
            assert!(here.json(&["resume", "d", "--json"]).is_err(), "{what}");
        }
        // The verb reported success, which must be true.
        _ if told_moved => {
            assert!(committed, "{what}: moved without a commit");
            until(what, &lab.vmms, || runs(there));
            assert!(source.wait(TIMEOUT).unwrap().success(), "{what}: {}", source.output());
            is_whole(what, &destination);
        }
        _ => {
            until(what, &lab.vmms, || runs(here));
            assert!(!runs(there), "{what}: two run");
            // The next try succeeds, whatever the result of this one.
            if fault == Fault::DestinationDies {
                destination.wait(TIMEOUT).unwrap();
                destination = there.receive(PORT, &["--plaintext"]).unwrap();
            }
            let args = ["migrate", "d", &there.url(PORT), "--plaintext", "--json"];
            // A receiver that has not noticed the end of the last try reports that it is busy.
            let mut said = None;
            until(&format!("{what}, tried again"), &lab.vmms, || {
                said = here.json(&args).err().map(|e| e.to_string());
                said.as_ref().is_none_or(|said| !said.contains("receiving another VM"))
            });
            assert_eq!(said, None, "{what}, tried again");
            assert!(source.wait(TIMEOUT).unwrap().success(), "{what}: {}", source.output());
            is_whole(what, &destination);
        }
    }
    assert!(!(runs(here) && runs(there)), "{what}: two run");
    let _ = migrate.kill();
    migrate.wait().unwrap();
}

/// The guest's self-checking memory is intact.
fn is_whole(what: &str, vm: &Process) {
    let line = vm.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{what}: {line}");
}

/// The messages of an undisturbed move: of repeated ones the first two and the last.
fn places(lab: &Lab, mode: &str) -> Vec<Place> {
    let mut source = dirtier(&lab.vmms[0], &lab.image);
    let _destination = lab.vmms[1].receive(PORT, &["--plaintext"]).unwrap();
    let seen = Arc::new(Mutex::new(BTreeMap::<(bool, u16), (Kind, usize)>::new()));
    let note = Arc::clone(&seen);
    let to = format!("{}:{PORT}", lab.vmms[1].host().migration_ip);
    let relay = Relay::start(&lab.site.hosts[0].ns, to, move |p| {
        let key = (p.to_destination, p.kind as u16);
        note.lock().unwrap().insert(key, (p.kind, p.nth));
        Fate::Pass
    })
    .unwrap();
    let args = ["migrate", "d", &relay.url(), "--plaintext", "--json", "--mode", mode];
    lab.vmms[0].json(&[&args[..], &SLOWLY].concat()).unwrap();
    source.wait(TIMEOUT).unwrap();
    let seen = seen.lock().unwrap();
    // Which messages occur, and how often, differs from move to move; the test uses those that
    // always occur. After pre-copy the state goes with the commit if little is left, which depends
    // on the moment.
    let always = |kind: Kind| match kind {
        Kind::Want | Kind::Zero | Kind::Forwarded | Kind::Follow => false,
        Kind::State | Kind::Ready => mode == "stop-and-copy",
        _ => true,
    };
    seen.iter()
        .filter(|(_, (kind, _))| always(*kind))
        .flat_map(|(&(to_destination, _), &(kind, last))| {
            [0, 1].into_iter().filter(move |n| *n <= last).map(move |n| (to_destination, kind, n))
        })
        // After that the move is over for the source.
        .filter(|(_, kind, n)| {
            !(matches!(kind, Kind::ForwardedEnd | Kind::Whole | Kind::Heard)
                || *n > 0 && often(*kind))
        })
        .collect()
}

/// Kinds that may occur only once in another move.
fn often(kind: Kind) -> bool {
    matches!(kind, Kind::RoundEnd | Kind::RoundDone | Kind::Pages | Kind::Filled)
}

fn matrix(test: &str, mode: &str) {
    let Some(lab) = lab(test) else { return };
    let places = places(&lab, mode);
    assert!(places.len() >= 10, "{places:?}");
    let began = Instant::now();
    let mut count = 0;
    for &place in &places {
        for fault in FAULTS {
            let what = format!("{mode}, {fault:?} at {place:?}");
            check(&lab, &what, fault, attempt(&lab, mode, place, fault));
            count += 1;
        }
    }
    let took = began.elapsed();
    eprintln!("{mode}: {count} faults in {took:?}, {:?} each", took / count.max(1));
    assert!(count > 0 && took > Duration::ZERO);
}

#[test]
fn one_vm_runs_after_any_failure_at_any_message_of_a_pre_copy_move() {
    matrix("faults in pre-copy moves", "pre-copy");
}

#[test]
fn one_vm_runs_after_any_failure_at_any_message_of_a_stop_and_copy_move() {
    matrix("faults in moves in one go", "stop-and-copy");
}

#[test]
fn one_vm_runs_after_any_failure_at_any_message_of_a_hybrid_move() {
    matrix("faults in hybrid moves", "hybrid");
}
