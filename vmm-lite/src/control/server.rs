//! The VM's side of the control socket.

pub use super::signals::{Signals, catch_signals};
use super::{
    Error,
    admission::{Admission, Refusal, Session},
    console, copies, moves, protection, stats,
};
use crate::metrics;
use api::{
    Claim, ErrorKind, Failure, Line, Progress, Request, Response, TIMEOUT,
    answer::{Done, Metrics, Paused},
    descriptors::Incoming,
    request,
    verb::MoveMode,
};
use std::{
    io::{self, BufReader, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vmm::{
    host::confine::{self, Thread},
    host::watchdog::{self, Doing},
    replication::protection::Member,
    vm::{End, Slow, StopReason, Vm},
};

/// How long requests that are being answered may delay the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the standbys of a VM that has ended may delay that.
const FAREWELL: Duration = Duration::from_secs(3);
/// Shortest time to measure a guest's dirty rate.
const WATCH_MIN: Duration = Duration::from_millis(1);
const WATCH_MAX: Duration = Duration::from_secs(10);
/// Stack of a thread that serves a client.
pub(super) const STACK: usize = 512 << 10;

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
pub type Answer = Result<Response, Error>;

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
    pub fn accept(&self, member: &Member) {
        if let Err(e) = self.try_accept(member) {
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

    fn try_accept(&self, member: &Member) -> io::Result<()> {
        let (stream, _) = self.claim.listener().accept()?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let Some(session) = self.admission.admit(&stream)? else { return Ok(()) };
        let (member, answering) = (member.clone(), Arc::clone(&self.answering));
        let thread =
            std::thread::Builder::new().name(Thread::Control.name().into()).stack_size(STACK);
        thread.spawn(move || {
            let mut reply = Reply { stream };
            if let Err(e) = confine::enter(Thread::Control) {
                let (error, kind) = (vmm::host::with_causes(&e), ErrorKind::Failed);
                // A client that does not receive it is gone.
                let _ = reply.send(&Line::Error(Failure { error, kind, retry: false }));
                return;
            }
            let _attends = watchdog::attend(Thread::Control.name());
            if let Err(e) = serve(&member, &mut reply, &answering, &session) {
                tracing::debug!("a control connection ended: {e}");
            }
        })?;
        Ok(())
    }
}

/// The reply channel to a client.
#[derive(Debug)]
pub struct Reply {
    pub(super) stream: UnixStream,
}

impl Reply {
    /// Sends a line before the answer: `{"progress": …}`.
    ///
    /// # Errors
    /// If the client is gone or does not read.
    pub fn tell(&mut self, progress: Progress) -> io::Result<()> {
        self.send(&Line::Progress { progress })
    }

    /// Sends the answer: `{"ok": …}` or `{"error": …}`.
    pub fn answer(&mut self, answer: Answer) {
        // A client that does not receive it is gone.
        let _ = self.send(&match answer {
            Ok(ok) => Line::Ok { ok },
            Err(e) => Line::Error((&e).into()),
        });
    }

    pub(super) fn send(&mut self, line: &Line<Response>) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        // The client may take its time, up to the timeout.
        watchdog::waits(|| self.stream.write_all(&line))
    }

    /// Tells the client what `wait` waits for, if that takes too long.
    fn slowly<T>(&mut self, wait: impl FnOnce(&mut Slow<'_>) -> T) -> T {
        let mut say = |what: &str| {
            // A client that is gone does not receive it.
            let _ = self.tell(Progress::WaitingFor { waiting_for: what.into() });
        };
        wait(&mut Slow::new(&mut say))
    }

    /// The descriptor; it hangs up when the client disconnects.
    #[must_use]
    pub(super) fn stream_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Serves requests until the client disconnects.
fn serve(
    member: &Member,
    reply: &mut Reply,
    answering: &Answering,
    session: &Session,
) -> io::Result<()> {
    let mut lines = BufReader::new(Incoming::new(reply.stream.try_clone()?));
    loop {
        let request = match Request::read(&mut lines) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(request::Error::Io(e)) => return Err(e),
            Err(e) => {
                // Descriptors that came with a refused request do not belong to the next one.
                lines.get_mut().take_files();
                let closes = e.closes();
                reply.answer(Err(e.into()));
                if closes {
                    return Ok(());
                }
                continue;
            }
        };
        let _serving = match session.begin(&request) {
            Ok(serving) => serving,
            Err(Refusal::Evicted) => return Ok(()),
            Err(Refusal::TooManyLong(failure)) => {
                lines.get_mut().take_files();
                reply.send(&Line::Error(failure))?;
                continue;
            }
        };
        // A console serves only its own client, and no other waits for it.
        if let Request::Console(_) = request {
            return console::serve(member.vm(), reply, lines.buffer());
        }
        let _owes = watchdog::owe(doing(&request));
        fail_point!("control.serving");
        answering.during(|| {
            let answer = answer(member, request, lines.get_mut(), reply);
            if let Some(answer) = answer.transpose() {
                reply.answer(answer);
            }
        });
    }
}

/// What a thread that serves a request does.
fn doing(request: &Request) -> Doing {
    match request {
        Request::Stats(_) => Doing::Stats,
        Request::Metrics(_) => Doing::Metrics,
        Request::Pause(_) => Doing::Pause,
        Request::Resume(_) => Doing::Resume,
        Request::Stop(_) => Doing::Stop,
        Request::Cancel(_) => Doing::Cancel,
        Request::Console(_) => Doing::Request,
        Request::Migrate(_) => Doing::Migrate,
        Request::Snapshot(_) => Doing::Snapshot,
        Request::Fork(_) => Doing::Fork,
        Request::Revert(_) => Doing::Revert,
        Request::Protect(_) | Request::Unprotect(_) | Request::Failover(_) => Doing::Protect,
    }
}

/// Serves a request. `None`: it has been answered.
fn answer(
    member: &Member,
    request: Request,
    incoming: &mut Incoming,
    reply: &mut Reply,
) -> Result<Option<Response>, Error> {
    let vm = member.vm();
    if let Err(e) = protection::may(member, &request) {
        // Descriptors that came with it do not belong to the next one.
        incoming.take_files();
        return Err(e);
    }
    let milliseconds = |ms: Option<u64>| ms.map(Duration::from_millis);
    Ok(Some(match request {
        Request::Stats(verb) => {
            if let Some(window) = milliseconds(verb.dirty_rate_ms) {
                vm.sample_dirty_rate(window.clamp(WATCH_MIN, WATCH_MAX))?;
            }
            Response::Stats(Box::new(stats::of(member)))
        }
        Request::Metrics(_) => {
            let text = metrics::text::of(Some(member));
            Response::Metrics(Metrics { text })
        }
        Request::Pause(verb) => {
            let quiesce = milliseconds(verb.quiesce_ms);
            let stopped = reply.slowly(|slow| vm.pause_for_operator(quiesce, slow))?;
            let took_ns = api::nanoseconds(stopped.took);
            Response::Paused(Paused { quiescent: stopped.quiescent, took_ns })
        }
        Request::Resume(verb) if verb.runs_nowhere_else && member.vouch() => {
            Response::Done(Done {})
        }
        Request::Resume(verb) => {
            reply.slowly(|slow| match verb.runs_nowhere_else {
                true => vm.vouch(slow),
                false => vm.resume_for_operator(slow),
            })?;
            Response::Done(Done {})
        }
        Request::Stop(verb) => {
            vm.end_for_operator(StopReason::Stop, verb.force)?;
            Response::Done(Done {})
        }
        Request::Cancel(_) => {
            reply.slowly(|slow| vm.cancel(slow))?;
            Response::Done(Done {})
        }
        Request::Snapshot(verb) => copies::snapshot(vm, verb, incoming.take_files(), reply)?,
        Request::Fork(verb) => copies::fork(vm, verb, incoming.take_files(), reply)?,
        Request::Revert(verb) => copies::revert(vm, verb, incoming.take_files(), reply)?,
        Request::Protect(verb) => protection::protect(member, &verb, incoming.take_files(), reply)?,
        Request::Unprotect(verb) => protection::unprotect(member, verb)?,
        Request::Failover(verb) => protection::failover(member, &verb)?,
        Request::Migrate(verb) if verb.mode == MoveMode::Lockstep => {
            moves::lockstep::serve(member, &verb, incoming.take_files(), reply)?;
            return Ok(None);
        }
        Request::Migrate(verb) => {
            moves::serve(vm, &verb, incoming.take_files(), reply)?;
            return Ok(None);
        }
        // The caller has made the connection a console.
        Request::Console(_) => return Ok(None),
    }))
}

/// Serves the control socket and the signals that end a process, on the calling thread, until the
/// VM has ended. Call [`catch_signals`] before making the VM.
///
/// # Errors
/// The host's error.
pub fn serve_until_end(
    member: &Member,
    server: &Server,
    signals: &Signals,
) -> Result<Arc<End>, api::Error> {
    let vm = member.vm();
    let failed = |source| api::Error::Socket { doing: "serve", name: server.name().into(), source };
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
            watchdog::waits(|| {
                server.answering.wait_for_none();
                member.ended(FAREWELL);
            });
            return Ok(vm.wait_end());
        }
        if fds[1].revents != 0
            && let Some(reason) = signals.take()
        {
            server.end(vm, reason);
        }
        if fds[2].revents != 0 {
            fail_point!("control.accepting");
            server.accept(member);
        }
    }
}
