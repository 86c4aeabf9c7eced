//! The program as a process, with requests by plain sockets and, where it is installed, by curl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The running program; ends with the test.
struct Site {
    process: Child,
    port: u16,
}

impl Site {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_http"))
            .args(["--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { process, port }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(BufReader::new(stream))
    }

    /// Sends a request on a connection of its own.
    fn get(&self, path: &str) -> Answer {
        self.connect().ask("GET", path)
    }

    fn metric(&self, name: &str) -> f64 {
        let page = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {page}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

struct Client(BufReader<TcpStream>);

struct Answer {
    code: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).1
    }
}

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, method: &str, path: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n"));
        self.answer(method != "HEAD")
    }

    fn answer(&mut self, with_body: bool) -> Answer {
        let mut line = || {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let code = line().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let headers: Vec<_> = std::iter::from_fn(|| {
            let line = line();
            line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
        let mut answer = Answer { code, headers, body: Vec::new() };
        if with_body {
            answer.body.resize(answer.header("content-length").parse().unwrap(), 0);
            self.0.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    fn is_closed_by_peer(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

#[test]
fn pages_have_their_content_and_type() {
    let site = Site::start();
    for (path, code, kind, text) in [
        ("/", 200, "text/html; charset=utf-8", "<h1>"),
        ("/style.css", 200, "text/css; charset=utf-8", "font"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "http_requests_total"),
        ("/bytes/30", 200, "application/octet-stream", "abcdefghijklmnopqrstuvwxyz\nabc"),
        ("/no-such-page", 404, "text/plain; charset=utf-8", "no such page"),
        ("/bytes/many", 400, "text/plain; charset=utf-8", "many"),
        ("/bytes/99999999999", 400, "text/plain; charset=utf-8", "at most"),
    ] {
        let answer = site.get(path);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!((answer.code, answer.header("content-type")), (code, kind), "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
        assert!(answer.header("date").ends_with(" GMT"));
    }
}

#[test]
fn a_connection_serves_many_requests_also_sent_ahead() {
    let site = Site::start();
    let mut client = site.connect();
    for _ in 0..100 {
        assert_eq!(client.ask("GET", "/").code, 200);
    }
    client.send(&"GET /bytes/5 HTTP/1.1\r\nHost: here\r\n\r\n".repeat(50));
    for _ in 0..50 {
        assert_eq!(client.answer(true).body, b"abcde");
    }
    assert_eq!(site.metric("http_connections_total"), 2.0, "the client's and that of the question");
    client.send("GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer(true).code, 200);
    assert!(client.is_closed_by_peer());
}

#[test]
fn head_is_the_same_without_body_and_other_methods_are_refused() {
    let site = Site::start();
    let mut client = site.connect();
    let get = client.ask("GET", "/style.css");
    let head = client.ask("HEAD", "/style.css");
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(client.ask("GET", "/style.css").body, get.body, "the connection is out of step");
    let post = client.ask("POST", "/");
    assert_eq!((post.code, post.header("allow")), (405, "GET,HEAD"));
}

#[test]
fn requests_that_are_not_http_are_refused_and_counted() {
    let site = Site::start();
    let mut client = site.connect();
    client.send("what is this?\r\n\r\n");
    assert_eq!(client.answer(true).code, 400);
    assert!(client.is_closed_by_peer());
    let mut client = site.connect();
    client.send(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024)));
    assert_eq!(client.answer(true).code, 431, "a head without end");
    // Its end or its reset: bytes after the limit were never read.
    let _ended = client.0.read(&mut [0]);
    assert_eq!(site.metric("http_connection_errors_total"), 2.0);
}

#[test]
fn many_clients_at_once_and_a_slow_one_among_them() {
    let site = Site::start();
    let mut slow = site.connect();
    const LONG: usize = 30_000_000;
    slow.send(&format!("GET /bytes/{LONG} HTTP/1.1\r\nHost: here\r\n\r\n"));
    let mut clients: Vec<Client> = (0..200).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer(true).code, 200);
    }
    assert!(site.metric("http_connections_open") >= 202.0);
    let body = slow.answer(true).body;
    assert_eq!(body.len(), LONG);
    assert!(body.chunks(27).all(|line| b"abcdefghijklmnopqrstuvwxyz\n".starts_with(line)));
}

#[test]
fn silent_connections_are_closed_and_busy_ones_are_not() {
    let site = Site::start_with(&["--idle", "1"]);
    let (mut silent, mut busy) = (site.connect(), site.connect());
    silent.send("GET / HTTP/1.1\r\nHo");
    silent.0.get_ref().set_nonblocking(true).unwrap();
    // Ends only if the silent connection is closed while the busy one is served.
    while silent.0.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock) {
        assert_eq!(busy.ask("GET", "/").code, 200);
    }
    assert_eq!(busy.ask("GET", "/").code, 200);
    assert_eq!(site.metric("http_connections_open"), 2.0, "the busy one and the question's");
}

#[test]
fn clients_over_the_limit_are_closed_and_others_served() {
    let site = Site::start_with(&["--connections", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| site.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("GET", "/").code, 200));
    assert!(site.connect().is_closed_by_peer());
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("GET", "/").code, 200));
    let mut last = clients.pop().unwrap();
    drop(clients);
    let page = String::from_utf8(last.ask("GET", "/metrics").body).unwrap();
    assert!(page.contains("\nhttp_connections_refused_total 1\n"), "{page}");
}

/// This is not self-evident for a mio that is built on `poll`, as in the guest; natively use
/// `RUSTFLAGS="--cfg mio_unsupported_force_poll_poll"` to get that.
#[test]
fn waiting_costs_no_time() {
    let site = Site::start();
    let mut waiting = site.connect();
    assert_eq!(waiting.ask("GET", "/").code, 200);
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", site.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    let spent = ticks() - before;
    assert!(spent < 10, "{spent} of 50 ticks were spent on waiting");
}

#[test]
fn metrics_count() {
    let site = Site::start();
    (0..5).for_each(|_| assert_eq!(site.get("/").code, 200));
    assert_eq!(site.get("/none").code, 404);
    assert_eq!(site.metric("http_requests_total{code=\"200\"}"), 5.0);
    assert_eq!(site.metric("http_requests_total{code=\"404\"}"), 1.0);
    assert!(site.metric("process_uptime_seconds") > 0.0);
}

#[test]
fn curl_likes_it() {
    let site = Site::start();
    let url = format!("http://127.0.0.1:{}", site.port);
    let args = ["-sS", "--max-time", "20", "-o", "-", "-w", " %{http_code} %{num_connects}\\n"];
    match Command::new("curl").args(args).arg(format!("{url}/bytes/[1-3]")).output() {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, "a 200 1\nab 200 0\nabc 200 0\n");
        }
        Err(error) => vmm_lite_lab::skipped("curl", error),
    }
}

#[test]
fn wrong_usage_is_reported() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_http")).args(args).output().unwrap();
    assert!(String::from_utf8(run(&["--help"]).stdout).unwrap().contains("--port PORT"));
    for args in [&["--port", "many"][..], &["--porto", "1"], &["8080"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    let site = Site::start();
    let second = run(&["--port", &site.port.to_string()]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("cannot listen on port"));
}
