//! Bytes that go straight between a stream socket and guest memory: never waiting, and no signal when the peer is gone.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;
use crate::sys::scatter::vectors;

/// The most pieces that one call takes (`UIO_MAXIOV`); what lies in further ones waits for the next call.
const MOST_PIECES: usize = 1024;

/// A message of these pieces, without a name and without control data.
fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a `msghdr` is integers and pointers, for which all bits zero means none.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len().min(MOST_PIECES) as _;
    message
}

/// Receives into `slices`, first to last, and gives how many bytes; 0 means that there will be no more. Never waits.
///
/// # Errors
///
/// `EAGAIN` when nothing is there; else as `recvmsg(2)` does.
pub fn receive(socket: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> Result<usize> {
    let mut vectors = vectors(slices);
    let mut message = message(&mut vectors);
    again(|| {
        // SAFETY: the vectors are those of slices that are mapped and may be written, for the call and longer; nobody has
        // a reference into guest memory.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
    })
}

/// Sends from `slices`, first to last, and gives how many bytes. Never waits; a peer that is gone is no signal.
///
/// # Errors
///
/// `EAGAIN` when there is no room, `EPIPE` when the peer takes no more; else as `sendmsg(2)` does.
pub fn send(socket: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let mut vectors = vectors(slices);
    let message = message(&mut vectors);
    again(|| {
        // SAFETY: the vectors are those of slices that are mapped, for the call and longer.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) }
    })
}

/// Repeats a call that a signal interrupted.
fn again(mut call: impl FnMut() -> isize) -> Result<usize> {
    loop {
        match checked(call() as libc::c_long) {
            Err(Errno::INTR) => {}
            answer => {
                return answer.and_then(|bytes| usize::try_from(bytes).map_err(|_| Errno::IO));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn slices(blocks: &mut [Vec<u8>]) -> Vec<VolatileSlice<'_>> {
        let slice = |block| VolatileSlice::from(Vec::as_mut_slice(block));
        blocks.iter_mut().map(slice).collect()
    }

    #[test]
    fn bytes_go_through_pieces_in_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut given = vec![b"one ".to_vec(), Vec::new(), b"and two".to_vec()];
        assert_eq!(send(near.as_fd(), &slices(&mut given)), Ok(11));
        let mut room = vec![vec![0; 6], vec![0; 100]];
        assert_eq!(receive(far.as_fd(), &slices(&mut room)), Ok(11));
        assert_eq!(room[0], b"one an");
        assert_eq!(&room[1][..5], b"d two");
    }

    #[test]
    fn neither_waits() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut block = vec![vec![0; 1 << 20]];
        assert_eq!(receive(far.as_fd(), &slices(&mut block)), Err(Errno::AGAIN));
        assert!(send(near.as_fd(), &slices(&mut block)).unwrap() < 1 << 20);
        assert_eq!(send(near.as_fd(), &slices(&mut block)), Err(Errno::AGAIN));
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_or_an_end() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let mut block = vec![vec![0; 1]];
        assert_eq!(send(near.as_fd(), &slices(&mut block)), Err(Errno::PIPE));
        assert_eq!(receive(near.as_fd(), &slices(&mut block)), Ok(0));
    }

    #[test]
    fn what_is_in_too_many_pieces_waits() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut blocks = vec![vec![1; 1]; MOST_PIECES + 3];
        assert_eq!(send(near.as_fd(), &slices(&mut blocks)), Ok(MOST_PIECES));
    }
}
