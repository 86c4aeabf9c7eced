//! Descriptors that are sent with requests.
//!
//! A client that asks a VM to write a snapshot passes it the open file: the VM need not be able to
//! open any, and writes only with the client's privileges.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Limit for descriptors in a request.
pub const MOST: usize = 4;

/// Reads a stream, and keeps the descriptors that arrive with the bytes.
#[derive(Debug)]
pub struct Incoming {
    stream: UnixStream,
    came: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Reads this stream.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, came: VecDeque::new() }
    }

    /// The descriptors that arrived since the last call, as files.
    pub fn take_files(&mut self) -> Vec<File> {
        self.came.drain(..).map(File::from).collect()
    }
}

impl Read for Incoming {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut room = nix::cmsg_space!([RawFd; MOST]);
        let mut iov = [IoSliceMut::new(to)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut iov, Some(&mut room), flags)?;
        // The kernel has closed descriptors beyond the limit.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel has just made it for this process, and it has no other
                    // owner.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    if self.came.len() < MOST {
                        self.came.push_back(fd);
                    }
                }
            }
        }
        Ok(message.bytes)
    }
}

/// Sends the beginning of `bytes` with `descriptors`; returns how much of it.
///
/// # Errors
/// The socket's error.
pub(crate) fn send(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let fds: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let iov = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(stream.as_raw_fd(), &iov, rights, MsgFlags::MSG_NOSIGNAL, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_file_comes_with_the_bytes() {
        use std::os::fd::AsFd;
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        let files = [file.as_fd(); MOST];
        assert_eq!(send(&here, b"line\n", &files).unwrap(), 5);
        let mut incoming = Incoming::new(there);
        let mut line = [0; 16];
        assert_eq!(incoming.read(&mut line).unwrap(), 5);
        let mut came = incoming.take_files();
        assert_eq!((came.len(), incoming.take_files().len()), (MOST, 0));
        let mut content = String::new();
        came[0].read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }
}
