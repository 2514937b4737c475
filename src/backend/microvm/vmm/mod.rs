//! The process that a machine is: `bulkhead @vmm`, started by the runtime and by nobody else.
//!
//! ```text
//! bulkhead @vmm --config FILE | --config-fd N
//! ```
//!
//! The document ([`MachineConfig`]) is read from a file or from a descriptor to its end. It names descriptors by their
//! numbers; the process copies those and closes, with the jail, everything else but the three standard streams.
//!
//! **What is written where.** Standard input and output are not touched. An error before the machine runs is one line
//! on standard error, `bulkhead @vmm: WHAT: WHY`. On the descriptor `report`, if there is one, stand lines of JSON, each
//! an [`Event`]: `running` once, when the jail is closed and the guest is about to run its first instruction, then
//! `ended` once, with the reason. A process that ends without `ended` was killed or failed. What the guest writes to
//! its serial port goes to `serial`, to nowhere without.
//!
//! **How it exits.** 0: the guest switched its machine off. 1: the machine could not be made. 2: the arguments are
//! wrong. 3: the guest asked for a reset, which is its end too. 4: triple fault. 5: the kernel could not go on with it.
//! 6: its file server is gone.

mod boot;
pub mod bus;
pub mod config;
mod devices;
pub mod jail;
mod layout;
pub mod machine;
pub mod memory;
pub mod power;
mod serial;
mod vcpu;
pub mod virtio;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

pub use bus::BusDevice;
pub use config::MachineConfig;
pub use machine::Machine;

use crate::backend::microvm::vmm::config::Source;
use crate::backend::microvm::vmm::config::ThreadsConfig;
use crate::sys::inherited::Inherited;

/// The first argument of the process.
pub const WORD: &str = "@vmm";

/// What the process tells of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The jail is closed and the guest is about to run.
    Running,
    /// The guest has driven a device in a way that no driver would; the device stands until it is reset.
    Trouble {
        /// The kind of device (`VIRTIO_ID_*`).
        device: u32,
        /// What it did.
        what: String,
    },
    /// The machine has stopped.
    Ended(Ending),
}

/// Why a machine has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Ending {
    /// The guest switched it off.
    PowerOff,
    /// The guest asked for a reset.
    Reset {
        /// The kernel's last words, if it panicked before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        panic: Option<String>,
    },
    /// A fault while a double fault was handled: nothing of the guest can go on.
    TripleFault,
    /// The file server has ended while the guest had files of it.
    FilesGone,
    /// The host's kernel could not go on with a processor.
    Fault {
        /// What it said.
        what: String,
    },
}

impl Ending {
    /// The exit status of the process for it.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::Reset { .. } => 3,
            Self::TripleFault => 4,
            Self::Fault { .. } => 5,
            Self::FilesGone => 6,
        }
    }
}

/// Runs the process: `args` are those behind [`WORD`].
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(source) = source(args) else {
        complain("--config FILE or --config-fd N is wanted");
        return ExitCode::from(2);
    };
    let done = Inherited::look()
        .context("/proc/self/fd")
        .and_then(|inherited| run(&read(&source)?, inherited));
    match done {
        Ok(ending) => ExitCode::from(ending.status()),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error why there is no machine.
fn complain(what: &str) {
    let mut line = format!("bulkhead {WORD}: {what}").replace('\n', " ");
    line.push('\n');
    // Nobody may be listening; the exit status says that it failed.
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

fn run(config: &MachineConfig, inherited: Inherited) -> anyhow::Result<Ending> {
    let report = Report::open(config.report)?;
    let troubles = report.clone();
    let tell = move |kind: u32, error: &virtio::DeviceError| troubles.trouble(kind, error);
    let machine = Machine::assemble(config, tell)?;
    let groups = Groups::open(config.threads)?;
    groups.join(|groups| &groups.vmm)?;
    let confined = config.jail.enabled;
    if confined {
        jail::close(&config.jail, inherited)?;
    }
    let confine = move |calls| match confined {
        true => jail::confine(calls),
        false => Ok(()),
    };
    let running = machine.start(move |_| {
        groups.join(|groups| &groups.vcpu)?;
        confine(jail::calls::VCPU)
    })?;
    confine(jail::calls::VMM).context("jail: the devices cannot be confined")?;
    let ending = running.go(|| report.tell(&Event::Running))?;
    report.tell(&Event::Ended(ending.clone()));
    Ok(ending)
}

/// The control groups of the threads, opened.
#[derive(Debug)]
struct Groups(Option<Opened>);

#[derive(Debug)]
struct Opened {
    vcpu: File,
    vmm: File,
}

impl Groups {
    fn open(config: Option<ThreadsConfig>) -> anyhow::Result<Self> {
        let open = |config: ThreadsConfig| {
            anyhow::Ok(Opened {
                vcpu: Source::Fd(config.vcpu).open("threads.vcpu", true)?,
                vmm: Source::Fd(config.vmm).open("threads.vmm", true)?,
            })
        };
        Ok(Self(config.map(open).transpose()?))
    }

    /// Puts the calling thread into one of them.
    fn join(&self, which: impl FnOnce(&Opened) -> &File) -> io::Result<()> {
        match &self.0 {
            Some(opened) => which(opened).write_all(b"0"),
            None => Ok(()),
        }
    }
}

/// The most troubles that are told of: a guest can make as many as it likes, and what is told is kept.
const TROUBLES_MAX: u32 = 64;

/// Where the process tells what happens to its machine.
#[derive(Debug, Clone)]
struct Report {
    file: Option<Arc<File>>,
    troubles: Arc<AtomicU32>,
}

impl Report {
    fn open(number: Option<RawFd>) -> anyhow::Result<Self> {
        let file = number.map(|number| Source::Fd(number).open("report", true));
        Ok(Self::to(file.transpose()?))
    }

    fn to(file: Option<File>) -> Self {
        Self {
            file: file.map(Arc::new),
            troubles: Arc::default(),
        }
    }

    fn trouble(&self, device: u32, error: &virtio::DeviceError) {
        let one_more = |told| (told < TROUBLES_MAX).then_some(told + 1);
        let counted = self
            .troubles
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if counted.is_ok() {
            let what = error.to_string();
            self.tell(&Event::Trouble { device, what });
        }
    }

    fn tell(&self, event: &Event) {
        let (Some(file), Ok(mut line)) = (&self.file, serde_json::to_string(event)) else {
            return;
        };
        line.push('\n');
        // Whoever wanted to know may have gone; the exit status tells the end.
        (&**file).write_all(line.as_bytes()).unwrap_or_default();
    }
}

/// Where the arguments say that the document is.
fn source(args: &[OsString]) -> Option<Source> {
    match args {
        [option, path] if option == "--config" => Some(Source::Path(path.into())),
        [option, number] if option == "--config-fd" => {
            number.to_str()?.parse().ok().map(Source::Fd)
        }
        _ => None,
    }
}

fn read(source: &Source) -> anyhow::Result<MachineConfig> {
    /// A document of this size describes more devices than there are interrupts for.
    const LONGEST: u64 = 1 << 20;
    let file: File = source.open("--config", false)?;
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    if read.context("--config: cannot be read")? as u64 == LONGEST {
        bail!("--config: longer than {LONGEST} bytes");
    }
    Ok(MachineConfig::parse(&text)?)
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn a_guest_that_makes_trouble_for_ever_is_told_of_a_bounded_number_of_times() {
        let mut file = tempfile::tempfile().unwrap();
        let report = Report::to(Some(file.try_clone().unwrap()));
        let error = virtio::DeviceError::Request("a request that cannot be");
        for _ in 0..10_000 {
            report.trouble(2, &error);
        }
        report.tell(&Event::Ended(Ending::PowerOff));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        let told = text.lines().count();
        assert_eq!(told, usize::try_from(TROUBLES_MAX).unwrap() + 1);
        assert!(text.ends_with("\"power-off\"}\n"), "{text}");
    }
}
