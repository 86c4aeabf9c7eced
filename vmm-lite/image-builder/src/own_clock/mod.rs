//! Finds the instructions by which a program reads clocks or random numbers of the CPU by itself.
//!
//! A guest is replayed exactly because its kernel's readings are recorded; those of such
//! instructions are not. The kernel's own are left out: each section of the kernel object that
//! contains some is known, and found again in the image by its bytes.
//!
//! - `instructions`: a linear sweep with a real decoder
//! - `kernel`: the places where the kernel may have such instructions
//! - `note`: the ELF note in the image
//!
//! Data in the text (tables, which LLVM puts elsewhere for this CPU) can look like an instruction:
//! too many may be found, never too few. A sweep that is out of step after data is in step again
//! after a few instructions, and at the next function at the latest.

mod instructions;
mod kernel;
mod note;

use super::Error;
use kernel::Kernel;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};
use std::{collections::BTreeMap, ops::Range};

/// Most instructions that are named.
const NAMED: usize = 8;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnClock {
    /// How many instructions.
    pub count: u32,
    /// The first of them, at most eight.
    pub first: Vec<Reading>,
}

/// An instruction that reads a clock or random numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The function that it is in, or was inlined into; `None` where the symbols are stripped.
    pub function: Option<String>,
    /// From the beginning of the function; else its address.
    pub offset: u64,
    /// Its name, such as `rdtsc`.
    pub instruction: &'static str,
}

impl Reading {
    /// The crate that the function belongs to, as far as its name tells.
    #[must_use]
    pub fn crate_name(&self) -> Option<&str> {
        let name = self.function.as_ref()?.trim_start_matches(['<', '&', '*', '(', '[']);
        let name = name.strip_prefix("mut ").or(name.strip_prefix("dyn ")).unwrap_or(name);
        let (name, _) = name.split_once("::")?;
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        Some(name).filter(|name| !name.is_empty() && is_name(name))
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{function}+{:#x}: {}", self.offset, self.instruction),
            None => write!(f, "{:#x}: {}", self.offset, self.instruction),
        }
    }
}

/// Searches a linked image, which contains `kernel`.
///
/// # Errors
/// [`Error::Object`] if one of the two is no object file.
pub fn find(image: &[u8], kernel: &[u8]) -> Result<OwnClock, Error> {
    let kernel = Kernel::of(kernel)?;
    let elf = object::File::parse(image).map_err(Error::Object)?;
    let functions = functions(&elf);
    let mut found = OwnClock::default();
    for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data().map_err(Error::Object)?;
        for part in parts(section.address(), code.len() as u64, &functions) {
            let at = |address: u64| (address - section.address()) as usize;
            for (address, instruction) in
                instructions::readings(part.start, &code[at(part.start)..at(part.end)])
            {
                if kernel.has(code, at(address)) {
                    continue;
                }
                found.count = found.count.saturating_add(1);
                if found.first.len() < NAMED {
                    let (function, begin) = match functions.get(&part.start) {
                        Some((_, name)) => (Some(demangled(name)), part.start),
                        None => (None, 0),
                    };
                    let offset = address - begin;
                    found.first.push(Reading { function, offset, instruction });
                }
            }
        }
    }
    Ok(found)
}

/// Puts what was found into the image's note.
///
/// # Errors
/// [`Error::Note`] if the image has no place for it.
pub fn write(image: &mut [u8], found: &OwnClock) -> Result<(), Error> {
    let place = note::place(image).ok_or(Error::Note)?;
    let lines: String = found.first.iter().map(|reading| format!("{reading}\n")).collect();
    let note = vmm_lite_interface::note::OwnClockNote { count: Some(found.count), first: &lines };
    image[place].copy_from_slice(&note.to_bytes());
    Ok(())
}

/// Functions by their addresses, with their ends and names.
fn functions<'d>(elf: &object::File<'d>) -> BTreeMap<u64, (u64, &'d str)> {
    let mut functions = BTreeMap::new();
    for symbol in elf.symbols() {
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let end = symbol.address().saturating_add(symbol.size());
        let known = functions.entry(symbol.address()).or_insert((end, name));
        known.0 = known.0.max(end);
    }
    functions
}

/// A section in parts: each function, and what lies between functions.
fn parts(base: u64, size: u64, functions: &BTreeMap<u64, (u64, &str)>) -> Vec<Range<u64>> {
    let Some(end) = base.checked_add(size) else { return Vec::new() };
    let mut parts = Vec::new();
    let mut at = base;
    for (&start, &(function_end, _)) in functions.range(base..end) {
        // A function inside of another one counts for that one.
        if start < at {
            continue;
        }
        parts.push(at..start);
        at = function_end.min(end);
        parts.push(start..at);
    }
    parts.push(at..end);
    parts.retain(|part| !part.is_empty());
    parts
}

/// A symbol as in the source, without the hash.
fn demangled(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    // Long names of generics would push the others out of the note.
    match name.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_gaps_cover_a_section_once() {
        let functions = BTreeMap::from([
            (0x90, (0x98, "before")),
            (0x104, (0x110, "one")),
            (0x108, (0x10c, "inside")),
            (0x110, (0x118, "two")),
            (0x11c, (0x200, "too long")),
        ]);
        let parts = parts(0x100, 0x20, &functions);
        assert_eq!(parts, [0x100..0x104, 0x104..0x110, 0x110..0x118, 0x118..0x11c, 0x11c..0x120]);
        assert_eq!(super::parts(0, 0, &functions), []);
        assert_eq!(super::parts(u64::MAX, 2, &functions), []);
    }

    #[test]
    fn the_crate_is_in_the_name() {
        for (function, of) in [
            ("kv::main", Some("kv")),
            ("<quanta::Clock as core::fmt::Debug>::fmt", Some("quanta")),
            ("<&mut rand_core::Rng as std::io::Read>::read", Some("rand_core")),
            ("main", None),
            ("<(A, B) as x::Y>::z", None),
        ] {
            let function = Some(function.to_owned());
            let reading = Reading { function, offset: 0, instruction: "rdtsc" };
            assert_eq!(reading.crate_name(), of, "{reading}");
        }
    }
}
