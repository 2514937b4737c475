//! The host's half of a conversation with the agent in a guest: one question after the other.

use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::agent::wire;
use crate::agent::wire::Attach;
use crate::agent::wire::Event;
use crate::agent::wire::Request;
use crate::agent::wire::Stream;
use crate::agent::wire::WireError;
use crate::sys::process::Exit;

/// How many bytes the machine's answer to a call may have.
const LONGEST_ANSWER: usize = 64;
/// How many ends of programs are kept for those who will ask: more than run over one connection.
const MOST_EXITS: usize = 1024;

/// Asks the machine behind `socket` for a connection to one of the guest's ports. It waits until the guest is there.
///
/// # Errors
///
/// [`WireError::NoAnswer`] when nobody listens there, or the machine has ended.
pub fn call(mut socket: UnixStream, port: u32) -> Result<UnixStream, WireError> {
    socket.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows the line belongs to the guest.
    while answer.len() < LONGEST_ANSWER && socket.read(&mut byte)? == 1 {
        if byte == *b"\n" {
            break;
        }
        answer.push(byte[0]);
    }
    if answer.starts_with(b"OK") {
        Ok(socket)
    } else {
        Err(WireError::NoAnswer { port })
    }
}

/// Attaches a connection to [`wire::STREAM_PORT`] to one of a session's streams; bytes flow over it from then on.
///
/// # Errors
///
/// [`WireError::OutOfTurn`] when there is no such stream, or it is attached already.
pub fn attach(
    mut connection: UnixStream,
    session: u32,
    stream: Stream,
) -> Result<UnixStream, WireError> {
    let first = Attach {
        version: wire::VERSION,
        session,
        stream,
    };
    wire::send(&mut connection, &first)?;
    match wire::receive(&mut connection)? {
        Some(Event::Done) => Ok(connection),
        Some(_) => Err(WireError::OutOfTurn),
        None => Err(WireError::Closed),
    }
}

/// A connection to [`wire::CONTROL_PORT`].
#[derive(Debug)]
pub struct Client {
    connection: UnixStream,
    kernel: String,
    exits: VecDeque<(u32, Exit)>,
}

impl Client {
    /// Begins the conversation.
    ///
    /// # Errors
    ///
    /// [`WireError::Version`] when the agent is of another build.
    pub fn open(mut connection: UnixStream) -> Result<Self, WireError> {
        let version = wire::VERSION;
        wire::send(&mut connection, &Request::Hello { version })?;
        match wire::receive(&mut connection)? {
            Some(Event::Hello { version, kernel }) if version == wire::VERSION => Ok(Self {
                connection,
                kernel,
                exits: VecDeque::new(),
            }),
            Some(Event::Hello { version, .. }) => Err(WireError::Version { theirs: version }),
            Some(_) => Err(WireError::OutOfTurn),
            None => Err(WireError::Closed),
        }
    }

    /// The guest's kernel, as `uname -r` has it.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// The connection, to poll it or to set time limits.
    #[must_use]
    pub fn connection(&self) -> &UnixStream {
        &self.connection
    }

    /// Asks, and waits for the answer. Ends of programs that are told meanwhile are kept for [`Client::exited`].
    ///
    /// # Errors
    ///
    /// [`WireError`] when there is no answer; that it failed is an answer, [`Event::Failed`].
    pub fn ask(&mut self, request: &Request) -> Result<Event, WireError> {
        wire::send(&self.connection, request)?;
        loop {
            let event = self.next()?;
            match (event, request) {
                (Event::Exited { session, exit }, Request::Wait { session: asked })
                    if session == *asked =>
                {
                    return Ok(Event::Exited { session, exit });
                }
                (Event::Exited { session, exit }, _) => self.keep(session, exit)?,
                (answer, _) => return Ok(answer),
            }
        }
    }

    /// Waits until a program ends that was started over this connection.
    ///
    /// # Errors
    ///
    /// [`WireError::OutOfTurn`] when something else is told, [`WireError::Closed`] when the guest went away.
    pub fn exited(&mut self, session: u32) -> Result<Exit, WireError> {
        if let Some(at) = self.exits.iter().position(|(one, _)| *one == session)
            && let Some((_, exit)) = self.exits.remove(at)
        {
            return Ok(exit);
        }
        loop {
            let Event::Exited { session: one, exit } = self.next()? else {
                return Err(WireError::OutOfTurn);
            };
            if one == session {
                return Ok(exit);
            }
            self.keep(one, exit)?;
        }
    }

    /// Keeps an end for who asks for it; a guest that tells of one after the other would fill the host's memory.
    fn keep(&mut self, session: u32, exit: Exit) -> Result<(), WireError> {
        if self.exits.len() == MOST_EXITS {
            return Err(WireError::OutOfTurn);
        }
        self.exits.push_back((session, exit));
        Ok(())
    }

    fn next(&mut self) -> Result<Event, WireError> {
        wire::receive(&self.connection)?.ok_or(WireError::Closed)
    }
}
