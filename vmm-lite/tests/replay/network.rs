//! Servers under load from real clients, recorded while they are paused, asked and copied.

use super::recorded::{
    ADDRESS, Base, Recorded, SOME, boot_on, is_complete, pause_waiting, reaches,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use testkit::{
    guest::kvm,
    net::{namespace, no_fork},
};
use vmm_lite_lab::{images::image, vmm::TIMEOUT};

/// A store on a network of this test's own.
fn store(tap: &str) -> Option<Recorded> {
    server(tap, "kv")
}

/// A server on such a network.
fn server(tap: &str, app: &str) -> Option<Recorded> {
    if !kvm() || !namespace(tap) {
        return None;
    }
    let address = ["addr", "add", "10.9.0.1/24", "dev", tap];
    let forking = no_fork();
    assert!(Command::new("ip").args(address).status().unwrap().success());
    drop(forking);
    Some(boot_on(Some(tap), &image(app).unwrap(), 32 << 20, &[], SOME))
}

fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match TcpStream::connect((ADDRESS, port)) {
            Ok(stream) => return stream,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        thread::yield_now();
    }
}

/// Increments a counter, and writes and reads values of many sizes. Each answer is checked.
fn client(name: usize, rounds: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = connect(6379);
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        for round in 1..=rounds {
            write!(stream, "INCR count-{name}\r\n").unwrap();
            line.clear();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line, format!(":{round}\r\n"));
            if round % 16 != 0 {
                continue;
            }
            let value = vec![b'a' + (round / 16 % 26) as u8; round * 97 % 60_000];
            write!(stream, "*3\r\n$3\r\nSET\r\n$1\r\n{}\r\n${}\r\n", name % 10, value.len())
                .unwrap();
            stream.write_all(&value).unwrap();
            write!(stream, "\r\nGET {}\r\n", name % 10).unwrap();
            line.clear();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line, "+OK\r\n");
            line.clear();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line, format!("${}\r\n", value.len()));
            let mut back = vec![0; value.len() + 2];
            answers.read_exact(&mut back).unwrap();
            assert_eq!(back[..value.len()], value);
        }
    })
}

fn load(clients: usize, rounds: usize) -> Vec<JoinHandle<()>> {
    (0..clients).map(|name| client(name, rounds)).collect()
}

#[test]
fn a_store_under_load_runs_the_same_again() {
    let Some(recorded) = store("vmmr0") else { return };
    load(6, 200).into_iter().for_each(|client| client.join().unwrap());
    let mut paused = pause_waiting(&recorded.vm);
    reaches(&recorded.base, &recorded.records, &mut paused);
    eprintln!("{} records, {} bytes", recorded.records.len(), recorded.records.bytes());
}

/// Asks a site for a page: over one connection, or over a new one each time.
fn visitor(keeps: bool, pages: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = connect(8080);
        for _ in 0..pages {
            let end = if keeps { "" } else { "Connection: close\r\n" };
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: site\r\n{end}\r\n").unwrap();
            let mut answer = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            answer.read_line(&mut line).unwrap();
            assert!(line.contains("200"), "{line}");
            while line != "\r\n" {
                line.clear();
                answer.read_line(&mut line).unwrap();
                let lower = line.to_ascii_lowercase();
                if let Some(n) = lower.strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
            }
            answer.read_exact(&mut vec![0; length]).unwrap();
            if !keeps {
                stream = connect(8080);
            }
        }
    })
}

#[test]
fn a_site_with_visitors_runs_the_same_again() {
    let Some(recorded) = server("vmmr2", "http") else { return };
    let visitors: Vec<_> = (0..4).map(|n| visitor(n % 2 == 0, 60)).collect();
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    let mut paused = pause_waiting(&recorded.vm);
    reaches(&recorded.base, &recorded.records, &mut paused);
}

#[test]
fn pauses_and_requests_at_any_instruction_keep_the_log_exact() {
    let Some(recorded) = store("vmmr1") else { return };
    let vm = &recorded.vm;
    let clients = load(4, 100);
    let (mut bases, mut random) = (Vec::new(), fastrand::Rng::with_seed(7));
    for number in 0.. {
        match number % 4 {
            0 => vm.pause().unwrap().resume_here().unwrap(),
            1 => vm.quiesce(Duration::from_millis(20)).unwrap().resume_here().unwrap(),
            2 => {
                vm.request_reclaim();
                let _ = vm.wait_reclaimed(TIMEOUT);
            }
            _ => {
                // From a copy the guest runs the same too, whatever it was doing.
                (0..random.u32(..30_000)).for_each(|_| std::hint::spin_loop());
                let mut paused = vm.pause().unwrap();
                let within = paused.position().unwrap().unwrap().samples > 0;
                if bases.len() < if within { 6 } else { 3 } {
                    bases.push(Base::of(&mut paused));
                }
                paused.resume_here().unwrap();
            }
        }
        if clients.iter().all(JoinHandle::is_finished) {
            eprintln!("{number} pauses and requests");
            break;
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    let mut paused = pause_waiting(vm);
    let within = bases.iter().filter(|base| base.at.samples > 0).count();
    eprintln!("{within} of {} copies between two input points", bases.len());
    for base in bases.iter().chain([&recorded.base]) {
        reaches(base, &recorded.records, &mut paused);
    }
    let last = recorded.records.len() as u64;
    is_complete(&recorded.base.replay(&recorded.records).1, last);
}
