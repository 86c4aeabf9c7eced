//! Why a file operation did not succeed: Linux's reasons, by name.

use core::fmt;

macro_rules! errors {
    ($($name:ident = $errno:literal, $text:literal;)*) => {
        /// A reason, with Linux's number for it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(i32)]
        pub enum Error { $(#[doc = $text] $name = $errno,)* }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

errors! {
    NotFound = 2, "no such file or directory";
    BadDescriptor = 9, "not a descriptor that is open for this";
    WouldBlock = 11, "the operation would have to wait";
    Busy = 16, "the root directory cannot be removed";
    Exists = 17, "there is a file of that name already";
    NotDirectory = 20, "a part of the path is not a directory";
    IsDirectory = 21, "it is a directory";
    Invalid = 22, "not for a file of this kind, or not with these arguments";
    TooManyFiles = 24, "too many descriptors are open";
    NotTerminal = 25, "not for a file of this kind";
    TooLarge = 27, "the file would be larger than any can be";
    NoSpace = 28, "not enough memory for more files";
    NotSeekable = 29, "only files have positions";
    NameTooLong = 36, "a name in the path is longer than 255 bytes";
    NotEmpty = 39, "the directory is not empty";
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
            (Error::NotFound, errno::ENOENT),
            (Error::BadDescriptor, errno::EBADF),
            (Error::WouldBlock, errno::EAGAIN),
            (Error::Busy, errno::EBUSY),
            (Error::Exists, errno::EEXIST),
            (Error::NotDirectory, errno::ENOTDIR),
            (Error::IsDirectory, errno::EISDIR),
            (Error::Invalid, errno::EINVAL),
            (Error::TooManyFiles, errno::EMFILE),
            (Error::NotTerminal, errno::ENOTTY),
            (Error::TooLarge, errno::EFBIG),
            (Error::NoSpace, errno::ENOSPC),
            (Error::NotSeekable, errno::ESPIPE),
            (Error::NameTooLong, errno::ENAMETOOLONG),
            (Error::NotEmpty, errno::ENOTEMPTY),
        ] {
            assert_eq!(error.errno(), number, "{error}");
        }
    }
}
