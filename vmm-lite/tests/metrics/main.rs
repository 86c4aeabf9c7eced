//! Metrics for Prometheus: their content, that a scraper understands them, and that unauthenticated
//! peers at the endpoint do no harm. And the progress that a move reports.

mod moves;
mod protection;
mod text;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use testkit::greeting::greets;
use testkit::guest::{Elf, TempFile, kvm};
use text::{valid, value};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

/// A VM named kv with an endpoint.
struct Served {
    child: Child,
    dir: PathBuf,
    _image: TempFile,
}

impl Served {
    fn at(of: &str, metrics: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("vmm-lite-metrics-{of}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let image = Elf::of(greets()).file();
        let path = image.path().to_str().unwrap();
        let args = ["run", path, "--name", "kv", "--memory", "2M", "--metrics", metrics];
        let mut child = Self::command(&dir, &args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "hi!\n");
        Self { child, dir, _image: image }
    }

    fn command(dir: &PathBuf, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
        command.args(args).env("XDG_RUNTIME_DIR", dir).stdin(Stdio::null());
        command
    }

    fn verb(&self, args: &[&str]) -> String {
        let out = Self::command(&self.dir, args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Requests as a scraper does; returns head and body.
fn get(mut stream: impl Read + Write, target: &str) -> (String, String) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.into(), body.into())
}

#[test]
fn a_scraper_gets_what_the_verb_prints() {
    if !kvm() {
        return;
    }
    let address = vmm_lite_lab::unused::address();
    let vm = Served::at("scrape", &address.to_string());
    let (head, body) = get(TcpStream::connect(address).unwrap(), "/metrics");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    valid(&body);
    assert_eq!(value(&body, "vmm_lite_present"), 1.0);
    assert_eq!(value(&body, "vmm_lite_state{vm=\"kv\",state=\"running\"}"), 1.0);
    assert_eq!(value(&body, "vmm_lite_memory_bytes{vm=\"kv\"}"), (2 << 20) as f64);
    assert_eq!(value(&body, "vmm_lite_console_bytes_total{vm=\"kv\"}"), 4.0);
    vm.verb(&["pause", "kv"]);
    let printed = vm.verb(&["stats", "kv", "--prometheus"]);
    valid(&printed);
    assert_eq!(value(&printed, "vmm_lite_state{vm=\"kv\",state=\"paused\"}"), 1.0);
    let names = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with("# TYPE")).map(str::to_owned).collect()
    };
    assert_eq!(names(&printed), names(&body));
    assert!(get(TcpStream::connect(address).unwrap(), "/").0.starts_with("HTTP/1.0 404"));
    let mut other = TcpStream::connect(address).unwrap();
    other.write_all(b"POST /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 405"), "{answer}");
}

#[test]
fn unauthenticated_peers_at_the_endpoint_do_no_harm() {
    if !kvm() {
        return;
    }
    let address = vmm_lite_lab::unused::address();
    let vm = Served::at("peers", &address.to_string());
    // More idle connections than are served, some with half a request.
    let mut idle: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut idle {
        let _ = stream.write_all(b"GET /met");
    }
    let began = Instant::now();
    valid(&get(TcpStream::connect(address).unwrap(), "/metrics").1);
    // Some idle connections are still open: the scraper did not wait for their timeout.
    let connected = idle.iter().any(|stream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    });
    assert!(connected, "after {:?}", began.elapsed());
    // A request without an end, and an invalid one.
    for bytes in [vec![b'x'; 1 << 20], vec![0; 100]] {
        let mut stream = TcpStream::connect(address).unwrap();
        // It closes after its limit.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    // A client that requests and never reads is disconnected.
    let mut deaf = TcpStream::connect(address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    valid(&get(TcpStream::connect(address).unwrap(), "/metrics").1);
    // Idle connections are closed after their timeout.
    idle[39].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(idle[39].read(&mut [0; 16]), Ok(0) | Err(_)));
    assert!(vm.verb(&["stats", "kv"]).contains("running"));
}

#[test]
fn a_socket_in_the_file_system_is_removed_with_its_vm() {
    if !kvm() {
        return;
    }
    let path = std::env::temp_dir().join(format!("vmm-lite-metrics-{}.sock", std::process::id()));
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut vm = Served::at("unix", &format!("unix:{}", path.display()));
    valid(&get(UnixStream::connect(&path).unwrap(), "/metrics").1);
    vm.verb(&["stop", "kv"]);
    vm.child.wait().unwrap();
    assert!(!path.exists(), "it is gone with the VM");
}

/// A restored VM has an endpoint like a started one, and each of several VMs has its own.
#[test]
fn copies_have_endpoints_of_their_own() {
    if !kvm() {
        return;
    }
    let vm = Served::at("copies", &vmm_lite_lab::unused::address().to_string());
    let in_dir = |name: &str| vm.dir.join(name).to_str().unwrap().to_owned();
    let file = in_dir("kv.snap");
    vm.verb(&["snapshot", "kv", &file]);
    let shows = |path: &str, name: &str| {
        let body = get(UnixStream::connect(path).unwrap(), "/metrics").1;
        valid(&body);
        let series = format!("vmm_lite_state{{vm=\"{name}\",state=\"running\"}}");
        assert_eq!(value(&body, &series), 1.0, "{body}");
    };
    let is_there =
        |name: &str| Served::command(&vm.dir, &["stats", name]).output().unwrap().status.success();
    let several = format!("unix:{}", in_dir("%d.metrics"));
    for verb in [["fork", "kv"], ["restore", &file]] {
        let many = ["--count", "2", "--detach", "--metrics"];
        vm.verb(&[&verb[..], &many, &[&several]].concat());
        for n in 1..=2 {
            let (name, path) = (format!("kv-{n}"), in_dir(&format!("{n}.metrics")));
            shows(&path, &name);
            vm.verb(&["stop", &name]);
            // Its name is free, and its socket removed, when its process has ended.
            let end = Instant::now() + TIMEOUT;
            while is_there(&name) || std::path::Path::new(&path).exists() {
                assert!(Instant::now() < end, "{path} is left behind");
            }
        }
    }
    // Several cannot share one place, which is reported before any is started.
    for one in
        [vmm_lite_lab::unused::address().to_string(), format!("unix:{}", in_dir("one.metrics"))]
    {
        let args = ["fork", "kv", "--count", "2", "--detach", "--metrics", &one];
        let out = Served::command(&vm.dir, &args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("%d"), "{said}");
    }
    for how in [&[][..], &["--lazy"]] {
        let path = in_dir("restored.metrics");
        let metrics = format!("unix:{path}");
        let args = ["restore", &file, "--name", "again", "--metrics", &metrics];
        let command = Served::command(&vm.dir, &[&args[..], how].concat());
        let mut again = Process::start(command).unwrap();
        let end = Instant::now() + TIMEOUT;
        while !is_there("again") {
            assert!(Instant::now() < end && again.is_running(), "{}", again.output());
        }
        shows(&path, "again");
        vm.verb(&["stop", "again"]);
        again.wait(TIMEOUT).unwrap();
    }
}
