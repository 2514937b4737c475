//! The process that stands for a machine on the host: `bulkhead @keeper N`, whose number is the workspace's.
//!
//! It is born in the enclosure and in the workspace's network, makes the file server and the VMM, has the guest's agent
//! build the workspace, and waits for its start as a container's first process does. Then it carries streams and signals,
//! and ends as the program in the guest does. It never sees the guest's memory; what comes from the guest comes over the
//! wire, and is bounded.

mod birth;
mod process;
mod raising;
mod staying;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use serde::Deserialize;
use serde::Serialize;

use crate::backend::BackendError;
use crate::backend::microvm::Machine;
use crate::backend::microvm::report::Reporter;
use crate::init;
use crate::sys::inherited;

/// The word that makes the program a keeper, in place of a command.
pub const WORD: &str = "@keeper";

/// What a keeper is told when it starts; descriptors by their numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// What it makes.
    pub machine: Machine,
    /// The workspace's directory.
    pub home: RawFd,
    /// The socket that the machine's connections come through.
    pub listener: RawFd,
    /// Where it reports to the one who ordered it.
    pub channel: RawFd,
    /// The socket on which it waits for its start; the channel, without one.
    pub start: Option<RawFd>,
    /// The socket that the terminal's master is sent to.
    pub console: Option<RawFd>,
    /// The workspace's cgroup.
    pub cgroup: Option<RawFd>,
    /// The machine's disks, in their order.
    pub disks: Vec<RawFd>,
}

/// The whole life of a keeper; `source` is the number of the descriptor that its settings are read from.
#[must_use]
pub fn live(source: &str) -> i32 {
    // Without settings there is nobody to tell what is wrong with them.
    let Some((machine, taken, mut reporter)) = begin(source) else {
        return init::FAILED;
    };
    match raising::raise(&machine, taken, &mut reporter) {
        Ok(standing) => standing.stay(reporter),
        Err(error) => {
            reporter.failed(error);
            init::FAILED
        }
    }
}

fn begin(source: &str) -> Option<(Machine, Taken, Reporter)> {
    let file = inherited::copy(source.parse().ok()?).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text).ok()?;
    let settings: Settings = serde_json::from_slice(&text).ok()?;
    let channel = inherited::copy(settings.channel).ok()?;
    let taken = Taken::of(&settings).ok()?;
    inherited::close_all_but(&taken.numbers(&channel));
    Some((settings.machine, taken, Reporter::new(channel)))
}

/// What was handed over.
struct Taken {
    home: OwnedFd,
    listener: OwnedFd,
    start: Option<OwnedFd>,
    console: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
    disks: Vec<OwnedFd>,
}

impl Taken {
    fn of(settings: &Settings) -> crate::sys::Result<Self> {
        Ok(Self {
            home: inherited::copy(settings.home)?,
            listener: inherited::copy(settings.listener)?,
            start: settings.start.map(inherited::copy).transpose()?,
            console: settings.console.map(inherited::copy).transpose()?,
            cgroup: settings.cgroup.map(inherited::copy).transpose()?,
            disks: (settings.disks.iter().copied().map(inherited::copy))
                .collect::<crate::sys::Result<_>>()?,
        })
    }

    fn numbers(&self, channel: &OwnedFd) -> Vec<RawFd> {
        let optional = [&self.start, &self.console, &self.cgroup];
        [channel, &self.home, &self.listener]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .chain(&self.disks)
            .map(AsRawFd::as_raw_fd)
            .collect()
    }
}

type Result<T> = std::result::Result<T, BackendError>;
