//! The heap of the programs that are linked with musl, whose own asks the kernel for every few pages.
//!
//! It is dlmalloc's behind a lock of the standard library's: a command has one thread mostly, and takes a thousand pieces.
//! The lock that dlmalloc brings for that is pthread's, four calls for each piece where this one is two instructions.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::fmt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use dlmalloc::Dlmalloc;

/// A heap, for all threads of a process and for the copies of it that are made by a process of one thread.
pub struct Heap(Mutex<Dlmalloc>);

impl Heap {
    /// One that has nothing from the kernel yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new()))
    }

    /// Nothing panics while this is held; nor does taking it allocate (`futex(2)`).
    fn pieces(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Heap").finish_non_exhaustive()
    }
}

// Not put in the place of each call: there are some ten thousand of them.
// SAFETY: dlmalloc gives each piece to one caller until that gives it back, of the size and alignment that are asked for;
// who asks is alone with it as long as the lock is held.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the alignment of a layout is a power of two.
        unsafe { self.pieces().malloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.pieces().calloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, with this layout.
        unsafe { self.pieces().free(piece, layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            self.pieces()
                .realloc(piece, layout.size(), layout.align(), size)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece whose bytes are all the same: zero as it is given, or something else.
    fn taken<'a>(heap: &Heap, layout: Layout, filled: u8) -> &'a mut [u8] {
        let piece = match filled {
            // SAFETY: no test asks for nothing.
            0 => unsafe { heap.alloc_zeroed(layout) },
            // SAFETY: as above.
            _ => unsafe { heap.alloc(layout) },
        };
        assert_eq!(piece.align_offset(layout.align()), 0);
        if filled != 0 {
            // SAFETY: the piece is of this size.
            unsafe { piece.write_bytes(filled, layout.size()) };
        }
        // SAFETY: as above; all of it has been written, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(piece, layout.size()) }
    }

    fn give_back(heap: &Heap, piece: &mut [u8], layout: Layout) {
        // SAFETY: it is of this heap and this layout, and nobody uses it from here on.
        unsafe { heap.dealloc(piece.as_mut_ptr(), layout) };
    }

    /// Takes pieces, marks each, and gives them back when others have been taken.
    fn churn(heap: &Heap, seed: usize) {
        let mut held: Vec<(&mut [u8], Layout, u8)> = Vec::new();
        let checked = |(piece, layout, mark): (&mut [u8], Layout, u8)| {
            assert!(piece.iter().all(|byte| *byte == mark));
            give_back(heap, piece, layout);
        };
        for turn in 0..2000 {
            let size = (turn * 7919 + seed * 104_729) % 5000 + 1;
            let layout = Layout::from_size_align(size, 1 << (turn % 7)).unwrap();
            let mark = u8::try_from((turn + seed) % 251 + 1).unwrap();
            held.push((taken(heap, layout, mark), layout, mark));
            if turn % 3 == 0 {
                checked(held.swap_remove(turn % held.len()));
            }
        }
        held.into_iter().for_each(checked);
    }

    #[test]
    fn a_piece_is_one_threads_until_that_gives_it_back() {
        let heap = Heap::new();
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let heap = &heap;
                scope.spawn(move || churn(heap, seed));
            }
        });
    }

    #[test]
    fn a_piece_that_is_to_be_empty_is_also_where_another_was() {
        let (heap, layout) = (Heap::new(), Layout::new::<[u64; 400]>());
        for _ in 0..3 {
            let piece = taken(&heap, layout, 0);
            assert!(piece.iter().all(|byte| *byte == 0));
            piece.fill(7);
            give_back(&heap, piece, layout);
        }
    }

    #[test]
    fn a_piece_that_grows_keeps_what_is_in_it() {
        let (heap, layout) = (Heap::new(), Layout::new::<[u64; 40]>());
        let piece = taken(&heap, layout, 7);
        // In its way.
        let next = taken(&heap, layout, 8);
        let larger = Layout::new::<[u64; 4000]>();
        // SAFETY: it is of this heap and this layout, and the size is not zero.
        let grown = unsafe { heap.realloc(piece.as_mut_ptr(), layout, larger.size()) };
        // SAFETY: as much of it was written, before it grew.
        let kept = unsafe { std::slice::from_raw_parts_mut(grown, layout.size()) };
        assert!(kept.iter().all(|byte| *byte == 7));
        assert!(next.iter().all(|byte| *byte == 8));
        give_back(&heap, kept, larger);
        give_back(&heap, next, layout);
    }
}
