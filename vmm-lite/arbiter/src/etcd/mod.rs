//! The arbiter in an etcd cluster.
//!
//! A set's record is a key without a lease, changed by transactions that compare its revision of
//! modification. etcd answers a transaction when a majority of its members have it on disk, and a
//! read with what the last such transaction left (both are linearizable).
//!
//! - `keys`: the keys
//! - `cluster`: one connection for each member; fails over between them
//! - `failure`: whether a failed request may have had an effect

mod cluster;
mod failure;
mod keys;

use crate::{
    arb::Etcd,
    entry::{Entry, TEXT_MAX},
    error::Error,
    record::{MemberId, SetId, Version},
    swap::{Current, Outcome, Swap},
};
use cluster::Cluster;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity,
    KeyValue, PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use std::{
    fs::File,
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// How long a member that has died is still shown as present.
const PRESENCE_SECONDS: i64 = 10;
/// Pings on a connection with a request under way. etcd does not accept more than one in 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
const CONNECT: Duration = Duration::from_secs(1);
/// Largest file with a certificate, key or password.
const FILE_MAX: u64 = 1 << 20;

/// The arbiter of a cluster.
#[derive(Debug)]
pub struct EtcdStore {
    cluster: Cluster,
}

impl EtcdStore {
    pub fn new(etcd: &Etcd) -> Result<Self, Error> {
        // A member without a leader says so at once.
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_auto_token_refresh(true)
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING.0, PING.1)
            .with_keep_alive_while_idle(false);
        if let Some((user, password)) = &etcd.user {
            let password = text(password)?;
            options = options.with_user(user, password.lines().next().unwrap_or_default());
        }
        let mut scheme = "http";
        if let Some(tls) = &etcd.tls {
            scheme = "https";
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(text(&tls.ca)?));
            if let Some((certificate, key)) = &tls.client {
                with = with.identity(Identity::from_pem(text(certificate)?, text(key)?));
            }
            options = options.with_tls(with);
        }
        let url = |endpoint: &String| format!("{scheme}://{endpoint}");
        let urls = etcd.endpoints.iter().map(url).collect();
        Ok(Self { cluster: Cluster::new(urls, options) })
    }

    pub async fn read(&self, set: SetId, deadline: Instant) -> Result<Option<Current>, Error> {
        let get =
            move |mut client: Client| async move { client.get(keys::record(set), None).await };
        let found = self.cluster.ask(deadline, false, get).await?;
        found.kvs().first().map(|value| current(set, value)).transpose()
    }

    pub async fn swap(&self, swap: &Swap, deadline: Instant) -> Result<Outcome, Error> {
        let set = swap.set();
        let put = TxnOp::put(keys::record(set), Entry::of(swap)?.text(), None);
        let (done, found) = self.change(set, swap.expected, vec![put], deadline).await?;
        Ok(done.map_or_else(|| swap.outcome(found), Outcome::Won))
    }

    pub async fn forget(
        &self,
        set: SetId,
        expected: Version,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let all = DeleteOptions::new().with_prefix();
        let delete = vec![
            TxnOp::delete(keys::record(set), None),
            TxnOp::delete(keys::members(set), Some(all)),
        ];
        let (done, found) = self.change(set, expected, delete, deadline).await?;
        Ok(done.map_or(Outcome::Lost(found), |_| Outcome::Won(expected)))
    }

    /// Makes the changes if the record's version is `expected`. The version afterwards, or `None`
    /// and the record that is there.
    async fn change(
        &self,
        set: SetId,
        expected: Version,
        changes: Vec<TxnOp>,
        deadline: Instant,
    ) -> Result<(Option<Version>, Option<Current>), Error> {
        let key = keys::record(set);
        let Ok(revision) = i64::try_from(expected.0) else {
            return Err(Error::Refused(format!("etcd has no revision {}", expected.0)));
        };
        let same = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
        let get = vec![TxnOp::get(key, None)];
        let txn = Txn::new().when([same]).and_then(changes).or_else(get);
        let ask = move |mut client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        let answer: TxnResponse = self.cluster.ask(deadline, true, ask).await?;
        if answer.succeeded() {
            let revision = answer.header().map(|header| header.revision());
            let version = revision.and_then(|revision| u64::try_from(revision).ok());
            let unknown = || Error::Unknown("etcd's answer has no revision".into());
            return Ok((Some(Version(version.ok_or_else(unknown)?)), None));
        }
        let found = match answer.op_responses().first() {
            Some(TxnOpResponse::Get(found)) => {
                found.kvs().first().map(|value| current(set, value)).transpose()?
            }
            _ => return Err(Error::Damaged("etcd's answer has no record".into())),
        };
        Ok((None, found))
    }

    /// Shows other members that this one runs, until the returned task ends.
    pub async fn announce(
        store: Arc<Self>,
        set: SetId,
        member: MemberId,
        deadline: Instant,
    ) -> Result<JoinSet<()>, Error> {
        let mut lease = store.lease(set, member, deadline).await?;
        let mut keeper = JoinSet::new();
        keeper.spawn(async move {
            let third = Duration::from_secs(PRESENCE_SECONDS.unsigned_abs()) / 3;
            loop {
                sleep(third).await;
                let deadline = Instant::now() + third;
                match store.keep(lease, deadline).await {
                    Ok(true) => {}
                    Ok(false) => match store.lease(set, member, deadline).await {
                        Ok(new) => lease = new,
                        Err(e) => tracing::debug!("not shown as present at the arbiter: {e}"),
                    },
                    Err(e) => tracing::debug!("the lease at the arbiter is not renewed: {e}"),
                }
            }
        });
        Ok(keeper)
    }

    /// A new lease with the member's key.
    async fn lease(&self, set: SetId, member: MemberId, deadline: Instant) -> Result<i64, Error> {
        // Repeated, it leaves leases behind that end by themselves.
        let put = move |mut client: Client| async move {
            let lease = client.lease_grant(PRESENCE_SECONDS, None).await?.id();
            let bound = PutOptions::new().with_lease(lease);
            client.put(keys::member(set, member), "", Some(bound)).await.map(|_| lease)
        };
        self.cluster.ask(deadline, false, put).await
    }

    /// Prolongs a lease; `false` if it has ended.
    async fn keep(&self, lease: i64, deadline: Instant) -> Result<bool, Error> {
        let keep = move |mut client: Client| async move {
            let (_keeper, mut answers) = client.lease_keep_alive(lease).await?;
            Ok(answers.message().await?.is_some_and(|answer| answer.ttl() > 0))
        };
        self.cluster.ask(deadline, false, keep).await
    }

    /// Which of `members` are announced.
    pub async fn present(
        &self,
        set: SetId,
        members: &[MemberId],
        deadline: Instant,
    ) -> Result<Vec<MemberId>, Error> {
        let get = move |mut client: Client| async move {
            let keys = GetOptions::new().with_prefix().with_keys_only();
            client.get(keys::members(set), Some(keys)).await
        };
        let found = self.cluster.ask(deadline, false, get).await?;
        let is_there = |member: &MemberId| {
            let key = keys::member(set, *member);
            found.kvs().iter().any(|found| found.key() == key.as_bytes())
        };
        Ok(members.iter().copied().filter(is_there).collect())
    }
}

fn current(set: SetId, stored: &KeyValue) -> Result<Current, Error> {
    let version = u64::try_from(stored.mod_revision());
    let version = version.map_err(|_| Error::Damaged("etcd's revision is negative".into()))?;
    let text = &stored.value()[..stored.value().len().min(TEXT_MAX + 1)];
    let Entry { record, writer } = Entry::parse(set, text)?;
    Ok(Current { record, version: Version(version), writer })
}

/// A small text file.
fn text(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    read.map_err(|e| Error::Refused(format!("cannot read {}: {e}", path.display())))?;
    Ok(text)
}
