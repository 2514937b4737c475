//! What the host and the agent in a guest say to each other: the words, and how they are put into bytes.
//!
//! A frame is a length (four bytes, little endian, at most [`LONGEST`]) and that many bytes of JSON. A connection to
//! [`CONTROL_PORT`] begins with [`Request::Hello`]; then each request is answered by one event, in order. The only event
//! that comes unasked is [`Event::Exited`], for programs that were started over the same connection. A connection to
//! [`STREAM_PORT`] begins with one [`Attach`], is answered by one event, and carries bytes from then on.
//!
//! Neither side trusts the other: what is too long, not of this version, or not what comes next ends the connection.

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::plan::Plan;
use crate::plan::ProcessPlan;
use crate::plan::cgroup::device::DeviceFilter;
use crate::sys::process::Exit;

/// The version of this protocol; both sides must have the same.
pub const VERSION: u32 = 2;
/// The port of the guest that takes requests.
pub const CONTROL_PORT: u32 = 1024;
/// The port of the guest that takes standard streams and terminals.
pub const STREAM_PORT: u32 = 1025;
/// The port of the host that the agent connects to once it listens.
pub const HELLO_PORT: u32 = 1;
/// The most that one frame may hold, in bytes.
pub const LONGEST: usize = 16 << 20;
/// The session of the workspace's own program; those of `exec` are counted on from here.
pub const WORKLOAD: u32 = 0;

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// The first on each connection; answered by [`Event::Hello`].
    Hello {
        /// The protocol that the host speaks.
        version: u32,
    },
    /// Build the workspace; answered by [`Event::Hooks`] if the plan waits for them, and by [`Event::Created`].
    Create(Box<Create>),
    /// The runtime's hooks have run; answered by [`Event::Created`].
    Proceed,
    /// Start the workspace's program; answered by [`Event::Started`].
    Start,
    /// Run one more program; answered by [`Event::Started`] and later by [`Event::Exited`]. When the connection ends
    /// first, the program is killed.
    Exec(Box<Exec>),
    /// Send a signal; answered by [`Event::Done`].
    Signal {
        /// To whose program.
        session: u32,
        /// Its number, real-time signals included.
        number: i32,
        /// To every process of the workspace.
        all: bool,
    },
    /// Say whether the guest's kernel keeps a signal from a program that has not asked for it; answered by
    /// [`Event::Deaf`].
    IsDeaf {
        /// Which.
        session: u32,
        /// The signal's number.
        number: i32,
    },
    /// Set the size of a terminal; answered by [`Event::Done`].
    Resize {
        /// Whose.
        session: u32,
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// Wait for the end of a program whose output has been taken; answered by [`Event::Exited`].
    Wait {
        /// Which.
        session: u32,
    },
    /// List the workspace's processes; answered by [`Event::Processes`].
    Processes,
    /// Say what the guest finds about itself; answered by [`Event::Usage`]. It is never the bill.
    Usage,
    /// Wait until the guest's kernel has ended a process of the workspace because memory was short; answered by
    /// [`Event::OutOfMemory`].
    AwaitOutOfMemory {
        /// How often that is known already.
        seen: u64,
    },
    /// Write limits of the workspace's cgroup inside; answered by [`Event::Done`].
    Update {
        /// In this order.
        limits: Vec<Limit>,
    },
    /// Set the clock; answered by [`Event::Done`].
    SetTime {
        /// Nanoseconds since 1970, in UTC.
        unix_ns: u64,
    },
    /// End everything and switch the machine off; answered by [`Event::Done`].
    Shutdown,
}

/// A workspace and what it finds in its machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What is done in the guest.
    pub plan: Plan,
    /// Where the program's standard streams go.
    pub streams: Streams,
    /// Disks that are mounted before the plan is done.
    pub disks: Vec<Disk>,
    /// Network interfaces, loopback aside.
    pub interfaces: Vec<Interface>,
    /// Parameters of the network, by their paths below `/proc/sys`: set when the interfaces are there.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the workspace's cgroup inside.
    pub limits: Vec<Limit>,
    /// Which devices of the machine its programs may open.
    pub devices: DeviceFilter,
    /// Nanoseconds since 1970, in UTC; 0 leaves the clock alone.
    pub unix_ns: u64,
    /// Bytes that the guest's random numbers are mixed with.
    pub seed: Vec<u8>,
}

/// One more program for a workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// What is done in the guest.
    pub plan: ProcessPlan,
    /// Where the program's standard streams go.
    pub streams: Streams,
}

/// Where a program's standard streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Streams {
    /// To the terminal that the plan makes.
    Terminal,
    /// Each to a pipe.
    Pipes {
        /// Whether [`Stream::Input`] will be attached; otherwise there is nothing to read.
        input: bool,
        /// Standard output.
        output: Output,
        /// Standard error.
        error: Output,
    },
}

impl Default for Streams {
    fn default() -> Self {
        Self::Pipes {
            input: false,
            output: Output::Nowhere,
            error: Output::Nowhere,
        }
    }
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Output {
    /// It is thrown away.
    Nowhere,
    /// Over a connection of its own, which must be attached before the program counts as ended.
    Stream,
    /// Together with standard output, so that their order is kept.
    WithOutput,
}

/// One of the streams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Stream {
    /// Standard input: bytes go in; the end of the connection is the end of the input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
    /// The terminal, both ways.
    Terminal,
}

/// The first frame of a connection to [`STREAM_PORT`]; answered by [`Event::Done`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The protocol that the host speaks.
    pub version: u32,
    /// Whose stream.
    pub session: u32,
    /// Which.
    pub stream: Stream,
}

/// A disk of the machine, and where it is mounted in the guest before the plan is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The device, `/dev/vda`.
    pub device: PathBuf,
    /// The type of its file system, as in `/proc/filesystems`.
    pub kind: String,
    /// The directory, which is made.
    pub at: PathBuf,
    /// Whether nothing may be written to it.
    pub read_only: bool,
    /// Further options of the file system, as `mount(8)` takes them.
    pub options: String,
}

/// A network interface of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// What it is called: it is renamed to this.
    pub name: String,
    /// Its hardware address, by which it is found; all zeros: it is the only one.
    pub mac: [u8; 6],
    /// The largest packet; 0 leaves it alone.
    pub mtu: u32,
    /// Its addresses, each with the length of its network.
    pub addresses: Vec<IpNet>,
    /// Routes through it, in this order.
    pub routes: Vec<Route>,
}

/// A route through an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// To where; a length of 0 is the default.
    pub to: IpNet,
    /// Through which neighbour; `None` means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that packets are sent from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Smaller is preferred; 0 leaves it to the kernel.
    pub metric: u32,
}

/// A limit of the workspace's cgroup inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The file: `memory.max`.
    pub file: String,
    /// What is written.
    pub value: String,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Event {
    /// The connection is open.
    Hello {
        /// The protocol that the agent speaks.
        version: u32,
        /// The guest's kernel, as `uname -r` has it.
        kernel: String,
    },
    /// The workspace waits for the hooks of the runtime's side, and for [`Request::Proceed`].
    Hooks,
    /// The workspace stands.
    Created {
        /// Its first process, as the guest counts.
        pid: i32,
    },
    /// A program runs.
    Started {
        /// How it is called from now on.
        session: u32,
        /// Its number, as the guest counts.
        pid: i32,
    },
    /// A program has ended, and its output has been taken.
    Exited {
        /// Which.
        session: u32,
        /// How.
        exit: Exit,
    },
    /// The workspace's processes.
    Processes(Vec<Process>),
    /// What the guest finds about itself.
    Usage(Usage),
    /// Memory was short.
    OutOfMemory {
        /// How often the guest's kernel has ended a process of the workspace for it, all in all.
        kills: u64,
    },
    /// Whether a program is kept from a signal.
    Deaf(bool),
    /// It is done.
    Done,
    /// It failed.
    Failed(Failure),
}

/// A process of the workspace, as the guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// That of its parent.
    pub parent: i32,
    /// Its user.
    pub uid: u32,
    /// The state letter: `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// When it was started, in milliseconds since the guest's boot.
    pub started_ms: u64,
    /// How long it has run, in milliseconds of processor time.
    pub cpu_ms: u64,
    /// What it holds of the guest's memory, in bytes.
    pub resident_bytes: u64,
    /// Its name.
    pub name: String,
    /// Its arguments; empty for what has none.
    pub arguments: Vec<String>,
}

/// What the guest finds about itself: to look into, never to bill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Milliseconds since the guest's boot.
    pub uptime_ms: u64,
    /// All memory that the guest's kernel has, in bytes.
    pub memory_total_bytes: u64,
    /// What could be had of it, in bytes.
    pub memory_available_bytes: u64,
    /// What the workspace uses of it, in bytes.
    pub memory_bytes: u64,
    /// How often the guest's kernel ended a process of the workspace because memory was short.
    pub oom_kills: u64,
    /// How long the workspace has run, in microseconds of processor time.
    pub cpu_us: u64,
    /// The workspace's processes and threads.
    pub tasks: u64,
}

/// Why something was not done: enough to say it in the words that a container would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Failure {
    /// A step of the plan failed.
    Step {
        /// Which, counted from 0; [`u32::MAX`] for what comes before the first.
        index: u32,
        /// The kernel's error number.
        errno: i32,
        /// The number of [`crate::init::report::Reason`].
        reason: u16,
        /// Words of a third party.
        detail: String,
    },
    /// The process ended before its program was reached.
    Died(Exit),
    /// The kernel refused something.
    Kernel {
        /// What was to be done, after "cannot".
        what: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// Something else, in words.
    Other(String),
}

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed.
    #[error("the connection to the guest's agent failed")]
    Connection(#[from] io::Error),
    /// The other side went away in the middle of it.
    #[error("the other side of the connection to the guest's agent went away")]
    Closed,
    /// A frame is longer than any may be.
    #[error("a message of {length} bytes is longer than {LONGEST}")]
    TooLong {
        /// How long it would be.
        length: usize,
    },
    /// A frame holds something that this version does not know.
    #[error("a message is not of this version of the protocol")]
    Malformed(#[source] serde_json::Error),
    /// The other side speaks another version.
    #[error(
        "the guest's agent speaks version {theirs} of the protocol, and this program version {VERSION}; build the guest anew with: make guest"
    )]
    Version {
        /// Theirs.
        theirs: u32,
    },
    /// Nobody takes connections to that port of the guest.
    #[error("the guest does not answer at port {port}")]
    NoAnswer {
        /// Which.
        port: u32,
    },
    /// It was not the turn of what came.
    #[error("the guest's agent answered out of turn")]
    OutOfTurn,
}

/// Writes one frame.
///
/// # Errors
///
/// [`WireError::TooLong`] before anything is written; [`WireError::Connection`] as `write(2)` does.
pub fn send(mut to: impl Write, message: &impl Serialize) -> Result<(), WireError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(WireError::Malformed)?;
    let length = bytes.len() - 4;
    let known = u32::try_from(length).ok().filter(|_| length <= LONGEST);
    let known = known.ok_or(WireError::TooLong { length })?;
    bytes[..4].copy_from_slice(&known.to_le_bytes());
    Ok(to.write_all(&bytes)?)
}

/// Reads one frame; `None` when the other side has closed the connection before its first byte.
///
/// # Errors
///
/// [`WireError::TooLong`] without reading further, [`WireError::Malformed`], [`WireError::Closed`] in the middle, and
/// [`WireError::Connection`] as `read(2)` does.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> Result<Option<T>, WireError> {
    let mut head = [0; 4];
    if !read_whole(&mut from, &mut head)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST {
        return Err(WireError::TooLong { length });
    }
    // Memory is taken as bytes arrive, not as they are announced.
    let mut bytes = Vec::new();
    let taken = from.take(length as u64).read_to_end(&mut bytes)?;
    if taken < length {
        return Err(WireError::Closed);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(WireError::Malformed)
}

/// Fills `bytes`; `false` when there was not even a first one.
fn read_whole(from: &mut impl Read, bytes: &mut [u8]) -> Result<bool, WireError> {
    let mut filled = 0;
    while filled < bytes.len() {
        match from.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(WireError::Closed),
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_le_bytes(), text].concat()
    }

    fn request(bytes: &[u8]) -> Result<Option<Request>, WireError> {
        receive(bytes)
    }

    #[test]
    fn frames_follow_each_other() {
        let sent = [
            Request::Start,
            Request::Wait { session: 7 },
            Request::IsDeaf {
                session: 0,
                number: 15,
            },
            Request::Processes,
        ];
        let mut bytes = Vec::new();
        for one in &sent {
            send(&mut bytes, one).unwrap();
        }
        let mut rest = bytes.as_slice();
        for one in sent {
            assert_eq!(receive(&mut rest).unwrap(), Some(one));
        }
        assert_eq!(receive::<Request>(&mut rest).unwrap(), None);
    }

    #[test]
    fn every_truncation_is_noticed() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Request::Hello { version: VERSION }).unwrap();
        for length in 1..bytes.len() {
            let cut = request(&bytes[..length]);
            assert!(matches!(cut, Err(WireError::Closed)), "{length}: {cut:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let head = u32::try_from(LONGEST + 1).unwrap().to_le_bytes();
        let mut never = io::repeat(b' ');
        let refused = receive::<Request>(head.as_slice().chain(&mut never));
        assert!(matches!(refused, Err(WireError::TooLong { .. })));
        let long = Failure::Other("x".repeat(LONGEST));
        let mut nothing = Vec::new();
        assert!(matches!(
            send(&mut nothing, &long),
            Err(WireError::TooLong { .. })
        ));
        assert_eq!(nothing, Vec::<u8>::new());
    }

    #[test]
    fn what_this_version_does_not_know_is_refused() {
        for text in [
            &br#""Dance""#[..],
            br#"{"Dance":{"steps":3}}"#,
            br#"{"Wait":{"session":0,"politely":true}}"#,
            br#"{"Wait":{}}"#,
            br#"{"Wait":{"session":-1}}"#,
            br#"{"Wait":{"session":4294967296}}"#,
            br#"{"Wait":{"session":0},"Start":null}"#,
            br#""Start" "Start""#,
            b"",
            b"\xff\xfe",
            b"[[[[",
        ] {
            let refused = request(&frame(text));
            assert!(
                matches!(refused, Err(WireError::Malformed(_))),
                "{}: {refused:?}",
                String::from_utf8_lossy(text)
            );
        }
    }
}
