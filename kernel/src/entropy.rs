//! Random numbers: ChaCha20, seeded by the host, the CPU and the clock, and seeded again in each
//! [`Epoch`]: so clones of a guest draw different numbers, and what a snapshot holds does not tell
//! the numbers that its original draws after it.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

pub use crate::platform::Epoch;

use crate::{cpu::KernelCell, platform, samples};

static GENERATOR: KernelCell<Generator> = KernelCell::new(Generator { stream: None });

/// What the seed of an epoch is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seed {
    /// What the host has given.
    pub epoch: Epoch,
    /// Random words of the CPU's.
    pub cpu: [u64; 4],
    /// The time stamp counter.
    pub tsc: u64,
}

#[derive(Debug)]
struct Generator {
    stream: Option<(ChaCha20Rng, Epoch)>,
}

/// Fills `buffer` with random bytes fit for keys.
pub fn fill(buffer: &mut [u8]) {
    let epoch = platform::epoch();
    GENERATOR.with(|g| g.fill(buffer, epoch, Seed::new));
}

impl Generator {
    fn fill(&mut self, buffer: &mut [u8], epoch: Epoch, seed: impl FnOnce() -> Seed) {
        let (mut rng, seeded) = match self.stream.take() {
            Some((rng, seeded)) if seeded == epoch => (rng, seeded),
            before => {
                let mut old = [0; 32];
                if let Some((mut rng, _)) = before {
                    rng.fill_bytes(&mut old);
                }
                (seed().key(old), epoch)
            }
        };
        rng.fill_bytes(buffer);
        self.stream = Some((rng, seeded));
    }
}

impl Seed {
    fn new() -> Self {
        let tsc = samples::tsc();
        let cpu = samples::random().map(|word| word.unwrap_or_else(samples::tsc));
        Self { epoch: platform::epoch(), cpu, tsc }
    }

    /// A stream that cannot be predicted without all parts of the seed: each of them keys a block
    /// of ChaCha in turn.
    fn key(&self, old: [u8; 32]) -> ChaCha20Rng {
        let mut key = old;
        let clock = [self.epoch.generation[0], self.epoch.generation[1], self.tsc, 0];
        let (host, _) = self.epoch.host.as_chunks::<4>();
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
        generator.fill(&mut bytes, seed.epoch, || seed);
        bytes
    }

    fn seed(generation: [u64; 2], host: [u64; 8]) -> Seed {
        Seed { epoch: Epoch { generation, host }, ..Seed::default() }
    }

    #[test]
    fn every_part_of_the_seed_matters() {
        let first = |seed| drawn(&mut Generator { stream: None }, seed);
        let base = Seed::default();
        assert_eq!(first(base), first(base));
        for word in 0..8 {
            let mut host = [0; 8];
            host[word] = 1;
            assert_ne!(first(base), first(seed([0; 2], host)));
        }
        assert_ne!(first(base), first(Seed { cpu: [0, 0, 0, 1], ..base }));
        assert_ne!(first(base), first(Seed { tsc: 1, ..base }));
        assert_ne!(first(base), first(seed([0, 1], [0; 8])));
    }

    #[test]
    fn a_new_epoch_starts_a_new_stream_that_depends_on_the_old_one() {
        // A copy has another generation too; its original has only other words of the host's.
        for new in [seed([1, 0], [0; 8]), seed([0, 0], [0, 0, 0, 0, 0, 0, 0, 1])] {
            let old = |tsc| Generator {
                stream: Some((Seed { tsc, ..Seed::default() }.key([0; 32]), Epoch::default())),
            };
            let (mut a, mut b, mut c) = (old(1), old(1), old(2));
            assert_eq!(drawn(&mut a, Seed::default()), drawn(&mut b, Seed::default()));
            let after = drawn(&mut a, new);
            assert_ne!(after, drawn(&mut b, Seed::default()));
            assert_ne!(after, drawn(&mut c, new));
            assert_ne!(drawn(&mut a, new), after, "the stream goes on");
        }
    }
}
