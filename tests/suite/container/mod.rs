//! What a program finds inside a container: the tree, its names, its limits and its rights, seen by a real kernel.

mod capability;
mod conceal;
mod console;
mod descriptor;
mod device;
mod filter;
mod hook;
mod hostile;
mod interface;
mod kernel;
mod mount;
mod namespace;
mod option;
pub(crate) mod owner;
mod plan;
mod process;
mod propagation;
mod tuning;

use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::wall;

pub(crate) use console::receive;

/// Runs a shell script as the program of a changed bundle; gives what it printed.
#[track_caller]
fn inside(script: &str, change: impl FnOnce(&mut Value)) -> String {
    let said = Home::new().run(&Bundle::shell(script).with(change));
    said.ok().trim_end().to_owned()
}

/// The words with which a changed bundle is refused.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let said = Home::new().run(&Bundle::shell("echo it ran").with(change));
    assert_eq!(said.out, "", "the program ran");
    said.failed()
}

/// Adds to a list of the configuration, named by its JSON pointer.
pub(crate) fn add(config: &mut Value, list: &str, value: Value) {
    let list = config.pointer_mut(list).unwrap();
    list.as_array_mut().unwrap().push(value);
}

/// The binary with its state root, as words of a shell.
fn own_words(home: &Home) -> String {
    let (program, root) = (wall::program(), home.root());
    format!("{} --root {}", program.display(), root.display())
}

/// A shell in a mount and network namespace of its own, where `$RUN` is the binary with its state root.
fn elsewhere(home: &Home, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "--propagation", "private"])
        .args(["sh", "-e", "-c", script])
        .env("RUN", own_words(home))
        .stdin(Stdio::null());
    command
}

/// A line of `mountinfo` (`proc(5)`), as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    point: String,
    options: Vec<String>,
    tags: String,
    kind: String,
    system: Vec<String>,
}

/// Reads a whole `mountinfo`, or some lines of it.
fn mounted(text: &str) -> Vec<Mounted> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let one = |line: &str| {
        let (mount, system) = line.split_once(" - ").unwrap();
        let mount: Vec<&str> = mount.split(' ').collect();
        let system: Vec<&str> = system.split(' ').collect();
        Mounted {
            point: mount[4].to_owned(),
            options: words(mount[5]),
            tags: mount[6..].join(" "),
            kind: system[0].to_owned(),
            system: words(system[2]),
        }
    };
    text.lines().map(one).collect()
}

/// The mount at a path; of several the last, which is seen.
#[track_caller]
fn at<'m>(mounts: &'m [Mounted], point: &str) -> &'m Mounted {
    let mut all = mounts.iter().rev();
    all.find(|mount| mount.point == point).unwrap()
}
