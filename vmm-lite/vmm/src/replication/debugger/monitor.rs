//! gdb's `monitor` commands.

use super::{Debugger, Error};
use crate::devices::clock;
use time::OffsetDateTime;

const HELP: &str = "\
monitor where         the record, the way from there, and the guest's wall clock
monitor until RECORD  have continue stop at that record, and reverse-continue not go back behind it
monitor until         no more";

impl Debugger {
    /// Answers a command.
    pub(super) fn monitor(&mut self, command: &str) -> Result<String, Error> {
        let mut words = command.split_whitespace();
        Ok(match (words.next(), words.next(), words.next()) {
            (Some("where"), None, None) => self.place()?,
            (Some("until"), None, None) => {
                self.until = None;
                "It goes on to its end.".into()
            }
            (Some("until"), Some(record), None) => match record.parse() {
                Ok(record) => {
                    self.until = Some(record);
                    format!("continue or reverse-continue goes to record {record} at most.")
                }
                Err(_) => format!("{record:?} is not the number of a record."),
            },
            _ => HELP.into(),
        })
    }

    fn place(&self) -> Result<String, Error> {
        let debugged = self.now()?;
        let control = self.run.vm.ram().control_page();
        let published = clock::as_published(&control.clock);
        let tsc = debugged.tsc.unwrap_or(published.tsc_base);
        let ns = i128::from(clock::wall_ns(&published, tsc));
        let time = OffsetDateTime::from_unix_timestamp_nanos(ns).map(text).unwrap_or_default();
        let (record, end) = (debugged.at.record, self.opened.ends_at());
        let since = match debugged.at.path.as_slice() {
            [] => String::new(),
            path => format!(", and then {path:x?}"),
        };
        Ok(format!("record {record} of {end}{since}; the guest's clock: before {time}"))
    }
}

/// A time as options of the command line take it.
fn text(time: OffsetDateTime) -> String {
    let (hour, minute, second, micros) = time.to_hms_micro();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", time.date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_796_040_000_500_000_000).unwrap();
        assert_eq!(text(time), "2026-11-30T12:00:00.500000Z");
    }
}
