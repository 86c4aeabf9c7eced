//! Options with a fixed set of values.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use vmm::{
    capture::Way,
    host::confine::{Mode, jail::Part},
    snapshot::GuestClock,
};

/// A word, its value, and its help text.
type Choice<T> = (&'static str, T, &'static str);

fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    choices: [Choice<T>; N],
) -> impl TypedValueParser<Value = T> {
    let value = |(word, _, help): Choice<T>| PossibleValue::new(word).help(help);
    PossibleValuesParser::new(choices.map(value)).map(move |chosen| {
        let known = choices.into_iter().find(|(word, ..)| *word == chosen);
        known.map(|(_, value, _)| value).expect("one of the possible values")
    })
}

/// `--clock`.
pub fn clock() -> impl TypedValueParser<Value = GuestClock> {
    one_of([
        (
            "continue",
            GuestClock::Continue,
            "From where it was: no timeout and no tick is due while the guest is in a \
             file",
        ),
        (
            "jump",
            GuestClock::Jump,
            "As if the guest had waited: everything due meanwhile is due when it runs",
        ),
    ])
}

/// `--mode` of `snapshot`.
pub fn way() -> impl TypedValueParser<Value = Way> {
    one_of([
        ("auto", Way::Auto, "In rounds, or on write if the guest writes faster than that"),
        (
            "rounds",
            Way::Rounds,
            "In rounds while it runs, and all that is left then while it is stopped",
        ),
        (
            "copy-on-write",
            Way::CopyOnWrite,
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
