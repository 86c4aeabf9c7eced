//! Opens KVM, and makes a VM with its memory.

use super::{DirtyLog, Error, Vcpu, cpu, failed};
use crate::memory::GuestRam;
use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use std::{
    ffi::CString,
    io,
    os::fd::FromRawFd,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};

/// Path of KVM's device.
pub const DEVICE: &str = "/dev/kvm";

/// Buffer for one call of KVM and its answer.
const ASK_STACK: usize = 128 << 10;

/// This host's KVM, opened and checked.
#[derive(Clone, Debug)]
pub struct Host {
    kvm: Arc<Kvm>,
    /// The CPU features that KVM supports, read on first use: that takes it a third of a
    /// millisecond.
    supported: Arc<OnceLock<CpuId>>,
}

impl Host {
    /// Opens [`DEVICE`].
    ///
    /// # Errors
    /// An [`Error`] that says how the user can fix it.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(Path::new(DEVICE))
    }

    /// Opens KVM at another path.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(path: &Path) -> Result<Self, Error> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|e| Error::Open(path.into(), e.into()))?;
        let fd = Kvm::open_with_cloexec_at(&name, true).map_err(|e| match e.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::Missing(path.into()),
            libc::EACCES | libc::EPERM => Error::NoPermission(path.into()),
            errno => Error::Open(path.into(), io::Error::from_raw_os_error(errno)),
        })?;
        // SAFETY: a descriptor that was just opened and has no other owner. If it is not KVM, the
        // version check says so.
        let kvm = unsafe { Kvm::from_raw_fd(fd) };
        match kvm.get_api_version() {
            v if v == KVM_API_VERSION as i32 => {}
            v => return Err(Error::ApiVersion(v)),
        }
        for (cap, name) in [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
            (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
            (Cap::Xsave, "KVM_CAP_XSAVE"),
            (Cap::Xcrs, "KVM_CAP_XCRS"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        ] {
            if !kvm.check_extension(cap) {
                return Err(Error::Lacks(name));
            }
        }
        // Threads that make a VM later may not install signal handlers.
        super::kick::install_handler();
        Ok(Self { kvm: Arc::new(kvm), supported: Arc::default() })
    }

    fn supported(&self) -> Result<&CpuId, Error> {
        if let Some(supported) = self.supported.get() {
            return Ok(supported);
        }
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(failed("tell which CPU features it supports"))?;
        Ok(self.supported.get_or_init(|| supported))
    }

    /// The CPU features that a guest on this host could find.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn features(&self) -> Result<cpu::Features, Error> {
        if cpu::sees_host_cpuid() {
            return Ok(cpu::Features::of_the_bare_cpu());
        }
        Ok(cpu::Features::of_this_host(self.supported()?))
    }

    /// A VM with `ram` at guest-physical 0 and one vCPU, reset, with all CPU features that KVM
    /// supports. The [`Vcpu`] and the [`DirtyLog`] own VM and vCPU.
    ///
    /// # Errors
    /// [`Error::Call`] for the call that KVM refused.
    pub fn create(&self, ram: &Arc<GuestRam>) -> Result<(Vcpu, DirtyLog, CpuId), Error> {
        thread::scope(|scope| {
            // KVM asks a virtual CPU for each of its features, which takes as long as making the
            // VM. Neither depends on the other.
            let asking = self.supported.get().is_none().then(|| {
                let ask = || self.supported().map(drop);
                thread::Builder::new().stack_size(ASK_STACK).spawn_scoped(scope, ask)
            });
            let vm = Arc::new(self.kvm.create_vm().map_err(failed("create a VM"))?);
            let log = DirtyLog::new(Arc::clone(&vm), Arc::clone(ram))?;
            let fd = vm.create_vcpu(0).map_err(failed("create a vCPU"))?;
            // If the thread could not start or failed, this reads the features.
            if let Some(Ok(asking)) = asking {
                drop(asking.join());
            }
            let supported = self.supported()?.clone();
            fd.set_cpuid2(&cpu::guest_cpuid(supported.clone())).map_err(failed("set the CPUID"))?;
            let msrs = self.kvm.get_msr_index_list().map_err(failed("list its MSRs"))?;
            Ok((Vcpu::new(fd, vm, Arc::clone(ram), msrs.as_slice())?, log, supported))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_kvm_is_reported() {
        let error = Host::open_at(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(error, Error::Missing(_)));
        assert!(error.to_string().contains("this host has no KVM"), "{error}");
    }

    #[test]
    fn another_device_is_not_mistaken_for_kvm() {
        assert!(matches!(
            Host::open_at(Path::new("/dev/null")),
            Err(Error::ApiVersion(_) | Error::NoPermission(_))
        ));
    }
}
