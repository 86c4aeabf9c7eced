//! The members of an etcd cluster: one connection each, and requests that need an answer of any.

use super::failure::Failure;
use crate::error::Error;
use etcd_client::{Client, ConnectOptions};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

/// How long a member may take before the next one is asked as well.
const HEDGE: Duration = Duration::from_millis(50);
/// When a failed endpoint is asked again. An election takes about a second.
const RETRY: Duration = Duration::from_millis(100);
/// How long an attempt may take. A follower that has lost its leader drops proposals, and answers
/// only after 7 s.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The members.
#[derive(Debug)]
pub struct Cluster {
    endpoints: Vec<Arc<Endpoint>>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
}

struct Endpoint {
    url: String,
    options: ConnectOptions,
    /// The connection, once there was an attempt.
    client: Mutex<Option<Client>>,
}

impl Endpoint {
    /// One request.
    async fn attempt<T, F: Future<Output = Result<T, etcd_client::Error>>>(
        self: Arc<Self>,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Failure> {
        let client = match timeout(ATTEMPT, self.client()).await {
            Ok(client) => client?,
            Err(_) => return Err(Failure::NotSent("no connection within 1 s".into())),
        };
        match timeout(ATTEMPT, request(client)).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::Lost("no answer within 1 s".into())),
        }
    }

    /// The connection. Making one sends nothing, except where there is a user to log in.
    async fn client(&self) -> Result<Client, Failure> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let options = Some(self.options.clone());
        match Client::connect([&self.url], options).await.map_err(Failure::from) {
            Ok(client) => {
                self.set(Some(client.clone()));
                Ok(client)
            }
            // Logging in changes nothing.
            Err(Failure::Lost(why)) => Err(Failure::NotSent(why)),
            Err(failure) => Err(failure),
        }
    }

    fn set(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// What is known about an endpoint while a request is under way.
struct Tried {
    busy: bool,
    count: u32,
    again: Instant,
    failure: Option<Failure>,
}

impl Cluster {
    pub fn new(urls: Vec<String>, options: ConnectOptions) -> Self {
        let client = Mutex::default;
        let endpoint = |url| Arc::new(Endpoint { url, options: options.clone(), client: client() });
        let endpoints = urls.into_iter().map(endpoint).collect();
        Self { endpoints, preferred: AtomicUsize::new(0) }
    }

    /// Asks one member after the other, the next before the last has answered if that takes long,
    /// until one answers or the time is over. So `request` may be executed several times: it must
    /// have its effect once at most. `changes`: it has one.
    pub async fn ask<T, F>(
        &self,
        deadline: Instant,
        changes: bool,
        request: impl Fn(Client) -> F + Clone + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, etcd_client::Error>> + Send + 'static,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut launch = Instant::now();
        let mut tried: Vec<_> = (self.endpoints.iter())
            .map(|_| Tried { busy: false, count: 0, again: launch, failure: None })
            .collect();
        let mut running = JoinSet::new();
        let mut may_have_changed = false;
        while Instant::now() < deadline {
            // The endpoint with the fewest attempts that is free, or will be soonest.
            let next = (0..tried.len())
                .map(|n| (first + n) % tried.len())
                .filter(|n| !tried[*n].busy)
                .min_by_key(|n| (tried[*n].again.max(launch), tried[*n].count));
            let mut wake = deadline;
            if let Some(next) = next {
                wake = wake.min(tried[next].again.max(launch));
                if wake <= Instant::now() {
                    tried[next].busy = true;
                    tried[next].count += 1;
                    launch = Instant::now() + HEDGE;
                    let attempt = Arc::clone(&self.endpoints[next]).attempt(request.clone());
                    running.spawn(async move { (next, attempt.await) });
                    continue;
                }
            }
            let (endpoint, answer) = tokio::select! {
                biased;
                Some(Ok(ended)) = running.join_next(), if !running.is_empty() => ended,
                () = sleep_until(wake.into()) => continue,
            };
            let failure = match answer {
                Ok(answer) => {
                    self.preferred.store(endpoint, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::Lost(_)) {
                // A connection that leads nowhere is not used again.
                self.endpoints[endpoint].set(None);
                may_have_changed |= changes;
            }
            let now = Instant::now();
            launch = now;
            let tried_now = &mut tried[endpoint];
            (tried_now.busy, tried_now.again) = (false, now + RETRY);
            tried_now.failure = Some(failure);
            let refused = |t: &Tried| matches!(t.failure, Some(Failure::Refused(_)));
            if !may_have_changed && running.is_empty() && tried.iter().all(refused) {
                return Err(Error::Refused(self.describe(&tried)));
            }
        }
        let why = self.describe(&tried);
        if may_have_changed || changes && !running.is_empty() {
            return Err(Error::Unknown(why));
        }
        Err(Error::Unreachable(why))
    }

    /// What is known about each endpoint.
    fn describe(&self, tried: &[Tried]) -> String {
        let one = |(endpoint, tried): (&Arc<Endpoint>, &Tried)| {
            let said = tried.failure.as_ref().map_or("no answer", Failure::text);
            format!("{}: {said}", endpoint.url)
        };
        self.endpoints.iter().zip(tried).map(one).collect::<Vec<_>>().join("; ")
    }
}
