//! Another thread serves faults of guest memory, by the vCPU in the guest as well as by the VMM.

use std::{
    collections::BTreeMap,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use testkit::{
    control, guest,
    guest::{kvm, printed, start, vm},
};
use vmm::{
    memory::{Fault, GuestRam, PAGE, Userfault, UserfaultError, Watch},
    vm::{End, Vm},
};
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::{CONSOLE_OUT, CONTROL_PAGE, IMAGE_BASE},
};

const DATA: u64 = 0x18_0000;
const DATA_PAGE: usize = DATA as usize / PAGE;
const CONSOLE_EXIT: u32 = Doorbell::CONSOLE.0 | Doorbell::EXIT.0;

guest!(
    // Adds up a word of each of 16 pages, adds one to each, prints, and exits with the sum.
    adds,
    "xor ebx, ebx",
    "mov ecx, 16",
    "mov esi, {data}",
    "2: add ebx, [esi]",
    "inc dword ptr [esi]",
    "add esi, 4096",
    "loop 2b",
    "mov [{code}], ebx",
    "mov dword ptr [{ring}], 0x0a6b6f", // "ok\n"
    "mov dword ptr [{head}], 3",
    "mov edx, {port}",
    "mov eax, {bits}",
    "out dx, eax",
    "hlt",
    data = const DATA as u32,
    code = const control!(exit_code),
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    port = const PORT as u32,
    bits = const CONSOLE_EXIT,
);

/// A descriptor for the memory, or `None` after printing that the host forbids it.
fn open(ram: &Arc<GuestRam>) -> Option<Userfault> {
    match Userfault::open(ram) {
        Ok(userfault) => Some(userfault),
        Err(e @ (UserfaultError::Forbidden(_) | UserfaultError::Lacks(_))) => {
            vmm_lite_lab::skipped(&testkit::guest::test_name(), e);
            None
        }
        Err(e) => panic!("{e}: {e:?}"),
    }
}

/// Serves faults on a thread until it is dropped.
struct Server {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Fault>>>,
}

impl Server {
    fn new(userfault: Arc<Userfault>, serve: impl Fn(&Userfault, Fault) + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            while !told.load(SeqCst) {
                let mut poll =
                    libc::pollfd { fd: userfault.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: the pointer is to one valid entry.
                unsafe { libc::poll(&raw mut poll, 1, 10) };
                let mut faults = Vec::new();
                userfault.read(&mut faults).unwrap();
                faults.iter().for_each(|fault| serve(&userfault, *fault));
                all.extend(faults);
            }
            all
        });
        Self { done, thread: Some(thread) }
    }

    fn end(mut self) -> Vec<Fault> {
        self.done.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// A VM whose data pages hold 1 to 16.
fn with_data() -> Vm {
    let vm = vm(adds());
    for n in 0..16 {
        let memory = vm.unstarted_memory().unwrap();
        memory.write(DATA + n * PAGE as u64, &(n as u32 + 1).to_le_bytes()).unwrap();
    }
    vm
}

/// Removes all memory, and returns its content.
fn emptied(ram: &GuestRam) -> BTreeMap<usize, [u8; PAGE]> {
    let mut all = BTreeMap::new();
    for page in ram.complete().unwrap().touched().unwrap().iter() {
        let mut content = [0; PAGE];
        ram.read_page(page, &mut content).unwrap();
        all.insert(page, content);
    }
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: frees pages of this test's memfd; they read as zero from then on.
    let r = unsafe { libc::fallocate(ram.file().as_raw_fd(), punch, 0, ram.size() as i64) };
    assert_eq!(r, 0);
    all
}

#[test]
fn missing_pages_arrive_when_the_guest_or_the_vmm_needs_them() {
    if !kvm() {
        return;
    }
    let vm = with_data();
    let Some(userfault) = open(vm.ram()) else { return };
    let content = emptied(vm.ram());
    userfault.register(0..vm.ram().pages(), Watch::Missing).unwrap();
    let server = Server::new(Arc::new(userfault), move |userfault, fault| {
        assert!(!fault.protected);
        let put = match content.get(&fault.page) {
            Some(content) => userfault.copy(fault.page, std::slice::from_ref(content)),
            None => userfault.zero(fault.page, 1),
        };
        assert_eq!(put.unwrap(), 1, "{fault:?}");
    });
    start(&vm);
    let end = vm.wait_end();
    let faults = server.end();
    assert!(matches!(*end, End::Exited(136)), "1 + … + 16: {end}");
    assert_eq!(printed(&vm), "ok\n");
    let pages: Vec<usize> = faults.iter().map(|f| f.page).collect();
    for page in [CONTROL_PAGE, CONSOLE_OUT, IMAGE_BASE, DATA, DATA + 15 * PAGE as u64] {
        assert!(pages.contains(&(page as usize / PAGE)), "{page:#x} of {pages:?}");
    }
    let many = vm.ram().pages();
    assert!(pages.len() < many / 4, "only what is needed: {} of {many}", pages.len());
}

#[test]
fn writes_to_protected_pages_are_seen_before_they_take_effect() {
    if !kvm() {
        return;
    }
    let vm = with_data();
    let Some(userfault) = open(vm.ram()) else { return };
    let pages = vm.ram().pages();
    userfault.register(0..pages, Watch::Writes).unwrap();
    userfault.protect(0..pages, true).unwrap();
    let ram = Arc::clone(vm.ram());
    let seen = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let saw = Arc::clone(&seen);
    let server = Server::new(Arc::new(userfault), move |userfault, fault| {
        assert!(fault.write && fault.protected, "{fault:?}");
        let mut word = [0; 4];
        ram.read(fault.page as u64 * PAGE as u64, &mut word).unwrap();
        saw.lock().unwrap().entry(fault.page).or_insert(u32::from_le_bytes(word));
        userfault.protect(fault.page..fault.page + 1, false).unwrap();
    });
    start(&vm);
    let end = vm.wait_end();
    server.end();
    assert!(matches!(*end, End::Exited(136)), "{end}");
    assert_eq!(printed(&vm), "ok\n");
    let seen = seen.lock().unwrap();
    for n in 0..16 {
        assert_eq!(seen.get(&(DATA_PAGE + n)), Some(&(n as u32 + 1)), "before the write: {seen:?}");
        let mut word = [0; 4];
        vm.ram().read((DATA_PAGE + n) as u64 * PAGE as u64, &mut word).unwrap();
        assert_eq!(u32::from_le_bytes(word), n as u32 + 2, "after it");
    }
    assert!(seen.contains_key(&(CONTROL_PAGE as usize / PAGE)), "also the VMM's writes");
    assert!(!seen.contains_key(&(IMAGE_BASE as usize / PAGE)), "code is only read");
}

guest!(
    writes_without_end,
    "2: inc dword ptr [{data}]",
    "jmp 2b",
    data = const DATA as u32,
);

#[test]
fn protection_can_come_and_go_while_the_guest_writes() {
    if !kvm() {
        return;
    }
    let vm = vm(writes_without_end());
    let Some(userfault) = open(vm.ram()) else { return };
    userfault.register(0..vm.ram().pages(), Watch::Writes).unwrap();
    start(&vm);
    let word = || {
        let mut bytes = [0; 4];
        vm.ram().read(DATA, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    };
    let mut faults = Vec::new();
    for _ in 0..20 {
        userfault.protect(DATA_PAGE..DATA_PAGE + 1, true).unwrap();
        let stood = word();
        let deadline = Instant::now() + Duration::from_secs(5);
        while faults.is_empty() {
            assert!(Instant::now() < deadline, "no write was caught");
            userfault.read(&mut faults).unwrap();
            std::thread::yield_now();
        }
        let fault = faults.pop().unwrap();
        assert!(fault.page == DATA_PAGE && fault.write && fault.protected && faults.is_empty());
        let held = word();
        assert!(held >= stood);
        assert_eq!(word(), held, "the guest waits at its write");
        userfault.protect(DATA_PAGE..DATA_PAGE + 1, false).unwrap();
        while word() == held {
            assert!(Instant::now() < deadline, "the guest does not continue");
            std::thread::yield_now();
        }
    }
    // With all protection removed, it can be paused and continues at the same place. (Not before: a
    // guest at CPL 0, like this one, may be emulated, and an emulated write that waits at a fault
    // is not interrupted by a signal.)
    userfault.protect(DATA_PAGE..DATA_PAGE + 1, true).unwrap();
    userfault.unregister(0..vm.ram().pages()).unwrap();
    let paused = vm.pause().unwrap();
    let held = word();
    paused.resume_here().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while word() == held {
        assert!(Instant::now() < deadline, "the guest does not continue");
    }
}

#[test]
fn present_pages_are_left_unchanged() {
    let mut ram = GuestRam::new(4 << 20).unwrap();
    ram.writable().write_page(300, &[7; PAGE]).unwrap();
    ram.writable().write_page(303, &[8; PAGE]).unwrap();
    let ram = Arc::new(ram);
    let Some(userfault) = open(&ram) else { return };
    userfault.register(0..ram.pages(), Watch::MissingAndWrites).unwrap();
    assert_eq!(userfault.copy(299, &[[1; PAGE]; 4]).unwrap(), 3);
    assert_eq!(userfault.zero(300, 6).unwrap(), 2, "four are present");
    assert_eq!(userfault.copy_protected(310, &[[2; PAGE]; 2]).unwrap(), 2);
    let first = |page| {
        let mut content = [0; PAGE];
        ram.read_page(page, &mut content).unwrap();
        content[0]
    };
    let found: Vec<u8> = (299..306).chain([310, 311]).map(first).collect();
    assert_eq!(found, [1, 7, 1, 1, 8, 0, 0, 2, 2]);
    let Err(UserfaultError::Outside(_)) = userfault.copy(1023, &[[1; PAGE]; 2]) else { panic!() };
    let Err(UserfaultError::Outside(_)) = userfault.protect(0..1025, true) else { panic!() };
    let Err(UserfaultError::Outside(_)) = userfault.zero(usize::MAX, 2) else { panic!() };
    let mut faults = Vec::new();
    userfault.read(&mut faults).unwrap();
    assert!(faults.is_empty(), "it does not wait for one");
    // Without the descriptor everything is as before.
    drop(userfault);
    let mut ram = Arc::into_inner(ram).unwrap();
    ram.writable().write_page(310, &[3; PAGE]).unwrap();
    let mut content = [1; PAGE];
    ram.read_page(700, &mut content).unwrap();
    assert_eq!(content, [0; PAGE]);
}
