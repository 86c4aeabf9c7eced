//! Child processes that end with their guard.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::error::{Doing, Error, Result};

/// Lines that a child has printed so far, both streams in order of arrival.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    lines: Vec<String>,
    open_streams: usize,
}

/// A running child whose output is captured. Dropping it kills and reaps the child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Output>,
    what: String,
}

impl Process {
    /// Starts `command` with its output captured and its input open.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .doing(format!("start {what}"))?;
        let output = Arc::new(Output::default());
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("stdout is piped")),
            Box::new(child.stderr.take().expect("stderr is piped")),
        ];
        lock(&output).open_streams = streams.len();
        for stream in streams {
            let output = Arc::clone(&output);
            thread::spawn(move || collect(stream, &output));
        }
        Ok(Self { child, output, what })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input; `None` once taken. Dropping it signals end of file.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Everything that it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        lock(&self.output).lines.join("\n")
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Errors
    /// [`Error::Timeout`], also if the process ended without printing it.
    pub fn wait_for_line(&self, text: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        let mut state = lock(&self.output);
        loop {
            if let Some(line) = state.lines.iter().find(|l| l.contains(text)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_streams == 0 {
                return Err(Error::Timeout {
                    what: format!("line with {text:?} from {}", self.what),
                    seconds: within.as_secs(),
                    output: state.lines.join("\n"),
                });
            }
            state = self.output.changed.wait_timeout(state, left).expect(POISON).0;
        }
    }

    /// Waits for the end of the process and of its output.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the process then keeps running.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        {
            let mut state = lock(&self.output);
            while state.open_streams > 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Error::Timeout {
                        what: format!("end of {}", self.what),
                        seconds: within.as_secs(),
                        output: state.lines.join("\n"),
                    });
                }
                state = self.output.changed.wait_timeout(state, left).expect(POISON).0;
            }
        }
        // Both streams are closed, so the process has ended or is about to.
        self.child.wait().doing(format!("wait for {}", self.what))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).doing(format!("signal {}", self.what))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended and been reaped, which is the goal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const POISON: &str = "no holder of this lock panics";

fn lock(output: &Output) -> std::sync::MutexGuard<'_, OutputState> {
    output.state.lock().expect(POISON)
}

fn collect(stream: impl Read, output: &Output) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        lock(output).lines.push(text);
        output.changed.notify_all();
        line.clear();
    }
    lock(output).open_streams -= 1;
    output.changed.notify_all();
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// [`Error::Command`] if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let what = format!("{command:?}");
    let out = command.stdin(Stdio::null()).output().doing(format!("start {what}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(Error::Command {
        command: what,
        status: out.status.to_string(),
        stderr: String::from_utf8_lossy(&out.stderr).trim().into(),
    })
}
