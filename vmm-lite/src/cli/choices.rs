//! Options with a fixed set of values.

use api::verb::{Commit, CopyMode, MoveMode};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use vmm::host::confine::{Mode, jail::Part};

/// A word, its value, and its help text, if any.
type Choice<T> = (&'static str, T, &'static str);

fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    choices: [Choice<T>; N],
) -> impl TypedValueParser<Value = T> {
    let value = |(word, _, help): Choice<T>| match help {
        "" => PossibleValue::new(word),
        help => PossibleValue::new(word).help(help),
    };
    PossibleValuesParser::new(choices.map(value)).map(move |chosen| {
        let known = choices.into_iter().find(|(word, ..)| *word == chosen);
        known.map(|(_, value, _)| value).expect("one of the possible values")
    })
}

/// `--clock`: the values for its two ways.
pub fn clock<T: Copy + Send + Sync + 'static>(
    goes_on: T,
    jump: T,
) -> impl TypedValueParser<Value = T> {
    one_of([
        (
            "continue",
            goes_on,
            "From where it was: no timeout and no tick is due while the guest is in a \
             file",
        ),
        ("jump", jump, "As if the guest had waited: everything due meanwhile is due when it runs"),
    ])
}

/// `--mode` of `migrate`, which explains them at its end.
pub fn move_mode() -> impl TypedValueParser<Value = MoveMode> {
    one_of([
        ("auto", MoveMode::Auto, ""),
        ("pre-copy", MoveMode::PreCopy, ""),
        ("hybrid", MoveMode::Hybrid, ""),
        ("stop-and-copy", MoveMode::StopAndCopy, ""),
        ("lockstep", MoveMode::Lockstep, ""),
    ])
}

/// `--commit` of `protect`.
pub fn commit() -> impl TypedValueParser<Value = Commit> {
    one_of([("received", Commit::Received, ""), ("executed", Commit::Executed, "")])
}

/// `--mode` of `snapshot`.
pub fn copy_mode() -> impl TypedValueParser<Value = CopyMode> {
    one_of([
        ("auto", CopyMode::Auto, "In rounds, or on write if the guest writes faster than that"),
        (
            "rounds",
            CopyMode::Rounds,
            "In rounds while it runs, and all that is left then while it is stopped",
        ),
        (
            "copy-on-write",
            CopyMode::CopyOnWrite,
            "Pages are copied before the guest writes to them, and others meanwhile",
        ),
    ])
}

/// `--seccomp`.
pub fn seccomp() -> impl TypedValueParser<Value = Mode> {
    one_of([
        ("kill", Mode::Kill, "The kernel kills the process at once, with SIGSYS"),
        ("trap", Mode::Trap, "As kill, after printing the call's name"),
        ("log", Mode::Log, "The call is made, and the kernel's audit log has its number"),
        ("off", Mode::Off, "No filters"),
    ])
}

/// `--jail-without`.
pub fn part() -> impl TypedValueParser<Value = Part> {
    let help = |part: Part| match part {
        Part::User => "A user of its own, where --user names none",
        Part::Files => "No file can be opened, and no TCP port be listened on (Landlock)",
        Part::Network => "No network except the TAP device and open listeners (network namespace)",
        Part::Cgroup => "Limits for memory, CPU time and threads (cgroup v2)",
    };
    let parts = [Part::User, Part::Files, Part::Network, Part::Cgroup];
    one_of(parts.map(|part| (part.name(), part, help(part))))
}
