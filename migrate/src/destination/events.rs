//! What goes into the destination's machine, and what comes out.

use std::time::Duration;

use crate::{
    brownout::Settled,
    offer::{Offer, Refusal},
    pages::Pages,
    wire::{Accepted, Message, Run, Started},
};

/// What happens to the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the source. Pages come as [`Event::Pages`]; those of [`Message::Zero`] have
    /// been made zero.
    Message(Message),
    /// Pages came and were put into the VM's memory: which, if any are
    /// [lacking](super::Destination::lacking).
    Pages(Vec<Run>),
    /// What came of [`Action::Prepare`].
    Prepared(Result<Accepted, Refusal>),
    /// What came of [`Action::Forget`].
    Forgot(Result<(), String>),
    /// What came of [`Action::Apply`].
    Applied(Result<(), String>),
    /// The vCPU is right before the guest's first instruction, after [`Action::Run`].
    Runs(Started),
    /// The guest is back at its speed, or has been watched for long enough. Comes once after each
    /// [`Event::Runs`].
    Settled(Settled),
    /// The guest waits for this page, which is not there.
    Fault(usize),
    /// The connection is gone.
    LinkLost(String),
    /// The source is back on a new connection, which is this machine's from now on.
    Rejoined,
    /// Another connection asks what became of this move.
    Asked,
    /// The VM that runs here has ended.
    VmEnded,
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Judge the offer and prepare a VM for it. For as long as that takes, send
    /// [`Message::Preparing`] each time that [`PREPARING`] has passed.
    Prepare(Box<Offer>),
    /// Make these pages missing: whoever touches them is to wait.
    Forget(Vec<Run>),
    /// What comes next is urgent: the guest is about to stand. This much of its state is not going
    /// to change any more, and may be applied already.
    SwitchHint(Vec<u8>),
    /// Have whatever runs the guest awake: the state comes next.
    Prewake,
    /// Apply the state to the prepared VM.
    Apply(Vec<u8>),
    /// Write it down that the VM runs here, run it, and announce it.
    Run,
    /// Hand a late packet to the guest.
    Deliver(Vec<u8>),
    /// The page is not one of those that follow: make it zero, if it is not there, and let the
    /// guest go on.
    Supply(usize),
    /// Nothing is missing any more: no access waits from now on, and the VM may be copied or moved
    /// on. A VM that lacks nothing when it runs may be at once, and does not get this.
    Complete,
    /// The link is gone, or silent for too long, while pages are missing: wait for the source to
    /// come back on a new one.
    AwaitSource(String),
    /// The source did not come back: the VM is lost, for want of these pages.
    Lost(Pages),
    /// Throw the prepared VM away; it never runs.
    Discard(String),
    /// Nothing more will come on this connection.
    End,
}

/// How often a source that waits for a VM to be prepared is told that this is being done: it bears
/// three times that in silence.
pub const PREPARING: Duration = Duration::from_millis(300);

/// How long a source may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timeouts {
    /// Before the commit.
    pub silence: Duration,
    /// After it, while pages are missing: past that it is taken for dead. `None`: it never is, as a
    /// dead host and a link that is cut look the same from here.
    pub lost: Option<Duration>,
}
