//! A processor: what it is told before its first instruction, and the loop that its thread is.

mod cpuid;
mod registers;

use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_bindings::KVM_SYSTEM_EVENT_RESET;
use kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN;
use kvm_bindings::MsrList;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;

use crate::backend::microvm::vmm::Ending;
use crate::backend::microvm::vmm::boot::Entry;
use crate::backend::microvm::vmm::bus::Bus;
use crate::backend::microvm::vmm::memory::Memory;
use crate::backend::microvm::vmm::power::Power;
use crate::sys::Errno;
use crate::sys::kvm::Vcpu;
use crate::sys::kvm::Vm;
use crate::sys::kvm::errno;

/// Why a processor cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// The kernel refuses a call.
    #[error("vcpus: {call} is refused for processor {id}")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// For which one.
        id: u32,
        /// Why not.
        source: Errno,
    },
    /// Its first tables do not fit into memory.
    #[error("memory: too little for a processor's first tables")]
    Outside(#[from] vm_memory::GuestMemoryError),
}

/// What all processors of a machine have in common.
#[derive(Debug)]
pub(super) struct Model {
    cpuid: CpuId,
    msrs: MsrList,
    count: u32,
}

impl Model {
    /// Asks the kernel what its processors can be told.
    ///
    /// # Errors
    ///
    /// As the calls.
    pub(super) fn new(kvm: &Kvm, count: u32) -> Result<Self, Errno> {
        let entries = kvm_bindings::KVM_MAX_CPUID_ENTRIES;
        Ok(Self {
            cpuid: kvm.get_supported_cpuid(entries).map_err(errno)?,
            msrs: kvm.get_msr_index_list().map_err(errno)?,
            count,
        })
    }

    /// Makes a processor; the first enters the kernel, the others wait until that wakes them.
    ///
    /// # Errors
    ///
    /// [`VcpuError`].
    pub(super) fn vcpu(
        &self,
        vm: &Vm,
        id: u32,
        entry: Entry,
        memory: &Memory,
    ) -> Result<Vcpu, VcpuError> {
        let refused = |call| move |source| VcpuError::Refused { call, id, source };
        let vcpu = vm.vcpu(id).map_err(refused("KVM_CREATE_VCPU"))?;
        let fd = vcpu.fd();
        let told = |call| move |error| refused(call)(errno(error));
        let cpuid = cpuid::of(&self.cpuid, id, self.count);
        fd.set_cpuid2(&cpuid).map_err(told("KVM_SET_CPUID2"))?;
        registers::model_specific(fd, &self.msrs).map_err(told("KVM_SET_MSRS"))?;
        registers::local_apic(fd).map_err(told("KVM_SET_LAPIC"))?;
        if id == 0 {
            registers::tables(memory, entry)?;
            let special = registers::special(fd, entry).map_err(told("KVM_GET_SREGS"))?;
            fd.set_sregs(&special).map_err(told("KVM_SET_SREGS"))?;
            fd.set_regs(&registers::general(entry))
                .map_err(told("KVM_SET_REGS"))?;
        }
        Ok(vcpu)
    }
}

/// What a processor's exits are answered with.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// What answers where there is no memory.
    pub(super) mmio: Bus,
    /// What answers at ports.
    pub(super) ports: Bus,
    /// The machine's power switch.
    pub(super) power: Arc<Power>,
}

/// Runs a processor until its machine stops.
pub(super) fn run(mut vcpu: Vcpu, around: &Surroundings) {
    while !around.power.is_off() {
        match vcpu.run() {
            Ok(exit) => {
                if let Some(ending) = answer(exit, around) {
                    around.power.end(ending);
                }
            }
            // Called out, or not yet woken: the loop's condition tells which.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => around.power.end(Ending::Fault {
                what: format!("KVM_RUN: {errno}"),
            }),
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a later kernel may say is the end of the machine too"
)]
/// Answers an exit; gives the machine's end, if it was that.
fn answer(exit: VcpuExit<'_>, around: &Surroundings) -> Option<Ending> {
    let fault = |what: String| Some(Ending::Fault { what });
    match exit {
        VcpuExit::MmioRead(address, data) => around.mmio.read(address, data),
        VcpuExit::MmioWrite(address, data) => around.mmio.write(address, data),
        VcpuExit::IoIn(port, data) => around.ports.read(port.into(), data),
        VcpuExit::IoOut(port, data) => around.ports.write(port.into(), data),
        VcpuExit::Intr => {}
        VcpuExit::Shutdown => return Some(Ending::TripleFault),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => return Some(Ending::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => {
            return Some(Ending::Reset { panic: None });
        }
        VcpuExit::FailEntry(reason, processor) => {
            return fault(format!("no entry on processor {processor}: {reason:#x}"));
        }
        VcpuExit::InternalError => return fault("an instruction cannot be emulated".to_owned()),
        other => return fault(format!("{other:?}")),
    }
    None
}
