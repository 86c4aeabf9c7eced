//! The key-value store's clients, and their judgement.

use std::{net::SocketAddr, time::Duration};

use vmm_lite_lab::{
    Error, Result,
    net::Namespace,
    probe::{Connection, Probe, Seen},
    process::Process,
    redis,
    vmm::TIMEOUT,
    writers::Writers,
};

const GUEST: ([u8; 4], u16) = ([10, 0, 0, 2], 6379);
/// The guest's address, with the length of its network.
pub const CIDR: &str = "10.0.0.2/24";
/// Connections that check every write of their own, several in flight on each.
pub const WRITERS: usize = 2;
/// Connections of redis-benchmark.
pub const CONNECTIONS: &str = "8";

/// Clients at work.
pub struct Load {
    client: Namespace,
    redis: Process,
    writers: Writers,
    probe: Probe,
}

/// What the clients saw.
pub struct Told {
    /// The checking client's view.
    pub seen: Seen,
    /// Writes that the writers were told of; the store holds exactly these.
    pub writes: u64,
    /// Requests that the store has served since it was started, by its own count, which goes where
    /// it goes.
    pub served: u64,
    redis_lives: bool,
}

impl Load {
    /// Starts them as soon as the store listens.
    pub fn start(client: &Namespace) -> Result<Self> {
        let guest = SocketAddr::from(GUEST);
        drop(Connection::open_when_up(client, guest, TIMEOUT)?);
        let args = ["-t", "set,get", "-c", CONNECTIONS, "-r", "1000"];
        let redis = redis::background_load(client, guest, &args)?;
        let writers = Writers::start(client, guest, "demo:writes", WRITERS)?;
        let probe = Probe::start(client, guest, "demo:counter", Duration::from_micros(200))?;
        Ok(Self { client: client.clone(), redis, writers, probe })
    }

    /// Now, in ns since the checking client began.
    pub fn now_ns(&self) -> u64 {
        self.probe.began.elapsed().as_nanos() as u64
    }

    /// Ends them.
    ///
    /// # Errors
    /// If the store does not hold what the writers were told.
    pub fn end(mut self) -> Result<Told> {
        let redis_lives = self.redis.is_running();
        drop(self.redis);
        let seen = self.probe.stop();
        let writes = self.writers.stop()?;
        Ok(Told { seen, writes, served: served(&self.client)?, redis_lives })
    }
}

impl Told {
    /// Prints it as one line.
    pub fn print(&self) {
        let Self { seen, writes, served, .. } = self;
        println!(
            "\nchecking client: {} requests, {} errors, {} reconnects, {} TCP retransmissions; \
             writers: {writes} writes, each done once; with redis-benchmark: {served} requests",
            seen.samples.len(),
            seen.errors.len(),
            seen.reconnects,
            seen.retransmissions
        );
    }

    /// Whether no client was harmed.
    ///
    /// # Errors
    /// How one was.
    pub fn verdict(&self) -> Result<()> {
        let wrong = |said: String| Error::Protocol { what: "the client".into(), said };
        let seen = &self.seen;
        if let Some(first) = seen.errors.first() {
            return Err(wrong(format!("{} errors, the first: {first}", seen.errors.len())));
        }
        if seen.reconnects > 0 {
            return Err(wrong(format!("{} reconnects", seen.reconnects)));
        }
        if !self.redis_lives {
            return Err(wrong("redis-benchmark ended early".into()));
        }
        Ok(())
    }
}

fn served(client: &Namespace) -> Result<u64> {
    let info = redis::cli(client, GUEST.into(), &["INFO", "stats"])?;
    info.lines()
        .find_map(|line| line.trim().strip_prefix("total_commands_processed:")?.parse().ok())
        .ok_or_else(|| Error::Protocol { what: "INFO stats".into(), said: info })
}
