//! The figures of a VM, as the API has them.

use super::protection;
use api::stats::{
    DirtyRate, Exits, Guest, Histogram, History, Jail, Net, NetRate, Operation, Rate, Rates,
    Stalled, State, Stats,
};
use vmm::{
    devices::{rate, throttle},
    host::{confine::jail::Jailed, watchdog},
    replication::protection::Member,
    vm,
};

/// The figures of a VM.
pub fn of(member: &Member) -> Stats {
    // Named one by one, so that a new figure cannot be forgotten here.
    let vm::Stats {
        name,
        pid,
        state,
        operation,
        handed_to,
        vouched_for,
        uptime_ms,
        memory_bytes,
        memory_resident_bytes,
        resumes,
        console_bytes,
        console_throttled,
        console_throttled_ns,
        jail,
        rates,
        exits,
        net,
        guest,
        history,
        dirty_rate,
        dirty_log_users,
        stalls,
        stalled,
    } = member.vm().stats();
    Stats {
        name,
        pid,
        state: match state {
            vm::RunState::Running => State::Running,
            vm::RunState::Paused => State::Paused,
            vm::RunState::Ended => State::Ended,
        },
        operation: operation.map(|operation| match operation {
            vm::Operation::Move => Operation::Move,
            vm::Operation::Snapshot => Operation::Snapshot,
            vm::Operation::Fork => Operation::Fork,
            vm::Operation::Revert => Operation::Revert,
            vm::Operation::Replay => Operation::Replay,
            vm::Operation::Protect => Operation::Protect,
            vm::Operation::StandBy => Operation::StandBy,
        }),
        handed_to,
        vouched_for,
        uptime_ms,
        memory_bytes,
        memory_resident_bytes,
        resumes,
        console_bytes,
        console_throttled,
        console_throttled_ns,
        jail: jail.map(|Jailed { user, files, network, cgroup }| {
            let cgroup = cgroup.map(|cgroup| cgroup.to_string_lossy().into_owned());
            Jail { user, files, network, cgroup }
        }),
        rates: self::rates(rates),
        exits: {
            let vm::ExitCounts { doorbell, wait, slept, net, console, quiesced, mmio, kicked } =
                exits;
            Exits { doorbell, wait, slept, net, console, quiesced, mmio, kicked }
        },
        net: net.map(self::net),
        guest: {
            let vm::GuestStats { threads, heap_used, heap_free, sockets } = guest;
            Guest { threads, heap_used, heap_free, sockets }
        },
        history: self::history(history),
        dirty_rate: dirty_rate.map(
            |vm::DirtyRate { pages_per_second, bytes_per_second, unix_ms }| DirtyRate {
                pages_per_second,
                bytes_per_second,
                unix_ms,
            },
        ),
        dirty_log_users,
        stalls,
        stalled: stalled.into_iter().map(self::stalled).collect(),
        replication: member.figures().map(protection::figures),
    }
}

fn rates(throttle::Rates { net, console }: throttle::Rates) -> Rates {
    let rate = |rate::Rate { per_second, burst }: rate::Rate| Rate {
        per_second: per_second.get(),
        burst: burst.get(),
    };
    let throttle::NetRate { bytes, packets } = net;
    let net = NetRate { bytes: bytes.map(rate), packets: packets.map(rate) };
    Rates { net, console: console.map(rate) }
}

fn net(net: vm::NetStats) -> Net {
    let vm::NetStats {
        mac,
        ip,
        rx_packets,
        rx_bytes,
        rx_dropped,
        tx_packets,
        tx_bytes,
        tx_dropped,
        tx_spoofed,
        rx_throttled,
        rx_throttled_ns,
        tx_throttled,
        tx_throttled_ns,
        mtu,
    } = net;
    Net {
        mac,
        ip,
        rx_packets,
        rx_bytes,
        rx_dropped,
        tx_packets,
        tx_bytes,
        tx_dropped,
        tx_spoofed,
        rx_throttled,
        rx_throttled_ns,
        tx_throttled,
        tx_throttled_ns,
        mtu,
    }
}

fn history(history: vm::History) -> History {
    let histogram = |vm::Histogram { counts, sum_ns }: vm::Histogram| Histogram {
        counts: counts.into(),
        sum_ns,
    };
    let vm::History {
        moves_arrived,
        moves_cancelled,
        moves_failed,
        blackout,
        quiesce,
        quiesce_unanswered,
        brownout,
    } = history;
    History {
        moves_arrived,
        moves_cancelled,
        moves_failed,
        blackout: histogram(blackout),
        quiesce: histogram(quiesce),
        quiesce_unanswered,
        brownout: histogram(brownout),
    }
}

fn stalled(stalled: watchdog::Stalled) -> Stalled {
    let watchdog::Stalled { thread, tid, doing, for_ms } = stalled;
    Stalled { thread: thread.into(), tid, doing: doing.into(), for_ms }
}
