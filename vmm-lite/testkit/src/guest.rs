//! Hand-written guests: a few instructions of 32-bit code in an ELF file with the notes of an
//! image.
//!
//! They run at CPL 0, where a host without hardware virtualization emulates each instruction: slow,
//! but sufficient for everything wrong that a guest can do.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vmm::{
    boot::{Image, Parameters},
    devices::console::Console,
    kvm::Host,
    vm::{Config, End, Resume, ResumeReason, Vm},
};
use vmm_lite_interface::{INTERFACE_VERSION, layout::IMAGE_BASE, note};

/// Defines a function that returns the machine code of the assembly in it. `ctl` names offsets into
/// the control page.
#[macro_export]
macro_rules! guest {
    ($name:ident, $($asm:literal),+ $(, $key:ident = const $value:expr)* $(,)?) => {
        core::arch::global_asm!(
            ".pushsection .rodata.guest, \"a\"",
            ".code32",
            concat!(".global vmm_lite_guest_", stringify!($name)),
            concat!("vmm_lite_guest_", stringify!($name), ":"),
            $($asm,)+
            concat!(".global vmm_lite_guest_end_", stringify!($name)),
            concat!("vmm_lite_guest_end_", stringify!($name), ":"),
            ".code64",
            ".popsection",
            $($key = const $value,)*
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("vmm_lite_guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("vmm_lite_guest_end_", stringify!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: both symbols are defined right above, the second behind the first in one
            // section of constants.
            unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
        }
    };
}

/// Offset of a field of the control page, as an address.
#[macro_export]
macro_rules! control {
    ($($field:tt)+) => {
        ($crate::vmm_lite_interface::layout::CONTROL_PAGE as usize
            + core::mem::offset_of!(
                $crate::vmm_lite_interface::control::ControlPage,
                $($field)+
            )) as u32
    };
}

/// The name of the test that runs on this thread: libtest names its threads after them.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// Whether KVM can be used; reports a skip if not.
pub fn kvm() -> bool {
    match Host::open() {
        Ok(_) => true,
        Err(e) => {
            vmm_lite_lab::skipped(&test_name(), e);
            false
        }
    }
}

/// The parts of an image, each of which can be made wrong.
#[derive(Clone)]
pub struct Elf {
    pub code: Vec<u8>,
    pub address: u64,
    pub memory_size: Option<u64>,
    pub machine: u16,
    pub entry: u32,
    pub note: Option<u32>,
    pub min_free_kib: u32,
    /// Own clock readings, and the text about them.
    pub own_clock: Option<(u32, &'static str)>,
}

impl Elf {
    pub fn of(code: &[u8]) -> Self {
        Self {
            code: code.to_vec(),
            address: IMAGE_BASE,
            memory_size: None,
            machine: 62,
            entry: IMAGE_BASE as u32,
            note: Some(INTERFACE_VERSION),
            min_free_kib: 64,
            own_clock: None,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        const HEADERS: u64 = 64 + 2 * 56;
        let mut notes = Vec::new();
        push_note(&mut notes, b"Xen\0", 18, &self.entry.to_le_bytes());
        if let Some(version) = self.note {
            let words = [version, self.min_free_kib, 0];
            let desc: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            push_note(&mut notes, note::OWNER, note::TYPE, &desc);
        }
        if let Some((count, first)) = self.own_clock {
            let desc = note::OwnClockNote { count: Some(count), first }.to_bytes();
            push_note(&mut notes, note::OWNER, note::OWN_CLOCK_TYPE, &desc);
        }
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend(2_u16.to_le_bytes());
        elf.extend(self.machine.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        for word in [u64::from(self.entry), 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 2, 64, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        let code_at = HEADERS + notes.len() as u64;
        let code_len = self.code.len() as u64;
        let memory_size = self.memory_size.unwrap_or(code_len);
        for (type_, offset, address, size, memory_size) in [
            (1_u32, code_at, self.address, code_len, memory_size),
            (4, HEADERS, 0, notes.len() as u64, notes.len() as u64),
        ] {
            elf.extend(type_.to_le_bytes());
            elf.extend(5_u32.to_le_bytes());
            for word in [offset, address, address, size, memory_size, 4] {
                elf.extend(word.to_le_bytes());
            }
        }
        assert_eq!(elf.len() as u64, HEADERS);
        elf.extend(notes);
        elf.extend(&self.code);
        elf
    }

    /// Writes it to a file that is deleted when the returned value is dropped.
    pub fn file(&self) -> TempFile {
        TempFile::new(&self.bytes())
    }
}

fn push_note(to: &mut Vec<u8>, owner: &[u8], type_: u32, desc: &[u8]) {
    to.extend((owner.len() as u32).to_le_bytes());
    to.extend((desc.len() as u32).to_le_bytes());
    to.extend(type_.to_le_bytes());
    to.extend(owner);
    to.resize(to.len().next_multiple_of(4), 0);
    to.extend(desc);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// A file that is deleted when dropped.
pub struct TempFile(PathBuf);

impl TempFile {
    pub fn new(content: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Relaxed);
        let path =
            std::env::temp_dir().join(format!("vmm-lite-test-{}-{n}.img", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A VM with a hand-written guest, not running yet.
pub fn vm(code: &[u8]) -> Vm {
    vm_printing_to(code, Console::new(None))
}

pub fn vm_printing_to(code: &[u8], console: Console) -> Vm {
    let file = Elf::of(code).file();
    let image = Image::open(file.path()).unwrap();
    let parameters = Parameters { name: "test".into(), ..Default::default() };
    let config = Config { memory: 2 << 20, nets: vec![], parameters };
    Vm::boot(&config, &image, console).unwrap()
}

/// Starts a VM that was just made.
pub fn start(vm: &Vm) {
    let how = Resume { reason: ResumeReason::Boot, away: Duration::ZERO };
    vm.hold().unwrap().resume(how).unwrap();
}

/// Runs a guest to its end.
pub fn run(code: &[u8]) -> Arc<End> {
    let vm = vm(code);
    start(&vm);
    vm.wait_end()
}

/// The output of a VM.
pub fn printed(vm: &Vm) -> String {
    let piece = vm.console().read(0, Duration::ZERO);
    String::from_utf8(piece.map_or_else(Vec::new, |p| p.bytes)).unwrap()
}
