//! Random numbers of this host's kernel, as many as a guest can want in good faith.

#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::limiter::Throttle;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::sys::scatter;

/// How many descriptors there are.
const ENTRIES: u16 = 64;
/// The most bytes that one request gets, however much room it has: it costs this process as much.
const MOST: usize = 64 << 10;
/// The most bytes in a second. A kernel asks for some hundred when it starts, and then for 64 now and then.
const RATE: u64 = 1 << 20;
/// The most requests in a second.
const REQUESTS: u64 = 4096;
/// The token of the moment to go on.
const GO_ON: u32 = 0x100;

/// The device.
#[derive(Debug)]
pub struct Rng {
    throttle: Throttle,
    ring: Option<Ring>,
}

impl Rng {
    /// A source of random numbers.
    ///
    /// # Errors
    ///
    /// Fails as `timerfd_create(2)` does.
    pub fn new() -> io::Result<Self> {
        let limit = Limit {
            bytes_per_second: Some(RATE),
            operations_per_second: Some(REQUESTS),
        };
        Ok(Self {
            throttle: Throttle::new(Some(limit))?,
            ring: None,
        })
    }
}

/// Answers requests until there are none, or the guest has had enough.
fn serve(ring: &mut Ring, throttle: &mut Throttle) -> Result<(), DeviceError> {
    while throttle.passes()? {
        let Some(chain) = ring.next_request()? else {
            break;
        };
        let memory = ring.memory().clone();
        let mut writer = chain.writer(&memory);
        let mut bytes = vec![0; writer.left().min(MOST)];
        scatter::fill_random(&mut bytes).map_err(DeviceError::host("get random numbers"))?;
        writer.write(&bytes)?;
        throttle.charge(bytes.len() as u64);
        ring.push(chain.head(), u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
    }
    Ok(ring.notify()?)
}

impl VirtioDevice for Rng {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &[ENTRIES]
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
        let ring = activation.ring(0)?;
        watch.ring(&ring)?;
        self.throttle.watch(watch, GO_ON)?;
        self.ring = Some(ring);
        Ok(())
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Watch<'_>) -> Result<(), DeviceError> {
        match &mut self.ring {
            Some(ring) => serve(ring, &mut self.throttle),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.ring = None;
    }
}
