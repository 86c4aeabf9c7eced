//! The request `console` of the control socket.

use super::server::{Reply, STACK};
use api::{Line, Response, answer::ConsoleOpen};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use vmm::{
    host::confine::{self, Thread},
    vm::Vm,
};

/// How often a console reader checks whether its connection is still open.
const CONSOLE_LOOK: Duration = Duration::from_millis(500);

/// Turns the connection into the console: raw bytes both ways. `ahead` came with the request.
pub fn serve(vm: &Vm, reply: &mut Reply, ahead: &[u8]) -> io::Result<()> {
    reply.send(&Line::Ok { ok: Response::ConsoleOpen(ConsoleOpen { raw: true }) })?;
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
    let mut entries = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut entries, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        && entries[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}
