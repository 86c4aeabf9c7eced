//! Support for the tests of this crate. Each test binary uses a part of it.
#![allow(dead_code)]

use qemu_harness::machine::PROGRAM;
use qemu_harness::{Accel, Config, Machine, Net, host};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vmm_lite_lab::net::Namespace;
use vmm_lite_lab::site::{Host, Site};
pub use vmm_lite_lab::skipped;
use vmm_lite_lab::{Error, images};

/// How long any step in a guest may take; generous, for busy hosts and for TCG.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The guest's address on the site's data network.
pub const GUEST_IP: &str = "10.0.0.2";

/// Prints a text that libtest does not drop when the test passes.
pub fn aloud(text: &str) {
    // A failure cannot be handled: standard error is closed, and has no reader.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Runs `test` once for each accelerator that this host has, and reports why not for the others.
pub fn each_accel(name: &str, test: impl Fn(Accel)) {
    Accel::ALL.into_iter().filter(|&accel| has(name, accel)).for_each(test);
}

/// Whether this host has an accelerator; if not, reports the test that needs it as skipped.
pub fn has(name: &str, accel: Accel) -> bool {
    match host::why_not(accel) {
        None => true,
        Some(why) => {
            skipped(&format!("{name} with {accel:?}"), why);
            false
        }
    }
}

/// The image of an application, or `None` after reporting why it cannot be built here.
pub fn image(name: &str, app: &str) -> Option<PathBuf> {
    let built = images::image(app).or_else(|error| match error {
        // `cargo test -p qemu-tests` does not build the binary of another package.
        Error::Missing { program, .. } if program == "vmm-lite" => {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            build.args(["build", "--quiet", "--package", "vmm-lite", "--profile", &profile()]);
            build.current_dir(images::workspace());
            vmm_lite_lab::process::run(&mut build)?;
            images::image(app)
        }
        error => Err(error),
    });
    match built {
        Ok(image) => Some(image),
        Err(why @ Error::Missing { .. }) => {
            skipped(name, why);
            None
        }
        Err(error) => panic!("the image of {app}: {error}"),
    }
}

/// The profile that this test was built in: cargo names directories after all but one of them.
fn profile() -> String {
    let test = std::env::current_exe().expect("this program has a path");
    let directory = test.ancestors().nth(2).and_then(Path::file_name).expect("target/PROFILE/deps");
    match directory.to_str() {
        Some("debug") | None => "dev".to_owned(),
        Some(profile) => profile.to_owned(),
    }
}

/// Two hosts and a client, or `None` after reporting why there can be no test bed here.
pub fn site(name: &str) -> Option<Site> {
    match Site::new() {
        Ok(site) => Some(site),
        Err(why @ (Error::Privilege(_) | Error::Missing { .. })) => {
            skipped(name, why);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// An image on the site's data network, with `args`.
pub fn networked(image: PathBuf, accel: Accel, args: &[&str]) -> Config {
    let mut config = Config::new(image, accel);
    config.net = Some(Net { tap: "tap0".into(), mac: "52:54:00:0a:00:02".into() });
    config.boot.ip = Some(format!("{GUEST_IP}/24"));
    config.boot.args = args.iter().map(|&arg| arg.to_owned()).collect();
    config
}

/// Starts a machine on a host.
pub fn start_on(host: &Host, config: &Config) -> Machine {
    Machine::start_with(config, host.ns.command(PROGRAM)).unwrap_or_else(|e| panic!("{e}"))
}

/// A connection to the guest, with timeouts.
pub fn connect(from: &Namespace, port: u16) -> TcpStream {
    let address: SocketAddr = format!("{GUEST_IP}:{port}").parse().expect("an address");
    from.enter(move || -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    })
    .expect("the client's namespace can be entered")
    .unwrap_or_else(|e| panic!("connecting to {address}: {e}"))
}
