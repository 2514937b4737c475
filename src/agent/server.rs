//! Answers the host: one thread for each connection, one request after the other.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::agent::connection::Writer;
use crate::agent::surroundings;
use crate::agent::wire;
use crate::agent::wire::Attach;
use crate::agent::wire::Create;
use crate::agent::wire::Event;
use crate::agent::wire::Exec;
use crate::agent::wire::Failure;
use crate::agent::wire::Request;
use crate::agent::workspace::Workspace;
use crate::sys::process;

/// Takes connections for ever; `accept` gives the next one, and `serve` is its life.
pub(super) fn listen(
    workspace: &Arc<Workspace>,
    accept: impl Fn() -> io::Result<Option<OwnedFd>>,
    serve: fn(&Arc<Workspace>, UnixStream),
) -> io::Result<()> {
    loop {
        let Some(connection) = accept()? else {
            continue;
        };
        if !workspace.enter() {
            continue;
        }
        let theirs = Arc::clone(workspace);
        let life = move || {
            serve(&theirs, UnixStream::from(connection));
            theirs.leave();
        };
        let thread = std::thread::Builder::new().stack_size(super::STACK);
        if thread.spawn(life).is_err() {
            workspace.leave();
        }
    }
}

/// The life of a connection that attaches to a stream.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a connection ends with its life, as one of `control`'s does"
)]
pub(super) fn stream(workspace: &Arc<Workspace>, connection: UnixStream) {
    let Ok(Some(attach)) = wire::receive::<Attach>(&connection) else {
        return;
    };
    let writer = match connection.try_clone() {
        Ok(copy) => Writer::new(copy),
        Err(_) => return,
    };
    let session = workspace.session(attach.session).ok();
    let session = session.filter(|_| attach.version == wire::VERSION);
    let taken = session.and_then(|session| Some((session.take(attach.stream)?, session)));
    let Some((end, session)) = taken else {
        let words = format!("there is no such stream of program {}", attach.session);
        writer.send(&Event::Failed(Failure::Other(words)));
        return;
    };
    writer.send(&Event::Done);
    session.carry(attach.stream, &end, &connection);
    drop(end);
    session.carried(attach.stream, &connection);
}

/// The life of a connection that asks.
pub(super) fn control(workspace: &Arc<Workspace>, connection: UnixStream) {
    let Ok(copy) = connection.try_clone() else {
        return;
    };
    let mut caller = Caller {
        workspace,
        connection,
        writer: Arc::new(Writer::new(copy)),
        own: Vec::new(),
    };
    caller.converse();
    for session in workspace.sessions() {
        session.unsubscribe(&caller.writer);
    }
    for number in caller.own {
        workspace.forget(number);
    }
}

/// One who asks.
struct Caller<'a> {
    workspace: &'a Arc<Workspace>,
    connection: UnixStream,
    writer: Arc<Writer>,
    /// The programs that end with this connection.
    own: Vec<u32>,
}

impl Caller<'_> {
    fn next(&self) -> Option<Request> {
        match wire::receive(&self.connection) {
            Ok(request) => request,
            Err(error) => {
                self.writer
                    .send(&Event::Failed(Failure::Other(error.to_string())));
                None
            }
        }
    }

    fn converse(&mut self) {
        let Some(Request::Hello { version }) = self.next() else {
            return;
        };
        self.writer.send(&Event::Hello {
            version: wire::VERSION,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        });
        if version != wire::VERSION {
            return;
        }
        while let Some(request) = self.next() {
            match self.answer(request) {
                Ok(Some(event)) => self.writer.send(&event),
                Ok(None) => {}
                Err(failure) => self.writer.send(&Event::Failed(failure)),
            }
        }
    }

    /// Does what is asked; nothing is said now when it has been said, or will be.
    fn answer(&mut self, request: Request) -> Result<Option<Event>, Failure> {
        let workspace = self.workspace;
        match request {
            Request::Hello { .. } | Request::Proceed => {
                return Err(Failure::Other("it is not the time for this".to_owned()));
            }
            Request::Create(wanted) => return self.create(*wanted).map(Some),
            Request::Start => {
                let pid = workspace.start()?;
                let session = wire::WORKLOAD;
                return Ok(Some(Event::Started { session, pid }));
            }
            Request::Exec(wanted) => return self.exec(*wanted).map(|()| None),
            Request::Signal {
                number, all: true, ..
            } => workspace.group().signal(number)?,
            Request::Signal {
                session, number, ..
            } => workspace.session(session)?.signal(number)?,
            Request::IsDeaf { session, number } => {
                let pid = workspace.session(session)?.pid;
                return Ok(Some(Event::Deaf(process::is_deaf_to(pid, number))));
            }
            Request::Resize {
                session,
                rows,
                columns,
            } => workspace.session(session)?.resize(rows, columns)?,
            Request::Wait { session } => {
                let session = workspace.session(session)?;
                session.subscribe(Arc::clone(&self.writer));
                return Ok(None);
            }
            Request::Processes => {
                return Ok(Some(Event::Processes(workspace.group().processes())));
            }
            Request::Usage => return Ok(Some(Event::Usage(workspace.group().usage()))),
            Request::AwaitOutOfMemory { seen } => {
                let kills = workspace.group().out_of_memory(seen, &self.connection)?;
                return Ok(kills.map(|kills| Event::OutOfMemory { kills }));
            }
            Request::Update { limits } => workspace.group().limit(&limits)?,
            Request::SetTime { unix_ns } => surroundings::set_clock(unix_ns)?,
            Request::Shutdown => {
                self.writer.send(&Event::Done);
                workspace.finish();
                return Ok(None);
            }
        }
        Ok(Some(Event::Done))
    }

    fn create(&self, wanted: Create) -> Result<Event, Failure> {
        let hooks = || {
            self.writer.send(&Event::Hooks);
            match self.next() {
                Some(Request::Proceed) => Ok(()),
                _ => Err(Failure::Other("the hooks did not run".to_owned())),
            }
        };
        let pid = self.workspace.create(wanted, hooks)?;
        Ok(Event::Created { pid })
    }

    /// The end of the program is told after that it runs, however short it is.
    fn exec(&mut self, wanted: Exec) -> Result<(), Failure> {
        let session = self.workspace.exec(wanted)?;
        self.own.push(session.number);
        self.writer.send(&Event::Started {
            session: session.number,
            pid: session.pid,
        });
        session.subscribe(Arc::clone(&self.writer));
        Ok(())
    }
}
