//! The wall around a machine, with Linux in it: who its processes are, how it ends, and what is left of it.
//!
//! All of it needs KVM that takes a stock kernel: these are tests for the test machine.

mod endings;
mod network;
mod processes;
mod sweeps;
mod traced;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::both;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::support::residue;

/// The parts of a machine on the host, by the words that make the program one of them.
const PARTS: [&str; 3] = ["@keeper", "@vmm", "@files"];

/// A workspace in a machine, running.
struct Walled {
    home: Home,
    bundle: Bundle,
    id: String,
}

/// A bundle behind the wall, with Debian's kernel, where root is nearly as mighty as the guest's kernel lets it be.
fn bundle(script: &str) -> Bundle {
    Bundle::shell(script).with(|config| {
        let all = json!(["CAP_MKNOD", "CAP_KILL", "CAP_SYS_ADMIN"]);
        config["process"]["capabilities"] =
            json!({"bounding": all, "effective": all, "permitted": all});
        config["annotations"] = json!({"dev.bulkhead.isolation": "microvm"});
        config["vm"] = json!({"kernel": {"path": "stock"}});
    })
}

impl Walled {
    /// Makes and starts it; its program has run `script` and stays when this returns.
    fn started(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let script = format!("{script}\necho up >/up; while :; do sleep 1000; done");
        let (home, bundle) = (both::home(), bundle(&script).with(change));
        let id = home.id();
        home.start(&bundle, &id);
        let up = bundle.rootfs("up");
        eventually("the program's first words", || {
            std::fs::read(&up).is_ok_and(|words| words == b"up\n")
        });
        Self { home, bundle, id }
    }

    /// The numbers of its processes on the host, by their words.
    fn processes(&self) -> BTreeMap<&'static str, i32> {
        let keeper = self.home.pid(&self.id);
        let children = format!("/proc/{keeper}/task/{keeper}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let children = children
            .split_whitespace()
            .map(|number| number.parse().unwrap());
        let named = std::iter::once(keeper).chain(children).filter_map(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let word = String::from_utf8_lossy(words.split(|byte| *byte == 0).nth(1)?).into_owned();
            Some((*PARTS.iter().find(|part| **part == word)?, pid))
        });
        let found: BTreeMap<_, _> = named.collect();
        assert_eq!(found.len(), PARTS.len(), "{found:?}");
        found
    }

    /// Runs a shell command inside; what it says.
    #[track_caller]
    fn asks(&self, script: &str) -> String {
        self.home
            .bulkhead(["exec", &self.id, "sh", "-c", script])
            .ok()
    }

    /// Has a shell command begin inside that may be its last; when it did.
    fn orders(&self, script: &str) -> Instant {
        let now = self.bundle.rootfs("now");
        let script = format!("echo >/now; {script}");
        let mut order = self.home.command();
        order
            .args(["exec", "-d", &self.id, "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut order = order.spawn().unwrap();
        eventually("the command to begin", || now.exists());
        let begun = Instant::now();
        // It may not come to its own end.
        order.wait().unwrap();
        begun
    }

    /// Removes it; nothing of it may be left on the host.
    #[track_caller]
    fn removed(&self, processes: &BTreeMap<&'static str, i32>) {
        residue::remove(&self.home, &self.id);
        let left: Vec<_> = processes.iter().filter(|(_, pid)| lives(**pid)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The files of the guests that tests boot.
fn guests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/guest/@data/guests")
}
