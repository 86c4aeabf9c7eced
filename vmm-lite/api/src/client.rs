//! The client's side of the control socket.

use super::{
    Error, Progress, Request, RuntimeDir, TIMEOUT,
    answer::{Done, Line},
    descriptors, dir, silence,
    verb::{Stop, Verb},
};
use serde::de::DeserializeOwned;
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

/// A connection to a VM.
#[derive(Debug)]
pub struct Client {
    name: String,
    lines: BufReader<UnixStream>,
    /// Gets what the VM waits for, if that takes too long.
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

    /// Sends a request and returns its answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the VM's own text, and the connection's errors.
    pub fn call<V: Verb>(&mut self, verb: V) -> Result<V::Answer, Error> {
        self.call_with(verb, &[], |_| {})
    }

    /// Stops the VM and returns its answer when its process has exited. A VM that ends before it
    /// has answered has fulfilled the request. With `force` also where another host may need what
    /// only this process has.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn stop(&mut self, force: bool) -> Result<Done, Error> {
        let answer = match self.call(Stop { force }) {
            Err(Error::Closed(_)) => return Ok(Done {}),
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

    /// Like [`call`](Self::call), passing open files along; `progress` gets the lines before the
    /// answer.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_with<V: Verb>(
        &mut self,
        verb: V,
        files: &[BorrowedFd<'_>],
        mut progress: impl FnMut(Progress),
    ) -> Result<V::Answer, Error> {
        let request = verb.into();
        let mut tries = 0;
        loop {
            let first = match self.send_line(&request, files) {
                Ok(()) => self.line()?,
                // The VM may have sent the reason before it closed the connection.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    self.line().map_err(|_| self.failed("write to")(e))?
                }
                Err(e) => return Err(self.failed("write to")(e)),
            };
            let again = matches!(&first, Line::Error(failure) if failure.retry);
            if !again || tries == TRIES {
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
    pub fn send(&mut self, verb: impl Verb, files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.send_line(&verb.into(), files).map_err(self.failed("write to"))
    }

    /// Reads the answer to the request that was [sent](Self::send); `progress` gets the lines
    /// before it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn answer<V: Verb>(
        &mut self,
        mut progress: impl FnMut(Progress),
    ) -> Result<V::Answer, Error> {
        self.answer_from(None, &mut progress)
    }

    fn answer_from<A: DeserializeOwned>(
        &mut self,
        mut first: Option<Line<A>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<A, Error> {
        loop {
            let line = match first.take() {
                Some(first) => first,
                None => self.line()?,
            };
            match line {
                Line::Progress { progress: Progress::WaitingFor { waiting_for } } => {
                    (self.waits)(&waiting_for);
                }
                Line::Progress { progress: step } => progress(step),
                Line::Ok { ok } => return Ok(ok),
                Line::Error(failure) => return Err(Error::Refused(failure)),
            }
        }
    }

    fn send_line(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let line = serde_json::to_string(request)? + "\n";
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

    fn line<A: DeserializeOwned>(&mut self) -> Result<Line<A>, Error> {
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
        serde_json::from_slice(&line)
            .map_err(|source| Error::Protocol { name: self.name.clone(), source })
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
