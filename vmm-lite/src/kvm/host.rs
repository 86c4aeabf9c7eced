//! Opening KVM, and making a VM with its memory.

use super::{DirtyLog, Error, Vcpu, cpu, failed};
use crate::memory::GuestRam;
use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use std::{ffi::CString, io, os::fd::FromRawFd, os::unix::ffi::OsStrExt, path::Path, sync::Arc};

/// Where KVM is found.
pub const DEVICE: &str = "/dev/kvm";

/// This host's KVM, opened and found to be good enough.
#[derive(Clone, Debug)]
pub struct Host {
    kvm: Arc<Kvm>,
}

impl Host {
    /// Opens [`DEVICE`].
    ///
    /// # Errors
    /// An [`Error`] that says what the user can do about it.
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
        // SAFETY: a descriptor that was just opened and that nothing else owns. If it should not be KVM, the version says so.
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
        // Threads that make a VM later may not handle signals any more.
        super::kick::install_handler();
        Ok(Self { kvm: Arc::new(kvm) })
    }

    fn supported(&self) -> Result<CpuId, Error> {
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        supported.map_err(failed("tell which CPU features it supports"))
    }

    /// What a guest on this host could find its CPU to have.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn features(&self) -> Result<cpu::Features, Error> {
        Ok(cpu::Features::of_this_host(&self.supported()?))
    }

    /// A VM with `ram` at guest-physical 0 and one vCPU, reset, and what CPU features KVM supports. VM and vCPU live in the [`Vcpu`] and the
    /// [`DirtyLog`].
    ///
    /// # Errors
    /// [`Error::Call`] for whatever KVM would not do.
    pub fn create(&self, ram: &Arc<GuestRam>) -> Result<(Vcpu, DirtyLog, CpuId), Error> {
        let vm = Arc::new(self.kvm.create_vm().map_err(failed("create a VM"))?);
        let log = DirtyLog::new(Arc::clone(&vm), Arc::clone(ram))?;
        let fd = vm.create_vcpu(0).map_err(failed("create a vCPU"))?;
        let supported = self.supported()?;
        fd.set_cpuid2(&cpu::guest_cpuid(supported.clone())).map_err(failed("set the CPUID"))?;
        let msrs = self.kvm.get_msr_index_list().map_err(failed("list its MSRs"))?;
        Ok((Vcpu::new(fd, vm, Arc::clone(ram), msrs.as_slice())?, log, supported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_kvm_is_told_so() {
        let error = Host::open_at(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(error, Error::Missing(_)));
        assert!(error.to_string().contains("this host has no KVM"), "{error}");
    }

    #[test]
    fn something_else_is_not_taken_for_kvm() {
        assert!(matches!(
            Host::open_at(Path::new("/dev/null")),
            Err(Error::ApiVersion(_) | Error::NoPermission(_))
        ));
    }
}
