//! The applications' images under vmm-lite, as a user runs them: their input, their output, how
//! they end, and their clients.

#[path = "programs/heap.rs"]
mod heap;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use vmm_lite_lab::{
    images::{image, vmm_lite},
    privilege,
    process::Process,
    redis,
    runtime_dir::RuntimeDir,
    site::Site,
    skipped,
    vmm::{TIMEOUT, Vmm},
};

/// How long all checks of std may take, on a busy host.
const LONG: Duration = Duration::from_secs(300);

/// `vmm-lite run IMAGE OPTIONS -- ARGS`, with a runtime directory that exists as long.
fn command(image: &Path, options: &[&str], args: &[&str]) -> (Command, RuntimeDir) {
    let runtime = RuntimeDir::new().unwrap();
    let mut command = Command::new(vmm_lite().unwrap());
    command.arg("run").arg(image).args(options).arg("--").args(args);
    command.env("XDG_RUNTIME_DIR", runtime.path());
    (command, runtime)
}

/// The image of an application, or `None` after printing why it cannot run here.
fn app(test: &str, name: &str) -> Option<PathBuf> {
    if let Err(e) = privilege::kvm() {
        skipped(test, e);
        return None;
    }
    Some(image(name).unwrap())
}

fn run(image: &Path, options: &[&str], args: &[&str], input: &[u8]) -> Output {
    let (mut command, _runtime) = command(image, options, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // In parallel with reading, as the program may block on its output before it reads more. A
    // program that has ended reads no input.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn arguments_environment_input_and_exit_code_get_through() {
    let Some(hello) = app("hello's input and output", "hello") else { return };
    let out = run(&hello, &["--env", "COLOUR=deep blue"], &["--env", "--exit", "3"], b"");
    assert_eq!(out.status.code(), Some(3));
    assert!(text(&out.stdout).contains("env COLOUR=deep blue\n"), "{}", text(&out.stdout));
    assert_eq!(text(&out.stderr), "", "what is printed is the program's");
    let out = run(&hello, &[], &["--args", "one", "two words", "ünï"], b"");
    assert!(
        text(&out.stdout).ends_with("arg 0: one\narg 1: two words\narg 2: ünï\n"),
        "{}",
        text(&out.stdout)
    );
    // More than any ring or pipe holds, up to the end.
    let input: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let out = run(&hello, &[], &["--cat"], input.as_bytes());
    assert!(out.stdout.ends_with(input.as_bytes()), "{} bytes came back", out.stdout.len());
}

#[test]
fn std_behaves_as_it_does_natively() {
    const TEST: &str = "std-check";
    /// Reasons to skip a check in a guest: the README lists these limits.
    const LIMITS: [&str; 4] = [
        "a panic ends the program here",
        "std for hermit ",
        "a unikernel has one process",
        "this system has no IPv6",
    ];
    let Some(image) = app(TEST, "std-check") else { return };
    let (mut command, _runtime) = command(&image, &["--memory", "128M"], &[]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut vm = Process::start(command).unwrap();
    let status = vm.wait(LONG).unwrap();
    let guest = vm.output();
    let failed: Vec<&str> = guest.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(failed.is_empty() && status.success(), "{status}: {failed:#?}");
    let skips: Vec<&str> = guest.lines().filter(|line| line.starts_with("skip ")).collect();
    for line in &skips {
        let (_, why) = line.split_once(": ").unwrap_or((line, ""));
        assert!(LIMITS.iter().any(|limit| why.starts_with(limit)), "{line}");
    }

    let native = vmm_lite().unwrap().with_file_name("std-check");
    if !native.exists() {
        return skipped("std-check beside its native run", "it is not built in this profile");
    }
    let native = Command::new(native).stdin(Stdio::null()).output().unwrap();
    assert!(native.status.success(), "{}", text(&native.stdout));
    let native = text(&native.stdout);
    let names = |of: &str, word: &str| -> Vec<String> {
        let line = |l: &str| Some(l.strip_prefix(word)?.split(':').next()?.trim().to_owned());
        of.lines().filter_map(line).collect()
    };
    let passed = names(&guest, "ok ");
    let skipped = names(&guest, "skip ");
    for name in names(&native, "ok ") {
        assert!(passed.contains(&name) || skipped.contains(&name), "{name} holds natively only");
    }
    let all = |of: &str| names(of, "ok ").len() + names(of, "skip ").len();
    assert_eq!(all(&guest), all(&native), "the same checks, by number");
}

/// `vmm-lite symbols` names the same functions as a report, from the addresses alone: where a VM
/// has moved to there is no image.
fn names_are_found_later(image: &Path, report: &str) {
    let lines = report.lines().filter_map(|line| {
        let (at, line) = match line.strip_prefix("  at ") {
            Some(line) => (true, line),
            None => (false, line.strip_prefix("     ")?),
        };
        let (address, name) = line.strip_prefix("0x")?.split_once(' ')?;
        let address = u64::from_str_radix(address, 16).ok()?;
        Some((if at { address } else { address - 1 }, name))
    });
    let (addresses, names): (Vec<_>, Vec<_>) = lines.unzip();
    assert!(!names.is_empty(), "{report}");
    let mut command = Command::new(vmm_lite().unwrap());
    command.arg("symbols").arg(image).args(addresses.iter().map(|a| format!("{a:#x}")));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let found = text(&out.stdout);
    let found: Vec<_> = found.lines().filter_map(|l| Some(l.split_once(' ')?.1)).collect();
    assert_eq!(found, names);
}

#[test]
fn a_program_that_fails_is_reported_with_its_functions_names() {
    let Some(image) = app("std-check --die", "std-check") else { return };
    for (way, code, report, function) in [
        ("panic", 101, "asked to panic", ""),
        ("panic-thread", 101, "asked to panic in a thread", ""),
        ("abort", 134, "the program aborted", "std::process::abort"),
        ("overflow", 139, "stack overflow", "std_check::die::"),
        ("overflow-thread", 139, "stack overflow", "std_check::die::"),
        ("null", 139, "read of address 0x10,", "std_check::die::"),
        ("wild", 139, "read of address 0x6000dead0000,", "std_check::die::"),
        ("write-text", 139, "write to address 0x", "std_check::die::"),
        ("exec-heap", 139, "jump to address 0x", ""),
        ("illegal", 132, "illegal instruction", "std_check::die::illegal"),
        ("oom", 134, "memory allocation of 9223372036854771711 bytes failed", ""),
        ("fill", 134, "memory allocation of ", "std_check::die::fill"),
        ("deadlock", 134, "deadlock: every thread waits", "std_check::die::deadlock"),
        ("exit=42", 42, "", ""),
        ("return=7", 7, "", ""),
    ] {
        let out = run(&image, &[], &["--die", way], b"");
        let said = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "--die {way}: {said}");
        assert!(said.contains(report), "--die {way}: {report:?} is not in {said}");
        assert!(said.contains(function), "--die {way}: {function:?} is not in {said}");
        // A panic prints its own message, and an exit prints nothing.
        if said.contains("the guest failed") {
            names_are_found_later(&image, &said);
        }
    }
}

/// A test bed with a network, the program that serves there, and its output.
fn served(test: &str, name: &str, args: &[&str], up: &str) -> Option<(Site, Process)> {
    let image = app(test, name)?;
    let site = match privilege::tun().and_then(|()| Site::new()) {
        Ok(site) => site,
        Err(e @ (vmm_lite_lab::Error::Privilege(_) | vmm_lite_lab::Error::Missing { .. })) => {
            skipped(test, e);
            return None;
        }
        Err(e) => panic!("{e}"),
    };
    let host = Vmm::on(&site.hosts[0]).unwrap();
    let mut all = vec!["--name", name, "--tap", "tap0", "--ip", "10.0.0.2/24", "--"];
    all.extend(args);
    let vm = host.run(&image, &all).unwrap();
    vm.wait_for_line(up, TIMEOUT).unwrap();
    Some((site, vm))
}

fn connect(site: &Site, port: u16) -> TcpStream {
    let address: SocketAddr = ([10, 0, 0, 2], port).into();
    let stream =
        site.client.enter(move || TcpStream::connect_timeout(&address, TIMEOUT)).unwrap().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

#[test]
fn echo_gives_back_streams_and_datagrams() {
    let Some((site, _vm)) = served("echo", "echo", &["7777"], "echo: TCP on") else { return };
    let mut tcp = connect(&site, 7777);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
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
    udp.set_read_timeout(Some(TIMEOUT)).unwrap();
    udp.send_to(b"a datagram", "10.0.0.2:7777").unwrap();
    let mut buffer = [0; 64];
    assert_eq!(udp.recv(&mut buffer).unwrap(), 10);
    assert_eq!(&buffer[..10], b"a datagram");
}

#[test]
fn http_serves_its_pages() {
    let Some((site, _vm)) = served("http", "http", &["--port", "80"], ":80") else { return };
    let get = |path: &str| {
        let mut tcp = connect(&site, 80);
        write!(tcp, "GET {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("# TYPE "), "{metrics}");
    assert!(get("/no-such-page").starts_with("HTTP/1.1 404"));
}

#[test]
fn kv_passes_redis_benchmarks_default_tests() {
    const TEST: &str = "redis-benchmark";
    let Some((site, mut vm)) = served(TEST, "kv", &[], "6379") else { return };
    let server = "10.0.0.2:6379".parse().unwrap();
    // It ends with an error at the first error reply.
    let rows = match redis::benchmark(&site.client, server, &["-n", "2000", "-P", "4"]) {
        Err(e @ vmm_lite_lab::Error::Missing { .. }) => return skipped(TEST, e),
        rows => rows.unwrap(),
    };
    let tests: Vec<&str> = rows.iter().map(|row| row.test.as_str()).collect();
    for name in [
        "PING_INLINE",
        "PING_MBULK",
        "SET",
        "GET",
        "INCR",
        "LPUSH",
        "RPUSH",
        "LPOP",
        "RPOP",
        "SADD",
        "HSET",
        "SPOP",
        "ZADD",
        "ZPOPMIN",
        "LRANGE_100",
        "LRANGE_300",
        "LRANGE_500",
        "LRANGE_600",
        "MSET",
    ] {
        assert!(tests.iter().any(|test| test.starts_with(name)), "no {name} among {tests:?}");
    }
    assert_eq!(redis::cli(&site.client, server, &["PING"]).unwrap(), "PONG");
    assert!(vm.is_running(), "{}", vm.output());
}

#[test]
fn data_that_a_program_sent_leaves_however_it_ends() {
    const TEST: &str = "last words";
    let Some(image) = app(TEST, "std-check") else { return };
    let site = match privilege::tun().and_then(|()| Site::new()) {
        Ok(site) => site,
        Err(e @ (vmm_lite_lab::Error::Privilege(_) | vmm_lite_lab::Error::Missing { .. })) => {
            return skipped(TEST, e);
        }
        Err(e) => panic!("{e}"),
    };
    let host = Vmm::on(&site.hosts[0]).unwrap();
    // A fault ends the kernel with the program: only what the device already had leaves.
    let ways =
        [("exit=0", true), ("return=3", true), ("panic", true), ("abort", true), ("null", false)];
    for (way, streams) in ways {
        let (udp, tcp) = site
            .client
            .enter(|| {
                let tcp = std::net::TcpListener::bind("10.0.0.100:0")?;
                Ok::<_, std::io::Error>((UdpSocket::bind(tcp.local_addr()?)?, tcp))
            })
            .unwrap()
            .unwrap();
        udp.set_read_timeout(Some(TIMEOUT)).unwrap();
        let to = tcp.local_addr().unwrap().to_string();
        let options = ["--name", "last", "--tap", "tap0", "--ip", "10.0.0.2/24", "--"];
        let args = ["--send", &to, "--die", way];
        let mut vm = host.run(&image, &[&options[..], &args].concat()).unwrap();
        let (mut stream, _) = tcp.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The program continues once there was room for nearly all of it.
        let reads = std::thread::spawn(move || {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).map(|_| got.len())
        });
        for number in 0..10 {
            let mut buffer = [0; 9];
            let n = udp.recv(&mut buffer).unwrap_or_else(|e| panic!("{way}: {number}: {e}"));
            assert_eq!(&buffer[..n], &[number], "{way}");
        }
        vm.wait(TIMEOUT).unwrap();
        if streams {
            let got = reads.join().unwrap();
            assert_eq!(got.unwrap_or_else(|e| panic!("{way}: {e}")), 200_000, "{way}");
        }
    }
}

#[test]
fn a_deadlock_is_noticed_on_a_network_too() {
    const TEST: &str = "a deadlock with a network";
    let args = ["--die", "deadlock"];
    let Some((_site, mut vm)) = served(TEST, "std-check", &args, "deadlock") else { return };
    assert_eq!(vm.wait(TIMEOUT).unwrap().code(), Some(134));
    assert!(vm.output().contains("deadlock: every thread waits"), "{}", vm.output());
}
