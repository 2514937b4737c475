//! The leases of addresses: one file for each network, replaced as a whole, under one lock for all of them.
//!
//! ```text
//! ROOT/@networks/NAME.json  the subnets of a network, and who has which of its addresses
//! ```
//!
//! A lease is written before anything of it is made, and goes last; what a killed command left is found by it. Leases
//! of an earlier uptime of the host are void, since no link outlived that.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use ipnet::Ipv6Net;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::network::error::NetworkError;
use crate::plan::network::Capacity;
use crate::plan::network::Publish;
use crate::plan::network::Rate;

type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// What is known of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its name.
    pub network: String,
    /// The kernel's id of the uptime in which it was made.
    pub boot: String,
    /// Its IPv4 addresses.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub subnet: Ipv4Net,
    /// Its IPv6 addresses, where the kernel has IPv6.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "some_to_text",
        deserialize_with = "some_from_text"
    )]
    pub subnet6: Option<Ipv6Net>,
    /// Whether its bridge, and its table where there is `nft`, were made to the end.
    pub made: bool,
    /// Whether it has a table of nftables.
    pub firewall: bool,
    /// Whether it has queues.
    pub shaped: bool,
    /// What it carries, by which its queues were made; none where nobody has said so and nobody was promised any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// What decides about what is sent over its links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Shared>,
    /// The place that was given last: places are used again as late as possible, while others remember who had them.
    pub last: u32,
    /// Who has what, by workspace.
    pub leases: BTreeMap<String, Lease>,
}

/// The program that decides about what is sent over the links of a network, which share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The kernel's id of it, in the uptime that wrote it.
    pub(super) id: u32,
    /// What it does, so that another version of this program does not share it.
    pub(super) version: u32,
}

/// What a workspace has of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its place: added to a subnet it makes an address.
    pub place: u32,
    /// What it is called by the others.
    pub hostname: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports of the host that lead to it.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "all_to_text",
        deserialize_with = "all_from_text"
    )]
    pub publish: Vec<Publish>,
    /// Whether its traffic goes through the queues of the network.
    #[serde(default)]
    pub shaped: bool,
    /// What it may receive.
    #[serde(default)]
    pub inward: Rate,
    /// What it may send.
    #[serde(default)]
    pub outward: Rate,
}

impl Register {
    /// Whether anybody was promised some of what it carries.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let mut rates = self
            .leases
            .values()
            .flat_map(|one| [one.inward, one.outward]);
        rates.any(|rate| rate.reserve_bps.is_some())
    }
}

/// The leases of all networks of a state root, and nobody else changes them while this value lives.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Leases {
    /// Waits until no other command changes a network of the state root; makes the directory when it is not there.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be made or locked.
    pub(super) fn lock(directory: &Path) -> Result<Self> {
        loop {
            let mut builder = std::fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(NetworkError::file("make", directory))?;
            if let Some(leases) = Self::lock_present(directory)? {
                return Ok(leases);
            }
        }
    }

    /// As [`Leases::lock`], but gives nothing when there is no directory, and so no network.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be locked.
    pub(super) fn lock_present(directory: &Path) -> Result<Option<Self>> {
        loop {
            let lock = match File::open(directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                answer => answer.map_err(NetworkError::file("open", directory))?,
            };
            let locked = rustix::io::retry_on_intr(|| {
                rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            });
            locked.map_err(|errno| NetworkError::file("lock", directory)(errno.into()))?;
            let there = lock.metadata().is_ok_and(|status| status.nlink() > 0);
            if there {
                return Ok(Some(Self {
                    directory: directory.to_owned(),
                    _lock: lock,
                }));
            }
        }
    }

    /// The names of all networks, sorted.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be read.
    pub(super) fn networks(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.directory)
            .map_err(NetworkError::file("read", &self.directory))?;
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_suffix(".json")?;
            (!name.starts_with('.')).then(|| name.to_owned())
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// What is known of a network; nothing when there is none. Leases of an earlier uptime are left out.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Damaged`] when it cannot be understood.
    pub(super) fn read(&self, network: &str, boot: &str) -> Result<Option<Register>> {
        let path = self.path(network);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer.map_err(NetworkError::file("read", &path))?,
        };
        let register = serde_json::from_slice::<Register>(&bytes);
        let mut register = register.map_err(|source| NetworkError::Damaged {
            network: network.to_owned(),
            path,
            source,
        })?;
        if register.boot != boot {
            boot.clone_into(&mut register.boot);
            register.leases.clear();
            register.made = false;
            register.firewall = false;
            register.shaped = false;
            register.capacity = None;
            register.filter = None;
        }
        Ok(Some(register))
    }

    /// Puts what is known of a network in place, as a whole.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written; what was there is then untouched.
    pub(super) fn write(&self, register: &Register) -> Result<()> {
        let path = self.path(&register.network);
        let temporary = self.directory.join(format!(".{}", register.network));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = serde_json::to_vec(register)
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                std::io::Write::write_all(&mut options.open(&temporary)?, &bytes)?;
                std::fs::rename(&temporary, &path)
            });
        written.map_err(|error| {
            std::fs::remove_file(&temporary).unwrap_or_default();
            NetworkError::file("write", path)(error)
        })
    }

    /// Forgets a network, and with the last one the directory.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be removed.
    pub(super) fn forget(&self, network: &str) -> Result<()> {
        for path in [
            self.directory.join(format!(".{network}")),
            self.path(network),
        ] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(NetworkError::file("remove", path)(error));
                }
                _ => {}
            }
        }
        self.tidy();
        Ok(())
    }

    /// Removes the directory when there is no network; what a killed command was writing goes with it.
    pub(super) fn tidy(&self) {
        if !self.networks().is_ok_and(|networks| networks.is_empty()) {
            return;
        }
        let unfinished = std::fs::read_dir(&self.directory).into_iter().flatten();
        for entry in unfinished.flatten() {
            std::fs::remove_file(entry.path()).unwrap_or_default();
        }
        std::fs::remove_dir(&self.directory).unwrap_or_default();
    }

    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, network: &str) -> PathBuf {
        self.directory.join(format!("{network}.json"))
    }
}

impl Register {
    /// Who has this address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&str> {
        let mut leases = self.leases.iter();
        let found = leases.find(|(_, lease)| lease.addresses.contains(&address));
        found.map(|(id, _)| id.as_str())
    }
}

fn to_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn parsed<T: FromStr, E: serde::de::Error>(text: &str) -> Result<T, E> {
    text.parse()
        .map_err(|_| E::custom(format!("{text:?} cannot be understood")))
}

fn from_text<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    parsed(&String::deserialize(deserializer)?)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn some_to_text<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn some_from_text<'de, T: FromStr, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parsed(&text)).transpose()
}

fn all_to_text<T: Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

fn all_from_text<'de, T: FromStr, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parsed(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register() -> Register {
        let lease = Lease {
            place: 2,
            hostname: "a".to_owned(),
            addresses: vec!["10.0.0.2".parse().unwrap()],
            publish: vec!["127.0.0.1:80:8080".parse().unwrap()],
            ..Lease::default()
        };
        Register {
            network: "net".to_owned(),
            boot: "now".to_owned(),
            subnet: "10.0.0.0/22".parse().unwrap(),
            subnet6: Some("fd00::/64".parse().unwrap()),
            made: true,
            firewall: true,
            shaped: false,
            capacity: None,
            filter: None,
            last: 2,
            leases: [("a".to_owned(), lease)].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_directory_goes_with_the_last() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("@networks");
        let leases = Leases::lock(&directory).unwrap();
        leases.write(&register()).unwrap();
        assert_eq!(leases.read("net", "now").unwrap(), Some(register()));
        assert_eq!(leases.networks().unwrap(), ["net"]);
        leases.forget("net").unwrap();
        assert!(!directory.exists());
    }

    #[test]
    fn leases_of_an_earlier_uptime_are_void() {
        let home = tempfile::tempdir().unwrap();
        let leases = Leases::lock(home.path()).unwrap();
        leases.write(&register()).unwrap();
        let read = leases.read("net", "later").unwrap().unwrap();
        assert!(read.leases.is_empty() && !read.made);
        assert_eq!(read.subnet, register().subnet);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let leases = Leases::lock(home.path()).unwrap();
        std::fs::write(home.path().join("net.json"), "{").unwrap();
        let error = leases.read("net", "now").unwrap_err().to_string();
        assert!(error.contains("net.json") && error.contains("net rm --force net"));
    }
}
