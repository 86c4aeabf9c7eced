//! What this user may do on this host.
//!
//! Namespaces and TAPs need `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`. Root has them; other users get
//! them inside a user namespace, where the kernel allows one. A program calls
//! [`enter_user_namespace_if_needed`] first in `main`, before it starts a thread.

use std::{env, os::unix::process::CommandExt, path::Path, process::Command};

use crate::error::{Error, Result};

/// Set in the environment of a program that was restarted inside a user namespace.
const MARK: &str = "VMM_LITE_LAB_IN_USERNS";

/// Restarts the program inside a user namespace if it is not root; returns if that is not needed.
///
/// # Errors
/// [`Error::Privilege`] with a remedy, if user namespaces are not allowed.
pub fn enter_user_namespace_if_needed() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    if env::var_os(MARK).is_some() {
        return Err(Error::Privilege("inside the user namespace this is still not root".into()));
    }
    let me = env::current_exe()
        .map_err(|source| Error::Io { what: "find this program".into(), source })?;
    let allowed =
        Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).output();
    if !allowed.is_ok_and(|o| o.status.success()) {
        return Err(Error::Privilege(
            "this needs root, or user namespaces, which are not allowed here \
             (sysctl kernel.unprivileged_userns_clone=1 allows them)"
                .into(),
        ));
    }
    let source = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(me)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    Err(Error::Io { what: "start again inside a user namespace".into(), source })
}

/// `Ok`, or why VMs cannot run here.
///
/// # Errors
/// [`Error::Privilege`] or [`Error::NoFile`] for `/dev/kvm`.
pub fn kvm() -> Result<()> {
    usable("/dev/kvm", "add the user to the group kvm")
}

/// `Ok`, or why TAP devices cannot be used here.
///
/// # Errors
/// [`Error::Privilege`] or [`Error::NoFile`] for `/dev/net/tun`.
pub fn tun() -> Result<()> {
    usable("/dev/net/tun", "run as root")
}

fn usable(device: &str, help: &str) -> Result<()> {
    if !Path::new(device).exists() {
        return Err(Error::NoFile(device.into()));
    }
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::Privilege(format!("cannot open {device} ({e}): {help}"))),
    }
}
