//! Reads the plainest command lines: those of the commands that are called a thousand times a minute, with each option a word
//! of its own, and its value the next.
//!
//! To describe even one command to the parser and have it parse takes a twentieth of what `run` takes. What is read here
//! means what it means to the parser; whatever is written otherwise (`--name=value`, letters in one word, a value that begins
//! with a dash), unknown or wrong is left to that.

use std::ffi::OsString;

use crate::cli::Cli;
use crate::cli::Command;
use crate::cli::create;
use crate::cli::delete;
use crate::cli::kill;
use crate::cli::run;
use crate::cli::session::Globals;
use crate::cli::start;
use crate::cli::state;
use crate::cli::words::Words;

/// What the words ask for, the program's name being the first.
pub(super) fn read(words: &[OsString]) -> Option<Cli> {
    let mut words = Words::of(words.get(1..)?);
    let (globals, name) = Globals::plain(&mut words)?;
    let command = match name {
        "create" => Command::Create(create::Args::plain(words)?),
        "start" => Command::Start(start::Args::plain(words)?),
        "run" => Command::Run(run::Args::plain(words)?),
        "state" => Command::State(state::Args::plain(words)?),
        "kill" => Command::Kill(kill::Args::plain(words)?),
        "delete" => Command::Delete(delete::Args::plain(words)?),
        _ => return None,
    };
    let command = Some(command);
    Some(Cli { globals, command })
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use clap::CommandFactory;
    use clap::Parser;

    use super::*;

    const COMMANDS: [&str; 6] = ["create", "start", "run", "state", "kill", "delete"];

    /// What both make of a line, the parser first.
    fn both(line: &str) -> (String, Option<String>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let plain = read(&words).map(|read| format!("{read:?}"));
        (format!("{:?}", Cli::try_parse_from(words).unwrap()), plain)
    }

    fn assert_same(line: &str) {
        let (parsed, plain) = both(line);
        assert_eq!(plain, Some(parsed), "{line}");
    }

    fn value_of(arg: &Arg) -> &'static str {
        match arg.get_id().as_str() {
            "log_format" => "json",
            "log_level" => "error",
            "cgroup_manager" => "systemd",
            "rootless" => "true",
            "preserve_fds" => "3",
            "isolation" => "microvm",
            _ => "/file",
        }
    }

    /// Every way to write an option plainly.
    fn written(arg: &Arg) -> Vec<String> {
        let long = arg.get_long().map(|name| format!("--{name}"));
        let short = arg.get_short().map(|letter| format!("-{letter}"));
        let value = arg.get_action().takes_values().then(|| value_of(arg));
        long.into_iter()
            .chain(short)
            .map(|name| value.map_or(name.clone(), |value| format!("{name} {value}")))
            .collect()
    }

    #[test]
    fn every_option_means_what_it_means_to_the_parser() {
        let whole = Cli::command();
        let options = |command: &clap::Command| -> Vec<String> {
            command.get_arguments().flat_map(written).collect()
        };
        let before = options(&whole);
        assert!(before.len() > 10, "{before:?}");
        for name in COMMANDS {
            for option in &before {
                assert_same(&format!("bulkhead {option} {name} id"));
            }
            for option in options(whole.find_subcommand(name).unwrap()) {
                assert_same(&format!("bulkhead {name} {option} id"));
                assert_same(&format!("bulkhead {name} id {option}"));
            }
        }
    }

    #[test]
    fn whole_lines_are_read_the_same() {
        for line in [
            "bulkhead --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s id",
            "bulkhead --root /r --root /s -s run -b /a -b /b -d id",
            "bulkhead kill --all id KILL",
            "bulkhead kill id",
            "bulkhead --log file:/l state id",
            "bulkhead delete --force id",
        ] {
            assert_same(line);
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        for line in [
            "bulkhead",
            "bulkhead run",
            "bulkhead run a b",
            "bulkhead run .a",
            "bulkhead --root=/r run a",
            "bulkhead run -db /b a",
            "bulkhead run --bundle -b a",
            "bulkhead run --bundle",
            "bulkhead run --help",
            "bulkhead run -- a",
            "bulkhead run --unknown a",
            "bulkhead --log-format xml run a",
            "bulkhead --log syslog:x run a",
            "bulkhead run --preserve-fds x a",
            "bulkhead exec a true",
            "bulkhead kill a -9",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(read(&words).is_none(), "{line}");
        }
    }
}
