//! Passes signals that the host's process gets on to the program in the guest.

use std::thread;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::agent::client::Client;
use crate::agent::wire::Request;
use crate::backend::BackendError;
use crate::backend::microvm::terminal;
use crate::sys::Errno;
use crate::sys::signal::Signals;

/// The stack of the thread that passes them on, in bytes.
const STACK: usize = 64 << 10;

/// Passes on what arrives from now on, and the size of this process's terminal when that changes.
pub(super) fn pass_on(
    signals: Signals,
    agent: Client,
    session: u32,
    terminal: bool,
) -> Result<(), BackendError> {
    let passing = Passing {
        signals,
        agent,
        session,
        terminal,
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || passing.run())
        .map(drop)
        .map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            BackendError::kernel("pass signals on")(errno)
        })
}

struct Passing {
    signals: Signals,
    agent: Client,
    session: u32,
    terminal: bool,
}

impl Passing {
    /// Until the agent does not answer any more, and then nobody is there to be told.
    fn run(mut self) {
        if self.terminal {
            self.resize();
        }
        loop {
            let mut watched = [PollFd::new(&self.signals, PollFlags::IN)];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if !self.pass_all() {
                return;
            }
        }
    }

    /// Passes on all that has arrived, for as long as the agent answers; says whether it still does.
    fn pass_all(&mut self) -> bool {
        while let Ok(Some(number)) = self.signals.next() {
            if !self.pass(number) {
                return false;
            }
        }
        true
    }

    fn pass(&mut self, number: i32) -> bool {
        match number {
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => true,
            libc::SIGWINCH if self.terminal => self.resize(),
            number => {
                let session = self.session;
                let sent = self.agent.ask(&Request::Signal {
                    session,
                    number,
                    all: false,
                });
                sent.is_ok()
            }
        }
    }

    fn resize(&mut self) -> bool {
        let Some((rows, columns)) = terminal::size().filter(|size| *size != (0, 0)) else {
            return true;
        };
        let session = self.session;
        let resized = self.agent.ask(&Request::Resize {
            session,
            rows,
            columns,
        });
        resized.is_ok()
    }
}
