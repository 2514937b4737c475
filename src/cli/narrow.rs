//! Reads the command line knowing one command only: the options of forty others would take longer to list than most
//! commands take.
//!
//! What is read this way means what it means to the whole tree, of which this is a branch. What cannot be read is given
//! to the whole tree, which knows what was meant, and says so.

use std::ffi::OsString;

use clap::Args;
use clap::Command;
use clap::FromArgMatches;

use crate::cli::Cli;
use crate::cli::create;
use crate::cli::delete;
use crate::cli::down;
use crate::cli::exec;
use crate::cli::kill;
use crate::cli::list;
use crate::cli::ls;
use crate::cli::pause;
use crate::cli::ps;
use crate::cli::resume;
use crate::cli::run;
use crate::cli::session::Globals;
use crate::cli::start;
use crate::cli::state;
use crate::cli::up;
use crate::cli::update;
use crate::cli::usage;
use crate::cli::wait;

/// What the words ask for, where they are those of one of the commands that are called a thousand times a minute.
pub(super) fn read(words: &[OsString]) -> Option<Cli> {
    let command = words.iter().find_map(|word| branch(word.to_str()?))?;
    let whole = Command::new("bulkhead")
        .args_override_self(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true);
    let matches = Globals::augment_args(whole)
        .subcommand(command)
        .try_get_matches_from(words)
        .ok()?;
    Cli::from_arg_matches(&matches).ok()
}

/// The command of this name, with its options.
fn branch(name: &str) -> Option<Command> {
    let augment = match name {
        "create" => create::Args::augment_args,
        "start" => start::Args::augment_args,
        "run" => run::Args::augment_args,
        "exec" => exec::Args::augment_args,
        "kill" => kill::Args::augment_args,
        "delete" => delete::Args::augment_args,
        "state" => state::Args::augment_args,
        "list" => list::Args::augment_args,
        "ps" => ps::Args::augment_args,
        "update" => update::Args::augment_args,
        "pause" => pause::Args::augment_args,
        "resume" => resume::Args::augment_args,
        "wait" => wait::Args::augment_args,
        "up" => up::Args::augment_args,
        "down" => down::Args::augment_args,
        "ls" => ls::Args::augment_args,
        "usage" => usage::Args::augment_args,
        _ => return None,
    };
    Some(augment(Command::new(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::Parser;

    use super::*;

    #[test]
    fn a_branch_has_the_options_that_the_whole_tree_has() {
        let whole = Cli::command();
        let known: Vec<&Command> = whole
            .get_subcommands()
            .filter(|command| branch(command.get_name()).is_some())
            .collect();
        assert_eq!(known.len(), 17);
        for command in known {
            let branch = branch(command.get_name()).unwrap();
            let texts = |command: &Command| -> Vec<String> {
                command
                    .get_arguments()
                    .map(|arg| format!("{arg:?}"))
                    .collect()
            };
            assert_eq!(texts(&branch), texts(command), "{}", command.get_name());
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("bulkhead")
            .chain(line.split(' '))
            .map(OsString::from)
            .collect()
    }

    #[test]
    fn both_read_the_same() {
        for line in [
            "--root /r --log-format json run -b /b --pid-file /p -d id",
            "--root /run --root=/r state id",
            "exec -t -e A=1 -u 1:2 id ls -l --all",
            "kill --all id KILL",
            "--debug -s create --no-pivot --bundle . id",
        ] {
            let narrow = format!("{:?}", read(&words(line)).unwrap());
            let whole = format!("{:?}", Cli::try_parse_from(words(line)).unwrap());
            assert_eq!(narrow, whole, "{line}");
        }
    }

    #[test]
    fn what_one_command_does_not_explain_is_left_to_the_whole_tree() {
        for line in [
            "--root run state id",
            "run --help",
            "run",
            "runn id",
            "spec",
            "help run",
        ] {
            assert!(read(&words(line)).is_none(), "{line}");
        }
    }
}
