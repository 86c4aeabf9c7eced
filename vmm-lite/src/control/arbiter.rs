//! The process that asks the arbiter for a VM's process, which is confined.

use arbiter::{Arb, ArbiterClient, Ask, RequestId};
use migrate::replication::arbiter::{Answer, Request};
use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};
use vmm::{
    host::{
        beside::{beside, leave_behind},
        confine::Mode,
        with_causes,
    },
    replication::protection::Arbiter,
};

/// The process's name, as the host shows it.
const NAME: &CStr = c"vmm-arbiter";
/// How long a request may take. An etcd that has lost its leader needs about that long to elect
/// another; then it is asked again.
const WITHIN: Duration = Duration::from_secs(1);

/// Starts the process, detached from this one, and returns the socket for the VM's. It ends when
/// the other end is closed. Call it while there is only one thread.
///
/// # Errors
/// The host's error.
pub fn start(arb: &Arb) -> io::Result<OwnedFd> {
    let (socket, _) = beside(|socket, _| {
        // It needs the network, or the shared files, and has nothing of a guest's.
        if leave_behind(NAME, Mode::Kill, &[socket.as_raw_fd()]).is_err() {
            return;
        }
        if let Ok(socket) = socket.try_clone() {
            // Without it the VM's process sees the end, and says so.
            let _ = arbiter::serve(socket, arb);
        }
    })?;
    Ok(socket)
}

/// What that process may need beyond that: it has deadlines of its own.
const GRACE: Duration = Duration::from_millis(500);

/// The VM's end.
#[derive(Debug)]
pub struct Asking {
    client: ArbiterClient,
    /// The request, and when its answer counts as missing.
    waits_for: Option<(RequestId, Instant)>,
    failed: Option<String>,
}

impl Asking {
    /// By the process at the other end of `socket`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { client: ArbiterClient::new(socket), waits_for: None, failed: None }
    }
}

impl Arbiter for Asking {
    fn ask(&mut self, request: &Request) {
        let sent = Ask::of(request)
            .map_err(|e| with_causes(&e))
            .and_then(|ask| self.client.send(ask, WITHIN).map_err(|e| with_causes(&e)));
        match sent {
            Ok(id) => self.waits_for = Some((id, Instant::now() + WITHIN + GRACE)),
            Err(why) => self.failed = Some(why),
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        if let Some(why) = self.failed.take() {
            return Some(Answer::Unreachable(why));
        }
        while let Some((id, reply)) = self.client.answer() {
            if self.waits_for.take_if(|(waits_for, _)| *waits_for == id).is_some() {
                return Some(arbiter::answer(reply));
            }
        }
        self.waits_for.take_if(|(_, end)| *end <= Instant::now())?;
        Some(Answer::Unreachable("the process that asks it does not answer".into()))
    }

    fn fd(&self) -> RawFd {
        self.client.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrate::replication::arbiter::{MemberId, Record, SetId, Term, Version};
    use vmm::host::poll::wait_readable;

    fn answer(asking: &mut Asking) -> Answer {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(answer) = asking.answer() {
                return answer;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(wait_readable(asking.fd(), left).unwrap(), "no answer");
        }
    }

    #[test]
    fn a_machine_gets_its_answers() {
        let dir = tempfile::tempdir().unwrap();
        let arb = format!("file:{}", dir.path().display()).parse().unwrap();
        let (ours, theirs) = arbiter::pair().unwrap();
        let serving = std::thread::spawn(move || arbiter::serve(theirs, &arb));
        let mut asking = Asking::new(ours);
        let (set, active) = (SetId([1; 16]), MemberId([2; 16]));
        asking.ask(&Request::Read(set));
        assert_eq!(answer(&mut asking), Answer::Found(None));
        let new = Record { set, term: Term(1), active, in_sync: vec![] };
        let swap = Request::CompareAndSwap { expected: Version::NONE, new: new.clone() };
        asking.ask(&swap);
        let Answer::Swapped(version) = answer(&mut asking) else { panic!("not swapped") };
        asking.ask(&swap);
        let Answer::Conflict(Some(there)) = answer(&mut asking) else { panic!("no conflict") };
        assert_eq!((there.version, there.record), (version, new));
        drop(asking);
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn a_process_that_hangs_is_unreachable() {
        let (ours, _theirs) = arbiter::pair().unwrap();
        let mut asking = Asking::new(ours);
        let began = Instant::now();
        asking.ask(&Request::Read(SetId([1; 16])));
        assert_eq!(asking.answer(), None);
        let answer = loop {
            match asking.answer() {
                Some(answer) => break answer,
                // Nothing comes; the set's thread looks at least this often.
                None => drop(wait_readable(asking.fd(), Duration::from_millis(50)).unwrap()),
            }
        };
        assert!(matches!(answer, Answer::Unreachable(_)), "{answer:?}");
        assert!(began.elapsed() >= WITHIN);
    }

    #[test]
    fn a_process_that_has_ended_is_unreachable() {
        let (ours, theirs) = arbiter::pair().unwrap();
        drop(theirs);
        let mut asking = Asking::new(ours);
        asking.ask(&Request::Read(SetId([1; 16])));
        assert!(matches!(answer(&mut asking), Answer::Unreachable(_)));
    }
}
