//! What the host gives a machine besides a workspace: the time, randomness, disks and networks.

use std::path::Path;

use rustix::mount::MountFlags;
use rustix::time::ClockId;
use rustix::time::Timespec;

use crate::agent::group::failed;
use crate::agent::group::refused;
use crate::agent::modules;
use crate::agent::network;
use crate::agent::wire::Create;
use crate::agent::wire::Disk;
use crate::agent::wire::Failure;
use crate::sys::Errno;

const SECOND: u64 = 1_000_000_000;

/// Gives the machine all that its workspace will find.
pub(super) fn furnish(wanted: &Create) -> Result<(), Failure> {
    if wanted.unix_ns != 0 {
        set_clock(wanted.unix_ns)?;
    }
    if !wanted.seed.is_empty() {
        std::fs::write("/dev/urandom", &wanted.seed)
            .map_err(failed("mix the random numbers inside"))?;
    }
    let used = [
        (modules::DISK, wanted.disks.is_empty()),
        (modules::NETWORK, wanted.interfaces.is_empty()),
    ];
    for (kind, none) in used {
        if !none {
            let loaded = modules::load_driver(kind);
            loaded.map_err(|error| Failure::Other(format!("cannot {error:#}")))?;
        }
    }
    for disk in &wanted.disks {
        mount(disk)?;
    }
    network::furnish(&wanted.interfaces)?;
    for (key, value) in &wanted.sysctls {
        // It has been checked that it leads nowhere else.
        let file = Path::new("/proc/sys").join(key);
        let what = format!("set sysctl {key} to {value:?}");
        std::fs::write(file, value).map_err(failed(what))?;
    }
    Ok(())
}

/// Sets the clock, in nanoseconds since 1970.
pub(super) fn set_clock(unix_ns: u64) -> Result<(), Failure> {
    let refusal = |errno| refused("set the clock inside".to_owned(), errno);
    let seconds = i64::try_from(unix_ns / SECOND).map_err(|_| refusal(Errno::INVAL))?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(unix_ns % SECOND).unwrap_or_default(),
    };
    rustix::time::clock_settime(ClockId::Realtime, time).map_err(refusal)
}

#[expect(
    clippy::disallowed_methods,
    reason = "in a guest that is starting nobody else can change a path"
)]
fn mount(disk: &Disk) -> Result<(), Failure> {
    let what = format!(
        "mount {} on {} inside",
        disk.device.display(),
        disk.at.display()
    );
    std::fs::create_dir_all(&disk.at).map_err(failed(what.clone()))?;
    let flags = match disk.read_only {
        true => MountFlags::RDONLY,
        false => MountFlags::empty(),
    };
    let options = std::ffi::CString::new(disk.options.as_str());
    let options = options.map_err(|_| refused(what.clone(), Errno::INVAL))?;
    rustix::mount::mount(
        &disk.device,
        &disk.at,
        disk.kind.as_str(),
        flags,
        options.as_c_str(),
    )
    .map_err(|errno| refused(what, errno))
}
