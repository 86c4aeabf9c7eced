//! The checks, one file per area.

mod alloc;
mod channels;
mod collections;
mod env;
mod exhaustion;
mod files;
mod folders;
mod io;
mod mio;
mod names;
mod numbers;
mod panics;
mod polling;
mod process;
mod simd;
mod sync;
mod tcp;
mod tcp_ends;
mod tcp_waits;
mod threads;
mod time;
mod tls;
mod udp;

/// All areas, the simplest first: an earlier area checks what a later one needs.
pub const ALL: &[&[crate::check::Check]] = &[
    env::CHECKS,
    numbers::CHECKS,
    simd::CHECKS,
    alloc::CHECKS,
    collections::CHECKS,
    io::CHECKS,
    time::CHECKS,
    threads::CHECKS,
    tls::CHECKS,
    sync::CHECKS,
    channels::CHECKS,
    panics::CHECKS,
    process::CHECKS,
    files::CHECKS,
    folders::CHECKS,
    names::CHECKS,
    tcp::CHECKS,
    tcp_waits::CHECKS,
    tcp_ends::CHECKS,
    udp::CHECKS,
    mio::CHECKS,
    polling::CHECKS,
    exhaustion::CHECKS,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for check in super::ALL.iter().copied().flatten() {
            assert!(seen.insert(check.name), "{} appears twice", check.name);
        }
    }
}
