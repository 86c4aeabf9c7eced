//! A check, and its result.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::panic::Location;

/// A named check of one property.
#[derive(Clone, Copy)]
pub struct Check {
    /// `area.promise`, unique.
    pub name: &'static str,
    /// Runs the check. It must leave behind nothing that disturbs another check, and may run again.
    pub run: fn() -> Outcome,
}

/// The result of a check that did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The property does not hold, and how.
    Failed(String),
    /// It cannot be checked on this system, and why.
    Skipped(String),
}

/// The result of a check. Checks return errors and do not panic, so that they work where a panic
/// ends the program.
pub type Outcome = Result<(), Failure>;

impl<E: Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        failed(format_args!("unexpected error: {error}"))
    }
}

/// A failure at the caller's place.
#[track_caller]
pub fn failed(what: impl Display) -> Failure {
    let at = Location::caller();
    let file = at.file().rsplit(['/', '\\']).next().unwrap_or_default();
    Failure::Failed(format!("{what} ({file}:{})", at.line()))
}

/// Ends the check: it cannot be run here, because of `why`.
pub fn skip<T>(why: impl Display) -> Result<T, Failure> {
    Err(Failure::Skipped(why.to_string()))
}

/// Kinds of error that std for hermit has, but derives from no error number; the number itself
/// counts there.
const KINDS_HERMIT_LEAVES_OUT: [(io::ErrorKind, i32); 2] =
    [(io::ErrorKind::NotADirectory, 20), (io::ErrorKind::DirectoryNotEmpty, 39)];

/// Whether an error is of this kind.
pub fn is_kind(error: &io::Error, kind: io::ErrorKind) -> bool {
    let by_number = |(k, number): &(_, i32)| *k == kind && error.raw_os_error() == Some(*number);
    error.kind() == kind
        || cfg!(target_os = "hermit") && KINDS_HERMIT_LEAVES_OUT.iter().any(by_number)
}

/// Whether the target's standard library declares an operation as unsupported. Only such operations
/// are skipped: a broken operation fails.
pub fn not_on_hermit(operation: &str) -> Outcome {
    if cfg!(target_os = "hermit") {
        return skip(format_args!("std for hermit does not implement {operation}"));
    }
    Ok(())
}

/// Lists checks by the functions that make them: `checks!["area": a_promise, another]`.
#[macro_export]
macro_rules! checks {
    ($area:literal: $($function:ident),+ $(,)?) => {
        /// The checks of this area.
        pub const CHECKS: &[$crate::check::Check] = &[
            $($crate::check::Check { name: concat!($area, ".", stringify!($function)),
                run: $function }),+
        ];
    };
}

/// Fails the check unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr) => { $crate::ensure!($condition, "{} does not \
        hold", stringify!($condition)) };
    ($condition:expr, $($text:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::check::failed(format_args!($($text)+)));
        }
    }};
}

/// Fails the check unless both are equal.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => {
                $crate::ensure!(*left == *right, "{} is {left:?}, not {right:?}", stringify!($left))
            }
        }
    };
}

/// Fails the check unless the result is an error of one of these kinds.
#[macro_export]
macro_rules! ensure_error {
    ($result:expr, $($kind:ident)|+) => {
        match &$result {
            Ok(_) => return Err($crate::check::failed(concat!(stringify!($result), " succeeded"))),
            Err(error) => $crate::ensure!(
                $($crate::check::is_kind(error, std::io::ErrorKind::$kind))||+,
                "{} gives {:?} ({error})", stringify!($result), error.kind()
            ),
        }
    };
}

/// Joins a thread; its panic is the check's failure.
#[track_caller]
pub fn join<T>(handle: std::thread::JoinHandle<T>) -> Result<T, Failure> {
    handle.join().map_err(|_| failed("a thread panicked"))
}
