//! The directory of a host's guests: adds, finds and removes them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

use crate::guest::error::GuestError;
use crate::guest::initramfs;
use crate::guest::kernel;
use crate::guest::modules;
use crate::guest::modules::Modules;
use crate::sys::tree;

/// The kernel.
const KERNEL: &str = "vmlinux";
/// The first files.
const INITRAMFS: &str = "initramfs";
/// What is known.
const ABOUT: &str = "guest.json";
/// The guests that are taken unless another is named, the first that is there.
const USUAL: [&str; 2] = ["slim", "stock"];
/// How the directories begin in which guests are made.
const UNFINISHED: &str = ".new-";

/// The words on the command line of every guest: with them it boots without waiting for what our machines do not have, says
/// nothing but what is urgent, and ends when it panics: by the keyboard controller's line to the reset, which a processor that
/// cannot go on does not pull.
///
/// Nothing in it takes a protection of the kernel away.
pub const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=k tsc=reliable no_timer_check \
    cryptomgr.notests random.trust_cpu=on swiotlb=noforce rcupdate.rcu_expedited=1 8250.nr_uarts=1 \
    i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd";

/// What is known about a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The kernel's version, as `uname -r` will say it.
    pub kernel: String,
    /// The file that it came from.
    pub source: PathBuf,
    /// The digest of `vmlinux`.
    pub kernel_sha256: String,
    /// The digest of `initramfs`.
    pub initramfs_sha256: String,
    /// Whether the kernel finds its devices by ACPI; otherwise they stand on its command line.
    pub acpi: bool,
    /// The modules that are loaded at once, in order.
    pub modules: Vec<String>,
    /// When it was added, in seconds since 1970.
    pub added: u64,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub directory: PathBuf,
    /// What is known about it.
    pub about: About,
}

impl Guest {
    /// The kernel, an ELF file.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(KERNEL)
    }

    /// The first files, an archive that is not packed.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.directory.join(INITRAMFS)
    }
}

/// What a guest is made of.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// What it will be called; one of this name is replaced.
    pub name: &'a str,
    /// An ELF file or a bzImage.
    pub kernel: &'a Path,
    /// The directory of its modules, `lib/modules/VERSION`; none where all is built in.
    pub modules: Option<&'a Path>,
    /// The agent's binary.
    pub agent: &'a Path,
    /// The configuration that the kernel was built with; without it, it is taken for one with ACPI.
    pub config: Option<&'a Path>,
}

/// The guests of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    home: PathBuf,
}

impl Guests {
    /// Those in `data`, the directory of what outlives the host's uptime.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            home: data.join("guests"),
        }
    }

    /// Whether there is nothing in the directory, or no directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let entries = std::fs::read_dir(&self.home);
        entries.map_or(true, |mut entries| entries.next().is_none())
    }

    /// All of them, by name.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be read, or a guest in it is damaged.
    pub fn list(&self) -> Result<Vec<Guest>, GuestError> {
        let entries = match std::fs::read_dir(&self.home) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(GuestError::file("read", &self.home))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut guests = BTreeMap::new();
        for name in names.filter_map(|name| name.into_string().ok()) {
            if checked(&name).is_ok() {
                guests.insert(name.clone(), self.find(&name)?);
            }
        }
        Ok(guests.into_values().collect())
    }

    /// The guest of this name.
    ///
    /// # Errors
    ///
    /// [`GuestError::Missing`] when there is none.
    pub fn find(&self, name: &str) -> Result<Guest, GuestError> {
        checked(name)?;
        let directory = self.home.join(name);
        let path = directory.join(ABOUT);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(GuestError::Missing {
                    name: name.to_owned(),
                });
            }
            text => text.map_err(GuestError::file("read", &path))?,
        };
        let about = serde_json::from_slice(&text);
        Ok(Guest {
            name: name.to_owned(),
            directory,
            about: about.map_err(|source| GuestError::About { path, source })?,
        })
    }

    /// The guest that is booted unless another is named: the slim one if it is there, or else the stock one, or else
    /// the first.
    ///
    /// # Errors
    ///
    /// [`GuestError::None`] says how one is made.
    pub fn usual(&self) -> Result<Guest, GuestError> {
        for name in USUAL {
            match self.find(name) {
                Err(GuestError::Missing { .. }) => {}
                answer => return answer,
            }
        }
        self.list()?.into_iter().next().ok_or(GuestError::None)
    }

    /// The guest whose kernel a configuration names: by the guest's name, by its directory or by its file; `None` when
    /// the kernel is no guest's.
    ///
    /// # Errors
    ///
    /// As [`Guests::list`].
    pub fn meant_by(&self, kernel: &Path) -> Result<Option<Guest>, GuestError> {
        let meant = |guest: &Guest| {
            kernel == Path::new(&guest.name)
                || kernel == guest.directory
                || kernel == guest.kernel()
        };
        Ok(self.list()?.into_iter().find(meant))
    }

    /// Adds a guest; one of this name is replaced. Machines that run keep the one that they have.
    ///
    /// # Errors
    ///
    /// [`GuestError`] names the option at fault; nothing has changed then.
    pub fn add(&self, new: &New<'_>) -> Result<Guest, GuestError> {
        checked(new.name)?;
        let image = std::fs::read(new.kernel).map_err(GuestError::file("read", new.kernel))?;
        let kernel = kernel::unpack(image, new.kernel)?;
        let signed = wants_signatures(new.config)?;
        let chosen = |directory| modules::choose(directory, signed);
        let modules = new.modules.map(chosen).transpose()?;
        let modules = modules.unwrap_or_else(Modules::default);
        let agent = std::fs::read(new.agent).map_err(GuestError::file("read", new.agent))?;
        if !is_static(&agent) {
            return Err(GuestError::NotStatic {
                path: new.agent.to_owned(),
            });
        }
        let archive = initramfs::build(&agent, &modules).ok_or_else(|| GuestError::File {
            what: "put together the first files with",
            path: new.agent.to_owned(),
            source: std::io::ErrorKind::FileTooLarge.into(),
        })?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let about = About {
            kernel: kernel.version,
            source: std::path::absolute(new.kernel).unwrap_or_else(|_| new.kernel.to_owned()),
            kernel_sha256: digest(&kernel.elf),
            initramfs_sha256: digest(&archive),
            acpi: has_acpi(new.config)?,
            modules: modules.first,
            added: now.map(|now| now.as_secs()).unwrap_or_default(),
        };
        self.put(new.name, &about, &kernel.elf, &archive)?;
        self.find(new.name)
    }

    fn put(
        &self,
        name: &str,
        about: &About,
        kernel: &[u8],
        archive: &[u8],
    ) -> Result<(), GuestError> {
        let fresh = self
            .home
            .join(format!("{UNFINISHED}{name}-{}", std::process::id()));
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(&fresh);
        made.map_err(GuestError::file("make", &fresh))?;
        let text = serde_json::to_vec_pretty(about).unwrap_or_default();
        let files = [(KERNEL, kernel), (INITRAMFS, archive), (ABOUT, &text)];
        let filled = files
            .into_iter()
            .try_for_each(|(file, bytes)| write(&fresh.join(file), bytes));
        let placed = filled.and_then(|()| self.place(&fresh, name));
        if placed.is_err() {
            // What is left of it is in nobody's way, and the first error says more.
            self.remove_directory(&fresh).unwrap_or_default();
        }
        placed
    }

    /// Puts a finished directory in its place; one that is there already changes places with it and is removed.
    fn place(&self, fresh: &Path, name: &str) -> Result<(), GuestError> {
        use rustix::fs::CWD;
        use rustix::fs::RenameFlags;
        let place = self.home.join(name);
        let renamed = |flags| rustix::fs::renameat_with(CWD, fresh, CWD, &place, flags);
        match renamed(RenameFlags::EXCHANGE) {
            Ok(()) => self.remove_directory(fresh),
            Err(rustix::io::Errno::NOENT) => renamed(RenameFlags::NOREPLACE)
                .map_err(|errno| GuestError::file("put in place", &place)(errno.into())),
            Err(errno) => Err(GuestError::file("put in place", &place)(errno.into())),
        }
    }

    /// Removes a guest. Machines that run keep what they have of it.
    ///
    /// # Errors
    ///
    /// [`GuestError::Missing`] when there is none of that name.
    pub fn remove(&self, name: &str) -> Result<(), GuestError> {
        checked(name)?;
        let directory = self.home.join(name);
        if !directory.is_dir() {
            return Err(GuestError::Missing {
                name: name.to_owned(),
            });
        }
        self.remove_directory(&directory)
    }

    fn remove_directory(&self, directory: &Path) -> Result<(), GuestError> {
        let home = std::fs::File::open(&self.home).map_err(GuestError::file("open", &self.home))?;
        let name = directory.file_name().unwrap_or(OsStr::new(""));
        let removed = tree::remove(&home, name);
        removed.map_err(|left| GuestError::file("remove", directory)(left.source.into()))
    }
}

/// A name that is one part of a path, and not hidden.
fn checked(name: &str) -> Result<(), GuestError> {
    let fits = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    fits.then_some(()).ok_or_else(|| GuestError::Name {
        name: name.to_owned(),
    })
}

/// Pages of zeroes become holes: a third of a distribution's kernel, which then is neither read nor moved at a boot.
fn write(path: &Path, bytes: &[u8]) -> Result<(), GuestError> {
    const PAGE: usize = 4096;
    let failed = |error| GuestError::file("write", path)(error);
    let file = std::fs::File::create(path).map_err(failed)?;
    file.set_len(bytes.len() as u64).map_err(failed)?;
    for (page, at) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, at).map_err(failed)?;
        }
    }
    file.sync_all().map_err(failed)
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a kernel finds devices by ACPI, as its configuration says.
fn has_acpi(config: Option<&Path>) -> Result<bool, GuestError> {
    let Some(path) = config else { return Ok(true) };
    let text = std::fs::read_to_string(path).map_err(GuestError::file("read", path))?;
    Ok(text.lines().any(|line| line == "CONFIG_ACPI=y"))
}

/// Whether a kernel takes modules only with their signatures, as its configuration says, or may.
fn wants_signatures(config: Option<&Path>) -> Result<bool, GuestError> {
    const STRICT: [&str; 3] = [
        "CONFIG_MODULE_SIG_FORCE=y",
        "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y",
        "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y",
    ];
    let Some(path) = config else { return Ok(true) };
    let text = std::fs::read_to_string(path).map_err(GuestError::file("read", path))?;
    Ok(text.lines().any(|line| STRICT.contains(&line)))
}

/// Whether a program needs no other file to run: it has no interpreter (`PT_INTERP`).
fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| {
        let mut bytes = [0; 8];
        let part = elf.get(at..at + length)?;
        bytes[..length].copy_from_slice(part);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((begin, size, count)) = headers().filter(|_| kernel::is_elf(elf)) else {
        return false;
    };
    (0..count).all(|index| {
        let kind = begin.checked_add(index * size).and_then(|at| number(at, 4));
        kind.is_some_and(|kind| kind != INTERPRETER as usize)
    })
}
