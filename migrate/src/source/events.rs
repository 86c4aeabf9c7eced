//! Events and actions of the source's state machine.

use std::time::Duration;

use crate::{MoveId, offer::Refusal, page_set::PageSet, precopy::Policy, wire::Message};

/// How memory is transferred.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Rounds while the guest runs, and the rest after the commit if it would not fit the blackout.
    #[default]
    Auto,
    /// All memory before the commit.
    PreCopy,
    /// One round while the guest runs, the rest after the commit.
    Hybrid,
    /// All memory while the guest is stopped: the fewest bytes, and the longest blackout.
    StopAndCopy,
}

/// Settings of the source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// How memory is transferred.
    pub mode: Mode,
    /// Longest allowed blackout.
    pub max_blackout: Duration,
    /// Whether the move fails rather than exceed that in the prediction.
    pub strict: bool,
    /// Pages below this number are the VMM's own, and are never post-copied.
    pub first_that_follows: usize,
    /// Whether the commit may be sent together with the state when little is left to send.
    /// Otherwise the source always waits until the destination has applied the state.
    pub together: bool,
    /// Rounds with real-time priority right before the stop. During the first the destination
    /// prewarms, which takes some milliseconds; the others send what the guest wrote meanwhile, the
    /// last next to nothing. This is their minimum number: they continue as long as each leaves
    /// less than the one before.
    pub urgent_rounds: u32,
    /// How long everything up to the commit may take, by the clock that the state machine is given:
    /// its zero is the request for the move, before there was a connection.
    pub timeout: Option<Duration>,
    /// When rounds end.
    pub policy: Policy,
    /// How long the guest may take to quiesce before it is stopped where it is.
    pub quiesce: Duration,
    /// How long it is expected to take to quiesce.
    pub quiesce_expected: Duration,
    /// How long the destination may be silent when it owes an answer.
    pub answer: Duration,
    /// How long it may take to prepare the VM, however often it sends `Preparing`.
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
    /// The connection is lost. Also after the commit, when an attempt to reconnect failed.
    LinkLost(String),
    /// After the commit: a new connection is open.
    Reconnected,
    /// After the commit: the operator vouches that the VM runs nowhere else, now and later.
    Vouched,
    /// After the commit: the VM was ended here, with its outcome unknown.
    Abandoned,
    /// A request to cancel the move.
    Cancel(String),
    /// The driver cannot carry out an action.
    Failed(String),
    /// [`Action::SendPages`], [`Action::SendLast`] or [`Action::SendFollowing`] is done; the
    /// destination has not confirmed it yet. Also when the [commit](Action::Commit) was sent with
    /// what was held.
    Sent(Sent),
    /// [`Action::SendLast`] is done, and the driver holds the state.
    Held,
    /// Reclaimed pages, whose content does not matter; before anything is sent.
    Reclaimed(PageSet),
    /// Pages that lost their content before the first round was sent, and whose changes have been
    /// logged since before that was read: they need not be sent unless they change.
    LeftOut(PageSet),
    /// The result of [`Action::PeekDirty`].
    Peeked {
        /// Changed since the log was last taken.
        dirty: PageSet,
        /// Pages hinted now.
        page_hints: PageSet,
    },
    /// The result of [`Action::TakeDirty`].
    Dirty {
        /// Changed since the log was last taken.
        dirty: PageSet,
        /// Pages hinted now.
        page_hints: PageSet,
    },
    /// [`Action::Stop`] is done: the guest is stopped.
    Stopped(Stopped),
    /// The link is slow, and sent data is still in transit: silence says nothing about the
    /// destination.
    Progress,
    /// Time has passed.
    Tick,
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sent {
    /// Bytes on the wire.
    pub bytes: u64,
    /// Pages with content.
    pub full: u64,
    /// Zero pages.
    pub zero: u64,
    /// Time in which nothing was sent, to respect a rate limit.
    pub idle: Duration,
}

/// A stopped guest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stopped {
    /// When the pause was requested.
    pub requested: Duration,
    /// When the vCPU was stopped.
    pub stopped: Duration,
    /// Whether the guest quiesced.
    pub quiescent: bool,
    /// Changed since the log was last taken.
    pub dirty: PageSet,
    /// Hinted pages: those that are dirty or [unsent](super::Source::unsent), and maybe others.
    pub page_hints: PageSet,
    /// Pages that the destination's VMM itself needs before the guest runs, beside those below
    /// [`Settings::first_that_follows`]: they may not be post-copied.
    pub needed: Vec<usize>,
}

/// What the driver has to do, in order.
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
        pages: PageSet,
    },
    /// Announce these pages as post-copy pages, then `RoundEnd` with this number.
    Announce {
        /// Number of the round.
        round: u32,
        /// The pages.
        pages: PageSet,
    },
    /// Peek at the dirty log: the pages stay in it.
    PeekDirty,
    /// Take the dirty log: later changes are found the next time.
    TakeDirty,
    /// The pause is near: work from now on has real-time priority here, and at the destination by
    /// [`Message::SwitchHint`].
    SwitchHint,
    /// Ask the guest to quiesce, and stop it after the timeout in any case.
    Stop {
        /// The timeout.
        timeout: Duration,
    },
    /// Capture the state; announce the pages in `follow`, then send `pages` and the state. If
    /// `hold` allows it, the state is sent with the commit, and the last of the pages may wait for
    /// it; unless something has arrived from the destination, which the state machine must see
    /// first.
    SendLast {
        /// The pages.
        pages: PageSet,
        /// Post-copy pages that were not announced yet.
        follow: PageSet,
        /// Whether the state may go with the commit: [`Event::Held`] rather than [`Event::Sent`].
        hold: bool,
    },
    /// Fence: the VM may not run here any more, whatever fails. Comes right before
    /// [`Commit`](Self::Commit).
    Fence,
    /// Send the commit of this move, with what was held, in one write.
    Commit(MoveId),
    /// The VM stays here: run it, if it is stopped, and stop logging.
    RunHere,
    /// The VM runs at the destination: forward in-transit packets from now on.
    HandOn,
    /// After the commit: send these pages.
    SendFollowing(PageSet),
    /// Connect to the destination again.
    Reconnect {
        /// Not at once: a host that answers there, if any, could not report the outcome just now.
        wait: bool,
    },
    /// The move has ended.
    End(Ended),
}

/// How a move ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    /// The VM runs at the destination. The report is at [`Source::report`](super::Source::report).
    Moved,
    /// The VM keeps running here.
    Failed(Failure),
}

/// Why a move failed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// The destination refuses the VM.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The destination cancelled.
    #[error("the destination cancelled the move: {0}")]
    Aborted(String),
    /// The link broke.
    #[error("the connection to the destination broke while {during}: {why}")]
    Link {
        /// In which state.
        during: &'static str,
        /// The network's error.
        why: String,
    },
    /// The destination is silent.
    #[error("the destination did not answer in time while {during}")]
    Silent {
        /// In which state.
        during: &'static str,
    },
    /// The move took too long.
    #[error("the move took longer than the {timeout:?} it may take (--timeout), while {during}")]
    Timeout {
        /// How long it may take.
        timeout: Duration,
        /// In which state.
        during: &'static str,
    },
    /// The predicted blackout is too long.
    #[error(
        "the blackout is expected to take {predicted:?}, and it may take {most:?}: allow more with \
         --max-blackout{}",
        if *follow { "" } else { ", or allow post-copy with --mode auto (the destination must be \
            able to: see `vmm-lite receive --help`)" }
    )]
    DoesNotFit {
        /// The prediction.
        predicted: Duration,
        /// The limit.
        most: Duration,
        /// Whether post-copy would have been used.
        follow: bool,
    },
    /// Post-copy is required, and the destination does not support it.
    #[error(
        "the destination does not support post-copy (it cannot use userfaultfd): use \
         --mode pre-copy"
    )]
    CannotFollow,
    /// Cancelled.
    #[error("the move was cancelled: {0}")]
    Cancelled(String),
    /// The source itself failed.
    #[error("the move failed here: {0}")]
    Here(String),
    /// A message arrived at the wrong time.
    #[error("the destination sent {got} while {during}")]
    Unexpected {
        /// What.
        got: String,
        /// In which state.
        during: &'static str,
    },
    /// The commit was sent, the destination has not reported the outcome, and the operator let the
    /// VM run here.
    #[error(
        "the destination did not report the outcome, and an operator vouched that \
         it runs nowhere else: it runs on here, as it was at the commit"
    )]
    Vouched,
    /// The commit was sent, and the VM was ended here before the destination had reported the
    /// outcome.
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
