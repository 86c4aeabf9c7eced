//! Why a socket operation did not succeed: Linux's reasons, by name.

use core::fmt;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $errno:literal, $text:literal;)*) => {
        /// A reason, with Linux's number for it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(i32)]
        pub enum Error { $($(#[$doc])* #[doc = $text] $name = $errno,)* }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

errors! {
    WouldBlock = 11, "the operation would have to wait";
    NoMemory = 12, "not enough memory for another connection";
    Invalid = 22, "not for a socket in this state, or not with these arguments";
    BrokenPipe = 32, "this end has been shut down for writing";
    DestinationRequired = 89, "the socket has no peer, and none was named";
    MessageSize = 90, "the datagram is too long to be sent";
    NoProtocolOption = 92, "no such socket option";
    NotSupported = 95, "not supported by this kind of socket";
    FamilyNotSupported = 97, "only IPv4 addresses are supported";
    AddressInUse = 98, "another socket has this address";
    AddressNotAvailable = 99, "the address is none of this guest's";
    NetworkUnreachable = 101, "there is no network device, or no route";
    ConnectionAborted = 103, "the connection was aborted";
    ConnectionReset = 104, "the peer reset the connection";
    IsConnected = 106, "the socket is connected already";
    NotConnected = 107, "the socket is not connected";
    TimedOut = 110, "the peer did not answer in time";
    ConnectionRefused = 111, "no socket listens there";
    HostUnreachable = 113, "the host does not answer on its network";
    Already = 114, "a connection attempt is under way already";
    InProgress = 115, "the connection attempt goes on";
}

impl Error {
    /// Linux's number, positive.
    #[must_use]
    pub const fn errno(self) -> i32 {
        self as i32
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use hermit_abi::errno;

    #[test]
    fn numbers_are_those_of_the_abi() {
        for (error, number) in [
            (Error::WouldBlock, errno::EAGAIN),
            (Error::NoMemory, errno::ENOMEM),
            (Error::Invalid, errno::EINVAL),
            (Error::BrokenPipe, errno::EPIPE),
            (Error::DestinationRequired, errno::EDESTADDRREQ),
            (Error::MessageSize, errno::EMSGSIZE),
            (Error::NoProtocolOption, errno::ENOPROTOOPT),
            (Error::NotSupported, errno::EOPNOTSUPP),
            (Error::FamilyNotSupported, errno::EAFNOSUPPORT),
            (Error::AddressInUse, errno::EADDRINUSE),
            (Error::AddressNotAvailable, errno::EADDRNOTAVAIL),
            (Error::NetworkUnreachable, errno::ENETUNREACH),
            (Error::ConnectionAborted, errno::ECONNABORTED),
            (Error::ConnectionReset, errno::ECONNRESET),
            (Error::IsConnected, errno::EISCONN),
            (Error::NotConnected, errno::ENOTCONN),
            (Error::TimedOut, errno::ETIMEDOUT),
            (Error::ConnectionRefused, errno::ECONNREFUSED),
            (Error::HostUnreachable, errno::EHOSTUNREACH),
            (Error::Already, errno::EALREADY),
            (Error::InProgress, errno::EINPROGRESS),
        ] {
            assert_eq!(error.errno(), number, "{error}");
        }
    }
}
