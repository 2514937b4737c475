//! Memory that is certainly touched, taken from the kernel at once: to be interrupted for each page takes longer than the
//! page does (`MADV_POPULATE_WRITE`, Linux 5.14; `madvise(2)`). An older kernel gives each when it is touched.

use rustix::mm::Advice;

/// What a command that makes something touches of its stack before it has made a process.
const STACK: usize = 64 << 10;
/// And of its heap, which grows from its beginning.
const HEAP: usize = 60 << 10;
const PAGE: usize = 4096;

/// Takes what a command that makes something is about to touch.
pub fn take() {
    let local = 0_u8;
    let top = (&raw const local).addr();
    populate(top.saturating_sub(STACK), STACK, Advice::LinuxPopulateWrite);
    let first = Box::new(0_u8);
    let begin = std::ptr::from_ref(&*first).addr();
    populate(begin, HEAP, Advice::LinuxPopulateWrite);
}

/// Takes the pages from `from` on: of a file what is in it, else zeroes, which is what they have when they are touched.
pub(super) fn populate(from: usize, length: usize, how: Advice) {
    let begin = from & !(PAGE - 1);
    // SAFETY: no page changes by being there; where there is none the kernel says so, which costs nothing but time.
    unsafe { rustix::mm::madvise(begin as *mut _, length, how) }.unwrap_or_default();
}
