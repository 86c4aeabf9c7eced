//! Gaps between one iteration and the next, as the program's own clock shows them: a move as seen
//! from the guest.

use std::fmt::{self, Write};

/// Lower bounds of the histogram's buckets, in microseconds. Shorter gaps are the loop's own speed.
const BOUNDS_US: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];
/// How many of the latest gaps are kept individually.
const RECENT: usize = 32;

/// All gaps since the start or the last reset.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    max_ns: u64,
    counts: [u64; BOUNDS_US.len()],
    recent: Vec<(u64, u64)>,
}

impl Gaps {
    /// Records a gap that ended at `at_ns`.
    pub fn record(&mut self, at_ns: u64, gap_ns: u64) {
        self.max_ns = self.max_ns.max(gap_ns);
        let us = gap_ns / 1000;
        if us < BOUNDS_US[0] {
            return;
        }
        self.counts[BOUNDS_US.partition_point(|&bound| bound <= us) - 1] += 1;
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push((at_ns, gap_ns));
    }

    /// The longest gap, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The fields as JSON, without braces around them.
    pub fn write_json(&self, out: &mut String) -> fmt::Result {
        let count: u64 = self.counts.iter().sum();
        write!(out, "\"max_gap_ns\":{},\"gaps\":{count},\"gaps_from_us\":{{", self.max_ns)?;
        for (i, (bound, count)) in BOUNDS_US.iter().zip(&self.counts).enumerate() {
            write!(out, "{}\"{bound}\":{count}", if i == 0 { "" } else { "," })?;
        }
        out.write_str("},\"recent_gaps\":[")?;
        for (i, (at, gap)) in self.recent.iter().enumerate() {
            write!(out, "{}{{\"at_ns\":{at},\"gap_ns\":{gap}}}", if i == 0 { "" } else { "," })?;
        }
        out.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_land_in_their_buckets() {
        let mut gaps = Gaps::default();
        for us in [0, 49, 50, 99, 100, 999_999, 1_000_000, 90_000_000] {
            gaps.record(1, us * 1000 + 999);
        }
        assert_eq!(gaps.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(gaps.max_ns(), 90_000_000_999);
        assert_eq!(gaps.recent.len(), 6);
    }

    #[test]
    fn only_the_latest_are_kept_one_by_one() {
        let mut gaps = Gaps::default();
        (0..100).for_each(|n| gaps.record(n, 60_000));
        assert_eq!(gaps.recent.first(), Some(&(100 - RECENT as u64, 60_000)));
        let mut json = String::new();
        gaps.write_json(&mut json).unwrap();
        assert!(
            json.starts_with(
                "\"max_gap_ns\":60000,\"gaps\":100,\"gaps_from_us\":{\"50\":100,\"100\":0"
            ),
            "{json}"
        );
        assert!(json.ends_with("{\"at_ns\":99,\"gap_ns\":60000}]"), "{json}");
    }
}
