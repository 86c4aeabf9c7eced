//! One interface to both kinds of arbiter, for the process that talks to them.

use crate::{
    arb::Arb,
    error::Error,
    etcd::EtcdStore,
    file::{FileStore, Presence as FilePresence, intent::Intent},
    record::{MemberId, SetId, Version},
    swap::{Current, Outcome, Swap},
};
use std::{sync::Arc, time::Instant};

/// An arbiter. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    Etcd(Arc<EtcdStore>),
    File(FileStore),
}

/// Shows other members that this one runs, until it is dropped or its process ends.
#[derive(Debug)]
pub enum Presence {
    Etcd { _keeper: tokio::task::JoinSet<()> },
    File { _lock: FilePresence },
}

impl Store {
    /// An arbiter. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Refused`]: files with certificates or a password cannot be read.
    pub fn open(arb: &Arb) -> Result<Self, Error> {
        Ok(match arb {
            Arb::Etcd(etcd) => Self::Etcd(Arc::new(EtcdStore::new(etcd)?)),
            Arb::File(dir) => Self::File(FileStore::new(dir)),
        })
    }

    pub async fn read(&self, set: SetId, deadline: Instant) -> Result<Option<Current>, Error> {
        match self {
            Self::Etcd(etcd) => etcd.read(set, deadline).await,
            Self::File(file) => {
                let file = file.clone();
                in_thread(deadline, move |intent| file.read(set, intent)).await
            }
        }
    }

    pub async fn swap(&self, swap: Swap, deadline: Instant) -> Result<Outcome, Error> {
        match self {
            Self::Etcd(etcd) => etcd.swap(&swap, deadline).await,
            Self::File(file) => {
                let file = file.clone();
                in_thread(deadline, move |intent| file.swap(&swap, intent)).await
            }
        }
    }

    pub async fn forget(
        &self,
        set: SetId,
        expected: Version,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        match self {
            Self::Etcd(etcd) => etcd.forget(set, expected, deadline).await,
            Self::File(file) => {
                let file = file.clone();
                in_thread(deadline, move |intent| file.forget(set, expected, intent)).await
            }
        }
    }

    pub async fn announce(
        &self,
        set: SetId,
        member: MemberId,
        deadline: Instant,
    ) -> Result<Presence, Error> {
        match self {
            Self::Etcd(etcd) => {
                let keeper = EtcdStore::announce(Arc::clone(etcd), set, member, deadline).await?;
                Ok(Presence::Etcd { _keeper: keeper })
            }
            Self::File(file) => {
                let file = file.clone();
                let lock = in_thread(deadline, move |_| file.announce(set, member)).await?;
                Ok(Presence::File { _lock: lock })
            }
        }
    }

    pub async fn present(
        &self,
        set: SetId,
        members: Vec<MemberId>,
        deadline: Instant,
    ) -> Result<Vec<MemberId>, Error> {
        match self {
            Self::Etcd(etcd) => etcd.present(set, &members, deadline).await,
            Self::File(file) => {
                let file = file.clone();
                in_thread(deadline, move |_| file.present(set, &members)).await
            }
        }
    }
}

/// Runs `work`, which may hang in the storage, in another thread, and waits at most to `deadline`.
async fn in_thread<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce(&Intent) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let intent = Intent::new(deadline);
    let theirs = intent.clone();
    let work = tokio::task::spawn_blocking(move || {
        // All threads may have hung until now.
        if theirs.is_over() {
            return Err(Error::Unreachable("the storage hangs".into()));
        }
        work(&theirs)
    });
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(Error::Unknown(format!("the thread for the storage failed: {e}"))),
        Err(_) if intent.abandon() => Err(Error::Unreachable(
            "the storage, or another member with the lock, did not answer in time".into(),
        )),
        Err(_) => Err(Error::Unknown("the storage did not confirm the change in time".into())),
    }
}
