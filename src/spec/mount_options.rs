//! Reads the options of a mount into what the kernel's mount interface is asked for, without asking it.
//!
//! The new mount interface keeps apart what `mount(2)` threw together: attributes of one mount, attributes of a whole
//! tree of mounts, flags of the filesystem's superblock, propagation, and words that only the filesystem understands.
//! Whatever is not one of the words below is such a word.

use serde::Deserialize;
use serde::Serialize;

use super::linux::Propagation;
use super::linux::PropagationKind;
use super::mounts::Mount;

/// Attributes of a mount, the bits `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub mod attribute {
    /// Nothing can be written through the mount.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities do nothing.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be run.
    pub const NOEXEC: u64 = 0x8;
    /// All bits that tell when access times are kept. The kernel wants them cleared together.
    pub const ATIME: u64 = 0x70;
    /// Access times are kept when they would fall behind: no bit at all.
    pub const RELATIME: u64 = 0;
    /// Access times are never kept.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always kept.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never kept.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed (Linux 5.14).
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Flags of a superblock, the bits `MS_*` of `mount(2)` that mean the filesystem and not the mount.
pub mod superblock {
    /// The filesystem is never written.
    pub const RDONLY: u64 = 0x1;
    /// Every write goes to the disk at once.
    pub const SYNCHRONOUS: u64 = 0x10;
    /// Mandatory locks are allowed; without effect since Linux 5.15.
    pub const MANDLOCK: u64 = 0x40;
    /// Every change of a directory goes to the disk at once.
    pub const DIRSYNC: u64 = 0x80;
    /// Mounting makes fewer complaints in the kernel's log. Only `mount(2)` can say it.
    pub const SILENT: u64 = 0x8000;
    /// POSIX access control lists. Only `mount(2)` can say it; filesystems that have them turn them on.
    pub const POSIXACL: u64 = 0x1_0000;
    /// Files have a version number that changes with them. Only `mount(2)` can say it.
    pub const I_VERSION: u64 = 0x80_0000;
    /// Times are written to the disk late.
    pub const LAZYTIME: u64 = 0x200_0000;
}

/// Bits to turn on and bits to turn off; those in neither stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Bits to turn on.
    pub set: u64,
    /// Bits to turn off. Access-time bits stand here also when one of them is in `set`.
    pub clear: u64,
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    fn apply(&mut self, bits: Bits) {
        match bits {
            Bits::On(bit) => {
                self.set |= bit;
                self.clear &= !bit;
            }
            Bits::Off(bit) => {
                self.set &= !bit;
                self.clear |= bit;
            }
            Bits::Atime(mode) => {
                self.set = (self.set & !attribute::ATIME) | mode;
                self.clear |= attribute::ATIME;
            }
            // Takes back one rule only: `noatime,nostrictatime` is still `noatime`.
            Bits::AtimeNot(mode) => {
                let decided = self.clear & attribute::ATIME != 0;
                if !decided || self.set & attribute::ATIME == mode {
                    self.apply(Bits::Atime(attribute::RELATIME));
                }
            }
        }
    }
}

/// What one word does to a [`Change`].
#[derive(Debug, Clone, Copy)]
enum Bits {
    On(u64),
    Off(u64),
    Atime(u64),
    AtimeNot(u64),
}

/// Which mounts an option is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// The mount alone.
    Top,
    /// The mount and all below it.
    Tree,
}

/// A word for the filesystem itself, to be given by `fsconfig(2)`, which takes values of up to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOption {
    /// Its name.
    pub key: String,
    /// Its value; none for a flag.
    pub value: Option<String>,
}

impl std::fmt::Display for DataOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// All that the options of one mount say. Of contradictory words, the later one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// Whether an existing tree is shown in a second place, and with what is mounted below it or without.
    pub bind: Option<Reach>,
    /// Attributes of the mount alone, bits of [`attribute`].
    pub attributes: Change,
    /// Attributes of the mount and all mounts below it, bits of [`attribute`]; to be applied after `attributes`.
    pub recursive: Change,
    /// Flags of the filesystem, bits of [`superblock`]; without meaning for a bind mount.
    pub superblock: Change,
    /// How the mount shares with others, in the order given.
    pub propagation: Vec<Propagation>,
    /// Whether a mount that is already there is changed.
    pub remount: bool,
    /// Whether a new tmpfs gets a copy of what it covers.
    pub copy_up: bool,
    /// Whether owners are mapped, by the mappings of the mount or else of the container.
    pub id_map: Option<Reach>,
    /// Whether a symbolic link given as the source is made again instead of followed.
    pub copy_symlink: bool,
    /// Whether a symbolic link as the destination is covered itself.
    pub destination_nofollow: bool,
    /// Whether a symbolic link as the source is shown itself.
    pub source_nofollow: bool,
    /// What is left for the filesystem.
    pub data: Vec<DataOption>,
}

impl MountOptions {
    /// Reads the options of a mount. A mount of the type `bind` is one whether or not the options repeat it.
    pub fn of(mount: &Mount) -> Self {
        let mut read = Self::read(&mount.options);
        if mount.kind == "bind" && read.bind.is_none() {
            read.bind = Some(Reach::Top);
        }
        read
    }

    /// Reads a list of options.
    pub fn read<S: AsRef<str>>(options: &[S]) -> Self {
        let mut read = Self::default();
        for option in options
            .iter()
            .map(AsRef::as_ref)
            .filter(|option| !option.is_empty())
        {
            match WORDS.binary_search_by_key(&option, |(word, _)| word) {
                Ok(index) => read.apply(WORDS[index].1),
                Err(_) => read.data.push(data_option(option)),
            }
        }
        read
    }

    /// The superblock's flags as `fsconfig(2)` names them. What only `mount(2)` can say is not among them.
    pub fn superblock_words(&self) -> Vec<&'static str> {
        let on = [
            (superblock::RDONLY, "ro"),
            (superblock::SYNCHRONOUS, "sync"),
            (superblock::MANDLOCK, "mand"),
            (superblock::DIRSYNC, "dirsync"),
            (superblock::LAZYTIME, "lazytime"),
        ];
        let off = [
            (superblock::RDONLY, "rw"),
            (superblock::SYNCHRONOUS, "async"),
            (superblock::MANDLOCK, "nomand"),
            (superblock::LAZYTIME, "nolazytime"),
        ];
        let Change { set, clear } = self.superblock;
        let on = on.into_iter().filter(|(bit, _)| set & bit != 0);
        let off = off.into_iter().filter(|(bit, _)| clear & bit != 0);
        on.chain(off).map(|(_, word)| word).collect()
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Mount(bits) => self.attributes.apply(bits),
            Effect::Tree(bits) => self.recursive.apply(bits),
            Effect::Super(bits) => self.superblock.apply(bits),
            Effect::ReadOnly => {
                self.attributes.apply(Bits::On(attribute::RDONLY));
                self.superblock.apply(Bits::On(superblock::RDONLY));
            }
            Effect::Writable => {
                self.attributes.apply(Bits::Off(attribute::RDONLY));
                self.superblock.apply(Bits::Off(superblock::RDONLY));
            }
            Effect::Bind(reach) => self.bind = Some(reach),
            Effect::IdMap(reach) => self.id_map = Some(reach),
            Effect::Propagate(kind, reach) => self.propagation.push(Propagation {
                kind,
                recursive: reach == Reach::Tree,
            }),
            Effect::Remount => self.remount = true,
            Effect::CopyUp => self.copy_up = true,
            Effect::CopySymlink => self.copy_symlink = true,
            Effect::DestinationNofollow => self.destination_nofollow = true,
            Effect::SourceNofollow => self.source_nofollow = true,
        }
    }
}

/// All words that are understood here, sorted; `features` prints them. Words of a filesystem are not among them.
pub fn known_words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
}

fn data_option(option: &str) -> DataOption {
    match option.split_once('=') {
        Some((key, value)) => DataOption {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        },
        None => DataOption {
            key: option.to_owned(),
            value: None,
        },
    }
}

/// What one word asks for.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Nothing,
    Mount(Bits),
    Tree(Bits),
    Super(Bits),
    ReadOnly,
    Writable,
    Bind(Reach),
    IdMap(Reach),
    Propagate(PropagationKind, Reach),
    Remount,
    CopyUp,
    CopySymlink,
    DestinationNofollow,
    SourceNofollow,
}

use self::Bits::Atime;
use self::Bits::AtimeNot;
use self::Bits::Off;
use self::Bits::On;
use self::Effect as E;
use self::PropagationKind as P;
use self::attribute as a;
use self::superblock as s;

/// Sorted by the word: it is searched by halves. `norelatime` does nothing, as in `mount(8)`: it names no other rule.
const WORDS: &[(&str, Effect)] = &[
    ("acl", E::Super(On(s::POSIXACL))),
    ("async", E::Super(Off(s::SYNCHRONOUS))),
    ("atime", E::Mount(AtimeNot(a::NOATIME))),
    ("bind", E::Bind(Reach::Top)),
    ("copy-symlink", E::CopySymlink),
    ("defaults", E::Nothing),
    ("dest-nofollow", E::DestinationNofollow),
    ("dev", E::Mount(Off(a::NODEV))),
    ("diratime", E::Mount(Off(a::NODIRATIME))),
    ("dirsync", E::Super(On(s::DIRSYNC))),
    ("exec", E::Mount(Off(a::NOEXEC))),
    ("idmap", E::IdMap(Reach::Top)),
    ("iversion", E::Super(On(s::I_VERSION))),
    ("lazytime", E::Super(On(s::LAZYTIME))),
    ("loud", E::Super(Off(s::SILENT))),
    ("mand", E::Super(On(s::MANDLOCK))),
    ("noacl", E::Super(Off(s::POSIXACL))),
    ("noatime", E::Mount(Atime(a::NOATIME))),
    ("nodev", E::Mount(On(a::NODEV))),
    ("nodiratime", E::Mount(On(a::NODIRATIME))),
    ("noexec", E::Mount(On(a::NOEXEC))),
    ("noiversion", E::Super(Off(s::I_VERSION))),
    ("nolazytime", E::Super(Off(s::LAZYTIME))),
    ("nomand", E::Super(Off(s::MANDLOCK))),
    ("norelatime", E::Nothing),
    ("nostrictatime", E::Mount(AtimeNot(a::STRICTATIME))),
    ("nosuid", E::Mount(On(a::NOSUID))),
    ("nosymfollow", E::Mount(On(a::NOSYMFOLLOW))),
    ("private", E::Propagate(P::Private, Reach::Top)),
    ("ratime", E::Tree(AtimeNot(a::NOATIME))),
    ("rbind", E::Bind(Reach::Tree)),
    ("rdev", E::Tree(Off(a::NODEV))),
    ("rdiratime", E::Tree(Off(a::NODIRATIME))),
    ("relatime", E::Mount(Atime(a::RELATIME))),
    ("remount", E::Remount),
    ("rexec", E::Tree(Off(a::NOEXEC))),
    ("ridmap", E::IdMap(Reach::Tree)),
    ("rnoatime", E::Tree(Atime(a::NOATIME))),
    ("rnodev", E::Tree(On(a::NODEV))),
    ("rnodiratime", E::Tree(On(a::NODIRATIME))),
    ("rnoexec", E::Tree(On(a::NOEXEC))),
    ("rnorelatime", E::Nothing),
    ("rnostrictatime", E::Tree(AtimeNot(a::STRICTATIME))),
    ("rnosuid", E::Tree(On(a::NOSUID))),
    ("rnosymfollow", E::Tree(On(a::NOSYMFOLLOW))),
    ("ro", E::ReadOnly),
    ("rprivate", E::Propagate(P::Private, Reach::Tree)),
    ("rrelatime", E::Tree(Atime(a::RELATIME))),
    ("rro", E::Tree(On(a::RDONLY))),
    ("rrw", E::Tree(Off(a::RDONLY))),
    ("rshared", E::Propagate(P::Shared, Reach::Tree)),
    ("rslave", E::Propagate(P::Slave, Reach::Tree)),
    ("rstrictatime", E::Tree(Atime(a::STRICTATIME))),
    ("rsuid", E::Tree(Off(a::NOSUID))),
    ("rsymfollow", E::Tree(Off(a::NOSYMFOLLOW))),
    ("runbindable", E::Propagate(P::Unbindable, Reach::Tree)),
    ("rw", E::Writable),
    ("shared", E::Propagate(P::Shared, Reach::Top)),
    ("silent", E::Super(On(s::SILENT))),
    ("slave", E::Propagate(P::Slave, Reach::Top)),
    ("src-nofollow", E::SourceNofollow),
    ("strictatime", E::Mount(Atime(a::STRICTATIME))),
    ("suid", E::Mount(Off(a::NOSUID))),
    ("symfollow", E::Mount(Off(a::NOSYMFOLLOW))),
    ("sync", E::Super(On(s::SYNCHRONOUS))),
    ("tmpcopyup", E::CopyUp),
    ("unbindable", E::Propagate(P::Unbindable, Reach::Top)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted_so_that_they_are_found() {
        assert!(WORDS.is_sorted_by(|one, next| one.0 < next.0));
    }

    #[test]
    fn attributes_of_the_mount_and_of_the_tree_are_kept_apart() {
        let read = MountOptions::read(&["rbind", "nosuid", "rro", "exec"]);
        assert_eq!(read.bind, Some(Reach::Tree));
        assert_eq!(
            read.attributes,
            Change {
                set: a::NOSUID,
                clear: a::NOEXEC
            }
        );
        assert_eq!(
            read.recursive,
            Change {
                set: a::RDONLY,
                clear: 0
            }
        );
    }

    #[test]
    fn of_two_contradictory_words_the_later_one_counts() {
        let read = MountOptions::read(&["nodev", "dev", "suid", "nosuid"]);
        assert_eq!(
            read.attributes,
            Change {
                set: a::NOSUID,
                clear: a::NODEV
            }
        );
    }

    #[test]
    fn a_rule_for_access_times_replaces_the_one_before() {
        let read = MountOptions::read(&["noatime", "strictatime"]);
        assert_eq!(
            read.attributes,
            Change {
                set: a::STRICTATIME,
                clear: a::ATIME
            }
        );
        let read = MountOptions::read(&["rnoatime", "ratime"]);
        assert_eq!(
            read.recursive,
            Change {
                set: 0,
                clear: a::ATIME
            }
        );
    }

    #[test]
    fn taking_back_a_rule_for_access_times_leaves_another_one_alone() {
        let read = MountOptions::read(&["noatime", "nostrictatime"]);
        assert_eq!(read.attributes.set, a::NOATIME);
        let read = MountOptions::read(&["strictatime", "atime"]);
        assert_eq!(read.attributes.set, a::STRICTATIME);
    }

    #[test]
    fn read_only_means_the_mount_and_the_filesystem() {
        let read = MountOptions::read(&["ro"]);
        assert_eq!(read.attributes.set, a::RDONLY);
        assert_eq!(read.superblock_words(), ["ro"]);
        let read = MountOptions::read(&["ro", "rw"]);
        assert_eq!(
            read.attributes,
            Change {
                set: 0,
                clear: a::RDONLY
            }
        );
        assert_eq!(read.superblock_words(), ["rw"]);
    }

    #[test]
    fn flags_of_the_filesystem_are_not_left_to_it_as_words() {
        let words = [
            "iversion", "lazytime", "silent", "sync", "dirsync", "mand", "acl",
        ];
        let read = MountOptions::read(&words);
        assert_eq!(read.data, []);
        assert_eq!(read.superblock.set, 0x280_0000 | 0x1_8000 | 0xd0);
        assert_eq!(
            read.superblock_words(),
            ["sync", "mand", "dirsync", "lazytime"]
        );
    }

    #[test]
    fn unknown_words_are_left_to_the_filesystem() {
        let read = MountOptions::read(&["", "size=64k", "lowerdir=/a=b:/c", "noswap"]);
        let read: Vec<String> = read.data.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["size=64k", "lowerdir=/a=b:/c", "noswap"]);
    }

    #[test]
    fn propagation_keeps_its_order() {
        let read = MountOptions::read(&["rslave", "shared"]);
        let read: Vec<String> = read.propagation.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["rslave", "shared"]);
    }

    #[test]
    fn a_mount_of_the_type_bind_needs_no_option_to_be_one() {
        let mount = Mount {
            kind: "bind".to_owned(),
            ..Mount::default()
        };
        assert_eq!(MountOptions::of(&mount).bind, Some(Reach::Top));
    }

    #[test]
    fn all_eighteen_recursive_attributes_reach_the_whole_tree() {
        let words = [
            "rro",
            "rrw",
            "rnosuid",
            "rsuid",
            "rnodev",
            "rdev",
            "rnoexec",
            "rexec",
            "rnodiratime",
            "rdiratime",
            "rrelatime",
            "rnorelatime",
            "rnoatime",
            "ratime",
            "rstrictatime",
            "rnostrictatime",
            "rnosymfollow",
            "rsymfollow",
        ];
        for word in words {
            let read = MountOptions::read(&[word]);
            let rest = MountOptions {
                recursive: Change::default(),
                ..read
            };
            assert_eq!(rest, MountOptions::default(), "{word}");
        }
    }
}
