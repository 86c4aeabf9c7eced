//! The VM's side of the control socket.

pub use super::signals::{Signals, catch_signals};
use super::{
    admission::{Admission, Session},
    copies, moves,
};
use crate::metrics;
use api::{Claim, Error, Request, TIMEOUT, descriptors::Incoming, request};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    io::{self, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use vmm::{
    host::confine::{self, Thread},
    host::watchdog::{self, Doing},
    vm::{End, Slow, StopReason, Vm},
};

/// How often a console reader checks whether its connection is still open.
const CONSOLE_LOOK: Duration = Duration::from_millis(500);
/// How long requests that are being answered may delay the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Shortest time to measure a guest's dirty rate.
const WATCH_MIN: Duration = Duration::from_millis(1);
const WATCH_MAX: Duration = Duration::from_secs(10);
const STACK: usize = 512 << 10;

/// Serves the control socket of a VM. Dropping it releases the name.
#[derive(Debug)]
pub struct Server {
    claim: Claim,
    admission: Admission,
    answering: Arc<Answering>,
}

/// Counts requests that are being answered: the request that ends the VM is answered before the
/// process exits.
#[derive(Debug, Default)]
struct Answering {
    requests: Mutex<usize>,
    fewer: Condvar,
}

impl Answering {
    fn requests(&self) -> MutexGuard<'_, usize> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn during<T>(&self, answer: impl FnOnce() -> T) -> T {
        *self.requests() += 1;
        let answered = answer();
        *self.requests() -= 1;
        self.fewer.notify_all();
        answered
    }

    /// Waits until there are none, but not for long: a client may not read.
    fn wait_for_none(&self) {
        let wait = self.fewer.wait_timeout_while(self.requests(), LAST_WORDS, |n| *n > 0);
        drop(wait);
    }
}

/// The answer to a request.
pub type Answer = Result<Value, Box<dyn std::error::Error>>;

impl Server {
    /// A server for the claimed name.
    #[must_use]
    pub fn new(claim: Claim) -> Self {
        Self { claim, admission: Admission::default(), answering: Arc::default() }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.claim.name()
    }

    /// The listening socket: readable when a client waits for [`accept`](Self::accept).
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        self.claim.listener()
    }

    /// Accepts a waiting client, and serves it on a thread of its own.
    pub fn accept(&self, vm: &Vm) {
        if let Err(e) = self.try_accept(vm) {
            tracing::warn!("a control connection failed: {e}");
            // Out of descriptors, most likely.
            self.admission.make_room();
        }
    }

    /// Ends the VM for a signal, on a thread of its own: it waits for the vCPU, and clients must be
    /// served meanwhile if that hangs.
    fn end(&self, vm: &Vm, reason: StopReason) {
        let (owner, answering) = (vm.clone(), Arc::clone(&self.answering));
        let name = self.name().to_owned();
        let end = move |vm: &Vm| {
            // A second signal does not permit any loss; `stop --force` does.
            if let Err(e) = vm.end_for_operator(reason, false) {
                eprintln!(
                    "vmm-lite: not ended: {e}; `vmm-lite stop --force {name}` ends it all the same"
                );
            }
        };
        let thread =
            std::thread::Builder::new().name(Thread::Control.name().into()).stack_size(STACK);
        let spawned = thread.spawn({
            let end = end.clone();
            move || {
                if let Err(e) = confine::enter(Thread::Control) {
                    tracing::error!("not ended: {}", vmm::host::with_causes(&e));
                    return;
                }
                let _attends = watchdog::attend(Thread::Control.name());
                let _owes = watchdog::owe(Doing::Stop);
                answering.during(|| end(&owner));
            }
        });
        if spawned.is_err() {
            // Out of threads.
            end(vm);
        }
    }

    fn try_accept(&self, vm: &Vm) -> io::Result<()> {
        let (stream, _) = self.claim.listener().accept()?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let Some(session) = self.admission.admit(&stream)? else { return Ok(()) };
        let (vm, answering) = (vm.clone(), Arc::clone(&self.answering));
        let thread =
            std::thread::Builder::new().name(Thread::Control.name().into()).stack_size(STACK);
        thread.spawn(move || {
            let mut reply = Reply { stream };
            if let Err(e) = confine::enter(Thread::Control) {
                reply.refuse(&vmm::host::with_causes(&e));
                return;
            }
            let _attends = watchdog::attend(Thread::Control.name());
            if let Err(e) = serve(&vm, &mut reply, &answering, &session) {
                tracing::debug!("a control connection ended: {e}");
            }
        })?;
        Ok(())
    }
}

/// The reply channel to a client.
#[derive(Debug)]
pub struct Reply {
    stream: UnixStream,
}

impl Reply {
    /// Sends a line before the answer: `{"progress": …}`.
    ///
    /// # Errors
    /// If the client is gone or does not read.
    pub fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        self.send(&json!({ "progress": what }))
    }

    /// Sends the answer: `{"ok": …}` or `{"error": …}`.
    pub fn answer(&mut self, answer: &Answer) {
        let sent = match answer {
            Ok(value) => self.send(&json!({ "ok": value })),
            Err(e) => self.send(&json!({ "error": vmm::host::with_causes(&**e) })),
        };
        // A client that does not receive it is gone.
        let _ = sent;
    }

    fn send(&mut self, line: &Value) -> io::Result<()> {
        let mut line = line.to_string();
        line.push('\n');
        // The client may take its time, up to the timeout.
        watchdog::waits(|| self.stream.write_all(line.as_bytes()))
    }

    fn refuse(&mut self, why: &str) {
        // A client that does not receive it is gone.
        let _ = self.send(&json!({ "error": why }));
    }

    /// The descriptor; it hangs up when the client disconnects.
    #[must_use]
    pub(super) fn stream_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Serves requests until the client disconnects.
fn serve(vm: &Vm, reply: &mut Reply, answering: &Answering, session: &Session) -> io::Result<()> {
    let mut lines = BufReader::new(Incoming::new(reply.stream.try_clone()?));
    loop {
        let request = match Request::read(&mut lines) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(request::Error::Io(e)) => return Err(e),
            Err(e) => {
                reply.refuse(&e.to_string());
                return Ok(());
            }
        };
        let _serving = match session.begin(&request) {
            Ok(serving) => serving,
            Err(refusal) => match refusal.answer() {
                Some(answer) => {
                    // Descriptors that came with a refused request do not belong to the next one.
                    lines.get_mut().take_files();
                    reply.send(&answer)?;
                    continue;
                }
                None => return Ok(()),
            },
        };
        // A console serves only its own client, and no other waits for it.
        if request.verb() == "console" {
            return console(vm, reply, lines.buffer());
        }
        let _owes = watchdog::owe(Doing::verb(request.verb()));
        fail_point!("control.serving");
        match request.verb() {
            "migrate" => {
                let files = lines.get_mut().take_files();
                answering.during(|| moves::serve(vm, &request, files, reply));
            }
            verb => answering.during(|| match copies::verb(verb) {
                Some(serve) => {
                    let files = lines.get_mut().take_files();
                    let answer = serve(vm, &request, files, reply);
                    reply.answer(&answer);
                }
                None => {
                    let answer = answer(vm, &request, reply);
                    reply.answer(&answer);
                }
            }),
        }
    }
}

fn answer(vm: &Vm, request: &Request, reply: &mut Reply) -> Answer {
    // A client that is gone does not receive it.
    let mut say = |what: &str| drop(reply.tell(&json!({ "waiting_for": what })));
    let slow = &mut Slow::new(&mut say);
    match request.verb() {
        "stats" => {
            if let Some(window) = request.milliseconds("dirty_rate_ms")? {
                vm.sample_dirty_rate(window.clamp(WATCH_MIN, WATCH_MAX))?;
            }
            Ok(serde_json::to_value(vm.stats())?)
        }
        "metrics" => Ok(json!({ "text": metrics::text::of(Some(&vm.stats())) })),
        "pause" => {
            let stopped = vm.pause_for_operator(request.milliseconds("quiesce_ms")?, slow)?;
            let took_ns = stopped.took.as_nanos() as u64;
            Ok(json!({ "quiescent": stopped.quiescent, "took_ns": took_ns }))
        }
        "resume" if request.flag("runs_nowhere_else") => {
            vm.vouch(slow)?;
            Ok(json!({}))
        }
        "resume" => {
            vm.resume_for_operator(slow)?;
            Ok(json!({}))
        }
        "stop" => {
            vm.end_for_operator(StopReason::Stop, request.flag("force"))?;
            Ok(json!({}))
        }
        "cancel" => {
            vm.cancel(slow)?;
            Ok(json!({}))
        }
        other => Err(format!("{other:?} is no verb of this VM's control socket").into()),
    }
}

/// Turns the connection into the console: raw bytes both ways. `ahead` came with the request.
fn console(vm: &Vm, reply: &mut Reply, ahead: &[u8]) -> io::Result<()> {
    reply.send(&json!({ "ok": { "raw": true } }))?;
    let mut input = reply.stream.try_clone()?;
    let feeder = vm.clone();
    let gone = Arc::new(AtomicBool::new(false));
    let left = Arc::clone(&gone);
    let ahead = ahead.to_vec();
    let thread = std::thread::Builder::new().name(Thread::ConsoleIn.name().into());
    thread.stack_size(STACK).spawn(move || {
        if let Err(e) = confine::enter(Thread::ConsoleIn) {
            tracing::error!("input from a console is not accepted: {}", vmm::host::with_causes(&e));
            return;
        }
        let mut buffer = [0; 1024];
        feeder.console_input_unless(&ahead, &left);
        // The end of one client's input is not the end of the guest's.
        while let Ok(n @ 1..) = input.read(&mut buffer) {
            feeder.console_input_unless(&buffer[..n], &left);
        }
    })?;
    let sent = print_console(vm, reply);
    // Ends the input thread's read, and its wait for a guest that reads no input.
    let _ = reply.stream.shutdown(std::net::Shutdown::Both);
    gone.store(true, SeqCst);
    vm.console().look_again();
    sent
}

/// Sends the client what the guest prints, until the guest ends or the client is gone.
fn print_console(vm: &Vm, reply: &mut Reply) -> io::Result<()> {
    let mut from = 0;
    loop {
        let Some(piece) = vm.console().read(from, CONSOLE_LOOK) else { return Ok(()) };
        if piece.missed > 0 && from > 0 {
            write!(reply.stream, "\n[{} bytes missed]\n", piece.missed)?;
        }
        from = piece.next;
        if piece.bytes.is_empty() && hung_up(&reply.stream) {
            return Ok(());
        }
        reply.stream.write_all(&piece.bytes)?;
    }
}

/// Whether the client has closed both directions; one that only ended its input still listens.
fn hung_up(stream: &UnixStream) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the pointer is to one valid entry.
    unsafe {
        libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
    }
}

/// Serves the control socket and the signals that end a process, on the calling thread, until the
/// VM has ended. Call [`catch_signals`] before making the VM.
///
/// # Errors
/// The host's error.
pub fn serve_until_end(vm: &Vm, server: &Server, signals: &Signals) -> Result<Arc<End>, Error> {
    let failed = |source| Error::Socket { doing: "serve", name: server.name().into(), source };
    server.listener().set_nonblocking(true).map_err(failed)?;
    let _attends = watchdog::attend(Thread::Main.name());
    loop {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds =
            [entry(vm.end_fd()), entry(signals.fd()), entry(server.listener().as_raw_fd())];
        // SAFETY: the pointer is to three valid entries.
        if unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) } < 0 {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(failed(e)),
            }
        }
        let _owes = watchdog::owe(Doing::Accept);
        if fds[0].revents != 0 {
            watchdog::waits(|| server.answering.wait_for_none());
            return Ok(vm.wait_end());
        }
        if fds[1].revents != 0
            && let Some(reason) = signals.take()
        {
            server.end(vm, reason);
        }
        if fds[2].revents != 0 {
            fail_point!("control.accepting");
            server.accept(vm);
        }
    }
}
