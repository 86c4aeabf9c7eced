//! `vmm-lite identity`, and the options of `migrate` and `receive` that choose one.

use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};
use vmm::identity::{IdentityDir, Location, PublicKey, Role, Trusted, trust::check_name};

/// Days that a certificate is valid.
const DAYS: u32 = 365;

const EXAMPLES: &str = "\
Both hosts of a move must know each other. Once on each: `init`, which prints a line. Then each \
line goes to the other host's `trust`:

  hosta# vmm-lite identity init
  hosta# vmm-lite identity trust $(ssh hostb vmm-lite identity show)
  hosta# ssh hostb vmm-lite identity trust $(vmm-lite identity show)

A host that only ever sends, or only ever receives, needs no more: `trust KEY NAME --receive` \
where VMs are sent from, `--send` where
they are received.

Where several hosts may receive VMs, `migrate` has to know which is meant. Bind each to its
addresses, as they are written in tcp://HOST:PORT, or name the key in the move:

  hosta# vmm-lite identity trust $(ssh hostb vmm-lite identity show) --at 10.9.0.2 --at hostb:7000
  hosta# vmm-lite migrate kv tcp://10.9.0.2:7000
  hosta# vmm-lite migrate kv tcp://10.9.0.3:7000#ed25519:…

The identity is in /etc/vmm-lite for root, else in $XDG_CONFIG_HOME/vmm-lite (~/.config/vmm-lite); \
--identity DIR or VMM_LITE_IDENTITY says otherwise.";

/// Manage this host's identity, and which hosts may send it VMs and receive its VMs
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of the identity
    #[arg(long, value_name = "DIR", global = true)]
    identity: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a key pair, and print the line that other hosts need
    Init {
        /// How long its certificate is valid, in days
        #[arg(long, default_value_t = DAYS,
            value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Print the line that other hosts need to trust this one
    Show {
        /// Print an object
        #[arg(long)]
        json: bool,
    },
    /// Make a new certificate for the same key; other hosts need no change
    Renew {
        /// How long it is valid, in days
        #[arg(long, default_value_t = DAYS,
            value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Trust a host, or change what a trusted host may do
    Trust {
        /// Its key and name: what `vmm-lite identity show` prints there
        #[arg(value_name = "KEY [NAME]", required = true, num_args = 1..=2)]
        line: Vec<String>,
        /// Name for it here, instead of the line's
        #[arg(long)]
        name: Option<String>,
        /// It may send VMs here [default: both]
        #[arg(long)]
        send: bool,
        /// It may receive VMs from here [default: both]
        #[arg(long)]
        receive: bool,
        /// `migrate` expects this host, and no other, at this address; repeat for several addresses
        /// [default: unchanged]
        #[arg(long, value_name = "HOST[:PORT]")]
        at: Vec<Location>,
        /// Remove all its address bindings
        #[arg(long, conflicts_with = "at")]
        anywhere: bool,
    },
    /// List the trusted hosts
    List {
        /// Print an array of objects
        #[arg(long)]
        json: bool,
    },
    /// Stop trusting a host
    Revoke {
        /// Its name or key
        #[arg(value_name = "NAME|KEY")]
        who: String,
    },
}

/// How a move is secured.
#[derive(clap::Args, Debug)]
pub struct Security {
    /// Directory of this host's identity [default: see `vmm-lite identity --help`]
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Neither encrypt nor authenticate; only on a network that you trust, and on both sides
    #[arg(long, conflicts_with = "identity")]
    plaintext: bool,
}

impl Security {
    /// Where the identity is; `None` for plaintext.
    #[must_use]
    pub fn dir(&self) -> Option<IdentityDir> {
        (!self.plaintext).then(|| IdentityDir::find(self.identity.clone()))
    }
}

/// Runs the verb.
///
/// # Errors
/// An error of the identity.
pub fn run(args: Args) -> super::Result {
    let dir = IdentityDir::find(args.identity);
    match args.verb {
        Verb::Init { days } => {
            let identity = dir.init(days)?;
            eprintln!(
                "vmm-lite: made an identity in {}; other hosts trust it by this line:",
                dir.path().display()
            );
            println!("{} {}", identity.public(), host_name());
        }
        Verb::Show { json } => {
            let identity = dir.load()?;
            let validity = identity.certificate().validity()?;
            if json {
                let object = json!({
                    "key": identity.public().to_string(),
                    "name": host_name(),
                    "directory": dir.path(),
                    "valid_from": seconds(validity.start),
                    "valid_until": seconds(validity.end),
                });
                println!("{object}");
            } else {
                println!("{} {}", identity.public(), host_name());
            }
            match identity.certificate().check_validity(SystemTime::now()) {
                Ok(None) => {}
                Ok(Some(warning)) => eprintln!("vmm-lite: warning: {warning}"),
                Err(e) => eprintln!("vmm-lite: warning: {e}"),
            }
        }
        Verb::Renew { days } => {
            let identity = dir.renew(days)?;
            eprintln!(
                "vmm-lite: the certificate of {} is valid for {days} days",
                identity.public()
            );
        }
        Verb::Trust { line, name, send, receive, at, anywhere } => {
            let at = if anywhere || !at.is_empty() { Some(at) } else { None };
            trust(&dir, &line, name, (send, receive), at)?;
        }
        Verb::List { json } => list(&dir, json)?,
        Verb::Revoke { who } => {
            let gone = dir.change_trusted(|store| store.remove(&who))?;
            eprintln!("vmm-lite: {} ({}) is no longer trusted", gone.name, gone.key);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn trust(
    dir: &IdentityDir,
    line: &[String],
    name: Option<String>,
    (send, receive): (bool, bool),
    at: Option<Vec<Location>>,
) -> Result<(), Box<dyn std::error::Error>> {
    // The line may be quoted, or not.
    let words: Vec<&str> = line.iter().flat_map(|part| part.split_whitespace()).collect();
    let (key, named) = match words[..] {
        [key] => (key, None),
        [key, named] => (key, Some(named.to_owned())),
        _ => return Err(vmm::identity::Error::Key(line.join(" ")).into()),
    };
    let key: PublicKey = key.parse()?;
    if dir.load().is_ok_and(|me| me.public() == key) {
        eprintln!("vmm-lite: warning: this is this host's own key; the other host's is needed");
    }
    let both = !send && !receive;
    let trusted = dir.change_trusted(|store| {
        let known = store.get(&key).cloned();
        let at = at.or_else(|| known.as_ref().map(|host| host.at.clone())).unwrap_or_default();
        let name = name.or(named).or(known.map(|host| host.name));
        let name = name.unwrap_or_else(|| unnamed(&key));
        let host = Trusted { key, name, send: send || both, receive: receive || both, at };
        store.add(host.clone())?;
        Ok(host)
    })?;
    let may = match (trusted.send, trusted.receive) {
        (true, false) => "send VMs here",
        (false, true) => "receive VMs from here",
        _ => "send VMs here and receive VMs from here",
    };
    let expected = match places(&trusted) {
        at if at.is_empty() || !trusted.receive => String::new(),
        at => format!("; `migrate` expects it at {at}"),
    };
    eprintln!("vmm-lite: {} may {may}{expected}", trusted.name);
    Ok(())
}

fn list(dir: &IdentityDir, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let store = dir.trusted()?;
    if json {
        let hosts: Vec<Value> = store
            .hosts()
            .iter()
            .map(|host| {
                let at: Vec<String> = host.at.iter().map(Location::to_string).collect();
                json!({
                    "name": host.name,
                    "key": host.key.to_string(),
                    "send": host.send,
                    "receive": host.receive,
                    "at": at,
                })
            })
            .collect();
        println!("{}", Value::from(hosts));
        return Ok(());
    }
    let yes = |may| if may { "yes" } else { "no" };
    println!("{:<20} {:<9} {:<12} {:<51} AT", "NAME", "MAY SEND", "MAY RECEIVE", "KEY");
    for host in store.hosts() {
        let (send, receive) = (yes(host.may(Role::Send)), yes(host.may(Role::Receive)));
        let (key, at) = (host.key.to_string(), places(host));
        let line = format!("{:<20} {send:<9} {receive:<12} {key:<51} {at}", host.name);
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// The addresses that a host is bound to.
fn places(host: &Trusted) -> String {
    host.at.iter().map(Location::to_string).collect::<Vec<_>>().join(", ")
}

/// This host's name, reduced to the characters that a name may have.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| check_name(name).is_ok()).unwrap_or_else(|| "host".into())
}

fn unnamed(key: &PublicKey) -> String {
    let letters: String =
        key.to_string().chars().skip(8).filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("host-{letters}")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
