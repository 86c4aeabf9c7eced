//! A QMP client: greeting, capabilities, one command at a time, and the events in between.

use crate::lines::LineSocket;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long QEMU may take to answer a command.
const ANSWER: Duration = Duration::from_secs(20);
const CHANNEL: &str = "the QMP socket";

/// A connected monitor.
#[derive(Debug)]
pub struct Qmp {
    lines: LineSocket,
    events: VecDeque<Event>,
    next_id: u64,
    version: Version,
}

/// QEMU's version in its greeting.
#[derive(Clone, Debug, Deserialize)]
pub struct Version {
    /// The numbers.
    pub qemu: VersionTriple,
    /// The packager's suffix.
    #[serde(default)]
    pub package: String,
}

/// The numbers of a [`Version`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct VersionTriple {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionTriple { major, minor, micro } = self.qemu;
        write!(f, "QEMU {major}.{minor}.{micro}")?;
        if self.package.is_empty() { Ok(()) } else { write!(f, " ({})", self.package) }
    }
}

/// An event that QEMU reports by itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Its name, such as `STOP`.
    #[serde(rename = "event")]
    pub name: String,
    /// Its data.
    #[serde(default)]
    pub data: Value,
    timestamp: Timestamp,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl Event {
    /// When it happened, in microseconds of the host's wall clock: comparable between QEMU
    /// processes on one host.
    #[must_use]
    pub fn at_us(&self) -> i64 {
        self.timestamp.seconds * 1_000_000 + self.timestamp.microseconds
    }
}

/// A line from QEMU.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        qmp: Greeting,
    },
    Event(Event),
    Return {
        #[serde(rename = "return")]
        value: Value,
        id: u64,
    },
    Error {
        error: QmpError,
        id: Option<u64>,
    },
}

#[derive(Deserialize)]
struct Greeting {
    version: Version,
}

#[derive(Deserialize)]
struct QmpError {
    class: String,
    desc: String,
}

impl Qmp {
    /// Uses a socket on which QEMU has a control monitor: reads the greeting, and negotiates
    /// capabilities.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Timeout`] if there is no QEMU, [`Error::Protocol`] if the peer
    /// is something else.
    pub fn connect(stream: UnixStream, timeout: Duration) -> Result<Self> {
        let mut lines = LineSocket::new(stream, CHANNEL);
        let version = match read(&mut lines, Instant::now() + timeout)? {
            Some(Message::Greeting { qmp }) => qmp.version,
            Some(_) => return Err(unexpected("something other than a greeting")),
            None => return Err(late("QMP greeting", timeout, &lines)),
        };
        let mut qmp = Self { lines, events: VecDeque::new(), next_id: 0, version };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// QEMU's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Runs a command and returns its result. Events that arrive before the answer are kept.
    ///
    /// # Errors
    /// [`Error::Command`] with QEMU's own message if it refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": id });
        if arguments.as_object().is_some_and(|a| !a.is_empty()) {
            request["arguments"] = arguments;
        }
        self.lines.send(&request.to_string())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            match read(&mut self.lines, deadline)? {
                Some(Message::Event(event)) => self.events.push_back(event),
                Some(Message::Return { value, id: got }) if got == id => return Ok(value),
                Some(Message::Error { error, id: got }) if got.is_none_or(|got| got == id) => {
                    return Err(Error::Command {
                        command: command.to_owned(),
                        class: error.class,
                        description: error.desc,
                    });
                }
                Some(_) => return Err(unexpected("an answer to another command")),
                None => return Err(late(&format!("answer to `{command}`"), ANSWER, &self.lines)),
            }
        }
    }

    /// The next event for which `wanted` holds, including kept ones; drops those before it.
    ///
    /// # Errors
    /// [`Error::Timeout`] if none arrives; `expected` describes it.
    pub fn wait_event(
        &mut self,
        expected: &str,
        timeout: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match read(&mut self.lines, deadline)? {
                    Some(Message::Event(event)) => event,
                    Some(_) => return Err(unexpected("an answer without a request")),
                    None => return Err(late(expected, timeout, &self.lines)),
                },
            };
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// Drops the events that have arrived so far.
    ///
    /// # Errors
    /// Errors of [`execute`](Self::execute): it runs a command, so that all earlier events have
    /// arrived.
    pub fn forget_events(&mut self) -> Result<()> {
        self.execute("query-version", json!({}))?;
        self.events.clear();
        Ok(())
    }
}

fn read(lines: &mut LineSocket, deadline: Instant) -> Result<Option<Message>> {
    let Some(line) = lines.receive(deadline)? else { return Ok(None) };
    serde_json::from_str(&line).map(Some).map_err(|_| unexpected(&line))
}

fn unexpected(message: &str) -> Error {
    Error::Protocol { channel: CHANNEL, message: message.to_owned() }
}

fn late(expected: &str, timeout: Duration, lines: &LineSocket) -> Error {
    Error::Timeout { expected: expected.to_owned(), timeout, last_seen: lines.unfinished() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::thread;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7},
        "package": "Debian"}, "capabilities": ["oob"]}}"#;
    const LIMIT: Duration = Duration::from_secs(10);

    /// A fake QEMU that greets, then answers each request with the next of `script`, where `$` is
    /// replaced by the request's id.
    fn fake(script: &[&str]) -> (UnixStream, thread::JoinHandle<Vec<Value>>) {
        let (there, here) = UnixStream::pair().unwrap();
        let script: Vec<String> = script.iter().map(|&s| s.to_owned()).collect();
        let server = thread::spawn(move || {
            let mut out = there.try_clone().unwrap();
            writeln!(out, "{}", GREETING.replace('\n', " ")).unwrap();
            let mut seen = Vec::new();
            let mut script = script.iter();
            for line in BufReader::new(there).lines() {
                let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let Some(answer) = script.next() else { break };
                write!(out, "{}", answer.replace('$', &request["id"].to_string())).unwrap();
                seen.push(request);
            }
            seen
        });
        (here, server)
    }

    #[test]
    fn events_between_a_command_and_its_answer_are_kept_in_order() {
        let (socket, server) = fake(&[
            "{\"return\": {}, \"id\": $}\n",
            "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 2, \"microseconds\": 3}}\n\
             {\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 2, \"microseconds\": 9}, \
             \"data\": {\"a\": 1}}\n\
             {\"return\": {\"status\": \"active\"}, \"id\": $}\n",
        ]);
        let mut qmp = Qmp::connect(socket, LIMIT).unwrap();
        assert_eq!(qmp.version().to_string(), "QEMU 7.2.22 (Debian)");
        let got = qmp.execute("query-migrate", json!({"x": 1})).unwrap();
        assert_eq!(got["status"], "active");
        let stop = qmp.wait_event("STOP", LIMIT, |e| e.name == "STOP").unwrap();
        assert_eq!(stop.at_us(), 2_000_003);
        let resume = qmp.wait_event("RESUME", LIMIT, |e| e.name == "RESUME").unwrap();
        assert_eq!((resume.at_us() - stop.at_us(), &resume.data["a"]), (6, &json!(1)));
        let none = qmp.wait_event("STOP", Duration::from_millis(5), |_| true);
        assert!(matches!(none, Err(Error::Timeout { .. })), "{none:?}");
        drop(qmp);
        let seen = server.join().unwrap();
        assert_eq!(seen[0]["execute"], "qmp_capabilities");
        assert_eq!(seen[1], json!({"execute": "query-migrate", "id": 1, "arguments": {"x": 1}}));
    }

    #[test]
    fn a_refusal_carries_qemus_words() {
        let (socket, _server) = fake(&[
            "{\"return\": {}, \"id\": $}\n",
            "{\"id\": $, \"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n",
            "{\"return\": {}, \"id\": 77}\n",
        ]);
        let mut qmp = Qmp::connect(socket, LIMIT).unwrap();
        let refused = qmp.execute("migrate", json!({})).unwrap_err();
        assert_eq!(refused.to_string(), "QMP command `migrate`: GenericError: no such thing");
        // An answer with another id is not accepted for this command.
        assert!(matches!(qmp.execute("cont", json!({})), Err(Error::Protocol { .. })));
        // The script has ended: the fake QEMU closes the socket.
        assert!(matches!(qmp.execute("stop", json!({})), Err(Error::Closed(_))));
    }

    #[test]
    fn a_peer_that_is_not_qemu_is_reported() {
        let (mut there, here) = UnixStream::pair().unwrap();
        there.write_all(b"220 mail.example ESMTP\n").unwrap();
        let error = Qmp::connect(here, LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "unexpected on the QMP socket: 220 mail.example ESMTP");
    }
}
