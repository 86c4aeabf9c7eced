//! A move is cancelled in each of its phases before the commit, in each way there is. The VM keeps
//! running as if no move had begun, and the next try succeeds.

use migrate::wire::{Kind, Message};
use nix::sys::signal::Signal;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};
use testkit::client::Talk;
use testkit::hosts::{Lab, PORT};
use vmm_lite_lab::{
    accept::accept,
    message::next_message,
    process::Process,
    relay::{Fate, Passing, Relay},
    vmm::TIMEOUT,
};

/// Port of a listener that is not a destination.
const OTHER: u16 = 7001;
/// How long a message with pages takes on the slow link. At 256 KiB in that time, the move below
/// takes many seconds.
const SLOW: Duration = Duration::from_millis(40);

/// The phase in which the move is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The host at the destination's address does not answer.
    Reaching,
    /// The connection is accepted, and the handshake does not continue.
    ShakingHands,
    /// The same in plaintext.
    Greeting,
    /// The destination prepares a VM, and says so.
    Preparing,
    /// The guest runs and its memory is being sent.
    FirstRound,
    /// The guest is stopped, and the last pages take long.
    LastPages,
    /// All is sent, and the destination does not send `Ready`.
    AwaitingReady,
}

/// How the move is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `vmm-lite cancel`.
    Verb,
    /// Ctrl-C of `vmm-lite migrate`.
    Interrupt,
    /// `--timeout`.
    Timeout,
}

const WAYS: [Way; 3] = [Way::Verb, Way::Interrupt, Way::Timeout];

impl Phase {
    /// Options of the move, beside those of every move.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Reaching | Self::ShakingHands => &[],
            Self::Greeting | Self::Preparing => &["--plaintext"],
            // 48 MiB at this rate take ten seconds.
            Self::FirstRound => &["--plaintext", "--mode", "pre-copy", "--bandwidth", "5MB"],
            Self::LastPages | Self::AwaitingReady => &["--plaintext", "--mode", "stop-and-copy"],
        }
    }

    /// What the source reports that it was doing.
    fn doing(self) -> &'static str {
        match self {
            Self::Reaching | Self::ShakingHands => "connecting",
            Self::Greeting => "greeting",
            Self::Preparing => "offering the VM",
            Self::FirstRound => "copying memory",
            Self::LastPages | Self::AwaitingReady => "sending the last pages and the state",
        }
    }

    /// A timeout within which the move reaches that phase, and before which the phase does not end
    /// by itself.
    fn timeout(self) -> &'static str {
        match self {
            // The source accepts 900 ms of silence, and waits longer for a host that does not
            // answer.
            Self::Reaching | Self::ShakingHands | Self::Greeting => "300ms",
            _ => "2s",
        }
    }

    /// Whether a destination has begun to receive the VM.
    fn begun(self) -> bool {
        matches!(self, Self::FirstRound | Self::LastPages | Self::AwaitingReady)
    }
}

/// A VM whose moves are cancelled.
struct CalledOff {
    lab: Lab,
    /// Number of moves that were cancelled, and that failed otherwise.
    ended: [u64; 2],
}

impl CalledOff {
    fn new(test: &str, app: &str, memory: &str, own: &[&str], talk: Talk) -> Option<Self> {
        Some(Self { lab: Lab::new(test, app, memory, own, talk)?, ended: [0, 0] })
    }

    /// A peer that lets the move reach a phase and no further, and a channel that reports when the
    /// move has reached it.
    fn other_side(&self, phase: Phase) -> (String, Receiver<()>, Option<Sender<()>>) {
        let (tell, told) = channel();
        let there = self.lab.there();
        match phase {
            // No host has this address.
            Phase::Reaching => ("tcp://10.9.0.99:7000".into(), told, Some(tell)),
            Phase::ShakingHands | Phase::Greeting | Phase::Preparing => {
                let at = format!("{}:{OTHER}", there.host().migration_ip);
                let listener = there.host().ns.enter(|| TcpListener::bind(at).unwrap()).unwrap();
                std::thread::spawn(move || {
                    let mut stream = accept(&listener).unwrap();
                    if phase == Phase::Preparing {
                        return prepare_for_ever(stream, &tell);
                    }
                    tell.send(()).unwrap();
                    // Until the source disconnects.
                    let _ = stream.read_to_end(&mut Vec::new());
                });
                (there.url(OTHER), told, None)
            }
            Phase::FirstRound | Phase::LastPages | Phase::AwaitingReady => {
                let to = format!("{}:{PORT}", there.host().migration_ip);
                let judge = move |passing: &Passing| judge(phase, passing, &tell);
                let relay = Relay::start(&self.lab.here().host().ns, to, judge).unwrap();
                (relay.url(), told, None)
            }
        }
    }

    /// Begins a move and cancels it; checks the result, and that the next try succeeds.
    fn check(&mut self, phase: Phase, way: Way) {
        let what = format!("{phase:?}, {way:?}");
        let there = self.lab.there();
        let destination = there.receive(PORT, &["--plaintext", "--tap", "tap0"]).unwrap();
        let (url, told, tell) = self.other_side(phase);
        let mut args = vec!["migrate", "d", &url, "--json"];
        args.extend(phase.options());
        if way == Way::Timeout {
            args.extend(["--timeout", phase.timeout()]);
        }
        let mut migrate = Process::start(self.lab.here().command(&args).unwrap()).unwrap();
        if let Some(tell) = tell {
            migrate.wait_for_line("connecting", TIMEOUT).unwrap();
            tell.send(()).unwrap();
        }
        told.recv_timeout(TIMEOUT).unwrap_or_else(|_| {
            panic!("{what}: it does not get there\n{}", migrate.output());
        });
        match way {
            Way::Verb => drop(self.lab.here().json(&["cancel", "d", "--json"]).unwrap()),
            Way::Interrupt => migrate.signal(Signal::SIGINT).unwrap(),
            Way::Timeout => {}
        }
        let status = migrate.wait(TIMEOUT).unwrap();
        let said = migrate.output();
        let says = |text: &str| assert!(said.contains(text), "{what}: {said}");
        match way {
            Way::Verb => says("the move was cancelled: by `vmm-lite cancel`"),
            Way::Interrupt => {
                says("the move was cancelled: by `vmm-lite cancel`");
                says(r#""event":"failed""#);
            }
            Way::Timeout => {
                let time = phase.timeout();
                says(&format!(
                    "longer than the {time} it may take (--timeout), while {}",
                    phase.doing()
                ));
            }
        }
        let code = if way == Way::Interrupt { 128 + Signal::SIGINT as i32 } else { 1 };
        assert_eq!(status.code(), Some(code), "{what}: {said}");
        self.runs_on(&what, way);
        if phase.begun() {
            destination.wait_for_line("did not arrive", TIMEOUT).unwrap();
        }
        // To the same destination.
        self.lab.moves(&format!("{what}, tried again"), &["--plaintext"], destination);
    }

    /// A cancelled move leaves nothing behind.
    fn runs_on(&mut self, what: &str, way: Way) {
        self.ended[usize::from(way == Way::Timeout)] += 1;
        let mut stats = serde_json::Value::Null;
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Ok(now) = self.lab.here().json(&["stats", "d", "--json"]) {
                stats = now;
            }
            let history = &stats["history"];
            let ended = ["moves_cancelled", "moves_failed"].map(|key| history[key].as_u64());
            if ended == self.ended.map(Some) {
                break;
            }
            assert!(Instant::now() < end, "{what}: {stats}");
            std::thread::yield_now();
        }

        assert_eq!(stats["state"], "running", "{what}");
        self.lab.client.hears(what);
        // Its writes are not logged any more, which would slow it down.
        let stats = self.lab.here().json(&["stats", "d", "--json"]);
        let stats = stats.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(stats["dirty_log_users"], 0, "{what}: {stats}");
    }
}

/// A destination that reports `Preparing` for as long as the source waits.
fn prepare_for_ever(mut stream: TcpStream, tell: &Sender<()>) {
    loop {
        let Some(message) = next_message(&mut stream, 0) else { return };
        match message {
            Message::Hello(id) => {
                stream.write_all(&Message::Welcome(id, [1; 16]).encode()).unwrap();
            }
            Message::Offer(_) => break,
            other => panic!("{other:?}"),
        }
    }
    tell.send(()).unwrap();
    stream.set_read_timeout(Some(migrate::destination::PREPARING)).unwrap();
    let mut some = [0; 64];
    // Until the source sends something or disconnects.
    while stream.read(&mut some).is_err() {
        if stream.write_all(&Message::Preparing.encode()).is_err() {
            return;
        }
    }
}

/// The fate of a message on the way to a phase and in it.
fn judge(phase: Phase, passing: &Passing, tell: &Sender<()>) -> Fate {
    let tell = || tell.send(()).expect("the test waits for the phase");
    match (phase, passing.kind, passing.nth) {
        (Phase::FirstRound, Kind::Pages, 2) => tell(),
        (Phase::LastPages, Kind::Pages, nth) => {
            if nth == 8 {
                tell();
            }
            std::thread::sleep(SLOW);
        }
        (Phase::AwaitingReady, Kind::Ready, _) => {
            tell();
            return Fate::Lost;
        }
        _ => {}
    }
    Fate::Pass
}

#[test]
fn a_move_is_cancelled_before_anything_is_sent() {
    let talk = Talk::Store { count: 0 };
    let Some(mut vm) = CalledOff::new("moves called off at once", "kv", "16M", &[], talk) else {
        return;
    };
    for phase in [Phase::Reaching, Phase::ShakingHands, Phase::Greeting, Phase::Preparing] {
        for way in WAYS {
            vm.check(phase, way);
        }
    }
}

/// A VM whose 48 MiB are rewritten all the time.
fn large(test: &str) -> Option<CalledOff> {
    let own = ["--pages", "12288", "--quiet"];
    CalledOff::new(test, "dirtier", "64M", &own, Talk::Memory { nonce: None, written: 0 })
}

#[test]
fn a_move_is_cancelled_while_the_guest_runs() {
    let Some(mut vm) = large("moves called off in a round") else { return };
    for way in WAYS {
        vm.check(Phase::FirstRound, way);
    }
}

#[test]
fn a_move_is_cancelled_while_the_guest_is_stopped() {
    let Some(mut vm) = large("moves called off in the blackout") else { return };
    for way in WAYS {
        vm.check(Phase::LastPages, way);
    }
    // No other timeout ends the move first. A timeout may pass before or after this phase begins,
    // so that way is left out.
    for way in [Way::Verb, Way::Interrupt] {
        vm.check(Phase::AwaitingReady, way);
    }
}
