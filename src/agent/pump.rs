//! Carries bytes between a program's streams and the connections to the host: no more in memory than one buffer each.

use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::Result;

/// What is carried at once, and what a pipe holds, in bytes.
pub(super) const CHUNK: usize = 256 << 10;
/// What a stream may still hold when its program has ended; what a process left behind writes after that is not the
/// program's.
const LAST: usize = 1 << 20;

/// Makes a pipe for a program; the end that is kept is the first for output, the second for input.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reads, writes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // A smaller one is slower and works.
    rustix::pipe::fcntl_setpipe_size(&writes, CHUNK)
        .map(drop)
        .unwrap_or_default();
    Ok((reads, writes))
}

/// Carries what a program writes to the host, until nobody can write any more; or, once `ended` can be read, until
/// all has been carried that was there then.
pub(super) fn outward(from: &OwnedFd, mut to: &UnixStream, ended: &OwnedFd) {
    // Without it a read would wait for ever for a process left behind. It is the flag of this end alone.
    if rustix::fs::fcntl_setfl(from, OFlags::NONBLOCK).is_err() {
        return;
    }
    let mut buffer = vec![0; CHUNK];
    let mut left = LAST;
    let mut over = false;
    loop {
        match rustix::io::read(from, &mut buffer) {
            // A terminal that nobody has open any more.
            Ok(0) | Err(Errno::IO) => return,
            Ok(length) => {
                over = over || is_readable(ended);
                if to.write_all(&buffer[..length]).is_err() {
                    return;
                }
                left = if over {
                    left.saturating_sub(length)
                } else {
                    left
                };
                if left == 0 {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if over => return,
            Err(Errno::AGAIN) => match wait(from, to, ended) {
                Ok(news) => over = news,
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

/// Waits until there is something to carry; gives whether the program has ended.
///
/// A host that has gone away is noticed by what it closes: then nobody will read what there is.
fn wait(from: &OwnedFd, to: &UnixStream, ended: &OwnedFd) -> Result<bool> {
    let mut watched = [
        PollFd::new(from, PollFlags::IN),
        PollFd::new(to, PollFlags::empty()),
        PollFd::new(ended, PollFlags::IN),
    ];
    loop {
        match rustix::event::poll(&mut watched, None) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    if watched[1]
        .revents()
        .intersects(PollFlags::HUP | PollFlags::ERR)
    {
        return Err(Errno::PIPE);
    }
    Ok(!watched[2].revents().is_empty())
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::time::Timespec::default();
    rustix::event::poll(&mut watched, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Carries what the host sends to a program, until either does not want to any more.
pub(super) fn inward(mut from: &UnixStream, to: &OwnedFd) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if write_all(to, &buffer[..length]).is_err() {
            return;
        }
    }
}

/// A terminal's master does not block, because the same descriptor is read from: then its turn is waited for.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut watched = [PollFd::new(to, PollFlags::OUT)];
                rustix::event::poll(&mut watched, None).map(drop)?;
                if watched[0].revents().contains(PollFlags::HUP) {
                    return Err(Errno::PIPE);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
