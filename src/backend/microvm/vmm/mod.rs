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

pub mod bus;
pub mod config;
pub mod virtio;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

pub use bus::BusDevice;
pub use config::MachineConfig;

use crate::backend::microvm::vmm::config::Source;

/// The first argument of the process.
pub const NAME: &str = "@vmm";

/// What the process tells of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The jail is closed and the guest is about to run.
    Running,
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
        }
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
