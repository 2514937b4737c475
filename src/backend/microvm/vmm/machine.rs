//! A machine, put together before its jail closes and run after.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;

use kvm_bindings::KVM_API_VERSION;
use kvm_bindings::kvm_pit_config;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::register_signal_handler;

use crate::backend::microvm::vmm::Ending;
use crate::backend::microvm::vmm::boot;
use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::bus::Bus;
use crate::backend::microvm::vmm::bus::Taken;
use crate::backend::microvm::vmm::config::ConfigError;
use crate::backend::microvm::vmm::config::Discovery;
use crate::backend::microvm::vmm::config::MachineConfig;
use crate::backend::microvm::vmm::config::Source;
use crate::backend::microvm::vmm::devices;
use crate::backend::microvm::vmm::devices::DevicesError;
use crate::backend::microvm::vmm::devices::Windows;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory;
use crate::backend::microvm::vmm::memory::MemoryError;
use crate::backend::microvm::vmm::power::Keyboard;
use crate::backend::microvm::vmm::power::LastWords;
use crate::backend::microvm::vmm::power::Power;
use crate::backend::microvm::vmm::power::Registers;
use crate::backend::microvm::vmm::serial::Line;
use crate::backend::microvm::vmm::serial::Port;
use crate::backend::microvm::vmm::serial::Sink;
use crate::backend::microvm::vmm::vcpu;
use crate::backend::microvm::vmm::vcpu::Model;
use crate::backend::microvm::vmm::vcpu::Surroundings;
use crate::backend::microvm::vmm::vcpu::VcpuError;
use crate::backend::microvm::vmm::virtio::DeviceError;
use crate::backend::microvm::vmm::virtio::EventLoop;
use crate::sys::Errno;
use crate::sys::kvm;
use crate::sys::kvm::KICK;
use crate::sys::kvm::Kick;
use crate::sys::kvm::Vcpu;
use crate::sys::kvm::Vm;
use crate::sys::kvm::errno;
use crate::sys::kvm::stats;

/// Why there is no machine. Each message says what was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The document names something that cannot be opened.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM cannot be used.
    #[error("/dev/kvm: {0}")]
    NoKvm(String),
    /// KVM refuses a call.
    #[error("{call} is refused")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// Why not.
        source: Errno,
    },
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The kernel.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A device.
    #[error(transparent)]
    Devices(#[from] DevicesError),
    /// Two devices at one address.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// Descriptors or threads.
    #[error("{what}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl MachineError {
    fn process(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { what, source }
    }

    fn refused(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Refused {
            call,
            source: errno(error),
        }
    }
}

/// A machine that has not yet run: everything that it needs is open.
#[derive(Debug)]
pub struct Machine {
    events: EventLoop,
    vcpus: Vec<Vcpu>,
    around: Arc<Surroundings>,
    words: Arc<LastWords>,
    counters: Vec<OwnedFd>,
    // Behind the processors: what they run on goes last.
    vm: Vm,
}

impl Machine {
    /// Puts a machine together. `tell` hears of devices that a guest has brought to a stand.
    ///
    /// # Errors
    ///
    /// [`MachineError`]; nothing is left then.
    pub fn assemble(
        config: &MachineConfig,
        tell: impl FnMut(u32, &DeviceError) + Send + 'static,
    ) -> Result<Self, MachineError> {
        config.check()?;
        let mut kernel = config.kernel.open("kernel", false)?;
        let initramfs = config.initramfs.as_ref();
        let initramfs = initramfs.map(|source| source.open("initramfs", false));
        let mut initramfs = initramfs.transpose()?;
        let kvm = open_kvm(config)?;
        let memory = memory::create(config.memory, config.hugepages)?;
        let vm = Vm::new(&kvm, memory).map_err(|source| MachineError::Refused {
            call: "KVM_CREATE_VM",
            source,
        })?;
        prepare(vm.fd(), config.discovery)?;
        let mut events = EventLoop::new(tell).map_err(MachineError::process("epoll"))?;
        let power = Arc::new(Power::on(events.orders()));
        let words = Arc::new(LastWords::default());
        let ports = ports(config, vm.fd(), &power, &words)?;
        let mut mmio = Bus::default();
        let windows = {
            let mut windows = Windows::new(&vm, &mut mmio, &mut events);
            devices::attach(config, &mut windows, &power)?;
            windows.count()
        };
        let entry = boot::load(
            config,
            vm.memory(),
            &mut kernel,
            initramfs.as_mut(),
            windows,
        )?;
        let model = Model::new(&kvm, config.vcpus).map_err(|source| MachineError::Refused {
            call: "KVM_GET_SUPPORTED_CPUID",
            source,
        })?;
        let vcpus = (0..config.vcpus).map(|id| model.vcpu(&vm, id, entry, vm.memory()));
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
        // A kernel without them has a machine that is billed by what its threads used.
        let counters = vcpus.iter().filter_map(|vcpu| stats::open(vcpu.fd()).ok());
        let counters = counters.collect();
        Ok(Self {
            events,
            vcpus,
            around: Arc::new(Surroundings { mmio, ports, power }),
            words,
            counters,
            vm,
        })
    }

    /// The machine's power switch.
    #[must_use]
    pub fn power(&self) -> Arc<Power> {
        self.around.power.clone()
    }

    /// The machine itself, as KVM has it.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Starts the threads of the processors. Each calls `enter` with its number and then waits for
    /// [`Running::go`].
    ///
    /// # Errors
    ///
    /// [`MachineError::Process`] when there cannot be so many threads.
    pub fn start(
        self,
        enter: impl Fn(u32) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Running, MachineError> {
        register_signal_handler(KICK, called_out)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
            .map_err(MachineError::process("a signal to stop processors with"))?;
        let post = Post {
            around: self.around.clone(),
            enter: Enter(Arc::new(enter)),
            gate: Arc::new(Barrier::new(self.vcpus.len() + 1)),
            failed: Arc::default(),
        };
        let mut threads = Vec::new();
        for (id, vcpu) in (0u32..).zip(self.vcpus) {
            let kick = vcpu.kick();
            let post = post.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{id}"))
                .spawn(move || post.serve(id, vcpu))
                .map_err(MachineError::process("a thread for a processor"))?;
            threads.push((kick, thread));
        }
        Ok(Running {
            events: self.events,
            threads,
            power: self.around.power.clone(),
            words: self.words,
            enter: Some(post.enter),
            gate: post.gate,
            failed: post.failed,
            _counters: self.counters,
            _vm: self.vm,
        })
    }
}

/// What the thread of a processor does before anything else, with the processor's number.
#[derive(Clone)]
struct Enter(Arc<dyn Fn(u32) -> io::Result<()> + Send + Sync>);

impl fmt::Debug for Enter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Enter")
    }
}

/// What the thread of a processor needs.
#[derive(Clone)]
struct Post {
    around: Arc<Surroundings>,
    enter: Enter,
    gate: Arc<Barrier>,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Post {
    /// The life of the thread: it waits for the others whether it could be confined or not.
    fn serve(self, id: u32, vcpu: Vcpu) {
        let entered = (self.enter.0)(id);
        drop(self.enter);
        let fine = entered.is_ok();
        if let (Err(error), Ok(mut failed)) = (entered, self.failed.lock()) {
            failed.get_or_insert(error);
        }
        self.gate.wait();
        self.gate.wait();
        if fine {
            vcpu::run(vcpu, &self.around);
        }
    }
}

/// A machine whose threads are there.
#[derive(Debug)]
pub struct Running {
    events: EventLoop,
    threads: Vec<(Kick, JoinHandle<()>)>,
    power: Arc<Power>,
    words: Arc<LastWords>,
    /// With whatever it has open, which goes before the first instruction.
    enter: Option<Enter>,
    gate: Arc<Barrier>,
    failed: Arc<Mutex<Option<io::Error>>>,
    /// Open for whoever reads them from outside: [`crate::enclosure::counters::machine`].
    _counters: Vec<OwnedFd>,
    _vm: Vm,
}

impl Running {
    /// Lets the processors run and does the work of the devices, until the machine ends; `running` is called when all
    /// is ready, before the first instruction.
    ///
    /// # Errors
    ///
    /// [`MachineError::Process`] when a thread could not be confined, or the event loop fails.
    pub fn go(mut self, running: impl FnOnce()) -> Result<Ending, MachineError> {
        // Every thread has been confined, or says that it could not be; the next time all may go on.
        self.gate.wait();
        drop(self.enter.take());
        let failed = self.failed.lock().ok().and_then(|mut failed| failed.take());
        if failed.is_none() {
            running();
        }
        self.gate.wait();
        if let Some(error) = failed {
            self.stop(Ending::Fault {
                what: "a thread could not be confined".to_owned(),
            });
            return Err(MachineError::process("the thread of a processor")(error));
        }
        let done = self.events.run();
        // An event loop that ends by itself has failed.
        let ending = Ending::Fault {
            what: "the devices stopped".to_owned(),
        };
        self.stop(ending);
        done.map_err(MachineError::process("the event loop of the devices"))?;
        Ok(self.ending())
    }

    /// Ends the machine, if it has not ended, and its threads.
    fn stop(&mut self, ending: Ending) {
        self.power.end(ending);
        for (kick, thread) in self.threads.drain(..) {
            kick.stop();
            // One that has ended cannot be signalled.
            thread.kill(KICK).unwrap_or_default();
            thread.join().unwrap_or_default();
        }
    }

    fn ending(&self) -> Ending {
        match self.power.ending().cloned() {
            Some(Ending::Reset { .. }) => Ending::Reset {
                panic: self.words.said(),
            },
            Some(other) => other,
            None => Ending::PowerOff,
        }
    }
}

/// The signal has done its work when it is there: it ends `KVM_RUN`.
extern "C" fn called_out(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn open_kvm(config: &MachineConfig) -> Result<Kvm, MachineError> {
    let given = config
        .kvm
        .map(|number| Source::Fd(number).open("kvm", true));
    let given = given.transpose()?.map(|file| Ok(kvm::device(file.into())));
    let kvm = given.unwrap_or_else(Kvm::new).map_err(|error| {
        let hint = match errno(error) {
            Errno::ACCESS => "no right to it: be root, or in the group kvm",
            Errno::NOENT => "not there: load kvm_intel or kvm_amd",
            _ => "cannot be opened",
        };
        MachineError::NoKvm(format!("{hint} (see bulkhead host)"))
    })?;
    match kvm.get_api_version() {
        version if u32::try_from(version) == Ok(KVM_API_VERSION) => Ok(kvm),
        version => Err(MachineError::NoKvm(format!(
            "interface {version} is not 12"
        ))),
    }
}

/// What a machine has inside KVM: interrupt controllers, and a timer chip where a kernel may look for one.
fn prepare(vm: &VmFd, discovery: Discovery) -> Result<(), MachineError> {
    vm.set_tss_address(layout::TSS)
        .map_err(MachineError::refused("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip()
        .map_err(MachineError::refused("KVM_CREATE_IRQCHIP"))?;
    if discovery == Discovery::CommandLine {
        vm.create_pit2(kvm_pit_config::default())
            .map_err(MachineError::refused("KVM_CREATE_PIT2"))?;
    }
    Ok(())
}

/// Everything that answers at ports.
fn ports(
    config: &MachineConfig,
    vm: &VmFd,
    power: &Arc<Power>,
    words: &Arc<LastWords>,
) -> Result<Bus, MachineError> {
    let line = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
        .map_err(MachineError::process("a descriptor for the serial port"))?;
    vm.register_irqfd(&line, layout::SERIAL_GSI)
        .map_err(MachineError::refused("KVM_IRQFD"))?;
    let log = config.serial.as_ref();
    let file = log.map(|log| log.to.log("serial.to")).transpose()?;
    let limit = log.map_or(0, |log| log.limit);
    let port = Port::new(Line(line), Sink::new(file, limit, words.clone()));
    let mut ports = Bus::default();
    ports.add(
        layout::SERIAL.into(),
        layout::SERIAL_LENGTH.into(),
        Arc::new(Mutex::new(port)),
    )?;
    ports.add(
        layout::POWER.into(),
        layout::POWER_LENGTH.into(),
        Arc::new(Mutex::new(Registers(power.clone()))),
    )?;
    let keyboard = Arc::new(Mutex::new(Keyboard(power.clone())));
    ports.add(layout::KEYBOARD.into(), 1, keyboard)?;
    Ok(ports)
}
