//! What a bundle asks of Bulkhead beyond OCI: annotations that begin with `dev.bulkhead.`.
//!
//! The workspace document compiles to these, and other callers (podman, Kubernetes) may set them. All that is known of
//! a workspace's guarantees, network and lease is read from here, so that every command can find it again from the
//! annotations that are kept. An annotation under the prefix that is not known is an error: a guarantee that is not
//! understood must not be taken for one that holds.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::spec::quantity;

/// What every annotation of ours begins with.
pub const PREFIX: &str = "dev.bulkhead.";

/// Everything that the annotations of a bundle ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Which wall it is put behind; none leaves that to the command line.
    pub isolation: Option<Isolation>,
    /// What is promised to it.
    pub guarantee: Guarantee,
    /// What happens when it needs more memory than its limit.
    pub over_limit: OverLimit,
    /// The network that is made for it; none leaves the network to the namespaces of the bundle.
    pub network: Option<Network>,
    /// For how long it is granted.
    pub lease: Option<Lease>,
    /// The writable layer above its root filesystem, which is then not written to.
    pub layer: Option<Layer>,
    /// Whether the memory of its machine is made of huge pages.
    pub hugepages: bool,
    /// Whether it was asked for at all: then it is billed (see `runtime-spec/accounting.md`).
    pub billed: bool,
}

/// Which wall a workspace is put behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces on the shared kernel.
    #[default]
    Container,
    /// A kernel of its own.
    MicroVm,
}

impl Isolation {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::MicroVm => "microvm",
        }
    }
}

/// What is promised, and checked against what the host has before the workspace is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guarantee {
    /// Thousandths of a CPU that it gets whenever it wants them.
    pub cpu_milli: u64,
    /// Its part of what is left, relative to that of others.
    pub cpu_share: Option<u64>,
    /// Bytes of memory that it gets whenever it wants them.
    pub memory_bytes: u64,
    /// Bytes per second that it may read from the device of its root filesystem.
    pub read_bps: u64,
    /// Bytes per second that it may write to that device.
    pub write_bps: u64,
}

/// What happens to a workspace that needs more memory than its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverLimit {
    /// The kernel kills all of it, and it has ended.
    #[default]
    Kill,
    /// It is ended and started again.
    Reset,
}

/// The network of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A bridge of this name, shared with all who name it.
    Bridge(Box<Bridged>),
    /// Its own namespace with nothing in it but loopback.
    None,
    /// The host's.
    Host,
}

/// A workspace's place on a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bridged {
    /// The name of the network.
    pub bridge: String,
    /// Addresses it must have; `auto` and none at all mean the next free ones.
    pub addresses: Vec<std::net::IpAddr>,
    /// Ports of the host that lead to ports of it.
    pub publish: Vec<Publish>,
    /// The largest packet, where it is not the bridge's.
    pub mtu: Option<u32>,
    /// What it may receive.
    pub inward: Rate,
    /// What it may send.
    pub outward: Rate,
}

/// Bits per second in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Promised.
    pub reserve_bps: Option<u64>,
    /// Never more.
    pub limit_bps: Option<u64>,
}

/// A port of the host that leads to one of a workspace: `[HOST_IP:]HOST_PORT:PORT[/tcp|/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publish {
    /// The address of the host that is listened on; none is all.
    pub address: Option<std::net::IpAddr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the workspace.
    pub port: u16,
    /// Over what.
    pub transport: Transport,
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// For how long a workspace is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// From its start on.
    pub ttl: Duration,
    /// What becomes of it then.
    pub on_expiry: Expiry,
}

/// What becomes of a workspace whose lease has expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expiry {
    /// It is told to end (`SIGTERM`), and after ten seconds killed; its files stay.
    #[default]
    Stop,
    /// It stands still until the lease is extended.
    Pause,
    /// It is killed and removed with all of its files.
    Trash,
}

/// A writable layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The directory that takes what is written.
    pub upper: String,
    /// A directory on the same file system for the kernel's own use (`overlayfs`).
    pub work: String,
    /// Whether it means nothing any more when the host has crashed: then nothing waits for the disk, neither the end of
    /// the layer nor `fsync(2)` inside (`volatile` of overlayfs, Linux 5.10).
    pub volatile: bool,
}

/// An annotation cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// No annotation has this name.
    #[error("annotations.{key}: unknown{}", nearest(.key))]
    Unknown {
        /// Its name.
        key: String,
    },
    /// It has a value that it cannot have.
    #[error("annotations.{key}: {value:?} is not {expected}")]
    Value {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// It has no meaning without another.
    #[error("annotations.{key}: has no meaning without {PREFIX}{needs}")]
    Alone {
        /// Its name.
        key: String,
        /// The other's.
        needs: &'static str,
    },
}

/// Every annotation, without the prefix.
pub const KEYS: &[&str] = &[
    "billed",
    "cpu.reserve",
    "cpu.share",
    "io.read.reserve",
    "io.write.reserve",
    "isolation",
    "lease.on_expiry",
    "lease.ttl",
    "machine.hugepages",
    "memory.on_over_limit",
    "memory.reserve",
    "network",
    "network.address",
    "network.in.limit",
    "network.in.reserve",
    "network.mtu",
    "network.out.limit",
    "network.out.reserve",
    "network.publish",
    "rootfs.upper",
    "rootfs.volatile",
    "rootfs.work",
];

/// What a network, host or workspace name is made of, for error messages.
const NETWORK: &str = "none, host, or the name of a network (letters, digits, - and _, at most 32)";

fn nearest(key: &str) -> String {
    let short = key.strip_prefix(PREFIX).unwrap_or(key);
    let best = KEYS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(short, known), known))
        .min();
    match best {
        Some((distance, known)) if distance <= 3 => format!("; did you mean {PREFIX}{known}?"),
        _ => String::new(),
    }
}

impl Guarantee {
    /// Whether anything is promised, a share included.
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

impl Asked {
    /// Reads the annotations of a bundle; those of others are not looked at.
    ///
    /// # Errors
    ///
    /// [`AskedError`] names the annotation at fault.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self, AskedError> {
        let ours = Ours { annotations };
        ours.check_names()?;
        Ok(Self {
            isolation: ours.isolation()?,
            guarantee: ours.guarantee()?,
            over_limit: ours.over_limit()?,
            network: ours.network()?,
            lease: ours.lease()?,
            layer: ours.layer()?,
            hugepages: ours.flag("machine.hugepages")?,
            billed: annotations.keys().any(|key| key.starts_with(PREFIX)),
        })
    }
}

/// The annotations under our prefix.
struct Ours<'a> {
    annotations: &'a BTreeMap<String, String>,
}

type Result<T, E = AskedError> = std::result::Result<T, E>;

impl Ours<'_> {
    fn check_names(&self) -> Result<()> {
        let unknown = self.annotations.keys().find(|key| {
            key.strip_prefix(PREFIX)
                .is_some_and(|short| !KEYS.contains(&short))
        });
        unknown.map_or(Ok(()), |key| Err(AskedError::Unknown { key: key.clone() }))
    }

    /// The value of an annotation, as `read` understands it.
    fn get<T>(
        &self,
        short: &str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let key = format!("{PREFIX}{short}");
        let Some(text) = self.annotations.get(&key) else {
            return Ok(None);
        };
        let value = text.clone();
        let understood = read(text).ok_or(AskedError::Value {
            key,
            value,
            expected,
        })?;
        Ok(Some(understood))
    }

    /// Refuses annotations that have no meaning because another is missing.
    fn none_of(&self, shorts: &[&str], needs: &'static str) -> Result<()> {
        let alone = shorts
            .iter()
            .map(|short| format!("{PREFIX}{short}"))
            .find(|key| self.annotations.contains_key(key));
        alone.map_or(Ok(()), |key| Err(AskedError::Alone { key, needs }))
    }

    fn isolation(&self) -> Result<Option<Isolation>> {
        self.get("isolation", "container or microvm", |word| match word {
            "container" => Some(Isolation::Container),
            "microvm" => Some(Isolation::MicroVm),
            _ => None,
        })
    }

    /// What is so when it is said, and not otherwise.
    fn flag(&self, short: &str) -> Result<bool> {
        let found = self.get(short, "true or false", |word| word.parse().ok())?;
        Ok(found.unwrap_or_default())
    }

    fn guarantee(&self) -> Result<Guarantee> {
        let share = |text: &str| {
            text.parse()
                .ok()
                .filter(|share| (1..=10_000).contains(share))
        };
        let size = |key| self.get(key, quantity::BYTES, quantity::bytes);
        let cpu = self.get("cpu.reserve", quantity::CPUS, quantity::cpus)?;
        Ok(Guarantee {
            cpu_milli: cpu.unwrap_or_default(),
            cpu_share: self.get("cpu.share", "a number from 1 to 10000", share)?,
            memory_bytes: size("memory.reserve")?.unwrap_or_default(),
            read_bps: size("io.read.reserve")?.unwrap_or_default(),
            write_bps: size("io.write.reserve")?.unwrap_or_default(),
        })
    }

    fn over_limit(&self) -> Result<OverLimit> {
        let read = |word: &str| match word {
            "kill" => Some(OverLimit::Kill),
            "reset" => Some(OverLimit::Reset),
            _ => None,
        };
        let found = self.get("memory.on_over_limit", "kill or reset", read)?;
        Ok(found.unwrap_or_default())
    }

    fn network(&self) -> Result<Option<Network>> {
        let name = self.get("network", NETWORK, network_name)?;
        let found = match name.as_deref() {
            None => None,
            Some("none") => Some(Network::None),
            Some("host") => Some(Network::Host),
            Some(bridge) => {
                return Ok(Some(Network::Bridge(Box::new(self.bridged(bridge)?))));
            }
        };
        let needing: Vec<&str> = KEYS
            .iter()
            .copied()
            .filter(|key| key.starts_with("network."))
            .collect();
        self.none_of(&needing, "network naming a bridge")?;
        Ok(found)
    }

    fn bridged(&self, bridge: &str) -> Result<Bridged> {
        let mtu = |text: &str| {
            text.parse()
                .ok()
                .filter(|mtu| (1280..=65_535).contains(mtu))
        };
        let addresses = "auto, or an IPv4 and an IPv6 address, comma between them";
        let publish = "ports such as 8080:80/tcp, commas between them";
        Ok(Bridged {
            bridge: bridge.to_owned(),
            addresses: self
                .get("network.address", addresses, read_addresses)?
                .unwrap_or_default(),
            publish: self
                .get("network.publish", publish, |text| {
                    text.split(',')
                        .map(|word| word.trim().parse().ok())
                        .collect()
                })?
                .unwrap_or_default(),
            mtu: self.get("network.mtu", "a number from 1280 to 65535", mtu)?,
            inward: self.rate("network.in.reserve", "network.in.limit")?,
            outward: self.rate("network.out.reserve", "network.out.limit")?,
        })
    }

    fn rate(&self, reserve: &str, limit: &str) -> Result<Rate> {
        let rate = |text: &str| quantity::bits_per_second(text).filter(|rate| *rate >= 8000);
        let expected = "a rate of at least 8kbit, such as 10mbit";
        Ok(Rate {
            reserve_bps: self.get(reserve, expected, rate)?,
            limit_bps: self.get(limit, expected, rate)?,
        })
    }

    fn lease(&self) -> Result<Option<Lease>> {
        let Some(ttl) = self.get("lease.ttl", quantity::SPAN, quantity::span)? else {
            self.none_of(&["lease.on_expiry"], "lease.ttl")?;
            return Ok(None);
        };
        let read = |word: &str| match word {
            "stop" => Some(Expiry::Stop),
            "pause" => Some(Expiry::Pause),
            "trash" => Some(Expiry::Trash),
            _ => None,
        };
        let on_expiry = self.get("lease.on_expiry", "stop, pause or trash", read)?;
        Ok(Some(Lease {
            ttl,
            on_expiry: on_expiry.unwrap_or_default(),
        }))
    }

    fn layer(&self) -> Result<Option<Layer>> {
        let absolute = |text: &str| text.starts_with('/').then(|| text.to_owned());
        let upper = self.get("rootfs.upper", "an absolute path", absolute)?;
        let work = self.get("rootfs.work", "an absolute path", absolute)?;
        let volatile = self.flag("rootfs.volatile")?;
        match (upper, work) {
            (Some(upper), Some(work)) => Ok(Some(Layer {
                upper,
                work,
                volatile,
            })),
            (None, None) => self
                .none_of(&["rootfs.volatile"], "rootfs.upper")
                .map(|()| None),
            (Some(_), None) => self
                .none_of(&["rootfs.upper"], "rootfs.work")
                .map(|()| None),
            (None, Some(_)) => self
                .none_of(&["rootfs.work"], "rootfs.upper")
                .map(|()| None),
        }
    }
}

/// The name of a network, or `none` or `host`, which mean what they say.
pub(super) fn network_name(text: &str) -> Option<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let named = (1..=32).contains(&text.len()) && text.chars().all(plain);
    named.then(|| text.to_owned())
}

/// Nothing for `auto`; else at most one address of each kind.
pub(super) fn read_addresses(text: &str) -> Option<Vec<std::net::IpAddr>> {
    if text == "auto" {
        return Some(Vec::new());
    }
    let found: Option<Vec<std::net::IpAddr>> = text
        .split(',')
        .map(|word| word.trim().parse().ok())
        .collect();
    let of_kind = |four: bool| {
        let all = found.iter().flatten();
        all.filter(|address| address.is_ipv4() == four).count()
    };
    (of_kind(true) <= 1 && of_kind(false) <= 1)
        .then_some(found)
        .flatten()
}

/// A text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPort {
    /// It is not written as one.
    #[error("{0:?} is not [HOST_IP:]HOST_PORT:PORT[/tcp|/udp]")]
    Form(String),
    /// Nothing that is sent there leaves the host's loopback interface.
    #[error(
        "{0:?}: [::1] cannot be published, since the kernel leads nothing away from there; take 127.0.0.1"
    )]
    Nowhere(String),
}

impl std::str::FromStr for Publish {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let found = publish(text).ok_or_else(|| NotAPort::Form(text.to_owned()))?;
        match found.address {
            Some(std::net::IpAddr::V6(six)) if six.is_loopback() => {
                Err(NotAPort::Nowhere(text.to_owned()))
            }
            _ => Ok(found),
        }
    }
}

fn publish(text: &str) -> Option<Publish> {
    let (ports, transport) = match text.rsplit_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some(_) => return None,
    };
    let (rest, port) = ports.rsplit_once(':')?;
    let (address, host_port) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host_port)) => {
            let bare = address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            (Some(bare.unwrap_or(address).parse().ok()?), host_port)
        }
    };
    let number = |word: &str| word.parse().ok().filter(|port| *port != 0);
    Some(Publish {
        address,
        host_port: number(host_port)?,
        port: number(port)?,
        transport,
    })
}

impl std::fmt::Display for Publish {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(std::net::IpAddr::V6(address)) => write!(out, "[{address}]:")?,
            Some(std::net::IpAddr::V4(address)) => write!(out, "{address}:")?,
            None => {}
        }
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(out, "{}:{}/{transport}", self.host_port, self.port)
    }
}

#[cfg(test)]
mod tests;
