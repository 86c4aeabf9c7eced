//! Figures for Prometheus: what they say, that a scraper understands them, and that a stranger at the endpoint does no harm. And what a move tells of itself.

mod common;

use common::{Elf, TempFile, control, guest, kvm};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use vmm_lite::kvm::Host;
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::CONSOLE_OUT,
};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{PATIENCE, Vmm},
};

guest!(
    says_hi_and_waits,
    "mov dword ptr [{ring}], 0x0a216968", // "hi!\n"
    "mov dword ptr [{head}], 4",
    "mov edx, {port}",
    "2: mov eax, {bits}",
    "out dx, eax",
    "jmp 2b",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    port = const PORT as u32,
    bits = const Doorbell::CONSOLE.0 | Doorbell::WAIT.0,
);

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
        let image = Elf::of(says_hi_and_waits()).file();
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

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks as a scraper does; head and body.
fn get(mut stream: impl Read + Write, target: &str) -> (String, String) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.into(), body.into())
}

/// Checks text as a scraper that is strict about the format and its conventions would.
fn valid(text: &str) {
    let (mut series, mut helped, mut families) = (BTreeSet::new(), BTreeSet::new(), 0);
    let (mut family, mut kind) = ("", "");
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(words.ends_with('.') && helped.insert(name), "{line}");
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            (family, kind) = of.split_once(' ').unwrap();
            families += 1;
            assert!(helped.contains(family), "{line} without HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(family.starts_with("vmm_lite_"), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            for unit in ["_ms", "_ns", "_kib", "_pages"] {
                assert!(!family.ends_with(unit), "{family}: not in base units");
            }
        } else {
            let (name, labels, value) = sample(line);
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(value >= 0.0, "{line}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0), "{line}: twice");
            if kind != "histogram" {
                assert_eq!(name, family, "{line}: not of the family before it");
                continue;
            }
            match name.strip_prefix(family) {
                Some("_bucket") => {
                    let le = labels.iter().find(|(name, _)| name == "le").unwrap();
                    buckets.push((le.1.replace("+Inf", "inf").parse().unwrap(), value));
                }
                Some("_sum") => {}
                Some("_count") => {
                    let counts: Vec<_> = buckets.iter().map(|b| b.1).collect();
                    let bounds: Vec<_> = buckets.drain(..).map(|b| b.0).collect();
                    assert!(bounds.is_sorted_by(|a, b| a < b) && counts.is_sorted(), "{family}");
                    assert_eq!(
                        (bounds.last(), counts.last()),
                        (Some(&f64::INFINITY), Some(&value))
                    );
                }
                _ => panic!("{line}: not of the family before it"),
            }
        }
    }
    assert!(text.ends_with('\n') && families > 15, "{families} families");
}

/// Name, labels and value of a sample, by the grammar.
fn sample(line: &str) -> (&str, Vec<(String, String)>, &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = line.find(|c| !word(c)).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(!label.is_empty() && label.chars().all(word), "{line}");
            let end = after.find('"').unwrap();
            assert!(!after[..end].contains(['\\', '\n']), "{line}: no name here has these");
            labels.push((label.into(), after[..end].into()));
            inside = &after[end + 1..];
            match inside.strip_prefix(',') {
                Some(more) => inside = more,
                None => break,
            }
        }
        rest = inside.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    (name, labels, value)
}

/// The value of a series, written as it is.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn a_scraper_gets_what_the_verb_prints() {
    if !kvm() {
        return;
    }
    let address = free_port();
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
fn strangers_at_the_endpoint_do_no_harm() {
    if !kvm() {
        return;
    }
    let address = free_port();
    let vm = Served::at("strangers", &address.to_string());
    // More idle connections than are served, half requests among them.
    let mut idle: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut idle {
        let _ = stream.write_all(b"GET /met");
    }
    let began = Instant::now();
    valid(&get(TcpStream::connect(address).unwrap(), "/metrics").1);
    assert!(began.elapsed() < Duration::from_secs(2), "strangers do not hold a scraper up");
    // A request without an end, and one that is none.
    for bytes in [vec![b'x'; 1 << 20], vec![0; 100]] {
        let mut stream = TcpStream::connect(address).unwrap();
        // It closes when it has had enough.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    // Someone who asks and never reads is let go.
    let mut deaf = TcpStream::connect(address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    valid(&get(TcpStream::connect(address).unwrap(), "/metrics").1);
    // What was idle is closed after its time.
    idle[39].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(idle[39].read(&mut [0; 16]), Ok(0) | Err(_)));
    assert!(vm.verb(&["stats", "kv"]).contains("running"));
}

#[test]
fn a_socket_in_the_file_system_comes_and_goes() {
    if !kvm() {
        return;
    }
    let path = std::env::temp_dir().join(format!("vmm-lite-metrics-{}.sock", std::process::id()));
    // Left behind by somebody who died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut vm = Served::at("unix", &format!("unix:{}", path.display()));
    valid(&get(UnixStream::connect(&path).unwrap(), "/metrics").1);
    vm.verb(&["stop", "kv"]);
    vm.child.wait().unwrap();
    assert!(!path.exists(), "it is gone with the VM");
}

/// A VM that comes back has an endpoint as one that is started has, and each of several its own.
#[test]
fn copies_have_endpoints_of_their_own() {
    if !kvm() {
        return;
    }
    let vm = Served::at("copies", &free_port().to_string());
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
            // Its name is free, and its socket gone, when its process has ended.
            let end = Instant::now() + PATIENCE;
            while is_there(&name) || std::path::Path::new(&path).exists() {
                assert!(Instant::now() < end, "{path} is left behind");
            }
        }
    }
    // Several cannot have one place, which is said before one is started.
    for one in [free_port().to_string(), format!("unix:{}", in_dir("one.metrics"))] {
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
        let end = Instant::now() + PATIENCE;
        while !is_there("again") {
            assert!(Instant::now() < end && again.is_running(), "{}", again.output());
        }
        shows(&path, "again");
        vm.verb(&["stop", "again"]);
        again.wait(PATIENCE).unwrap();
    }
}

/// Two hosts and dirtier on the first.
fn moving(test: &str) -> Option<(Site, [Vmm; 2], Process)> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    let vm = vmms[0].run(&image("dirtier").unwrap(), &args).unwrap();
    vm.wait_for_line("nonce", PATIENCE).unwrap();
    Some((site, vmms, vm))
}

#[test]
fn what_a_vm_went_through_moves_with_it() {
    let Some((_site, [here, there], vm)) = moving("history of moves") else { return };
    here.migrate("d", &there.url(7999)).unwrap_err();
    let mut vm = vm;
    let mut reported = 0;
    for (from, to) in [(&here, &there), (&there, &here)] {
        let next = to.receive(7000, &[]).unwrap();
        reported += from.migrate("d", &to.url(7000)).unwrap()["blackout_ns"].as_u64().unwrap();
        // Its name is free on that host again.
        vm.wait(PATIENCE).unwrap();
        vm = next;
    }
    let history = here.json(&["stats", "d", "--json"]).unwrap()["history"].clone();
    let n = |v: &Value| v.as_u64().unwrap();
    assert_eq!((n(&history["moves_arrived"]), n(&history["moves_failed"])), (2, 1), "{history}");
    let counts = history["blackout"]["counts"].as_array().unwrap();
    assert_eq!(counts.iter().map(n).sum::<u64>(), 2);
    // Both err upwards, each by one way of a message; the destinations' also by a look at what is dirty.
    let seen = n(&history["blackout"]["sum_ns"]);
    assert!(seen > reported / 2 && seen < reported + 100_000_000, "{seen} and {reported} ns");
    let settled = history["brownout"]["counts"].as_array().unwrap();
    let told = if Host::open().unwrap().fault_cost().is_ok() { 2 } else { 0 };
    assert_eq!(settled.iter().map(n).sum::<u64>(), told, "{history}");
    let quiesced = history["quiesce"]["counts"].as_array().unwrap();
    assert_eq!(quiesced.iter().map(n).sum::<u64>(), 2, "{history}");
    let mut command = here.command(&["stats", "d", "--prometheus"]).unwrap();
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    valid(&text);
    assert_eq!(value(&text, "vmm_lite_moves_total{vm=\"d\",outcome=\"arrived\"}"), 2.0);
    assert_eq!(value(&text, "vmm_lite_move_blackout_seconds_bucket{vm=\"d\",le=\"+Inf\"}"), 2.0);
    let count = value(&text, "vmm_lite_move_brownout_seconds_count{vm=\"d\"}");
    assert_eq!(count, told as f64);
    here.json(&["stop", "d", "--json"]).unwrap();
}

#[test]
fn a_look_at_the_dirty_rate_gives_way_to_a_move() {
    let Some((_site, [here, there], vm)) = moving("dirty rate") else { return };
    let stats = here.json(&["stats", "d", "--json", "--dirty-rate", "50"]).unwrap();
    let pages = stats["dirty_rate"]["pages_per_second"].as_u64().unwrap();
    // It writes its 64 pages all the time, and each counts once.
    assert!((64 * 5..1_000_000).contains(&pages), "{pages} pages a second");
    let mut look = here.command(&["stats", "d", "--json", "--dirty-rate", "10000"]).unwrap();
    let looking = Process::start({
        look.stdin(Stdio::null());
        look
    })
    .unwrap();
    let next = there.receive(7000, &[]).unwrap();
    here.migrate("d", &there.url(7000)).unwrap();
    drop((looking, vm));
    let line = next.wait_for_line("passes=", PATIENCE).unwrap();
    assert!(line.contains("errors=0"), "memory is whole: {line}");
    there.json(&["stop", "d", "--json"]).unwrap();
}

#[test]
fn a_move_tells_what_it_does() {
    let Some((_site, [here, there], vm)) = moving("events of a move") else { return };
    let migrate = |url: &str| {
        let out = here.command(&["migrate", "d", url, "--json"]).unwrap().output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<Value>>();
        (out.status.code(), lines)
    };
    let (code, lines) = migrate(&there.url(7999));
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:?}");
    assert_eq!(lines[0]["doing"], "connecting");
    assert_eq!(lines[1]["event"], "failed");
    assert!(lines[1]["error"].as_str().unwrap().contains("cannot reach"), "{lines:?}");
    let small = there.receive(7001, &["--memory-max", "8M"]).unwrap();
    let (code, lines) = migrate(&there.url(7001));
    assert_eq!(code, Some(1));
    assert_eq!(lines.first().unwrap()["event"], "phase", "{lines:?}");
    assert_eq!(lines.last().unwrap()["event"], "failed", "{lines:?}");
    drop(small);
    let next = there.receive(7000, &[]).unwrap();
    let (code, lines) = migrate(&there.url(7000));
    assert_eq!(code, Some(0));
    let (report, events) = lines.split_last().unwrap();
    assert!(report["blackout_ns"].as_u64().unwrap() > 0 && report["event"].is_null(), "{report}");
    let of = |kind: &'static str| events.iter().filter(move |e| e["event"] == kind);
    let rounds: Vec<_> = of("round").map(|e| e["round"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (1..=report["rounds"].as_u64().unwrap()).collect();
    assert_eq!(rounds, expected, "{events:?}");
    let pages: u64 = of("round").map(|e| e["pages"].as_u64().unwrap()).sum();
    // Some may have followed after the switch.
    let last = report["last_pages"].as_u64().unwrap();
    assert!(pages > 0 && pages + last <= report["pages_sent"].as_u64().unwrap(), "{report}");
    assert!(of("round").all(|e| e["predicted_blackout_ns"].as_u64().unwrap() > 0), "{events:?}");
    let doing: Vec<_> = of("phase").map(|e| e["doing"].as_str().unwrap()).collect();
    for phase in ["offering the VM", "copying memory", "stopping the guest", "done"] {
        assert!(doing.contains(&phase), "{phase} in {doing:?}");
    }
    let times: Vec<_> = events.iter().map(|e| e["at_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    there.json(&["stop", "d", "--json"]).unwrap();
    drop((vm, next));
}
