//! What a running machine has cost inside its process, read from outside of it.
//!
//! The process keeps the files of KVM's counters open and does nothing with them. Whoever may look into the process
//! copies them out (`pidfd_getfd(2)`), so that no question has to be put to a process that may be frozen, or in the hands
//! of its guest; the time inside guests stands in `/proc`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;

use crate::sys::kvm::stats::Stats;
use crate::sys::process;
use crate::sys::seccomp;

/// What all processors of a machine have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Microseconds inside the guest (`/proc/PID/task/TID/stat`, `guest_time`), in the kernel's ticks of 10 ms.
    pub guest_us: u64,
    /// How often a guest was left.
    pub exits: u64,
    /// How often because it had nothing to do.
    pub halts: u64,
    /// Nanoseconds in which the kernel waited for such a guest without giving the processor away.
    pub polling_ns: u64,
}

impl Counters {
    /// Those of the machine whose process has this number.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended, `EPERM` without the right to look into it.
    pub fn of(pid: i32) -> io::Result<Self> {
        let home = PathBuf::from(format!("/proc/{pid}"));
        let process = process::open(pid)?;
        let mut all = Self {
            guest_us: guest_time(&home)?,
            ..Self::default()
        };
        for entry in home.join("fd").read_dir()? {
            let entry = entry?;
            // One that was closed meanwhile is none of those looked for.
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if !target.to_string_lossy().contains("kvm-vcpu-stats") {
                continue;
            }
            let number = entry.file_name().to_string_lossy().parse();
            let number = number.map_err(io::Error::other)?;
            let file = seccomp::descriptor_of(process.as_fd(), number)?;
            all.add(&Stats::new(File::from(file))?)?;
        }
        Ok(all)
    }

    fn add(&mut self, stats: &Stats) -> io::Result<()> {
        let names = [
            "exits",
            "halt_exits",
            "halt_poll_success_ns",
            "halt_poll_fail_ns",
        ];
        let [exits, halts, well, ill] = stats.read(names)?;
        self.exits = self.exits.saturating_add(exits);
        self.halts = self.halts.saturating_add(halts);
        self.polling_ns = self.polling_ns.saturating_add(well).saturating_add(ill);
        Ok(())
    }
}

/// Microseconds that the threads of a process were inside a guest.
fn guest_time(home: &Path) -> io::Result<u64> {
    /// Clock ticks are a hundredth of a second on every kernel with `USER_HZ`.
    const TICK_US: u64 = 10_000;
    /// `guest_time` is field 43, the first behind the name is 3.
    const FIELD: usize = 43 - 3;
    let mut ticks = 0u64;
    for thread in home.join("task").read_dir()? {
        // A thread may end while it is looked at.
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        let behind = stat.rsplit(") ").next().unwrap_or_default();
        let field = behind.split_ascii_whitespace().nth(FIELD);
        let time: u64 = field.and_then(|text| text.parse().ok()).unwrap_or_default();
        ticks = ticks.saturating_add(time);
    }
    Ok(ticks.saturating_mul(TICK_US))
}
