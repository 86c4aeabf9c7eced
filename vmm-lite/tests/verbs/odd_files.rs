//! Paths that refer to something other than a regular file.

use super::{Elf, Host, Running, exits_at_once, greets_and_obeys, kvm, text};
use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a verb that must not wait for another process.
fn at_once(host: &Host, args: &[&str]) -> Output {
    ends(host.command(args))
}

/// Runs a command that must end by itself.
pub fn ends(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn every_verb_refuses_at_once_a_path_that_is_no_regular_file() {
    if !kvm() {
        return;
    }
    let host = Host::new("odd-files");
    let at = |name: &str| host.dir.join(name).to_str().unwrap().to_owned();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    let _vm = host.start(greets_and_obeys());
    let good = at("good.snap");
    assert!(at_once(&host, &["snapshot", "kv", &good]).status.success());
    for name in ["fifo", "link", "device", "socket"] {
        let odd = &at(name);
        let new = &at("new.snap");
        let cases: [&[&str]; 9] = [
            &["run", odd],
            &["restore", odd, "--name", "other"],
            &["inspect", odd],
            &["revert", "kv", odd],
            &["merge", &good, odd, "-o", new],
            &["merge", odd, &good, "-o", new],
            &["merge", &good, &good, "-o", odd],
            &["snapshot", "kv", odd],
            &["snapshot", "kv", new, "--diff", odd],
        ];
        for args in cases {
            let out = at_once(&host, args);
            let said = text(&out.stderr);
            assert!(!out.status.success(), "{args:?}");
            assert!(said.contains("not a regular file"), "{args:?}: {said}");
        }
        let there = fs::symlink_metadata(odd).unwrap().file_type();
        assert!(there.is_fifo() || there.is_symlink() || there.is_socket(), "{name} is there");
    }
    assert!(!Path::new(&at("new.snap")).exists());
    assert!(host.run(&["stop", "kv"]).status.success());
}

#[test]
fn a_journal_that_is_no_directory_of_files_is_refused_at_once() {
    let host = Host::new("odd-journals");
    let at = |name: &str| host.dir.join(name).to_str().unwrap().to_owned();
    let mkfifo = |path: &str| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    mkfifo(&at("fifo"));
    fs::create_dir(at("directory")).unwrap();
    mkfifo(&at("directory/journal"));
    for (name, why) in [("fifo", "Not a directory"), ("directory", "not a regular file")] {
        for args in [&["replay", &at(name)][..], &["restore", "--journal", &at(name)]] {
            let out = at_once(&host, args);
            let said = text(&out.stderr);
            assert!(!out.status.success() && said.contains(why), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_fifo_named_like_a_left_over_file_does_not_hold_up_a_snapshot() {
    if !kvm() {
        return;
    }
    let host = Host::new("left-over");
    let _vm = host.start(greets_and_obeys());
    let path = host.dir.join("kv.snap");
    let snapshot = || at_once(&host, &["snapshot", "kv", path.to_str().unwrap()]);
    assert!(snapshot().status.success());
    // Each file is made under some name, and then gets that of a left-over file with its inode
    // number.
    for name in ["fifo", "1.0", "bak"] {
        let made = host.dir.join(format!(".kv.snap.{name}"));
        if name == "fifo" {
            assert!(Command::new("mkfifo").arg(&made).status().unwrap().success());
            let inode = fs::metadata(&made).unwrap().ino();
            fs::rename(&made, host.dir.join(format!(".kv.snap.{inode}.vmm-lite-new"))).unwrap();
        } else {
            fs::write(&made, "a user's").unwrap();
        }
    }
    let old_pattern = host.dir.join(".kv.snap.2.0");
    assert!(Command::new("mkfifo").arg(&old_pattern).status().unwrap().success());
    let count = || fs::read_dir(&host.dir).unwrap().count();
    let before = count();
    assert!(snapshot().status.success());
    assert_eq!(count(), before, "nothing of the user's is gone");
    assert!(host.run(&["stop", "kv"]).status.success());
}

#[test]
fn identities_and_names_do_not_wait_for_fifos() {
    if !kvm() {
        return;
    }
    let host = Host::new("odd-identity");
    let mkfifo = |path: &Path| {
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(path).status().unwrap().success());
    };
    let dir = host.dir.join("identity");
    let identity = |args: &[&str]| {
        at_once(&host, &[&["identity"], args, &["--identity", dir.to_str().unwrap()]].concat())
    };
    for name in ["key.pem", "certificate.pem", "trusted", ".lock"] {
        assert!(identity(&["init"]).status.success());
        let _ = fs::remove_file(dir.join(name));
        mkfifo(&dir.join(name));
        for args in [&["show"][..], &["list"], &["renew"], &["init"]] {
            let _ = identity(args);
        }
        let out = identity(&["renew"]);
        assert!(!out.status.success() || name == "trusted", "{name}: {}", text(&out.stderr));
        fs::remove_dir_all(&dir).unwrap();
    }
    // The directory of control sockets.
    let image = Elf::of(exits_at_once()).file();
    let run = || at_once(&host, &["run", image.path().to_str().unwrap(), "--name", "kv"]);
    assert_eq!(run().status.code(), Some(3));
    let sockets = host.dir.join("vmm-lite");
    mkfifo(&sockets.join("kv.lock"));
    assert!(!run().status.success());
    // It does not block the others.
    let image = Elf::of(greets_and_obeys()).file();
    let mut command = host.command(&["run", image.path().to_str().unwrap(), "--name", "other"]);
    let mut other = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(other.first_line(), "hi!\n");
    let out = at_once(&host, &["ps"]);
    assert!(text(&out.stdout).contains("other"), "{}", text(&out.stderr));
    drop(other);
    fs::remove_file(sockets.join("kv.lock")).unwrap();
    let _ = fs::remove_file(sockets.join(".lock"));
    mkfifo(&sockets.join(".lock"));
    assert!(!run().status.success());
    let _ = at_once(&host, &["ps"]);
}
