//! Makes a machine: one process in its enclosure and its network, which makes the file server and the VMM and stays.

use std::ffi::CString;
use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Handle;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::dialogue;
use crate::backend::dialogue::Dialogue;
use crate::backend::dialogue::Turn;
use crate::backend::join;
use crate::backend::microvm::Machine;
use crate::backend::microvm::MicroVm;
use crate::backend::microvm::SOCKET;
use crate::backend::microvm::disk;
use crate::backend::microvm::keeper;
use crate::backend::microvm::keeper::Settings;
use crate::init;
use crate::plan::namespaces;
use crate::plan::step::Barrier;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::clone::Spawned;
use crate::sys::inherited;
use crate::sys::namespace;
use crate::sys::process;
use crate::sys::socket;

/// Makes the machine of a workspace, up to the point where its program waits for its start.
pub(super) fn create(
    wall: &MicroVm<'_>,
    supplies: &Supplies<'_>,
    attendant: &mut dyn Attendant,
) -> std::result::Result<Made, BackendError> {
    let machine = wall.machine.ok_or(BackendError::OutOfTurn)?;
    let joined = joined(machine)?;
    let disks = machine.plan.disks.iter().map(disk::open);
    let disks = disks.collect::<std::result::Result<Vec<_>, _>>()?;
    let (here, there) =
        socket::pair().map_err(BackendError::kernel("make a channel to the process"))?;
    let listener = socket::listen_stream(wall.home, SOCKET)
        .map_err(BackendError::kernel("make the machine's socket"))?;
    let home = rustix::io::fcntl_dupfd_cloexec(wall.home, 3)
        .map_err(BackendError::kernel("use the workspace's directory"))?;
    let settings = Settings {
        machine: machine.clone(),
        home: home.as_raw_fd(),
        listener: listener.as_raw_fd(),
        channel: there.as_raw_fd(),
        start: supplies.listener.as_ref().map(AsRawFd::as_raw_fd),
        console: supplies.console.as_ref().map(AsRawFd::as_raw_fd),
        cgroup: supplies.birthplace.as_ref().map(AsRawFd::as_raw_fd),
        disks: disks.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    let text = written(&settings).map_err(BackendError::kernel("write the machine's settings"))?;
    let handed: Vec<BorrowedFd<'_>> = [&home, &listener, &there, &text]
        .into_iter()
        .chain(&supplies.listener)
        .chain(&supplies.console)
        .chain(&disks)
        .map(AsFd::as_fd)
        .chain(supplies.birthplace)
        .collect();
    let birth = Birth {
        namespaces: joined.as_ref().map_or(namespaces::NETWORK, |_| 0),
        cgroup: supplies.birthplace,
        leave: &std::iter::once(here.as_fd())
            .chain(supplies.lock)
            .collect::<Vec<_>>(),
        ..Birth::default()
    };
    let born = clone::spawn(birth, || {
        become_keeper(joined.as_ref(), &handed, text.as_raw_fd())
    })
    .map_err(BackendError::kernel("make the process"))?;
    drop(handed);
    drop((listener, there, disks));
    match attend(wall, &here, &born, attendant) {
        Ok(handle) => Ok(Made::new(handle, born.pidfd, here)),
        Err(error) => {
            process::end(born.pidfd.as_fd());
            Err(error)
        }
    }
}

/// The network namespace that is to be joined.
fn joined(machine: &Machine) -> std::result::Result<Option<OwnedFd>, BackendError> {
    let Some(wanted) = machine.plan.network.as_ref() else {
        return Ok(None);
    };
    let network = join::open(wanted)?;
    if is_own(&network) {
        // Everything that arrives there would be led into the machine.
        let words = "linux.namespaces[].path: is the network of this program itself; a microVM needs one of its own";
        return Err(BackendError::Machine(words.to_owned()));
    }
    Ok(Some(network))
}

/// Whether a namespace is the one that this process is in.
fn is_own(namespace: &OwnedFd) -> bool {
    let own = rustix::fs::stat("/proc/self/ns/net");
    let one = rustix::fs::fstat(namespace);
    matches!((own, one), (Ok(own), Ok(one)) if (own.st_dev, own.st_ino) == (one.st_dev, one.st_ino))
}

/// Attends to the process until the program in its guest waits for its start; one that has failed by itself is why nobody
/// could do anything to it.
fn attend(
    wall: &MicroVm<'_>,
    channel: &OwnedFd,
    born: &Spawned,
    attendant: &mut dyn Attendant,
) -> std::result::Result<Handle, BackendError> {
    let handle = Handle::of(born.pid, born.pidfd.as_fd())?;
    let steps = wall
        .machine
        .map(|machine| machine.plan.plan.steps.as_slice());
    let dialogue = Dialogue {
        steps: steps.unwrap_or_default(),
        channel: channel.as_fd(),
        process: born.pidfd.as_fd(),
        pid: born.pid,
    };
    let ready = attendant.born(handle, None);
    ready.map_err(|error| dialogue.reason(BackendError::Attendant(error)))?;
    build(&dialogue, attendant).map(|()| handle)
}

/// Answers until the program in its guest waits for its start.
fn build(
    dialogue: &Dialogue<'_>,
    attendant: &mut dyn Attendant,
) -> std::result::Result<(), BackendError> {
    loop {
        match dialogue.next(attendant)? {
            Turn::At(Barrier::Outside) => {
                attendant
                    .place(dialogue.pid)
                    .map_err(BackendError::Attendant)?;
            }
            Turn::At(Barrier::RuntimeHooks) => {
                attendant
                    .hooks(dialogue.pid)
                    .map_err(BackendError::Attendant)?;
            }
            Turn::At(Barrier::Start) => return Ok(()),
            Turn::Gone => {
                let exit = process::wait(dialogue.process)
                    .map_err(BackendError::kernel("wait for the process"))?;
                return Err(BackendError::Died(exit));
            }
        }
        dialogue::release(dialogue.channel)?;
    }
}

/// The settings in a file that nobody else sees, at its beginning.
fn written(settings: &Settings) -> Result<OwnedFd> {
    let text = serde_json::to_vec(settings).map_err(|_| Errno::INVAL)?;
    let mut file = File::from(rustix::fs::memfd_create("machine", MemfdFlags::CLOEXEC)?);
    let done = file.write_all(&text).and_then(|()| file.rewind());
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(file.into())
}

/// In the new process: enters the network, lets go of what is not its own, and runs the program again as a keeper.
fn become_keeper(joined: Option<&OwnedFd>, handed: &[BorrowedFd<'_>], settings: i32) -> i32 {
    let prepared = joined
        .map_or(Ok(()), |network| {
            namespace::enter(network.as_fd(), namespaces::NETWORK)
        })
        .and_then(|()| process::close_on_exec_from(3))
        .and_then(|()| handed.iter().try_for_each(|fd| inherited::hand_on(*fd)));
    if prepared.is_ok() {
        let words = ["bulkhead", keeper::WORD, &settings.to_string()].map(CString::new);
        let words: Vec<CString> = words.into_iter().flatten().collect();
        process::execute(c"/proc/self/exe", &words, &[]);
    }
    init::FAILED
}
