//! Standbys in this process: seeded, swapped with, given up. The VMs have no network; what they
//! compute and print shows that it is one VM that goes on.

use migrate::replication::{
    Settings,
    arbiter::{Answer, Request, Version, Versioned},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError, mpsc::channel},
    thread,
    time::{Duration, Instant},
};
use testkit::guest::{kvm, printed, start};
use vmm::{
    boot::{Image, Parameters},
    devices::{console::Console, throttle::Rates},
    kvm::Host,
    migration::{
        connection::Transport,
        destination::{NameError, Names, Offering},
        listener::{self, AccessPolicy},
    },
    replication::protection::{
        Arbiter, Beside, Figures, How, Member, Progress, Role, Seeded, StandbyReceiver,
    },
    vm::{Config, Observer, Resources, Vm, VmPhase},
};
use vmm_lite_lab::{images::image, vmm::TIMEOUT};

/// The arbiter of these tests: a table.
#[derive(Clone, Debug, Default)]
struct Table(Arc<Mutex<HashMap<[u8; 16], Versioned>>>);

#[derive(Debug)]
struct Asking {
    table: Table,
    answer: Option<Answer>,
    event: (UnixStream, UnixStream),
}

impl Table {
    /// For a process that does not die.
    fn asking(&self) -> Beside {
        let event = UnixStream::pair().unwrap();
        event.0.set_nonblocking(true).unwrap();
        let arbiter = Box::new(Asking { table: self.clone(), answer: None, event });
        Beside { arbiter, keeper: None, protector: None }
    }
}

impl Arbiter for Asking {
    fn ask(&mut self, request: &Request) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.answer = Some(match request {
            Request::Read(set) => Answer::Found(table.get(&set.0).cloned()),
            Request::CompareAndSwap { expected, new } => {
                let there = table.get(&new.set.0).cloned();
                let version = there.as_ref().map_or(Version::NONE, |there| there.version);
                if version == *expected {
                    let version = Version(version.0 + 1);
                    table.insert(new.set.0, Versioned { version, record: new.clone() });
                    Answer::Swapped(version)
                } else {
                    Answer::Conflict(there)
                }
            }
        });
        self.event.1.write_all(&[0]).unwrap();
    }

    fn answer(&mut self) -> Option<Answer> {
        let _ = self.event.0.read(&mut [0; 16]);
        self.answer.take()
    }

    fn fd(&self) -> RawFd {
        self.event.0.as_raw_fd()
    }
}

#[derive(Debug)]
struct AnyName;

impl Names for AnyName {
    fn reserve(&self, name: &str) -> Result<String, NameError> {
        Ok(name.into())
    }

    fn release(&self) {}

    fn open(&self) -> Result<(), NameError> {
        Ok(())
    }
}

struct Watching;

impl Observer<Progress> for Watching {
    fn progress(&mut self, _: Progress) -> io::Result<()> {
        Ok(())
    }

    fn fd(&self) -> RawFd {
        -1
    }
}

fn settings() -> Settings {
    // A busy machine may take its time; these tests do not measure it.
    let heartbeat = Duration::from_millis(20);
    Settings { heartbeat, misses: 50, max_lag: TIMEOUT, lag_grace: TIMEOUT, ..Settings::default() }
}

fn guest(program: &str, args: &[&str]) -> Vm {
    let image = Image::open(&image(program).unwrap()).unwrap();
    let args = args.iter().map(|arg| (*arg).into()).collect();
    let parameters = Parameters { name: "test".into(), args, ..Parameters::default() };
    let config = Config { memory: 32 << 20, nets: vec![], parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    start(&vm);
    wait_until("it runs", || printed(&vm).contains("nonce"));
    vm
}

fn wait_until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A standby that listens, and what it prints once it has taken over.
struct Waiting {
    at: String,
    seeded: std::sync::mpsc::Receiver<Seeded>,
    output: File,
}

fn standby(table: &Table) -> Waiting {
    let output = tempfile::tempfile().unwrap();
    let offering = Offering {
        names: Arc::new(AnyName),
        resources: Resources::on(Host::open().unwrap(), []).unwrap(),
        memory_max: 64 << 20,
        output: Some(OwnedFd::from(output.try_clone().unwrap())),
        fault_cost: None,
        lost_after: None,
        allow_spoofing: false,
        rates: Rates::default(),
    };
    let (tell, seeded) = channel();
    let receiver = StandbyReceiver::new(offering, table.asking(), settings(), tell).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp://{}", listener.local_addr().unwrap());
    listener::serve(listener, Arc::new(receiver), AccessPolicy::Plaintext).unwrap();
    Waiting { at, seeded, output }
}

fn protect(member: &Member, table: &Table, at: &str) {
    let how = How { settings: settings(), allow_own_clock: false };
    let to = at.parse().unwrap();
    let protected = member
        .protect(&to, &Transport::Plaintext, table.asking(), how, &mut Watching)
        .unwrap_or_else(|e| panic!("{}", vmm::host::with_causes(&e)));
    assert!(protected.pages > 0 && protected.term >= 2, "{protected:?}");
}

fn figures(member: &Member) -> Figures {
    member.figures().expect("it is protected")
}

#[test]
fn roles_are_swapped_there_and_back_and_nothing_is_lost() {
    if !kvm() {
        return;
    }
    let table = Table::default();
    let vm = guest("dirtier", &["--pages", "64"]);
    let member = Member::new(vm.clone());
    let waiting = standby(&table);
    protect(&member, &table, &waiting.at);
    let Seeded { vm: there, member: other, .. } = waiting.seeded.recv_timeout(TIMEOUT).unwrap();
    let mut members = [(member, vm), (other, there)];
    for turn in 0..6 {
        let [(primary, here), (standby, there)] = &members;
        assert_eq!(figures(primary).role, Role::Primary);
        assert_eq!(figures(standby).role, Role::Standby);
        let position = figures(primary).last;
        let swapped = primary
            .failover(None, TIMEOUT)
            .unwrap_or_else(|e| panic!("turn {turn}: {e}; {:?}", primary.figures()));
        println!("swap {turn}: {:?}", swapped.blackout);
        assert_eq!(figures(primary).role, Role::Standby);
        wait_until("the new primary is protected", || {
            figures(standby).standbys.iter().any(|s| s.in_sync && s.not_executed < 50)
        });
        assert!(figures(standby).last >= position);
        assert!(
            matches!(here.phase(), VmPhase::Running) && matches!(there.phase(), VmPhase::Running)
        );
        members.reverse();
    }
    assert_eq!(figures(&members[0].0).divergences, 0);
    members[0].0.unprotect(TIMEOUT).unwrap();
    assert!(members[0].0.figures().is_none());
    wait_until("the standby ends", || matches!(members[1].1.phase(), VmPhase::Ended(_)));
    assert!(members[1].0.was_dismissed());
    let before = printed(&members[0].1).len();
    wait_until("the VM goes on", || printed(&members[0].1).len() > before);
}

/// Forwards to `to`, until it is cut.
fn relay(to: &str) -> (String, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("tcp://{}", listener.local_addr().unwrap());
    let (open, to) = (Arc::<Mutex<Vec<TcpStream>>>::default(), to.replace("tcp://", ""));
    let kept = Arc::clone(&open);
    thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let there = TcpStream::connect(&to).unwrap();
            let copy = |from: &TcpStream, to: &TcpStream| {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            };
            copy(&here, &there);
            copy(&there, &here);
            kept.lock().unwrap().extend([here, there]);
        }
    });
    (at, open)
}

#[test]
fn of_two_that_lose_each_other_one_goes_on() {
    if !kvm() {
        return;
    }
    for _ in 0..3 {
        let table = Table::default();
        let vm = guest("dirtier", &["--pages", "64"]);
        let nonce = printed(&vm).lines().next().unwrap().to_owned();
        let member = Member::new(vm.clone());
        let waiting = standby(&table);
        let (at, open) = relay(&waiting.at);
        protect(&member, &table, &at);
        let Seeded { vm: there, member: other, .. } = waiting.seeded.recv_timeout(TIMEOUT).unwrap();
        for stream in open.lock().unwrap().iter() {
            // Both ends of a connection are here: one may have seen the end already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let ended = |vm: &Vm| matches!(vm.phase(), VmPhase::Ended(_));
        wait_until("one ends", || ended(&vm) || ended(&there));
        let survivor = if ended(&vm) { (&there, &other) } else { (&vm, &member) };
        wait_until("the other one is the primary", || figures(survivor.1).role == Role::Primary);
        assert!(!ended(survivor.0), "{:?}", figures(survivor.1));
        assert!(figures(survivor.1).standbys.is_empty());
        let before = printed(survivor.0);
        // A standby's console begins where its copy did.
        assert!(before.contains(&nonce) || ended(&vm), "{before} without {nonce}");
        wait_until("it goes on", || printed(survivor.0).len() > before.len());
        if ended(&vm) {
            wait_until("what it prints goes on here", || {
                waiting.output.metadata().unwrap().len() > 0
            });
        }
        // And can be protected again.
        let again = standby(&table);
        protect(survivor.1, &table, &again.at);
        assert_eq!(figures(survivor.1).standbys.len(), 1);
    }
}

#[test]
fn a_vm_that_is_not_protected_says_so() {
    if !kvm() {
        return;
    }
    let member = Member::new(guest("dirtier", &["--pages", "8"]));
    let said = member.failover(None, TIMEOUT).unwrap_err().to_string();
    assert!(said.contains("not protected"), "{said}");
    member.unprotect(TIMEOUT).unwrap_err();
    assert!(member.figures().is_none());
    let how = How { settings: settings(), allow_own_clock: false };
    let table = Table::default();
    let nothing = "tcp://127.0.0.1:9".parse().unwrap();
    member
        .protect(&nothing, &Transport::Plaintext, table.asking(), how, &mut Watching)
        .unwrap_err();
    assert!(member.figures().is_none(), "the VM runs on as before");
}
