//! The key-value store under redis-benchmark: as a unikernel, as a native process on the same host,
//! and redis-server there.
//!
//! The same client reaches all three over the same bridges; the unikernel behind a TAP, the
//! processes at the host's own address.

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    images::{image, installed, workspace},
    probe::Connection,
    process::{Process, run as run_command},
    redis::{BenchmarkRow, benchmark},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

use crate::{options::Options, system::GUEST_IP};

const PORT: u16 = 6379;

/// One server at one pipeline depth.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// The name of the server.
    pub server: String,
    /// `redis-benchmark -P`.
    pub pipeline: u32,
    /// The results of redis-benchmark.
    pub rows: Vec<BenchmarkRow>,
}

/// Measures every server at every depth, one server at a time so that no other takes its CPU.
pub fn run(options: &Options) -> Result<Vec<Throughput>> {
    installed("redis-server", "redis-server")?;
    let image = image("kv")?;
    let native = native_kv()?;
    let site = Site::new()?;
    let host = &site.hosts[0];
    let vmm = Vmm::on(host)?;
    let mut results = Vec::new();
    for pipeline in [1, 16] {
        let cidr = format!("{GUEST_IP}/24");
        let guest =
            vmm.run(&image, &["--name", "kv", "--memory", "64M", "--tap", "tap0", "--ip", &cidr])?;
        results.push(measure(&site, options, "kv as a unikernel", GUEST_IP, pipeline, guest)?);

        let mut command = host.ns.command(&native);
        command.args(["--port", &PORT.to_string()]);
        results.push(measure(
            &site,
            options,
            "kv as a process",
            &host.data_ip,
            pipeline,
            Process::start(command)?,
        )?);

        let mut command = host.ns.command("redis-server");
        command.args([
            "--port",
            &PORT.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
        ]);
        results.push(measure(
            &site,
            options,
            "redis-server",
            &host.data_ip,
            pipeline,
            Process::start(command)?,
        )?);
    }
    Ok(results)
}

fn measure(
    site: &Site,
    options: &Options,
    server: &str,
    ip: &str,
    pipeline: u32,
    process: Process,
) -> Result<Throughput> {
    let at: SocketAddr = format!("{ip}:{PORT}").parse().expect("constants");
    drop(Connection::open_when_up(&site.client, at, TIMEOUT)?);
    let (requests, depth) = (options.requests.to_string(), pipeline.to_string());
    let rows =
        benchmark(&site.client, at, &["-t", "set,get", "-n", &requests, "-c", "50", "-P", &depth])?;
    drop(process);
    eprintln!("throughput: {server}, -P {pipeline}");
    Ok(Throughput { server: server.into(), pipeline, rows })
}

/// The same program for the host, optimized as the image is.
fn native_kv() -> Result<PathBuf> {
    let mut cargo =
        std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run_command(cargo.current_dir(workspace()).args(["build", "--release", "-p", "kv"]))?;
    let path = target_dir().join("release/kv");
    if path.exists() { Ok(path) } else { Err(Error::NoFile(path)) }
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
