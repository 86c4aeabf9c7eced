//! A client's session.

use super::{Debugger, Error, Left, failed, travel::Why};
use gdbstub::{
    common::Signal,
    conn::ConnectionExt,
    stub::{
        DisconnectReason, GdbStub, SingleThreadStopReason,
        run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError},
    },
    target::ext::base::reverse_exec::ReplayLogPosition,
};
use std::{io, net::TcpStream, os::fd::AsRawFd};

/// Bytes of a client's packet, at most. gdb's longest are the registers.
const PACKET: usize = 4096;

/// Serves a client. `None`: it is gone, and another may come.
pub(super) fn serve(debugger: &mut Debugger, client: TcpStream) -> Result<Option<Left>, Error> {
    let mut packet = vec![0; PACKET];
    let stub = GdbStub::builder(client).with_packet_buffer(&mut packet).build();
    let stub = stub.map_err(|e| failed("start")(io::Error::other(e.to_string())))?;
    match stub.run_blocking::<Loop>(debugger) {
        Ok(DisconnectReason::Disconnect) => Ok(Some(Left::Detached)),
        Ok(DisconnectReason::Kill) => Ok(Some(Left::Killed)),
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => {
            Ok(Some(Left::Ended))
        }
        Err(e) if e.is_target_error() => match e.into_target_error() {
            Some(e) => Err(e),
            None => Ok(None),
        },
        Err(e) => {
            tracing::warn!("the debugger's client is gone: {e}");
            debugger.settle()?;
            Ok(None)
        }
    }
}

enum Loop {}

impl BlockingEventLoop for Loop {
    type Target = Debugger;
    type Connection = TcpStream;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        debugger: &mut Debugger,
        client: &mut TcpStream,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<Error, io::Error>> {
        loop {
            let ready = poll([client.as_raw_fd(), debugger.link.stopped_fd()]);
            let [says, stopped] = ready.map_err(WaitForStopReasonError::Connection)?;
            if says {
                let byte = client.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            if stopped {
                let why = debugger.stopped().map_err(WaitForStopReasonError::Target)?;
                if let Some(why) = why {
                    return Ok(Event::TargetStopped(reason(why)));
                }
            }
        }
    }

    fn on_interrupt(debugger: &mut Debugger) -> Result<Option<Self::StopReason>, Error> {
        // It stops soon, and that is reported then.
        debugger.link.interrupt();
        Ok(None)
    }
}

impl Debugger {
    /// Stops what a client that is gone has begun.
    fn settle(&mut self) -> Result<(), Error> {
        self.breakpoints.clear();
        while self.run.vm.hold().is_err() {
            self.link.interrupt();
            if self.run.stopped()?.is_none() || self.stopped()?.is_some() {
                break;
            }
        }
        Ok(())
    }
}

fn reason(why: Why) -> SingleThreadStopReason<u64> {
    let log = |pos| SingleThreadStopReason::ReplayLog { tid: None, pos };
    match why {
        Why::Breakpoint => SingleThreadStopReason::SwBreak(()),
        Why::Step => SingleThreadStopReason::DoneStep,
        Why::Interrupt => SingleThreadStopReason::Signal(Signal::SIGINT),
        Why::Begin => log(ReplayLogPosition::Begin),
        Why::End => log(ReplayLogPosition::End),
        Why::Exited(code) => SingleThreadStopReason::Exited(code),
        Why::Failed => SingleThreadStopReason::Terminated(Signal::SIGABRT),
    }
}

/// Waits until one of them is readable, or gone.
fn poll<const N: usize>(fds: [i32; N]) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: an array of that many entries.
        let n = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
        match n {
            0.. => return Ok(polled.map(|fd| fd.revents != 0)),
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
}
