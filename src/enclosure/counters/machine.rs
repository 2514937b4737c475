//! What a running machine has cost that no cgroup counts, read from outside of its process.
//!
//! The process keeps the files of KVM's counters open and does nothing with them. Whoever may look into the process
//! copies them out (`pidfd_getfd(2)`), so that no question has to be put to a process that may be frozen, or in the hands
//! of its guest; the time inside guests, and the time that its processors waited, stand in `/proc`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::sys::kvm::stats::Stats;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::seccomp;

/// What the name of a processor's thread begins with.
const PROCESSOR: &str = "vcpu";
/// The link of the file that a guest's memory is, as `/proc` shows it.
const MEMORY: &str = "/memfd:guest";
/// What the kernel counts blocks of a file in, in bytes (`stat(2)`).
const BLOCK: u64 = 512;

/// What all processors of a machine have done so far, and the memory that its guest has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineCounters {
    /// Microseconds inside the guest (`/proc/PID/stat`, `guest_time`), in the kernel's ticks of 10 ms.
    pub guest_us: u64,
    /// How often a guest was left.
    pub exits: u64,
    /// How often because it had nothing to do.
    pub halts: u64,
    /// Microseconds in which the kernel waited for such a guest without giving the processor away.
    pub polling_us: u64,
    /// Microseconds for which its processors could have run and did not (`/proc/PID/task/TID/schedstat`), added up; none
    /// where the kernel does not tell.
    pub delay_us: Option<u64>,
    /// Bytes of its guest's memory that are in use; none when they are not known.
    pub memory_bytes: Option<u64>,
}

/// What is written down of a machine when its program has ended, since the machine is gone a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// How the program ended; who stands for it on the host has a status only.
    pub exit: Exit,
    /// What the machine had cost by then.
    pub counters: Option<MachineCounters>,
    /// How often the guest's kernel has killed somebody for want of memory, as the guest says it.
    pub oom_kills: u64,
}

/// A machine's process with its counters opened: what is opened once can be read without any right.
#[derive(Debug)]
pub struct MachineWatch {
    home: PathBuf,
    stats: Vec<Stats>,
    memory: Option<File>,
}

impl MachineCounters {
    /// Those of the machine whose process has this number.
    ///
    /// # Errors
    ///
    /// As [`MachineWatch::begin`] and [`MachineWatch::read`].
    pub fn of(pid: i32) -> io::Result<Self> {
        MachineWatch::begin(pid)?.read()
    }
}

impl MachineWatch {
    /// Opens the counters of the machine whose process has this number.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended, `EPERM` without the right to look into it.
    pub fn begin(pid: i32) -> io::Result<Self> {
        let home = PathBuf::from(format!("/proc/{pid}"));
        let process = process::open(pid)?;
        let mut watch = Self {
            home,
            stats: Vec::new(),
            memory: None,
        };
        for entry in watch.home.join("fd").read_dir()? {
            let entry = entry?;
            // One that was closed meanwhile is none of those looked for.
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy().into_owned();
            let (stats, memory) = (
                target.contains("kvm-vcpu-stats"),
                target.starts_with(MEMORY) && watch.memory.is_none(),
            );
            if !stats && !memory {
                continue;
            }
            let number = entry.file_name().to_string_lossy().parse();
            let number = number.map_err(io::Error::other)?;
            let file = File::from(seccomp::descriptor_of(process.as_fd(), number)?);
            match stats {
                true => watch.stats.push(Stats::new(file)?),
                false => watch.memory = Some(file),
            }
        }
        Ok(watch)
    }

    /// Lets go of the guest's memory, which is not to outlive its machine.
    #[must_use]
    pub fn without_memory(self) -> Self {
        Self {
            memory: None,
            ..self
        }
    }

    /// Reads them. Once the machine has ended they must not be read any more: before Linux 6.5 they go with it.
    ///
    /// # Errors
    ///
    /// As `/proc` and the counters are read.
    pub fn read(&self) -> io::Result<MachineCounters> {
        let memory = self.memory.as_ref().map(File::metadata).transpose()?;
        let mut all = MachineCounters {
            guest_us: guest_time(&self.home)?,
            delay_us: delay(&self.home),
            memory_bytes: memory.map(|file| file.blocks().saturating_mul(BLOCK)),
            ..MachineCounters::default()
        };
        let mut polling_ns = 0_u64;
        for stats in &self.stats {
            let names = [
                "exits",
                "halt_exits",
                "halt_poll_success_ns",
                "halt_poll_fail_ns",
            ];
            let [exits, halts, well, ill] = stats.read(names)?;
            all.exits = all.exits.saturating_add(exits);
            all.halts = all.halts.saturating_add(halts);
            polling_ns = polling_ns.saturating_add(well).saturating_add(ill);
        }
        all.polling_us = polling_ns / 1000;
        Ok(all)
    }
}

/// Microseconds that the threads of a process were inside a guest, those that have ended among them.
fn guest_time(home: &Path) -> io::Result<u64> {
    /// Clock ticks are a hundredth of a second on every kernel with `USER_HZ`.
    const TICK_US: u64 = 10_000;
    /// `guest_time` is field 43, the first behind the name is 3.
    const FIELD: usize = 43 - 3;
    let stat = std::fs::read_to_string(home.join("stat"))?;
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    let field = behind.split_ascii_whitespace().nth(FIELD);
    let ticks: u64 = field.and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(ticks.saturating_mul(TICK_US))
}

/// Microseconds that the processors' threads waited for one to run on. The second field of `schedstat` is nanoseconds.
fn delay(home: &Path) -> Option<u64> {
    let mut waited_ns: Option<u64> = None;
    for thread in home.join("task").read_dir().ok()?.flatten() {
        let read = |name: &str| std::fs::read_to_string(thread.path().join(name));
        // A thread may end while it is looked at.
        let name = read("comm").unwrap_or_default();
        if !name.starts_with(PROCESSOR) {
            continue;
        }
        let fields = read("schedstat").unwrap_or_default();
        let field = fields.split_ascii_whitespace().nth(1);
        let own: Option<u64> = field.and_then(|text| text.parse().ok());
        waited_ns = own.map_or(waited_ns, |own| Some(own + waited_ns.unwrap_or_default()));
    }
    waited_ns.map(|ns| ns / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_guest_was_never_in_one_and_none_of_its_threads_is_a_processor() {
        // Tests beside this one make guests in their own process.
        let mut other = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let found = MachineCounters::of(i32::try_from(other.id()).unwrap());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found.unwrap(), MachineCounters::default());
    }

    #[test]
    fn a_processors_wait_is_what_the_scheduler_says_of_its_thread() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("vcpu7".to_owned());
        // It has its name only once it runs.
        let thread = thread.spawn(move || {
            begin.send(()).unwrap();
            stopped.recv()
        });
        let thread = thread.unwrap();
        begun.recv().unwrap();
        let found = delay(Path::new("/proc/self"));
        drop(stop);
        thread.join().unwrap().unwrap_err();
        assert!(found.is_some());
    }
}
