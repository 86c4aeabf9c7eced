//! Damaged files, and files that find no space.

use crate::lab::{Lab, dirtier_is_whole};
use std::{os::unix::fs::FileExt, path::Path};
use vmm_lite_lab::vmm::TIMEOUT;

/// Copies a file with one bit flipped.
pub fn damage(from: &str, to: &str, at: u64) {
    std::fs::copy(from, to).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(to).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn damage_is_found_before_a_guest_uses_it() {
    let Some(lab) = Lab::new("damaged snapshots", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    lab.snapshot("d", &file);
    lab.stop("d", vm);
    let len = std::fs::metadata(&file).unwrap().len();
    let bad = lab.file("bad.snap");
    for (at, what) in [(20, "header"), (len - 5, "state"), (4096 + 300 * 4096, "page")] {
        damage(&file, &bad, at);
        for verb in ["restore", "inspect"] {
            let said = lab.said(&[verb, &bad]);
            assert!(said.contains("damaged") && said.contains(what), "{said}");
        }
    }
    // With --lazy the VM has begun to run by then, and ends before it uses the page. It needs all
    // of its pages sooner or later.
    let mut vm = lab.start(&["restore", &bad, "--lazy"]);
    let ended = vm.wait(TIMEOUT).unwrap();
    assert_eq!(ended.code(), Some(125), "{}", vm.output());
    assert!(vm.output().contains("checksum of memory page"), "{}", vm.output());
    assert!(!vm.output().contains("errors=1"), "{}", vm.output());
    // A truncated file, and a file of another kind.
    std::fs::copy(&file, &bad).unwrap();
    std::fs::File::options().write(true).open(&bad).unwrap().set_len(len - 1).unwrap();
    assert!(lab.said(&["restore", &bad]).contains("incomplete"));
    let image = lab.image.to_str().unwrap();
    assert!(lab.said(&["restore", image]).contains("this is no snapshot of a VM"));
    assert!(lab.said(&["restore", &file, "--tap", "tap0"]).contains("has no network"));
}

#[test]
fn a_snapshot_without_space_leaves_nothing_behind() {
    let Some(lab) = Lab::new("snapshots to a full disk", "dirtier") else { return };
    let vm = lab.dirtier();
    // A disk of one megabyte, for this one process.
    let full = lab.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$1\" && \"$2\" snapshot d \"$1/d.snap\"; \
        code=$?; ls -A \"$1\"; exit $code";
    let program = vmm_lite_lab::images::vmm_lite().unwrap();
    let mut command = lab.vmm.command(&[]).unwrap();
    let runtime = command.get_envs().find(|(k, _)| *k == "XDG_RUNTIME_DIR").unwrap().1.unwrap();
    let mut shell = lab.vmm.host().ns.command("unshare");
    shell.args(["-m", "sh", "-c", script, "sh"]).arg(&full).arg(&program);
    shell.env("XDG_RUNTIME_DIR", runtime);
    let out = shell.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("No space left on device"), "{said}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "", "nothing is left behind");
    command.env_clear();

    // A process that may write only small files.
    let limit = |resource, bytes: libc::rlim_t| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        let pid = vm.pid() as libc::pid_t;
        // SAFETY: the limit is valid, and the process is a running child.
        let r = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(r, 0);
    };
    limit(libc::RLIMIT_FSIZE, 100_000);
    let file = lab.file("d.snap");
    let said = lab.said(&["snapshot", "d", &file]);
    assert!(said.contains("File too large"), "{said}");
    assert!(!Path::new(&file).exists());
    assert!(lab.said(&["snapshot", "d", "/nonexistent/d.snap"]).contains("cannot write"));
    limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);

    // A VM with memory for its work, and none for a second VM beside it.
    lab.snapshot("d", &file);
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let size = status.lines().find_map(|l| l.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    limit(libc::RLIMIT_AS, (size + (8 << 10)) << 10);
    let said = lab.said(&["revert", "d", &file]);
    assert!(said.contains("cannot get 16777216 bytes of memory"), "{said}");
    limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
    lab.json(&["revert", "d", &file, "--json"]);

    // After all these failures it keeps running, and can be saved.
    lab.snapshot("d", &file);
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
    let vm = lab.start(&["restore", &file]);
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
}
