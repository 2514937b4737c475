//! An interface whose frames the kernel moves: this process only introduces the two sides to each other.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::sys::vhost::VhostNet;

/// The kernel's side of an interface.
#[derive(Debug)]
pub(super) struct Outside {
    vhost: VhostNet,
    /// What the kernel was given, in their order. It is kept: the kernel has the same descriptors and the same memory.
    rings: Vec<Ring>,
    memory: Option<Memory>,
}

impl Outside {
    /// The kernel's side, by an open `/dev/vhost-net`.
    pub(super) fn new(device: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            vhost: VhostNet::new(device)?,
            rings: Vec::new(),
            memory: None,
        })
    }

    /// Those of `features` that do not depend on the kernel, or that it has.
    pub(super) fn features(&self, features: u64, of_kernel: u64) -> u64 {
        let asked = RING_FEATURES | of_kernel;
        features & (!asked | self.vhost.features())
    }

    /// Hands the rings over.
    pub(super) fn start(
        &mut self,
        features: u64,
        memory: Memory,
        rings: Vec<Ring>,
        tap: &File,
    ) -> io::Result<()> {
        self.vhost.prepare(features, &memory)?;
        let memory = self.memory.insert(memory);
        for ring in rings {
            let index = usize::from(ring.index());
            let events = [ring.kick(), ring.interrupt().line()];
            self.vhost.start(index, ring.queue(), memory, events, tap)?;
            self.rings.push(ring);
        }
        Ok(())
    }

    /// Takes all rings back.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        for ring in self.rings.drain(..) {
            self.vhost.stop(usize::from(ring.index()))?;
        }
        self.memory = None;
        Ok(())
    }
}
