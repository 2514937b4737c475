//! Short conversations with the agent of a machine that runs.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::agent::client;
use crate::agent::client::Client;
use crate::agent::wire;
use crate::agent::wire::Event;
use crate::agent::wire::Limit;
use crate::agent::wire::Request;
use crate::agent::wire::Stream;
use crate::agent::wire::WireError;
use crate::backend::BackendError;
use crate::backend::distant;
use crate::backend::microvm::SOCKET;
use crate::plan::machine::GuestLimits;
use crate::plan::step::Step;
use crate::sys::socket;

/// How long the agent of a machine that has been made may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take where a moment later the answer is of no use.
const SOON: Duration = Duration::from_millis(500);

/// How long a kernel may take from its first instruction to its agent.
pub(super) const BOOT: Duration = Duration::from_secs(180);

/// A connection to the machine of the workspace whose directory is `home`.
pub(super) fn connect(home: BorrowedFd<'_>) -> Result<UnixStream, BackendError> {
    socket::connect_stream_in(home, SOCKET)
        .map(UnixStream::from)
        .map_err(BackendError::kernel("reach the machine"))
}

/// Begins a conversation; the agent must answer within `patience`.
pub(super) fn open(home: BorrowedFd<'_>, patience: Duration) -> Result<Client, BackendError> {
    let begun = || {
        let socket = connect(home)?;
        let limited = socket.set_read_timeout(Some(patience));
        limited.map_err(|error| failed(&error.into()))?;
        let connection =
            client::call(socket, wire::CONTROL_PORT).map_err(|error| failed(&error))?;
        Client::open(connection).map_err(|error| failed(&error))
    };
    let client = begun()?;
    // From here on it may wait for the end of a program.
    let unlimited = client.connection().set_read_timeout(None);
    unlimited.map_err(|error| failed(&error.into()))?;
    Ok(client)
}

/// Asks one thing of the machine of a workspace.
pub(super) fn ask(home: BorrowedFd<'_>, request: &Request) -> Result<Event, BackendError> {
    ask_within(PATIENCE, home, request)
}

/// Asks one thing of it that is not worth a wait.
pub(super) fn ask_soon(home: BorrowedFd<'_>, request: &Request) -> Result<Event, BackendError> {
    ask_within(SOON, home, request)
}

fn ask_within(
    patience: Duration,
    home: BorrowedFd<'_>,
    request: &Request,
) -> Result<Event, BackendError> {
    let mut client = open(home, patience)?;
    let limited = client.connection().set_read_timeout(Some(patience));
    limited.map_err(|error| failed(&error.into()))?;
    answered(client.ask(request), &[])
}

/// Asks one thing of it that may be long in coming.
pub(super) fn wait_for(home: BorrowedFd<'_>, request: &Request) -> Result<Event, BackendError> {
    answered(open(home, PATIENCE)?.ask(request), &[])
}

/// Orders one thing of it.
pub(super) fn order(home: BorrowedFd<'_>, request: &Request) -> Result<(), BackendError> {
    let Event::Done = ask(home, request)? else {
        return Err(BackendError::OutOfTurn);
    };
    Ok(())
}

/// An answer, unless it is that it failed; `steps` are those that it was asked to take.
pub(super) fn answered(
    answer: Result<Event, WireError>,
    steps: &[Step],
) -> Result<Event, BackendError> {
    match answer {
        Ok(Event::Failed(failure)) => Err(distant::understand(failure, steps)),
        Ok(event) => Ok(event),
        Err(error) => Err(failed(&error)),
    }
}

/// A connection that carries a stream of a session.
pub(super) fn attach(
    home: BorrowedFd<'_>,
    session: u32,
    stream: Stream,
) -> Result<UnixStream, BackendError> {
    let socket = connect(home)?;
    client::call(socket, wire::STREAM_PORT)
        .and_then(|connection| client::attach(connection, session, stream))
        .map_err(|error| failed(&error))
}

/// Says that a conversation failed, and why.
pub(super) fn failed(error: &WireError) -> BackendError {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        words = format!("{words}: {deeper}");
        cause = deeper.source();
    }
    BackendError::Machine(words)
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

/// Limits as the agent writes them; those that are lifted too when there may be older ones.
pub(super) fn limits(inside: GuestLimits, lifted: bool) -> Vec<Limit> {
    let files = [
        ("memory.high", inside.high_bytes),
        ("memory.max", inside.memory_bytes),
        ("pids.max", inside.pids),
    ];
    let set = files
        .into_iter()
        .filter(|(_, value)| lifted || value.is_some());
    let set = set.map(|(file, value)| Limit {
        file: file.to_owned(),
        value: value.map_or_else(|| "max".to_owned(), |value| value.to_string()),
    });
    let whole = (lifted || inside.ends_whole).then(|| Limit {
        file: "memory.oom.group".to_owned(),
        value: u8::from(inside.ends_whole).to_string(),
    });
    set.chain(whole).collect()
}
