//! The `vmm-lite` program. See `vmm-lite --help`.
//!
//! - [`cli`]: the verbs
//! - [`control`]: the socket through which other processes control a running VM
//! - [`metrics`]: a VM's metrics for Prometheus

#[macro_use(eprint, eprintln, fail_point, print, println)]
extern crate vmm;

mod cli;
mod control;
mod metrics;

fn main() -> std::process::ExitCode {
    cli::main()
}
