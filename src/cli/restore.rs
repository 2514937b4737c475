//! `restore`: make a workspace from files that `checkpoint` wrote.

use std::process::ExitCode;

use anyhow::Context;

use crate::backend::container::criu::Choices;
use crate::cli::checkpoint::Images;
use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::restore;
use crate::workspace::restore::Return;
use crate::workspace::running::Stay;

/// Make a workspace from files that `checkpoint` wrote, with CRIU
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    images: Images,
    /// Return as soon as the processes run
    #[arg(long, short = 'd')]
    detach: bool,
    /// Do not delete the workspace at its end
    #[arg(long)]
    keep: bool,
    /// Close TCP connections that were established
    #[arg(long)]
    tcp_close: bool,
    /// Do not adopt processes that the workspace leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// AppArmor or SELinux profile of the processes, TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Name of the new workspace
    id: ContainerId,
}

/// Runs `restore`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let starting = Starting::default();
    let wish = session.wish(&args.id, &args.making, &starting);
    let receipts = args.making.receipts(None);
    let choices = Choices {
        tcp_close: args.tcp_close,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        ..args.images.choices()
    };
    let images = args.images.with(choices);
    let wanted = Return {
        wish: &wish,
        images: &images,
        receipts: &receipts,
        stay: Stay {
            detach: args.detach,
            keep: args.keep,
            adopt: !args.no_subreaper,
            timed: session.timed(),
        },
    };
    let exit = restore::restore(&session.store()?, &wanted, &session.log)
        .with_context(|| format!("cannot restore {}", args.id))?;
    Ok(exit.map_or(ExitCode::SUCCESS, session::code_of))
}
