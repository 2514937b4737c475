//! Brings an argument vector written for Go's flag package into the form that clap reads.
//!
//! containerd passes `-no-subreaper` (one dash, long name) and Go programs may write `--detach=true`.
//! What follows the workspace id in `exec` and `ps` belongs to the program inside and is left alone.

use std::ffi::OsString;

use clap::Arg;
use clap::Command;

/// Commands whose arguments after the first positional one are not ours.
const FOREIGN_TAIL: [&str; 2] = ["exec", "ps"];

/// Rewrites `args` (without the program's name) so that `command` understands them.
///
/// The command tree is asked only when an argument looks foreign: nearly every call passes through untouched.
pub(super) fn normalise(args: Vec<OsString>, tree: impl FnOnce() -> Command) -> Vec<OsString> {
    if args.iter().any(looks_foreign) {
        Rewriter::new(&tree()).rewrite(args)
    } else {
        args
    }
}

/// Options whose empty value is none at all, as it is for Go's flag package and for shells with `--pid-file "$FILE"`.
const NOTHING_WHEN_EMPTY: [&str; 12] = [
    "apparmor",
    "bundle",
    "config",
    "console_socket",
    "cwd",
    "log",
    "pid_file",
    "pidfd_socket",
    "process",
    "process_label",
    "resources",
    "root",
];

fn looks_foreign(arg: &OsString) -> bool {
    let text = arg.as_encoded_bytes();
    if text.is_empty() || (text.starts_with(b"--") && text.ends_with(b"=")) {
        return true;
    }
    let long_behind_one_dash = text.len() > 2 && text[0] == b'-' && text[1] != b'-';
    long_behind_one_dash || (text.starts_with(b"--") && truth_of(text).is_some())
}

/// The value of `--flag=VALUE` where it is one of the words Go takes for a boolean.
fn truth_of(text: &[u8]) -> Option<bool> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    match &text[at + 1..] {
        b"true" | b"TRUE" | b"True" | b"t" | b"T" | b"1" => Some(true),
        b"false" | b"FALSE" | b"False" | b"f" | b"F" | b"0" => Some(false),
        _ => None,
    }
}

/// Walks an argument vector knowing at each place which command's options apply.
struct Rewriter<'tree> {
    current: &'tree Command,
    foreign: bool,
    inside: bool,
    value_next: bool,
    nothing_when_empty: bool,
}

impl<'tree> Rewriter<'tree> {
    fn new(tree: &'tree Command) -> Self {
        Self {
            current: tree,
            foreign: false,
            inside: false,
            value_next: false,
            nothing_when_empty: false,
        }
    }

    fn rewrite(mut self, args: Vec<OsString>) -> Vec<OsString> {
        let mut rewritten = Vec::with_capacity(args.len());
        for arg in args {
            let is_nothing = self.value_next && self.nothing_when_empty && arg.is_empty();
            match self.next(arg) {
                Some(_) if is_nothing => drop(rewritten.pop()),
                other => rewritten.extend(other),
            }
        }
        rewritten
    }

    /// The argument as clap should see it; nothing for a boolean that was set to false.
    fn next(&mut self, arg: OsString) -> Option<OsString> {
        if self.foreign || std::mem::take(&mut self.value_next) {
            return Some(arg);
        }
        let Some(text) = arg.to_str() else {
            return Some(arg);
        };
        if text == "--" {
            self.foreign = true;
            return Some(arg);
        }
        match text.strip_prefix('-') {
            None | Some("") => {
                self.positional(text);
                Some(arg)
            }
            Some(rest) => self
                .option(rest.strip_prefix('-'), rest)
                .or(Some(arg))
                .filter(|arg| !arg.is_empty()),
        }
    }

    fn positional(&mut self, text: &str) {
        if self.inside {
            self.foreign = FOREIGN_TAIL.contains(&self.current.get_name());
        } else if let Some(command) = self.current.find_subcommand(text) {
            self.inside = command.get_subcommands().next().is_none();
            self.current = command;
        }
    }

    /// The rewritten option (empty: to be left out), or nothing when it is to stay as it is.
    fn option(&mut self, double: Option<&str>, single: &str) -> Option<OsString> {
        let body = double.unwrap_or(single);
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let arg = self.known(name, double.is_some())?;
        let takes_value = arg.get_action().takes_values();
        self.value_next =
            takes_value && value.is_none() && arg.get_num_args().is_none_or(|n| n.min_values() > 0);
        self.nothing_when_empty = NOTHING_WHEN_EMPTY.contains(&arg.get_id().as_str());
        if takes_value && value == Some("") && self.nothing_when_empty {
            return Some(OsString::new());
        }
        let long = name.len() > 1 || double.is_some();
        match (value, takes_value) {
            (Some(_), false) => match truth_of(body.as_bytes()) {
                Some(true) if long => Some(format!("--{name}").into()),
                Some(true) => Some(format!("-{name}").into()),
                Some(false) => Some(OsString::new()),
                None => None,
            },
            _ if long => Some(format!("--{body}").into()),
            _ => None,
        }
    }

    /// The option called `name`; a one-letter name behind one dash is a short one.
    fn known(&self, name: &str, double: bool) -> Option<&'tree Arg> {
        let mut letters = name.chars();
        let short = match (letters.next(), letters.next(), double) {
            (Some(letter), None, false) => Some(letter),
            _ => None,
        };
        self.current.get_arguments().find(|arg| match short {
            Some(letter) => arg.get_short() == Some(letter),
            None => arg
                .get_long_and_visible_aliases()
                .is_some_and(|names| names.contains(&name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::Cli;

    use super::*;

    fn rewritten(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let words = normalise(args, Cli::command);
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_long_name_behind_one_dash_gets_its_second_dash() {
        assert_eq!(
            rewritten("-root /r restore --detach -no-subreaper -bundle=/b -pid-file /p id"),
            "--root /r restore --detach --no-subreaper --bundle=/b --pid-file /p id"
        );
    }

    #[test]
    fn a_boolean_given_as_a_value_is_set_or_left_out() {
        assert_eq!(
            rewritten("--debug=false run --detach=true -d=1 id"),
            "run --detach -d id"
        );
    }

    #[test]
    fn the_value_of_an_option_is_not_looked_at() {
        assert_eq!(
            rewritten("--log -root create --bundle -detach id"),
            "--log -root create --bundle -detach id"
        );
    }

    #[test]
    fn an_empty_value_is_none() {
        assert_eq!(
            rewritten("--root  --log= create --bundle  --pid-file= -b  --console-socket  id"),
            "create id"
        );
        assert_eq!(
            rewritten("exec --cwd= --env  id sh -c  --cwd="),
            "exec --env  id sh -c  --cwd="
        );
    }

    #[test]
    fn what_follows_the_id_of_exec_is_left_alone() {
        assert_eq!(
            rewritten("exec -tty id ls -cwd --env=true"),
            "exec --tty id ls -cwd --env=true"
        );
    }

    #[test]
    fn options_may_follow_the_id_elsewhere() {
        assert_eq!(rewritten("run id -bundle /b"), "run id --bundle /b");
    }

    #[test]
    fn attached_short_values_and_negative_numbers_stay() {
        assert_eq!(rewritten("run -b/bundle id"), "run -b/bundle id");
        assert_eq!(
            rewritten("update --pids-limit -1 id"),
            "update --pids-limit -1 id"
        );
        assert_eq!(rewritten("kill id -15"), "kill id -15");
    }
}
