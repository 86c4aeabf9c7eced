//! The server as a process, and clients with every behavior that a server must handle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

struct Echo {
    process: Child,
    tcp: SocketAddr,
    udp: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_echo"))
            .args(["0", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut addresses =
            line.split_whitespace().filter_map(|w| w.trim_matches(',').parse::<SocketAddr>().ok());
        let mut local = || SocketAddr::from(([127, 0, 0, 1], addresses.next().unwrap().port()));
        let (tcp, udp) = (local(), local());
        Self { process, tcp, udp }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[test]
fn more_than_all_buffers_is_echoed_intact_then_the_connection_ends() {
    let echo = Echo::start();
    let stream = echo.connect();
    let sent = noise(20 << 20);
    let writer = thread::spawn({
        let (mut stream, sent) = (stream.try_clone().unwrap(), sent.clone());
        move || {
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
    });
    // Reads start late, so that the server meets a full socket.
    thread::sleep(Duration::from_millis(200));
    let mut received = Vec::new();
    (&stream).read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == sent);
}

#[test]
fn a_client_that_never_reads_or_resets_disturbs_no_other() {
    let echo = Echo::start();
    let deaf = echo.connect();
    deaf.set_nonblocking(true).unwrap();
    let block = noise(1 << 20);
    while (&deaf).write(&block).is_ok() {}
    for _ in 0..50 {
        let mut other = echo.connect();
        other.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
    drop(deaf); // With unread data in its buffer this is a reset.
    let mut other = echo.connect();
    other.write_all(b"on").unwrap();
    other.read_exact(&mut [0; 2]).unwrap();
}

#[test]
fn datagrams_come_back_with_their_borders() {
    let echo = Echo::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = vec![0; 70_000];
    for len in [0, 1, 1400, 9000, 65_507] {
        let sent = noise(len);
        socket.send_to(&sent, echo.udp).unwrap();
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, echo.udp);
        assert!(buffer[..n] == sent);
    }
}
