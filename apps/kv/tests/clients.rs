//! Clients of all kinds, correct and misbehaving, and the tools that come with Redis.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use support::{Server, Value, encode};

/// Runs a tool that comes with Redis; `None` after reporting that it is missing.
fn tool(server: &Server, name: &str, args: &[&str]) -> Option<Output> {
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    match Command::new(name).args(["-h", &host, "-p", &port]).args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            vmm_lite_lab::skipped(name, error);
            None
        }
    }
}

#[test]
fn redis_cli_speaks_both_versions() {
    let server = Server::any();
    for version in ["-2", "-3"] {
        let Some(output) = tool(&server, "redis-cli", &[version, "hset", "h", "field", "value"])
        else {
            return;
        };
        assert!(output.status.success());
        let output = tool(&server, "redis-cli", &[version, "--no-raw", "hgetall", "h"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("\"field\"") && text.contains("\"value\""), "{text}");
    }
    let output = tool(&server, "redis-cli", &["--bigkeys"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Sampled 1 keys in the keyspace"), "{text}");
}

#[test]
fn redis_benchmark_runs_all_its_tests() {
    let server = Server::any();
    for args in [
        &["-n", "3000", "-q"][..],
        &["-n", "20000", "-P", "16", "-c", "20", "-q"],
        &["-n", "2000", "-3", "-q"],
    ] {
        let Some(output) = tool(&server, "redis-benchmark", args) else { return };
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{text}\n{errors}");
        assert!(!text.to_lowercase().contains("error"), "{text}");
        let done = text.lines().filter(|line| line.contains("requests per second")).count();
        assert_eq!(done, 20, "{text}");
    }
}

#[test]
fn redis_cli_pipes_bulk_data() {
    use std::process::Stdio;
    let server = Server::any();
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let spawned = Command::new("redis-cli")
        .args(["-h", &host, "-p", &port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = match spawned {
        Ok(process) => process,
        Err(error) => return vmm_lite_lab::skipped("redis-cli --pipe", error),
    };
    let mut input = process.stdin.take().unwrap();
    for n in 0..50_000 {
        input.write_all(&encode(&["set", &format!("key{n}"), "value"])).unwrap();
    }
    drop(input);
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("errors: 0, replies: 50000"), "{text}");
    assert_eq!(server.connect().line("dbsize"), Value::Integer(50_000));
}

#[test]
fn a_pipeline_that_is_not_read_until_its_end() {
    // As client libraries do: all requests are written, then all replies are read.
    let server = Server::any();
    let mut client = server.connect();
    client.line(&format!("set k {}", "x".repeat(100)));
    let requests = encode(&["get", "k"]).repeat(10_000);
    let mut writer = client.stream().try_clone().unwrap();
    let thread = thread::spawn(move || writer.write_all(&requests).unwrap());
    thread.join().unwrap();
    for _ in 0..10_000 {
        assert_eq!(client.read().text().len(), 100);
    }
}

#[test]
fn a_client_that_does_not_read_is_paused_and_disturbs_no_other() {
    let server = Server::any();
    let mut other = server.connect();
    let before = memory(&mut other);
    let deaf = server.connect();
    deaf.stream().set_nonblocking(true).unwrap();
    let text = "x".repeat(10_000);
    let request = encode(&["echo", &text]);
    // Continues until the server reads no more from it.
    let (mut sent, mut blocked_since) = (0, None);
    while blocked_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(500)) {
        match deaf.stream().write(&request[sent % request.len()..]) {
            Ok(n) => {
                sent += n;
                blocked_since = None;
            }
            Err(_) => {
                blocked_since.get_or_insert_with(Instant::now);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    assert_eq!(other.line("ping"), Value::Simple("PONG".into()));
    let grown = memory(&mut other) - before;
    assert!(grown < 8 << 20, "{grown} bytes wait for a client that does not read");
    // When it reads after all, nothing is missing. The last request may be truncated, and is not
    // answered.
    deaf.stream().set_nonblocking(false).unwrap();
    deaf.stream().shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    deaf.stream().read_to_end(&mut received).unwrap();
    let reply = format!("$10000\r\n{text}\r\n").into_bytes();
    assert_eq!(received.len(), sent / request.len() * reply.len());
    assert!(received.chunks(reply.len()).all(|chunk| chunk == reply));
}

fn memory(client: &mut support::Client) -> i64 {
    let info = client.line("info memory").text();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    line.parse().unwrap()
}

#[test]
fn large_strings_go_in_and_out_in_pieces() {
    let server = Server::any();
    let mut client = server.connect();
    let value: Vec<u8> =
        (0..20u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for piece in encode(&[b"set".as_slice(), b"k", &value]).chunks(100_003) {
        client.send(piece);
    }
    assert_eq!(client.read(), Value::Simple("OK".into()));
    assert!(client.line("get k") == Value::Bulk(value));
}

#[test]
fn the_server_survives_the_end_of_memory() {
    let server = Server::kv(&["--maxmemory", "4mb"]);
    let mut client = server.connect();
    let mut stored = 0;
    let error = loop {
        match client.line(&format!("set key{stored} {}", "v".repeat(1000))) {
            Value::Error(error) => break error,
            _ => stored += 1,
        }
        assert!(stored < 10_000, "the limit is not kept");
    };
    assert_eq!(error, "OOM command not allowed when used memory > 'maxmemory'.");
    assert!(stored > 1000, "only {stored} KiB fit into 4 MiB");
    assert_eq!(client.line("get key0").text().len(), 1000);
    // A request that does not fit is skipped; the connection continues behind it.
    let long = vec![b'x'; 30 << 20];
    client.send(&encode(&[b"set".as_slice(), b"long", &long]));
    assert_eq!(client.read().text(), "OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(client.line("exists long"), Value::Integer(0));
    // Replies that do not fit end the client's connection, not the server.
    client.send(&encode(
        &vec!["mget".to_owned(); 1]
            .into_iter()
            .chain((0..100_000).map(|n| format!("key{}", n % stored)))
            .collect::<Vec<_>>(),
    ));
    assert!(matches!(client.try_read(), None | Some(Value::Error(_))));
    let mut client = server.connect();
    assert_eq!(client.line("flushall"), Value::Simple("OK".into()));
    assert_eq!(client.line("set k v"), Value::Simple("OK".into()));
}

#[test]
fn clients_that_want_too_much_of_a_small_memory_are_refused() {
    // Without its own limit: what the system provides counts.
    let server = Server::kv_within(40_000, &["--maxmemory", "0"]);
    let mut client = server.connect();
    let value = "v".repeat(300);
    let mut refused = 0;
    for batch in 0..400 {
        let requests: Vec<u8> =
            (0..500).flat_map(|n| encode(&["set", &format!("key{batch}-{n}"), &value])).collect();
        client.send(&requests);
        refused += (0..500).filter(|_| matches!(client.read(), Value::Error(_))).count();
    }
    assert!(refused > 0, "60 MB fit into 40");
    // Incomplete requests take memory as well.
    let mut half = encode(&["echo", &"x".repeat(20_000)]);
    half.truncate(15_000);
    let mut others: Vec<TcpStream> = Vec::new();
    for _ in 0..1500 {
        let Ok(mut stream) = TcpStream::connect(server.address) else { break };
        // A refused one may have been closed already.
        let _ = stream.write(&half);
        others.push(stream);
    }
    assert_eq!(others.len(), 1500);
    assert_eq!(client.line("get key0-0").text(), value);
    drop(others);
    assert_eq!(client.line("flushall"), Value::Simple("OK".into()));
    let start = Instant::now();
    while client.line("set k v") != Value::Simple("OK".into()) {
        assert!(start.elapsed() < Duration::from_secs(60), "memory does not come back");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_thousand_clients_at_once() {
    let server = Server::any();
    let mut clients: Vec<_> = (0..2000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&encode(&["incr", "n"]));
    }
    let mut seen: Vec<String> = clients.iter_mut().map(|client| client.read().text()).collect();
    seen.sort_by_key(|n| n.parse::<u32>().unwrap());
    assert!(seen.iter().enumerate().all(|(n, text)| *text == (n + 1).to_string()));
    let info = clients[0].line("info clients").text();
    assert!(info.contains("connected_clients:2000"), "{info}");
    drop(clients.split_off(1));
    let start = Instant::now();
    while !clients[0].line("info clients").text().contains("connected_clients:1\r\n") {
        assert!(start.elapsed() < Duration::from_secs(60), "clients that are gone are still there");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn clients_beyond_the_limit_receive_an_error() {
    let server = Server::kv(&["--maxclients", "2"]);
    let (mut one, _two) = (server.connect(), server.connect());
    one.line("ping");
    let mut three = server.connect();
    assert_eq!(
        three.try_read().map(|v| v.text()).as_deref(),
        Some("ERR max number of clients reached")
    );
    assert!(three.try_read().is_none());
    assert_eq!(one.line("ping"), Value::Simple("PONG".into()));
}

#[test]
fn the_last_reply_arrives_before_the_end() {
    let server = Server::any();
    // With more input behind it, which is not read.
    let mut client = server.connect();
    client.send(&[b"*1\r\n:oops\r\n".as_slice(), &[b'x'; 100_000]].concat());
    assert_eq!(client.read().text(), "ERR Protocol error: expected '$', got ':'");
    assert!(client.try_read().is_none());
    let mut client = server.connect();
    client.send(b"PING\r\nQUIT\r\nPING\r\n");
    assert_eq!((client.read().text(), client.read().text()), ("PONG".into(), "OK".into()));
    assert!(client.try_read().is_none());
    // A client that closes its side first gets its replies.
    let mut client = server.connect();
    client.send(b"PING\r\n");
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read().text(), "PONG");
}

#[test]
fn clients_see_and_end_each_other() {
    let server = Server::any();
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!(two.line("client setname second").text(), "OK");
    let id = two.line("client id").text();
    let list = one.line("client list").text();
    assert!(
        list.lines().any(|l| l.contains(&format!("id={id} ")) && l.contains("name=second")),
        "{list}"
    );
    assert_eq!(one.line(&format!("client kill id {id}")), Value::Integer(1));
    assert!(two.try_read().is_none());
    assert_eq!(one.line("client list").text().lines().count(), 1);
}

#[test]
fn keys_expire_without_being_accessed() {
    let server = Server::any();
    let mut client = server.connect();
    for n in 0..1000 {
        client.line(&format!("set key{n} v px {}", 20 + n % 20));
    }
    client.line("set stays v");
    let start = Instant::now();
    // DBSIZE accesses no key; it counts those that have not been removed.
    while client.line("dbsize") != Value::Integer(1) {
        assert!(start.elapsed() < Duration::from_secs(60), "expired keys stay");
        thread::sleep(Duration::from_millis(2));
    }
    let expired = |client: &mut support::Client| -> u64 {
        let info = client.line("info stats").text();
        info.lines().find_map(|l| l.strip_prefix("expired_keys:")).unwrap().parse().unwrap()
    };
    assert!(expired(&mut client) >= 1000);
}

#[test]
fn a_scan_over_the_wire_misses_nothing_that_stays() {
    let server = Server::any();
    let (mut client, mut other) = (server.connect(), server.connect());
    for n in 0..2000 {
        client.line(&format!("set stay{n} v"));
    }
    let (mut cursor, mut seen, mut round) = ("0".to_owned(), std::collections::HashSet::new(), 0);
    loop {
        let reply = client.line(&format!("scan {cursor} match stay* count 50"));
        cursor = reply.items()[0].text();
        seen.extend(reply.items()[1].items().iter().map(Value::text));
        if cursor == "0" {
            break;
        }
        round += 1;
        for n in 0..20 {
            other.line(&format!("set go{round}-{n} v"));
            other.line(&format!("del go{}-{n}", round - 1));
        }
    }
    assert_eq!(seen.len(), 2000);
}

#[test]
fn shutdown_ends_the_process_well() {
    let server = Server::kv(&[]);
    let mut client = server.connect();
    client.send(b"SHUTDOWN NOSAVE\r\n");
    assert!(client.try_read().is_none());
    assert!(server.wait().success());
}

#[test]
fn wrong_usage_and_a_busy_port_are_reported() {
    let output = Command::new(env!("CARGO_BIN_EXE_kv")).arg("--nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
    let server = Server::kv(&[]);
    let port = server.address.port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_kv"))
        .args(["--bind", "127.0.0.1", "--port", &port])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&format!("listening on 127.0.0.1:{port}")), "{text}");
    assert!(TcpStream::connect(server.address).is_ok());
}
