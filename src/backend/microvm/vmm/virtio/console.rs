//! A console (`hvc0`) that is only listened to: what the guest says is kept up to a limit, and counted beyond it.
//!
//! Programs of a workspace do not speak by it, they have streams of their own. So nobody is ever waited for: when what
//! the words go to takes no more, they are lost, and the guest goes on.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::ring::Ring;

/// How many descriptors each queue has.
const ENTRIES: u16 = 64;
/// The queues: what the guest hears, and what it says.
const HEARD: usize = 0;
const SAID: usize = 1;
/// How much is copied at once: as much as a pipe takes or refuses as a whole.
const PIECE: usize = 4096;
/// The most bytes of one request that are looked at: what is longer is no line of a console.
const MOST: usize = 64 << 10;
/// How many requests are heard before others have their turn.
const TURN: usize = 2 * ENTRIES as usize;
/// What stands where the limit is reached.
const END: &[u8] = b"\n[the limit of this log]\n";

/// The device.
#[derive(Debug)]
pub struct Console {
    outlet: Outlet,
    rings: Option<Rings>,
}

#[derive(Debug)]
struct Rings {
    said: Ring,
    /// Kept, so that what the driver has put there is not answered by anybody.
    _heard: Option<Ring>,
}

/// Where words go to, and how many may.
#[derive(Debug)]
struct Outlet {
    file: Option<File>,
    left: u64,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    fn keep(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let Some(file) = self.file.as_mut().filter(|_| length <= self.left) else {
            return self.lose(length);
        };
        match write_now(file, bytes) {
            Ok(()) => self.left -= length,
            Err(_) => {
                self.dropped.fetch_add(length, Ordering::Relaxed);
            }
        }
    }

    /// The first words beyond the limit are the last that are looked at.
    fn lose(&mut self, length: u64) {
        if let Some(mut file) = self.file.take() {
            // A log that is full says so itself if it cannot be said here.
            write_now(&mut file, END).unwrap_or_default();
        }
        self.dropped.fetch_add(length, Ordering::Relaxed);
    }
}

/// Writes if that can be done without waiting.
fn write_now(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut polled = [PollFd::new(file, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if rustix::event::poll(&mut polled, Some(&now))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    file.write_all(bytes)
}

impl Console {
    /// A console whose words go to `file`, `limit` bytes of them; to nowhere without one.
    #[must_use]
    pub fn new(file: Option<File>, limit: u64) -> Self {
        Self {
            outlet: Outlet {
                file,
                left: limit,
                dropped: Arc::default(),
            },
            rings: None,
        }
    }

    /// How many bytes were not kept; goes on counting.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.outlet.dropped)
    }

    fn hear(&mut self, ring: &Ring, chain: &Chain) -> Result<(), DeviceError> {
        let mut reader = chain.reader(ring.memory());
        let all = reader.left();
        let mut left = all.min(MOST);
        let mut piece = [0; PIECE];
        while left > 0 {
            let piece = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            reader.read(piece)?;
            self.outlet.keep(piece);
            left -= piece.len();
        }
        let beyond = all.saturating_sub(MOST) as u64;
        self.outlet.dropped.fetch_add(beyond, Ordering::Relaxed);
        Ok(())
    }

    fn listen(&mut self, ring: &mut Ring) -> Result<(), DeviceError> {
        for _ in 0..TURN {
            let Some(chain) = ring.next_request()? else {
                return Ok(ring.notify()?);
            };
            self.hear(ring, &chain)?;
            ring.push(chain.head(), 0)?;
        }
        ring.again();
        Ok(ring.notify()?)
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[ENTRIES, ENTRIES]
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let said = activation.ring(SAID)?;
        watch.ring(&said)?;
        self.rings = Some(Rings {
            said,
            _heard: activation.optional_ring(HEARD),
        });
        Ok(())
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Watch<'_>) -> Result<(), DeviceError> {
        let Some(mut rings) = self.rings.take() else {
            return Ok(());
        };
        let done = self.listen(&mut rings.said);
        self.rings = Some(rings);
        done
    }

    fn reset(&mut self) {
        self.rings = None;
    }
}
