//! The program on a system with a correct std: it must find nothing, and die as requested.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

fn std_check(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_std-check")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn nothing_fails_here_and_nothing_is_skipped_silently() {
    let output = std_check(&[]);
    let text = text(&output.stdout);
    assert!(output.status.success(), "{text}");
    for line in text.lines() {
        assert!(
            !line.starts_with("skip ") || line.contains(": "),
            "a skip without a reason: {line}"
        );
    }
    let listed = std_check(&["--list"]).stdout.iter().filter(|&&b| b == b'\n').count();
    let told = text.lines().filter(|l| l.starts_with("ok ") || l.starts_with("skip ")).count();
    assert_eq!(told, listed);
}

#[test]
fn some_can_be_chosen_and_json_is_one_object_a_line() {
    let output =
        std_check(&["--only", "env", "--only", "files.seek", "--skip", "env.args", "--json"]);
    assert!(output.status.success());
    let text = text(&output.stdout);
    let names: Vec<_> = text.lines().filter_map(|l| l.split('"').nth(3)).collect();
    assert!(names.contains(&"files.seek") && !names.contains(&"env.args"), "{text}");
    assert!(text.lines().all(|l| l.starts_with('{') && l.ends_with('}')), "{text}");
    assert_eq!(std_check(&["--only", "no-such-thing"]).status.code(), Some(2));
    assert_eq!(std_check(&["--nonsense"]).status.code(), Some(2));
}

#[test]
fn repeats_for_the_given_time_and_prints_the_seed() {
    let output = std_check(&["--only", "alloc", "--for", "1", "--seed", "5"]);
    assert!(output.status.success());
    let text = text(&output.stdout);
    assert!(text.starts_with("std-check: --seed 5\nround 1: "), "{text}");
    assert!(text.lines().skip(1).all(|l| l.contains(" 0 failed, largest block ")), "{text}");
    let json = std_check(&["--only", "env.consts", "--for", "1", "--json"]).stdout;
    assert!(json.split(|b| *b == b'\n').all(|l| l.is_empty() || l.starts_with(b"{")));
}

#[test]
fn inline_needs_no_thread_for_the_check_itself() {
    let output = std_check(&["--inline", "--only", "alloc.sizes"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("ok alloc.sizes\n"));
}

#[test]
fn verbose_names_a_check_before_it_runs_and_help_helps() {
    let output = std_check(&["--verbose", "--only", "env.consts"]);
    assert!(text(&output.stdout).starts_with("... env.consts\nok env.consts\n"));
    assert!(text(&std_check(&["--help"]).stdout).contains("--die WAY"));
}

#[test]
fn ends_as_told() {
    const SEGV: i32 = 11;
    const ABRT: i32 = 6;
    const ILL: i32 = 4;
    assert_eq!(std_check(&["--die", "exit=42"]).status.code(), Some(42));
    assert_eq!(std_check(&["--die", "return=7"]).status.code(), Some(7));
    let panic = std_check(&["--die", "panic"]);
    assert_eq!(panic.status.code(), Some(101));
    assert!(text(&panic.stderr).contains("asked to panic"));
    for (way, signal) in [
        ("abort", ABRT),
        ("overflow", ABRT),
        ("overflow-thread", ABRT),
        ("null", SEGV),
        ("wild", SEGV),
        ("write-text", SEGV),
        ("exec-heap", SEGV),
        ("illegal", ILL),
        ("oom", ABRT),
    ] {
        let output = std_check(&["--die", way]);
        assert_eq!(output.status.signal(), Some(signal), "{way}: {output:?}");
    }
    for way in ["of-joy", "exit=soon", "return=256"] {
        assert_eq!(std_check(&["--die", way]).status.code(), Some(2), "{way}");
    }
}
