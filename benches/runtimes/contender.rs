//! Who is measured: this program, other runtimes, and the floor.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use serde_json::Value;

use crate::Outcome;
use crate::bundle::Bundle;

/// What a contender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// This program; like the others without a device filter.
    Own,
    /// This program with the device filter that it has unless told otherwise.
    Filtered,
    /// Another runtime.
    Other,
    /// What the kernel must do.
    Floor,
    /// What it must do for all that the plain configuration asks for.
    Asked,
    /// What it must do for all of that as this program guards it.
    Guarded,
}

/// One of them.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) path: PathBuf,
    root: PathBuf,
}

/// What is done with it.
pub(crate) enum Act<'a> {
    /// A whole life.
    Run { bundle: &'a Bundle, id: &'a str },
    /// Its first part.
    Create { bundle: &'a Bundle, id: &'a str },
    /// `true` in a workspace that is there; `pid` is the first process of our own one.
    Exec { id: &'a str, pid: i64 },
    /// Anything else.
    Words(&'a [&'a str]),
}

/// Our own, and what else is there.
pub(crate) fn all(others: &[(String, PathBuf)], state: &Path) -> Outcome<Vec<Contender>> {
    let contender = |name: &str, role, path: PathBuf| Contender {
        name: name.to_owned(),
        role,
        path,
        root: state.join(name),
    };
    let mut all = vec![contender("bulkhead", Role::Own, own())];
    for name in ["crun", "runc"] {
        all.extend(in_path(name).map(|path| contender(name, Role::Other, path)));
    }
    for (name, path) in others {
        all.push(contender(name, Role::Other, path.clone()));
    }
    if all.len() < 2 {
        return Err("no other runtime to compare with: install crun or runc".into());
    }
    all.push(contender("with filter", Role::Filtered, own()));
    if let Some(path) = floor() {
        all.push(contender("floor", Role::Floor, path.clone()));
        all.push(contender("all asked", Role::Asked, path.clone()));
        all.push(contender("guarded", Role::Guarded, path));
    }
    Ok(all)
}

/// The program that is measured.
pub(crate) fn own() -> PathBuf {
    std::env::var_os("BULKHEAD")
        .map_or_else(|| env!("CARGO_BIN_EXE_bulkhead").into(), PathBuf::from)
}

/// The floor; `benches/run` compiles it.
pub(crate) fn floor() -> Option<PathBuf> {
    std::env::var_os("FLOOR").map(PathBuf::from)
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

impl Contender {
    /// The command that does it, which says nothing; none where it has no part in it.
    pub(crate) fn command(&self, act: &Act<'_>) -> Option<Command> {
        let words = self.words(act)?;
        let mut command = Command::new(&self.path);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(command)
    }

    /// Its words, without the program's.
    pub(crate) fn words(&self, act: &Act<'_>) -> Option<Vec<String>> {
        let words: Vec<&str> = match (self.role, act) {
            (Role::Floor, Act::Run { bundle, id }) => return Some(bundle.floor(id)),
            (Role::Asked | Role::Guarded, Act::Run { bundle, id }) => {
                return bundle.asked(self.role, id, &self.root);
            }
            (Role::Floor, Act::Exec { id, pid }) => {
                let cgroup = format!("/sys/fs/cgroup/{id}");
                return Some(vec!["exec".to_owned(), pid.to_string(), cgroup]);
            }
            (Role::Floor, Act::Create { .. } | Act::Words(_)) => return None,
            (
                Role::Asked | Role::Guarded | Role::Filtered,
                Act::Create { .. } | Act::Exec { .. } | Act::Words(_),
            ) => return None,
            (role, Act::Run { bundle, id }) => vec!["run", "--bundle", bundle.of(role), id],
            (role, Act::Create { bundle, id }) => vec!["create", "--bundle", bundle.of(role), id],
            (_, Act::Exec { id, .. }) => vec!["exec", id, "/bin/true"],
            (_, Act::Words(words)) => words.to_vec(),
        };
        let root = self.root.to_string_lossy();
        let all = ["--root", &root].into_iter().chain(words);
        Some(all.map(str::to_owned).collect())
    }

    /// Why it failed, in its own words: it is asked once more.
    pub(crate) fn explain(&self, act: &Act<'_>, status: ExitStatus) -> String {
        let words = self.words(act).unwrap_or_default();
        let again = self
            .command(act)
            .and_then(|mut command| command.stderr(Stdio::piped()).output().ok());
        let said = again.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        let said = said.unwrap_or_default();
        format!("{} {words:?}: {status}: {said}", self.name)
    }

    /// The first process of one of its workspaces.
    pub(crate) fn pid(&self, id: &str) -> Outcome<i64> {
        let mut command = self
            .command(&Act::Words(&["state", id]))
            .ok_or("the floor has no state")?;
        let said = command.stdout(Stdio::piped()).output()?;
        let state: Value = serde_json::from_slice(&said.stdout)?;
        Ok(state["pid"].as_i64().ok_or("state tells no pid")?)
    }
}
