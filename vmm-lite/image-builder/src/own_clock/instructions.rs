//! Instructions whose results are not a function of registers and memory.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

/// The name of an instruction that reads a clock or random numbers, or waits for a clock.
fn name(instruction: &Instruction) -> Option<&'static str> {
    Some(match instruction.mnemonic() {
        Mnemonic::Rdtsc => "rdtsc",
        Mnemonic::Rdtscp => "rdtscp",
        Mnemonic::Rdrand => "rdrand",
        Mnemonic::Rdseed => "rdseed",
        Mnemonic::Rdpmc => "rdpmc",
        Mnemonic::Umwait => "umwait",
        Mnemonic::Tpause => "tpause",
        _ => return None,
    })
}

/// Sweeps `code`, which lies at `address`: the addresses of such instructions, and their names.
pub fn readings(address: u64, code: &[u8]) -> Vec<(u64, &'static str)> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let at = decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            // Data, or padding: the next byte may begin an instruction.
            let next = at + 1;
            decoder.set_ip(address + next as u64);
            if decoder.set_position(next).is_err() {
                break;
            }
        } else if let Some(name) = name(&instruction) {
            found.push((instruction.ip(), name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_and_operands_are_not_instructions() {
        let code = [
            &[0x0f, 0x31][..],                                 // rdtsc
            &[0x0f, 0x01, 0xf9],                               // rdtscp
            &[0x0f, 0xc7, 0xf0],                               // rdrand eax
            &[0x48, 0x0f, 0xc7, 0xf8],                         // rdseed rax
            &[0x0f, 0x33],                                     // rdpmc
            &[0x48, 0xb8, 0x0f, 0x31, 0x0f, 0x31, 0, 0, 0, 0], // mov rax, …
            &[0x8d, 0x80, 0x0f, 0x31, 0x00, 0x00],             // lea eax, [rax+…]
            &[0x06],                                           // invalid in 64-bit code
            &[0x0f, 0x31],                                     // rdtsc
        ]
        .concat();
        let found = readings(0x1000, &code);
        let names: Vec<_> = found.iter().map(|(_, name)| *name).collect();
        assert_eq!(names, ["rdtsc", "rdtscp", "rdrand", "rdseed", "rdpmc", "rdtsc"]);
        assert_eq!(found[3].0, 0x1008);
        assert_eq!(found[5].0, 0x1000 + code.len() as u64 - 2);
        assert_eq!(readings(0, &[0x0f]), []);
    }
}
