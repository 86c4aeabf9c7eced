//! A store with large values that a client writes to, moved over a slow link so that there is
//! post-copy.

use migrate::wire::Kind;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};
use vmm_lite_lab::{
    images::image,
    probe::Connection,
    process::Process,
    relay::{Fate, Relay},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

pub const KEYS: usize = 300;
pub const STORE: &str = "10.0.0.2:6379";
/// One value: the key and its version, repeated. 32 KiB.
const REPEATED: usize = 2048;
/// How long a message with pages takes on the link until it is [released](Lab::release). The source
/// accepts three times that in silence.
const SLOW: Duration = Duration::from_millis(300);

fn value(key: usize, version: u64) -> String {
    format!("{key:06}:{version:08};").repeat(REPEATED)
}

/// The version of a key with this value. Checks every byte of it.
fn version(key: usize, value: &str) -> Result<u64, String> {
    let text = value.get(..16).unwrap_or_default();
    let version = text.get(7..15).and_then(|version| version.parse().ok());
    match version {
        Some(version) if value == self::value(key, version) => Ok(version),
        _ => Err(format!("key {key}: {} bytes that were never written: {text:?}", value.len())),
    }
}

/// The version of each key that the store has confirmed.
type Confirmed = Arc<Mutex<Vec<u64>>>;

/// Two hosts, the store on the first, and a client that writes one key after the other all the
/// time.
pub struct Lab {
    pub site: Site,
    pub vmms: [Vmm; 2],
    pub source: Process,
    pub dir: tempfile::TempDir,
    confirmed: Confirmed,
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
    released: Arc<AtomicBool>,
}

impl Lab {
    pub fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        site.hosts.iter().for_each(|host| host.tap("tap1").unwrap());
        let args = ["--name", "kv", "--memory", "64M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
        let source = vmms[0].run(&image("kv").unwrap(), &args).unwrap();
        let confirmed = Arc::new(Mutex::new(vec![0; KEYS]));
        let (stop, released) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let mut connection = connect(&site, STORE);
        for key in 0..KEYS {
            set(&mut connection, key, 0);
        }
        let writer = std::thread::spawn({
            let (confirmed, stop) = (Arc::clone(&confirmed), Arc::clone(&stop));
            move || {
                let mut version = 0;
                while !stop.load(SeqCst) {
                    version += 1;
                    for key in 0..KEYS {
                        if stop.load(SeqCst) {
                            return;
                        }
                        set(&mut connection, key, version);
                        confirmed.lock().unwrap()[key] = version;
                    }
                }
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let writer = Some(writer);
        Some(Self { site, vmms, source, dir, confirmed, stop, writer, released })
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Begins a move over the slow link. Returns the destination, where the VM runs now, and the
    /// verb.
    pub fn follow(&self, mode: &[&str]) -> (Process, Process) {
        let there = self.vmms[1].receive(7000, &["--plaintext", "--tap", "tap0"]).unwrap();
        let target = format!("{}:7000", self.vmms[1].host().migration_ip);
        let released = Arc::clone(&self.released);
        let mut committed = false;
        let relay = Relay::start(&self.site.hosts[0].ns, target, move |passing| {
            committed |= passing.kind == Kind::Commit;
            if passing.kind != Kind::Pages || released.load(SeqCst) {
                return Fate::Pass;
            }
            // A first round that takes a second, in which all keys are written again.
            Fate::Delayed(if committed { SLOW } else { SLOW / 10 })
        });
        let to = relay.unwrap().url();
        let args = [&["migrate", "kv", &to, "--plaintext", "--json"], mode].concat();
        let migrate = Process::start(self.vmms[0].command(&args).unwrap()).unwrap();
        let here = there.wait_for_line("runs here now", TIMEOUT * 3);
        here.unwrap_or_else(|e| panic!("{e}\n{}\n{}", migrate.output(), there.output()));
        (there, migrate)
    }

    /// From now on the link is as fast as it can be.
    pub fn release(&self) {
        self.released.store(true, SeqCst);
    }

    pub fn start(&self, host: usize, args: &[&str]) -> Process {
        Process::start(self.vmms[host].command(args).unwrap()).unwrap()
    }

    /// The minimum version of each key from now on.
    pub fn confirmed(&self) -> Vec<u64> {
        self.confirmed.lock().unwrap().clone()
    }

    /// The client stops writing; it must not have been disconnected.
    pub fn stop_writing(&mut self) {
        self.stop.store(true, SeqCst);
        self.writer.take().unwrap().join().expect("the client lost its connection or an answer");
    }

    /// Checks every byte of every key of the store at `address`.
    #[track_caller]
    pub fn is_whole(&self, address: &str, least: &[u64]) {
        let mut connection = connect(&self.site, address);
        let wrong: Vec<String> = (0..KEYS)
            .filter_map(|key| {
                let value = connection.bulk(&format!("GET k{key}\r\n")).unwrap();
                match version(key, &value.unwrap_or_default()) {
                    Ok(version) if version >= least[key] => None,
                    Ok(version) => Some(format!("key {key}: {version}, not {}", least[key])),
                    Err(wrong) => Some(wrong),
                }
            })
            .collect();
        assert!(wrong.is_empty(), "{} of {KEYS} keys are wrong: {:?}", wrong.len(), wrong.first());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.release();
    }
}

fn connect(site: &Site, address: &str) -> Connection {
    let address: SocketAddr = address.parse().unwrap();
    Connection::open_when_up(&site.client, address, TIMEOUT).unwrap()
}

fn set(connection: &mut Connection, key: usize, version: u64) {
    let (name, value) = (format!("k{key}"), value(key, version));
    let command =
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${}\r\n{value}\r\n", name.len(), value.len());
    assert_eq!(connection.request(&command).unwrap(), "+OK");
}
