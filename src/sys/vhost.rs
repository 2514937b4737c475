//! A network interface whose frames the kernel moves itself, between a guest's rings and a tap (`/dev/vhost-net`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::VringConfigData;
use vhost::vhost_kern::VhostKernBackend;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vmm_sys_util::eventfd::EventFd;

use crate::sys::Result;
use crate::sys::checked;

/// `VHOST_NET_SET_BACKEND`: `_IOW(0xaf, 0x30, struct vhost_vring_file)`.
const SET_BACKEND: libc::Ioctl = 0x4008_af30;

/// One interface in the kernel, owned by this process.
#[derive(Debug)]
pub struct VhostNet {
    file: File,
    features: u64,
}

/// The interface with the memory that it works on.
struct Joined<'a> {
    file: &'a File,
    memory: Arc<GuestMemoryMmap<()>>,
}

impl AsRawFd for Joined<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl VhostKernBackend for Joined<'_> {
    type AS = Arc<GuestMemoryMmap<()>>;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }
}

/// `struct vhost_vring_file`.
#[repr(C)]
struct Backend {
    index: libc::c_uint,
    fd: libc::c_int,
}

fn failed(error: vhost::Error) -> io::Error {
    if let vhost::Error::IoctlError(source) = error {
        return source;
    }
    io::Error::other(error)
}

impl VhostNet {
    /// Makes an interface of an open `/dev/vhost-net`. The kernel's thread for it is a thread of this process, and is
    /// counted where the caller is.
    ///
    /// # Errors
    ///
    /// Fails as `VHOST_SET_OWNER` does: `EBUSY` when the descriptor is in use already.
    pub fn new(device: OwnedFd) -> io::Result<Self> {
        let file = File::from(device);
        let none = Joined {
            file: &file,
            memory: Arc::new(GuestMemoryMmap::new()),
        };
        none.set_owner().map_err(failed)?;
        let features = none.get_features().map_err(failed)?;
        Ok(Self { file, features })
    }

    /// What the kernel knows of virtio.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Tells the kernel what it needs before the first ring: the features, and where the guest's memory is.
    ///
    /// # Errors
    ///
    /// Fails as `VHOST_SET_FEATURES` and `VHOST_SET_MEM_TABLE` do.
    pub fn prepare(&self, features: u64, memory: &Arc<GuestMemoryMmap<()>>) -> io::Result<()> {
        let joined = self.joined(memory);
        joined
            .set_features(features & self.features)
            .map_err(failed)?;
        let regions = memory.iter().map(|region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr().addr() as u64,
            mmap_offset: 0,
            mmap_handle: -1,
        });
        let regions: Vec<_> = regions.collect();
        joined.set_mem_table(&regions).map_err(failed)
    }

    /// Hands a ring over; its requests are served from then on, from and to `tap`.
    ///
    /// # Errors
    ///
    /// Fails as the calls that set a ring up do.
    pub fn start(
        &self,
        index: usize,
        queue: &Queue,
        memory: &Arc<GuestMemoryMmap<()>>,
        [kick, call]: [&EventFd; 2],
        tap: impl AsFd,
    ) -> io::Result<()> {
        let joined = self.joined(memory);
        let places = VringConfigData {
            queue_max_size: queue.max_size(),
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr: queue.desc_table(),
            used_ring_addr: queue.used_ring(),
            avail_ring_addr: queue.avail_ring(),
            log_addr: None,
        };
        joined.set_vring_num(index, queue.size()).map_err(failed)?;
        joined.set_vring_base(index, 0).map_err(failed)?;
        joined.set_vring_addr(index, &places).map_err(failed)?;
        joined.set_vring_call(index, call).map_err(failed)?;
        joined.set_vring_kick(index, kick).map_err(failed)?;
        Ok(self.set_backend(index, tap.as_fd().as_raw_fd())?)
    }

    /// Takes a ring back; when this returns the kernel does not touch it any more.
    ///
    /// # Errors
    ///
    /// Fails as `VHOST_NET_SET_BACKEND` does.
    pub fn stop(&self, index: usize) -> io::Result<()> {
        Ok(self.set_backend(index, -1)?)
    }

    fn joined(&self, memory: &Arc<GuestMemoryMmap<()>>) -> Joined<'_> {
        Joined {
            file: &self.file,
            memory: Arc::clone(memory),
        }
    }

    fn set_backend(&self, index: usize, fd: RawFd) -> Result<()> {
        let backend = Backend {
            index: libc::c_uint::try_from(index).unwrap_or(libc::c_uint::MAX),
            fd,
        };
        // SAFETY: the call reads one structure of the length that its number says, which outlives it.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), SET_BACKEND, &raw const backend) };
        checked(done.into()).map(drop)
    }
}
