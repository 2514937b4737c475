//! One queue of a device that is in use: requests come out of it, and go back when they are done.

use std::sync::Arc;

use virtio_queue::Queue;
use virtio_queue::QueueOwnedT;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::chain::ChainError;
use crate::backend::microvm::vmm::virtio::chain::Table;
use crate::backend::microvm::vmm::virtio::chain::walk;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;

/// What is wrong with what a driver has put into a ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring itself.
    #[error("queue {queue}: {source}")]
    Ring {
        /// Which queue.
        queue: u16,
        /// What is wrong with it.
        source: virtio_queue::Error,
    },
    /// A request.
    #[error("queue {queue}: {source}")]
    Chain {
        /// Which queue.
        queue: u16,
        /// What is wrong with it.
        source: ChainError,
    },
    /// A request is given again before it was answered.
    #[error("queue {queue}: request {head} is in use already")]
    InUse {
        /// Which queue.
        queue: u16,
        /// The request.
        head: u16,
    },
    /// A request is answered that was not taken.
    #[error("queue {queue}: request {head} is not in use")]
    NotInUse {
        /// Which queue.
        queue: u16,
        /// The request.
        head: u16,
    },
}

/// A queue with its descriptors, its doorbell and its interrupt.
#[derive(Debug)]
pub struct Ring {
    index: u16,
    queue: Queue,
    memory: Memory,
    kick: Arc<EventFd>,
    interrupt: Interrupt,
    indirect: bool,
    in_use: Vec<bool>,
}

impl Ring {
    /// A ring of a queue that is set up, and valid in `memory`.
    #[must_use]
    pub fn new(
        index: u16,
        queue: Queue,
        memory: Memory,
        kick: Arc<EventFd>,
        interrupt: Interrupt,
        indirect: bool,
    ) -> Self {
        let in_use = vec![false; usize::from(queue.size())];
        Self {
            index,
            queue,
            memory,
            kick,
            interrupt,
            indirect,
            in_use,
        }
    }

    /// Which queue of the device it is.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What the driver rings when there is something to do.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// The interrupt that tells the driver of answers.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Where the ring is: for those who hand it to somebody outside.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The memory that the ring and its requests are in.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes the next request, if there is one.
    ///
    /// # Errors
    ///
    /// [`RingError`] when there is one that no driver would make.
    pub fn pop(&mut self) -> Result<Option<Chain>, RingError> {
        let queue = self.index;
        let memory: &GuestMemoryMmap<()> = &self.memory;
        let ring = |source| RingError::Ring { queue, source };
        let next = self.queue.iter(memory).map_err(ring)?.next();
        let Some(head) = next.map(|chain| chain.head_index()) else {
            return Ok(None);
        };
        let table = Table {
            address: self.queue.desc_table(),
            size: self.queue.size(),
            indirect: self.indirect,
        };
        let chain = walk(memory, table, head);
        let chain = chain.map_err(|source| RingError::Chain { queue, source })?;
        if self.exchange(head, true) {
            return Err(RingError::InUse { queue, head });
        }
        Ok(Some(chain))
    }

    /// Takes the next request; when there is none, asks for a kick at the next one.
    ///
    /// # Errors
    ///
    /// As for [`Ring::pop`].
    pub fn next_request(&mut self) -> Result<Option<Chain>, RingError> {
        loop {
            let next = self.pop()?;
            if next.is_some() || !self.listen()? {
                return Ok(next);
            }
        }
    }

    /// Puts the request that was taken last back, as if it had not been taken.
    pub fn put_back(&mut self, chain: &Chain) {
        self.exchange(chain.head(), false);
        self.queue.go_to_previous_position();
    }

    /// Answers a request: `written` bytes of its room were used. The driver is told by [`Ring::notify`].
    ///
    /// # Errors
    ///
    /// [`RingError`] when the request is not in use, or the ring is not in memory any more.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), RingError> {
        let queue = self.index;
        if !self.exchange(head, false) {
            return Err(RingError::NotInUse { queue, head });
        }
        let memory: &GuestMemoryMmap<()> = &self.memory;
        let used = self.queue.add_used(memory, head, written);
        used.map_err(|source| RingError::Ring { queue, source })
    }

    /// Tells the driver of the answers since the last time, unless it does not want to know.
    ///
    /// # Errors
    ///
    /// [`RingError`] when the ring is not in memory any more.
    pub fn notify(&mut self) -> Result<(), RingError> {
        let queue = self.index;
        let memory: &GuestMemoryMmap<()> = &self.memory;
        let wanted = self.queue.needs_notification(memory);
        if wanted.map_err(|source| RingError::Ring { queue, source })? {
            self.interrupt.used();
        }
        Ok(())
    }

    /// Asks for no kicks for now: the device looks by itself.
    ///
    /// # Errors
    ///
    /// [`RingError`] when the ring is not in memory any more.
    pub fn mute(&mut self) -> Result<(), RingError> {
        let queue = self.index;
        let memory: &GuestMemoryMmap<()> = &self.memory;
        let muted = self.queue.disable_notification(memory);
        muted.map_err(|source| RingError::Ring { queue, source })
    }

    /// Asks for a kick at the next request. Gives whether there is one already, which no kick may come for.
    ///
    /// # Errors
    ///
    /// [`RingError`] when the ring is not in memory any more.
    pub fn listen(&mut self) -> Result<bool, RingError> {
        let queue = self.index;
        let memory: &GuestMemoryMmap<()> = &self.memory;
        let there = self.queue.enable_notification(memory);
        there.map_err(|source| RingError::Ring { queue, source })
    }

    /// Rings the doorbell from this side: there is more to do, but others shall have their turn before.
    pub fn again(&self) {
        // It fails only when the counter is full: then it is ringing.
        self.kick.write(1).ok();
    }

    /// Marks a request as in use or not; gives what it was before.
    fn exchange(&mut self, head: u16, now: bool) -> bool {
        let place = self.in_use.get_mut(usize::from(head));
        place.is_some_and(|place| std::mem::replace(place, now))
    }
}
