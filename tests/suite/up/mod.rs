//! Workspaces of documents: brought up and down, stayed with, granted for a time, and lost.

mod attached;
mod crash;
mod detached;
mod elsewhere;
mod group;
mod kept;
mod lease;
mod output;
mod reset;
mod ten;
mod wired;

use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;

use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;
use crate::support::residue::MARK;

/// A document beside its root filesystem.
#[derive(Debug)]
pub(crate) struct Document {
    bundle: Bundle,
    /// The name in it.
    pub(crate) id: String,
}

impl Document {
    /// A document whose program is a shell script; `more` is added to its end.
    pub(crate) fn new(home: &Home, script: &str, more: &str) -> Self {
        let made = Self {
            bundle: Bundle::shell(script),
            id: home.id(),
        };
        let command = serde_json::to_string(&["/bin/sh", "-c", script]).unwrap();
        let id = &made.id;
        let text = format!(
            "name = \"{id}\"\nrootfs = \"./rootfs\"\ncommand = {command}\nenv = {{ {MARK} = \"{id}\" }}\n{more}"
        );
        std::fs::write(made.file(), text).unwrap();
        made
    }

    /// A document whose program sleeps.
    pub(crate) fn sleeper(home: &Home, more: &str) -> Self {
        Self::new(home, "exec sleep 1000", more)
    }

    /// Where it is.
    pub(crate) fn file(&self) -> PathBuf {
        self.bundle.path().join("workspace.toml")
    }

    /// Brings it up and leaves it.
    #[track_caller]
    pub(crate) fn up(&self, home: &Home) {
        // Who stays with it may hold on to a pipe.
        let words = tempfile::NamedTempFile::new().unwrap();
        let mut up = residue::quiet(home, &self.id, ["up", "-d"]);
        up.arg(self.file()).stderr(words.reopen().unwrap());
        let status = up.status().unwrap();
        let words = std::fs::read_to_string(words).unwrap();
        assert!(status.success(), "{status}: {words}");
    }

    /// Brings it up and stays with it.
    pub(crate) fn attached(&self, home: &Home) -> Child {
        let mut up = residue::marked(home.command(), &self.id);
        up.arg("up").arg(self.file());
        up.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        up.spawn().unwrap()
    }

    /// Where its files are.
    pub(crate) fn estate(&self, home: &Home) -> PathBuf {
        home.root().join("@data/workspaces").join(&self.id)
    }

    /// Everything of it that is still there.
    pub(crate) fn left(&self, home: &Home) -> Vec<String> {
        let mut left = residue::of(home, &self.id);
        let estate = self.estate(home);
        let parting = estate.with_file_name(format!("@{}", self.id));
        let files = [estate, parting].into_iter().filter(|path| path.exists());
        left.extend(files.map(|path| format!("files {}", path.display())));
        left
    }

    /// Waits until nothing of it is left.
    #[track_caller]
    pub(crate) fn vanishes(&self, home: &Home) {
        eventually("the end of everything", || self.left(home).is_empty());
    }

    /// The row of it in `ls`.
    #[track_caller]
    pub(crate) fn row(&self, home: &Home) -> serde_json::Value {
        let text = home.bulkhead(["ls", "--format", "json"]).ok();
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let row = rows.into_iter().find(|row| row["name"] == *self.id);
        row.unwrap()
    }

    /// Its status in `ls`.
    pub(crate) fn status(&self, home: &Home) -> String {
        self.row(home)["status"].as_str().unwrap().to_owned()
    }

    /// Waits until `ls` gives a status.
    #[track_caller]
    pub(crate) fn becomes(&self, home: &Home, status: &str) {
        eventually(status, || self.status(home) == status);
    }

    /// The process that stays with it.
    pub(crate) fn monitor(&self, home: &Home) -> i32 {
        let life = std::fs::read_to_string(home.root().join(&self.id).join("monitor")).unwrap();
        life.split(' ').next().unwrap().parse().unwrap()
    }

    /// Ends it and sees that nothing is left.
    #[track_caller]
    pub(crate) fn down(&self, home: &Home) {
        home.bulkhead(["down", "--time", "0", &self.id]).ok();
        self.vanishes(home);
    }
}

/// Sends a signal.
pub(crate) fn signal(pid: i32, number: &str) {
    let sent = std::process::Command::new("kill")
        .args([number, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.unwrap();
}
