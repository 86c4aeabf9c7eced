//! Medians and percentiles.

use serde::Serialize;

/// A sample's summary, in the unit of the sample.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Summary {
    /// Number of values.
    pub count: u64,
    /// Minimum.
    pub min: u64,
    /// Half are at most this.
    pub median: u64,
    /// 99 % are at most this.
    pub p99: u64,
    /// Maximum.
    pub max: u64,
}

/// Summarizes `values`. Percentiles are values of the sample (nearest rank), not interpolated. All
/// 0 if empty.
#[must_use]
pub fn summary(values: &[u64]) -> Summary {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = |q: f64| {
        let n = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(n.max(1) - 1).copied().unwrap_or(0)
    };
    Summary {
        count: sorted.len() as u64,
        min: sorted.first().copied().unwrap_or(0),
        median: rank(0.5),
        p99: rank(0.99),
        max: sorted.last().copied().unwrap_or(0),
    }
}

/// Formats a duration in nanoseconds for people: `412 µs`, `1.93 ms`, `2.1 s`.
#[must_use]
pub fn human_ns(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.1} µs", ns as f64 / 1e3),
        10_000..1_000_000 => format!("{} µs", (ns + 500) / 1000),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(
            summary(&hundred),
            Summary { count: 100, min: 1, median: 50, p99: 99, max: 100 }
        );
        assert_eq!(summary(&[7]), Summary { count: 1, min: 7, median: 7, p99: 7, max: 7 });
        assert_eq!(summary(&[]), Summary::default());
    }

    #[test]
    fn durations_have_suitable_units() {
        assert_eq!(human_ns(850), "0.8 µs");
        assert_eq!(human_ns(412_400), "412 µs");
        assert_eq!(human_ns(1_930_000), "1.93 ms");
    }
}
