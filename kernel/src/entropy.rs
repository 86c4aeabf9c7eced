//! Random numbers: ChaCha20, seeded by the host, the CPU and the clock, and seeded anew when the generation changes, so that clones
//! of a guest draw different numbers.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::{cell::KernelCell, platform, time};

static GENERATOR: KernelCell<Generator> = KernelCell::new(Generator { stream: None });

/// What the seed of a generation is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seed {
    /// Generation id.
    pub generation: [u64; 2],
    /// Random words of the host's.
    pub host: [u64; 8],
    /// Random words of the CPU's.
    pub cpu: [u64; 4],
    /// The time stamp counter.
    pub tsc: u64,
}

#[derive(Debug)]
struct Generator {
    stream: Option<(ChaCha20Rng, [u64; 2])>,
}

/// Fills `buffer` with random bytes fit for keys.
pub fn fill(buffer: &mut [u8]) {
    let generation = platform::generation();
    GENERATOR.with(|g| g.fill(buffer, generation, || platform::seed(time::tsc())));
}

impl Generator {
    fn fill(&mut self, buffer: &mut [u8], generation: [u64; 2], seed: impl FnOnce() -> Seed) {
        let (mut rng, seeded) = match self.stream.take() {
            Some((rng, seeded)) if seeded == generation => (rng, seeded),
            before => {
                let mut old = [0; 32];
                if let Some((mut rng, _)) = before {
                    rng.fill_bytes(&mut old);
                }
                (seed().key(old), generation)
            }
        };
        rng.fill_bytes(buffer);
        self.stream = Some((rng, seeded));
    }
}

impl Seed {
    /// A stream that nobody can foretell who lacks any one of the parts: each keys a block of ChaCha in turn.
    fn key(&self, old: [u8; 32]) -> ChaCha20Rng {
        let mut key = old;
        let clock = [self.generation[0], self.generation[1], self.tsc, 0];
        let (host, _) = self.host.as_chunks::<4>();
        for words in host.iter().chain([&self.cpu, &clock]) {
            for (byte, with) in key.iter_mut().zip(words.iter().flat_map(|w| w.to_le_bytes())) {
                *byte ^= with;
            }
            ChaCha20Rng::from_seed(key).fill_bytes(&mut key);
        }
        ChaCha20Rng::from_seed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(generator: &mut Generator, seed: Seed) -> [u8; 40] {
        let mut bytes = [0; 40];
        generator.fill(&mut bytes, seed.generation, || seed);
        bytes
    }

    #[test]
    fn every_part_of_the_seed_matters() {
        let first = |seed| drawn(&mut Generator { stream: None }, seed);
        let base = Seed::default();
        assert_eq!(first(base), first(base));
        for word in 0..8 {
            let mut host = [0; 8];
            host[word] = 1;
            assert_ne!(first(base), first(Seed { host, ..base }));
        }
        assert_ne!(first(base), first(Seed { cpu: [0, 0, 0, 1], ..base }));
        assert_ne!(first(base), first(Seed { tsc: 1, ..base }));
        assert_ne!(first(base), first(Seed { generation: [0, 1], ..base }));
    }

    #[test]
    fn a_new_generation_starts_a_new_stream_that_depends_on_the_old_one() {
        let new = Seed { generation: [1, 0], ..Seed::default() };
        let old = |tsc| Generator {
            stream: Some((Seed { tsc, ..Seed::default() }.key([0; 32]), [0, 0])),
        };
        let (mut a, mut b, mut c) = (old(1), old(1), old(2));
        assert_eq!(drawn(&mut a, Seed::default()), drawn(&mut b, Seed::default()));
        let after = drawn(&mut a, new);
        assert_ne!(after, drawn(&mut b, Seed::default()));
        assert_ne!(after, drawn(&mut c, new));
        assert_ne!(drawn(&mut a, new), after, "the stream goes on");
    }
}
