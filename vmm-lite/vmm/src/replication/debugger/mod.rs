//! Debugs a recorded run with gdb: forwards, and backwards by replaying it again up to an earlier
//! moment. `docs/debugging.md` has what a user gets, and what it costs.
//!
//! - `run`: the VM that is replayed just now, and those that it can be replayed from
//! - `travel`: where it goes, forwards and backwards
//! - `session`: a client, and what it waits for
//! - `target`, `registers`, `monitor`: what the client reads, and asks for
//!
//! The debugger's thread holds the VM while it is stopped, and only reads. What makes the guest
//! stop is in `vcpu::inputs`.

mod monitor;
mod registers;
mod run;
mod session;
mod target;
mod travel;

use super::journal::{self, Opened};
use crate::{
    kvm::Host,
    vm::{DebugLink, Moment, Vm},
};
use run::{Checkpoint, Run};
use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};
use travel::Task;

/// Why a run cannot be debugged any further.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The journal's error.
    #[error(transparent)]
    Journal(Box<journal::Error>),
    /// The VM's error.
    #[error(transparent)]
    Vm(#[from] crate::vm::Error),
    /// Its memory cannot be copied.
    #[error(transparent)]
    Copy(#[from] crate::capture::Error),
    /// It took another way when it was replayed again.
    #[error(
        "the replay did not come by the same moment again, before record {0}: a part that is read \
         as data has a breakpoint, or this is a bug in vmm-lite"
    )]
    Missed(u64),
    /// The host's error.
    #[error("the debugger cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// The host's error.
        source: io::Error,
    },
}

impl From<journal::Error> for Error {
    fn from(error: journal::Error) -> Self {
        Self::Journal(Box::new(error))
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}

/// A recorded run that is debugged.
#[derive(Debug)]
pub struct Debugger {
    opened: Opened,
    host: Host,
    link: Arc<DebugLink>,
    run: Run,
    /// In the order of their moments. The first is where the run begins.
    checkpoints: Vec<Checkpoint>,
    breakpoints: Vec<u64>,
    task: Task,
    /// It is where it was to go, and did not run.
    is_there: bool,
    /// The record at which it is to stop, in either direction.
    until: Option<u64>,
    output: Option<OwnedFd>,
    /// How much of the guest's output is printed.
    printed: u64,
}

impl Debugger {
    /// Debugs a run from its beginning. What the guest prints goes to `output`, once.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(opened: Opened, host: Host, output: Option<OwnedFd>) -> Result<Self, Error> {
        let link = DebugLink::new().map_err(failed("make an event descriptor"))?;
        let base = Checkpoint::base(&opened);
        let run = Run::from(&base, &opened, &host, &link)?;
        let mut debugger = Self {
            opened,
            host,
            link,
            run,
            checkpoints: vec![base],
            breakpoints: Vec::new(),
            task: Task::Forward,
            is_there: false,
            until: None,
            output,
            printed: 0,
        };
        debugger.catch_up()?;
        Ok(debugger)
    }

    /// Serves one gdb after another, until one ends the run or detaches from it, or the run has
    /// ended. The VM is where that one left it; one that was detached from goes on to the end of
    /// its log when it is resumed.
    ///
    /// # Errors
    /// [`Error`]; the loss of a client is none.
    pub fn serve(mut self, listener: &TcpListener) -> Result<(Vm, Left), Error> {
        loop {
            let (client, from) = listener.accept().map_err(failed("accept a connection"))?;
            tracing::info!("{from} debugs");
            if let Some(left) = session::serve(&mut self, client)? {
                self.catch_up()?;
                let vm = self.run.vm;
                if let (Left::Detached, Ok(mut held)) = (left, vm.hold()) {
                    held.end_debugging();
                }
                return Ok((vm, left));
            }
        }
    }

    /// The beginning of the run.
    fn begin(&self) -> &Moment {
        &self.checkpoints[0].moment
    }

    /// Prints what the guest has printed since, and lets it print from now on.
    fn catch_up(&mut self) -> Result<(), Error> {
        let console = self.run.vm.console();
        let total = self.run.printed_before + console.printed();
        let Some(output) = &self.output else { return Ok(()) };
        if total < self.printed {
            return Ok(());
        }
        if !self.run.prints {
            let from = self.printed - self.run.printed_before;
            let piece = console.read(from, std::time::Duration::ZERO);
            let clone = || output.try_clone().map_err(failed("print the guest's output"));
            if let Some(piece) = piece {
                let mut to = std::fs::File::from(clone()?);
                io::Write::write_all(&mut to, &piece.bytes)
                    .map_err(failed("print the guest's output"))?;
            }
            console.print_to(clone()?);
            self.run.prints = true;
        }
        self.printed = total;
        Ok(())
    }
}

/// How the last client left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// The run has ended.
    Ended,
    /// It is to go on to its end without a debugger.
    Detached,
    /// It is not to go on.
    Killed,
}
