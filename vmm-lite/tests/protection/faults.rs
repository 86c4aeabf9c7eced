//! One fault of a protected VM, and what has to hold after it.

use crate::bed::Bed;
use Fault::{
    Arbiter, PairLink, PrimaryAndArbiter, PrimaryHost, PrimaryProcess, StandbyHost, StandbyProcess,
};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use vmm_lite_lab::{links, vmm::TIMEOUT};

/// What fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    PrimaryProcess,
    /// Its links and its process at once.
    PrimaryHost,
    /// The link between primary and standby; the arbiter and the clients are reached still.
    PairLink,
    StandbyProcess,
    StandbyHost,
    /// It is killed, or stopped with its connections open.
    Arbiter {
        silently: bool,
    },
    /// The arbiter, and then the primary's process.
    PrimaryAndArbiter {
        silently: bool,
    },
}

/// All of them.
pub const ALL: [Fault; 9] = [
    PrimaryProcess,
    PrimaryHost,
    PairLink,
    StandbyProcess,
    StandbyHost,
    Arbiter { silently: false },
    Arbiter { silently: true },
    PrimaryAndArbiter { silently: false },
    PrimaryAndArbiter { silently: true },
];

/// How long nobody may go on while primary and arbiter are gone: many times what a takeover takes.
const NOBODY: Duration = Duration::from_millis(300);

/// What was seen of a fault.
#[derive(Clone, Debug)]
pub struct Seen {
    /// For each client, from the last answer before to the first one after.
    pub gaps: Vec<Duration>,
    /// If the VM changed its host: from the last frame of the old one to the first of the new one.
    /// Clients whose requests were lost on the way to the dead host wait longer, for their timers.
    pub silence: Option<Duration>,
}

impl Bed {
    /// Lets `fault` happen after `moment`, checks everything, and repairs what failed. The VM is
    /// protected before, and is not afterwards.
    ///
    /// # Errors
    /// What does not hold.
    pub fn suffers(&mut self, fault: Fault, moment: Duration) -> Result<Seen, String> {
        self.oracle.hears()?;
        let before = self.heard()?;
        if before.order != [self.active] {
            return Err(format!("before the fault: {before:?}"));
        }
        // The moment is what is varied.
        std::thread::sleep(moment);
        let (at, primary) = (Instant::now(), self.active);
        let waited = self.inject(fault)?;
        self.oracle.hears().map_err(|e| format!("{e}\n{}", self.said()))?;
        // What a client waits for on purpose is no recovery.
        let gaps = self.oracle.gaps(at).into_iter().map(|gap| gap.saturating_sub(waited));
        let gaps = gaps.collect();
        self.settle(fault)?;
        self.oracle.check()?;
        let heard = self.heard()?;
        let order: &[usize] =
            if self.active == primary { &[primary] } else { &[primary, self.active] };
        // The old one may have said nothing more.
        if heard.order != order && heard.order != order[1..] {
            return Err(format!("{heard:?}, but the VM went from {primary} to {}", self.active));
        }
        let silence = heard.silence.map(|silence| silence.saturating_sub(waited));
        Ok(Seen { gaps, silence })
    }

    /// Returns how long the clients had to wait for the arbiter's return.
    fn inject(&mut self, fault: Fault) -> Result<Duration, String> {
        let (primary, standby) = (self.active, self.other());
        match fault {
            PrimaryProcess => self.signal(primary, Signal::SIGKILL),
            PrimaryHost => self.host_dies(primary),
            PairLink => links::set(&self.site, links::of_pair(), false).unwrap(),
            StandbyProcess => self.signal(standby, Signal::SIGKILL),
            StandbyHost => self.host_dies(standby),
            Arbiter { silently } => self.arbiter.dies(silently),
            PrimaryAndArbiter { silently } => {
                self.arbiter.dies(silently);
                self.signal(primary, Signal::SIGKILL);
                return self.nobody_goes_on(standby);
            }
        }
        Ok(Duration::ZERO)
    }

    /// Without primary and arbiter nobody speaks. Then the arbiter returns.
    fn nobody_goes_on(&mut self, standby: usize) -> Result<Duration, String> {
        self.vms[1 - standby].as_mut().unwrap().wait(TIMEOUT).map_err(|e| e.to_string())?;
        let dead = Instant::now();
        std::thread::sleep(NOBODY);
        let late = self.oracle.answers_since(dead + NOBODY / 10);
        let heard = self.heard()?;
        if late != 0 || heard.frames[standby] != 0 {
            return Err(format!("it went on without arbiter: {late} answers, {heard:?}"));
        }
        self.arbiter.returns();
        Ok(dead.elapsed())
    }

    /// Finds out who runs the VM, checks that the other one does not, and repairs what failed.
    fn settle(&mut self, fault: Fault) -> Result<(), String> {
        let (primary, standby) = (self.active, self.other());
        match fault {
            PrimaryProcess | PrimaryHost | PrimaryAndArbiter { .. } => self.active = standby,
            // Either may win, and the other one steps down.
            PairLink => {
                self.active = self.only_runner()?;
                self.steps_down(self.other())?;
            }
            StandbyProcess | StandbyHost => {}
            Arbiter { .. } => {
                if !self.lives(standby) {
                    return Err(format!("the standby ended\n{}", self.said()));
                }
                self.arbiter.returns();
                // Its record is as it was: the pair is still one.
                self.until("in sync after the arbiter's return", |r| {
                    r["standbys"][0]["in_sync"] == true
                })?;
            }
        }
        let loser = 1 - self.active;
        self.vms[loser] = None;
        match fault {
            PrimaryHost | StandbyHost => {
                let died = if fault == PrimaryHost { primary } else { standby };
                links::set(&self.site, links::of_host(died), true).unwrap();
            }
            PairLink => links::set(&self.site, links::of_pair(), true).unwrap(),
            _ => {}
        }
        self.unprotected()
    }
}
