//! The kernel's own readings: under vmm-lite they are recorded, and elsewhere nothing is.

use super::{Error, instructions};
use object::{Object, ObjectSection, SectionKind};
use std::collections::HashMap;

/// A section of the kernel object with such instructions, as its bytes are in every image.
struct Known {
    /// The bytes that relocations do not change, as offset and value.
    fixed: Vec<(usize, u8)>,
    size: usize,
}

/// The sections with such instructions.
pub struct Kernel {
    sections: Vec<Known>,
    /// From the bytes at such an instruction to the sections that have it, and where.
    places: HashMap<[u8; 2], Vec<(usize, usize)>>,
}

impl Kernel {
    /// Reads the kernel object.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub fn of(object: &[u8]) -> Result<Self, Error> {
        let object = object::File::parse(object).map_err(Error::Object)?;
        let mut kernel = Self { sections: Vec::new(), places: HashMap::new() };
        for section in object.sections().filter(|s| s.kind() == SectionKind::Text) {
            let code = section.data().map_err(Error::Object)?;
            let found = instructions::readings(0, code);
            if found.is_empty() {
                continue;
            }
            for (at, _) in found {
                let at = at as usize;
                let [first, second, ..] = code[at..] else { continue };
                let places = kernel.places.entry([first, second]).or_default();
                places.push((kernel.sections.len(), at));
            }
            let mut changes = vec![false; code.len()];
            for (at, _) in section.relocations() {
                // A field has at most 8 bytes; the linker may also change the opcode before it.
                let (at, most) = (at as usize, code.len());
                changes[at.saturating_sub(3).min(most)..(at + 8).min(most)].fill(true);
            }
            let fixed = (0..code.len()).filter(|n| !changes[*n]).map(|n| (n, code[n])).collect();
            kernel.sections.push(Known { fixed, size: code.len() });
        }
        Ok(kernel)
    }

    /// Whether the instruction at this offset of an image's section is the kernel's: a whole
    /// section of the kernel object lies around it.
    pub fn has(&self, code: &[u8], at: usize) -> bool {
        let Some([first, second]) = code.get(at..at + 2) else { return false };
        self.places.get(&[*first, *second]).into_iter().flatten().any(|(section, offset)| {
            let known = &self.sections[*section];
            let Some(begin) = at.checked_sub(*offset) else { return false };
            let Some(there) = code.get(begin..begin + known.size) else { return false };
            known.fixed.iter().all(|(n, byte)| there[*n] == *byte)
        })
    }
}
