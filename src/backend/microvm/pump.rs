//! Carries a program's streams between this process and the guest: a thread for each direction.
//!
//! Where one side is a pipe the bytes never enter this process (`splice(2)`). The kernel keeps such a pipe locked while it
//! waits for the other side, and whoever reads or writes it at its other end then waits uninterruptibly, for bytes that
//! are there: so the guest's side never blocks, and is waited for in between. A side that is gone ends its own direction
//! alone; what the program wrote before is carried to its last byte.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::thread::JoinHandle;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::pipe::SpliceFlags;

use crate::agent::wire::Output;
use crate::agent::wire::Stream;
use crate::agent::wire::Streams;
use crate::backend::BackendError;
use crate::backend::microvm::talk;
use crate::sys::Errno;
use crate::sys::Result;

/// How much is carried at once, in bytes.
const CHUNK: usize = 256 << 10;
/// The stack of a thread that carries, in bytes.
const STACK: usize = 64 << 10;
/// `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// What this process's standard streams are, as far as the guest has to know.
pub(super) fn streams() -> Streams {
    let [input, output, error] =
        [stdin(), stdout(), stderr()].map(|stream| stream.ok().as_ref().and_then(Side::of));
    let goes = |side: &Option<Side>| match side {
        None => Output::Nowhere,
        Some(_) => Output::Stream,
    };
    Streams::Pipes {
        input: input.is_some(),
        output: goes(&output),
        error: if error.is_some() && error == output {
            Output::WithOutput
        } else {
            goes(&error)
        },
    }
}

/// Which file a standard stream is.
#[derive(Debug, PartialEq, Eq)]
struct Side {
    device: u64,
    inode: u64,
}

impl Side {
    /// Nothing for what swallows everything and gives nothing.
    fn of(stream: &OwnedFd) -> Option<Self> {
        let found = rustix::fs::fstat(stream).ok()?;
        let device = (
            rustix::fs::major(found.st_rdev),
            rustix::fs::minor(found.st_rdev),
        );
        let character = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        (!(character && device == NULL)).then_some(Self {
            device: found.st_dev,
            inode: found.st_ino,
        })
    }
}

fn stdin() -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
}

fn stdout() -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
}

fn stderr() -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
}

/// The directions of one session that have not come to their end.
#[derive(Debug, Default)]
pub(super) struct Pumps {
    outward: Vec<JoinHandle<()>>,
}

impl Pumps {
    /// Attaches the streams of a session and begins to carry.
    pub(super) fn begin(
        home: BorrowedFd<'_>,
        session: u32,
        streams: Streams,
    ) -> std::result::Result<Self, BackendError> {
        let mut pumps = Self::default();
        let (input, output, error) = match streams {
            Streams::Terminal => {
                pumps.terminal(talk::attach(home, session, Stream::Terminal)?)?;
                return Ok(pumps);
            }
            Streams::Pipes {
                input,
                output,
                error,
            } => (input, output, error),
        };
        if output == Output::Stream {
            let far = talk::attach(home, session, Stream::Output)?;
            pumps.outward(far, stdout().map_err(unusable)?)?;
        }
        if error == Output::Stream {
            let far = talk::attach(home, session, Stream::Error)?;
            pumps.outward(far, stderr().map_err(unusable)?)?;
        }
        if input {
            let far = talk::attach(home, session, Stream::Input)?;
            inward(stdin().map_err(unusable)?, far)?;
        }
        Ok(pumps)
    }

    /// Both ways between the guest's terminal and this process's own, which is its standard input.
    fn terminal(&mut self, far: UnixStream) -> std::result::Result<(), BackendError> {
        let own = stdin().map_err(unusable)?;
        let again = far.try_clone().map_err(|error| unusable(errno(&error)))?;
        inward(own, again)?;
        self.outward(far, stdout().map_err(unusable)?)
    }

    fn outward(&mut self, far: UnixStream, near: OwnedFd) -> std::result::Result<(), BackendError> {
        let carrying = begin(far, move |far| {
            carry(far.as_fd(), near.as_fd()).unwrap_or_default();
            // The program hears that nobody takes what it writes.
            far.shutdown(Shutdown::Read).unwrap_or_default();
        });
        self.outward.push(carrying?);
        Ok(())
    }

    /// Waits until all that was written has been carried.
    pub(super) fn finish(self) {
        for carrying in self.outward {
            carrying.join().unwrap_or_default();
        }
    }
}

/// The way in ends with this process: a program that has ended reads nothing.
fn inward(near: OwnedFd, far: UnixStream) -> std::result::Result<(), BackendError> {
    begin(far, move |far| {
        carry(near.as_fd(), far.as_fd()).unwrap_or_default();
        far.shutdown(Shutdown::Write).unwrap_or_default();
    })
    .map(drop)
}

/// A thread that carries to or from the guest, whose side never blocks it.
fn begin(
    far: UnixStream,
    work: impl FnOnce(UnixStream) + Send + 'static,
) -> std::result::Result<JoinHandle<()>, BackendError> {
    far.set_nonblocking(true)
        .and_then(|()| {
            let thread = thread::Builder::new().stack_size(STACK);
            thread.spawn(move || work(far))
        })
        .map_err(|error| unusable(errno(&error)))
}

fn unusable(source: Errno) -> BackendError {
    BackendError::kernel("carry the program's streams")(source)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Carries until the end of `from`, or until `to` takes no more.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    loop {
        match rustix::pipe::splice(from, None, to, None, CHUNK, SpliceFlags::MOVE) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, to)?,
            // Neither is a pipe, or one is of a kind that is not spliced.
            Err(Errno::INVAL) => return copy(from, to),
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for the one that has nothing or takes nothing now: the guest's side, or one that somebody else who has it open does
/// not want to block.
fn wait(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    until(from, PollFlags::IN)?;
    until(to, PollFlags::OUT)
}

fn until(side: BorrowedFd<'_>, what: PollFlags) -> Result<()> {
    let mut watched = [PollFd::new(&side, what)];
    match rustix::event::poll(&mut watched, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => write_all(to, &buffer[..length])?,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => until(from, PollFlags::IN)?,
            Err(errno) => return Err(errno),
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => until(to, PollFlags::OUT)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when a thread has come to where it waits"
)]
mod tests {
    use std::io::Read;
    use std::io::Write;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Long enough for a thread to come to where it waits.
    const SOON: Duration = Duration::from_millis(100);
    /// Nobody waits for more than a moment.
    const LATE: Duration = Duration::from_secs(5);

    /// What comes of something that may hang, and then is none.
    fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(work()));
        told.recv_timeout(LATE).ok()
    }

    #[test]
    fn what_has_come_out_can_be_read_while_more_is_waited_for() {
        let (far, mut guest) = UnixStream::pair().unwrap();
        let (mut reads, writes) = io::pipe().unwrap();
        let mut pumps = Pumps::default();
        pumps.outward(far, writes.into()).unwrap();
        guest.write_all(b"!").unwrap();
        thread::sleep(SOON);
        let first = within(move || {
            let mut byte = [0];
            reads.read_exact(&mut byte).map(|()| (reads, byte))
        });
        let (mut reads, byte) = first.expect("the reader hangs").unwrap();
        assert_eq!(&byte, b"!");
        guest.write_all(b" and the rest").unwrap();
        drop(guest);
        let mut rest = String::new();
        reads.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, " and the rest");
        pumps.finish();
    }

    #[test]
    fn what_goes_in_can_be_written_while_the_guest_reads_nothing() {
        let (far, mut guest) = UnixStream::pair().unwrap();
        let (reads, mut writes) = io::pipe().unwrap();
        inward(reads.into(), far).unwrap();
        // More than a socket takes, and less than that and a pipe.
        let size = rustix::net::sockopt::socket_send_buffer_size(&guest).unwrap();
        let written = within(move || {
            let mut count = 0;
            while count < size {
                count += writes.write(&[7; 4096]).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
            (writes, count)
        });
        let (writes, count) = written.expect("the writer hangs");
        drop(writes);
        let mut all = Vec::new();
        guest.read_to_end(&mut all).unwrap();
        assert_eq!(all, vec![7; count]);
    }
}
