//! The workspace's cgroup inside the guest: where its programs are born, what they may use together, who they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::agent::wire::Failure;
use crate::agent::wire::Limit;
use crate::agent::wire::Process;
use crate::agent::wire::Usage;
use crate::plan::cgroup::device::DeviceFilter;
use crate::sys::Errno;
use crate::sys::bpf;

/// What it is called below the mount of cgroup2.
const NAME: &str = "workspace";
/// What the program is called that filters its devices.
const FILTER: bpf::Name = *b"bulkhead_device\0";
/// Clock ticks in a second, as `/proc` counts (`USER_HZ`, the same on every x86).
const TICKS: u64 = 100;
/// Bytes in a page, on every x86.
const PAGE: u64 = 4096;

/// A directory of cgroup2.
#[derive(Debug, Clone)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes the group below `root`, the mount of cgroup2, with every controller that there is.
    pub(super) fn make(root: &Path) -> Result<Self, Failure> {
        let offered = std::fs::read_to_string(root.join("cgroup.controllers"))
            .map_err(failed("read the controllers"))?;
        for controller in offered.split_ascii_whitespace() {
            let wanted = format!("+{controller}");
            // One that cannot be shared out (a real-time task is there) leaves the others as they are.
            std::fs::write(root.join("cgroup.subtree_control"), wanted).unwrap_or_default();
        }
        let path = root.join(NAME);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(failed("make the cgroup inside")(error))
            }
            _ => Ok(Self { path }),
        }
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes limits, in this order.
    pub(super) fn limit(&self, limits: &[Limit]) -> Result<(), Failure> {
        for Limit { file, value } in limits {
            let what = format!("set {file} to {value} inside");
            if file.contains('/') || file.starts_with("cgroup.") {
                return Err(refused(what, Errno::INVAL));
            }
            std::fs::write(self.path.join(file), value).map_err(failed(what))?;
        }
        Ok(())
    }

    /// Lets its programs open these devices of the machine and no others, as a container's on a host.
    pub(super) fn filter(&self, devices: &DeviceFilter) -> Result<(), Failure> {
        let filtered = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let group = rustix::fs::open(&self.path, flags, Mode::empty())?;
            let program = bpf::load_device_filter(&devices.program().instructions, FILTER)?;
            bpf::attach(group.as_fd(), program.as_fd(), None)
        };
        filtered().map_err(|errno| refused("filter devices inside".to_owned(), errno))
    }

    /// Ends every process in it and below it.
    pub(super) fn kill(&self) {
        // It fails only when the directory is gone, and then nobody is in it.
        std::fs::write(self.path.join("cgroup.kill"), "1").unwrap_or_default();
    }

    /// Sends a signal to every process in it and below it.
    pub(super) fn signal(&self, number: i32) -> Result<(), Failure> {
        for pid in self.members() {
            let sent = crate::sys::process::open(pid).and_then(|process| {
                crate::sys::process::signal(std::os::fd::AsFd::as_fd(&process), number)
            });
            match sent {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(refused(format!("send signal {number}"), errno)),
            }
        }
        Ok(())
    }

    /// The numbers of all processes in it and below it.
    fn members(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(directory) = open.pop() {
            let list = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
            let entries = std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(below.map(|entry| entry.path()));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Its processes, as the guest sees them; one that ends meanwhile is left out.
    pub(super) fn processes(&self) -> Vec<Process> {
        self.members().into_iter().filter_map(describe).collect()
    }

    /// Waits until more than `seen` of its processes have been ended because memory was short, and says how many; nothing
    /// when `caller` has gone before.
    pub(super) fn out_of_memory(
        &self,
        seen: u64,
        caller: impl AsFd,
    ) -> Result<Option<u64>, Failure> {
        let doing = "watch the memory inside";
        let events = File::open(self.path.join("memory.events")).map_err(failed(doing))?;
        loop {
            // Reading arms the next event.
            let mut text = [0; 1024];
            let length = rustix::io::pread(&events, &mut text, 0);
            let length = length.map_err(|errno| refused(doing.to_owned(), errno))?;
            let kills = numbers(&String::from_utf8_lossy(&text[..length]));
            let kills = kills.get("oom_kill").copied().unwrap_or_default();
            if kills > seen {
                return Ok(Some(kills));
            }
            let mut watched = [
                PollFd::new(&events, PollFlags::PRI),
                PollFd::new(&caller, PollFlags::IN | PollFlags::RDHUP),
            ];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(refused(doing.to_owned(), errno)),
            }
            if !watched[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }

    /// What it and the whole guest use.
    pub(super) fn usage(&self) -> Usage {
        let memory = table(Path::new("/proc/meminfo"));
        let kib = |name: &str| memory.get(name).copied().unwrap_or_default() * 1024;
        let number = |file: &str| {
            let text = std::fs::read_to_string(self.path.join(file)).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        let entry = |file: &str, name: &str| {
            let table = table(&self.path.join(file));
            table.get(name).copied().unwrap_or_default()
        };
        Usage {
            uptime_ms: uptime_ms(),
            memory_total_bytes: kib("MemTotal"),
            memory_available_bytes: kib("MemAvailable"),
            memory_bytes: number("memory.current"),
            oom_kills: entry("memory.events", "oom_kill"),
            cpu_us: entry("cpu.stat", "usage_usec"),
            tasks: number("pids.current"),
        }
    }
}

/// The directory of the cgroup that a process is in, below the same mount as `whole`.
pub(super) fn of_process(pid: i32, whole: &Path) -> Option<PathBuf> {
    let lines = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = lines.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(whole.parent()?.join(own))
}

/// Opens a cgroup for programs to be born in.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| refused("open the cgroup inside".to_owned(), errno))
}

/// Names what was to be done when it failed.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        refused(what.into(), Errno::from_raw_os_error(number))
    }
}

/// Names what was to be done when the kernel refused it.
pub(super) fn refused(what: String, errno: Errno) -> Failure {
    Failure::Kernel {
        what,
        errno: errno.raw_os_error(),
    }
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

/// Lines of a name and a number.
fn table(path: &Path) -> BTreeMap<String, u64> {
    numbers(&std::fs::read_to_string(path).unwrap_or_default())
}

fn numbers(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.trim_end_matches(':').to_owned();
        Some((name, words.next()?.parse().ok()?))
    });
    pairs.collect()
}

/// What `/proc` says of a process.
fn describe(pid: i32) -> Option<Process> {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}"));
    let stat = String::from_utf8_lossy(&read("stat").ok()?).into_owned();
    // The name may hold anything, brackets too.
    let (before, after) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(after + 1..)?.split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|word| word.parse::<u64>().ok());
    let ticks = field(11)? + field(12)?;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).ok()?);
    let line = read("cmdline").unwrap_or_default();
    let words = line.strip_suffix(b"\0").unwrap_or(&line);
    let arguments = words.split(|byte| *byte == 0);
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        uid,
        state: fields.first()?.chars().next()?,
        started_ms: field(19)? * (1000 / TICKS),
        cpu_ms: ticks * (1000 / TICKS),
        resident_bytes: field(21)? * PAGE,
        name: stat.get(before + 1..after)?.to_owned(),
        arguments: match words.is_empty() {
            true => Vec::new(),
            false => arguments
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_described_as_it_is() {
        let own = i32::try_from(std::process::id()).unwrap();
        let described = describe(own).unwrap();
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(described.arguments, arguments);
        assert_eq!(
            described.parent,
            i32::try_from(std::os::unix::process::parent_id()).unwrap()
        );
        assert!(described.resident_bytes > 0);
    }

    #[test]
    fn only_files_of_limits_are_written() {
        let home = tempfile::tempdir().unwrap();
        let group = Group {
            path: home.path().to_owned(),
        };
        for file in ["../escape", "cgroup.procs", "a/b"] {
            let limit = Limit {
                file: file.to_owned(),
                value: "1".to_owned(),
            };
            assert!(group.limit(&[limit]).is_err(), "{file}");
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
