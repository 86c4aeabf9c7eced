//! From exec to the first line of output: hello under vmm-lite and under QEMU microvm, alternately.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use qemu_harness::{Config, Machine};
use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    images::{image, vmm_lite},
    stats::{Summary, summary},
    vmm::TIMEOUT,
};

use crate::{
    options::Options,
    system::{accel, qemu_error},
};

/// One system's cold starts.
#[derive(Clone, Debug, Serialize)]
pub struct ColdStart {
    /// vmm-lite, or QEMU with its accelerator.
    pub system: String,
    /// From exec until the first line was read, ns.
    pub first_line_ns: Summary,
}

/// Starts each of them, alternately.
pub fn run(options: &Options) -> Result<Vec<ColdStart>> {
    let hello = image("hello")?;
    let vmm = vmm_lite()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..options.starts {
        ours.push(start_vmm_lite(&vmm, &hello)?);
        theirs.push(start_qemu(&hello)?);
        if (n + 1) % 20 == 0 {
            eprintln!("cold starts: {} of {}", n + 1, options.starts);
        }
    }
    Ok(vec![
        ColdStart { system: "vmm-lite".into(), first_line_ns: summary(&ours) },
        ColdStart {
            system: format!("QEMU microvm ({:?})", accel()),
            first_line_ns: summary(&theirs),
        },
    ])
}

fn start_vmm_lite(vmm: &Path, hello: &Path) -> Result<u64> {
    let io = |source| Error::Io { what: "run hello under vmm-lite".into(), source };
    let began = Instant::now();
    let mut child = Command::new(vmm)
        .arg("run")
        .arg(hello)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(io)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).map_err(io)?;
    let took = began.elapsed().as_nanos() as u64;
    let status = child.wait().map_err(io)?;
    if line.is_empty() || !status.success() {
        return Err(Error::Protocol {
            what: "hello under vmm-lite".into(),
            said: format!("{line:?}, {status}"),
        });
    }
    Ok(took)
}

fn start_qemu(hello: &Path) -> Result<u64> {
    let mut machine = Machine::start(&Config::new(hello, accel())).map_err(qemu_error)?;
    let spawned = machine.spawned();
    machine.wait_exit(TIMEOUT).map_err(qemu_error)?;
    let first =
        machine.console().first_byte().ok_or_else(|| qemu_error("hello printed nothing"))?;
    Ok((first - spawned).as_nanos() as u64)
}
