//! `checkpoint`: save the processes of a workspace to files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::backend::container::criu::Cgroups;
use crate::backend::container::criu::Choices;
use crate::backend::container::criu::NetworkLock;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::checkpoint;
use crate::workspace::checkpoint::Saving;
use crate::workspace::images;

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
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = page_server)]
    page_server: Option<(String, u16)>,
    /// Save memory only, and let the processes go on
    #[arg(long)]
    pre_dump: bool,
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
    #[arg(long, value_name = "MODE", default_value = "soft", value_parser = cgroups)]
    pub(super) manage_cgroups_mode: Cgroups,
    /// How the network is locked: iptables, nftables or skip
    #[arg(long, value_name = "METHOD", value_parser = network_lock)]
    pub(super) network_lock: Option<NetworkLock>,
    /// Namespace to make without its contents (repeatable)
    #[arg(long, value_name = "NAMESPACE", value_parser = ["network"])]
    pub(super) empty_ns: Vec<String>,
    /// Free pages of parent images that are no longer needed
    #[arg(long)]
    pub(super) auto_dedup: bool,
}

impl Images {
    /// What both commands ask of CRIU.
    pub(super) fn choices(&self) -> Choices {
        Choices {
            tcp_established: self.tcp_established,
            external_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            lazy_pages: self.lazy_pages,
            auto_dedup: self.auto_dedup,
            empty_network: !self.empty_ns.is_empty(),
            cgroups: self.manage_cgroups_mode,
            network_lock: self.network_lock,
            ..Choices::default()
        }
    }

    /// Where the images are, with the choices of one command.
    pub(super) fn with(&self, choices: Choices) -> images::Images {
        images::Images {
            path: self.image_path.clone(),
            work: self.work_path.clone(),
            choices,
        }
    }
}

fn cgroups(word: &str) -> Result<Cgroups, String> {
    match word {
        "" | "soft" => Ok(Cgroups::Soft),
        "ignore" => Ok(Cgroups::Ignore),
        "full" => Ok(Cgroups::Full),
        "strict" => Ok(Cgroups::Strict),
        _ => Err("must be ignore, soft, full or strict".to_owned()),
    }
}

fn network_lock(word: &str) -> Result<NetworkLock, String> {
    match word {
        "iptables" => Ok(NetworkLock::Iptables),
        "nftables" => Ok(NetworkLock::Nftables),
        "skip" => Ok(NetworkLock::Skip),
        _ => Err("must be iptables, nftables or skip".to_owned()),
    }
}

fn page_server(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':');
    let (address, port) = parts.ok_or("must be ADDRESS:PORT")?;
    let port = port.parse().map_err(|_| "the port is no number")?;
    Ok((address.to_owned(), port))
}

/// Runs `checkpoint`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let choices = Choices {
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        leave_running: args.leave_running,
        parent: args.parent_path.clone(),
        page_server: args.page_server.clone(),
        ..args.images.choices()
    };
    let saving = Saving {
        images: args.images.with(choices),
        pre_dump: args.pre_dump,
        status_fd: args.status_fd,
    };
    checkpoint::checkpoint(&session.store()?, &args.id, &saving)
        .with_context(|| format!("cannot checkpoint {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}
