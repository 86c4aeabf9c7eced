//! Named places at which a test makes the process fail: killed, frozen, disconnected, or with an
//! error of the host.
//!
//! Builds with debug assertions have them (the profile `checked`, with which tests are built),
//! others do not: there [`fail_point!`] expands to nothing, and this module is not compiled.
//! `VMM_LITE_FAIL_POINT=NAME=ACTION[@N]` selects what happens the `N`th time that the process
//! reaches `NAME` (the first time, if no number is given); several are separated by commas. See
//! `docs/checking.md`.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::{
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

const _: () = assert!(cfg!(debug_assertions), "a build without debug assertions fails by itself");

/// The selected actions, with their places.
pub const CHOICE: &str = "VMM_LITE_FAIL_POINT";
/// How long a peer of a move may be silent, so that tests are not bound to the usual timeout.
pub const TIMEOUT: &str = "VMM_LITE_PATIENCE";

/// A place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Which.
    pub name: &'static str,
    /// Whether the host can return an error there, so that [`Action::Error`] applies.
    pub errs: bool,
}

const fn at(name: &'static str) -> Point {
    Point { name, errs: false }
}

const fn errs(name: &'static str) -> Point {
    Point { name, errs: true }
}

/// All of them, by the process that reaches them and in the order in which it does.
pub const POINTS: &[Point] = &[
    at("source.connected"),
    at("source.offered"),
    errs("source.logging"),
    at("source.in-round"),
    at("source.announced"),
    at("vm.stopping"),
    errs("source.stopped"),
    errs("source.captured"),
    at("source.last-half-sent"),
    at("source.state-sent"),
    at("source.fenced"),
    at("source.committed"),
    at("source.handing-on"),
    at("source.following"),
    at("source.asking"),
    at("source.resuming"),
    at("source.moved"),
    errs("kvm.self-test"),
    at("destination.greeted"),
    errs("destination.prepared"),
    errs("destination.in-round"),
    errs("destination.forgot"),
    errs("vm.half-applied"),
    at("destination.applied"),
    at("destination.ready"),
    at("destination.discarded"),
    at("destination.commit-came"),
    at("destination.written-down"),
    at("destination.running"),
    at("destination.announced"),
    errs("destination.filling"),
    at("destination.rejoined"),
    at("destination.whole"),
    at("destination.vm-ended"),
    errs("snapshot.copying"),
    at("snapshot.copied"),
    at("snapshot.synced"),
    at("snapshot.other-name"),
    at("run.booting"),
    at("vm.quiescing"),
    at("copy.begun"),
    at("vcpu.entering"),
    at("vcpu.stopping"),
    at("control.accepting"),
    at("control.serving"),
    at("metrics.serving"),
    at("restore.loading"),
    at("lazy.loading"),
    at("revert.half-exchanged"),
    errs("revert.exchanged"),
    at("protection.recorded"),
    at("protection.welcomed"),
    at("protection.seeding"),
    at("protection.copied"),
    at("protection.following"),
    at("protection.appended"),
    at("protection.sent"),
    at("protection.received"),
    at("protection.executed"),
    at("protection.releasing"),
    at("protection.stopped"),
    at("protection.handed-over"),
    at("protection.asking"),
    at("protection.taking-over"),
    at("protection.took-over"),
];

/// The index of a place in [`POINTS`]. For constants: a missing one, or one without that property,
/// does not compile.
#[must_use]
pub const fn number(name: &str, errs: bool) -> usize {
    let mut n = 0;
    while n < POINTS.len() {
        if same(POINTS[n].name, name) {
            assert!(POINTS[n].errs == errs, "the list disagrees on whether this can fail");
            return n;
        }
        n += 1;
    }
    panic!("no such fail point in the list")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

/// An action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The process dies, as if its host had.
    Kill,
    /// The process is stopped until it gets SIGCONT.
    Stop,
    /// The thread that reaches the place waits until the process gets SIGCONT; the others continue.
    Hold,
    /// The connections of its moves break.
    Cut,
    /// The operation fails with an error.
    Error,
}

/// The actions' names.
pub const ACTIONS: [(&str, Action); 5] = [
    ("kill", Action::Kill),
    ("stop", Action::Stop),
    ("hold", Action::Hold),
    ("cut", Action::Cut),
    ("error", Action::Error),
];

#[derive(Debug)]
struct Choice {
    point: usize,
    action: Action,
    /// How often the place is passed before.
    left: AtomicU32,
}

/// Not 0: held threads continue. A futex, which every thread may wait for, and whose wait never
/// ends, as with a thread that hangs.
static GOES_ON: AtomicU32 = AtomicU32::new(0);
static CHOICES: OnceLock<Vec<Choice>> = OnceLock::new();
static SILENCE: OnceLock<Option<Duration>> = OnceLock::new();
static LINKS: Mutex<Vec<Weak<TcpStream>>> = Mutex::new(Vec::new());

/// Parses the selection; `duration` parses a time like `500ms`. Call it first.
///
/// # Errors
/// The invalid part, in words.
pub fn arm(duration: impl Fn(&str) -> Result<Duration, String>) -> Result<(), String> {
    let text = |name| match std::env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(e) => Err(format!("{name}: {e}")),
    };
    let choices = text(CHOICE)?.map(|text| parse(&text)).transpose()?;
    CHOICES.get_or_init(|| choices.unwrap_or_default());
    let silence = text(TIMEOUT)?.map(|text| duration(&text)).transpose();
    let silence = silence.map_err(|e| format!("{TIMEOUT}: {e}"))?;
    SILENCE.get_or_init(|| silence);
    let holds = |choice: &Choice| choice.action == Action::Hold;
    if CHOICES.get().is_some_and(|choices| choices.iter().any(holds)) {
        extern "C" fn goes_on(_: libc::c_int) {
            GOES_ON.store(1, SeqCst);
            // SAFETY: wakes the waiters of a static.
            unsafe {
                libc::syscall(libc::SYS_futex, GOES_ON.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX)
            };
        }
        let action =
            SigAction::new(SigHandler::Handler(goes_on), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler stores to an atomic and makes a system call, both of which are
        // async-signal-safe.
        unsafe { sigaction(Signal::SIGCONT, &action) }.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Choice>, String> {
    text.split(',').map(|one| choice(one).map_err(|e| format!("{CHOICE}: {one:?}: {e}"))).collect()
}

fn choice(text: &str) -> Result<Choice, String> {
    let (name, how) = text.split_once('=').ok_or("write NAME=ACTION[@N]")?;
    let (action, nth) = how.split_once('@').unwrap_or((how, "1"));
    let point = POINTS.iter().position(|point| point.name == name).ok_or("no such fail point")?;
    let known = ACTIONS.iter().find(|(known, _)| *known == action);
    let &(_, action) = known.ok_or("the actions are kill, stop, hold, cut and error")?;
    if action == Action::Error && !POINTS[point].errs {
        return Err("nothing can fail there".into());
    }
    let nth = nth.parse().ok().filter(|nth| *nth > 0);
    let left = AtomicU32::new(nth.ok_or("which time, counted from 1, after the @")?);
    Ok(Choice { point, action, left })
}

/// How long a peer may be silent.
#[must_use]
pub fn timeout(usual: Duration) -> Duration {
    SILENCE.get().copied().flatten().unwrap_or(usual)
}

/// A connection of a move, which an action may break.
pub fn link(stream: &Arc<TcpStream>) {
    if CHOICES.get().is_some_and(|choices| !choices.is_empty()) {
        LINKS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(stream));
    }
}

/// The process has reached a place: the action that was selected to happen now.
#[must_use]
pub fn chosen(point: usize) -> Option<Action> {
    let now = |choice: &&Choice| {
        let count = |left: u32| left.checked_sub(1);
        choice.point == point && choice.left.fetch_update(SeqCst, SeqCst, count) == Ok(1)
    };
    CHOICES.get()?.iter().find(now).map(|choice| choice.action)
}

/// Carries it out; returns whether the caller has to fail.
pub fn happen(point: usize, action: Action) -> bool {
    eprintln!("vmm-lite: fail point {}: {action:?}", POINTS[point].name);
    match action {
        Action::Kill => raise(Signal::SIGKILL),
        Action::Stop => raise(Signal::SIGSTOP),
        Action::Hold => {
            while GOES_ON.load(SeqCst) == 0 {
                let forever = std::ptr::null::<libc::timespec>();
                // SAFETY: waits for a static, while it is 0.
                unsafe {
                    libc::syscall(libc::SYS_futex, GOES_ON.as_ptr(), libc::FUTEX_WAIT, 0, forever)
                };
            }
        }
        Action::Cut => {
            for stream in LINKS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                // A connection that has ended already ignores it.
                let _ = stream.upgrade().map(|stream| stream.shutdown(Shutdown::Both));
            }
        }
        Action::Error => return true,
    }
    false
}

/// The injected error.
#[must_use]
pub fn injected() -> std::io::Error {
    std::io::Error::other("a test wants it to fail")
}

/// By the one call of this kind that a confined thread may make. It is directed at this thread, so
/// that it does not execute another instruction.
fn raise(signal: Signal) {
    // SAFETY: the arguments are numbers.
    let r = unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal as libc::c_int)
    };
    assert_eq!(r, 0, "a process may send signals to itself");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_or_refused_with_the_reason() {
        let read = |text: &str| {
            let choices = parse(text)?;
            let of = |c: &Choice| (POINTS[c.point].name, c.action, c.left.load(SeqCst));
            Ok::<_, String>(choices.iter().map(of).collect::<Vec<_>>())
        };
        assert_eq!(read("source.fenced=kill"), Ok(vec![("source.fenced", Action::Kill, 1)]));
        let two = read("source.fenced=cut,source.logging=error@3");
        let expected = [("source.fenced", Action::Cut, 1), ("source.logging", Action::Error, 3)];
        assert_eq!(two, Ok(expected.to_vec()));
        for (text, why) in [
            ("source.fenced", "NAME=ACTION"),
            ("source=kill", "no such"),
            ("source.fenced=explode", "the actions are"),
            ("source.fenced=error", "nothing can fail"),
            ("source.fenced=kill@0", "counted from 1"),
            ("source.fenced=kill@", "counted from 1"),
            ("", "NAME=ACTION"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn fail_point_names_are_unique() {
        for (n, point) in POINTS.iter().enumerate() {
            assert_eq!(number(point.name, point.errs), n);
        }
    }
}
