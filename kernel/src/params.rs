//! Boot parameters, and what std wants of them: `argv` and `environ`.

use alloc::{boxed::Box, vec::Vec};
use core::ptr;

use vmm_lite_interface::params::{Param, decode_word, parse};

use crate::cell::KernelCell;

static LINE: KernelCell<&'static str> = KernelCell::new("");

/// Keeps the command line.
pub fn init(line: &'static str) {
    LINE.with(|l| *l = line);
}

/// Values of a setting, decoded, in order.
pub fn setting(key: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    LINE.with(|l| parse(l)).filter_map(move |p| match p {
        Param::Setting { key: k, value } if k == key => Some(decode_word(value).collect()),
        _ => None,
    })
}

type Strings = *const *const u8;

/// `argc`, `argv` and `environ`, which live as long as the program.
pub fn for_std() -> (i32, Strings, Strings) {
    let name = setting("name").next().unwrap_or_else(|| b"program".to_vec());
    let mut args = alloc::vec![c_string(name)];
    let mut env = Vec::new();
    for param in LINE.with(|l| parse(l)) {
        match param {
            Param::Argument(word) => args.push(c_string(decode_word(word).collect())),
            Param::Setting { key, value } => {
                if let Some(key) = key.strip_prefix("env:") {
                    let mut text: Vec<u8> = decode_word(key).collect();
                    text.push(b'=');
                    text.extend(decode_word(value));
                    env.push(c_string(text));
                }
            }
        }
    }
    let argc = args.len() as i32;
    args.push(ptr::null());
    env.push(ptr::null());
    (argc, Box::leak(args.into_boxed_slice()).as_ptr(), Box::leak(env.into_boxed_slice()).as_ptr())
}

fn c_string(mut bytes: Vec<u8>) -> *const u8 {
    bytes.retain(|b| *b != 0);
    bytes.push(0);
    Box::leak(bytes.into_boxed_slice()).as_ptr()
}
