//! A very small guest: an ELF with a PVH note around some 32-bit assembly that polls both serial
//! ports.
//!
//! COM1: prints `toy`, then obeys each input byte: [`TELL`] prints `seen` and the last digits of
//! the numbers with which it was quiesced, [`TRIPLE_FAULT`] causes one, any other byte becomes the
//! exit code. COM2: the guest's side of `qemu_harness::quiesce`. While quiescent it does not read
//! COM1.

use qemu_harness::{Accel, Config};
use std::arch::global_asm;
use std::path::Path;

/// Prints what it remembers.
pub const TELL: u8 = b't';
/// Resets the machine.
pub const TRIPLE_FAULT: u8 = b'f';
/// Where it is loaded.
const BASE: u32 = 0x10_0000;

// ebx: base of the blob · ebp: quiescent or not · COM1 0x3f8, COM2 0x2f8, line status at +5 (bit 0:
// a byte is there)
global_asm!(
    r#"
    .pushsection .rodata.toy, "a"
    .code32
    .globl toy_start, toy_end
    .set at_hello, .Lhello - toy_start
    .set at_nothing, .Lnothing - toy_start
    .set at_seen, .Lseen - toy_start
    .set at_quiesced, .Lquiesced - toy_start
    .set at_resumed, .Lresumed - toy_start
    .set at_number, .Lnumber - toy_start
    .set at_places, .Lplaces - toy_start
toy_start:
    mov esp, {base} + 0x4000
    mov ebx, {base}
    xor ebp, ebp
    lea esi, [ebx + at_hello]
    mov edx, 0x3f8
    call .Lprint
.Lloop:
    mov edx, 0x2fd
    in al, dx
    test al, 1
    jnz .Lquiesce
    test ebp, ebp
    jnz .Lloop
    mov edx, 0x3fd
    in al, dx
    test al, 1
    jz .Lloop
    mov edx, 0x3f8
    in al, dx
    cmp al, {tell}
    je .Ltell
    cmp al, {fault}
    je .Lfault
    mov edx, {code_port}
    out dx, al
    mov edx, {exit_port}
    out dx, al
    hlt
.Lfault:
    // With an interrupt table of length zero, an exception cannot be delivered.
    lidt [ebx + at_nothing]
    ud2
.Ltell:
    lea esi, [ebx + at_seen]
    call .Lprint
    jmp .Lloop

    // A line on COM2: "quiesce N" or "resume N REASON"; the digits of N go to `number`, the last
    // also to `seen`.
.Lquiesce:
    call .Lget
    lea esi, [ebx + at_quiesced]
    mov ebp, 1
    cmp al, 'q'
    je .Lskip
    lea esi, [ebx + at_resumed]
    xor ebp, ebp
.Lskip:
    call .Lget
    cmp al, ' '
    jne .Lskip
    lea edi, [ebx + at_number]
.Ldigits:
    call .Lget
    cmp al, '0'
    jb .Lrest
    mov [edi], al
    inc edi
    jmp .Ldigits
.Lrest:
    mov byte ptr [edi], 10
    mov byte ptr [edi + 1], 0
    mov cl, [edi - 1]
.Leol:
    cmp al, 10
    je .Lanswer
    call .Lget
    jmp .Leol
.Lanswer:
    test ebp, ebp
    jz .Lsend
    // Remember it in the first place that is still 0.
    lea edi, [ebx + at_places - 1]
.Lfind:
    inc edi
    cmp byte ptr [edi], 10
    je .Lfound
    jmp .Lfind
.Lfound:
    mov [edi], cl
    mov byte ptr [edi + 1], 10
    mov byte ptr [edi + 2], 0
.Lsend:
    mov edx, 0x2f8
    call .Lprint
    lea esi, [ebx + at_number]
    call .Lprint
    jmp .Lloop

    // Waits for a byte on COM2; in al.
.Lget:
    mov edx, 0x2fd
    in al, dx
    test al, 1
    jz .Lget
    mov edx, 0x2f8
    in al, dx
    ret
    // Sends the string at esi to port dx.
.Lprint:
    mov al, [esi]
    test al, al
    jz 1f
    out dx, al
    inc esi
    jmp .Lprint
1:
    ret
.Lnothing:
    .fill 6, 1, 0
.Lhello:
    .asciz "toy\n"
.Lquiesced:
    .asciz "quiesced "
.Lresumed:
    .asciz "resumed "
.Lnumber:
    .fill 16, 1, 0
.Lseen:
    .ascii "seen "
.Lplaces:
    .byte 10
    .fill 15, 1, 0
toy_end:
    .code64
    .popsection
    "#,
    base = const BASE,
    tell = const TELL,
    fault = const TRIPLE_FAULT,
    code_port = const vmm_lite_interface::qemu::EXIT_CODE_PORT,
    exit_port = const vmm_lite_interface::qemu::EXIT_PORT,
);

unsafe extern "C" {
    static toy_start: u8;
    static toy_end: u8;
}

fn code() -> &'static [u8] {
    // SAFETY: the two symbols bound the constant bytes of one section, defined above.
    unsafe {
        let start = &raw const toy_start;
        std::slice::from_raw_parts(start, (&raw const toy_end).offset_from_unsigned(start))
    }
}

/// An ELF file with one segment that holds the code and one note that says where it starts
/// (`XEN_ELFNOTE_PHYS32_ENTRY`).
fn image() -> Vec<u8> {
    const HEADERS: u32 = 64 + 2 * 56;
    const NOTE: u32 = 24;
    let code = code();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, words: &[u16]| {
        words.iter().for_each(|w| elf.extend(w.to_le_bytes()));
    };
    let word = |elf: &mut Vec<u8>, words: &[u32]| {
        words.iter().for_each(|w| elf.extend(w.to_le_bytes()));
    };
    let long = |elf: &mut Vec<u8>, words: &[u64]| {
        words.iter().for_each(|w| elf.extend(w.to_le_bytes()));
    };
    half(&mut elf, &[2, 62]); // an executable for x86-64
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE.into(), 64, 0]); // entry, program headers, no sections
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 2, 64, 0, 0]);
    let size = code.len() as u64;
    word(&mut elf, &[1, 7]); // PT_LOAD, readable, writable, executable
    let at = u64::from(HEADERS + NOTE);
    long(&mut elf, &[at, BASE.into(), BASE.into(), size, 0x4000, 4]);
    word(&mut elf, &[4, 4]); // PT_NOTE
    long(&mut elf, &[HEADERS.into(), 0, 0, NOTE.into(), NOTE.into(), 4]);
    word(&mut elf, &[4, 8, 18]);
    elf.extend(b"Xen\0");
    long(&mut elf, &[BASE.into()]);
    elf.extend(code);
    elf
}

/// A machine that runs it, with the second serial port.
pub fn config(dir: &Path, accel: Accel) -> Config {
    let path = dir.join("toy.elf");
    std::fs::write(&path, image()).expect("the test's own directory is writable");
    Config { memory_mib: 16, quiesce: true, ..Config::new(path, accel) }
}
