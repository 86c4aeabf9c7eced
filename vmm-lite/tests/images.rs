//! Each kind of file that cannot be run has its own error, before KVM is even opened.

use testkit::guest::{Elf, TempFile};
use vmm::{
    boot::{self, Image, ImageError, Parameters},
    memory::GuestRam,
};
use vmm_lite_interface::layout::{IMAGE_BASE, MEMORY_MAX};

fn open(content: &[u8]) -> Result<Image, ImageError> {
    Image::open(TempFile::new(content).path())
}

/// The error for a file, which must contain all of `texts`.
fn refused(content: &[u8], texts: &[&str]) -> ImageError {
    let error = open(content).unwrap_err();
    let text = error.to_string();
    texts.iter().for_each(|expected| assert!(text.contains(expected), "{text}"));
    error
}

const CODE: [u8; 4] = [0xf4; 4];

#[test]
fn a_good_image_is_taken() {
    let image = open(&Elf::of(&CODE).bytes()).unwrap();
    assert_eq!(image.entry(), IMAGE_BASE);
    assert_eq!(image.interface_version(), vmm_lite_interface::INTERFACE_VERSION);
}

#[test]
fn own_clock_readings_of_a_program_are_known() {
    let elf = Elf { own_clock: Some((2, "a+0x1: rdtsc\nb: rdrand\n")), ..Elf::of(&CODE) };
    let own_clock = open(&elf.bytes()).unwrap().own_clock().clone();
    assert_eq!(own_clock.to_string(), "2 (a+0x1: rdtsc, b: rdrand)");
    let unknown = open(&Elf::of(&CODE).bytes()).unwrap().own_clock().clone();
    assert!(unknown.count.is_none() && !unknown.is_none());
}

#[test]
fn the_applications_read_no_clock_of_the_cpu_by_themselves() {
    for app in ["hello", "echo", "kv", "http", "dirtier", "std-check"] {
        let path = vmm_lite_lab::images::image(app).unwrap();
        let own_clock = Image::open(&path).unwrap().own_clock().clone();
        assert!(own_clock.is_none(), "{app}, and what it is linked with: {own_clock}");
    }
}

#[test]
fn a_file_that_is_not_elf_is_refused() {
    for content in [&b""[..], b"#!/bin/sh\n", b"\x7fEL", &[0; 4096]] {
        let error = refused(content, &["is not an ELF file", "`vmm-lite build`"]);
        assert!(matches!(error, ImageError::NotElf(_)));
    }
    assert!(matches!(Image::open("/".as_ref()), Err(ImageError::Read { .. })));
    assert!(matches!(Image::open("/nonexistent".as_ref()), Err(ImageError::Read { .. })));
}

#[test]
fn every_truncation_is_found() {
    let whole = Elf::of(&[0x90; 300]).bytes();
    for len in 4..whole.len() {
        match open(&whole[..len]) {
            Err(ImageError::Truncated { .. }) => {}
            other => panic!("{len} of {} bytes: {other:?}", whole.len()),
        }
    }
    refused(&whole[..whole.len() - 1], &["is truncated: a segment lies past its end", "again"]);
}

#[test]
fn other_machines_are_named() {
    let mut elf = Elf::of(&CODE);
    elf.machine = 183;
    let error = refused(&elf.bytes(), &["for another machine (AArch64)"]);
    assert!(matches!(error, ImageError::Machine { .. }));
    elf.machine = 8;
    refused(&elf.bytes(), &["ELF machine number 8"]);
    let mut bytes = Elf::of(&CODE).bytes();
    bytes[4] = 1;
    refused(&bytes, &["32-bit"]);
}

#[test]
fn an_ordinary_program_is_refused_with_a_hint_to_build_it() {
    let mut elf = Elf::of(&CODE);
    elf.note = None;
    let error =
        refused(&elf.bytes(), &["no vmm-lite image", "build the program with `vmm-lite build`"]);
    assert!(matches!(error, ImageError::NoNote(_)));
    // A program of this host.
    assert!(matches!(
        Image::open("/proc/self/exe".as_ref()),
        Err(ImageError::NoNote(_) | ImageError::Segment { .. })
    ));
}

#[test]
fn another_interface_is_named_with_both_versions() {
    let mut elf = Elf::of(&CODE);
    elf.note = Some(77);
    let ours = format!("has version {}", vmm_lite_interface::INTERFACE_VERSION);
    let error = refused(&elf.bytes(), &["version 77", &ours, "build it again"]);
    assert!(matches!(error, ImageError::Interface { image: 77, .. }));
}

#[test]
fn segments_outside_of_memory_are_refused() {
    let cases = [
        (0, None),
        (IMAGE_BASE - 1, None),
        (u64::MAX - 2, None),
        (MEMORY_MAX, None),
        (IMAGE_BASE, Some(u64::MAX)),
        (IMAGE_BASE, Some(MEMORY_MAX)),
        (IMAGE_BASE, Some(1)),
    ];
    for (address, memory_size) in cases {
        let elf = Elf { address, memory_size, ..Elf::of(&CODE) };
        let error = refused(&elf.bytes(), &["has a segment at", "outside of where images lie"]);
        assert!(matches!(error, ImageError::Segment { .. }));
    }
}

#[test]
fn an_entry_outside_of_the_image_is_refused() {
    for entry in [0, 0x1000, IMAGE_BASE as u32 + 4, u32::MAX] {
        let elf = Elf { entry, ..Elf::of(&CODE) };
        assert!(matches!(refused(&elf.bytes(), &["PVH entry"]), ImageError::Entry(_)));
    }
}

#[test]
fn too_little_memory_is_refused_with_the_amount_needed() {
    let elf = Elf { memory_size: Some(20 << 20), min_free_kib: 512, ..Elf::of(&CODE) };
    let image = open(&elf.bytes()).unwrap();
    let mut ram = GuestRam::new(16 << 20).unwrap();
    let error = boot::load(&image, &Parameters::default(), ram.writable()).unwrap_err().to_string();
    assert!(
        error.contains("needs at least 22 MiB of memory to start, and was given 16 MiB"),
        "{error}"
    );
    let mut ram = GuestRam::new(image.memory_needed()).unwrap();
    boot::load(&image, &Parameters::default(), ram.writable()).unwrap();
}

#[test]
fn false_headers_do_no_harm() {
    let whole = Elf::of(&CODE).bytes();
    // Each byte of the headers and notes, in turn, with the values most likely to do harm.
    for at in 0..whole.len() - CODE.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if let Ok(image) = open(&bytes)
                && image.memory_needed() <= 64 << 20
            {
                let mut ram = GuestRam::new(image.memory_needed()).unwrap();
                boot::load(&image, &Parameters::default(), ram.writable()).unwrap();
            }
        }
    }
}
