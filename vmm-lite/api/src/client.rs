//! The client's side of the control socket.

use super::{Error, RuntimeDir, TIMEOUT, descriptors, dir, silence};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    time::Duration,
};

/// Longest answer line that is read.
const ANSWER_MAX: u64 = 4 << 20;

/// How often a client retries a VM with too many clients, and how much longer the wait gets each
/// time.
const TRIES: u32 = 20;
const RETRY: Duration = Duration::from_millis(10);

/// How long the process of a VM that has ended may take to exit, on a very busy host.
const GONE: Duration = Duration::from_secs(60);

/// Reports what a VM waits for.
fn tell(waits: fn(&str), progress: &Value) {
    if let Some(what) = progress["waiting_for"].as_str() {
        waits(what);
    }
}

/// A connection to a VM.
#[derive(Debug)]
pub struct Client {
    name: String,
    lines: BufReader<UnixStream>,
    /// Called with what the VM waits for, if that takes too long.
    waits: fn(&str),
}

impl Client {
    /// Connects to the VM `name` of this user.
    ///
    /// # Errors
    /// [`Error::NoVm`], and the host's errors.
    pub fn connect(name: &str) -> Result<Self, Error> {
        dir::check_name(name)?;
        Self::connect_in(&RuntimeDir::open()?, name)
    }

    /// Connects to the VM `name` in a directory.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_in(dir: &RuntimeDir, name: &str) -> Result<Self, Error> {
        let stream =
            UnixStream::connect(dir.socket(name)).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Error::NoVm(name.into())
                }
                _ => Error::Socket { doing: "connect to", name: name.into(), source },
            })?;
        let lines = BufReader::new(stream);
        let client = Self { name: name.into(), lines, waits: |_| {} };
        client.stream().set_write_timeout(Some(TIMEOUT)).map_err(client.failed("set up"))?;
        Ok(client)
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        self.lines.get_ref()
    }

    /// Makes `waits` get what the VM waits for, in words, whenever that takes too long.
    #[must_use]
    pub fn telling(self, waits: fn(&str)) -> Self {
        Self { waits, ..self }
    }

    /// Sets the timeout for answers; by default they may take any time.
    ///
    /// # Errors
    /// The host's error.
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.stream().set_read_timeout(Some(timeout)).map_err(self.failed("set up"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let name = self.name.clone();
        move |source| Error::Socket { doing, name, source }
    }

    /// Sends a verb without arguments and returns its answer. What the VM waits for, if that takes
    /// too long, is printed on standard error.
    ///
    /// # Errors
    /// [`Error::Refused`] with the VM's own text, and the connection's errors.
    pub fn call(&mut self, verb: &str) -> Result<Value, Error> {
        let waits = self.waits;
        self.request(&json!({ "verb": verb }), |progress| tell(waits, &progress))
    }

    /// Stops the VM and returns its answer when its process has exited. A VM that ends before it
    /// has answered has fulfilled the request. With `force` also where another host may need what
    /// only this process has.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stop(&mut self, force: bool) -> Result<Value, Error> {
        let request = json!({ "verb": "stop", "force": force });
        let waits = self.waits;
        let answer = match self.request(&request, |progress| tell(waits, &progress)) {
            Err(Error::Closed(_)) => return Ok(json!({})),
            other => other?,
        };
        self.wait_gone()?;
        Ok(answer)
    }

    /// Waits until the VM's process, which is about to end, has exited: its name and its TAP device
    /// are free then.
    ///
    /// # Errors
    /// [`Error::Lingers`] if it still exists after a minute; the connection's errors.
    pub fn wait_gone(&mut self) -> Result<(), Error> {
        self.wait_gone_for(GONE)
    }

    fn wait_gone_for(&mut self, time: Duration) -> Result<(), Error> {
        use std::io::Read;
        self.set_timeout(time)?;
        // Further output of the ending VM is ignored.
        let read = io::copy(&mut self.lines.by_ref().take(ANSWER_MAX), &mut io::sink());
        match read {
            Ok(_) => Ok(()),
            Err(e) => match e.kind() {
                io::ErrorKind::ConnectionReset => Ok(()),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    Err(Error::Lingers { name: self.name.clone(), time })
                }
                _ => Err(self.failed("wait for the end of")(e)),
            },
        }
    }

    /// Sends a request and returns its answer; `progress` gets the lines before it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn request(
        &mut self,
        request: &Value,
        progress: impl FnMut(Value),
    ) -> Result<Value, Error> {
        self.request_with(request, &[], progress)
    }

    /// Like [`request`](Self::request), passing open files along.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn request_with(
        &mut self,
        request: &Value,
        files: &[BorrowedFd<'_>],
        mut progress: impl FnMut(Value),
    ) -> Result<Value, Error> {
        let mut tries = 0;
        loop {
            let sent = self.send_line(request, files);
            let first = match sent {
                Ok(()) => self.line()?,
                // The VM may have sent the reason before it closed the connection.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    self.line().map_err(|_| self.failed("write to")(e))?
                }
                Err(e) => return Err(self.failed("write to")(e)),
            };
            if first["retry"] != true || tries == TRIES {
                return self.answer_from(Some(first), &mut progress);
            }
            // The VM had too many clients, and has not acted on this request.
            std::thread::sleep(tries * RETRY);
            tries += 1;
            self.connect_again()?;
        }
    }

    /// Sends a request with open files and leaves its answer to be read. For a connection that was
    /// answered before: the VM has admitted it.
    ///
    /// # Errors
    /// The connection's error.
    pub fn send(&mut self, request: &Value, files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.send_line(request, files).map_err(self.failed("write to"))
    }

    /// Reads the answer to the request that was [sent](Self::send); `progress` gets the lines
    /// before it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn answer(&mut self, mut progress: impl FnMut(Value)) -> Result<Value, Error> {
        self.answer_from(None, &mut progress)
    }

    fn answer_from(
        &mut self,
        mut first: Option<Value>,
        progress: &mut dyn FnMut(Value),
    ) -> Result<Value, Error> {
        loop {
            let mut answer = match first.take() {
                Some(first) => first,
                None => self.line()?,
            };
            if let Some(step) = answer.get_mut("progress") {
                progress(step.take());
            } else if let Some(ok) = answer.get_mut("ok") {
                return Ok(ok.take());
            } else if let Some(error) = answer.get("error").and_then(Value::as_str) {
                return Err(Error::Refused(error.to_owned()));
            } else {
                return Err(self.protocol(format!("{answer}")));
            }
        }
    }

    fn send_line(&self, request: &Value, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let line = format!("{request}\n");
        let sent = descriptors::send(self.stream(), line.as_bytes(), files)?;
        self.stream().write_all(&line.as_bytes()[sent..])
    }

    /// Replaces the connection by a new one to the same VM.
    fn connect_again(&mut self) -> Result<(), Error> {
        let connect = || {
            let old = self.stream();
            let new = UnixStream::connect_addr(&old.peer_addr()?)?;
            new.set_write_timeout(old.write_timeout()?)?;
            new.set_read_timeout(old.read_timeout()?)?;
            Ok(new)
        };
        let new = connect().map_err(self.failed("connect to"))?;
        self.lines = BufReader::new(new);
        Ok(())
    }

    fn line(&mut self) -> Result<Value, Error> {
        use std::io::Read;
        if self.lines.buffer().is_empty() && matches!(self.stream().read_timeout(), Ok(None)) {
            silence::wait(self.stream(), &mut |what| (self.waits)(what));
        }
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(ANSWER_MAX).read_until(b'\n', &mut line);
        read.map_err(self.failed("read from"))?;
        // An incomplete line does not count: its sender ended meanwhile.
        if !line.ends_with(b"\n") && (line.len() as u64) < ANSWER_MAX {
            return Err(Error::Closed(self.name.clone()));
        }
        serde_json::from_slice(&line).map_err(|e| self.protocol(e.to_string()))
    }

    fn protocol(&self, what: String) -> Error {
        Error::Protocol { name: self.name.clone(), what }
    }

    /// Releases the connection for the data after a raw answer: what was read ahead, and the
    /// stream.
    #[must_use]
    pub fn into_raw(self) -> (Vec<u8>, UnixStream) {
        (self.lines.buffer().to_vec(), self.lines.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        (Client { name: "kv".into(), lines: BufReader::new(here), waits: |_| {} }, there)
    }

    #[test]
    fn a_process_that_does_not_end_is_reported() {
        let (mut client, vm) = pair();
        let lingers = client.wait_gone_for(Duration::from_millis(10)).unwrap_err();
        assert!(matches!(lingers, Error::Lingers { .. }), "{lingers:?}");
        let said = lingers.to_string();
        assert!(said.contains("kv") && said.contains("its name"), "{said}");
        drop(vm);
        client.wait_gone_for(Duration::from_millis(10)).unwrap();
    }
}
