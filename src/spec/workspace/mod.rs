//! The workspace document: what a person or a site writes to have a workspace, and the bundle that it compiles to.
//!
//! A document is TOML, or JSON with the same keys (`runtime-spec/workspace.md`, field by field). Reading it gives a
//! [`Document`] that means something, or a [`DocumentError`] with file, line and key. Compiling gives a plain OCI
//! configuration: what OCI can say is said in OCI, the rest in annotations that [`crate::spec::asked`] reads.
//!
//! Nothing here looks at a disk or a kernel: what the document depends on comes in as [`Surroundings`].

mod amount;
mod annotations;
mod check;
mod compile;
mod error;
mod parse;
mod reader;
mod resources;
mod schema;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

pub use amount::Addresses;
pub use amount::Bits;
pub use amount::Bytes;
pub use amount::Cpus;
pub use amount::Port;
pub use amount::Span;
pub use amount::Who;
pub use error::DocumentError;
pub use error::Problem;
pub use schema::schema;

use self::error::Fault;
use super::absent::is_default;
use super::asked::Expiry;
use super::asked::Isolation;
use super::asked::Layer;
use super::asked::OverLimit;
use super::id::ContainerId;
use super::image::ImageDefaults;

/// Which language a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON with the same keys.
    Json,
}

impl Format {
    /// The language of a text: no TOML begins with a brace, and all JSON that can be a document does.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.trim_start().starts_with('{') {
            true => Self::Json,
            false => Self::Toml,
        }
    }
}

/// A workspace as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The workspace's name, an id of at most 64 bytes: letters, digits, `_`, `+`, `-` and dots.
    #[schemars(
        with = "String",
        length(max = 64),
        regex(pattern = r"^[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*$")
    )]
    pub name: ContainerId,
    /// Which wall it is put behind. `--isolation` on the command line wins; without either it is `container`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What becomes `/`: a directory, relative to the document, or an OCI image.
    #[schemars(length(min = 1))]
    pub rootfs: String,
    /// Whether nothing in it may be changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub readonly: bool,
    /// The program and its arguments; where an image is the root it may have one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    /// Variables of the environment, beside `PATH` and those of the image.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, String>,
    /// Where the program starts, absolute inside; the image's directory or `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/"))]
    pub cwd: Option<PathBuf>,
    /// Who it runs as; the image's user or `0:0` when absent. A group that is not given is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Who>,
    /// The host name inside; the workspace's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[a-zA-Z0-9_+.-]+$"))]
    pub hostname: Option<String>,
    /// How many processes and threads there may be; absent means as many as the host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pids: Option<u64>,
    /// Free words for other tools. Those that begin with `dev.bulkhead.` have keys of their own here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Files and directories of the host that are seen inside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mount: Vec<Mount>,
    /// Processor time, in CPUs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu: Cpu,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: Memory,
    /// The block device of the root filesystem.
    #[serde(default, skip_serializing_if = "is_default")]
    pub io: Io,
    /// The network; absent means nothing but loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// For how long it is granted; absent means for as long as it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The machine of a workspace behind the wall `microvm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Where all of this was read.
    #[serde(skip)]
    #[schemars(skip)]
    pub origin: Origin,
}

/// The file of a document and the lines of its keys. It is no part of what the document says: all origins are equal.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    file: String,
    lines: BTreeMap<String, usize>,
}

impl PartialEq for Origin {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// A file or directory of the host that is seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is shown, relative to the document.
    #[schemars(length(min = 1))]
    pub source: PathBuf,
    /// Where, absolute inside.
    #[schemars(regex(pattern = "^/."))]
    pub target: PathBuf,
    /// Whether it may be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
}

/// Whether a mount may be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It may.
    #[default]
    Rw,
    /// It may not, nor what is mounted below it.
    Ro,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Guaranteed: checked against all workspaces of the host before it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Cpus>,
    /// Its part of what is left, relative to that of others; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub share: Option<u64>,
    /// Never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Cpus>,
    /// How far the limit may be passed for a moment, out of time that was left unused before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Cpus>,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Guaranteed: checked against all workspaces of the host before it is made, and not reclaimed for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Bytes>,
    /// From here on it is slowed down and its memory reclaimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<Bytes>,
    /// Never more, swap included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
    /// What happens when it needs more than the limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_over_limit: OverLimit,
}

/// The block device of the root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Its part of the device when others want it too, relative to theirs; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000))]
    pub reserve_weight: Option<u16>,
    /// What is read from it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read: Flow,
    /// What is written to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub write: Flow,
}

/// One direction of a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Never more bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<Bytes>,
    /// Never more operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub iops: Option<u64>,
    /// Bytes per second that are guaranteed, where the host's administrator says what the device can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Bytes>,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The bridge that it is on, shared with all who name it; or `none`, `host`, or the path of a network namespace.
    #[serde(default = "default_bridge")]
    #[schemars(regex(pattern = "^(/.+|[a-zA-Z0-9_-]{1,32})$"))]
    pub bridge: String,
    /// The addresses it must have; `auto` takes the next free ones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Addresses,
    /// Ports of the host that lead to ports of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish: Vec<Port>,
    /// The largest packet, where it is not the bridge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 65_535))]
    pub mtu: Option<u32>,
    /// What it receives, in bits per second.
    #[serde(rename = "in", default, skip_serializing_if = "is_default")]
    pub inward: Rate,
    /// What it sends, in bits per second.
    #[serde(rename = "out", default, skip_serializing_if = "is_default")]
    pub outward: Rate,
}

fn default_bridge() -> String {
    "default".to_owned()
}

impl Default for Network {
    fn default() -> Self {
        Self {
            bridge: default_bridge(),
            address: Addresses::default(),
            publish: Vec::new(),
            mtu: None,
            inward: Rate::default(),
            outward: Rate::default(),
        }
    }
}

/// One direction of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Guaranteed: checked against all workspaces on the bridge before it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Bits>,
    /// Never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bits>,
}

/// For how long a workspace is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// From its start on.
    pub ttl: Span,
    /// What becomes of it then.
    #[serde(
        default,
        deserialize_with = "check::expiry",
        skip_serializing_if = "is_default"
    )]
    pub on_expiry: Expiry,
}

/// The machine of a workspace behind the wall `microvm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// How many processors it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: Option<u32>,
    /// What boots in it: `default`, a guest of this host by its name, or a kernel image by its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub kernel: Option<String>,
    /// Whether its memory is made of huge pages of 2 MiB, which the host must have set aside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hugepages: bool,
}

/// All that a document's meaning depends on beside the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The directory of the document, absolute: what it names is relative to it.
    pub base: PathBuf,
    /// The root filesystem, absolute: the directory that was named, or the one that the image is unpacked in.
    pub rootfs: PathBuf,
    /// What the image says of its program, its user in numbers.
    pub image: Option<ImageDefaults>,
    /// The writable layer above the root filesystem.
    pub layer: Option<Layer>,
    /// The block device of the root filesystem, major and minor number, for its rates.
    pub device: Option<(i64, i64)>,
    /// The wall that the command line names; it wins over the document.
    pub isolation: Option<Isolation>,
}

impl Document {
    /// Reads a document and checks what it says.
    ///
    /// `file` is the name that errors begin with.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for the first thing that is wrong, by its place in the text; what only contradicts itself
    /// (a reserve above its limit) is looked at after all could be read.
    pub fn read(text: &str, format: Format, file: &str) -> Result<Self, DocumentError> {
        let placed = |fault: Fault| fault.in_text(text, file);
        let tree = match format {
            Format::Toml => parse::toml(text),
            Format::Json => parse::json(text),
        };
        let tree = tree.map_err(placed)?;
        let mut document =
            Self::deserialize(&tree).map_err(|fault| placed(fault.not_of_a_table()))?;
        let places = tree.places().into_iter();
        let lines = tree::Lines::of(text);
        document.origin = Origin {
            file: file.to_owned(),
            lines: places
                .map(|(key, offset)| (key, lines.at(offset)))
                .collect(),
        };
        document
            .check()
            .map_err(|fault| document.origin.place(fault))?;
        Ok(document)
    }

    /// The file and the line of a key, as errors begin.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        let error = self.refusal(key, String::new());
        match error.line {
            Some(line) => format!("{}:{line}", error.file),
            None => error.file,
        }
    }

    /// A document in which a key has a meaning that something outside of it forbids, such as a missing directory.
    #[must_use]
    pub fn refusal(&self, key: &str, text: impl Into<String>) -> DocumentError {
        self.origin.place(Fault::meaning(key, text))
    }
}

impl Origin {
    /// A fault with the file and line of its key, or of the nearest one above it that stands there.
    fn place(&self, fault: Fault) -> DocumentError {
        let mut key = fault.key.as_str();
        let mut line = self.lines.get(key);
        while line.is_none() && !key.is_empty() {
            key = &key[..key.rfind(['.', '[']).unwrap_or(0)];
            line = self.lines.get(key);
        }
        DocumentError {
            file: self.file.clone(),
            line: line.copied(),
            key: fault.key,
            problem: fault.problem,
        }
    }
}

/// Keys that belong to no table. In TOML they must stand above the first one.
const PLAIN: [&str; 11] = [
    "annotations",
    "command",
    "cwd",
    "env",
    "hostname",
    "isolation",
    "name",
    "pids",
    "readonly",
    "rootfs",
    "user",
];

impl Fault {
    /// The same fault, told as the mistake that TOML makes easy: a plain key of the document below a table.
    fn not_of_a_table(mut self) -> Self {
        let Problem::Unknown { hint } = &mut self.problem else {
            return self;
        };
        if let Some((_, key)) = self.key.rsplit_once('.')
            && PLAIN.contains(&key)
        {
            *hint = format!("{key} belongs to no table and stands above the first one");
        }
        self
    }
}

/// What a key that must be there would be.
fn required(key: &str) -> &'static str {
    match key {
        "name" => "a name for the workspace",
        "rootfs" => "a directory or an OCI image to be its root",
        "source" => "a file or directory of the host",
        "target" => "an absolute path inside",
        "ttl" => super::quantity::SPAN,
        _ => "a value",
    }
}
