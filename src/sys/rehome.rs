//! Makes this process run from another copy of its own file, without running it again.
//!
//! What `/proc/PID/exe` leads to belongs to an address space and can be changed (`PR_SET_MM_MAP`) as soon as nothing of
//! the file that it leads to is mapped any more. So every part of the program is mapped anew from the other copy, in
//! the place where it is; what has been written to since is carried over. That takes a tenth of the time that the
//! kernel needs to run the program again, and the program needs to come to the same point.

use std::ffi::c_char;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::mm::MapFlags;
use rustix::mm::MprotectFlags;
use rustix::mm::MremapFlags;
use rustix::mm::ProtFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// The size of a page, in bytes.
const PAGE: usize = 4096;
/// `PT_LOAD`: a part of the file that is in memory.
const LOAD: u32 = 1;
/// `PT_PHDR`: the table of the parts itself.
const TABLE: u32 = 6;
/// `PT_GNU_RELRO`: what is written to at the start only.
const RELRO: u32 = 0x6474_e552;
/// `PF_X` and `PF_W`.
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;

/// `struct prctl_mm_map` (`linux/prctl.h`).
#[repr(C)]
#[derive(Debug, Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// A part of the file in memory.
#[derive(Debug, Clone, Copy)]
struct Part {
    flags: u32,
    /// Where its first page begins, and where its last one ends as far as the file goes.
    from: usize,
    to: usize,
    /// Where its first page is in the file.
    offset: u64,
    /// Where it begins and ends to the byte, as the kernel reports it of a program that it has started.
    exact: (usize, usize),
}

/// Runs from `file` on, which must have the content of the file that this process runs from; the process must have one
/// thread only.
///
/// # Errors
///
/// `EPERM` without `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` in this user namespace, `EINVAL` from a kernel before
/// Linux 3.18 or one made without `CONFIG_CHECKPOINT_RESTORE`, `EACCES` where the file must not be executed, `ENOEXEC`
/// when the program's own parts are not found. The process goes on as it was then, or from both files.
pub(super) fn run_from(file: &OwnedFd) -> Result<()> {
    let program = Program::own().ok_or(Errno::NOEXEC)?;
    let map = program.described(file)?;
    for part in &program.parts {
        part.map_anew(file)?;
    }
    if let Some((from, to)) = program.constant {
        // SAFETY: the linker has kept these pages for what nobody writes to once the program runs, and the C library
        // has had them protected like this before they were mapped anew.
        unsafe { rustix::mm::mprotect(from as *mut _, to - from, MprotectFlags::READ) }?;
    }
    // SAFETY: `map` has the layout of the kernel's structure, and its size is passed.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            std::ptr::from_ref(&map),
            size_of::<MemoryMap>(),
            0,
        )
    };
    checked(done.into()).map(drop)
}

/// Whether the kernel knows the call at all and the program's own parts are found; nothing is changed.
///
/// # Errors
///
/// `EINVAL` and `ENOEXEC`, as [`run_from`].
pub(super) fn is_possible() -> Result<()> {
    let mut size = 0_u32;
    // SAFETY: the kernel writes a number of 32 bits to `size`.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP_SIZE,
            &raw mut size,
            0,
            0,
        )
    };
    checked(done.into())?;
    if usize::try_from(size) != Ok(size_of::<MemoryMap>()) {
        return Err(Errno::INVAL);
    }
    match (Program::own(), Words::own()) {
        (Some(_), Some(_)) => Ok(()),
        _ => Err(Errno::NOEXEC),
    }
}

/// What of the program's file is in memory.
#[derive(Debug)]
struct Program {
    parts: Vec<Part>,
    /// The pages that are not written to any more, though they belong to a part that can be.
    constant: Option<(usize, usize)>,
}

impl Program {
    /// This process's own, as the kernel has told at its start (`getauxval(3)`).
    fn own() -> Option<Self> {
        let table = own_table()?;
        let at = table.as_ptr() as usize;
        let described = table.iter().find(|header| header.p_type == TABLE)?;
        // A program that may be anywhere is where its table is.
        let base = at.wrapping_sub(usize::try_from(described.p_vaddr).ok()?);
        let mut parts: Vec<Part> = Vec::new();
        for header in table.iter().filter(|header| header.p_type == LOAD) {
            let part = Part::of(header, base)?;
            match parts.last_mut() {
                Some(last) if last.goes_on_with(&part) => last.extend(&part),
                _ => parts.push(part),
            }
        }
        let constant = table.iter().find(|header| header.p_type == RELRO);
        Some(Self {
            parts,
            constant: constant.and_then(|header| protected(header, base)),
        })
    }

    /// What the kernel is told of this process: all as it was, but the file. The heap begins where it ends now, so it can
    /// only grow from here on.
    fn described(&self, file: &OwnedFd) -> Result<MemoryMap> {
        let within = |flag: u32| self.parts.iter().filter(move |part| part.flags & flag != 0);
        let start_code = within(EXECUTABLE).map(|part| part.exact.0).min();
        let end_code = within(EXECUTABLE).map(|part| part.exact.1).max();
        let start_data = self.parts.iter().map(|part| part.exact.0).max();
        let end_data = self.parts.iter().map(|part| part.exact.1).max();
        let known = |place: Option<usize>| place.map(|place| place as u64).ok_or(Errno::NOEXEC);
        let words = Words::own().ok_or(Errno::NOEXEC)?;
        // SAFETY: the end of the heap is asked for, and stays where it is.
        let brk = unsafe { libc::sbrk(0) } as u64;
        Ok(MemoryMap {
            start_code: known(start_code)?,
            end_code: known(end_code)?,
            start_data: known(start_data)?,
            end_data: known(end_data)?,
            start_brk: brk,
            brk,
            start_stack: words.arguments,
            arg_start: words.arguments,
            arg_end: words.environment,
            env_start: words.environment,
            env_end: words.end,
            auxv: 0,
            auxv_size: 0,
            exe_fd: file.as_raw_fd().unsigned_abs(),
        })
    }
}

/// The table of the program's parts.
fn own_table() -> Option<&'static [libc::Elf64_Phdr]> {
    let (at, count) = (told(libc::AT_PHDR), told(libc::AT_PHNUM));
    let at = std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(usize::try_from(at).ok()?);
    if at.is_null() {
        return None;
    }
    // SAFETY: the kernel has found so many entries there when it started this program, they are in a part that nobody
    // writes to, and that part is never without a mapping: a new one takes the place of the old in one call.
    Some(unsafe { std::slice::from_raw_parts(at, usize::try_from(count).ok()?) })
}

/// What the kernel has told of this at the start (`getauxval(3)`).
fn told(kind: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: the vector that the kernel has passed is only read.
    unsafe { libc::getauxval(kind) }
}

/// The pages that the C library protects at the start: whole ones within the part.
fn protected(header: &libc::Elf64_Phdr, base: usize) -> Option<(usize, usize)> {
    let from = base.wrapping_add(usize::try_from(header.p_vaddr).ok()?);
    let to = from.checked_add(usize::try_from(header.p_memsz).ok()?)?;
    let (from, to) = (from & !(PAGE - 1), to & !(PAGE - 1));
    (from < to).then_some((from, to))
}

impl Part {
    fn of(header: &libc::Elf64_Phdr, base: usize) -> Option<Self> {
        let begin = base.wrapping_add(usize::try_from(header.p_vaddr).ok()?);
        let end = begin.checked_add(usize::try_from(header.p_filesz).ok()?)?;
        Some(Self {
            flags: header.p_flags,
            from: begin & !(PAGE - 1),
            to: end.checked_next_multiple_of(PAGE)?,
            offset: header.p_offset & !(PAGE as u64 - 1),
            exact: (begin, end),
        })
    }

    /// Whether both can be written to, and lie side by side: they are carried over together.
    fn goes_on_with(&self, next: &Self) -> bool {
        self.flags & next.flags & WRITABLE != 0 && self.to == next.from
    }

    fn extend(&mut self, next: &Self) {
        self.to = next.to;
        self.exact = next.exact;
    }

    /// Puts a mapping of `file` in the place of this one; of what can be written to, a copy in memory.
    fn map_anew(&self, file: &OwnedFd) -> Result<()> {
        let length = self.to - self.from;
        let place = std::ptr::with_exposed_provenance_mut(self.from);
        if length == 0 {
            return Ok(());
        }
        if self.flags & WRITABLE != 0 {
            return carry_over(place, length);
        }
        let mut protection = ProtFlags::READ;
        if self.flags & EXECUTABLE != 0 {
            protection |= ProtFlags::EXEC;
        }
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the pages are replaced by the same pages of a file with the same content, in one call of the only
        // thread; nobody has written to them.
        unsafe { rustix::mm::mmap(place, length, protection, flags, file, self.offset) }?;
        Ok(())
    }
}

/// Replaces pages of a file that were written to by pages of no file with the same content.
fn carry_over(place: *mut std::ffi::c_void, length: usize) -> Result<()> {
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses a free place.
    let copy = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, both, MapFlags::PRIVATE)
    }?;
    // SAFETY: both are of this length, are mapped, and do not overlap; there is no other thread that writes to the
    // original, and between this and the next call nothing does.
    unsafe { std::ptr::copy_nonoverlapping(place.cast::<u8>(), copy.cast::<u8>(), length) };
    // SAFETY: what is replaced has just been copied, byte by byte.
    unsafe { rustix::mm::mremap_fixed(copy, length, length, MremapFlags::MAYMOVE, place) }?;
    Ok(())
}

/// Where the words are that the program was called with, as addresses.
#[derive(Debug, Clone, Copy)]
struct Words {
    arguments: u64,
    environment: u64,
    end: u64,
}

unsafe extern "C" {
    /// `argv[0]` (glibc, `program_invocation_name(3)`).
    static program_invocation_name: *const c_char;
    /// The environment (`environ(7)`).
    static environ: *const *const c_char;
}

impl Words {
    /// The kernel puts the arguments, the environment and the name of the file one behind the other (`fs/exec.c`). Who
    /// has changed the environment has none of it there any more; then it is reported as empty.
    fn own() -> Option<Self> {
        // SAFETY: the C library has set it before anything of this program ran, and nothing sets it again.
        let arguments = unsafe { program_invocation_name } as u64;
        // SAFETY: there is one thread, so nobody changes it at the same time.
        let list = unsafe { environ };
        // SAFETY: the list ends with a null pointer, so it has a first entry if there is a list.
        let first = (!list.is_null()).then(|| unsafe { *list } as u64);
        let end = told(libc::AT_EXECFN);
        let inside = |place: &u64| (arguments..=end).contains(place);
        (arguments != 0 && arguments <= end).then_some(Self {
            arguments,
            environment: first.filter(inside).unwrap_or(end),
            end,
        })
    }
}
