//! What the host's administrator says about its capacity: `host.toml`, described in `runtime-spec/guarantees.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::plan::admission::Amounts;
use crate::plan::admission::Resource;
use crate::spec::quantity;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFile {
    /// Thousandths of a CPU that are promised to nobody.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory that are promised to nobody.
    pub memory_bytes: Option<u64>,
    /// What cannot be found out: how much disks and networks can do.
    pub amounts: Amounts,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// It cannot be read.
    #[error("cannot read {path:?}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key that is not known.
    #[error("{}:{line}: {trouble}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// In which line, the first being 1.
        line: usize,
        /// What is wrong.
        trouble: String,
    },
    /// A key has a value that it cannot have.
    #[error("{}:{line}: {key}: {value:?} is not {expected}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// In which line, the first being 1.
        line: usize,
        /// The key with its section.
        key: String,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
}

/// An amount as it is written: a text with a unit, or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Whole(u64),
    Part(f64),
}

impl Amount {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Part(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    reserve: Reserve,
    #[serde(default)]
    disk: BTreeMap<Spanned<String>, Disk>,
    #[serde(default)]
    network: BTreeMap<String, Network>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reserve {
    cpu: Option<Spanned<Amount>>,
    memory: Option<Spanned<Amount>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    read: Option<Spanned<Amount>>,
    write: Option<Spanned<Amount>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    #[serde(rename = "in")]
    inward: Option<Spanned<Amount>>,
    #[serde(rename = "out")]
    outward: Option<Spanned<Amount>>,
}

impl HostFile {
    /// Reads the file; that there is none is no error.
    ///
    /// # Errors
    ///
    /// [`HostFileError`] names file, line and key.
    pub fn read(path: &Path) -> Result<Self, HostFileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(HostFileError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, HostFileError> {
        let reading = Reading { text, path };
        let sections: Sections = toml::from_str(text).map_err(|error| reading.malformed(&error))?;
        let mut found = Self {
            cpu_milli: reading.amount("reserve.cpu", sections.reserve.cpu.as_ref())?,
            memory_bytes: reading.amount("reserve.memory", sections.reserve.memory.as_ref())?,
            ..Self::default()
        };
        for (disk, can) in &sections.disk {
            let name = disk.get_ref();
            reading.check_disk(disk)?;
            let sides = [
                ("read", &can.read, Resource::Read(name.clone())),
                ("write", &can.write, Resource::Write(name.clone())),
            ];
            for (key, side, resource) in sides {
                let amount = reading.amount(&format!("disk.{name:?}.{key}"), side.as_ref())?;
                found
                    .amounts
                    .extend(amount.map(|amount| (resource, amount)));
            }
        }
        for (name, can) in &sections.network {
            let sides = [
                ("in", &can.inward, Resource::Inward(name.clone())),
                ("out", &can.outward, Resource::Outward(name.clone())),
            ];
            for (key, side, resource) in sides {
                let amount = reading.amount(&format!("network.{name}.{key}"), side.as_ref())?;
                found
                    .amounts
                    .extend(amount.map(|amount| (resource, amount)));
            }
        }
        Ok(found)
    }
}

/// The file while it is read.
struct Reading<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reading<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    fn malformed(&self, error: &toml::de::Error) -> HostFileError {
        let offset = error.span().map_or(0, |span| span.start);
        HostFileError::Malformed {
            path: self.path.to_owned(),
            line: self.line(offset),
            trouble: error.message().trim().replace('\n', "; "),
        }
    }

    fn wrong<T>(
        &self,
        key: &str,
        found: &Spanned<T>,
        expected: (String, &'static str),
    ) -> HostFileError {
        HostFileError::Value {
            path: self.path.to_owned(),
            line: self.line(found.span().start),
            key: key.to_owned(),
            value: expected.0,
            expected: expected.1,
        }
    }

    /// An amount in the unit of its key.
    fn amount(
        &self,
        key: &str,
        found: Option<&Spanned<Amount>>,
    ) -> Result<Option<u64>, HostFileError> {
        let Some(found) = found else {
            return Ok(None);
        };
        let text = found.get_ref().text();
        let (read, expected): (fn(&str) -> Option<u64>, _) = match key {
            "reserve.cpu" => (quantity::cpus, quantity::CPUS),
            _ if key.starts_with("network.") => (quantity::bits_per_second, quantity::RATE),
            _ => (quantity::bytes, quantity::BYTES),
        };
        let amount = read(&text).ok_or_else(|| self.wrong(key, found, (text, expected)))?;
        Ok(Some(amount))
    }

    /// A disk is named by its numbers, as cgroups name it.
    fn check_disk(&self, disk: &Spanned<String>) -> Result<(), HostFileError> {
        let name = disk.get_ref();
        let number = |word: &str| word.parse::<u32>().is_ok();
        let named = name
            .split_once(':')
            .is_some_and(|(major, minor)| number(major) && number(minor));
        let expected = "the numbers of a whole disk, such as \"8:0\" (lsblk -d -o NAME,MAJ:MIN)";
        if named {
            Ok(())
        } else {
            Err(self.wrong("disk", disk, (name.clone(), expected)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HostFile, String> {
        HostFile::parse(text, Path::new("host.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_that_can_be_said_is_understood() {
        let found = read(
            "[reserve]\ncpu = 0.5\nmemory = \"512M\"\n[disk.\"8:0\"]\nread = \"200M\"\n\
             write = 1000000\n[network.default]\nin = \"1gbit\"\nout = \"100mbit\"\n",
        );
        let expected = HostFile {
            cpu_milli: Some(500),
            memory_bytes: Some(512 << 20),
            amounts: [
                (Resource::Read("8:0".to_owned()), 200 << 20),
                (Resource::Write("8:0".to_owned()), 1_000_000),
                (Resource::Inward("default".to_owned()), 1_000_000_000),
                (Resource::Outward("default".to_owned()), 100_000_000),
            ]
            .into(),
        };
        assert_eq!(found, Ok(expected));
        assert_eq!(read(""), Ok(HostFile::default()));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        assert_eq!(
            read("[reserve]\n\ncpu = \"lots\"\n").unwrap_err(),
            format!(
                "host.toml:3: reserve.cpu: \"lots\" is not {}",
                quantity::CPUS
            )
        );
        assert_eq!(
            read("[network.lan]\nin = \"fast\"\n").unwrap_err(),
            format!(
                "host.toml:2: network.lan.in: \"fast\" is not {}",
                quantity::RATE
            )
        );
        let text = read("[disk.sda]\nread = 1\n").unwrap_err();
        assert!(
            text.starts_with("host.toml:1: disk: \"sda\" is not the numbers"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_those_that_are_known() {
        let text = read("[reserve]\ncpus = 1\n").unwrap_err();
        assert!(text.starts_with("host.toml:2: "), "{text}");
        assert!(text.contains("cpus") && text.contains("`cpu`"), "{text}");
        let text = read("[reserve\n").unwrap_err();
        assert!(text.starts_with("host.toml:1: "), "{text}");
    }
}
