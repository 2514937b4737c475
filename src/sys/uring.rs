//! Reading and writing one file without waiting for it, by `io_uring(7)`, straight from and to a guest's memory.
//!
//! The ring can do nothing but that: before it is switched on, it is told that it may read, write and sync its one file
//! (`IORING_REGISTER_RESTRICTIONS`), so that a filter of system calls need not fear it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::IoUring;
use io_uring::opcode;
use io_uring::register::Restriction;
use io_uring::squeue::Entry;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;
use io_uring::types::FsyncFlags;
use vm_memory::GuestMemoryMmap;
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::sys::scatter;
use crate::sys::scatter::Way;

/// The file, as the ring knows it.
const FILE: Fixed = Fixed(0);

/// A ring for one file.
pub struct Uring {
    ring: IoUring,
    bell: EventFd,
    /// What the kernel may still read or write, by the number that the answer comes under.
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    /// Jobs that the kernel has not been told of.
    waiting: usize,
    /// Open for as long as the ring is.
    _file: Arc<File>,
}

/// What must stay for as long as the kernel works on it.
struct Job {
    token: u64,
    _vectors: Vec<libc::iovec>,
    _memory: Option<Arc<GuestMemoryMmap<()>>>,
}

// SAFETY: the vectors are read by the kernel alone, and lead to memory that the job keeps, on whatever thread it is.
unsafe impl Send for Job {}

/// The end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// What the job was started under.
    pub token: u64,
    /// How many bytes, or the negative number of an error.
    pub result: i32,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl AsRawFd for Uring {
    /// What is ready to be read when a job has ended.
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

impl Uring {
    /// A ring that has room for `entries` jobs on `file`.
    ///
    /// # Errors
    ///
    /// Fails as `io_uring_setup(2)` and `io_uring_register(2)` do: `ENOSYS` or `EPERM` where it may not be used.
    pub fn new(file: Arc<File>, entries: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().build(entries)?;
        let bell = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        submitter.register_eventfd(bell.as_raw_fd())?;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
            Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
        ])?;
        submitter.register_enable_rings()?;
        let room = usize::try_from(entries).unwrap_or_default();
        Ok(Self {
            ring,
            bell,
            jobs: (0..room).map(|_| None).collect(),
            free: (0..room).rev().collect(),
            waiting: 0,
            _file: file,
        })
    }

    /// How many jobs have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    /// Whether there is room for another job.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Gets a job ready: bytes between a place in the file and `slices`, which are of `memory`.
    ///
    /// # Errors
    ///
    /// `EBUSY` when there is no room, `EFAULT` when a slice is of other memory.
    pub fn transfer(
        &mut self,
        way: Way,
        memory: &Arc<GuestMemoryMmap<()>>,
        slices: &[VolatileSlice<'_>],
        offset: u64,
        token: u64,
    ) -> io::Result<()> {
        if !slices.iter().all(|slice| is_of(memory, slice)) {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        let vectors = scatter::vectors(slices);
        let count = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
        let start = vectors.as_ptr();
        let entry = match way {
            Way::In => opcode::Readv::new(FILE, start, count)
                .offset(offset)
                .build(),
            Way::Out | Way::OutDurably => opcode::Writev::new(FILE, start, count)
                .offset(offset)
                .rw_flags(way.flags())
                .build(),
        };
        let job = Job {
            token,
            _vectors: vectors,
            _memory: Some(Arc::clone(memory)),
        };
        self.push(entry, job)
    }

    /// Gets a job ready: what was written is to be kept (`fdatasync(2)`).
    ///
    /// # Errors
    ///
    /// `EBUSY` when there is no room.
    pub fn sync(&mut self, token: u64) -> io::Result<()> {
        let entry = opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build();
        let job = Job {
            token,
            _vectors: Vec::new(),
            _memory: None,
        };
        self.push(entry, job)
    }

    fn push(&mut self, entry: Entry, job: Job) -> io::Result<()> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let place = self.free.pop().ok_or_else(busy)?;
        let entry = entry
            .flags(Flags::FIXED_FILE)
            .user_data(u64::try_from(place).unwrap_or(u64::MAX));
        let kept = self.jobs.get_mut(place).ok_or_else(busy)?;
        // Vectors do not move when their owner does.
        *kept = Some(job);
        // SAFETY: the vectors and the memory that they are of are kept in the job until the kernel says that it has
        // ended, also when this ring is dropped; the descriptor is the ring's own.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            *kept = None;
            self.free.push(place);
            return Err(busy());
        }
        self.waiting += 1;
        Ok(())
    }

    /// Tells the kernel of all jobs that are ready.
    ///
    /// # Errors
    ///
    /// Fails as `io_uring_enter(2)` does.
    pub fn submit(&mut self) -> io::Result<()> {
        while self.waiting > 0 {
            match self.ring.submit() {
                Ok(told) => self.waiting = self.waiting.saturating_sub(told.max(1)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next job that has ended, if there is one.
    pub fn ended(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let place = usize::try_from(entry.user_data()).ok()?;
        let job = self.jobs.get_mut(place)?.take()?;
        self.free.push(place);
        Some(Completion {
            token: job.token,
            result: entry.result(),
        })
    }

    /// Waits until all jobs have ended; what became of them is forgotten.
    ///
    /// # Errors
    ///
    /// Fails as `io_uring_enter(2)` does.
    pub fn drain(&mut self) -> io::Result<()> {
        self.submit()?;
        while self.in_flight() > 0 {
            if self.ended().is_some() {
                continue;
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Uring {
    /// The kernel must not be left with memory that is unmapped.
    fn drop(&mut self) {
        if self.drain().is_err() {
            // It may still be at work: then the memory stays for as long as the process does.
            std::mem::forget(std::mem::take(&mut self.jobs));
        }
    }
}

/// Whether a slice lies in a region of `memory`.
fn is_of(memory: &GuestMemoryMmap<()>, slice: &VolatileSlice<'_>) -> bool {
    use vm_memory::GuestMemory;
    use vm_memory::GuestMemoryRegion;
    let start = slice.ptr_guard().as_ptr().addr();
    memory.iter().any(|region| {
        let first = region.as_ptr().addr();
        let length = usize::try_from(region.len()).unwrap_or_default();
        start >= first && start - first <= length && slice.len() <= length - (start - first)
    })
}
