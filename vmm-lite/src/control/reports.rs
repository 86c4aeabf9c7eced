//! Progress and reports of moves and copies, as the API has them.

use api::{
    Event, ForkReport, MoveReport, RevertReport, SnapshotReport,
    copies::{CopiedMode, PausePhases},
    moves::{MoveCost, MovePhases},
    progress::Round,
};
use migrate::report;
use vmm::{
    capture,
    identity::PublicKey,
    migration::progress::{Moved, Progress},
    snapshot::{operations, revert},
};

/// An event of a move, or a wait.
pub fn event(progress: Progress) -> Event {
    match progress {
        Progress::Phase { doing, at_ns } => Event::Phase { doing, at_ns },
        Progress::Round {
            round,
            at_ns,
            took_ns,
            pages,
            pages_zero,
            bytes,
            bytes_per_second,
            dirty_pages,
            dirty_bytes_per_second,
            bytes_sent,
            predicted_blackout_ns,
        } => Event::Round(Round {
            round,
            at_ns,
            took_ns,
            pages,
            pages_zero,
            bytes,
            bytes_per_second,
            dirty_pages,
            dirty_bytes_per_second,
            bytes_sent,
            predicted_blackout_ns,
        }),
        Progress::Waiting { doing, at_ns, bytes_missing } => {
            Event::Waiting { doing, at_ns, bytes_missing }
        }
    }
}

/// The report of a move.
pub fn moved(Moved { to, peer, paused, report }: Moved) -> MoveReport {
    MoveReport {
        cost: report.map(cost),
        to: to.to_string(),
        paused,
        destination_key: peer.map(|key| PublicKey(key).to_string()),
    }
}

fn cost(report: report::Report) -> MoveCost {
    let report::Report {
        blackout_ns,
        predicted_blackout_ns,
        total_ns,
        bytes_sent,
        rounds,
        pages_sent,
        last_pages,
        pages_zero,
        pages_dont_care,
        bytes_left_out,
        pages_following,
        following_ns,
        pages_waited_for,
        waited_ns,
        worst_wait_ns,
        quiescent,
        phases,
        apply_ns,
        run_ns,
        brownout_ns,
        brownout_over,
        brownout_page_faults,
        brownout_lost_ns,
    } = report;
    MoveCost {
        blackout_ns,
        predicted_blackout_ns,
        total_ns,
        bytes_sent,
        rounds,
        pages_sent,
        last_pages,
        pages_zero,
        pages_dont_care,
        bytes_left_out,
        pages_following,
        following_ns,
        pages_waited_for,
        waited_ns,
        worst_wait_ns,
        quiescent,
        phases: phases.map(move_phases),
        apply_ns,
        run_ns,
        brownout_ns,
        brownout_over,
        brownout_page_faults,
        brownout_lost_ns,
        copy_pause_ns: None,
    }
}

fn move_phases(phases: report::Phases) -> MovePhases {
    let report::Phases {
        quiesce_ns,
        last_pages_and_state_ns,
        transfer_and_apply_ns,
        commit_and_run_ns,
    } = phases;
    MovePhases { quiesce_ns, last_pages_and_state_ns, transfer_and_apply_ns, commit_and_run_ns }
}

/// The report of a fork.
pub fn forked(report: operations::Report) -> ForkReport {
    let operations::Report {
        mode,
        quiescent,
        pause_ns,
        phases,
        total_ns,
        faults,
        pages_dont_care,
        pages_saved,
    } = report;
    ForkReport {
        mode: match mode {
            capture::Mode::CopyOnWrite => CopiedMode::CopyOnWrite,
            capture::Mode::Rounds => CopiedMode::Rounds,
            capture::Mode::Paused => CopiedMode::Paused,
        },
        quiescent,
        pause_ns,
        phases: phases.map(|capture::Phases { quiesce_ns, memory_ns, state_ns, resume_ns }| {
            PausePhases { quiesce_ns, memory_ns, state_ns, resume_ns }
        }),
        total_ns,
        faults,
        pages_dont_care: pages_dont_care as u64,
        pages_saved,
    }
}

/// The report of a snapshot.
pub fn saved(saved: operations::Saved) -> SnapshotReport {
    let operations::Saved { report, ran, id, difference, bytes, pages_zero, pages_same, paused } =
        saved;
    let copy = forked(report);
    SnapshotReport { copy, ran, id, difference, bytes, pages_zero, pages_same, paused }
}

/// The report of a revert.
pub fn reverted(report: revert::Report) -> RevertReport {
    let revert::Report { pause_ns, total_ns, pages } = report;
    RevertReport { pause_ns, total_ns, pages }
}
