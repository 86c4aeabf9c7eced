//! Images that serve a network do so through QEMU's virtio-net and a TAP device.

mod common;

use common::{GUEST_IP, LIMIT, connect, each_accel, image, networked, site, start_on};
use std::io::{Read, Write};
use std::net::UdpSocket;
use vmm_lite_lab::redis;

#[test]
fn echo_gives_back_streams_and_datagrams() {
    each_accel("echo", |accel| {
        let (Some(site), Some(image)) = (site("echo"), image("echo", "echo")) else { return };
        let mut vm = start_on(&site.hosts[0], &networked(image, accel, &["7777"]));
        vm.console().wait_for("echo: TCP on", LIMIT).unwrap();

        let mut tcp = connect(&site.client, 7777);
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let mut writer = tcp.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == sent, "{} bytes came back of {}", got.len(), sent.len());

        let udp = site.client.enter(|| UdpSocket::bind("10.0.0.100:0")).unwrap().unwrap();
        udp.set_read_timeout(Some(LIMIT)).unwrap();
        udp.send_to(b"a datagram", (GUEST_IP, 7777)).unwrap();
        let mut buffer = [0; 64];
        let n = udp.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"a datagram");
        vm.quit().unwrap();
    });
}

#[test]
fn kv_serves_redis_clients() {
    each_accel("kv", |accel| {
        let (Some(site), Some(image)) = (site("kv"), image("kv", "kv")) else { return };
        let mut vm = start_on(&site.hosts[0], &networked(image, accel, &["--port", "6379"]));
        vm.console().wait_for("6379", LIMIT).unwrap();
        let server = format!("{GUEST_IP}:6379").parse().unwrap();
        let cli = |args: &[&str]| redis::cli(&site.client, server, args).unwrap();
        assert_eq!(cli(&["SET", "colour", "deep blue"]), "OK");
        assert_eq!(cli(&["GET", "colour"]), "deep blue");
        assert_eq!(cli(&["INCR", "n"]), "1");
        let rows = redis::benchmark(
            &site.client,
            server,
            &["-t", "set,get", "-n", "2000", "-c", "20", "-P", "4"],
        )
        .unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.rps > 0.0), "{rows:?}");
        vm.quit().unwrap();
    });
}

#[test]
fn http_serves_its_pages() {
    each_accel("http", |accel| {
        let (Some(site), Some(image)) = (site("http"), image("http", "http")) else { return };
        let mut vm = start_on(&site.hosts[0], &networked(image, accel, &["--port", "8080"]));
        vm.console().wait_for("8080", LIMIT).unwrap();
        let get = |path: &str| {
            let mut tcp = connect(&site.client, 8080);
            write!(tcp, "GET {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).unwrap();
            answer
        };
        for path in ["/", "/metrics"] {
            let answer = get(path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        assert!(get("/no-such-page").starts_with("HTTP/1.1 404"));
        vm.quit().unwrap();
    });
}
