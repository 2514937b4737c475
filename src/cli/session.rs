//! What every command is given: the options before the command's name, and what follows from them.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::OsStringValueParser;
use clap::builder::TypedValueParser;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

use crate::cli::log;
use crate::cli::log::Format;
use crate::cli::log::Level;
use crate::cli::log::Log;
use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::words::Words;
use crate::plan::cgroup::Manager;
use crate::spec::asked::Isolation;
use crate::spec::id::ContainerId;
use crate::sys::process::Exit;
use crate::workspace::blueprint::Wish;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;
use crate::workspace::store::Store;

/// The name under which every workspace is put into a machine.
const MICROVM: &str = "bulkhead-microvm";

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CgroupManager {
    /// The runtime itself, in the cgroup2 tree
    Cgroupfs,
    /// systemd, asked over D-Bus
    Systemd,
    /// Nobody: the workspace stays in the caller's cgroup
    Disabled,
}

/// Whether to do without the rights of root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    /// Yes
    True,
    /// No
    False,
    /// As the effective user and the user namespace say
    Auto,
}

/// Options that stand before the command's name.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Globals {
    /// Directory of the workspaces' state [default: /run/bulkhead, or $XDG_RUNTIME_DIR/bulkhead without root]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// File to which errors are appended (they go to standard error too); file:FILE is the same
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(log_file))]
    pub(super) log: Option<PathBuf>,
    /// How lines in the log are written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    log_format: Format,
    /// Report what is done, and how long each step takes
    #[arg(long)]
    debug: bool,
    /// Least level that is reported: debug, warning or error
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    log_level: Option<Level>,
    /// Let systemd make the cgroups; the same as --cgroup-manager systemd
    #[arg(long, short = 's')]
    systemd_cgroup: bool,
    /// Who makes the cgroups
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<CgroupManager>,
    /// Whether to do without the rights of root
    #[arg(long, value_name = "WHETHER", default_value = "auto")]
    pub(super) rootless: Rootless,
    /// Ignored: CRIU is found in $PATH
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            root: None,
            log: None,
            log_format: Format::Text,
            debug: false,
            log_level: None,
            systemd_cgroup: false,
            cgroup_manager: None,
            rootless: Rootless::Auto,
            criu: None,
            version: false,
        }
    }
}

impl Globals {
    /// Reads the words up to the command, where they are plain (`cli::plain`), and gives its name.
    pub(super) fn plain<'a>(words: &mut Words<'a>) -> Option<(Self, &'a str)> {
        let mut globals = Self::default();
        let named = |word| CgroupManager::from_str(word, false).ok();
        loop {
            match words.next()?? {
                "--root" => globals.root = Some(words.value()?.into()),
                "--log" => globals.log = Some(log_file(words.value()?.into()).ok()?),
                "--log-format" => globals.log_format = log_format(words.value()?).ok()?,
                "--debug" => globals.debug = true,
                "--log-level" => globals.log_level = Some(log_level(words.value()?).ok()?),
                "--systemd-cgroup" | "-s" => globals.systemd_cgroup = true,
                "--cgroup-manager" => globals.cgroup_manager = Some(named(words.value()?)?),
                "--rootless" => {
                    globals.rootless = Rootless::from_str(words.value()?, false).ok()?
                }
                "--criu" => globals.criu = Some(words.value()?.into()),
                "--version" | "-v" => globals.version = true,
                word if word.starts_with('-') => return None,
                name => return Some((globals, name)),
            }
        }
    }
}

/// The file of a log; crun's callers may write what kind of log it is before it.
fn log_file(word: OsString) -> Result<PathBuf, String> {
    let text = word.to_str().unwrap_or_default();
    if let Some(kind) = ["journald", "syslog"].into_iter().find(|kind| {
        text.strip_prefix(kind)
            .is_some_and(|rest| rest.starts_with(':'))
    }) {
        return Err(format!(
            "{kind} is not written to; name a file, or leave --log out and pass standard error on"
        ));
    }
    match text.strip_prefix("file:") {
        Some(file) => Ok(PathBuf::from(file)),
        None => Ok(PathBuf::from(word)),
    }
}

fn log_format(word: &str) -> Result<Format, String> {
    match word {
        "text" | "" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("invalid log-format: {word}")),
    }
}

fn log_level(word: &str) -> Result<Level, String> {
    match word {
        "debug" | "trace" => Ok(Level::Debug),
        "info" | "warn" | "warning" => Ok(Level::Warning),
        "error" | "fatal" | "panic" => Ok(Level::Error),
        _ => Err(format!("invalid log-level: {word}")),
    }
}

/// What every command is given.
#[derive(Debug)]
pub(super) struct Session {
    /// The options before the command's name.
    pub(super) globals: Globals,
    /// Where errors and remarks go.
    pub(super) log: Log,
    /// The wall that the name stands for by which this program was called.
    pub(super) called: Option<Isolation>,
}

impl Session {
    pub(super) fn new(globals: Globals) -> Self {
        let least = match (globals.debug, globals.log_level) {
            (true, _) => Level::Debug,
            (false, level) => level.unwrap_or(Level::Warning),
        };
        let log = Log::new(globals.log.clone(), globals.log_format, least);
        Self {
            globals,
            log,
            called: called(std::env::args_os().next().as_deref()),
        }
    }

    /// The workspaces of the state root.
    pub(super) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::new(self.state_root()?))
    }

    /// Where the state of workspaces is kept, and their bill.
    pub(super) fn state_root(&self) -> anyhow::Result<StateRoot> {
        let root = StateRoot::choose(self.globals.root.as_deref(), self.rootless())?;
        self.log.bill_at(&root);
        Ok(root)
    }

    /// Whether to do without the rights of root, where the caller says so.
    pub(super) fn rootless(&self) -> Option<bool> {
        match self.globals.rootless {
            Rootless::True => Some(true),
            Rootless::False => Some(false),
            Rootless::Auto => None,
        }
    }

    /// Whether the time of each step is reported.
    pub(super) fn timed(&self) -> bool {
        self.globals.debug
    }

    /// Reports an error that was survived.
    pub(super) fn ignore(&self, what: &str, error: impl Into<anyhow::Error>) {
        self.log.warning(&format!(
            "ignoring that {what}: {}",
            log::one_line(&error.into())
        ));
    }

    /// What the caller says about a new workspace.
    pub(super) fn wish(&self, id: &ContainerId, making: &Making, starting: &Starting) -> Wish {
        Wish {
            id: id.clone(),
            bundle: making.bundle.clone(),
            config: starting.config.clone(),
            manager: self.manager(),
            rootless: self.rootless(),
            no_pivot: making.no_pivot,
            no_new_keyring: starting.no_new_keyring,
            preserve_fds: starting.preserve_fds,
            isolation: starting.isolation.or(self.called),
        }
    }

    /// What the caller says about every workspace, for one whose bundle is or will be at `bundle`.
    pub(super) fn wish_of(&self, id: &ContainerId, bundle: PathBuf) -> Wish {
        Wish {
            rootless: self.rootless(),
            isolation: self.called,
            ..Wish::plain(id.clone(), bundle, self.manager())
        }
    }

    /// Who makes the cgroups: the explicit option wins over `--systemd-cgroup`.
    pub(super) fn manager(&self) -> Manager {
        match (self.globals.cgroup_manager, self.globals.systemd_cgroup) {
            (Some(CgroupManager::Systemd), _) | (None, true) => Manager::Systemd,
            (Some(CgroupManager::Disabled), _) => Manager::Disabled,
            (Some(CgroupManager::Cgroupfs), _) | (None, false) => Manager::Cgroupfs,
        }
    }
}

/// The wall that a command's name stands for: a link called `bulkhead-microvm` is for callers who choose a runtime by
/// its name alone.
fn called(name: Option<&OsStr>) -> Option<Isolation> {
    let name = Path::new(name?).file_name()?;
    (name == MICROVM).then_some(Isolation::MicroVm)
}

/// The exit status of this command that tells how a program ended.
pub(super) fn code_of(exit: Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX))
}

/// Prints what can be asked for.
pub(super) fn help(command: &mut clap::Command) -> ExitCode {
    match command.print_help() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reports that the command line could not be read, in the log too when one was named; prints help when it was asked for.
pub(super) fn usage(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return error
            .print()
            .map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE);
    }
    let format = match option_of(args, "--log-format")
        .as_deref()
        .and_then(|word| word.to_str())
    {
        Some("json") => Format::Json,
        _ => Format::Text,
    };
    let log = Log::new(
        option_of(args, "--log").and_then(|word| log_file(word).ok()),
        format,
        Level::Error,
    );
    log.failed(&usage_text(error));
    let command = args
        .iter()
        .find_map(|arg| arg.to_str().filter(|arg| matches!(*arg, "exec" | "wait")));
    command.map_or(ExitCode::FAILURE, |_| ExitCode::from(255))
}

/// The text of a usage error in one line. podman probes for an option by leaving out its value and looking for
/// `requires an argument`.
fn usage_text(error: &clap::Error) -> String {
    let name = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => name.split(' ').next().unwrap_or(name),
        _ => "",
    };
    let no_value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.is_empty(),
        _ => true,
    };
    if error.kind() == ErrorKind::InvalidValue && no_value && name.starts_with('-') {
        return format!("option {name} requires an argument");
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = text
        .find("\n\nUsage:")
        .or_else(|| text.find("\n\nFor more"))
        .unwrap_or(text.len());
    text[..end].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value of `name` among arguments that clap refused.
fn option_of(args: &[OsString], name: &str) -> Option<OsString> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == name {
            return rest.next().cloned();
        }
        let value = arg
            .to_str()
            .and_then(|arg| arg.strip_prefix(name))
            .and_then(|arg| arg.strip_prefix('='));
        if let Some(value) = value {
            return Some(value.into());
        }
    }
    None
}
