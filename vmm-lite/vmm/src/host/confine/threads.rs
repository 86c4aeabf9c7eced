//! The threads of a process with a VM, and the processes beside it.

/// The kinds of thread that a process with a VM has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thread {
    /// Waits for signals, clients and the VM's end, and starts the threads that serve clients.
    Main,
    /// Runs the guest and serves its devices.
    Vcpu,
    /// Passes standard input to the guest.
    Stdin,
    /// Serves one client of the control socket, `migrate` included.
    Control,
    /// Passes a client's console input to the guest.
    ConsoleIn,
    /// Accepts connections of hosts that want to move a VM to this one.
    Accept,
    /// Serves one of these connections: makes the VM and receives it.
    Receive,
    /// Serves the metrics.
    Metrics,
    /// Loads a guest's memory from a snapshot while the guest runs.
    Loader,
    /// Announces a guest to the network as soon as its link carries packets.
    Announce,
    /// Serves the source after the VM has arrived: missing pages, and the source's questions.
    Arrived,
    /// Signs with the host's key. Runs in a process of its own, without a guest.
    Signer,
    /// Writes a VM's journal, and sends the packets that wait for it.
    Journal,
    /// Saves the VM in its journal now and then.
    Snapshots,
    /// Lets a VM go on that has replayed its journal.
    Replay,
    /// Keeps the connections of a replica set, and lets the VM stand by or take over.
    Replication,
    /// Notices threads that do not answer.
    Watchdog,
    /// Connects to the destination on behalf of a VM whose own process has no network. Runs in a
    /// process of its own, without a guest.
    Connector,
    /// Keeps the packets of a protected VM whose process dies. Runs in a process of its own,
    /// without a guest.
    Packets,
}

impl Thread {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::Main,
        Self::Vcpu,
        Self::Stdin,
        Self::Control,
        Self::ConsoleIn,
        Self::Accept,
        Self::Receive,
        Self::Metrics,
        Self::Loader,
        Self::Announce,
        Self::Arrived,
        Self::Signer,
        Self::Journal,
        Self::Snapshots,
        Self::Replay,
        Self::Replication,
        Self::Watchdog,
        Self::Connector,
        Self::Packets,
    ];

    /// The thread's name, as the host shows it. The main thread has the program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Stdin => "stdin",
            Self::Control => "control",
            Self::ConsoleIn => "console-in",
            Self::Accept => "accept",
            Self::Receive => "receive",
            Self::Metrics => "metrics",
            Self::Loader => "loader",
            Self::Announce => "announce",
            Self::Arrived => "arrived",
            Self::Signer => "vmm-lite-signer",
            Self::Journal => "journal",
            Self::Snapshots => "snapshots",
            Self::Replay => "replay",
            Self::Replication => "replication",
            Self::Watchdog => "watchdog",
            Self::Connector => "vmm-connector",
            Self::Packets => "vmm-packets",
        }
    }
}
