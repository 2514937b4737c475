//! `resume`: let a paused workspace go on.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::spec::asked::Expiry;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// Let a paused workspace go on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `resume`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let context = || format!("cannot resume {}", args.id);
    let workspace = Workspace::find(&session.store()?, &args.id).with_context(context)?;
    refuse_while_its_lease_keeps_it(&workspace).with_context(context)?;
    workspace.resume().with_context(context)?;
    Ok(ExitCode::SUCCESS)
}

/// What stands still because its lease has ended does so until that is extended.
fn refuse_while_its_lease_keeps_it(workspace: &Workspace) -> anyhow::Result<()> {
    if workspace.on_expiry() == Expiry::Pause && workspace.term_is_over()? {
        let id = &workspace.record().id;
        bail!("its lease has ended; extend it: bulkhead lease {id} --extend SPAN");
    }
    Ok(())
}
