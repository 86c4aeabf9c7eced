//! Checks metrics as text, strictly.

use std::collections::BTreeSet;

/// Checks text as a scraper that is strict about the format and its conventions would.
pub fn valid(text: &str) {
    let (mut series, mut helped, mut families) = (BTreeSet::new(), BTreeSet::new(), 0);
    let (mut family, mut kind) = ("", "");
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(words.ends_with('.') && helped.insert(name), "{line}");
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            (family, kind) = of.split_once(' ').unwrap();
            families += 1;
            assert!(helped.contains(family), "{line} without HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(family.starts_with("vmm_lite_"), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            for unit in ["_ms", "_ns", "_kib", "_pages"] {
                assert!(!family.ends_with(unit), "{family}: not in base units");
            }
        } else {
            let (name, labels, value) = sample(line);
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(value >= 0.0, "{line}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line}: twice");
            if kind != "histogram" {
                assert_eq!(name, family, "{line}: not of the family before it");
                continue;
            }
            match name.strip_prefix(family) {
                Some("_bucket") => {
                    let le = labels.iter().find(|(name, _)| name == "le").unwrap();
                    buckets.push((le.1.replace("+Inf", "inf").parse().unwrap(), value));
                }
                Some("_sum") => {}
                Some("_count") => {
                    let counts: Vec<_> = buckets.iter().map(|b| b.1).collect();
                    let bounds: Vec<_> = buckets.drain(..).map(|b| b.0).collect();
                    assert!(bounds.is_sorted_by(|a, b| a < b) && counts.is_sorted(), "{family}");
                    assert_eq!(
                        (bounds.last(), counts.last()),
                        (Some(&f64::INFINITY), Some(&value))
                    );
                }
                _ => panic!("{line}: not of the family before it"),
            }
        }
    }
    assert!(text.ends_with('\n') && families > 15, "{families} families");
}

/// Name, labels and value of a sample, by the grammar.
fn sample(line: &str) -> (&str, Vec<(String, String)>, &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = line.find(|c| !word(c)).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(!label.is_empty() && label.chars().all(word), "{line}");
            let end = after.find('"').unwrap();
            assert!(!after[..end].contains(['\\', '\n']), "{line}: no name here has these");
            labels.push((label.into(), after[..end].into()));
            inside = &after[end + 1..];
            match inside.strip_prefix(',') {
                Some(more) => inside = more,
                None => break,
            }
        }
        rest = inside.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    (name, labels, value)
}

/// The value of a series, written as it is.
pub fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}
