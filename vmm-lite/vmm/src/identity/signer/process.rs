//! Starts a signer, and runs it until it ends.

use super::{
    REQUEST_MAX, RemoteKey, Side,
    socket::{put, take, wait},
};
use crate::{
    host::{
        beside::{beside, leave_behind},
        confine::{self, Mode, Thread, privileges},
    },
    identity::{Error, HostCertificate, IdentityDir},
};
use rustls::{SignatureScheme, sign::SigningKey};
use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// The process's name, as the host shows it.
const NAME: &CStr = c"vmm-lite-signer";
/// Longest message about the start: a certificate, or an error.
const WORD_MAX: usize = 8 << 10;
/// First byte of that message.
const STARTED: u8 = 0;
const FAILED: u8 = 1;

/// A signer, as seen by the process that started it.
#[derive(Debug)]
pub struct Signing {
    /// The host that it signs for.
    pub certificate: HostCertificate,
    /// Its socket. The signer ends when no process has it any more.
    pub socket: OwnedFd,
    /// Ends it earlier.
    pub leash: Leash,
}

/// Ends a signer whose socket another process has. A leash that is dropped without a message ends
/// nothing: after the commit a move continues when `migrate` is interrupted.
#[derive(Debug)]
pub struct Leash(pub(super) OwnedFd);

impl Leash {
    /// No more signatures are needed.
    pub fn release(self) {
        // A signer that has ended already does not receive it.
        let _ = put(&self.0, &[0]);
    }
}

/// A signer that was started and reads its key.
#[derive(Debug)]
pub struct Starting {
    socket: OwnedFd,
    leash: Leash,
}

/// Starts a signer with the key in `dir`, detached from this process. The calling process does not
/// read the key. Call it while there is only one thread.
///
/// # Errors
/// [`Error::None`], [`Error::Unsafe`], [`Error::Start`].
pub fn start(dir: &IdentityDir, side: Side, mode: Mode) -> Result<Starting, Error> {
    dir.check_files()?;
    let begun = beside(|socket, leash| run(dir, side, mode, socket, leash));
    let (socket, leash) = begun.map_err(Error::Start)?;
    Ok(Starting { socket, leash: Leash(leash) })
}

impl Starting {
    /// Waits until the signer can sign.
    ///
    /// # Errors
    /// [`Error::Signer`], [`Error::Start`].
    pub fn finish(self) -> Result<Signing, Error> {
        let Self { socket, leash } = self;
        let mut word = vec![0; WORD_MAX];
        let n = take(&socket, &mut word).map_err(Error::Start)?;
        word.truncate(n);
        match word.split_first() {
            Some((&STARTED, certificate)) => {
                let certificate = HostCertificate::from_der(certificate.to_vec().into())?;
                Ok(Signing { certificate, socket, leash })
            }
            Some((_, why)) => Err(Error::Signer(String::from_utf8_lossy(why).into_owned())),
            None => Err(Error::Start(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Signing {
    /// The key, for a process that uses the signer itself.
    #[must_use]
    pub fn into_key(self, side: Side) -> RemoteKey {
        RemoteKey::new(self.socket, side)
    }
}

/// The signer's process, start to end.
fn run(dir: &IdentityDir, side: Side, mode: Mode, socket: &OwnedFd, leash: &OwnedFd) {
    let keep = [socket.as_raw_fd(), leash.as_raw_fd()];
    let left = leave_behind(NAME, mode, &keep);
    let ready = left.map_err(|e| crate::host::with_causes(&e)).and_then(|()| {
        let identity = dir.load().map_err(|e| crate::host::with_causes(&e))?;
        let key = identity.signing_key().map_err(|e| crate::host::with_causes(&e))?;
        confine(mode).map_err(|e| crate::host::with_causes(&e))?;
        Ok((identity.certificate().clone(), key))
    });
    let (word, key) = match ready {
        Ok((certificate, key)) => ([&[STARTED], &certificate.der()[..]].concat(), Some(key)),
        Err(why) => ([&[FAILED], why.as_bytes()].concat(), None),
    };
    // If the starter does not receive it, it has ended, and its end of the socket is closed.
    let told = put(socket, &word[..word.len().min(WORD_MAX)]);
    if let (Ok(()), Some(key)) = (told, key) {
        serve(&*key, side, socket, Some(leash));
    }
}

fn confine(mode: Mode) -> Result<(), confine::Error> {
    privileges::drop_to(None)?;
    confine::arm(mode)?;
    confine::enter(Thread::Signer)
}

/// Signs on request on `socket`, until that is closed, a request is invalid, or `leash` ends it.
pub fn serve(key: &dyn SigningKey, side: Side, socket: &OwnedFd, mut leash: Option<&OwnedFd>) {
    let Some(signer) = key.choose_scheme(&[SignatureScheme::ED25519]) else { return };
    loop {
        let Ok([asked, told]) = wait([Some(socket), leash], None) else { return };
        if told && let Some(held) = leash {
            match take(held, &mut [0; 1]) {
                // Its owner was killed or interrupted.
                Ok(0) => leash = None,
                _ => return,
            }
        }
        if !asked {
            continue;
        }
        let mut hash = [0; REQUEST_MAX + 1];
        let Ok(n) = take(socket, &mut hash) else { return };
        let Some(statement) = side.statement(&hash[..n]) else { return };
        let Ok(signature) = signer.sign(&statement) else { return };
        if put(socket, &[&hash[..n], &signature].concat()).is_err() {
            return;
        }
    }
}
