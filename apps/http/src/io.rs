//! A mio stream as hyper reads and writes it.
//!
//! Where a stream would block, the future is pending and no waker is kept: the server polls a connection again whenever
//! its stream has become ready.

use hyper::rt::{Read, ReadBufCursor, Write};
use mio::net::TcpStream;
use std::io::{ErrorKind, IoSlice, Read as _, Result, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Most that is read at once.
const CHUNK: usize = 4096;

/// A stream that is registered with the server's poll.
pub struct Io(pub TcpStream);

/// Tries until it is done or would block.
fn attempt<T>(mut operation: impl FnMut() -> Result<T>) -> Poll<Result<T>> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let mut chunk = [0; CHUNK];
        let room = into.remaining().min(CHUNK);
        attempt(|| self.0.read(&mut chunk[..room])).map_ok(|n| into.put_slice(&chunk[..n]))
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        attempt(|| self.0.write(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        attempt(|| self.0.write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        // A client that has reset the connection has ended it already.
        Poll::Ready(match self.0.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}
