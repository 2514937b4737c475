//! Programs of eBPF that decide about devices and packets: load, with a table to look into; attach to a cgroup, replace in
//! place, find again.
//!
//! The kernel charges programs to the memory cgroup since Linux 5.11, so no limit of locked memory is raised here,
//! and having no right to raise one is no failure.

use std::mem::size_of;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;
use crate::sys::opened;

/// The name that a program is loaded under, and found again by (15 bytes at most).
pub type Name = [u8; 16];

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
#[cfg(test)]
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

/// `BPF_MAP_TYPE_HASH`.
const TYPE_HASH: u32 = 1;
/// `BPF_F_NO_PREALLOC`: an entry takes memory when it comes.
const NO_PREALLOC: u32 = 1;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const TYPE_SCHED_CLS: u32 = 3;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, the place of such a program at a cgroup.
const AT_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: beside the programs of others, all of which must agree.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`: in the place of another, at no moment without either (Linux 5.6).
const REPLACE: u32 = 4;

/// How many programs of one cgroup are looked at. The kernel allows 64 (`BPF_CGROUP_MAX_PROGS`).
const MOST_PROGRAMS: u32 = 64;
/// How many bytes a number has that is looked up in a table.
const KEY: u32 = 4;

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to `prog_name`.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: Name,
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    place: u32,
    flags: u32,
    replaced: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`, up to `duration`.
#[cfg(test)]
#[repr(C)]
#[derive(Default)]
struct Trial {
    program: u32,
    decision: u32,
    size: u32,
    size_after: u32,
    packet: u64,
    packet_after: u64,
    times: u32,
    duration: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`, up to `prog_cnt`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    place: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID` and `BPF_MAP_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoBy {
    object: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    pointers: [u64; 2],
    load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: Name,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`, up to `map_name`.
#[repr(C)]
#[derive(Default)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    most_entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: Name,
}

/// `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
#[derive(Default)]
struct Update {
    table: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct bpf_map_info`, up to the flags.
#[repr(C)]
#[derive(Default)]
struct TableInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    most_entries: u32,
    flags: u32,
}

/// What programs look numbers up in (a hash map).
#[derive(Debug)]
pub struct Table {
    descriptor: OwnedFd,
    /// How many bytes an entry has.
    width: usize,
}

impl Table {
    /// Makes a table of `entries` of so many bytes each at most; those that come take memory.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_BPF` in the first user namespace.
    pub fn make(width: usize, entries: u32, name: Name) -> Result<Self> {
        let attributes = Create {
            kind: TYPE_HASH,
            key_size: KEY,
            value_size: u32::try_from(width).map_err(|_| Errno::TOOBIG)?,
            most_entries: entries,
            flags: NO_PREALLOC,
            name,
            ..Create::default()
        };
        // SAFETY: the attributes hold numbers only.
        let descriptor = opened(unsafe { call(MAP_CREATE, &attributes) }?)?;
        Ok(Self { descriptor, width })
    }

    /// The table of a program that has one.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN` in the first user namespace; `ENOENT` if it has none; `EINVAL` if numbers are not
    /// what is looked up in it.
    pub fn of(program: BorrowedFd<'_>) -> Result<Self> {
        let (_, id) = info_of(program)?;
        let descriptor = by_id(MAP_GET_FD_BY_ID, id)?;
        let mut info = TableInfo::default();
        // SAFETY: `info` is what there is to know of a table.
        unsafe { inform(descriptor.as_fd(), &mut info) }?;
        if (info.kind, info.key_size) != (TYPE_HASH, KEY) {
            return Err(Errno::INVAL);
        }
        let width = usize::try_from(info.value_size).map_err(|_| Errno::TOOBIG)?;
        Ok(Self { descriptor, width })
    }

    /// Puts an entry in its place, in that of another if there is one: who looks it up sees either, and whole.
    ///
    /// # Errors
    ///
    /// `E2BIG` if the table is full; `EINVAL` if the entry has not as many bytes as others have.
    pub fn set(&self, key: u32, entry: &[u8]) -> Result<()> {
        if entry.len() != self.width {
            return Err(Errno::INVAL);
        }
        let attributes = Update {
            table: number(self.descriptor.as_fd()),
            key: (&raw const key) as u64,
            value: entry.as_ptr() as u64,
            ..Update::default()
        };
        // SAFETY: `key` and `entry` are alive for the call, and have the sizes that the table was made with.
        unsafe { call(MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Loads a program that decides about devices.
///
/// # Errors
///
/// `EPERM` without `CAP_BPF` in the first user namespace; `EINVAL` and `EACCES` if the verifier refuses it.
pub fn load_device_filter(instructions: &[u64], name: Name) -> Result<OwnedFd> {
    load(TYPE_CGROUP_DEVICE, instructions, name)
}

/// Loads a program that decides about packets at a link (`tc-bpf(8)`).
///
/// # Errors
///
/// As [`load_device_filter`].
pub fn load_packet_filter(instructions: &[u64], name: Name) -> Result<OwnedFd> {
    load(TYPE_SCHED_CLS, instructions, name)
}

fn load(kind: u32, instructions: &[u64], name: Name) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = Load {
        kind,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name,
        ..Load::default()
    };
    // SAFETY: `instructions` and `license` are alive for the call, and their lengths are those given.
    opened(unsafe { call(PROG_LOAD, &attributes) }?)
}

/// What a packet filter decides about a packet.
///
/// # Errors
///
/// `EPERM` as [`load_packet_filter`]; `EINVAL` for a packet that is shorter than the head of a frame.
#[cfg(test)]
pub(crate) fn decides(program: BorrowedFd<'_>, packet: &[u8]) -> Result<u32> {
    let mut attributes = Trial {
        program: number(program),
        size: u32::try_from(packet.len()).map_err(|_| Errno::TOOBIG)?,
        packet: packet.as_ptr() as u64,
        ..Trial::default()
    };
    // SAFETY: `packet` is alive for the call and has that size; the rest are numbers, and the kernel writes some.
    unsafe { call_mut(PROG_TEST_RUN, &mut attributes) }?;
    Ok(attributes.decision)
}

/// Attaches a program to a cgroup, beside those of others or in the place of `replaced`.
///
/// # Errors
///
/// `EPERM` if an ancestor's program does not let children have their own; `ENOENT` if `replaced` is not attached.
pub fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attributes = Attach {
        target: number(cgroup),
        program: number(program),
        place: AT_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map(number).unwrap_or_default(),
    };
    // SAFETY: the attributes hold numbers only.
    unsafe { call(PROG_ATTACH, &attributes) }.map(drop)
}

/// Takes a program off a cgroup.
///
/// # Errors
///
/// `ENOENT` if it is not attached there.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attach {
        target: number(cgroup),
        program: number(program),
        place: AT_DEVICE,
        ..Attach::default()
    };
    // SAFETY: the attributes hold numbers only.
    unsafe { call(PROG_DETACH, &attributes) }.map(drop)
}

/// The device programs that are attached to a cgroup itself and have this name, in their order.
///
/// A program that is taken off in between is left out.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN` in the first user namespace.
pub fn attached(cgroup: BorrowedFd<'_>, name: Name) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MOST_PROGRAMS as usize];
    let mut attributes = Query {
        target: number(cgroup),
        place: AT_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MOST_PROGRAMS,
        ..Query::default()
    };
    // SAFETY: `ids` is alive for the call and has room for `count` numbers.
    unsafe { call_mut(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).unwrap_or_default();
    let mut found = Vec::new();
    for id in ids.iter().take(count) {
        match by_name(*id, name) {
            Ok(program) => found.push(program),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// The program of this id, if it has this name.
///
/// # Errors
///
/// `ENOENT` if there is none, or it has another name; `EPERM` without `CAP_SYS_ADMIN` in the first user namespace.
pub fn by_name(id: u32, name: Name) -> Result<OwnedFd> {
    let program = by_id(PROG_GET_FD_BY_ID, id)?;
    if info_of(program.as_fd())?.0.name == name {
        Ok(program)
    } else {
        Err(Errno::NOENT)
    }
}

/// The id that a program is found again by, while anything has it.
///
/// # Errors
///
/// Fails as `BPF_OBJ_GET_INFO_BY_FD` does.
pub fn id_of(program: BorrowedFd<'_>) -> Result<u32> {
    Ok(info_of(program)?.0.id)
}

fn by_id(command: libc::c_long, id: u32) -> Result<OwnedFd> {
    let attributes = ById {
        id,
        ..ById::default()
    };
    // SAFETY: the attributes hold numbers only.
    opened(unsafe { call(command, &attributes) }?)
}

/// What there is to know of a program, and the id of its first table, or 0.
fn info_of(program: BorrowedFd<'_>) -> Result<(Info, u32)> {
    let mut table = 0_u32;
    let mut info = Info {
        map_count: 1,
        maps: (&raw mut table) as u64,
        ..Info::default()
    };
    // SAFETY: `info` is what there is to know of a program, and `maps` has room for as many ids as `map_count`.
    unsafe { inform(program, &mut info) }?;
    Ok((info, table))
}

/// Asks what the kernel knows of a program or a table.
///
/// # Safety
///
/// `info` must be of the type that is told of such an object, and every address in it valid for as much as it says.
unsafe fn inform<T>(object: BorrowedFd<'_>, info: &mut T) -> Result<()> {
    let attributes = InfoBy {
        object: number(object),
        length: u32::try_from(size_of::<T>()).map_err(|_| Errno::TOOBIG)?,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: `info` is alive for the call and of the length given; the caller answers for the addresses in it.
    unsafe { call(OBJ_GET_INFO_BY_FD, &attributes) }.map(drop)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

/// `bpf(2)` with attributes that the kernel only reads.
///
/// # Safety
///
/// Every address in `attributes` must be valid for what `command` does with it.
unsafe fn call<T>(command: libc::c_long, attributes: &T) -> Result<libc::c_long> {
    // SAFETY: `attributes` is a plain structure of the size passed; the caller answers for the addresses in it.
    checked(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    })
}

/// `bpf(2)` with attributes that the kernel writes back to.
///
/// # Safety
///
/// As for [`call`].
unsafe fn call_mut<T>(command: libc::c_long, attributes: &mut T) -> Result<libc::c_long> {
    // SAFETY: `attributes` is a plain structure of the size passed; the caller answers for the addresses in it.
    checked(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    })
}
