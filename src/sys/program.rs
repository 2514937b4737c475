//! Runs a program to its end: with bytes on its standard input, its output kept, and a time limit.
//!
//! Everything is waited for in one `poll(2)`: a program that reads nothing, writes without end or leaves a daemon behind
//! that keeps its output open cannot make this wait longer than the program itself lives.

use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::Exit;

/// How much output is kept, in bytes: the last of it.
const KEPT: usize = 4096;

/// The first descriptor after the standard streams.
const FIRST: u32 = 3;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its arguments, the zeroth first; empty means the path alone.
    pub arguments: &'a [String],
    /// Its whole environment, `KEY=value`.
    pub environment: &'a [String],
    /// Where it starts; `None` is where this process is.
    pub directory: Option<&'a Path>,
    /// What it reads on its standard input.
    pub input: &'a [u8],
    /// How long it may take.
    pub limit: Option<Duration>,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended; `None` when it took too long and was killed.
    pub exit: Option<Exit>,
    /// The end of what it wrote to standard output and standard error, trimmed.
    pub output: String,
}

/// Runs a program and waits for its end.
///
/// # Errors
///
/// Fails when the program cannot be started, as `execve(2)` does, or not be waited for.
pub fn run(program: &Program<'_>) -> io::Result<Outcome> {
    let (output, output_end) = io::pipe()?;
    let mut command = Command::new(program.path);
    if let Some((zeroth, rest)) = program.arguments.split_first() {
        command.arg0(zeroth).args(rest);
    }
    let pairs = program
        .environment
        .iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    command.env_clear().envs(pairs);
    if let Some(directory) = program.directory {
        command.current_dir(directory);
    }
    command
        .stdin(Stdio::piped())
        .stdout(output_end.try_clone()?)
        .stderr(output_end);
    streams_alone(&mut command);
    // SAFETY: the closure makes one system call and touches no memory that another thread could hold.
    unsafe {
        command.pre_exec(end_with_parent);
    }
    let mut child = command.spawn()?;
    // The command holds the writing ends of the output.
    drop(command);
    let pidfd = process::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let input = child.stdin.take().map(OwnedFd::from);
    Talk::new(input, output.into(), pidfd, program)?.until_end()
}

/// Lets `command` be handed its standard streams and nothing else.
///
/// What this program opens is closed by `execve(2)`; what its caller left open in it is not, and a program in a
/// container that finds a directory of the host open has a way out (CVE-2024-21626).
pub fn streams_alone(command: &mut Command) {
    // SAFETY: the closure makes one system call, which changes flags of descriptors and closes none.
    unsafe {
        command.pre_exec(|| Ok(process::close_on_exec_from(FIRST)?));
    }
}

/// Who kills this process, because the program hangs, means the program too.
fn end_with_parent() -> io::Result<()> {
    let signal = Some(rustix::process::Signal::KILL);
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// The conversation with a running program.
struct Talk<'a> {
    input: Option<OwnedFd>,
    left: &'a [u8],
    output: Option<OwnedFd>,
    kept: Vec<u8>,
    child: OwnedFd,
    deadline: Option<Instant>,
}

impl<'a> Talk<'a> {
    fn new(
        input: Option<OwnedFd>,
        output: OwnedFd,
        child: OwnedFd,
        program: &Program<'a>,
    ) -> io::Result<Self> {
        for fd in input.iter().chain([&output]) {
            rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
        }
        let deadline = program.limit.map(|limit| Instant::now() + limit);
        Ok(Self {
            input,
            left: program.input,
            output: Some(output),
            kept: Vec::new(),
            child,
            deadline,
        })
    }

    fn until_end(mut self) -> io::Result<Outcome> {
        loop {
            self.write();
            self.read();
            if self.ended()? {
                let exit = process::wait(self.child.as_fd())?;
                self.read();
                return Ok(Outcome {
                    exit: Some(exit),
                    output: self.text(),
                });
            }
            if self.deadline.is_some_and(|end| end <= Instant::now()) {
                process::signal(self.child.as_fd(), libc::SIGKILL)?;
                process::wait(self.child.as_fd())?;
                return Ok(Outcome {
                    exit: None,
                    output: self.text(),
                });
            }
        }
    }

    /// Waits for anything to happen; gives whether the program has ended.
    fn ended(&self) -> io::Result<bool> {
        let left = self
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        let left = left
            .map(rustix::time::Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        let mut watched = vec![PollFd::new(&self.child, PollFlags::IN)];
        watched.extend(
            self.input
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::OUT)),
        );
        watched.extend(
            self.output
                .as_ref()
                .map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        match rustix::event::poll(&mut watched, left.as_ref()) {
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(!watched[0].revents().is_empty()),
        }
    }

    /// Passes on as much input as is taken; a program that does not want it may close it.
    fn write(&mut self) {
        let Some(fd) = self.input.take() else { return };
        let mut pipe = std::fs::File::from(fd);
        while !self.left.is_empty() {
            match pipe.write(self.left) {
                Ok(written) => self.left = &self.left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.input = Some(pipe.into());
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Takes what output there is.
    fn read(&mut self) {
        let Some(fd) = self.output.take() else { return };
        let mut pipe = std::fs::File::from(fd);
        let mut buffer = [0; KEPT];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.keep(&buffer[..length]),
                Err(_) => {
                    self.output = Some(pipe.into());
                    return;
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], limit: Option<Duration>) -> Outcome {
        let arguments = ["hook".to_owned(), "-c".to_owned(), script.to_owned()];
        let program = Program {
            path: Path::new("/bin/sh"),
            arguments: &arguments,
            environment: &["A=b".to_owned()],
            directory: Some(Path::new("/")),
            input,
            limit,
        };
        run(&program).unwrap()
    }

    #[test]
    fn a_program_reads_its_input_and_its_words_are_kept() {
        let outcome = shell("cat; echo $0 $A >&2; pwd; exit 3", b"state\n", None);
        assert_eq!(
            outcome,
            Outcome {
                exit: Some(Exit::Status(3)),
                output: "state\nhook b\n/".to_owned()
            }
        );
    }

    #[test]
    fn a_program_that_reads_nothing_is_not_waited_for() {
        let outcome = shell("exit 0", &vec![b'x'; 1 << 20], None);
        assert_eq!(outcome.exit, Some(Exit::Status(0)));
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let outcome = shell("exec sleep 60", b"", Some(Duration::from_millis(50)));
        assert_eq!(outcome.exit, None);
    }

    #[test]
    fn a_daemon_left_behind_with_the_output_open_is_not_waited_for() {
        let before = Instant::now();
        let outcome = shell("sleep 5 & echo done", b"", None);
        assert_eq!(
            outcome,
            Outcome {
                exit: Some(Exit::Status(0)),
                output: "done".to_owned()
            }
        );
        assert!(before.elapsed() < Duration::from_secs(4));
    }
}
