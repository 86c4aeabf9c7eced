//! What is recorded about a VM for its statistics.

use super::History;
use crate::devices::throttle::Rates;
use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::SystemTime,
};

/// The record. Each lock is held alone or innermost.
#[derive(Debug, Default)]
pub(super) struct Record {
    history: Mutex<History>,
    /// The rates of its network and its console.
    rates: Mutex<Rates>,
    /// Pages per second that the guest wrote in the last measurement, and the time of that.
    dirty_rate: Mutex<Option<(u64, SystemTime)>>,
    /// It was once resumed by operator override.
    pub was_vouched_for: AtomicBool,
}

impl Record {
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub fn rates(&self) -> MutexGuard<'_, Rates> {
        lock(&self.rates)
    }

    pub fn dirty_rate(&self) -> MutexGuard<'_, Option<(u64, SystemTime)>> {
        lock(&self.dirty_rate)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
