//! What a document may mean: amounts in their order, names that are names, paths that lead somewhere.

use std::fmt;
use std::path::Component;
use std::path::Path;

use serde::Deserializer;
use serde::de::Error;
use serde::de::Unexpected;
use serde::de::Visitor;

use super::Document;
use super::Flow;
use super::Network;
use super::Port;
use super::Rate;
use super::error::Fault;
use crate::spec::asked;
use crate::spec::asked::Expiry;
use crate::spec::asked::OverLimit;

type Checked = Result<(), Fault>;

/// The longest name: it is the host name too, which `sethostname(2)` takes up to here.
const LONGEST_NAME: usize = 64;
/// The smallest CPU limit, in thousandths: the kernel takes no quota below 1 ms in 100 ms.
const LEAST_CPU: u64 = 10;
/// The smallest memory limit: nothing starts below it.
const LEAST_MEMORY: u64 = 1 << 20;
/// The most an OCI configuration can say of an amount.
const MOST: u64 = i64::MAX.unsigned_abs();
/// What a network is called.
const NETWORK: &str = "none, host, the path of a network namespace, or the name of a network (letters, digits, - and _, \
                       at most 32)";

impl Document {
    /// Looks at what every key means, alone and beside the others.
    pub(super) fn check(&self) -> Checked {
        self.identity()?;
        self.words()?;
        self.mounts()?;
        self.cpu()?;
        self.memory()?;
        self.io()?;
        if let Some(network) = &self.network {
            network.check().map_err(|fault| fault.below("network"))?;
        }
        self.machine()
    }

    fn identity(&self) -> Checked {
        let name = self.name.as_str();
        if name.len() > LONGEST_NAME {
            let expected = format!("a name of at most {LONGEST_NAME} bytes");
            return Err(wrong("name", expected, format!("{} bytes", name.len())));
        }
        nothing_empty("rootfs", &self.rootfs)?;
        if let Some(hostname) = &self.hostname {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
            let sound = (1..=LONGEST_NAME).contains(&hostname.len());
            if !sound || !hostname.bytes().all(letter) {
                let expected = "a host name: at most 64 letters, digits, -, _, + and dots";
                return Err(wrong("hostname", expected, format!("{hostname:?}")));
            }
        }
        Ok(())
    }

    fn words(&self) -> Checked {
        if let Some(first) = self.command.first() {
            nothing_empty("command[0]", first)?;
        }
        for name in self.env.keys() {
            if name.is_empty() || name.contains('=') {
                let expected = "the name of a variable, without =";
                return Err(wrong("env", expected, format!("{name:?}")));
            }
        }
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| !cwd.is_absolute()) {
            let expected = "an absolute path inside the workspace";
            return Err(wrong("cwd", expected, format!("{cwd:?}")));
        }
        if self.pids.is_some_and(|pids| !(1..=MOST).contains(&pids)) {
            return Err(wrong("pids", "a whole number from 1 on", "0"));
        }
        let own = self
            .annotations
            .keys()
            .find(|key| key.starts_with(asked::PREFIX));
        own.map_or(Ok(()), |key| {
            let text = format!(
                "belongs to the runtime; say it with the keys of this document, without {}",
                asked::PREFIX
            );
            Err(Fault::meaning(format!("annotations.{key}"), text))
        })
    }

    fn mounts(&self) -> Checked {
        for (index, mount) in self.mount.iter().enumerate() {
            let at = |key: &str| format!("mount[{index}].{key}");
            if mount.source.as_os_str().is_empty() {
                return Err(wrong(
                    at("source"),
                    "a file or directory of the host",
                    "\"\"",
                ));
            }
            if !leads_inside(&mount.target) {
                let expected = "an absolute path inside the workspace, without .. and not / itself";
                return Err(wrong(at("target"), expected, format!("{:?}", mount.target)));
            }
            if mount.target.starts_with("/proc") {
                let text = "nothing can be mounted inside /proc";
                return Err(Fault::meaning(at("target"), text));
            }
            let earlier = self.mount.iter().take(index);
            if earlier.clone().any(|other| other.target == mount.target) {
                let text = format!("{:?} is the target of an earlier mount", mount.target);
                return Err(Fault::meaning(at("target"), text));
            }
        }
        Ok(())
    }

    fn cpu(&self) -> Checked {
        let cpu = &self.cpu;
        let share = cpu.share.filter(|share| !(1..=10_000).contains(share));
        if let Some(share) = share {
            return Err(wrong("cpu.share", "a whole number from 1 to 10000", share));
        }
        if let Some(limit) = cpu.limit.filter(|limit| limit.0 < LEAST_CPU) {
            return Err(wrong("cpu.limit", "at least 0.01 CPUs", limit));
        }
        ordered("cpu", ("reserve", cpu.reserve), ("limit", cpu.limit))?;
        ordered("cpu", ("burst", cpu.burst), ("limit", cpu.limit))?;
        if cpu.burst.is_some() && cpu.limit.is_none() {
            let text = "has no meaning without cpu.limit";
            return Err(Fault::meaning("cpu.burst", text));
        }
        let most = 1_000_000;
        let amounts = [("reserve", cpu.reserve), ("limit", cpu.limit)];
        for (key, amount) in amounts {
            if let Some(amount) = amount.filter(|amount| amount.0 > most) {
                return Err(wrong(format!("cpu.{key}"), "at most 1000 CPUs", amount));
            }
        }
        Ok(())
    }

    fn memory(&self) -> Checked {
        let memory = &self.memory;
        let amounts = [
            ("reserve", memory.reserve),
            ("high", memory.high),
            ("limit", memory.limit),
        ];
        for (key, amount) in amounts {
            let least = if key == "reserve" { 0 } else { LEAST_MEMORY };
            if let Some(amount) = amount.filter(|amount| !(least..=MOST).contains(&amount.0)) {
                let expected = format!("a size of at least {}", super::Bytes(least));
                return Err(wrong(format!("memory.{key}"), expected, amount));
            }
        }
        ordered(
            "memory",
            ("reserve", memory.reserve),
            ("limit", memory.limit),
        )?;
        ordered("memory", ("reserve", memory.reserve), ("high", memory.high))?;
        ordered("memory", ("high", memory.high), ("limit", memory.limit))?;
        if memory.on_over_limit == OverLimit::Reset && memory.limit.is_none() {
            let text = "has no meaning without memory.limit";
            return Err(Fault::meaning("memory.on_over_limit", text));
        }
        Ok(())
    }

    fn io(&self) -> Checked {
        let weight = self.io.reserve_weight;
        if let Some(weight) = weight.filter(|weight| !(10..=1000).contains(weight)) {
            let expected = "a whole number from 10 to 1000";
            return Err(wrong("io.reserve_weight", expected, weight));
        }
        let flows = [("io.read", &self.io.read), ("io.write", &self.io.write)];
        for (key, flow) in flows {
            flow.check(key)?;
        }
        Ok(())
    }

    fn machine(&self) -> Checked {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        let vcpus = machine.vcpus.filter(|vcpus| !(1..=255).contains(vcpus));
        if let Some(vcpus) = vcpus {
            let expected = "a whole number from 1 to 255";
            return Err(wrong("machine.vcpus", expected, vcpus));
        }
        let kernel = machine.kernel.as_deref().unwrap_or("default");
        nothing_empty("machine.kernel", kernel)
    }
}

impl Flow {
    fn check(&self, at: &str) -> Checked {
        if self.bps.is_some_and(|bps| bps.0 == 0) {
            let key = format!("{at}.bps");
            return Err(wrong(key, "at least 1 byte per second", "0"));
        }
        if self.iops == Some(0) {
            let key = format!("{at}.iops");
            return Err(wrong(key, "at least 1 operation per second", "0"));
        }
        ordered(at, ("reserve", self.reserve), ("bps", self.bps))
    }
}

impl Network {
    /// Whether it is a bridge, where addresses and rates mean something.
    pub(super) fn is_bridge(&self) -> bool {
        !["none", "host"].contains(&self.bridge.as_str()) && !self.bridge.starts_with('/')
    }

    fn check(&self) -> Checked {
        let path = Path::new(&self.bridge);
        let namespace = path.is_absolute() && leads_inside(path);
        if !namespace && asked::network_name(&self.bridge).is_none() {
            return Err(wrong("bridge", NETWORK, format!("{:?}", self.bridge)));
        }
        if !self.is_bridge() {
            let plain = Self {
                bridge: self.bridge.clone(),
                ..Self::default()
            };
            return if *self == plain {
                Ok(())
            } else {
                Err(self.needs_bridge())
            };
        }
        let mtu = self.mtu.filter(|mtu| !(1280..=65_535).contains(mtu));
        if let Some(mtu) = mtu {
            return Err(wrong("mtu", "a whole number from 1280 to 65535", mtu));
        }
        self.ports()?;
        rates("in", &self.inward)?;
        rates("out", &self.outward)
    }

    fn needs_bridge(&self) -> Fault {
        let key = match self {
            _ if !self.publish.is_empty() => "publish",
            _ if !self.address.0.is_empty() => "address",
            _ if self.mtu.is_some() => "mtu",
            _ if self.inward != Rate::default() => "in",
            _ => "out",
        };
        let text = format!(
            "has a meaning on a bridge only, and bridge is {:?}",
            self.bridge
        );
        Fault::meaning(key, text)
    }

    fn ports(&self) -> Checked {
        for (index, Port(port)) in self.publish.iter().enumerate() {
            let same = |Port(other): &&Port| {
                let meet = match (other.address, port.address) {
                    (Some(one), Some(two)) => one == two,
                    _ => true,
                };
                meet && (other.host_port, other.transport) == (port.host_port, port.transport)
            };
            if let Some(other) = self.publish.iter().take(index).find(same) {
                let text = format!("{port} takes the same port of the host as {other}");
                return Err(Fault::meaning(format!("publish[{index}]"), text));
            }
        }
        Ok(())
    }
}

fn rates(key: &str, rate: &Rate) -> Checked {
    ordered(key, ("reserve", rate.reserve), ("limit", rate.limit))
}

/// Refuses a lesser amount that is greater than the greater one, where both are given.
fn ordered<T: PartialOrd + fmt::Display>(
    table: &str,
    (lesser, less): (&str, Option<T>),
    (greater, more): (&str, Option<T>),
) -> Checked {
    match (less, more) {
        (Some(less), Some(more)) if less > more => {
            let text = format!("{less} is more than {greater} = {more}");
            Err(Fault::meaning(format!("{table}.{lesser}"), text))
        }
        _ => Ok(()),
    }
}

fn nothing_empty(key: &str, text: &str) -> Checked {
    if text.is_empty() {
        return Err(wrong(key, "a text that is not empty", "\"\""));
    }
    Ok(())
}

fn wrong(key: impl Into<String>, expected: impl fmt::Display, found: impl fmt::Display) -> Fault {
    Fault {
        key: key.into(),
        ..Fault::value(expected, found)
    }
}

/// Whether a path is absolute, goes somewhere and never back.
fn leads_inside(path: &Path) -> bool {
    let mut parts = path.components().skip(1).peekable();
    path.is_absolute()
        && parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Reads what becomes of a workspace at the end of its lease.
pub(super) fn expiry<'de, D: Deserializer<'de>>(from: D) -> Result<Expiry, D::Error> {
    from.deserialize_str(Ending)
}

/// Knows the words, and the one that is not there yet.
struct Ending;

impl Visitor<'_> for Ending {
    type Value = Expiry;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("stop, pause or trash")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Expiry, E> {
        match word {
            "stop" => Ok(Expiry::Stop),
            "pause" => Ok(Expiry::Pause),
            "trash" => Ok(Expiry::Trash),
            "checkpoint" => Err(E::custom(
                "\"checkpoint\" cannot be done at the end of a lease yet; use stop, pause or trash",
            )),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }
}
