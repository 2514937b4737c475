//! A running CRIU: started, asked one thing, attended to until it has answered.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::io::FdFlags;

use super::error;
use super::error::CriuError;
use super::request::Kind;
use super::request::Request;
use super::wire::Fields;
use super::wire::Message;
use super::yard::Yard;
use crate::plan::namespaces;
use crate::sys::Errno;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::process;
use crate::sys::socket;

/// The longest answer, in bytes: CRIU repeats the words of its first error in it.
const LONGEST: usize = 64 * 1024;
/// Where CRIU and what it runs are found when the caller's environment does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The status of a process that could not become CRIU.
const FAILED: i32 = 125;
/// The number of an answer that asks to be answered (`NOTIFY`).
const NOTIFY: u64 = 6;

/// Something that happens while CRIU works, and that it waits for us to have seen.
#[derive(Debug)]
pub enum Event {
    /// The namespaces of this first process stand; it does not run yet.
    Namespaces(i32),
    /// All processes are as they were, and are let go next; this is the first.
    Restored(i32),
    /// The page server takes questions.
    Ready,
    /// The master of a terminal that nobody restored holds.
    Terminal(OwnedFd),
    /// Anything else.
    Other,
}

/// Who is told what happens.
pub trait Witness {
    /// Something has happened; an error makes CRIU give up.
    ///
    /// # Errors
    ///
    /// Any error is reported in place of CRIU's own.
    fn saw(&mut self, event: Event) -> anyhow::Result<()>;
}

/// A running CRIU.
#[derive(Debug)]
pub struct Worker {
    pid: i32,
    process: OwnedFd,
    channel: OwnedFd,
}

impl Worker {
    /// Starts CRIU, born in `cgroup`, with the descriptors `kept` under their own numbers; with a yard, in a mount
    /// namespace of its own that holds it.
    ///
    /// # Errors
    ///
    /// [`CriuError::Absent`] without CRIU, [`CriuError::Tree`] when the yard cannot be built.
    pub fn start(
        cgroup: Option<BorrowedFd<'_>>,
        yard: Option<&mut Yard<'_>>,
        kept: &[BorrowedFd<'_>],
    ) -> Result<Self, CriuError> {
        let program = Program::find()?;
        let (near, far) = socket::pair().map_err(CriuError::kernel("make a socket for criu"))?;
        let (heard, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(CriuError::kernel("make a pipe for criu"))?;
        let birth = Birth {
            namespaces: yard.as_ref().map_or(0, |_| namespaces::MOUNT),
            cgroup,
            leave: &[near.as_fd()],
            ..Birth::default()
        };
        let born = clone::spawn(birth, || {
            let built = match yard {
                Some(yard) => yard.build().map(|()| yard.kept().to_vec()),
                None => Ok(Vec::new()),
            };
            let words = match built {
                Ok(more) => program.become_it(&far, &[kept, &more].concat()),
                Err(words) => words,
            };
            rustix::io::write(&said, words.as_bytes()).unwrap_or_default();
            FAILED
        })
        .map_err(CriuError::kernel("make a process for criu"))?;
        drop((far, said));
        let words = std::io::read_to_string(std::fs::File::from(heard)).unwrap_or_default();
        let channel = match words.is_empty() {
            true => receive_channel(&near).map_err(CriuError::kernel("reach criu")),
            false => Err(CriuError::Tree(words)),
        };
        match channel {
            Ok(channel) => Ok(Self {
                pid: born.pid,
                process: born.pidfd,
                channel,
            }),
            Err(error) => {
                process::signal(born.pidfd.as_fd(), 9).unwrap_or_default();
                process::wait(born.pidfd.as_fd())
                    .map(drop)
                    .unwrap_or_default();
                Err(error)
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks for one thing and attends to it until it is done; gives the number of the first process that came back.
    ///
    /// `log` is the directory of its log.
    ///
    /// # Errors
    ///
    /// [`CriuError::Failed`] with the end of its log; what the witness failed with.
    pub fn serve(
        self,
        request: &Request<'_>,
        log: &Path,
        witness: &mut dyn Witness,
    ) -> Result<(i32, OwnedFd), CriuError> {
        let log = log.join(request.kind.log());
        let answered = self.converse(request, &log, witness);
        match answered {
            Ok(pid) => {
                rustix::net::shutdown(&self.channel, rustix::net::Shutdown::Write)
                    .unwrap_or_default();
                process::wait(self.process.as_fd()).map_err(CriuError::kernel("wait for criu"))?;
                Ok((pid, self.channel))
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    fn converse(
        &self,
        request: &Request<'_>,
        log: &Path,
        witness: &mut dyn Witness,
    ) -> Result<i32, CriuError> {
        let channel = self.channel.as_fd();
        socket::send(channel, request.message().bytes())
            .map_err(CriuError::kernel("send a request to criu"))?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, fds) = socket::receive_with(channel, &mut buffer)
                .map_err(CriuError::kernel("hear criu's answer"))?;
            if length == 0 {
                return Err(CriuError::Silent {
                    log: log.to_owned(),
                    quoted: error::quote(log),
                });
            }
            let answer = Answer::read(&buffer[..length]);
            if !answer.success {
                return Err(answer.failure(request.kind, log));
            }
            if answer.kind != NOTIFY {
                return Ok(answer.pid);
            }
            let seen = witness.saw(answer.event(fds));
            let reply = reply(seen.is_ok());
            socket::send(channel, reply.bytes()).map_err(CriuError::kernel("answer criu"))?;
            seen.map_err(CriuError::Witness)?;
        }
    }

    /// Lets a CRIU that failed clean up behind itself: it thaws and kills what it holds when its socket closes.
    fn give_up(self) {
        let Self {
            process, channel, ..
        } = self;
        drop(channel);
        process::wait(process.as_fd()).map(drop).unwrap_or_default();
    }
}

fn receive_channel(from: &OwnedFd) -> Result<OwnedFd, Errno> {
    let (_, mut fds) = socket::receive_with(from.as_fd(), &mut [0; 8])?;
    fds.pop().ok_or(Errno::PIPE)
}

fn reply(success: bool) -> Message {
    let mut reply = Message::default();
    reply.number(1, NOTIFY);
    reply.number(3, u64::from(success));
    reply
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// What CRIU says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    kind: u64,
    success: bool,
    script: String,
    pid: i32,
    errno: i32,
    words: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let mut answer = Self::default();
        for (field, value) in Fields(bytes) {
            match field {
                1 => answer.kind = value.number(),
                2 => answer.success = value.number() != 0,
                4 | 5 => answer.read_part(field, value.bytes()),
                7 => answer.errno = value.pid(),
                9 => answer.words = text(value.bytes()),
                _ => {}
            }
        }
        answer
    }

    /// The parts of an answer that are messages of their own: what was restored, and a notification.
    fn read_part(&mut self, field: u64, bytes: &[u8]) {
        for (inner, value) in Fields(bytes) {
            match (field, inner) {
                (4, 1) | (5, 2) => self.pid = value.pid(),
                (5, 1) => self.script = text(value.bytes()),
                _ => {}
            }
        }
    }

    fn event(&self, mut fds: Vec<OwnedFd>) -> Event {
        match self.script.as_str() {
            "setup-namespaces" => Event::Namespaces(self.pid),
            "post-restore" => Event::Restored(self.pid),
            "status-ready" => Event::Ready,
            "orphan-pts-master" => fds.pop().map_or(Event::Other, Event::Terminal),
            _ => Event::Other,
        }
    }

    fn failure(self, kind: Kind, log: &Path) -> CriuError {
        let words = match (self.words.is_empty(), self.errno) {
            (false, _) => self.words,
            (true, 0) => "no reason given".to_owned(),
            (true, errno) => Errno::from_raw_os_error(errno).to_string(),
        };
        CriuError::Failed {
            kind: kind.word(),
            words,
            log: log.to_owned(),
            quoted: error::quote(log),
        }
    }
}

/// The program file and its environment.
struct Program {
    file: CString,
    environment: Vec<CString>,
}

impl Program {
    fn find() -> Result<Self, CriuError> {
        let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| USUAL_PATH.into());
        let usual = std::env::split_paths(USUAL_PATH).collect::<Vec<PathBuf>>();
        let file = std::env::split_paths(&path)
            .chain(usual)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("criu"))
            // host path: a program of the host's.
            .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
            .ok_or(CriuError::Absent)?;
        let mut environment = vec![[b"PATH=".as_slice(), path.as_bytes()].concat()];
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
        environment.push([b"HOME=".as_slice(), home.as_bytes()].concat());
        let strings = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| CriuError::Absent);
        Ok(Self {
            file: strings(file.as_os_str().as_bytes().to_vec())?,
            environment: environment
                .into_iter()
                .map(strings)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Becomes CRIU, with a socket whose other end is sent away; gives why that failed.
    ///
    /// CRIU looks for the descriptors that a request names in the process that made the socket. So that is this one: it
    /// sees the mounts that CRIU works on.
    fn become_it(&self, parent: &OwnedFd, kept: &[BorrowedFd<'_>]) -> String {
        let channel = socket::pair().and_then(|(ours, theirs)| {
            socket::send_with(parent.as_fd(), b"criu", &[theirs.as_fd()])?;
            process::default_signals()?;
            process::close_on_exec_from(3)?;
            for fd in kept.iter().chain([&ours.as_fd()]) {
                rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(ours)
        });
        let channel = match channel {
            Ok(channel) => channel,
            Err(errno) => return format!("cannot hand descriptors to criu: {errno}"),
        };
        let number = CString::new(channel.as_raw_fd().to_string()).unwrap_or_default();
        let arguments = [c"criu".to_owned(), c"swrk".to_owned(), number];
        let errno = process::execute(&self.file, &arguments, &self.environment);
        format!("cannot run criu: {errno}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let mut notice = Message::default();
        notice.put(1, b"post-restore");
        notice.number(2, 42);
        let mut answer = Message::default();
        answer.number(1, NOTIFY);
        answer.number(2, 1);
        answer.put(5, notice.bytes());
        let read = Answer::read(answer.bytes());
        assert!(matches!(read.event(Vec::new()), Event::Restored(42)));
    }

    #[test]
    fn a_failure_has_the_words_of_criu() {
        let mut answer = Message::default();
        answer.number(1, 1);
        answer.number(7, 3);
        answer.put(9, b"Error (criu/x.c:1): no\n");
        let read = Answer::read(answer.bytes());
        let failure = read.failure(Kind::Dump, Path::new("/no/dump.log"));
        assert_eq!(
            failure.to_string(),
            "criu failed: dump: Error (criu/x.c:1): no; \"/no/dump.log\" ends with: nothing"
        );
    }
}
