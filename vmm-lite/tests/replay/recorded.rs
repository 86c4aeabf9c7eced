//! A recording in this process's memory, and replays of it.

use migrate::input_log::{self, Record};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use testkit::meaning::meaning;
use vmm::{
    boot::{Image, Parameters},
    devices::console::Console,
    kvm::Host,
    memory::{PAGE, PageSet},
    vm::{
        Config, End, Identity, Log, NetConfig, Next, Outcome, Paused, Position, RecordOptions,
        Replayed, Resources, Resume, ResumeReason, Source, Urgency, Vm, VmState,
    },
};

use vmm_lite_interface::layout::{PAGE_SIZE, SAMPLES, SAMPLES_END};
use vmm_lite_lab::vmm::TIMEOUT;

/// Every exit has a digest of all registers and all of the memory.
pub const EVERY: RecordOptions = checks(1);
/// Some have.
pub const SOME: RecordOptions = checks(64);

const fn checks(check_every: u64) -> RecordOptions {
    RecordOptions { check_every, check_whole: true, allow_own_clock: false }
}

/// Records, the first at position 1.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<Mutex<Vec<Vec<u8>>>>);

impl Log for Records {
    fn append(&mut self, position: u64, record: &[u8], _: Urgency) -> io::Result<()> {
        let mut records = self.0.lock().unwrap();
        records.push(record.to_vec());
        assert_eq!(records.len() as u64, position);
        Ok(())
    }
}

impl Records {
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn all(&self) -> Vec<Record> {
        self.0.lock().unwrap().iter().map(|bytes| input_log::decode(bytes).unwrap()).collect()
    }

    pub fn bytes(&self) -> usize {
        self.0.lock().unwrap().iter().map(Vec::len).sum()
    }
}

/// Reads them, up to a position.
#[derive(Debug)]
pub struct Reader {
    pub records: Vec<Record>,
    pub until: usize,
}

impl Source for Reader {
    fn next(&mut self, position: u64) -> io::Result<Next> {
        let at = position as usize - 1;
        let record = self.records[..self.until].get(at).cloned();
        Ok(record.map_or(Next::End, Next::Record))
    }
}

/// A VM at one instant.
#[derive(Clone)]
pub struct Base {
    pub identity: Identity,
    pub state: VmState,
    pages: Vec<(usize, [u8; PAGE])>,
    pub at: Position,
}

impl Base {
    /// Pages that are part of a VM's state.
    fn pages(&self) -> impl Iterator<Item = (usize, &[u8; PAGE])> {
        let ring = (SAMPLES / PAGE_SIZE) as usize..(SAMPLES_END / PAGE_SIZE) as usize;
        let pages = self.pages.iter().map(|(page, content)| (*page, content));
        pages.filter(move |(page, _)| !ring.contains(page))
    }

    /// Flips a bit of a page.
    pub fn flip(&mut self, page: usize) {
        let mut content = self.page(page);
        content[77] ^= 1;
        match self.pages.binary_search_by_key(&page, |(page, _)| *page) {
            Ok(at) => self.pages[at].1 = content,
            Err(at) => self.pages.insert(at, (page, content)),
        }
    }

    fn page(&self, page: usize) -> [u8; PAGE] {
        let found = self.pages.binary_search_by_key(&page, |(page, _)| *page);
        found.map_or([0; PAGE], |at| self.pages[at].1)
    }

    pub fn of(paused: &mut Paused<'_>) -> Self {
        let at = paused.position().unwrap().unwrap_or_default();
        let (vm, state) = (paused.vm(), paused.capture().unwrap());
        Self { identity: vm.identity().clone(), state, pages: pages(vm), at }
    }

    /// The same VM again, which replays these records.
    pub fn replay(&self, records: &Records) -> (Vm, Option<Replayed>) {
        let all = records.all();
        let until = all.len();
        self.replay_from(Reader { records: all, until })
    }

    /// The same, up to a record.
    pub fn replay_until(&self, records: &Records, until: usize) -> (Vm, Option<Replayed>) {
        self.replay_from(Reader { records: records.all(), until })
    }

    pub fn replay_from(&self, source: Reader) -> (Vm, Option<Replayed>) {
        let vm = self.prepare(source);
        let held = vm.hold().unwrap();
        held.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO }).unwrap();
        let replayed = vm.wait_replayed(None).flatten();
        (vm, replayed)
    }

    /// The same VM again, which replays what this reads when it is resumed.
    pub fn prepare(&self, source: Reader) -> Vm {
        let vm = self.machine();
        let mut held = vm.hold().unwrap();
        held.apply(&self.state, Duration::ZERO).unwrap();
        held.replay(Box::new(source), self.at, None).unwrap();
        drop(held);
        vm
    }

    /// A VM with its memory, which has nothing else of it yet.
    pub fn machine(&self) -> Vm {
        let host = Host::open().unwrap();
        let (identity, console) = (self.identity.clone(), Console::new(None));
        let resources = Resources::for_replay(host, &identity);
        let vm = Vm::prepare_with(&resources, identity, console, None).unwrap();
        let memory = vm.unstarted_memory().unwrap();
        for (page, content) in &self.pages {
            memory.write_page(*page, content).unwrap();
        }
        vm
    }
}

/// All pages that were touched.
pub fn pages(vm: &Vm) -> Vec<(usize, [u8; PAGE])> {
    let set: PageSet = vm.ram().complete().unwrap().touched().unwrap();
    let content = |page| {
        let mut content = [0; PAGE];
        vm.ram().read_page(page, &mut content).unwrap();
        (page, content)
    };
    set.iter().map(content).collect()
}

/// A recorded VM.
pub struct Recorded {
    pub vm: Vm,
    pub base: Base,
    pub records: Records,
}

/// The address of a guest with a network.
pub const ADDRESS: &str = "10.9.0.2";

/// Boots an image with these arguments, recorded from its first instruction on.
pub fn boot(image: &Path, memory: u64, args: &[&str], options: RecordOptions) -> Recorded {
    boot_on(None, image, memory, args, options)
}

/// The same, with a network.
pub fn boot_on(
    tap: Option<&str>,
    image: &Path,
    memory: u64,
    args: &[&str],
    options: RecordOptions,
) -> Recorded {
    let image = Image::open(image).unwrap();
    let args = args.iter().map(Into::into).collect();
    let ip = tap.map(|_| format!("{ADDRESS}/24").parse().unwrap());
    let parameters = Parameters { name: "recorded".into(), args, ip, ..Default::default() };
    let net = |tap: &str| NetConfig { tap: tap.into(), mac: [2, 0, 0, 0, 0, 9] };
    let config = Config { memory, nets: tap.map(net).into_iter().collect(), parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    let records = Records::default();
    let mut held = vm.hold().unwrap();
    let base = Base::of(&mut held);
    held.record(Box::new(records.clone()), 0, options).unwrap();
    held.resume(Resume { reason: ResumeReason::Boot, away: Duration::ZERO }).unwrap();
    Recorded { vm, base, records }
}

/// What it printed.
pub fn printed(vm: &Vm) -> String {
    let piece = vm.console().read(0, Duration::ZERO);
    String::from_utf8_lossy(&piece.map_or_else(Vec::new, |piece| piece.bytes)).into_owned()
}

/// Pauses a VM at an input point: while its guest waits.
pub fn pause_waiting(vm: &Vm) -> Paused<'_> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let paused = vm.pause().unwrap();
        if paused.guest_waits() {
            return paused;
        }
        paused.resume_here().unwrap();
        assert!(Instant::now() < deadline, "the guest never waits");
    }
}

/// Checks that a replay reaches the state of a paused VM: all pages, and the registers.
pub fn reaches(base: &Base, records: &Records, paused: &mut Paused<'_>) {
    let there = Base::of(paused);
    let (vm, replayed) = base.replay(records);
    is_complete(&replayed, there.at.record);
    let here = Base::of(&mut vm.hold().unwrap());
    assert_eq!(here.at, there.at);
    let differ = there.pages().filter(|(page, content)| here.page(*page) != **content);
    let differ: Vec<_> = differ.map(|(page, _)| page).collect();
    assert!(differ.is_empty(), "pages differ: {differ:x?}");
    assert_eq!(meaning(&here.state.vcpus[0]), meaning(&there.state.vcpus[0]));
    assert_eq!(here.state.devices, there.state.devices);
    assert_eq!(here.state.console, there.state.console);
}

/// Checks that a VM ended as another did, and with the same output.
pub fn ends_alike(recorded: &Vm, replayed: &(Vm, Option<Replayed>)) {
    let (vm, outcome) = replayed;
    assert_eq!(*outcome, None, "the replay ends with the VM");
    assert_eq!(printed(vm), printed(recorded));
    match (&*recorded.wait_end(), &*vm.wait_end()) {
        (End::Exited(one), End::Exited(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one} and {other}"),
    }
}

/// Checks that a replay reached the end of its log.
pub fn is_complete(replayed: &Option<Replayed>, position: u64) {
    let Some(replayed) = replayed else { panic!("the VM has ended") };
    assert_eq!(replayed.outcome, Outcome::Complete, "after {}", replayed.position);
    assert_eq!(replayed.position, position);
}
