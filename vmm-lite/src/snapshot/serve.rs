//! The requests `snapshot`, `fork` and `revert` of the control socket.

use super::{
    Error, GuestClock,
    copy::{self, Copied, Way},
    guest::{Guest, Who},
    load, revert,
    sink::{FileSink, TemplateSink, draw_id},
};
use crate::{
    control::{Reply, Request},
    memory::Complete,
    migration::{poll::wait_readable, progress},
    vm::{InProgress, Incomplete, Operation, Vm, VmPhase, Waiter},
};
use migrate::snapshot::Notes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

/// How one of them is served: the VM, what was asked, the files that came with it, and the way back.
pub type Serve = fn(&Vm, &Request, Vec<File>, &mut Reply) -> Result<Value, Error>;

/// How `verb` is served, if it is one of these.
#[must_use]
pub fn verb(verb: &str) -> Option<Serve> {
    Some(match verb {
        "snapshot" => snapshot,
        "fork" => fork,
        "revert" => put_back,
        _ => return None,
    })
}

/// Tells how far a copy is; it is to end when nobody wants to know, or somebody calls it off.
fn progress<'a>(vm: &Vm, reply: &'a mut Reply) -> impl FnMut(usize) -> bool + use<'a> {
    let (of, cancel) = (vm.ram().pages(), vm.cancel_fd());
    move |done| {
        let cancelled = wait_readable(cancel, Duration::ZERO).unwrap_or(false);
        !cancelled && !reply.closed() && reply.progress(&json!({ "pages": done, "of": of })).is_ok()
    }
}

fn note_cancelled<T>(operation: &InProgress, done: Result<T, Error>) -> Result<T, Error> {
    if let Err(Error::Cancelled | Error::Incomplete(Incomplete::Cancelled(_))) = done {
        operation.cancelled();
    }
    done
}

/// Waits for memory that is not here yet; see [`Vm::wait_complete`].
fn complete<'vm>(
    vm: &'vm Vm,
    request: &Request,
    begun: Instant,
    reply: &mut Reply,
) -> Result<Complete<'vm>, Error> {
    let timeout = request.members().get("timeout_ns").filter(|value| !value.is_null());
    let nanoseconds = |value: &Value| value.as_u64().map(Duration::from_nanos);
    let wrong = || Error::Options("timeout_ns is not a number".into());
    let timeout = timeout.map(|value| nanoseconds(value).ok_or_else(wrong)).transpose()?;
    let waiter = Waiter { asker: reply.fd(), within: timeout.map(|timeout| (begun, timeout)) };
    let mut tell = |waiting: &_| reply.progress(&progress::waiting(waiting, begun)).is_ok();
    vm.wait_complete(waiter, &mut tell).map_err(|e| match e {
        Incomplete::Ended(end) => crate::vm::Error::Ended(end).into(),
        e => e.into(),
    })
}

fn files<const N: usize>(files: Vec<File>) -> Result<[File; N], Error> {
    let wrong = |files: Vec<File>| {
        Error::Options(format!("{} files came with the request, {N} were expected", files.len()))
    };
    files.try_into().map_err(wrong)
}

fn snapshot(
    vm: &Vm,
    request: &Request,
    mut came: Vec<File>,
    reply: &mut Reply,
) -> Result<Value, Error> {
    let begun = Instant::now();
    let stay = request.members().get("stay_paused").and_then(Value::as_bool).unwrap_or(false);
    let way = request.members().get("mode").cloned().unwrap_or_else(|| "auto".into());
    let way: Way = serde_json::from_value(way).map_err(|_| Error::Mode)?;
    let base = if came.len() == 2 { came.pop().map(load::open).transpose()? } else { None };
    let difference = base.is_some();
    let [file] = files(came)?;
    let who = Who::of(vm);
    let copying = vm.begin(Operation::Snapshot)?;
    let complete = note_cancelled(&copying, complete(vm, request, begun, reply))?;
    let ran = matches!(vm.phase(), VmPhase::Running);
    let mut sink = FileSink::new(file, vm.ram().pages(), base)?;
    let copied = copy::copy(vm, complete, stay, way, &mut sink, &mut progress(vm, reply));
    let copied = note_cancelled(&copying, copied)?;
    let guest = Guest { who, state: copied.state.clone() };
    let clock = guest.state.clock;
    let notes = Notes {
        taken_ns: clock.mono_ns.saturating_add(clock.wall_offset_ns),
        pages_dont_care: copied.left_out as u64,
        quiescent: copied.quiescent,
        ..Notes::default()
    };
    let finished = sink.finish(draw_id()?, &guest, &copied.dont_care, notes);
    let (header, counts) = match finished {
        Ok(finished) => finished,
        Err(e) => {
            copy::undo_stay(vm, stay)?;
            return Err(e);
        }
    };
    let mut report = report(&copied, begun.elapsed());
    report["ran"] = ran.into();
    report["id"] = hex(&header.id).into();
    report["difference"] = difference.into();
    report["bytes"] = header.file_size.into();
    report["pages_saved"] = counts.saved.into();
    report["pages_zero"] = counts.zero.into();
    report["pages_same"] = counts.same.into();
    report["paused"] = matches!(vm.phase(), VmPhase::Paused).into();
    Ok(report)
}

/// Copies the VM into a template: the first file gets its memory, the second who it is and its state.
fn fork(vm: &Vm, request: &Request, came: Vec<File>, reply: &mut Reply) -> Result<Value, Error> {
    let begun = Instant::now();
    let [memory, mut seed] = files(came)?;
    let who = Who::of(vm);
    let copying = vm.begin(Operation::Fork)?;
    let complete = note_cancelled(&copying, complete(vm, request, begun, reply))?;
    let mut sink = TemplateSink::new(memory, vm.ram().pages())?;
    let copied = copy::copy(vm, complete, false, Way::Auto, &mut sink, &mut progress(vm, reply));
    let copied = note_cancelled(&copying, copied)?;
    if !copied.quiescent && who.identity.net.is_some() {
        // It may be in the middle of a packet, and its clones would send that as the one that they are copies of.
        return Err(Error::NotReady);
    }
    let guest = Guest { who, state: copied.state.clone() };
    seed.write_all(&guest.to_bytes()).map_err(Error::Write)?;
    let mut report = report(&copied, begun.elapsed());
    report["pages_saved"] = sink.saved.into();
    Ok(report)
}

fn put_back(
    vm: &Vm,
    request: &Request,
    came: Vec<File>,
    reply: &mut Reply,
) -> Result<Value, Error> {
    let begun = Instant::now();
    let [file] = files(came)?;
    let clock = request.members().get("clock").map(GuestClock::deserialize).transpose();
    let clock = clock.map_err(|e| Error::Options(format!("clock: {e}")))?.unwrap_or_default();
    let reverting = vm.begin(Operation::Revert)?;
    let complete = note_cancelled(&reverting, complete(vm, request, begun, reply))?;
    Ok(serde_json::to_value(revert::revert(vm, complete, file, clock)?).unwrap_or_default())
}

fn report(copied: &Copied, total: Duration) -> Value {
    json!({
        "mode": copied.mode,
        "quiescent": copied.quiescent,
        "pause_ns": copied.phases.map(|p| p.pause_ns()),
        "phases": copied.phases,
        "total_ns": total.as_nanos() as u64,
        "faults": copied.faults,
        "pages_dont_care": copied.left_out,
    })
}

/// As people write it.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
