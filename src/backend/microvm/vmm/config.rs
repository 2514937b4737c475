//! What a machine is made of: the one document that its process reads, and everything that may be wrong with it.
//!
//! Whatever is opened for the machine is named here, as a path or as the number of a descriptor that the process was
//! given. After the jail has closed, nothing that is not named here can be reached.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::sys::inherited;

/// The most processors that a machine may have.
pub const VCPUS_MAX: u32 = 32;
/// The least memory that a machine may have: a kernel and what it needs to say why it stops.
pub const MEMORY_MIN: u64 = 4 << 20;
/// The most memory that a machine may have.
pub const MEMORY_MAX: u64 = 1 << 42;
/// The longest command line that a kernel takes (`COMMAND_LINE_SIZE` of x86), its end included.
pub const CMDLINE_MAX: usize = 2048;
/// Guest memory comes in pages of the machine, or in huge ones.
const PAGE: u64 = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// A machine, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Its processors, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// Its memory in bytes, a multiple of the page size.
    pub memory: u64,
    /// Whether its memory is made of huge pages of 2 MiB.
    #[serde(default)]
    pub hugepages: bool,
    /// `/dev/kvm`, opened; by its path without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<RawFd>,
    /// The kernel: ELF or bzImage.
    pub kernel: Source,
    /// The first file system, handed over as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<Source>,
    /// The command line; what finds devices is added to it where that is how they are found.
    #[serde(default)]
    pub cmdline: String,
    /// How the kernel finds its devices.
    #[serde(default)]
    pub discovery: Discovery,
    /// Disks, `/dev/vda` first.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Network interfaces, `eth0` first.
    #[serde(default)]
    pub nics: Vec<NicConfig>,
    /// The socket device; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// Directories shared by a file server.
    #[serde(default)]
    pub shares: Vec<ShareConfig>,
    /// The balloon; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,
    /// Whether there is a device that gives random numbers.
    #[serde(default)]
    pub rng: bool,
    /// Where the console device (`hvc0`) writes; none without such a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<LogConfig>,
    /// Where the serial port (`ttyS0`) writes; it is there in any case, so that a panic is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<LogConfig>,
    /// Where the machine tells that it runs, and how it ended: lines of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<RawFd>,
    /// Which threads go into which control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadsConfig>,
    /// What holds the machine's process in.
    #[serde(default)]
    pub jail: JailConfig,
}

/// Something to be opened: a path, or a descriptor that the process has been given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A path in the mount namespace that the process is started in.
    Path(PathBuf),
    /// The number of an open descriptor.
    Fd(RawFd),
}

/// How a kernel finds its devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// Tables of ACPI: what the kernels of distributions read.
    #[default]
    Acpi,
    /// `virtio_mmio.device=` words and an MP table: for a kernel that was built without ACPI.
    CommandLine,
}

/// A disk: a raw image or a block device, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The image.
    pub image: Source,
    /// Whether the guest may not write to it; it is opened so too.
    #[serde(default)]
    pub read_only: bool,
    /// How much may go through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What may go through a device, each a bucket that fills again within a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Bytes in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Requests or frames in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<u64>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicConfig {
    /// The tap, attached and with its offloads not yet set (`TUNSETIFF` with `IFF_VNET_HDR` done).
    pub tap: RawFd,
    /// Its address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// The largest packet; 0 is the kernel's own 1500.
    #[serde(default)]
    pub mtu: u16,
    /// `/dev/vhost-net`, opened, if the kernel is to move the packets itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<RawFd>,
    /// How much may come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<Limit>,
    /// How much may go out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Limit>,
}

impl NicConfig {
    /// Its address, as bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Impossible`] when it is no address of one interface.
    pub fn address(&self) -> Result<[u8; 6], ConfigError> {
        let wrong = || ConfigError::Impossible {
            field: "nics.mac",
            problem: format!("{:?} is not like 02:00:00:00:00:01", self.mac),
        };
        let bytes = self.mac.split(':').map(|two| {
            let byte = u8::from_str_radix(two, 16).ok();
            byte.filter(|_| two.len() == 2).ok_or_else(wrong)
        });
        let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
        let bytes = <[u8; 6]>::try_from(bytes).map_err(|_| wrong())?;
        // The lowest bit of the first byte says that many are meant.
        (bytes[0] & 1 == 0).then_some(bytes).ok_or_else(wrong)
    }
}

/// The socket device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's number; 0 to 2 are taken.
    #[serde(default = "VsockConfig::usual_cid")]
    pub cid: u64,
    /// The listening unix socket that the host's side connects to.
    pub listener: RawFd,
}

impl VsockConfig {
    const fn usual_cid() -> u64 {
        3
    }
}

/// A directory that a file server shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// The name that the guest mounts it by.
    pub tag: String,
    /// The unix socket to the file server, connected (vhost-user).
    pub socket: RawFd,
}

/// The balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonConfig {
    /// Whether the guest tells of pages that it does not use, which are given back to the host.
    #[serde(default = "BalloonConfig::usual_reporting")]
    pub free_page_reporting: bool,
    /// What is read for how many bytes the guest is to give back: numbers of eight bytes, little endian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<RawFd>,
}

impl BalloonConfig {
    const fn usual_reporting() -> bool {
        true
    }
}

/// Where what a guest writes goes to, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// What is written to, behind what is there: made if it is a path of no file. Not opened to append, or its last
    /// line could not be written again.
    pub to: Source,
    /// The bytes after which the rest is only counted.
    #[serde(default = "LogConfig::usual_limit")]
    pub limit: u64,
}

impl LogConfig {
    const fn usual_limit() -> u64 {
        1 << 20
    }
}

/// Where the threads of a machine are counted: `cgroup.threads` files, opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadsConfig {
    /// For the processors.
    pub vcpu: RawFd,
    /// For everything else.
    pub vmm: RawFd,
}

/// What holds a machine's process in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JailConfig {
    /// Off only to look for mistakes.
    pub enabled: bool,
    /// The user it becomes; the one it is, without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group it becomes; the one it is, without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Default for JailConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            uid: None,
            gid: None,
        }
    }
}

/// What is wrong with a machine's document. Each message starts with the field at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The document is not one, or a field has a value of the wrong kind.
    #[error("{field}: {problem}")]
    Malformed {
        /// Where.
        field: String,
        /// What the parser says.
        problem: String,
    },
    /// A value cannot be.
    #[error("{field}: {problem}")]
    Impossible {
        /// Where.
        field: &'static str,
        /// Why not, and what could be.
        problem: String,
    },
    /// A file or descriptor cannot be opened.
    #[error("{field}: cannot open {what}")]
    Unopened {
        /// Where.
        field: &'static str,
        /// The path or number.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl MachineConfig {
    /// Reads and checks a document.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Malformed`] or [`ConfigError::Impossible`], with the name of the field.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let reader = &mut serde_json::Deserializer::from_str(text);
        let config: Self =
            serde_path_to_error::deserialize(reader).map_err(|error| ConfigError::Malformed {
                field: error.path().to_string(),
                problem: error.inner().to_string(),
            })?;
        config.check()?;
        Ok(config)
    }

    /// Checks everything that can be known without opening anything.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Impossible`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, problem: String| Err(ConfigError::Impossible { field, problem });
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return wrong("vcpus", format!("{} is not 1 to {VCPUS_MAX}", self.vcpus));
        }
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&self.memory) {
            let range = format!("{} is not {MEMORY_MIN} to {MEMORY_MAX}", self.memory);
            return wrong("memory", range);
        }
        let page = if self.hugepages { HUGE_PAGE } else { PAGE };
        if !self.memory.is_multiple_of(page) {
            return wrong(
                "memory",
                format!("{} is not a multiple of {page}", self.memory),
            );
        }
        if self.cmdline.len() >= CMDLINE_MAX {
            let length = self.cmdline.len();
            return wrong(
                "cmdline",
                format!("{length} bytes, fewer than {CMDLINE_MAX} fit"),
            );
        }
        if let Some(strange) = self
            .cmdline
            .chars()
            .find(|c| c.is_control() || !c.is_ascii())
        {
            return wrong("cmdline", format!("{strange:?} is not printable ASCII"));
        }
        if let Some(vsock) = &self.vsock
            && !(3..u64::from(u32::MAX)).contains(&vsock.cid)
        {
            return wrong("vsock.cid", format!("{} is not 3 to 4294967294", vsock.cid));
        }
        for nic in &self.nics {
            nic.address()?;
        }
        self.check_tags()
    }

    fn check_tags(&self) -> Result<(), ConfigError> {
        for (index, share) in self.shares.iter().enumerate() {
            let twice = self
                .shares
                .iter()
                .take(index)
                .any(|one| one.tag == share.tag);
            if twice || share.tag.is_empty() || share.tag.len() > 36 {
                let problem = format!("{:?} must be 1 to 36 bytes and used once", share.tag);
                return Err(ConfigError::Impossible {
                    field: "shares.tag",
                    problem,
                });
            }
        }
        Ok(())
    }
}

impl Source {
    /// Opens it for reading, and for writing too if that is asked for; a descriptor is taken as it is.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unopened`] with the name of the field.
    pub fn open(&self, field: &'static str, write: bool) -> Result<File, ConfigError> {
        let opened = match self {
            Self::Path(path) => File::options().read(true).write(write).open(path),
            Self::Fd(number) => inherited::copy(*number).map(File::from).map_err(Into::into),
        };
        opened.map_err(|source| self.unopened(field, source))
    }

    /// Opens it for a log, making it where it is a path of no file; what is there already stays.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unopened`] with the name of the field.
    pub fn log(&self, field: &'static str) -> Result<File, ConfigError> {
        let opened = match self {
            Self::Path(path) => log_at(path),
            Self::Fd(number) => inherited::copy(*number).map(File::from).map_err(Into::into),
        };
        let mut file = opened.map_err(|source| self.unopened(field, source))?;
        // What has no end, a pipe, is written to as it is.
        file.seek(SeekFrom::End(0)).map(drop).unwrap_or_default();
        Ok(file)
    }

    fn unopened(&self, field: &'static str, source: io::Error) -> ConfigError {
        let what = match self {
            Self::Path(path) => path.display().to_string(),
            Self::Fd(number) => format!("descriptor {number}"),
        };
        ConfigError::Unopened {
            field,
            what,
            source,
        }
    }
}

fn log_at(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{"vcpus": 1, "memory": 134217728, "kernel": {"path": "/k"}}"#;

    fn with(more: &str) -> Result<MachineConfig, ConfigError> {
        MachineConfig::parse(&format!(
            "{}, {more}}}",
            LEAST.trim_end_matches('}').to_owned() + "}"
        ))
    }

    #[test]
    fn the_least_machine_has_a_jail_and_acpi() {
        let config = MachineConfig::parse(LEAST).unwrap();
        assert!(config.jail.enabled);
        assert_eq!(config.discovery, Discovery::Acpi);
        assert_eq!(config.kernel, Source::Path("/k".into()));
    }

    #[test]
    fn a_document_is_read_back_as_it_was_written() {
        let config = with(r#""vsock": {"listener": 7}, "rng": true, "balloon": {}"#).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(MachineConfig::parse(&text).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (more, field) in [
            (r#""disks": [{"image": 7}]"#, "disks[0].image"),
            (r#""vsock": {"listener": 7, "cid": 2}"#, "vsock.cid"),
            (r#""cmdline": "a\nb""#, "cmdline"),
            (r#""shares": [{"tag": "", "socket": 7}]"#, "shares.tag"),
            (r#""colour": "blue""#, "colour"),
            (
                r#""nics": [{"tap": 7, "mac": "03:00:00:00:00:01"}]"#,
                "nics.mac",
            ),
            (r#""nics": [{"tap": 7, "mac": "2:0:0:0:0:1"}]"#, "nics.mac"),
        ] {
            let told = with(more).unwrap_err().to_string();
            assert!(told.starts_with(&format!("{field}: ")), "{told}");
        }
    }

    #[test]
    fn memory_and_processors_have_bounds() {
        let mut config = MachineConfig::parse(LEAST).unwrap();
        for vcpus in [0, 33] {
            config.vcpus = vcpus;
            assert!(
                config
                    .check()
                    .unwrap_err()
                    .to_string()
                    .starts_with("vcpus: ")
            );
        }
        config.vcpus = 32;
        for memory in [0, 4096, (128 << 20) + 1, u64::MAX] {
            config.memory = memory;
            assert!(
                config
                    .check()
                    .unwrap_err()
                    .to_string()
                    .starts_with("memory: ")
            );
        }
    }
}
