//! `vmm-lite migrate`.

use super::{
    arguments,
    call_off::CallOff,
    identity,
    secured::{Secured, connector_for, expect_there},
    waiting::Teller,
};
use crate::control::server::catch_signals;
use api::{
    Client, Event, Progress,
    moves::MoveCost,
    progress::Round,
    verb::{Migrate, MoveMode},
};
use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
    process::ExitCode,
    time::Duration,
};
use vmm::{
    identity::signer::Signing,
    migration::{address::Address, connector::Connector},
};

const EXAMPLES: &str = "\
The destination waits with `vmm-lite receive --listen tcp://HOST:PORT`. Until the VM has left it \
can be called off with Ctrl-C or
`vmm-lite cancel`; whatever fails before that leaves it running here. Both hosts must trust each \
other: see `vmm-lite identity`.

How memory goes over (--mode):
  auto           rounds of changed pages while the guest runs; if what is left does not fit the \
  blackout, the rest follows after the switch
  pre-copy       all memory before the switch
  hybrid         one round, then the switch; the rest follows
  stop-and-copy  all memory while the guest stands: the fewest bytes, the longest blackout
  lockstep       the destination executes what the VM does, and is given it then: no memory is \
  left for the blackout, however fast the guest writes; needs the same model of CPU on both hosts
While memory follows, the VM needs both hosts; the report says for how long. Moved on before all \
of it is there, it waits for the rest first.

Which host is expected at the address is known by its key: the one named behind #, or the one \
bound to the address (`vmm-lite identity
trust … --at`), or the only one that may receive VMs.

Examples:
  vmm-lite migrate kv tcp://10.9.0.2:7000
  vmm-lite migrate kv tcp://10.9.0.2:7000#ed25519:…
  vmm-lite migrate kv tcp://10.9.0.2:7000 --bandwidth 1Gbit --max-blackout 500us --timeout 30s
  vmm-lite migrate kv tcp://10.9.0.2:7000 --json | tail -n 1 | jq .blackout_ns";

/// Move a VM to another host
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// The destination; with #KEY, the host expected there
    #[arg(value_name = "tcp://HOST:PORT[#KEY]")]
    to: Address,
    /// How memory is transferred
    #[arg(long, default_value = "auto", value_parser = super::choices::move_mode())]
    mode: MoveMode,
    /// Fail the move if the expected blackout is longer [default: aim at 1ms, and move in any case]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    max_blackout: Option<Duration>,
    /// Limit the rate while the guest runs, such as 1Gbit or 100MB
    #[arg(long, value_name = "RATE", value_parser = arguments::bandwidth)]
    bandwidth: Option<u64>,
    /// Fail the move if the switch has not begun by then [default: none]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    timeout: Option<Duration>,
    /// Print one JSON object per event, with the report as the last; times in nanoseconds
    #[arg(long)]
    json: bool,
    /// If several hosts could be at the address, accept any that may receive VMs, and expect it
    /// there from then on
    #[arg(long, conflicts_with = "plaintext")]
    trust_on_first_use: bool,
    #[command(flatten)]
    security: identity::Security,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or the move fails: then the VM keeps running here.
pub fn run(args: Args) -> super::Result {
    let json = args.json;
    moved(args).inspect_err(|e| {
        if json {
            failed(&**e);
        }
    })
}

fn moved(args: Args) -> super::Result {
    let json = args.json;
    let signals = catch_signals()?;
    // While there is no other thread, as it forks.
    let mut secured = Secured::of(&args.security, &args.to, args.trust_on_first_use)?;
    let connector = Connector::start()?;
    let early = move || {
        if json {
            failed(&io::Error::from(io::ErrorKind::Interrupted));
        }
    };
    let call_off = CallOff::on(signals, &args.name, early)?;
    let mut client = super::connect(&args.name)?;
    let addresses = args.to.look_up()?;
    let live = !json && std::io::stderr().is_terminal();
    let mut teller = Teller::default();
    let progress = |progress| {
        if json {
            print_event(&progress);
        } else if !teller.tell(&progress) && live {
            show(progress);
        }
    };
    call_off.asked(&client)?;
    let connector = connector_for(&mut client, connector, &addresses)?;
    let handed: Vec<_> = connector.iter().map(Connector::socket).collect();
    let request = Migrate {
        to: args.to.to_string(),
        addresses: Some(addresses),
        mode: args.mode,
        max_blackout_ns: args.max_blackout.map(api::nanoseconds),
        bandwidth: args.bandwidth,
        timeout_ns: args.timeout.map(api::nanoseconds),
        identity: secured.as_mut().map(|secured| std::mem::take(&mut secured.member)),
        plaintext: secured.is_none(),
        connector: connector.is_some(),
    };
    let answer = match secured {
        None => client.call_with(request, &handed, progress),
        Some(Secured { dir, signing, expected, .. }) => {
            let Signing { socket, leash, .. } = signing;
            // Only the VM's process now has the socket: the signer ends when that closes it.
            let sent = client.send(request, &[&[socket.as_fd()][..], &handed].concat());
            drop((socket, connector));
            let answer = sent.and_then(|()| client.answer::<Migrate>(progress));
            // Without an answer the move may continue, and its source may have to authenticate
            // again.
            if matches!(answer, Ok(_) | Err(api::Error::Refused(_))) {
                leash.release();
            }
            if let (Ok(answer), true) = (&answer, expected.first_use) {
                expect_there(&dir, &args.to, answer.destination_key.as_deref())?;
            }
            answer
        }
    };
    let answer = match answer {
        Err(e) => {
            if call_off.caught() && json {
                failed(&e);
            }
            return call_off.failed(e);
        }
        Ok(answer) => answer,
    };
    drop(call_off);
    if live {
        eprint!("\r\x1b[K");
    }
    if json {
        super::print_json(&answer)?;
        return gone(&mut client);
    }
    match &answer.cost {
        Some(cost) => print!("{}", table(&args, cost, answer.paused)),
        // It moved, and the connection was lost at the commit: there are no times.
        None => println!("{} {}", args.name, arrived(&args.to, answer.paused)),
    }
    gone(&mut client)
}

/// Waits until the VM has released its name and its TAP device here. If it does not, the move has
/// succeeded all the same.
fn gone(client: &mut Client) -> super::Result {
    if let Err(e) = client.wait_gone() {
        eprintln!("vmm-lite: warning: {}", vmm::host::with_causes(&e));
    }
    Ok(ExitCode::SUCCESS)
}

fn arrived(to: &Address, paused: bool) -> String {
    if paused { format!("is at {to} now, still paused") } else { format!("runs at {to} now") }
}

/// Reports the last event of a failed move.
fn failed(why: &dyn std::error::Error) {
    print_event(&Event::Failed { error: vmm::host::with_causes(why) });
}

fn print_event(event: &impl serde::Serialize) {
    super::print_json(event).expect("events can be written");
}

fn show(progress: Progress) {
    match progress {
        Progress::Event(Event::Phase { doing, .. }) => eprint!("\r\x1b[K{doing}"),
        Progress::Event(Event::Round(Round { round, bytes_sent, dirty_pages, .. })) => eprint!(
            "\r\x1b[Kround {round}: {} KiB sent, {dirty_pages} pages written meanwhile",
            bytes_sent / 1024
        ),
        Progress::Event(Event::Waiting { .. } | Event::Failed { .. })
        | Progress::Pages(_)
        | Progress::WaitingFor { .. }
        // A newer VM may report more.
        | Progress::Other(_) => {}
    }
}

fn brownout(r: &MoveCost) -> String {
    let us = |ns: u64| format!("{:.1} µs", ns as f64 / 1e3);
    let Some(ns) = r.brownout_ns else {
        return "brownout               not known (see docs/metrics.md)".into();
    };
    format!(
        "brownout             {:>12}{}, of which {} went into {} page faults at the new host{}",
        us(ns),
        if r.brownout_over { "" } else { " and longer" },
        us(r.brownout_lost_ns),
        r.brownout_page_faults,
        if r.pages_waited_for == Some(0) { "" } else { " and waits for pages" },
    )
}

fn us(ns: u64) -> String {
    format!("{:>9.1} µs", ns as f64 / 1e3)
}

/// The blackout and its phases.
fn blackout(r: &MoveCost) -> String {
    let (ns, p) = match (r.blackout_ns, &r.phases) {
        (Some(ns), Some(phases)) => (ns, phases),
        (Some(ns), None) => {
            let pause = r.copy_pause_ns.map_or("not known".into(), us);
            return format!("blackout             {}\npause for the copy   {pause}", us(ns));
        }
        (None, _) => {
            return "blackout               not known: the connection broke before the destination \
                said when the VM ran"
                .into();
        }
    };
    format!(
        "blackout             {}   (expected {})\n\
         \x20 quiesce            {}\n\
         \x20 last pages, state  {}\n\
         \x20 transfer, apply    {}\n\
         \x20 commit, run        {}",
        us(ns),
        us(r.predicted_blackout_ns).trim_start(),
        us(p.quiesce_ns),
        us(p.last_pages_and_state_ns),
        us(p.transfer_and_apply_ns),
        us(p.commit_and_run_ns),
    )
}

fn table(args: &Args, r: &MoveCost, paused: bool) -> String {
    let kib = |bytes: Option<u64>| bytes.map_or("?".into(), |bytes| (bytes / 1024).to_string());
    let mut table = format!(
        "{} {}\n\
         {}\n\
         {}\n\
         whole move           {}\n\
         sent                 {:>9} KiB in {} rounds, {} pages in the blackout\n\
         left out             {:>9} KiB by the guest's hints; {} zero pages\n",
        args.name,
        arrived(&args.to, paused),
        blackout(r),
        brownout(r),
        us(r.total_ns),
        r.bytes_sent / 1024,
        r.rounds,
        r.last_pages,
        kib(r.bytes_left_out),
        r.pages_zero,
    );
    if r.pages_following > 0 {
        let waited = match (r.pages_waited_for, r.worst_wait_ns) {
            (Some(pages), Some(worst)) => {
                format!("the guest waited for {pages}, {} at most", us(worst).trim_start())
            }
            _ => "for how many the guest waited is not known: the connection broke before the \
                destination said so"
                .into(),
        };
        table += &format!(
            "followed             {:>9} pages within {}; {waited}\n",
            r.pages_following,
            us(r.following_ns).trim_start(),
        );
    }
    table
}
