//! Moves a guest full of memory, and copies as many bytes plainly over the same network,
//! alternately.
//!
//! The plain copy is the reference for a move: one thread writes from memory, another reads into
//! memory of the kind that guests have, over a TCP connection between the same two hosts, in
//! plaintext or through the same TLS. Nothing is inspected, summed or acknowledged except for one
//! byte at the end. The memory read into is *fresh*, like a destination's, so that it costs page
//! faults; or it was *touched* before: a destination could have that only by taking all memory that
//! a guest may have from the host before it knows what of it will arrive.
//!
//! Of a move the first round counts, from its first page until the destination has confirmed it,
//! and so has all the memory.

mod plain_copy;
mod store;
mod tls;

use std::{fmt::Write, process::Command};

use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    images::image,
    process::{Process, run as run_command},
    site::Site,
    stats::{Summary, human_ns, summary},
    vmm::{TIMEOUT, Vmm},
};

use crate::{options::Options, report::three, system::GUEST_IP};
use plain_copy::{Memory, PlainCopy};
use store::Store;

/// Memory of the guest, in MiB.
const MEMORY_MIB: u64 = 1024;
/// The content of its key-value store, in MiB, without any zero page. The rest is the kernel's, and
/// little.
const CONTENT_MIB: u64 = 880;
const NAME: &str = "bulk";
const PORT: u16 = 7000;

/// Measurements of one transport.
#[derive(Clone, Debug, Serialize)]
pub struct Bulk {
    /// TLS or plaintext.
    pub transport: Transport,
    /// Bytes of messages in the first round of a move; the plain copy has as many.
    pub bytes: Summary,
    /// The first round, ns.
    pub round_ns: Summary,
    /// The whole move, ns.
    pub whole_ns: Summary,
    /// The plain copy into fresh memory, ns.
    pub fresh_ns: Summary,
    /// The plain copy into memory that was touched before, ns.
    pub touched_ns: Summary,
    /// Speed of a move in thousandths of that of the plain copy into fresh memory right before it.
    pub of_fresh_permille: Summary,
    /// The same, for the copy into touched memory.
    pub of_touched_permille: Summary,
}

/// The transport between hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Transport {
    /// Encrypted.
    Tls,
    /// Not encrypted.
    Plaintext,
}

/// Raw samples of one transport.
#[derive(Default)]
struct Samples {
    bytes: Vec<u64>,
    round: Vec<u64>,
    whole: Vec<u64>,
    fresh: Vec<u64>,
    touched: Vec<u64>,
}

/// Fills a guest, then moves it and copies, alternately.
pub fn run(options: &Options) -> Result<Vec<Bulk>> {
    let site = Site::new()?;
    let mut guest = Guest::start(&site)?;
    let mut copy = PlainCopy::new(&site, MEMORY_MIB << 20)?;
    let mut all = [Transport::Tls, Transport::Plaintext].map(|t| (t, Samples::default()));
    for n in 1..=options.bulk {
        for (transport, samples) in &mut all {
            samples.fresh.push(copy.time(*transport, Memory::Fresh)?);
            samples.touched.push(copy.time(*transport, Memory::Touched)?);
            let moved = guest.move_on(*transport)?;
            samples.bytes.push(moved.bytes);
            samples.round.push(moved.round_ns);
            samples.whole.push(moved.whole_ns);
        }
        eprintln!("bulk: {n} of {}", options.bulk);
    }
    guest.end()?;
    Ok(all.into_iter().map(|(transport, samples)| samples.figures(transport)).collect())
}

impl Samples {
    fn figures(self, transport: Transport) -> Bulk {
        let speed = |bytes: u64, ns: u64| bytes as f64 / ns.max(1) as f64;
        let of = |copies: &[u64]| {
            let moves = self.bytes.iter().zip(&self.round).map(|(b, ns)| speed(*b, *ns));
            let copies = copies.iter().map(|ns| speed(MEMORY_MIB << 20, *ns));
            let ratios: Vec<u64> = moves.zip(copies).map(|(m, c)| (m / c * 1e3) as u64).collect();
            summary(&ratios)
        };
        Bulk {
            transport,
            bytes: summary(&self.bytes),
            round_ns: summary(&self.round),
            whole_ns: summary(&self.whole),
            fresh_ns: summary(&self.fresh),
            touched_ns: summary(&self.touched),
            of_fresh_permille: of(&self.fresh),
            of_touched_permille: of(&self.touched),
        }
    }
}

/// The result of a move.
struct Moved {
    bytes: u64,
    round_ns: u64,
    whole_ns: u64,
}

/// The guest, on either host of the site.
struct Guest<'s> {
    site: &'s Site,
    vmms: [Vmm; 2],
    at: usize,
    process: Process,
}

impl<'s> Guest<'s> {
    fn start(site: &'s Site) -> Result<Self> {
        let vmms = Vmm::on_both(site)?;
        let (memory, ip) = (format!("{MEMORY_MIB}M"), format!("{GUEST_IP}/24"));
        let args = ["--name", NAME, "--memory", &memory, "--tap", "tap0", "--ip", &ip];
        let program = ["--", "--maxmemory", "0"];
        let process = vmms[0].run(&image("kv")?, &[&args[..], &program].concat())?;
        Store::open(site)?.fill(CONTENT_MIB)?;
        Ok(Self { site, vmms, at: 0, process })
    }

    fn move_on(&mut self, transport: Transport) -> Result<Moved> {
        let (from, to) = (self.at, 1 - self.at);
        let plaintext: &[&str] =
            if transport == Transport::Plaintext { &["--plaintext"] } else { &[] };
        let receive = [&["--tap", "tap0"], plaintext].concat();
        let destination = self.vmms[to].receive(PORT, &receive)?;
        let url = self.vmms[to].url(PORT);
        let migrate = [&["migrate", NAME, &url, "--json"], plaintext].concat();
        let mut command: Command = self.vmms[from].command(&migrate)?;
        let said = run_command(&mut command)?;
        self.process.wait(TIMEOUT)?;
        self.process = destination;
        self.at = to;
        moved(&said).ok_or_else(|| Error::Protocol { what: "figures of a move".into(), said })
    }

    /// Checks its content, and ends it.
    fn end(mut self) -> Result<()> {
        Store::open(self.site)?.check(CONTENT_MIB)?;
        self.vmms[self.at].json(&["stop", NAME, "--json"])?;
        self.process.wait(TIMEOUT)?;
        Ok(())
    }
}

/// Reads the output of `vmm-lite migrate --json`: events, then the report.
fn moved(said: &str) -> Option<Moved> {
    let lines: Vec<serde_json::Value> =
        said.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>().ok()?;
    let round = lines.iter().find(|line| line["event"] == "round")?;
    Some(Moved {
        bytes: round["bytes"].as_u64()?,
        round_ns: round["took_ns"].as_u64()?,
        whole_ns: lines.last()?["total_ns"].as_u64()?,
    })
}

/// Writes the table.
pub fn write_markdown(all: &[Bulk], t: &mut String) -> std::fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        t,
        "| {MEMORY_MIB} MiB; median / p99 / max | memory of a move | whole move | plain copy into \
         fresh memory | into touched memory | speed of the move in the plain copy's, fresh: median \
         (least) | touched |"
    )?;
    writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for b in all {
        let percent =
            |s: Summary| format!("{:.0} % ({:.0} %)", s.median as f64 / 10.0, s.min as f64 / 10.0);
        let rate = b.bytes.median as f64 / b.round_ns.median.max(1) as f64;
        writeln!(
            t,
            "| {:?}, {} moves | {}: {rate:.2} GB/s | {} | {} | {} | {} | {} |",
            b.transport,
            b.bytes.count,
            three(b.round_ns),
            human_ns(b.whole_ns.median),
            three(b.fresh_ns),
            three(b.touched_ns),
            percent(b.of_fresh_permille),
            percent(b.of_touched_permille),
        )?;
    }
    writeln!(t)
}
