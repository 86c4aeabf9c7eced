//! Debian's etcd, one member or several, which tests stop and kill.

use crate::{
    error::{Doing, Error, Result},
    images::installed,
    process::Process,
};
use nix::sys::signal::Signal;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// How long a member may take to serve clients, an election included.
const START: Duration = Duration::from_secs(20);
/// Times that tests need short: between heartbeats, and until an election. Milliseconds.
const HEARTBEAT: &str = "50";
const ELECTION: &str = "500";

/// How clients connect.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Without encryption.
    Plain,
    /// By TLS, with this server certificate and key; clients that show a certificate need one
    /// signed by the authority, if there is one.
    Tls {
        /// PEM file.
        certificate: PathBuf,
        /// PEM file.
        key: PathBuf,
        /// PEM file. With it, every client needs a certificate.
        authority: Option<PathBuf>,
    },
}

/// A cluster. Its processes end with it, and its data is removed.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    clients: Clients,
    /// `--initial-cluster`.
    initial: String,
    _data: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    data: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Process>,
}

impl Cluster {
    /// Starts `members` on loopback, on ports that are free.
    ///
    /// # Errors
    /// [`Error::Missing`] without etcd; if it does not start.
    pub fn start(members: usize) -> Result<Self> {
        Self::with(members, Clients::Plain)
    }

    /// The same, with a choice of how clients connect.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn with(members: usize, clients: Clients) -> Result<Self> {
        installed("etcd", "etcd-server")?;
        // A port may be taken between the choice and the start.
        let mut tries = 3;
        loop {
            tries -= 1;
            let addresses: Vec<_> = (0..2 * members).map(|_| crate::unused::address()).collect();
            let pairs = addresses.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            let mut cluster = Self::new(pairs, clients.clone())?;
            match cluster.start_all(&|| Command::new("etcd")) {
                Err(Error::Timeout { output, .. })
                    if tries > 0 && output.contains("address already in use") => {}
                Ok(()) => return Ok(cluster),
                Err(e) => return Err(e),
            }
        }
    }

    /// A cluster at these addresses, for clients and for other members; nothing is started. The
    /// addresses may be those of another namespace.
    ///
    /// # Errors
    /// If there is no place for its data.
    pub fn new(addresses: Vec<(SocketAddr, SocketAddr)>, clients: Clients) -> Result<Self> {
        let data = tempfile::tempdir().doing("make a directory for etcd")?;
        let member = |(n, (client, peer))| {
            let name = format!("m{n}");
            Member { data: data.path().join(&name), name, client, peer, process: None }
        };
        let members: Vec<_> = addresses.into_iter().enumerate().map(member).collect();
        let one = |member: &Member| format!("{}=http://{}", member.name, member.peer);
        let initial = members.iter().map(one).collect::<Vec<_>>().join(",");
        Ok(Self { members, clients, initial, _data: data })
    }

    /// Starts every member that does not run, by `command`, which makes the command `etcd` without
    /// arguments, and waits until all serve clients.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_all(&mut self, command: &dyn Fn() -> Command) -> Result<()> {
        let down = |n: &usize| self.members[*n].process.is_none();
        let down: Vec<_> = (0..self.members.len()).filter(down).collect();
        for n in &down {
            self.launch(*n, command())?;
        }
        down.iter().try_for_each(|n| self.await_serving(*n))
    }

    /// Starts a member again that was killed, with its data.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        self.launch(member, Command::new("etcd"))?;
        self.await_serving(member)
    }

    fn launch(&mut self, n: usize, mut command: Command) -> Result<()> {
        let member = &self.members[n];
        let (client, peer) = (member.client, format!("http://{}", member.peer));
        command.args(["--logger", "zap", "--name", &member.name, "--data-dir"]).arg(&member.data);
        command.args(["--heartbeat-interval", HEARTBEAT, "--election-timeout", ELECTION]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.initial, "--initial-cluster-state", "new"]);
        let url = match &self.clients {
            Clients::Plain => format!("http://{client}"),
            Clients::Tls { certificate, key, authority } => {
                command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
                if let Some(authority) = authority {
                    command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
                }
                format!("https://{client}")
            }
        };
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        self.members[n].process = Some(Process::start(command)?);
        Ok(())
    }

    fn await_serving(&self, n: usize) -> Result<()> {
        let process = self.members[n].process.as_ref().expect("it was just launched");
        process.wait_for_line("serving client traffic", START).map(drop)
    }

    /// The addresses for clients, joined by commas, as `etcd://` takes them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.members.iter().map(|m| m.client.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The address for clients of one member.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> SocketAddr {
        self.members[member].client
    }

    /// The directory of a member's data.
    #[must_use]
    pub fn data(&self, member: usize) -> &Path {
        &self.members[member].data
    }

    /// How many members there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Kills a member, as a power cut of its host would.
    pub fn kill(&mut self, member: usize) {
        // The guard kills and reaps it.
        self.members[member].process = None;
    }

    /// Stops a member: its connections stay open, and it answers nothing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGSTOP)
    }

    /// Lets a stopped member go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGCONT)
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        match &self.members[member].process {
            Some(process) => process.signal(signal),
            None => Err(nix::Error::ESRCH).doing(format!("signal member {member} of etcd")),
        }
    }
}
