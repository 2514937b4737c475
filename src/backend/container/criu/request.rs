//! What CRIU is asked to do, and the numbers of the fields that say so (`images/rpc.proto` of CRIU 4.1).

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use super::wire::Message;
use crate::plan::namespaces;

/// How much CRIU writes into its log: enough to see which step failed.
const LOG_LEVEL: u64 = 4;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Save.
    Dump = 1,
    /// Bring back.
    Restore = 2,
    /// Save memory, and let the processes go on.
    PreDump = 4,
}

impl Kind {
    /// The name of its log file.
    #[must_use]
    pub fn log(self) -> &'static str {
        match self {
            Self::Dump | Self::PreDump => "dump.log",
            Self::Restore => "restore.log",
        }
    }

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::PreDump => "pre-dump",
            Self::Restore => "restore",
        }
    }
}

/// What is done about the cgroups of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cgroups {
    /// They are made where missing, and their properties set where made.
    #[default]
    Soft = 3,
    /// Nothing.
    Ignore = 0,
    /// They are made where missing, and all properties set.
    Full = 4,
    /// They must not be there yet.
    Strict = 5,
}

/// How the network is kept from changing under established connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables.
    Iptables = 1,
    /// By nftables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// What a caller may choose.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Keep established TCP connections.
    pub tcp_established: bool,
    /// Skip connections that are not established yet.
    pub tcp_skip_in_flight: bool,
    /// Close TCP connections.
    pub tcp_close: bool,
    /// Keep one side of connected Unix sockets.
    pub external_sockets: bool,
    /// Keep a terminal that was inherited.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Leave memory where it is until it is wanted.
    pub lazy_pages: bool,
    /// Free pages of parent images that are no longer needed.
    pub auto_dedup: bool,
    /// Save unlinked files by linking them again.
    pub link_remap: bool,
    /// Let the processes go on.
    pub leave_running: bool,
    /// Make the network namespace without its contents.
    pub empty_network: bool,
    /// What is done about cgroups.
    pub cgroups: Cgroups,
    /// How the network is locked; `None` is CRIU's own choice.
    pub network_lock: Option<NetworkLock>,
    /// Images of an earlier pre-dump, relative to the images.
    pub parent: Option<PathBuf>,
    /// Where pages are sent.
    pub page_server: Option<(String, u16)>,
    /// A file of CRIU options that override all this.
    pub config: Option<PathBuf>,
    /// The security label of the processes.
    pub lsm_profile: Option<String>,
    /// The SELinux context of the mounts.
    pub lsm_mount_context: Option<String>,
}

/// Mounts that are the host's: inside and name when saving, name and path of the host when restoring.
pub type MountMap = Vec<(Vec<u8>, Vec<u8>)>;

/// One thing that CRIU is asked to do.
#[derive(Debug)]
pub struct Request<'a> {
    /// What.
    pub kind: Kind,
    /// As the caller wishes.
    pub choices: &'a Choices,
    /// The directory of the images.
    pub images: BorrowedFd<'a>,
    /// The directory of log and statistics.
    pub work: BorrowedFd<'a>,
    /// The first process; 0 when there is none yet.
    pub pid: i32,
    /// The root file system.
    pub root: PathBuf,
    /// Mounts that are the host's.
    pub mounts: MountMap,
    /// Other things that are the host's.
    pub external: Vec<String>,
    /// Descriptors of CRIU's own that take the place of those that were the host's.
    pub inherited: Vec<(String, i32)>,
    /// Namespaces to join, kind and path.
    pub joined: Vec<(String, PathBuf)>,
    /// The cgroup that is frozen meanwhile.
    pub freeze: Option<PathBuf>,
    /// The cgroup that the processes come back in, from its mount on.
    pub cgroup: Option<PathBuf>,
}

impl Request<'_> {
    /// The request as CRIU reads it.
    pub(super) fn message(&self) -> Message {
        let mut request = Message::default();
        request.number(1, self.kind as u64);
        request.put(2, self.options().bytes());
        request
    }

    fn options(&self) -> Message {
        let mut options = Message::default();
        options.signed(1, self.images.as_raw_fd());
        if self.pid != 0 {
            options.signed(2, self.pid);
        }
        options.number(9, LOG_LEVEL);
        options.put(10, self.kind.log().as_bytes());
        options.flag(12, true);
        options.put(13, self.root.as_os_str().as_bytes());
        options.signed(17, self.work.as_raw_fd());
        options.flag(50, true);
        self.write_choices(&mut options);
        self.write_lists(&mut options);
        if self.kind == Kind::Restore {
            options.flag(6, true);
            options.flag(26, true);
        }
        options
    }

    fn write_choices(&self, options: &mut Message) {
        let chosen = self.choices;
        let flags = [
            (3, chosen.leave_running),
            (4, chosen.external_sockets),
            (5, chosen.tcp_established),
            (7, chosen.shell_job),
            (8, chosen.file_locks),
            (15, chosen.parent.is_some() || self.kind == Kind::PreDump),
            (16, chosen.auto_dedup),
            (18, chosen.link_remap),
            (46, chosen.tcp_skip_in_flight),
            (48, chosen.lazy_pages),
            (52, chosen.tcp_close),
        ];
        for (field, value) in flags {
            options.flag(field, value);
        }
        options.number(34, chosen.cgroups as u64);
        if chosen.empty_network {
            options.number(38, namespaces::NETWORK);
        }
        if let Some(method) = chosen.network_lock {
            options.number(58, method as u64);
        }
        if let Some((address, port)) = &chosen.page_server {
            let mut server = Message::default();
            server.put(1, address.as_bytes());
            server.number(2, u64::from(*port));
            options.put(11, server.bytes());
        }
        let texts = [
            (14, chosen.parent.as_deref().map(path_bytes)),
            (51, chosen.config.as_deref().map(path_bytes)),
            (53, chosen.lsm_profile.as_deref().map(str::as_bytes)),
            (57, chosen.lsm_mount_context.as_deref().map(str::as_bytes)),
            (44, self.freeze.as_deref().map(path_bytes)),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                options.put(field, text);
            }
        }
    }

    fn write_lists(&self, options: &mut Message) {
        for (key, value) in &self.mounts {
            options.put(23, pair(key, value).bytes());
        }
        for (key, fd) in &self.inherited {
            let mut inherited = Message::default();
            inherited.put(1, key.as_bytes());
            inherited.signed(2, *fd);
            options.put(27, inherited.bytes());
        }
        for text in &self.external {
            options.put(37, text.as_bytes());
        }
        for (kind, path) in &self.joined {
            options.put(39, pair(kind.as_bytes(), path_bytes(path)).bytes());
        }
        if let Some(path) = &self.cgroup {
            let mut root = Message::default();
            root.put(2, path_bytes(path));
            options.put(25, root.bytes());
        }
    }
}

fn pair(first: &[u8], second: &[u8]) -> Message {
    let mut pair = Message::default();
    pair.put(1, first);
    pair.put(2, second);
    pair
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
