//! A guest of a few instructions: does it get through what the first moments of any kernel are made of?
//!
//! It counts ten thousand instructions in the mode of a kernel, goes to the mode of a program, and is called from there
//! twice by `SYSCALL`. Under PVM it does not get back from the first: there the instructions around a system call are
//! others.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::register_signal_handler;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::kvm::KICK;
use crate::sys::kvm::Vcpu;
use crate::sys::kvm::Vm;
use crate::sys::kvm::errno;

/// How long the guest may take; where it runs at all, it takes a few milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// What has become of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It got through.
    Through,
    /// It did not come to its end in time.
    Late,
    /// It came to another end.
    Lost(String),
    /// It could not be made.
    Unmade(Errno),
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Through => formatter.write_str("a guest runs"),
            Self::Late => formatter.write_str("a guest gets stuck"),
            Self::Lost(how) => write!(
                formatter,
                "a guest is lost at its first system call ({how})"
            ),
            Self::Unmade(errno) => write!(formatter, "no guest can be made ({errno})"),
        }
    }
}

/// Places in the guest's memory, all within the one page of 2 MiB that it has.
const GDT: u64 = 0x1000;
const TABLES: [u64; 3] = [0x2000, 0x3000, 0x4000];
const CODE: u64 = 0x5000;
const PROGRAM: u64 = 0x6000;
const SYSTEM_CALL: u64 = 0x7000;
const STACK: u64 = 0x8ff0;
const MEMORY: usize = 2 << 20;
/// Where the guest says how it went.
const PORT: u16 = 0x10;
const WELL: u8 = 0x5a;

/// Counts down, then to the program by `SYSRET`.
const KERNEL: &[u8] = &[
    0xb9, 0x88, 0x13, 0, 0, // mov ecx, 5000
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz to the dec
    0xb9, 0x00, 0x60, 0, 0, // mov ecx, PROGRAM
    0x41, 0xbb, 2, 0, 0, 0, // mov r11d, 2
    0x48, 0x0f, 0x07, // sysretq
];
/// Two system calls; what is in between is where a kernel in software is lost.
const CALLER: &[u8] = &[
    0xb8, 1, 0, 0, 0, // mov eax, 1
    0x0f, 0x05, // syscall
    0xb8, 2, 0, 0, 0, // mov eax, 2
    0x0f, 0x05, // syscall
];
/// Enters and leaves as a kernel does; goes back from the first call, and says that all is well at the second.
const CALLED: &[u8] = &[
    0x0f, 0x01, 0xf8, // swapgs
    0x0f, 0x01, 0xf8, // swapgs
    0x83, 0xf8, 0x01, // cmp eax, 1
    0x75, 0x03, // jne behind the next
    0x48, 0x0f, 0x07, // sysretq
    0x83, 0xf8, 0x02, // cmp eax, 2
    0x75, 0x04, // jne to the end
    0xb0, WELL, // mov al, WELL
    0xe6, 0x10, // out PORT, al
    0xf4, 0xeb, 0xfd, // hlt; jmp to the hlt
];

/// Tries it.
pub(super) fn run() -> Outcome {
    match prepared() {
        Ok(vcpu) => watched(vcpu),
        Err(errno) => Outcome::Unmade(errno),
    }
}

/// Runs the guest on a thread of its own, and calls it out when it takes too long.
fn watched(mut vcpu: Vcpu) -> Outcome {
    if let Err(error) = register_signal_handler(KICK, called_out) {
        return Outcome::Unmade(Errno::from_raw_os_error(error.errno()));
    }
    let kick = vcpu.kick();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let outcome = fate(&mut vcpu);
        // Who waited has been told that it took too long.
        tell.send(outcome).unwrap_or_default();
    });
    let outcome = told.recv_timeout(PATIENCE).unwrap_or(Outcome::Late);
    kick.stop();
    // A thread that has ended needs no signal.
    thread.kill(KICK).unwrap_or_default();
    thread.join().unwrap_or_default();
    outcome
}

fn fate(vcpu: &mut Vcpu) -> Outcome {
    match vcpu.run() {
        Ok(VcpuExit::IoOut(PORT, [WELL])) => Outcome::Through,
        Ok(exit) => Outcome::Lost(format!("{exit:?}").to_lowercase()),
        Err(Errno::INTR | Errno::AGAIN) => Outcome::Late,
        Err(errno) => Outcome::Lost(errno.to_string()),
    }
}

/// The signal has done its work when it is there: it ends `KVM_RUN`.
extern "C" fn called_out(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn prepared() -> Result<Vcpu> {
    let kvm = Kvm::new().map_err(errno)?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]);
    let memory = memory.map_err(|_| Errno::NOMEM)?;
    furnish(&memory).map_err(|_| Errno::FAULT)?;
    let vm = Vm::new(&kvm, memory)?;
    // Intel's processors need it, elsewhere it is not looked at.
    vm.fd().set_tss_address(0xfffb_d000).map_err(errno)?;
    let vcpu = vm.vcpu(0)?;
    let fd = vcpu.fd();
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
    fd.set_cpuid2(&cpuid.map_err(errno)?).map_err(errno)?;
    let special = special(fd.get_sregs().map_err(errno)?);
    fd.set_sregs(&special).map_err(errno)?;
    let general = kvm_regs {
        rip: CODE,
        rsp: STACK,
        rflags: 2,
        ..kvm_regs::default()
    };
    fd.set_regs(&general).map_err(errno)?;
    let msrs = Msrs::from_entries(&system_call()).map_err(|_| Errno::NOMEM)?;
    let taken = fd.set_msrs(&msrs).map_err(errno)?;
    if taken == msrs.as_slice().len() {
        Ok(vcpu)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

/// Segments: two of the kernel's and, behind an unused one, two of the program's, as `SYSCALL` and `SYSRET` want them.
fn furnish(memory: &GuestMemoryMmap<()>) -> std::result::Result<(), vm_memory::GuestMemoryError> {
    let segments: [u64; 6] = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
    ];
    for (index, segment) in (0..).zip(segments) {
        memory.write_obj(segment, GuestAddress(GDT + index * 8))?;
    }
    let [top, middle, bottom] = TABLES;
    /// Present, writable, the program's too; and a page of 2 MiB.
    const TABLE: u64 = 0b111;
    const LARGE: u64 = 0b1000_0111;
    memory.write_obj(middle | TABLE, GuestAddress(top))?;
    memory.write_obj(bottom | TABLE, GuestAddress(middle))?;
    memory.write_obj(LARGE, GuestAddress(bottom))?;
    memory.write_slice(KERNEL, GuestAddress(CODE))?;
    memory.write_slice(CALLER, GuestAddress(PROGRAM))?;
    memory.write_slice(CALLED, GuestAddress(SYSTEM_CALL))
}

/// 64 bits with the first page mapped, and system calls switched on.
fn special(before: kvm_sregs) -> kvm_sregs {
    let flat = |selector, kind, long: u8| kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        g: 1,
        l: long,
        db: 1 - long,
        ..kvm_segment::default()
    };
    let data = flat(0x10, 0x3, 0);
    let mut special = kvm_sregs {
        cs: flat(0x8, 0xb, 1),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: 1 << 31 | 1 << 4 | 1,
        cr3: TABLES[0],
        cr4: 1 << 5,
        efer: 1 << 10 | 1 << 8 | 1,
        ..before
    };
    special.gdt.base = GDT;
    special.gdt.limit = 6 * 8 - 1;
    special
}

/// `STAR`, `LSTAR`, `SFMASK`.
fn system_call() -> [kvm_msr_entry; 3] {
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    };
    [
        msr(0xc000_0081, 0x1b << 48 | 0x08 << 32),
        msr(0xc000_0082, SYSTEM_CALL),
        msr(0xc000_0084, 0x200),
    ]
}
