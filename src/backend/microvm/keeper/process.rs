//! The VMM's process, seen from the keeper that made it.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Result;
use super::birth;
use crate::backend::BackendError;
use crate::backend::microvm::Machine;
use crate::backend::microvm::balloon;
use crate::backend::microvm::files::Server;
use crate::backend::microvm::vmm;
use crate::backend::microvm::vmm::Ending;
use crate::backend::microvm::vmm::Event;
use crate::backend::microvm::vmm::MachineConfig;
use crate::backend::microvm::vmm::config::BalloonConfig;
use crate::backend::microvm::vmm::config::DiskConfig;
use crate::backend::microvm::vmm::config::JailConfig;
use crate::backend::microvm::vmm::config::LogConfig;
use crate::backend::microvm::vmm::config::NicConfig;
use crate::backend::microvm::vmm::config::ShareConfig;
use crate::backend::microvm::vmm::config::Source;
use crate::backend::microvm::vmm::config::ThreadsConfig;
use crate::backend::microvm::vmm::config::VsockConfig;
use crate::enclosure::counters::machine::MachineWatch;
use crate::enclosure::threads::Parts;
use crate::network::tap::Carried;
use crate::plan::machine::Disk;
use crate::plan::share;
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::Exit;

/// What the guest writes to its serial port, in the workspace's directory.
const SERIAL: &str = "serial.log";
/// The most that is kept of it, in bytes.
const SERIAL_LIMIT: u64 = 256 << 10;
/// How many bytes of its end are looked at for what a kernel says before it stops.
const TAIL: u64 = 16 << 10;
/// How long something that has begun to end may take, before it is said that it does not.
const MOMENT: Duration = Duration::from_millis(500);
/// The number of the guest on its socket device.
const CID: u64 = 3;

/// A VMM that was started.
#[derive(Debug)]
pub(super) struct Vmm {
    process: OwnedFd,
    /// Open as long as this process is there: one that finds it closed at its birth does not begin.
    _life: OwnedFd,
    /// What it tells of its machine, and what it says when it fails: read when it has ended.
    report: OwnedFd,
    complaint: OwnedFd,
    serial: OwnedFd,
    /// Held until the guest has been introduced; it serves as long as the VMM holds the connection.
    server: OwnedFd,
}

/// What a VMM is given besides its plan.
pub(super) struct Given<'a> {
    /// The workspace's directory.
    pub(super) home: BorrowedFd<'a>,
    /// The socket that connections to the guest come through.
    pub(super) listener: BorrowedFd<'a>,
    /// The file server.
    pub(super) server: &'a Server,
    /// Where its threads are counted.
    pub(super) parts: Option<&'a Parts>,
    /// Its network interfaces.
    pub(super) carried: &'a [Carried],
    /// Its disks, opened, in the order of its plan.
    pub(super) disks: &'a [OwnedFd],
}

/// Starts the VMM of a machine.
pub(super) fn start(machine: &Machine, given: &Given<'_>) -> Result<Vmm> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let serial = rustix::fs::openat(given.home, SERIAL, flags, Mode::from(0o600))
        .map_err(doing("open the log"))?;
    let files = Files::open(machine)?;
    let (report, complaint) = (memory("report")?, memory("complaint")?);
    let vhosts: Vec<OwnedFd> = given.carried.iter().map_while(|_| vhost()).collect();
    let orders = balloon::make(given.home).map_err(doing("make a pipe"))?;
    let config = MachineConfig {
        serial: Some(LogConfig {
            to: Source::Fd(serial.as_raw_fd()),
            limit: SERIAL_LIMIT,
        }),
        report: Some(report.as_raw_fd()),
        nics: nics(given.carried, &vhosts),
        balloon: Some(gives_back(&orders)),
        ..config(machine, given, &files)
    };
    let text = document(&config)?;
    let threads = given.parts.into_iter();
    let threads = threads.flat_map(|parts| [&parts.vcpu.threads, &parts.vmm.threads]);
    let taps = given.carried.iter().map(|one| &one.tap);
    let handed: Vec<BorrowedFd<'_>> = [&serial, &report, &orders, &given.server.socket]
        .into_iter()
        .chain(files.all())
        .chain(threads)
        .chain(taps)
        .chain(given.disks)
        .chain(&vhosts)
        .map(AsFd::as_fd)
        .chain([text.as_fd(), given.listener])
        .collect();
    let place = given.parts.map(|parts| parts.vmm.directory.as_fd());
    let (process, life) = birth::bear(place, complaint.as_fd(), &handed, text.as_raw_fd())?;
    let vmm = Vmm {
        process,
        _life: life,
        report,
        complaint,
        serial,
        server: given
            .server
            .process
            .try_clone()
            .map_err(|error| doing("keep the file server")(errno(&error)))?,
    };
    // Meanwhile the VMM has begun: what takes longest begins first.
    if let Err(error) = given.server.ready() {
        process::end(vmm.process.as_fd());
        return Err(error);
    }
    Ok(vmm)
}

fn doing(what: &str) -> impl FnOnce(Errno) -> BackendError {
    BackendError::kernel(format!("{what} for the machine"))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A file that nobody else sees.
fn memory(name: &str) -> Result<OwnedFd> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(doing("make a file"))
}

/// The machine's document in such a file, at its beginning.
fn document(config: &MachineConfig) -> Result<File> {
    let mut text = File::from(memory("config")?);
    serde_json::to_vec(config)
        .map_err(std::io::Error::from)
        .and_then(|bytes| text.write_all(&bytes))
        .and_then(|()| text.rewind())
        .map_err(|error| doing("write the document")(errno(&error)))?;
    Ok(text)
}

/// The disks, by the descriptors that they have been opened as.
fn disks(planned: &[Disk], opened: &[OwnedFd]) -> Vec<DiskConfig> {
    let each = planned.iter().zip(opened).map(|(disk, file)| DiskConfig {
        image: Source::Fd(file.as_raw_fd()),
        read_only: disk.read_only,
        limit: None,
    });
    each.collect()
}

/// The interfaces; the kernel moves the packets of those that it has been opened for.
fn nics(carried: &[Carried], vhosts: &[OwnedFd]) -> Vec<NicConfig> {
    let vhosts = vhosts.iter().map(|vhost| Some(vhost.as_raw_fd()));
    let each = carried.iter().zip(vhosts.chain(std::iter::repeat(None)));
    each.map(|(one, vhost)| nic(one, vhost)).collect()
}

/// The kernel's own mover of packets, where it has one.
fn vhost() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/vhost-net", flags, Mode::empty()).ok()
}

fn threads(parts: &Parts) -> ThreadsConfig {
    ThreadsConfig {
        vcpu: parts.vcpu.threads.as_raw_fd(),
        vmm: parts.vmm.threads.as_raw_fd(),
    }
}

fn gives_back(orders: &OwnedFd) -> BalloonConfig {
    BalloonConfig {
        free_page_reporting: true,
        orders: Some(orders.as_raw_fd()),
    }
}

fn nic(carried: &Carried, vhost: Option<RawFd>) -> NicConfig {
    let digits = carried.mac.map(|byte| format!("{byte:02x}"));
    NicConfig {
        tap: carried.tap.as_raw_fd(),
        mac: digits.join(":"),
        mtu: u16::try_from(carried.mtu).unwrap_or_default(),
        vhost,
        receive: None,
        send: None,
    }
}

/// What a VMM is given open, because it may open nothing that is not everybody's.
struct Files {
    kvm: OwnedFd,
    kernel: OwnedFd,
    initramfs: OwnedFd,
}

impl Files {
    fn open(machine: &Machine) -> Result<Self> {
        let open = |path: &Path, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(BackendError::kernel(format!("open {}", path.display())))
        };
        Ok(Self {
            kvm: open(Path::new("/dev/kvm"), OFlags::RDWR)?,
            kernel: open(&machine.boot.kernel, OFlags::RDONLY)?,
            initramfs: open(&machine.boot.initramfs, OFlags::RDONLY)?,
        })
    }

    fn all(&self) -> [&OwnedFd; 3] {
        [&self.kvm, &self.kernel, &self.initramfs]
    }
}

/// What follows from the plan, and from what is given.
fn config(machine: &Machine, given: &Given<'_>, files: &Files) -> MachineConfig {
    let parameters = machine.plan.kernel.parameters.iter();
    let words = std::iter::once(&machine.boot.cmdline).chain(parameters);
    let words: Vec<&str> = words.map(String::as_str).collect();
    MachineConfig {
        vcpus: machine.plan.size.vcpus,
        memory: machine.plan.size.memory_bytes,
        hugepages: machine.plan.hugepages,
        kvm: Some(files.kvm.as_raw_fd()),
        kernel: Source::Fd(files.kernel.as_raw_fd()),
        initramfs: Some(Source::Fd(files.initramfs.as_raw_fd())),
        cmdline: words.join(" "),
        discovery: machine.boot.discovery,
        disks: disks(&machine.plan.disks, given.disks),
        nics: Vec::new(),
        vsock: Some(VsockConfig {
            cid: CID,
            listener: given.listener.as_raw_fd(),
        }),
        shares: vec![ShareConfig {
            tag: share::TAG.to_owned(),
            socket: given.server.socket.as_raw_fd(),
        }],
        balloon: None,
        rng: true,
        console: None,
        serial: None,
        report: None,
        threads: given.parts.map(threads),
        jail: JailConfig::default(),
    }
}

impl Vmm {
    /// The process.
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Its counters, opened while this process still has the right to.
    pub(super) fn counters(&self) -> Option<MachineWatch> {
        let number = process::number_in_proc(self.process()).ok()?;
        let watch = MachineWatch::begin(number).ok()?;
        Some(watch.without_memory())
    }

    /// The file server.
    pub(super) fn server(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }

    /// Waits until it has ended, for so long at most, and ends it then; the file server ends too. Why it ended, when that
    /// was not that its guest switched it off.
    pub(super) fn finish(&self, patience: Duration) -> Option<String> {
        let ended = process::ended_within(self.process.as_fd(), Some(patience)).unwrap_or(true);
        if !ended {
            process::signal(self.process.as_fd(), libc::SIGKILL).unwrap_or_default();
        }
        let exit = process::wait(self.process.as_fd()).unwrap_or(Exit::Signal(libc::SIGKILL));
        let ending = self.ending();
        let server = self.end_server(ending == Some(Ending::FilesGone));
        if !ended {
            return Some("the guest's agent hung up and its machine went on".to_owned());
        }
        match (ending, exit) {
            (Some(Ending::PowerOff), _) => None,
            (Some(Ending::Reset { panic }), _) => Some(match panic.or_else(|| self.last_words()) {
                Some(words) => format!("the guest's kernel stopped: {words}"),
                None => "the guest reset its machine".to_owned(),
            }),
            (Some(Ending::TripleFault), _) => {
                Some("the guest's processor could not go on (triple fault)".to_owned())
            }
            (Some(Ending::FilesGone), _) => Some(how("the file server", server)),
            (Some(Ending::Fault { what }), _) => Some(format!(
                "the host's kernel could not go on with the machine: {what}"
            )),
            (None, Exit::Status(_)) if !self.complaint().is_empty() => Some(self.complaint()),
            (None, exit) => Some(how("the VMM", exit)),
        }
    }

    /// Ends the file server, unless it is `gone` by itself; gives how it ended.
    fn end_server(&self, gone: bool) -> Exit {
        if gone {
            // Its connection goes first, and it a moment later.
            process::ended_within(self.server.as_fd(), Some(MOMENT))
                .map(drop)
                .unwrap_or_default();
        }
        process::signal(self.server.as_fd(), libc::SIGKILL).unwrap_or_default();
        process::wait(self.server.as_fd()).unwrap_or(Exit::Signal(libc::SIGKILL))
    }

    /// An error, or why the machine ended, when it has.
    pub(super) fn explain(&self, error: BackendError) -> BackendError {
        let lost = matches!(
            error,
            BackendError::Machine(_) | BackendError::Kernel { .. }
        );
        let ended = process::ended_within(self.process.as_fd(), Some(MOMENT)).unwrap_or(true);
        if lost && ended {
            let why = self.finish(MOMENT);
            let why = why.unwrap_or_else(|| "the guest switched its machine off".to_owned());
            return BackendError::Machine(why);
        }
        process::signal(self.process.as_fd(), libc::SIGKILL).unwrap_or_default();
        drop(self.finish(MOMENT));
        error
    }

    fn ending(&self) -> Option<Ending> {
        let text = text_of(&self.report, 0)?;
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter_map(|event| match event {
                Event::Ended(ending) => Some(ending),
                Event::Running | Event::Trouble { .. } => None,
            })
            .next_back()
    }

    /// What it said before it ended, without its name.
    fn complaint(&self) -> String {
        let text = text_of(&self.complaint, 0).unwrap_or_default();
        let text = text.trim();
        let own = format!("bulkhead {}: ", vmm::WORD);
        text.strip_prefix(&own).unwrap_or(text).to_owned()
    }

    /// The line with which a kernel says why it stops.
    fn last_words(&self) -> Option<String> {
        let text = text_of(&self.serial, TAIL)?;
        let found = text
            .lines()
            .rev()
            .find(|line| line.contains("Kernel panic"))?;
        let at = found.find("Kernel panic").unwrap_or_default();
        Some(found[at..].trim().to_owned())
    }
}

/// How a process ended that should not have.
fn how(who: &str, exit: Exit) -> String {
    match exit {
        Exit::Signal(libc::SIGSYS) => {
            format!("{who} made a system call that it may not make, and was ended for it")
        }
        Exit::Signal(number) => format!("{who} was killed by signal {number}"),
        Exit::Status(status) => format!("{who} ended with status {status}"),
    }
}

/// What a file holds, or its last bytes.
fn text_of(file: &OwnedFd, last: u64) -> Option<String> {
    let mut file = File::from(file.try_clone().ok()?);
    let length = file.metadata().ok()?.len();
    let from = if last == 0 {
        0
    } else {
        length.saturating_sub(last)
    };
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
