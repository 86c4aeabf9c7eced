//! A server process, and a client that reads replies.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A server; dropping it ends its process.
pub struct Server {
    /// `None`: the server was started outside of this test.
    process: Option<Child>,
    pub address: SocketAddr,
}

/// Names the address of a running `kv` for those tests that need no server of their own: so they
/// can be run against a guest. They empty it. Run them one at a time.
const RUNNING: &str = "KV_TEST_SERVER";

impl Server {
    /// The running one, emptied, or a new process.
    pub fn any() -> Self {
        let Ok(address) = std::env::var(RUNNING) else { return Self::kv(&[]) };
        let address = address.parse().unwrap_or_else(|e| panic!("{RUNNING}={address}: {e}"));
        let server = Self { process: None, address };
        server.connect().line("flushall");
        server
    }

    /// A new process, on a free port.
    pub fn kv(args: &[&str]) -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_kv")), args)
    }

    /// A `kv` process with this much memory.
    pub fn kv_within(kib: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_kv")]);
        Self::start(command, args)
    }

    fn start(mut command: Command, args: &[&str]) -> Self {
        let mut process = command
            .args(["--port", "0", "--bind", "127.0.0.1"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split([' ', ',']).find_map(|word| word.parse().ok());
        Self {
            process: Some(process),
            address: address.unwrap_or_else(|| panic!("no address in {line:?}")),
        }
    }

    /// Redis, if it is installed.
    pub fn redis() -> Option<Self> {
        let address = unused();
        let process = Command::new("redis-server")
            .args([
                "--port",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { process: Some(process), address };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    /// Waits for the process to end by itself.
    pub fn wait(mut self) -> std::process::ExitStatus {
        self.process.take().expect("a process of ours").wait().unwrap()
    }
}

/// An address that is free now, and that no other test of this process was given: Redis does not
/// choose one by itself, and until it listens the same one may be found free again.
fn unused() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(address.port()) {
            return address;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended already; the wait shows that.
            let _ = process.kill();
            process.wait().unwrap();
        }
    }
}

/// A reply.
#[derive(Clone, PartialEq, PartialOrd)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Double(String),
    Verbatim(String),
    Array(Vec<Value>),
    Map(Vec<Value>),
    Set(Vec<Value>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(n) => write!(f, ":{n}"),
            Self::Bulk(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Null => write!(f, "null"),
            Self::Double(text) => write!(f, ",{text}"),
            Self::Verbatim(text) => write!(f, "={text}"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(items) => write!(f, "map {items:?}"),
            Self::Set(items) => write!(f, "set {items:?}"),
        }
    }
}

impl Value {
    /// The elements of an array, map or set.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) | Self::Map(items) | Self::Set(items) => items,
            other => panic!("{other:?} has no elements"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Simple(text) | Self::Error(text) | Self::Verbatim(text) | Self::Double(text) => {
                text.clone()
            }
            Self::Integer(n) => n.to_string(),
            other => panic!("{other:?} is no text"),
        }
    }
}

pub struct Client {
    reader: BufReader<TcpStream>,
}

/// A request as an array of strings.
pub fn encode<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.as_ref().len()).as_bytes());
        out.extend(word.as_ref());
        out.extend(b"\r\n");
    }
    out
}

impl Client {
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
    }

    /// Sends words and reads the reply.
    pub fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Value {
        self.send(&encode(words));
        self.read()
    }

    /// The same for words separated by spaces.
    pub fn line(&mut self, line: &str) -> Value {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }

    pub fn read(&mut self) -> Value {
        self.try_read().expect("the connection has ended")
    }

    /// A reply, or `None` at the end of the connection.
    pub fn try_read(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("reading a reply: {e}"),
        }
        let text = String::from_utf8_lossy(&line[1..]).trim_end_matches("\r\n").to_owned();
        let count = || text.parse::<i64>().unwrap_or_else(|_| panic!("{text:?} is no count"));
        Some(match line[0] {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b':' => Value::Integer(count()),
            b',' => Value::Double(text),
            b'_' => Value::Null,
            b'$' | b'*' if count() < 0 => Value::Null,
            b'$' => Value::Bulk(self.bytes(count())),
            b'=' => {
                Value::Verbatim(String::from_utf8_lossy(&self.bytes(count())[4..]).into_owned())
            }
            b'*' => Value::Array(self.values(count())),
            b'%' => Value::Map(self.values(count() * 2)),
            b'~' => Value::Set(self.values(count())),
            other => panic!("a reply of kind {:?}: {text}", char::from(other)),
        })
    }

    fn bytes(&mut self, count: i64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"\r\n"), "a string of {count} does not end where it should");
        bytes.truncate(count as usize);
        bytes
    }

    fn values(&mut self, count: i64) -> Vec<Value> {
        (0..count).map(|_| self.read()).collect()
    }
}
