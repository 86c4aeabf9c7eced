//! Logs failed connections.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Unauthenticated peers that are logged per second; the rest are counted.
const SPOKEN_OF: u32 = 10;

/// Logs how connections ended, at a readable rate.
#[derive(Debug, Default)]
pub(super) struct Log {
    second: Option<Instant>,
    said: u32,
    unsaid: u32,
}

impl Log {
    pub fn say(&mut self, address: Option<IpAddr>, why: &str) {
        let now = Instant::now();
        if self.second.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            if self.unsaid > 0 {
                tracing::warn!("{} more connections came to nothing", self.unsaid);
            }
            *self = Self { second: Some(now), ..Self::default() };
        }
        if self.said == SPOKEN_OF {
            self.unsaid += 1;
            return;
        }
        self.said += 1;
        let from = address.map_or("somewhere".into(), |a| a.to_string());
        tracing::warn!("a connection from {from} came to nothing: {why}");
    }
}
