//! KVM where its crate leaves something to the caller: memory that outlives its machine, and processors that are
//! called out of their guests.
//!
//! A machine and each of its processors hold the guest's memory, so that no mapping goes away under a guest.

pub mod stats;

use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use kvm_bindings::kvm_run;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use vm_memory::Address;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;

use crate::sys::Errno;
use crate::sys::Result;

/// The signal that calls a processor out of its guest. Nobody sends it on Linux, so nobody means something else by it.
pub const KICK: libc::c_int = libc::SIGSTKFLT;

/// KVM behind a descriptor of `/dev/kvm` that was opened by somebody else.
#[must_use]
pub fn device(opened: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned, and by nobody else from here on. Should it be of another device, that refuses
    // what KVM is asked.
    unsafe { Kvm::from_raw_fd(opened.into_raw_fd()) }
}

/// A machine with its memory.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    memory: GuestMemoryMmap<()>,
}

impl Vm {
    /// Makes a machine around this memory.
    ///
    /// # Errors
    ///
    /// As `KVM_CREATE_VM` and `KVM_SET_USER_MEMORY_REGION` (`ioctl(2)`).
    pub fn new(kvm: &Kvm, memory: GuestMemoryMmap<()>) -> Result<Self> {
        let fd = loop {
            match kvm.create_vm().map_err(errno) {
                // Work of the kernel's for other machines may be in the way for a moment.
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        for (slot, region) in (0..).zip(memory.iter()) {
            let host = region.as_ptr() as u64;
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host,
            };
            // SAFETY: the range is a whole mapping of `memory`, which lives as long as this machine and as each of its
            // processors, and which is only ever touched as volatile memory.
            unsafe { fd.set_user_memory_region(slot) }.map_err(errno)?;
        }
        Ok(Self { fd, memory })
    }

    /// The machine itself.
    #[must_use]
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    /// Makes a processor.
    ///
    /// # Errors
    ///
    /// As `KVM_CREATE_VCPU`, and as `mmap(2)`.
    pub fn vcpu(&self, id: u32) -> Result<Vcpu> {
        let fd = self.fd.create_vcpu(id.into()).map_err(errno)?;
        let page = RunPage::map(fd.as_raw_fd())?;
        Ok(Vcpu {
            fd,
            page: page.into(),
            _memory: self.memory.clone(),
        })
    }
}

/// A processor of a machine.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    page: std::sync::Arc<RunPage>,
    _memory: GuestMemoryMmap<()>,
}

impl Vcpu {
    /// The processor itself.
    #[must_use]
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs the guest until it needs something.
    ///
    /// # Errors
    ///
    /// `EINTR` when it was called out by [`Kick::stop`], otherwise as `KVM_RUN`.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        self.fd.run().map_err(errno)
    }

    /// What calls it out of its guest.
    #[must_use]
    pub fn kick(&self) -> Kick {
        Kick(self.page.clone())
    }
}

/// Calls a processor out of its guest, from another thread.
#[derive(Debug, Clone)]
pub struct Kick(std::sync::Arc<RunPage>);

impl Kick {
    /// From now on the guest is not entered: a processor that is in it comes out when its thread gets the signal
    /// [`KICK`] after this.
    pub fn stop(&self) {
        self.0.immediate_exit().store(1, Ordering::SeqCst);
    }
}

/// The page that a processor shares with its process, mapped once more so that it may be written to while the
/// processor runs.
#[derive(Debug)]
struct RunPage(NonNull<kvm_run>);

// SAFETY: the page is only reached through an atomic byte in it.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    const LENGTH: usize = 4096;

    fn map(vcpu: RawFd) -> Result<Self> {
        let flags = libc::MAP_SHARED;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::LENGTH, rights, flags, vcpu, 0) };
        if page == libc::MAP_FAILED {
            return Err(crate::sys::last_errno());
        }
        NonNull::new(page.cast()).map(Self).ok_or(Errno::NOMEM)
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the field lies in the mapping, which lives as long as `self`.
        let field = unsafe { &raw mut (*self.0.as_ptr()).immediate_exit };
        // SAFETY: a byte is always aligned; the kernel reads it once at each entry and never writes it, and nothing
        // in this process reaches this mapping in another way.
        unsafe { AtomicU8::from_ptr(field) }
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` and nobody has a reference into it that outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::LENGTH) };
    }
}

/// The kernel's reason in an error of the crate.
#[must_use]
pub fn errno(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}
