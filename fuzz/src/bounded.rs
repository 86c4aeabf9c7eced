//! A bounded run of a target for the tests: the kept corpus, then a number of its mutations. The
//! same seed gives the same inputs.

use std::{
    any::Any,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::Target;

/// Longest input, in bytes.
pub const INPUT_MAX: usize = 16 << 10;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ran {
    /// Inputs from the corpus.
    pub kept: usize,
    /// Mutations of them.
    pub mutations: usize,
}

/// An input that violates an invariant.
#[derive(Debug)]
pub struct Failure {
    /// Its origin.
    pub from: String,
    /// The input.
    pub input: Vec<u8>,
    /// The panic's message.
    pub said: String,
}

/// Where a target's corpus is kept.
#[must_use]
pub fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The kept corpus of a target, by name.
///
/// # Errors
/// The host's error.
pub fn corpus(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(corpus_dir(target))? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// Runs `count` mutations after the corpus, or as many as fit into `limit`; `around` is called with
/// each check.
///
/// # Errors
/// The first [`Failure`].
pub fn run(
    target: &Target,
    corpus: &[(String, Vec<u8>)],
    seed: u64,
    count: usize,
    limit: Duration,
) -> Result<Ran, Box<Failure>> {
    let began = Instant::now();
    for (name, input) in corpus {
        check(target, input).map_err(|said| failure(name.clone(), input, said))?;
    }
    let mut rng = Rng::with_seed(seed);
    let mut ran = Ran { kept: corpus.len(), mutations: 0 };
    while ran.mutations < count && began.elapsed() < limit {
        let input = mutation(corpus, &mut rng);
        let from = format!("mutation {} of seed {seed}", ran.mutations);
        check(target, &input).map_err(|said| failure(from, &input, said))?;
        ran.mutations += 1;
    }
    Ok(ran)
}

fn failure(from: String, input: &[u8], said: String) -> Box<Failure> {
    Box::new(Failure { from, input: input.to_vec(), said })
}

fn check(target: &Target, input: &[u8]) -> Result<(), String> {
    let said = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    };
    catch_unwind(AssertUnwindSafe(|| (target.check)(input))).map_err(said)
}

/// A kept input, changed in a few places.
fn mutation(corpus: &[(String, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng| rng.choice(corpus).map_or(&[][..], |(_, input)| input);
    let mut input = pick(rng).to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        let end = (at + rng.usize(..32)).min(input.len());
        match rng.u8(..8) {
            0 => input.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << rng.u8(..8)),
            1 => input.iter_mut().skip(at).take(1).for_each(|b| *b = rng.u8(..)),
            2 => input[at..end].fill(*rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0)),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let piece: Vec<u8> = (0..rng.usize(1..9)).map(|_| rng.u8(..)).collect();
                input.splice(at..at, piece);
            }
            6 => {
                let (other, number) = (pick(rng), rng.u64(..) >> (8 * rng.u8(..8)));
                if rng.bool() {
                    input.truncate(at);
                    input.extend(&other[other.len().min(at)..]);
                } else if let Some(to) = input.get_mut(at..at + 4) {
                    to.copy_from_slice(&(number as u32).to_le_bytes());
                }
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(INPUT_MAX);
    input
}
