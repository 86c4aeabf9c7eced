//! The ABI is complete: what hermit-abi declares is either defined, or listed as unsupported.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use kernel::abi::unsupported::UNSUPPORTED;

/// What the standard library of rustc 1.96 needs. (`sys_errno` and others beyond these are for
/// older and other callers.)
const STD: [&str; 50] = [
    "sys_malloc",
    "sys_realloc",
    "sys_free",
    "sys_spawn2",
    "sys_join",
    "sys_yield",
    "sys_available_parallelism",
    "sys_futex_wait",
    "sys_futex_wake",
    "sys_exit",
    "sys_abort",
    "sys_get_errno",
    "sys_clock_gettime",
    "sys_usleep",
    "sys_read_entropy",
    "sys_open",
    "sys_close",
    "sys_read",
    "sys_readv",
    "sys_write",
    "sys_writev",
    "sys_lseek",
    "sys_dup",
    "sys_poll",
    "sys_ioctl",
    "sys_stat",
    "sys_lstat",
    "sys_fstat",
    "sys_getdents64",
    "sys_mkdir",
    "sys_rmdir",
    "sys_unlink",
    "sys_socket",
    "sys_bind",
    "sys_listen",
    "sys_accept",
    "sys_connect",
    "sys_send",
    "sys_sendto",
    "sys_recv",
    "sys_recvfrom",
    "sys_shutdown",
    "sys_getsockname",
    "sys_getpeername",
    "sys_getsockopt",
    "sys_setsockopt",
    "sys_getaddrinfo",
    "sys_freeaddrinfo",
    // For `mio` and `polling`.
    "sys_eventfd",
    "sys_fcntl",
];

/// The names behind each `before` in a source text.
fn names(source: &str, before: &str) -> Vec<String> {
    let rest = source.split(before).skip(1);
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    rest.map(name).filter(|n: &String| n.starts_with("sys_")).collect()
}

/// What the kernel defines.
fn defined() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/abi/hermit");
    let mut defined = BTreeSet::new();
    for file in fs::read_dir(directory).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        for name in names(&source, "extern \"C\" fn ") {
            assert!(defined.insert(name.clone()), "{name} is defined twice");
        }
    }
    defined
}

/// What hermit-abi declares, read from its source.
fn declared() -> BTreeSet<String> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata = String::from_utf8(metadata.stdout).unwrap();
    let manifest = metadata
        .split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains("/hermit-abi-"))
        .expect("a dependency of this crate");
    let source = Path::new(manifest).with_file_name("src").join("lib.rs");
    let source = fs::read_to_string(source).unwrap();
    let mut declared: BTreeSet<String> = names(&source, "link_name = \"").into_iter().collect();
    declared.extend(names(&source, "\tfn "));
    declared
}

#[test]
fn every_declared_function_is_defined_or_listed() {
    let (declared, defined) = (declared(), defined());
    assert!(declared.len() > 80, "only {} were found", declared.len());
    let listed: BTreeSet<String> = UNSUPPORTED.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(listed.len(), UNSUPPORTED.len(), "something is listed twice");
    let missing: Vec<_> = declared.difference(&defined).collect();
    assert_eq!(missing, listed.iter().collect::<Vec<_>>());
    let own = defined.difference(&declared).filter(|name| !name.starts_with("sys_vmm_lite_"));
    assert_eq!(own.collect::<Vec<_>>(), [""; 0], "defined, but not declared by hermit-abi");
}

#[test]
fn std_has_all_it_needs() {
    let defined = defined();
    let missing: Vec<_> = STD.iter().filter(|name| !defined.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
