//! The directory with a host's identity and its trusted hosts: `key.pem`, `certificate.pem`,
//! `trusted`.
//!
//! It has mode 0700 and its files 0600, and anything else is refused: write access permits deciding
//! who may send VMs, and read access to the key permits impersonating this host. Files are replaced
//! as a whole, so that no process ever reads half of one.

use super::{Error, HostIdentity, TrustStore};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The variable with the directory, unless the command line names it.
pub const VARIABLE: &str = "VMM_LITE_IDENTITY";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const TRUSTED: &str = "trusted";
/// Longest file that is read; far more than the longest that is written.
const FILE_MAX: u64 = 2 << 20;

/// The directory of one host, or of one user.
#[derive(Clone, Debug)]
pub struct IdentityDir {
    path: PathBuf,
}

impl IdentityDir {
    /// `given`, else `$VMM_LITE_IDENTITY`, else `/etc/vmm-lite` for root and
    /// `$XDG_CONFIG_HOME/vmm-lite` (`~/.config/vmm-lite`) for others. It need not exist.
    #[must_use]
    pub fn find(given: Option<PathBuf>) -> Self {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let path = given.or_else(|| set(VARIABLE)).unwrap_or_else(|| {
            if nix::unistd::geteuid().is_root() {
                return "/etc/vmm-lite".into();
            }
            let config = set("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
            let home = || set("HOME").unwrap_or_else(|| "/".into()).join(".config");
            config.unwrap_or_else(home).join("vmm-lite")
        });
        Self { path }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an identity where none exists.
    ///
    /// # Errors
    /// [`Error::Exists`], and the host's errors.
    pub fn init(&self, days: u32) -> Result<HostIdentity, Error> {
        self.make()?;
        let _lock = self.lock()?;
        if self.path.join(KEY).exists() {
            return Err(Error::Exists(self.path.clone()));
        }
        let identity = HostIdentity::generate(days)?;
        let (key, certificate) = identity.pem();
        // The key last: its file means that there is an identity.
        self.write(CERTIFICATE, &certificate)?;
        self.write(KEY, &key)?;
        Ok(identity)
    }

    /// The identity.
    ///
    /// # Errors
    /// [`Error::None`], [`Error::Unsafe`], [`Error::File`].
    pub fn load(&self) -> Result<HostIdentity, Error> {
        let none = || Error::None(self.path.clone());
        self.check()?;
        let key = self.read(KEY)?.ok_or_else(none)?;
        let certificate = self.read(CERTIFICATE)?.ok_or_else(none)?;
        HostIdentity::from_pem(&key, &certificate)
            .map_err(|e| Error::File { path: self.path.join(KEY), what: e.to_string() })
    }

    /// Checks that there is an identity, and that its files are accessible only to this user,
    /// without reading the key.
    ///
    /// # Errors
    /// [`Error::None`], [`Error::Unsafe`].
    pub fn check_files(&self) -> Result<(), Error> {
        self.check()?;
        [KEY, CERTIFICATE].into_iter().try_for_each(|name| {
            let path = self.path.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() && private(&found) => Ok(()),
                Ok(_) => Err(Error::Unsafe { path, mode: 0o600 }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    Err(Error::None(self.path.clone()))
                }
                Err(e) => Err(Self::failed("read", &path)(e)),
            }
        })
    }

    /// Makes a new certificate for the key.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn renew(&self, days: u32) -> Result<HostIdentity, Error> {
        let identity = self.load()?;
        let _lock = self.lock()?;
        let identity = identity.renewed(days)?;
        self.write(CERTIFICATE, &identity.pem().1)?;
        Ok(identity)
    }

    /// The trusted hosts; empty if there is no file.
    ///
    /// # Errors
    /// [`Error::Unsafe`], [`Error::File`].
    pub fn trusted(&self) -> Result<TrustStore, Error> {
        self.check()?;
        let text = self.read(TRUSTED)?.unwrap_or_default();
        TrustStore::parse(&text).map_err(|what| Error::File { path: self.path.join(TRUSTED), what })
    }

    /// Changes the list of trusted hosts.
    ///
    /// # Errors
    /// The error of `change`, and as [`trusted`](Self::trusted).
    pub fn change_trusted<T>(
        &self,
        change: impl FnOnce(&mut TrustStore) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.make()?;
        let _lock = self.lock()?;
        let mut store = self.trusted()?;
        let value = change(&mut store)?;
        self.write(TRUSTED, &store.to_string())?;
        Ok(value)
    }

    fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    }

    fn make(&self) -> Result<(), Error> {
        if !self.path.exists() {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&self.path);
            made.map_err(Self::failed("make", &self.path))?;
        }
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() && private(&found) => Ok(()),
            Ok(_) => Err(Error::Unsafe { path: self.path.clone(), mode: 0o700 }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::None(self.path.clone())),
            Err(e) => Err(Self::failed("read", &self.path)(e)),
        }
    }

    /// A lock that serializes changes to the directory.
    fn lock(&self) -> Result<Flock<File>, Error> {
        let path = self.path.join(".lock");
        let file = files::open_lock(&path).map_err(Self::failed("open", &path))?;
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, e)| Self::failed("lock", &path)(e.into()))
    }

    fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path.join(name);
        let file = match files::open_here(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Self::failed("open", &path)(e)),
        };
        let found = file.metadata().map_err(Self::failed("read", &path))?;
        if !found.is_file() || !private(&found) {
            return Err(Error::Unsafe { path, mode: 0o600 });
        }
        let mut text = String::new();
        let read = file.take(FILE_MAX).read_to_string(&mut text);
        read.map_err(Self::failed("read", &path))?;
        Ok(Some(text))
    }

    /// Replaces a file as a whole.
    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            files::may_replace(&path)?;
            // Created with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(Self::failed("write", &path))
    }
}

/// Whether a file belongs to this user, and no other has access.
fn private(found: &fs::Metadata) -> bool {
    found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{PublicKey, Trusted};
    use std::os::unix::fs::PermissionsExt;

    fn dir() -> (tempfile::TempDir, IdentityDir) {
        let top = tempfile::tempdir().unwrap();
        let dir = IdentityDir::find(Some(top.path().join("deep/vmm-lite")));
        (top, dir)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_identity_is_made_once_and_renewed_with_the_same_key() {
        let (_top, dir) = dir();
        let said = dir.load().unwrap_err().to_string();
        assert!(said.contains("identity init") && said.contains("identity trust"), "{said}");
        let made = dir.init(10).unwrap();
        assert_eq!(dir.load().unwrap().public(), made.public());
        assert!(matches!(dir.init(10), Err(Error::Exists(_))));
        let renewed = dir.renew(100).unwrap();
        assert_eq!(renewed.public(), made.public());
        assert_eq!(dir.load().unwrap().certificate(), renewed.certificate());
        assert_ne!(renewed.certificate(), made.certificate());
        for file in [".", KEY, CERTIFICATE] {
            assert!(private(&fs::metadata(dir.path().join(file)).unwrap()), "{file}");
        }
    }

    #[test]
    fn files_that_others_can_access_are_refused() {
        let (_top, dir) = dir();
        dir.init(10).unwrap();
        dir.change_trusted(|_| Ok(())).unwrap();
        for (file, wrong, right) in
            [(".", 0o750, 0o700), (KEY, 0o640, 0o600), (CERTIFICATE, 0o606, 0o600)]
        {
            mode(&dir.path().join(file), wrong);
            assert!(matches!(dir.load(), Err(Error::Unsafe { .. })), "{file}");
            mode(&dir.path().join(file), right);
        }
        mode(&dir.path().join(TRUSTED), 0o660);
        assert!(matches!(dir.trusted(), Err(Error::Unsafe { .. })));
        // A link could point anywhere.
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(dir.path().join(KEY), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(KEY)).unwrap();
        dir.load().unwrap_err();
    }

    #[test]
    fn trust_is_kept_and_a_broken_file_trusts_no_host() {
        let (_top, dir) = dir();
        let host = |name: &str| Trusted {
            key: PublicKey([name.len() as u8; 32]),
            name: name.into(),
            send: true,
            receive: false,
            at: Vec::new(),
        };
        dir.change_trusted(|store| store.add(host("a"))).unwrap();
        dir.change_trusted(|store| store.add(host("bb"))).unwrap();
        dir.change_trusted(|store| store.remove("a")).unwrap();
        assert_eq!(dir.trusted().unwrap().hosts(), [host("bb")]);
        dir.change_trusted(|store| store.remove("a")).unwrap_err();
        fs::write(dir.path().join(TRUSTED), "everybody\n").unwrap();
        let said = dir.trusted().unwrap_err().to_string();
        assert!(said.contains("line 1"), "{said}");
    }
}
