//! What runs inside a machine: its first process, and what it and the host say to each other.
//!
//! The agent is a runtime in a place of its own: what it is sent is a plan, and a container is made of it by the code
//! that makes one on the host. So a spec means the same behind both walls.

pub mod client;
pub mod wire;

mod boot;
mod connection;
mod group;
mod maker;
mod modules;
mod network;
mod pump;
mod reaper;
mod server;
mod session;
mod surroundings;
mod workspace;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use crate::sys::signal::Signals;
use crate::sys::socket;
use crate::sys::vsock;

use self::group::Group;
use self::reaper::Reaper;
use self::workspace::Workspace;

/// The stack of each thread, in bytes.
const STACK: usize = 256 << 10;
/// How many connections there may be at once.
const MOST_CONNECTIONS: usize = 256;
/// The word with which it runs beside others, on sockets in a directory: for tests.
const SERVE: &str = "@serve";
/// How the kernel shows a message whatever it was told to keep to itself.
const URGENT: &str = "<0>";

/// The life of the agent: as the first process of a machine, as a maker of one program, or beside others.
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::process::abort_on_panic();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let own = words.drain(..words.len().min(1)).next().unwrap_or_default();
    let first = words.first().and_then(|word| word.to_str());
    let lived = match first {
        _ if Path::new(&own).ends_with(modules::PROGRAM) => modules::load_asked(&words),
        Some(maker::WORD) => maker::run(),
        Some(SERVE) => beside(&words),
        _ if std::process::id() == 1 => alone(),
        _ => Err(anyhow::anyhow!(
            "this is the first process of a machine; it is started by its kernel"
        )),
    };
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cry(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what went wrong where somebody may see it: in the kernel's log, which the machine's serial line shows.
fn cry(words: &str) {
    use std::io::Write;
    let line = format!("{URGENT}bulkhead-agent: {words}\n");
    let log = std::fs::OpenOptions::new().write(true).open("/dev/kmsg");
    let logged =
        std::process::id() == 1 && log.is_ok_and(|mut log| log.write_all(line.as_bytes()).is_ok());
    if !logged {
        let plain = line.trim_start_matches(URGENT);
        // Nobody is left to tell.
        io::stderr().write_all(plain.as_bytes()).unwrap_or_default();
    }
}

/// The first process of a machine. When it ends, the kernel does.
fn alone() -> anyhow::Result<()> {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |why| {
        cry(&why.to_string());
        usual(why);
    }));
    let group = boot::set_up()?;
    let control = vsock::listen(wire::CONTROL_PORT).context("listen for requests")?;
    let streams = vsock::listen(wire::STREAM_PORT).context("listen for streams")?;
    let accept = |listener: &OwnedFd| {
        let (connection, peer) = vsock::accept(listener.as_fd())?;
        // Programs of the workspace could connect as well.
        Ok((peer.cid == vsock::HOST).then_some(connection))
    };
    let workspace = serve(group, true, [control, streams], accept)?;
    // The host knows by this that it is time to call; it has nothing to say.
    let _hello = vsock::connect(vsock::HOST, wire::HELLO_PORT).context("greet the host")?;
    modules::load_drivers()?;
    workspace.finished();
    let errno = boot::switch_off(workspace.group());
    anyhow::bail!("cannot switch the machine off: {errno}")
}

/// Beside others, in a directory of the cgroup file system, without touching anything else.
fn beside(words: &[OsString]) -> anyhow::Result<()> {
    let [_, directory, cgroup] = words else {
        anyhow::bail!("{SERVE} DIRECTORY CGROUP");
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let made = Group::make(Path::new(cgroup));
    let group = made.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    let home = std::fs::File::open(directory)?;
    let control = socket::listen_stream(home.as_fd(), "control")?;
    let streams = socket::listen_stream(home.as_fd(), "streams")?;
    let accept = |listener: &OwnedFd| Ok(Some(socket::accept(listener.as_fd())?));
    let workspace = serve(group, false, [control, streams], accept)?;
    workspace.finished();
    Ok(())
}

/// Begins to answer.
fn serve(
    group: Group,
    whole: bool,
    listeners: [OwnedFd; 2],
    accept: fn(&OwnedFd) -> io::Result<Option<OwnedFd>>,
) -> anyhow::Result<Arc<Workspace>> {
    // Before there are threads, which have the mask of this one.
    let signals = Signals::hold()?;
    let reaper = Arc::new(Reaper::default());
    let workspace = Arc::new(Workspace::new(group, Arc::clone(&reaper), whole));
    begin("reaper", move || Ok(reaper.run(&signals)?))?;
    let [control, streams] = listeners;
    let theirs = Arc::clone(&workspace);
    begin("control", move || {
        server::listen(&theirs, || accept(&control), server::control)
    })?;
    let theirs = Arc::clone(&workspace);
    begin("streams", move || {
        server::listen(&theirs, || accept(&streams), server::stream)
    })?;
    Ok(workspace)
}

/// Begins a thread without which nothing works; when it fails, everything ends.
fn begin(
    name: &'static str,
    life: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK);
    let whole = move || {
        if let Err(error) = life() {
            cry(&format!("{name}: {error}"));
            std::process::abort();
        }
    };
    thread.spawn(whole).map(drop).context("begin a thread")
}
