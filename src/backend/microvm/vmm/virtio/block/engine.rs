//! How bytes get to a disk: at once and waited for, or by a ring that answers later.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::chain::ChainError;
use crate::backend::microvm::vmm::virtio::chain::Cursor;
use crate::sys::Errno;
use crate::sys::scatter;
use crate::sys::scatter::Way;
use crate::sys::uring::Completion;
use crate::sys::uring::Uring;

/// Bytes to be moved between guest memory and a place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub(super) way: Way,
    pub(super) place: Cursor<'a>,
    pub(super) length: usize,
    pub(super) offset: u64,
}

/// What becomes of something that was started.
#[derive(Debug)]
pub(super) enum Started {
    /// It is done.
    Done(io::Result<()>),
    /// It will be told of.
    Later,
}

/// A file, and the way to it.
#[derive(Debug)]
pub(super) struct Engine {
    file: Arc<File>,
    ring: Option<Uring>,
}

impl Engine {
    /// By a ring with room for `entries` requests where there is one, and else at once.
    pub(super) fn new(file: File, entries: u32) -> Self {
        let file = Arc::new(file);
        let ring = Uring::new(Arc::clone(&file), entries).ok();
        Self { file, ring }
    }

    /// At once, whatever there is.
    pub(super) fn direct(file: File) -> Self {
        Self {
            file: Arc::new(file),
            ring: None,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn ring(&self) -> Option<&Uring> {
        self.ring.as_ref()
    }

    /// Begins a transfer; it is told of under `token` if it is not done.
    pub(super) fn transfer(
        &mut self,
        memory: &Memory,
        transfer: Transfer<'_>,
        token: u64,
    ) -> Result<Started, ChainError> {
        let Some(ring) = self.ring.as_mut().filter(|ring| ring.has_room()) else {
            return Ok(Started::Done(self.finish(transfer, 0)));
        };
        let slices = { transfer.place }.slices(transfer.length)?;
        let (way, offset) = (transfer.way, transfer.offset);
        let pushed = ring.transfer(way, memory, &slices, offset, token);
        Ok(pushed.map_or_else(|error| Started::Done(Err(error)), |()| Started::Later))
    }

    /// Does what is left of a transfer, `done` bytes of which are moved.
    pub(super) fn finish(&self, transfer: Transfer<'_>, done: usize) -> io::Result<()> {
        let mut place = transfer.place;
        place.skip(done).map_err(io::Error::other)?;
        let mut left = transfer.length.saturating_sub(done);
        while left > 0 {
            let offset = transfer.offset + (transfer.length - left) as u64;
            let slices = { place }.slices(left).map_err(io::Error::other)?;
            let moved = match scatter::transfer(&*self.file, transfer.way, &slices, offset) {
                Err(Errno::INTR) => continue,
                // The file is shorter than it was.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                moved => moved?,
            };
            place.skip(moved).map_err(io::Error::other)?;
            left = left.saturating_sub(moved);
        }
        Ok(())
    }

    /// Begins to see to it that what was written is kept.
    pub(super) fn sync(&mut self, token: u64) -> Started {
        match self.ring.as_mut().filter(|ring| ring.has_room()) {
            None => Started::Done(self.file.sync_data()),
            Some(ring) => match ring.sync(token) {
                Ok(()) => Started::Later,
                Err(error) => Started::Done(Err(error)),
            },
        }
    }

    /// Sets what was begun going.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.ring.as_mut().map_or(Ok(()), Uring::submit)
    }

    /// The next of what is done.
    pub(super) fn ended(&mut self) -> Option<Completion> {
        self.ring.as_mut()?.ended()
    }

    /// Waits until nothing is going on.
    pub(super) fn drain(&mut self) {
        if self.ring.as_mut().is_some_and(|ring| ring.drain().is_err()) {
            // What the kernel may still work on keeps its memory by itself; what it says of that is not heard.
            self.ring = None;
        }
    }
}
