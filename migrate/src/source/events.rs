//! What goes into the source's machine, and what comes out.

use std::time::Duration;

use crate::{MoveId, offer::Refusal, pages::Pages, rounds::Policy, wire::Message};

/// How memory goes over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Rounds while the guest runs, and the rest after the commit if it would not fit the blackout.
    #[default]
    Auto,
    /// All memory before the commit.
    PreCopy,
    /// One round while the guest runs, the rest after the commit.
    Hybrid,
    /// All memory while the guest stands: the least that is sent, and the longest blackout.
    StopAndCopy,
}

/// What the source goes by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// How memory goes over.
    pub mode: Mode,
    /// How long the blackout may be.
    pub max_blackout: Duration,
    /// Whether the move is given up rather than made with a blackout that is expected to be longer.
    pub strict: bool,
    /// Pages below this number are the VMM's own, and never follow.
    pub first_that_follows: usize,
    /// Whether the commit may go with the state, when little is left to be sent, or always waits
    /// until the destination has applied it.
    pub together: bool,
    /// Rounds that go before everything else, right before the stop. In the first the destination
    /// gets warm, which takes it some milliseconds; the others send what the guest wrote meanwhile,
    /// the last next to nothing. This is their least number: they go on for as long as each leaves
    /// less than the one before.
    pub urgent_rounds: u32,
    /// How long everything up to the commit may take, by the clock whose time the machine is told:
    /// its zero is when the move was asked for, before there was a connection.
    pub timeout: Option<Duration>,
    /// When rounds end.
    pub policy: Policy,
    /// How long the guest may take to quiesce before it is stopped where it is.
    pub quiesce: Duration,
    /// How long it is expected to take.
    pub quiesce_expected: Duration,
    /// How long the destination may be silent when it should answer.
    pub answer: Duration,
    /// How long it may take to make the VM ready, however often it says that it is at it.
    pub prepare: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            max_blackout: Duration::from_millis(1),
            strict: false,
            first_that_follows: 0,
            together: true,
            urgent_rounds: 3,
            timeout: None,
            policy: Policy::default(),
            quiesce: Duration::from_millis(10),
            quiesce_expected: Duration::from_micros(100),
            answer: Duration::from_millis(900),
            prepare: Duration::from_secs(15),
        }
    }
}

/// What happens to the source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the destination.
    Message(Message),
    /// The connection is gone. Also after the commit, when a try to connect again failed.
    LinkLost(String),
    /// After the commit: a new connection stands.
    Reconnected,
    /// After the commit: an operator vouches for the VM running nowhere else, now and later.
    Vouched,
    /// After the commit: the VM was ended here. What became of it is not known.
    Abandoned,
    /// Somebody wants the move given up.
    Cancel(String),
    /// Something that was asked for by an action cannot be done.
    Failed(String),
    /// [`Action::SendPages`], [`Action::SendLast`] or [`Action::SendFollowing`] is done; the
    /// destination has not confirmed it yet. Also when the [commit](Action::Commit) has gone with
    /// what was held.
    Sent(Sent),
    /// [`Action::SendLast`] is done, and the state is held.
    Held,
    /// Pages whose content does not matter, before anything is sent.
    Reclaimed(Pages),
    /// Pages that lost their content before the first round was sent, and that changes are logged
    /// of since before that was seen: they need not be sent unless they change.
    LeftOut(Pages),
    /// What [`Action::PeekDirty`] found.
    Peeked {
        /// Changed since the last time it was taken.
        dirty: Pages,
        /// Pages whose content does not matter now.
        page_hints: Pages,
    },
    /// What [`Action::TakeDirty`] found.
    Dirty {
        /// Changed since the last time.
        dirty: Pages,
        /// Pages whose content does not matter now.
        page_hints: Pages,
    },
    /// [`Action::Stop`] is done: the guest stands.
    Stopped(Stopped),
    /// The link is slow, and what was sent is still on its way: silence says nothing of the
    /// destination.
    Progress,
    /// Time has passed.
    Tick,
}

/// What sending came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sent {
    /// Bytes on the wire.
    pub bytes: u64,
    /// Pages with content.
    pub full: u64,
    /// Zero pages.
    pub zero: u64,
    /// How long nothing was sent, to keep the pace that was asked for.
    pub idle: Duration,
}

/// A guest that stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stopped {
    /// When the pause was asked for.
    pub requested: Duration,
    /// When the vCPU stood.
    pub stopped: Duration,
    /// Whether the guest answered.
    pub quiescent: bool,
    /// Changed since the last time.
    pub dirty: Pages,
    /// Pages whose content does not matter: those that are dirty or
    /// [unsent](super::Source::unsent), and maybe others.
    pub page_hints: Pages,
    /// Pages that the destination's VMM itself needs before the guest runs, beside those below
    /// [`Settings::first_that_follows`]: they may not follow.
    pub needed: Vec<usize>,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Start logging changes, with all pages still to be sent.
    StartLog,
    /// Send these pages while the guest runs, then `RoundEnd` with this number.
    SendPages {
        /// Number of the round.
        round: u32,
        /// The pages.
        pages: Pages,
    },
    /// Say that these pages are going to follow after the commit, then `RoundEnd` with this number.
    Announce {
        /// Number of the round.
        round: u32,
        /// The pages.
        pages: Pages,
    },
    /// Find out what changed, and leave it at that: it will have changed still when it is taken.
    PeekDirty,
    /// Find out what changed. What changes from now on is found the next time.
    TakeDirty,
    /// The switch is near: what is done from now on goes first, here, and there by
    /// [`Message::SwitchHint`].
    SwitchHint,
    /// Ask the guest to quiesce, and stop it after that long in any case.
    Stop {
        /// How long.
        timeout: Duration,
    },
    /// Capture the state; say that `follow` are going to follow, then send `pages` and the state.
    /// If it may be held, the state goes with the commit, and the last of the pages may wait for
    /// it; unless something has come from the destination, which is then to be seen first.
    SendLast {
        /// The pages.
        pages: Pages,
        /// Pages that follow and were not announced yet.
        follow: Pages,
        /// Whether the state may go with the commit: [`Event::Held`] rather than [`Event::Sent`].
        hold: bool,
    },
    /// The VM may not run here any more, whatever fails. Comes right before
    /// [`Commit`](Self::Commit).
    Fence,
    /// Send the commit of this move, with what was held, in one piece.
    Commit(MoveId),
    /// The VM runs on here: let it, if it stands, and stop logging.
    RunHere,
    /// The VM runs there: hand on late packets from now on.
    HandOn,
    /// After the commit: send these pages.
    SendFollowing(Pages),
    /// Connect to the destination again.
    Reconnect {
        /// Not at once: whoever answers there, if anybody does, could not say just now what became
        /// of the VM.
        wait: bool,
    },
    /// Nothing more will come.
    End(Ended),
}

/// How a move ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    /// The VM runs at the destination. The report is at [`Source::report`](super::Source::report).
    Moved,
    /// The VM runs on here.
    Failed(Failure),
}

/// Why a move was not made.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// The destination does not take the VM.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The destination gave up.
    #[error("the destination gave the move up: {0}")]
    Aborted(String),
    /// The link broke.
    #[error("the connection to the destination broke while {during}: {why}")]
    Link {
        /// In which state.
        during: &'static str,
        /// What the network said.
        why: String,
    },
    /// The destination is silent.
    #[error("the destination did not answer in time while {during}")]
    Silent {
        /// In which state.
        during: &'static str,
    },
    /// It took too long.
    #[error("the move took longer than the {timeout:?} it may take (--timeout), while {during}")]
    Timeout {
        /// How long it may take.
        timeout: Duration,
        /// In which state.
        during: &'static str,
    },
    /// The blackout would be too long.
    #[error(
        "the blackout is expected to take {predicted:?}, and it may take {most:?}: allow more with \
         --max-blackout{}",
        if *follow { "" } else { ", or let memory follow with --mode auto (the destination must be \
            able to: see `vmm-lite receive --help`)" }
    )]
    DoesNotFit {
        /// What is expected.
        predicted: Duration,
        /// What is allowed.
        most: Duration,
        /// Whether memory would have followed.
        follow: bool,
    },
    /// Memory is to follow, and the destination cannot wait for it.
    #[error(
        "the destination cannot take memory that follows (userfaultfd is not to be had there): use \
         --mode pre-copy"
    )]
    CannotFollow,
    /// Cancelled.
    #[error("the move was cancelled: {0}")]
    Cancelled(String),
    /// This side failed.
    #[error("the move failed here: {0}")]
    Here(String),
    /// A message at the wrong time.
    #[error("the destination sent {got} while {during}")]
    Unexpected {
        /// What.
        got: String,
        /// In which state.
        during: &'static str,
    },
    /// The commit was sent, the destination has not said what became of the VM, and an operator let
    /// it run here.
    #[error(
        "the destination did not say what became of the VM, and an operator vouched that \
         it runs nowhere else: it runs on here, as it was at the commit"
    )]
    Vouched,
    /// The commit was sent, and the VM was ended here before the destination had said what became
    /// of it.
    #[error(
        "the VM was handed over and then ended here by force: the destination had not said \
         that it has all of it"
    )]
    Abandoned,
    /// The commit was sent, and the destination never ran the VM.
    #[error(
        "the destination says that it never ran the VM, and never will: the commit did not arrive, \
         or what came with it could not be applied"
    )]
    NeverRan,
}
