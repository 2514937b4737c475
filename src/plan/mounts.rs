//! Plans the tree: what is mounted where, which devices stand in it, what is hidden.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::plan::Options;
use crate::plan::error::PlanError;
use crate::plan::namespaces;
use crate::plan::namespaces::Namespaces;
use crate::plan::step::Attributes;
use crate::plan::step::Bind;
use crate::plan::step::Device;
use crate::plan::step::Filesystem;
use crate::plan::step::Idmap;
use crate::plan::step::Remount;
use crate::plan::step::Step;
use crate::spec::Spec;
use crate::spec::linux::DeviceKind;
use crate::spec::linux::Propagation;
use crate::spec::linux::PropagationKind;
use crate::spec::mount_options::MountOptions;
use crate::spec::mount_options::Reach;
use crate::spec::mounts::Mount;

/// `MS_UNBINDABLE`.
const UNBINDABLE: u64 = 1 << 17;
/// `MS_PRIVATE`.
const PRIVATE: u64 = 1 << 18;
/// `MS_SLAVE`.
const SLAVE: u64 = 1 << 19;
/// `MS_SHARED`.
pub(super) const SHARED: u64 = 1 << 20;

/// The devices that every workspace has (runtime-spec `config-linux.md`, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// The links that every workspace has.
const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// The kernel's number for a propagation.
pub(super) fn propagation(wanted: Propagation) -> u64 {
    match wanted.kind {
        PropagationKind::Private => PRIVATE,
        PropagationKind::Shared => SHARED,
        PropagationKind::Slave => SLAVE,
        PropagationKind::Unbindable => UNBINDABLE,
    }
}

/// How the mounts that were inherited propagate: as was asked, and by default so that events come in
/// and none go out.
pub(super) fn inherited(spec: &Spec) -> u64 {
    match spec.linux.rootfs_propagation {
        Some(Propagation {
            kind: PropagationKind::Unbindable,
            ..
        }) => PRIVATE,
        Some(wanted) => propagation(wanted),
        None => SLAVE,
    }
}

/// The steps that mount what the spec lists.
pub(super) fn mounts(
    spec: &Spec,
    namespaces: &Namespaces,
    options: &Options,
) -> Result<Vec<Step>, PlanError> {
    let one = |(index, mount)| {
        Planned {
            spec,
            namespaces,
            options,
            index,
            mount,
        }
        .step()
    };
    spec.mounts.iter().enumerate().map(one).collect()
}

/// One mount of the spec, with all that it depends on.
struct Planned<'a> {
    spec: &'a Spec,
    namespaces: &'a Namespaces,
    options: &'a Options,
    index: usize,
    mount: &'a Mount,
}

impl Planned<'_> {
    fn step(&self) -> Result<Step, PlanError> {
        let read = MountOptions::of(self.mount);
        let destination = absolute(&self.mount.destination);
        if read.remount {
            return Ok(Step::Remount(Box::new(Remount {
                options: if read.bind.is_some() {
                    Vec::new()
                } else {
                    filesystem_options(&read, |_| true)
                },
                attributes: attributes(&read),
                destination,
            })));
        }
        if read.bind.is_some() {
            return self.bind(&read, destination);
        }
        match self.mount.kind.as_str() {
            "cgroup" | "cgroup2" => Ok(self.cgroup(&read, destination)),
            _ => Ok(Step::Mount(Box::new(self.filesystem(&read, destination)))),
        }
    }

    fn bind(&self, read: &MountOptions, destination: PathBuf) -> Result<Step, PlanError> {
        Ok(Step::Bind(Box::new(Bind {
            source: self.options.bundle.join(&self.mount.source),
            destination,
            recursive: read.bind == Some(Reach::Tree),
            attributes: attributes(read),
            idmap: idmap(self.spec, self.namespaces, self.index, self.mount)?,
            follow: !read.source_nofollow && !read.copy_symlink,
            follow_destination: !read.destination_nofollow,
            copy_link: read.copy_symlink,
        })))
    }

    /// The cgroup file system: seen from the workspace's own cgroup namespace, or its own directory of it.
    fn cgroup(&self, read: &MountOptions, destination: PathBuf) -> Step {
        if self.namespaces.has(namespaces::CGROUP) {
            return Step::Mount(Box::new(Filesystem {
                kind: "cgroup2".to_owned(),
                options: Vec::new(),
                otherwise: self.options.cgroup.clone(),
                ..self.filesystem(read, destination)
            }));
        }
        Step::Bind(Box::new(Bind {
            source: self
                .options
                .cgroup
                .clone()
                .unwrap_or_else(|| "/sys/fs/cgroup".into()),
            destination,
            attributes: attributes(read),
            follow: true,
            follow_destination: true,
            ..Bind::default()
        }))
    }

    fn filesystem(&self, read: &MountOptions, destination: PathBuf) -> Filesystem {
        let kind = self.mount.kind.clone();
        let source = match self.mount.source.as_str() {
            "" => kind.clone(),
            source => source.to_owned(),
        };
        // Others are filled and mounted into first; a disk that is not to be written to is not opened for it either.
        let on_disk = self.mount.is_on_disk();
        let mut options = filesystem_options(read, |word| on_disk || !matches!(word, "ro" | "rw"));
        if self.mount.is_fixed() && !options.iter().any(|(word, _)| word == "ro") {
            options.push(("ro".to_owned(), None));
        }
        let label = &self.spec.linux.mount_label;
        if !label.is_empty() && !matches!(kind.as_str(), "proc" | "sysfs" | "mqueue") {
            options.push(("context".to_owned(), Some(label.clone())));
        }
        let otherwise = self.stand_in(&kind);
        Filesystem {
            ordinary: matches!(kind.as_str(), "proc" | "sysfs"),
            destination,
            kind,
            source,
            options,
            attributes: attributes(read),
            copy_up: read.copy_up,
            otherwise,
        }
    }

    /// What is shown where the kernel refuses a file system to a user namespace: the host's own, where that shows no
    /// more than the workspace would see in any case.
    fn stand_in(&self, kind: &str) -> Option<PathBuf> {
        let confined = self.namespaces.has(namespaces::USER) || self.options.nested;
        let shares_processes = !self.namespaces.has(namespaces::PID);
        match kind {
            "sysfs" if confined => Some(PathBuf::from("/sys")),
            "proc" if confined && shares_processes => Some(PathBuf::from("/proc")),
            _ => None,
        }
    }
}

/// The owners that a bind mount is shown with: its own mappings, or those of the workspace's user namespace.
pub(super) fn idmap(
    spec: &Spec,
    namespaces: &Namespaces,
    index: usize,
    mount: &Mount,
) -> Result<Option<Idmap>, PlanError> {
    let read = MountOptions::of(mount);
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if read.id_map.is_none() && !own {
        return Ok(None);
    }
    if !own && !namespaces.has(namespaces::USER) {
        return Err(PlanError::NoMappings { index });
    }
    let recursive = read.id_map == Some(Reach::Tree);
    let (users, groups) = if own {
        (&mount.uid_mappings, &mount.gid_mappings)
    } else {
        (&spec.linux.uid_mappings, &spec.linux.gid_mappings)
    };
    let (users, groups) = (namespaces::lines(users), namespaces::lines(groups));
    Ok(Some(Idmap {
        users,
        groups,
        recursive,
    }))
}

/// What the file system is told: those words of its superblock that are wanted, and what is its own.
fn filesystem_options(
    read: &MountOptions,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(String, Option<String>)> {
    let words = read.superblock_words().into_iter();
    let words = words
        .filter(|word| wanted(word))
        .map(|word| (word.to_owned(), None));
    let data = read.data.iter();
    words
        .chain(data.map(|option| (option.key.clone(), option.value.clone())))
        .collect()
}

fn attributes(read: &MountOptions) -> Attributes {
    Attributes {
        set: read.attributes.set,
        clear: read.attributes.clear,
        set_below: read.recursive.set,
        clear_below: read.recursive.clear,
        propagation: read
            .propagation
            .iter()
            .map(|wanted| (propagation(*wanted), wanted.recursive))
            .collect(),
    }
}

/// A path inside: relative ones are meant from the root on, and dots are resolved in the text.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The steps that put devices and links into `/dev`, unless the spec binds a whole `/dev` of its own.
pub(super) fn devices(spec: &Spec, namespaces: &Namespaces) -> Vec<Step> {
    let own = spec.mounts.iter().any(|mount| {
        absolute(&mount.destination) == Path::new("/dev") && MountOptions::of(mount).bind.is_some()
    });
    if own {
        return Vec::new();
    }
    let bind = namespaces.has(namespaces::USER);
    let asked = |path: &str| {
        spec.linux
            .devices
            .iter()
            .any(|device| device.path == Path::new(path))
    };
    let usual = DEFAULT_DEVICES
        .iter()
        .filter(|(path, ..)| !asked(path))
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: 'c',
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            bind,
        });
    let asked = spec.linux.devices.iter().map(|device| Device {
        path: absolute(&device.path),
        kind: match device.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
            DeviceKind::Fifo => 'p',
        },
        major: number_of(device.major),
        minor: number_of(device.minor),
        mode: device.file_mode.unwrap_or(0o666),
        uid: device.uid.unwrap_or_default(),
        gid: device.gid.unwrap_or_default(),
        bind: bind && device.kind != DeviceKind::Fifo,
    });
    let links = DEFAULT_LINKS.iter().map(|(path, target)| Step::Symlink {
        path: PathBuf::from(path),
        target: PathBuf::from(target),
    });
    usual.chain(asked).map(Step::Device).chain(links).collect()
}

/// A device number, which was checked when the configuration was.
fn number_of(asked: Option<i64>) -> u32 {
    asked
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or_default()
}

/// The steps that hide paths and make paths read-only.
pub(super) fn concealed(spec: &Spec) -> impl Iterator<Item = Step> + '_ {
    let fixed = spec
        .linux
        .readonly_paths
        .iter()
        .map(|path| Step::Readonly(absolute(path)));
    let hidden = spec
        .linux
        .masked_paths
        .iter()
        .map(|path| Step::Mask(absolute(path)));
    fixed.chain(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_in_a_destination_do_not_leave_the_root() {
        assert_eq!(
            absolute(Path::new("../../etc/./x/../passwd")),
            Path::new("/etc/passwd")
        );
    }
}
