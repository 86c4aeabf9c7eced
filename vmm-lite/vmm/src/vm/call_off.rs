//! Whether an operation is still wanted: asked in one way by everything that an operation consists
//! of.

use super::Vm;
use crate::host::poll::{Watch, wait_some};
use std::{
    io,
    os::fd::RawFd,
    time::{Duration, Instant},
};

/// What may call an operation off. Each descriptor is negative where there is no such thing.
#[derive(Clone, Copy, Debug)]
pub struct CallOff {
    /// Readable when a client cancels the operation.
    cancel: RawFd,
    /// Hangs up when the observer goes away.
    observer: RawFd,
    /// Readable when the VM has ended.
    ended: RawFd,
    /// When the operation was started, and how long after that it must be done.
    within: Option<(Instant, Duration)>,
}

/// Why an operation is called off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CalledOff {
    /// A client cancelled it.
    Cancelled,
    /// The observer has gone away.
    ObserverGone,
    /// The VM has ended.
    Ended,
    /// It took longer than this.
    Timeout(Duration),
}

impl CallOff {
    /// Nothing calls it off.
    pub const NEVER: Self = Self { cancel: -1, observer: -1, ended: -1, within: None };

    /// An operation of `vm`, of which `observer` is the [observer's](super::Observer::fd)
    /// descriptor.
    #[must_use]
    pub fn of(vm: &Vm, observer: RawFd) -> Self {
        Self { cancel: vm.cancel_fd(), observer, ended: vm.end_fd(), within: None }
    }

    /// What only the end of `vm` calls off.
    #[must_use]
    pub fn by_end_of(vm: &Vm) -> Self {
        Self { ended: vm.end_fd(), ..Self::NEVER }
    }

    /// The same, if it also has to be done in time: when it was started, and how long after that.
    #[must_use]
    pub fn within(self, within: Option<(Instant, Duration)>) -> Self {
        Self { within, ..self }
    }

    /// Whether it is called off now.
    ///
    /// # Errors
    /// What the host says.
    pub fn check(&self) -> io::Result<Option<CalledOff>> {
        Ok(self.wait(&[], Duration::ZERO)?.err())
    }

    /// Waits until one of `watched` is ready, at most `timeout`; says which are, or why there is no
    /// use in waiting.
    ///
    /// # Errors
    /// What the host says.
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
                // A signal.
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
    fn each_reason_is_named_and_comes_before_what_is_waited_for() {
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
