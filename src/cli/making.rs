//! The options that `create`, `run` and `restore` have in common: from what a workspace is made and how it is handed over.

use std::path::PathBuf;

use crate::cli::compile;
use crate::cli::words::Words;
use crate::spec::asked::Isolation;
use crate::workspace::making::Receipts;

/// From what a workspace is made, and how it is handed over.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Making {
    /// Directory of the bundle
    #[arg(
        long,
        short = 'b',
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    pub(super) bundle: PathBuf,
    /// Unix socket that receives the master side of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that receives the process id of the workspace's init
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Do not use pivot_root (for a root filesystem on a ramdisk)
    #[arg(long)]
    pub(super) no_pivot: bool,
}

/// What `create` and `run` have beyond that.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Starting {
    /// Configuration to use in place of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the workspace's init
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// How many descriptors from 3 on are handed to the workspace, after $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) preserve_fds: u32,
    /// Wall to put it behind, in place of the configuration's: container or microvm
    #[arg(long, value_name = "WALL", value_parser = compile::wall)]
    pub(super) isolation: Option<Isolation>,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            bundle: PathBuf::from("."),
            console_socket: None,
            pid_file: None,
            no_pivot: false,
        }
    }
}

impl Starting {
    /// Takes an option that is one of these, with its value (`cli::plain`); whether it is.
    pub(super) fn plain(&mut self, word: &str, words: &mut Words<'_>) -> Option<bool> {
        match word {
            "--config" | "-f" => self.config = Some(words.value()?.into()),
            "--pidfd-socket" => self.pidfd_socket = Some(words.value()?.into()),
            "--no-new-keyring" => self.no_new_keyring = true,
            "--preserve-fds" => self.preserve_fds = words.value()?.parse().ok()?,
            "--isolation" => self.isolation = Some(compile::wall(words.value()?).ok()?),
            _ => return Some(false),
        }
        Some(true)
    }
}

impl Making {
    /// Takes an option that is one of these, with its value (`cli::plain`); whether it is.
    pub(super) fn plain(&mut self, word: &str, words: &mut Words<'_>) -> Option<bool> {
        match word {
            "--bundle" | "-b" => self.bundle = words.value()?.into(),
            "--console-socket" => self.console_socket = Some(words.value()?.into()),
            "--pid-file" => self.pid_file = Some(words.value()?.into()),
            "--no-pivot" => self.no_pivot = true,
            _ => return Some(false),
        }
        Some(true)
    }

    /// What the caller is handed back.
    pub(super) fn receipts(&self, pidfd_socket: Option<&PathBuf>) -> Receipts {
        Receipts {
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            pidfd_socket: pidfd_socket.cloned(),
        }
    }
}
