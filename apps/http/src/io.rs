//! A mio stream with hyper's interface for reading and writing.
//!
//! Where a stream would block, the future is pending and no waker is kept: the server polls a
//! connection again whenever its stream becomes ready for what it waits for.

use hyper::rt::{Read, ReadBufCursor, Write};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, Read as _, Result, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Most bytes read at once.
const CHUNK: usize = 4096;

/// A stream that the server watches and hyper uses.
pub struct Stream {
    socket: RefCell<TcpStream>,
    write_blocked: Cell<bool>,
    watched: Cell<Interest>,
}

impl Stream {
    /// Registers `socket` at `registry` with `token`.
    pub fn watch(mut socket: TcpStream, registry: &Registry, token: Token) -> Result<Self> {
        let watched = Interest::READABLE;
        registry.register(&mut socket, token, watched)?;
        Ok(Self {
            socket: RefCell::new(socket),
            write_blocked: Cell::new(false),
            watched: Cell::new(watched),
        })
    }

    /// Requests writability events only while hyper waits to write: a socket is nearly always
    /// writable, and a mio that is built on `poll` would report that after every read.
    pub fn adjust(&self, registry: &Registry, token: Token) -> Result<()> {
        let mut wanted = Interest::READABLE;
        if self.write_blocked.get() {
            wanted |= Interest::WRITABLE;
        }
        if self.watched.replace(wanted) != wanted {
            registry.reregister(&mut *self.socket.borrow_mut(), token, wanted)?;
        }
        Ok(())
    }

    fn write(&self, write: impl FnMut(&mut TcpStream) -> Result<usize>) -> Poll<Result<usize>> {
        let written = self.attempt(write);
        self.write_blocked.set(written.is_pending());
        written
    }

    /// Tries an operation until it is done or would block.
    fn attempt(
        &self,
        mut operation: impl FnMut(&mut TcpStream) -> Result<usize>,
    ) -> Poll<Result<usize>> {
        loop {
            match operation(&mut self.socket.borrow_mut()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// A stream for hyper.
pub struct Io(pub Rc<Stream>);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let mut chunk = [0; CHUNK];
        let room = into.remaining().min(CHUNK);
        self.0
            .attempt(|socket| socket.read(&mut chunk[..room]))
            .map_ok(|n| into.put_slice(&chunk[..n]))
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.0.write(|socket| socket.write(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.write(|socket| socket.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        // The connection has already ended if the client has reset it.
        Poll::Ready(match self.0.socket.borrow().shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}
