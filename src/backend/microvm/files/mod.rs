//! The file server of a machine: a process of its own that sees the shares and nothing else.
//!
//! It answers a guest's file system requests (FUSE over virtio-fs) out of the guest's memory; the VMM only introduces the
//! two to each other and never sees a byte of a file. A guest that has taken over its kernel talks to this process, so it
//! is where the outer wall of the files stands: a mount namespace with a tree per share ([`room`]), few rights and fewer
//! system calls ([`jail`], [`filter`]), and names that are one name ([`names`]).

mod filter;
mod jail;
mod launch;
mod names;
mod room;
mod service;

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;
use virtiofsd::passthrough;
use virtiofsd::passthrough::CachePolicy;
use virtiofsd::passthrough::InodeFileHandlesMode;
use virtiofsd::passthrough::NegotiationMode;
use virtiofsd::passthrough::PassthroughFs;

pub use filter::ALLOWED;
pub use launch::OWN;
pub use launch::Order;
pub use launch::Server;
pub use launch::launch;
pub use service::QUEUE_SIZE;
pub use service::QUEUES;

use self::names::Named;
use crate::plan::share::Share;
use crate::sys::inherited;
use crate::sys::socket;

/// The word that makes the program a file server, in place of a command.
pub const WORD: &str = "@files";

/// What a file server is told when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// What it serves.
    pub shares: Vec<Share>,
    /// The number of a listening Unix stream socket; one connection is taken from it, and its end is the server's.
    pub listener: RawFd,
    /// The number of a socket that hears when it serves, or why it cannot; nobody does without one.
    #[serde(default)]
    pub report: Option<RawFd>,
}

/// How long a guest may believe what it knows of names and attributes. What the host or another workspace changes in a
/// share shows after no more than this.
const BELIEVED: Duration = Duration::from_secs(1);

/// Descriptors that are not the guest's: sockets, event counters, its memory, and a few for the moment.
const RESERVED: u64 = 128;

/// The whole life of a file server: `bulkhead @files --config FILE | --config-fd N`.
///
/// # Errors
///
/// Why it could not serve, or had to stop; a connection that ends is how it is meant to end.
pub fn serve(arguments: &[OsString]) -> anyhow::Result<()> {
    let settings = read(arguments)?;
    let listener = inherited::copy(settings.listener).context("listener: not open")?;
    let report = settings.report.map(inherited::copy).transpose();
    let report = report.context("report: not open")?;
    let kept = report.iter().chain([&listener]).map(AsRawFd::as_raw_fd);
    inherited::close_all_but(&kept.collect::<Vec<RawFd>>());
    let report = report.as_ref().map(AsFd::as_fd);
    let served = begin(&settings, listener);
    tell(
        report,
        &served
            .as_ref()
            .map(drop)
            .map_err(|error| format!("{error:#}")),
    );
    served?.until_the_end()
}

/// Builds the jail around this process and the service in it, and closes both.
fn begin(settings: &Settings, listener: OwnedFd) -> anyhow::Result<service::Running> {
    let room = room::build(&settings.shares)?;
    let most = jail::more_descriptors();
    room.enter()?;
    jail::lower()?;
    let files = PassthroughFs::new(passthrough::Config {
        proc_sfd_rawfd: Some(File::from(room.descriptors)),
        guest_fd_limit: most.saturating_sub(RESERVED),
        ..manners()
    })?;
    let running = service::start(Named(files), listener)?;
    filter::load()?;
    Ok(running)
}

/// How the files are served: as a container would find them.
fn manners() -> passthrough::Config {
    passthrough::Config {
        entry_timeout: BELIEVED,
        attr_timeout: BELIEVED,
        // Data is the guest's to cache until it opens the file again, or sees that it has changed: with anything less
        // there is no shared mapping of a file, which databases and linkers need.
        cache_policy: CachePolicy::Auto,
        // What a guest has written is on the host when `write(2)` returns, as others who share the directory expect.
        writeback: false,
        xattr: true,
        posix_acl: NegotiationMode::Auto,
        announce_submounts: true,
        // A handle can be opened for any file of a file system, so a server that may open them (`CAP_DAC_READ_SEARCH`)
        // can leave its shares. Descriptors cannot; they cost one of ours for each file that the guest remembers.
        inode_file_handles: InodeFileHandlesMode::Never,
        readdirplus: true,
        allow_direct_io: true,
        killpriv_v2: true,
        ..passthrough::Config::default()
    }
}

fn read(arguments: &[OsString]) -> anyhow::Result<Settings> {
    let file = match arguments {
        // host path: the file that the caller named.
        [option, path] if option == "--config" => File::open(path).context("--config")?,
        [option, number] if option == "--config-fd" => {
            let number = number.to_str().and_then(|number| number.parse().ok());
            let number = number.context("--config-fd: not a number")?;
            File::from(inherited::copy(number).context("--config-fd: not open")?)
        }
        _ => bail!("usage: bulkhead {WORD} --config FILE | --config-fd N"),
    };
    serde_json::from_reader(BufReader::new(file)).context("the settings of the file server")
}

/// Says how it went; who does not listen any more has no need to know.
fn tell(report: Option<BorrowedFd<'_>>, how: &Result<(), String>) {
    if let (Some(report), Ok(text)) = (report, serde_json::to_vec(how)) {
        socket::send(report, &text).unwrap_or_default();
    }
}
