//! Events and actions of the destination's state machine.

use std::time::Duration;

use super::{Away, GivenUp};
use crate::{
    brownout::Settled,
    offer::{Offer, Refusal},
    page_set::PageSet,
    wire::{Accepted, Message, Run, Started},
};

/// What happens to the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the source. Pages arrive as [`Event::Pages`]; the driver has already zeroed
    /// those of [`Message::Zero`].
    Message(Message),
    /// The driver has put pages into the VM's memory: these, of those that are
    /// [lacking](super::Destination::lacking).
    Pages(Vec<Run>),
    /// The result of [`Action::Prepare`].
    Prepared(Result<Accepted, Refusal>),
    /// The result of [`Action::Forget`]; the error as text, as the source gets it.
    Forgot(Result<(), String>),
    /// The result of [`Action::Apply`]; the error as text, as the source gets it.
    Applied(Result<(), String>),
    /// The vCPU is right before the guest's first instruction, after [`Action::Run`].
    Runs(Started),
    /// The guest is back at full speed, or the time to watch it is over. Sent once after each
    /// [`Event::Runs`].
    Settled(Settled),
    /// The guest waits for this page, which is missing.
    Fault(usize),
    /// The connection is gone.
    LinkLost(String),
    /// The source is back on a new connection, which belongs to this state machine from now on.
    Rejoined,
    /// A peer on another connection asks for the outcome of this move.
    Asked,
    /// The VM that runs here has ended.
    VmEnded,
    /// Time has passed.
    Tick,
}

/// What the driver has to do, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Judge the offer and prepare a VM for it. While that takes place, send [`Message::Preparing`]
    /// each time that [`PREPARING`] has passed.
    Prepare(Box<Offer>),
    /// Make these pages missing: every access to them waits.
    Forget(Vec<Run>),
    /// The pause is near, and what comes next is urgent. This is the invariant state, which may be
    /// applied already.
    SwitchHint(Vec<u8>),
    /// Prewake the threads that run the guest: the state comes next.
    Prewake,
    /// Apply the state to the prepared VM.
    Apply(Vec<u8>),
    /// Record that the VM runs here, run it, and announce it.
    Run,
    /// Deliver a forwarded packet to the guest.
    Deliver(Vec<u8>),
    /// The page is not a post-copy page: make it zero, if it is missing, and let the guest
    /// continue.
    Supply(usize),
    /// No page is missing any more: no access waits from now on, and the VM may be copied or moved
    /// on. A VM that lacks nothing when it starts may be copied at once, and does not get this
    /// action.
    Complete,
    /// The link is lost, or silent for too long, while pages are missing: wait for the source to
    /// return on a new connection.
    AwaitSource(Away),
    /// The source did not return: the VM is lost, because these pages are missing.
    Lost(PageSet),
    /// Discard the prepared VM; it never runs.
    Discard(GivenUp),
    /// Nothing more will arrive on this connection.
    End,
}

/// How often the destination tells the waiting source that it is still preparing the VM. The source
/// accepts three times that in silence.
pub const PREPARING: Duration = Duration::from_millis(300);

/// How long a source may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timeouts {
    /// Before the commit.
    pub silence: Duration,
    /// After it, while pages are missing: the source is then declared dead. `None`: never, as the
    /// destination cannot tell a dead host from a cut link.
    pub lost: Option<Duration>,
}
