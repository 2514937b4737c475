//! The process that a machine is, with guests of a few instructions on `/dev/kvm`, and with Linux in the test machine.

mod bites;
mod counters;
mod ending;
mod guest;
mod jail;
mod linux;
mod memory;
mod quiet;
mod registers;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

/// A machine's files, and its document.
#[derive(Debug)]
struct Machine {
    directory: tempfile::TempDir,
    config: Value,
}

/// How a machine ended.
#[derive(Debug)]
struct Ended {
    /// The exit status of its process, or 128 + the signal that ended it.
    status: i32,
    /// What the process told of its machine.
    events: Vec<Value>,
    /// What the process said on standard error.
    complaint: String,
    /// What the guest said on its serial port.
    serial: String,
}

impl Machine {
    /// A small machine with this kernel.
    fn of(kernel: &[u8]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-test-vmm-")
            .tempdir()
            .unwrap();
        let path = directory.path().join("kernel");
        std::fs::write(&path, kernel).unwrap();
        let config = json!({
            "vcpus": 1,
            "memory": 16 << 20,
            "kernel": {"path": path},
            "serial": {"to": {"path": directory.path().join("serial")}},
            "report": 1,
        });
        Self { directory, config }
    }

    /// With another value of a field.
    fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it; its events come on the standard output.
    fn start(&self) -> Child {
        let path = self.path("config");
        std::fs::write(&path, self.config.to_string()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .arg("@vmm")
            .arg("--config")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs it to its end.
    fn run(&self) -> Ended {
        let output = self.start().wait_with_output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let signal = output.status.signal().map(|signal| 128 + signal);
        let serial = std::fs::read(self.path("serial")).unwrap_or_default();
        Ended {
            status: output.status.code().or(signal).unwrap(),
            events: told
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            complaint: String::from_utf8(output.stderr).unwrap(),
            serial: String::from_utf8_lossy(&serial).into_owned(),
        }
    }

    /// What the guest has said so far.
    fn said(&self) -> Vec<u8> {
        let mut said = Vec::new();
        let file = std::fs::File::open(self.path("serial"));
        file.map(|mut file| file.read_to_end(&mut said)).ok();
        said
    }
}
