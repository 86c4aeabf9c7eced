//! Whether an operation is still wanted. All parts of an operation check it through this.

use super::Vm;
use crate::host::poll::{Watch, wait_some};
use std::{
    io,
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// The events that may cancel an operation. A descriptor is negative where there is no such event.
#[derive(Clone, Copy, Debug)]
pub struct CallOff {
    /// Readable when a client cancels the operation.
    cancel: RawFd,
    /// Hangs up when the observer disconnects.
    observer: RawFd,
    /// Readable when the VM has ended.
    ended: RawFd,
    /// When the operation was started, and its timeout.
    within: Option<(Instant, Duration)>,
}

/// Why an operation is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CalledOff {
    /// A client cancelled it.
    Cancelled,
    /// The observer has disconnected.
    ObserverGone,
    /// The VM has ended.
    Ended,
    /// It exceeded this timeout.
    Timeout(Duration),
}

impl CallOff {
    /// Nothing cancels it.
    pub const NEVER: Self = Self { cancel: -1, observer: -1, ended: -1, within: None };

    /// For an operation of `vm` whose observer has this [descriptor](super::Observer::fd).
    #[must_use]
    pub fn of(vm: &Vm, observer: RawFd) -> Self {
        Self { cancel: vm.cancel_fd(), observer, ended: vm.end_fd(), within: None }
    }

    /// Only the end of `vm` cancels it.
    #[must_use]
    pub fn by_end_of(vm: &Vm) -> Self {
        Self { ended: vm.end_fd(), ..Self::NEVER }
    }

    /// The same, with a timeout that begins when the operation was started.
    #[must_use]
    pub fn within(self, within: Option<(Instant, Duration)>) -> Self {
        Self { within, ..self }
    }

    /// Whether it is cancelled now.
    ///
    /// # Errors
    /// The host's error.
    pub fn check(&self) -> io::Result<Option<CalledOff>> {
        Ok(self.wait(&[], Duration::ZERO)?.err())
    }

    /// Waits until one of `watched` is ready, at most `timeout`; returns which are, or why the
    /// operation is cancelled.
    ///
    /// # Errors
    /// The host's error.
    pub fn wait(
        &self,
        watched: &[Watch],
        timeout: Duration,
    ) -> io::Result<Result<Vec<bool>, CalledOff>> {
        let own = [
            Watch::Readable(self.cancel),
            Watch::HungUp(self.observer),
            Watch::Readable(self.ended),
        ];
        let all = [&own, watched].concat();
        let end = Instant::now() + timeout;
        loop {
            let now = Instant::now();
            let mut left = end.saturating_duration_since(now);
            if let Some((started, most)) = self.within {
                let in_all = (started + most).saturating_duration_since(now);
                if in_all.is_zero() {
                    return Ok(Err(CalledOff::Timeout(most)));
                }
                left = left.min(in_all);
            }
            match &wait_some(&all, left)?[..] {
                [true, ..] => return Ok(Err(CalledOff::Cancelled)),
                [_, true, ..] => return Ok(Err(CalledOff::ObserverGone)),
                [_, _, true, ..] => return Ok(Err(CalledOff::Ended)),
                [_, _, _, ready @ ..] if ready.contains(&true) || end <= Instant::now() => {
                    return Ok(Ok(ready.to_vec()));
                }
                // A signal ended the wait.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::AsRawFd, unix::net::UnixStream};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn each_reason_is_named_and_takes_precedence_over_readiness() {
        let (cancel, ended) =
            (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
        let (observer, there) = UnixStream::pair().unwrap();
        let ready = EventFd::new(EFD_NONBLOCK).unwrap();
        ready.write(1).unwrap();
        let call_off = CallOff {
            cancel: cancel.as_raw_fd(),
            observer: observer.as_raw_fd(),
            ended: ended.as_raw_fd(),
            within: None,
        };
        let watched = [Watch::Readable(ready.as_raw_fd()), Watch::Readable(-1)];
        let wait = || call_off.wait(&watched, SOON).unwrap();
        assert_eq!(call_off.check().unwrap(), None);
        assert_eq!(wait(), Ok(vec![true, false]));
        ended.write(1).unwrap();
        assert_eq!(wait(), Err(CalledOff::Ended));
        drop(there);
        assert_eq!(wait(), Err(CalledOff::ObserverGone));
        cancel.write(1).unwrap();
        assert_eq!(wait(), Err(CalledOff::Cancelled));
        assert_eq!(call_off.check().unwrap(), Some(CalledOff::Cancelled));
        let most = Duration::from_nanos(1);
        let forwarded = call_off.within(Some((Instant::now() - SOON, most)));
        assert_eq!(forwarded.check().unwrap(), Some(CalledOff::Timeout(most)));
    }
}
