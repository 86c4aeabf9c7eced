//! INFO and VMM: the server's report about itself.

use super::context::Context;
use super::error::{Error, Outcome};
use crate::config::REDIS_VERSION;
use crate::memory;
use crate::protocol::{Args, Reply};
use crate::vmm::unix_us;
use std::fmt::Write;

/// The sections, in order; all are in the default.
const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "vmm", "keyspace"];

pub fn info(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let all = args.len() == 1
        || ["all", "default", "everything"]
            .iter()
            .any(|name| (1..args.len()).any(|at| args.is(at, name)));
    let mut text = String::new();
    for name in SECTIONS {
        if all || (1..args.len()).any(|at| args.is(at, name)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let title = name[..1].to_uppercase() + &name[1..];
            text.push_str(&format!("# {title}\r\n"));
            for (key, value) in section(context, name) {
                text.push_str(&format!("{key}:{value}\r\n"));
            }
        }
    }
    reply.verbatim(&text);
    Ok(())
}

type Fields = Vec<(String, String)>;

fn section(context: &mut Context<'_>, name: &str) -> Fields {
    let now = context.now;
    let mut fields = Fields::new();
    let mut add =
        |key: &str, value: &dyn std::fmt::Display| fields.push((key.to_owned(), value.to_string()));
    let state = &mut *context.state;
    match name {
        "server" => {
            let uptime = now.saturating_sub(state.vmm.started_ms()) / 1000;
            add("redis_version", &REDIS_VERSION);
            add("server_name", &"vmm-lite-kv");
            add("kv_version", &env!("CARGO_PKG_VERSION"));
            add("redis_mode", &"standalone");
            add("os", &std::env::consts::OS);
            add("arch_bits", &usize::BITS);
            add("multiplexing_api", &"mio");
            add("run_id", &state.vmm.run_id());
            add("tcp_port", &state.config.port);
            add("server_time_usec", &unix_us());
            add("uptime_in_seconds", &uptime);
            add("uptime_in_days", &(uptime / 86_400));
        }
        "clients" => {
            add("connected_clients", &state.sessions.len());
            add("maxclients", &state.config.max_clients);
            add("blocked_clients", &0);
        }
        "memory" => {
            let used = memory::used();
            add("used_memory", &used);
            add("used_memory_human", &human(used));
            add("used_memory_peak", &state.memory.peak());
            add("used_memory_peak_human", &human(state.memory.peak()));
            add("total_system_memory", &state.memory.system);
            add("maxmemory", &state.memory.limit);
            add("maxmemory_human", &human(state.memory.limit));
            add("maxmemory_policy", &"noeviction");
        }
        "persistence" => {
            add("loading", &0);
            add("rdb_bgsave_in_progress", &0);
            add("aof_enabled", &0);
        }
        "stats" => {
            let stats = state.stats;
            add("total_connections_received", &stats.connections);
            add("total_commands_processed", &stats.commands);
            add("total_net_input_bytes", &stats.input);
            add("total_net_output_bytes", &stats.output);
            add("rejected_connections", &stats.rejected);
            add("expired_keys", &state.store.databases().map(|db| db.expired()).sum::<u64>());
            add("evicted_keys", &0);
            add("keyspace_hits", &stats.hits);
            add("keyspace_misses", &stats.misses);
            add("total_error_replies", &stats.errors);
        }
        "replication" => {
            add("role", &"master");
            add("connected_slaves", &0);
        }
        "vmm" => {
            let vmm = &state.vmm;
            add("nonce", &vmm.nonce());
            add("counter", &state.stats.commands);
            add("uptime_ms", &vmm.uptime().as_millis());
            add("moves", &vmm.moves());
            add("last_away_us", &vmm.last_away().as_micros());
            add("last_resume", &vmm.last_resume());
            add("copies", &vmm.copies());
            add("drawn", &vmm.drawn());
        }
        _ => {
            for (index, db) in state.store.databases().enumerate().filter(|(_, db)| !db.is_empty())
            {
                add(
                    &format!("db{index}"),
                    &format_args!("keys={},expires={},avg_ttl=0", db.len(), db.expiring()),
                );
            }
        }
    }
    fields
}

fn human(bytes: usize) -> String {
    let mut text = String::new();
    let (unit, divisor) = match bytes {
        0..1024 => ("B", 1.0),
        1024..0x10_0000 => ("K", 1024.0),
        0x10_0000..0x4000_0000 => ("M", 1_048_576.0),
        _ => ("G", 1_073_741_824.0),
    };
    let written = if unit == "B" {
        write!(text, "{bytes}B")
    } else {
        write!(text, "{:.2}{unit}", bytes as f64 / divisor)
    };
    written.expect("writing to a string cannot fail");
    text
}

pub fn vmm(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let state = &context.state;
    if args.is(1, "nonce") {
        reply.bulk(state.vmm.nonce().as_bytes());
    } else if args.is(1, "counter") {
        reply.integer(state.stats.commands as i64);
    } else if args.is(1, "uptime") {
        reply.integer(i64::try_from(state.vmm.uptime().as_millis()).unwrap_or(i64::MAX));
    } else if args.is(1, "moves") {
        reply.integer(state.vmm.moves() as i64);
    } else {
        return Err(Error::new(
            "ERR unknown subcommand; there are VMM NONCE, COUNTER, UPTIME and MOVES",
        ));
    }
    Ok(())
}
