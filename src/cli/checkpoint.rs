//! `checkpoint`: save the processes of a workspace to files.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Save the processes of a workspace to files, with CRIU
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    images: Images,
    /// Images of an earlier pre-dump, relative to the image path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the processes go on afterwards
    #[arg(long)]
    leave_running: bool,
    /// Skip connections that are not established yet
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Save files that have been unlinked by linking them again
    #[arg(long)]
    link_remap: bool,
    /// Descriptor on which readiness of the page server is reported
    #[arg(long, value_name = "FD")]
    status_fd: Option<i32>,
    /// ADDRESS:PORT of a page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Save memory only, and let the processes go on
    #[arg(long)]
    pre_dump: bool,
    /// How the network is locked: iptables, nftables or skip
    #[arg(long, value_name = "METHOD")]
    network_lock: Option<String>,
    /// Which workspace
    id: ContainerId,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Images {
    /// Directory of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(super) image_path: PathBuf,
    /// Directory of CRIU's logs and statistics
    #[arg(long, value_name = "DIR")]
    pub(super) work_path: Option<PathBuf>,
    /// Keep established TCP connections
    #[arg(long)]
    pub(super) tcp_established: bool,
    /// Keep one side of connected Unix sockets
    #[arg(long)]
    pub(super) ext_unix_sk: bool,
    /// Keep a terminal that was inherited
    #[arg(long)]
    pub(super) shell_job: bool,
    /// Keep file locks
    #[arg(long)]
    pub(super) file_locks: bool,
    /// Leave memory where it is until it is wanted
    #[arg(long)]
    pub(super) lazy_pages: bool,
    /// How cgroups are treated: ignore, soft, full, strict
    #[arg(long, value_name = "MODE")]
    pub(super) manage_cgroups_mode: Option<String>,
    /// Namespace to make without its contents (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    pub(super) empty_ns: Vec<String>,
    /// Free pages of parent images that are no longer needed
    #[arg(long)]
    pub(super) auto_dedup: bool,
}

/// Runs `checkpoint`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("checkpoint: not available in this build")
}
