//! The only way in which a test reports that it, or a part of it, did not run.

use std::{
    fmt::Display,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

/// Names the file in which `make test` counts skips.
pub const LOG: &str = "VMM_LITE_SKIPPED";

/// Reports that `test` did not run: on standard error, and in the file named by [`LOG`].
///
/// Not by `eprintln!`: libtest captures its output, and drops it when the test passes.
///
/// # Panics
/// If the file cannot be written to, since a skip that is not counted looks like a pass.
pub fn skipped(test: &str, why: impl Display) {
    let line = line(test, why);
    // A closed standard error has no reader.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os(LOG) {
        append(Path::new(&log), &line).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
    }
}

/// One short line, whatever `why` contains.
fn line(test: &str, why: impl Display) -> String {
    const LONGEST: usize = 200;
    let mut line = format!("skipped: {test}: {why}").replace('\n', " ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line + "\n"
}

/// Uses a single write, so that lines of concurrent processes do not mix.
fn append(log: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(log)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    #[test]
    fn a_skip_is_one_line_of_the_log() {
        let log = std::env::temp_dir().join(format!("vmm-lite-skips-{}", std::process::id()));
        append(&log, &line("one", "no KVM")).unwrap();
        append(&log, &line("two", "no\nnetwork")).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert_eq!(text, "skipped: one: no KVM\nskipped: two: no network\n");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let line = line("one", "ä".repeat(300));
        assert_eq!(line.chars().count(), 202, "{line}");
        assert!(line.ends_with("ä…\n"), "{line}");
    }

    /// Source files below `dir`, without build output.
    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "out" && !name.starts_with('.') {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_test_of_the_workspace_skips_in_this_way() {
        let mut files = Vec::new();
        sources(&crate::images::workspace(), &mut files);
        assert!(files.len() > 100, "{files:?}");
        // In two parts, so that this file does not match.
        let captured = concat!("println!(\"", "skipped");
        let others: Vec<_> = files
            .into_iter()
            .filter(|file| fs::read_to_string(file).unwrap().contains(captured))
            .collect();
        assert!(others.is_empty(), "use vmm_lite_lab::skipped: {others:?}");
    }
}
