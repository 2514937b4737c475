//! `exec`: run one more program inside a workspace.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::spec::process::Process;
use crate::spec::user::UserWord;
use crate::sys::process::Exit;
use crate::workspace::found::Workspace;
use crate::workspace::joining::Errand;
use crate::workspace::making::Receipts;
use crate::workspace::report::Report;

/// Run one more program inside a workspace and exit as it does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Unix socket that receives the master side of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the program
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory inside
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE (repeatable)
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the program a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// User, UID or UID:GID
    #[arg(long, short = 'u', value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional group ids (repeatable)
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// JSON file with the OCI process to run, in place of the options and COMMAND
    #[arg(long, short = 'p', value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return as soon as the program runs
    #[arg(long, short = 'd')]
    detach: bool,
    /// File that receives the process id of the program
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the program
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the program
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Forbid gaining privileges by executing files
    #[arg(long)]
    no_new_privs: bool,
    /// Capability to add (repeatable)
    #[arg(long, short = 'c', value_name = "CAP")]
    cap: Vec<String>,
    /// How many descriptors from 3 on are handed to the program
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,
    /// Cgroup below the workspace's own to run in, [CONTROLLER:]PATH
    #[arg(long, value_name = "[CTRL:]PATH")]
    cgroup: Vec<String>,
    /// Run in a paused workspace all the same: the program is frozen until `resume`
    #[arg(long)]
    ignore_paused: bool,
    /// Which workspace
    id: ContainerId,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `exec`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let exit = exec(args, session).with_context(|| format!("cannot exec in {}", args.id))?;
    Ok(exit.map_or(ExitCode::SUCCESS, session::code_of))
}

fn exec(args: &Args, session: &Session) -> anyhow::Result<Option<Exit>> {
    let workspace = Workspace::find(&session.store()?, &args.id)?;
    let spec = workspace.spec()?;
    let process = match &args.process {
        Some(path) => {
            Process::parse(&std::fs::read(path).with_context(|| format!("cannot read {path:?}"))?)?
        }
        None => args.process(&spec.process)?,
    };
    for warning in process.validate()? {
        session
            .log
            .warning(&format!("{}: {}", warning.path, warning.text));
    }
    let errand = Errand {
        process,
        cgroup: args.cgroup_path()?,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        detach: args.detach,
        rootless: session.rootless(),
        timed: session.timed(),
    };
    let receipts = Receipts {
        console_socket: args.console_socket.clone(),
        pid_file: args.pid_file.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
    };
    Ok(workspace.exec(&spec, errand, &receipts)?)
}

impl Args {
    /// The workspace's own process, changed as the options say.
    fn process(&self, own: &Process) -> anyhow::Result<Process> {
        let mut process = own.clone();
        if self.command.is_empty() {
            bail!("process args cannot be empty: give a COMMAND or --process");
        }
        process.args.clone_from(&self.command);
        process.terminal = self.tty;
        process.env.extend(self.env.iter().cloned());
        process.no_new_privileges |= self.no_new_privs;
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some(label) = &self.process_label {
            process.selinux_label.clone_from(label);
        }
        if let Some(profile) = &self.apparmor {
            process.apparmor_profile.clone_from(profile);
        }
        if let Some(word) = &self.user {
            let user: UserWord = word.parse().context("--user")?;
            process.user.uid = user.uid;
            process.user.gid = user.gid.unwrap_or(process.user.gid);
        }
        process.user.additional_gids.extend(&self.additional_gids);
        self.add_capabilities(&mut process);
        Ok(process)
    }

    /// Capabilities that are added are not made inheritable: a file with inheritable bits would raise them again
    /// (CVE-2022-29162).
    fn add_capabilities(&self, process: &mut Process) {
        if self.cap.is_empty() {
            return;
        }
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(self.cap.iter().cloned());
        }
    }

    /// The one path below the workspace's cgroup; a controller before the colon would be one of cgroup v1.
    fn cgroup_path(&self) -> anyhow::Result<Option<PathBuf>> {
        match self.cgroup.as_slice() {
            [] => Ok(None),
            [path] if !path.contains(':') => Ok(Some(path.into())),
            [path] if path.starts_with(':') => Ok(Some(path[1..].into())),
            _ => bail!("--cgroup: controllers are named in cgroup v1 only; give one path"),
        }
    }
}
