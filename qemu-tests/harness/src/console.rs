//! Captures the complete output of QEMU and its guest, and waits for it without polling.

use crate::{Error, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everything that a stream has delivered so far. A thread reads it, so that the writer never
/// waits.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    first_byte: Option<Instant>,
    ended: bool,
}

impl Capture {
    /// Reads `stream` to its end on a thread of its own.
    pub(crate) fn of(mut stream: impl Read + Send + 'static, name: &str) -> io::Result<Self> {
        let capture = Self::default();
        let shared = Arc::clone(&capture.shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let got = match stream.read(&mut chunk) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    // A socket ends with a reset if its other side closed with bytes unread.
                    Ok(0) | Err(_) => 0,
                    Ok(n) => n,
                };
                let now = Instant::now();
                let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.first_byte.get_or_insert(now);
                state.bytes.extend_from_slice(&chunk[..got]);
                state.ended = got == 0;
                shared.changed.notify_all();
                if state.ended {
                    return;
                }
            }
        })?;
        Ok(capture)
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().bytes).into_owned()
    }

    /// Waits until `found` returns a value for the text so far. `expected` describes that, for the
    /// error.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the end of the text; at once if the stream has ended.
    pub fn wait<T>(
        &self,
        expected: &str,
        timeout: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(it) = found(&String::from_utf8_lossy(&state.bytes)) {
                return Ok(it);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return Err(Error::Timeout {
                    expected: expected.to_owned()
                        + if state.ended { " (the stream ended)" } else { "" },
                    timeout,
                    last_seen: tail(&String::from_utf8_lossy(&state.bytes)),
                });
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the stream has ended. Returns whether it has.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.state(), timeout, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a long text, for messages.
fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(2000);
    let from = (from..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len());
    text[from..].to_owned()
}

/// The guest's first serial port.
#[derive(Debug)]
pub struct Console {
    capture: Capture,
    input: UnixStream,
}

impl Console {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let input = stream.try_clone().map_err(Error::io("console socket"))?;
        let capture = Capture::of(stream, "console").map_err(Error::io("console thread"))?;
        Ok(Self { capture, input })
    }

    /// Everything printed so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.capture.text()
    }

    /// Waits until `needle` was printed. Returns everything printed until then.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the end of the output.
    pub fn wait_for(&self, needle: &str, timeout: Duration) -> Result<String> {
        self.capture.wait(&format!("`{needle}` on the console"), timeout, |text| {
            text.contains(needle).then(|| text.to_owned())
        })
    }

    /// When the first byte was read; for cold starts.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.capture.state().first_byte
    }

    /// Waits until QEMU has closed the port, which it does when it ends. Returns whether it has.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        self.capture.wait_end(timeout)
    }

    /// See [`Capture::wait`].
    ///
    /// # Errors
    /// See [`Capture::wait`].
    pub fn wait<T>(
        &self,
        expected: &str,
        timeout: Duration,
        found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        self.capture.wait(expected, timeout, found)
    }

    /// Sends `bytes` as input.
    ///
    /// # Errors
    /// [`Error::Io`] if QEMU has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.input.write_all(bytes).map_err(Error::io("typing on the console"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_returns_the_text_or_reports_what_is_missing() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let console = Console::new(host).unwrap();
        let writer = thread::spawn(move || {
            guest.write_all(b"first\nse").unwrap();
            guest.write_all(b"cond\n").unwrap();
            guest
        });
        let seen = console.wait_for("second\n", Duration::from_secs(10)).unwrap();
        assert_eq!(seen, "first\nsecond\n");
        match console.wait_for("third", Duration::from_millis(5)) {
            Err(Error::Timeout { expected, last_seen, .. }) => {
                assert_eq!(expected, "`third` on the console");
                assert_eq!(last_seen, "first\nsecond\n");
            }
            other => panic!("{other:?}"),
        }
        drop(writer.join().unwrap());
        assert!(console.capture.wait_end(Duration::from_secs(10)));
        // The stream has ended: the answer comes at once, not after the timeout.
        let before = Instant::now();
        console.wait_for("third", Duration::from_secs(60)).unwrap_err();
        assert!(before.elapsed() < Duration::from_secs(30));
    }
}
