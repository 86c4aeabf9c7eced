//! The host's private key: no process that runs a guest has it in its memory, at any point of a
//! move; and a VM moves to the expected host, and to no other trusted one.
//!
//! - [`memory`]: searches a process's memory for a key
//! - [`moves`]: does so at every stage of moves
//! - [`expected`]: the host a VM moves to
//! - [`signers`]: the life cycle of signers

mod expected;
mod memory;
mod moves;
mod signers;

/// Waits until a process has stopped at a fail point: it prints that right before it stops.
#[cfg(debug_assertions)]
fn stops_at(process: &vmm_lite_lab::process::Process, point: &str) {
    use vmm_lite_lab::vmm::TIMEOUT;
    process.wait_for_line(&format!("fail point {point}: Stop"), TIMEOUT).unwrap();
    let deadline = std::time::Instant::now() + TIMEOUT;
    let status = format!("/proc/{}/status", process.pid());
    while !std::fs::read_to_string(&status).unwrap().contains("State:\tT") {
        assert!(std::time::Instant::now() < deadline, "it does not stop at {point}");
        std::thread::yield_now();
    }
}
