//! Where the state of workspaces is kept.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

use crate::guest::Guests;

/// Where root keeps it.
const SYSTEM: &str = "/run/bulkhead";
/// Where root keeps what outlives the host's uptime.
const SYSTEM_DATA: &str = "/var/lib/bulkhead";
/// What the host's administrator says about its capacity.
const SYSTEM_HOST: &str = "/etc/bulkhead/host.toml";

/// The directory of all workspaces' state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    /// The directory, absolute.
    pub path: PathBuf,
    /// Whether it lies in `$XDG_RUNTIME_DIR`, whose files are swept away unless they are sticky.
    pub swept: bool,
    /// The directory of what outlives the host's uptime: the ledger, unpacked images, writable layers, logs.
    pub data: PathBuf,
    /// The file in which the host's administrator says what may be promised.
    pub host: PathBuf,
}

/// A directory cannot be the root of the state.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The host's own root was named.
    #[error("--root: {path:?} must not be the root directory")]
    Whole {
        /// As it was given.
        path: PathBuf,
    },
    /// A relative path was given, and the present directory cannot be found.
    #[error("--root: {path:?} cannot be made absolute")]
    NoDirectory {
        /// As it was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the choice depends on; a struct so that tests can make it.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    effective_uid: u32,
    in_user_namespace: bool,
    user: Option<OsString>,
    runtime_directory: Option<OsString>,
    data_directory: Option<PathBuf>,
}

impl StateRoot {
    /// The root that `--root` names, or else the one that callers without `--root` expect.
    ///
    /// `rootless` overrides what is found about the user (`--rootless true|false`).
    ///
    /// # Errors
    ///
    /// [`RootError`] when the named directory cannot be used.
    pub fn choose(given: Option<&Path>, rootless: Option<bool>) -> Result<Self, RootError> {
        if let Some(path) = given {
            return Self::named(path);
        }
        Ok(Self::default_in(&Surroundings::found(), rootless))
    }

    fn named(path: &Path) -> Result<Self, RootError> {
        let absolute = std::path::absolute(path).map_err(|source| RootError::NoDirectory {
            path: path.to_owned(),
            source,
        })?;
        if absolute.components().count() <= 1 {
            return Err(RootError::Whole {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            data: absolute.join("@data"),
            host: absolute.join("@host.toml"),
            path: absolute,
            swept: false,
        })
    }

    fn default_in(around: &Surroundings, rootless: Option<bool>) -> Self {
        let found = around.effective_uid != 0
            || (around.in_user_namespace
                && around.user.as_deref().is_none_or(|user| user != "root"));
        let own = around
            .runtime_directory
            .as_ref()
            .filter(|directory| !directory.is_empty());
        match own.filter(|_| rootless.unwrap_or(found)) {
            Some(directory) => {
                let path = Path::new(directory).join("bulkhead");
                let data = around.data_directory.clone();
                Self {
                    data: data.unwrap_or_else(|| path.join("@data")),
                    host: path.join("@host.toml"),
                    path,
                    swept: true,
                }
            }
            None => Self {
                path: SYSTEM.into(),
                swept: false,
                data: SYSTEM_DATA.into(),
                host: SYSTEM_HOST.into(),
            },
        }
    }

    /// Where the guests are that its machines boot: its own, or if it has none those of the host. Callers that name a root
    /// of their own (containerd, Docker) know nothing of guests.
    #[must_use]
    pub fn guests(&self) -> Guests {
        self.guests_or(&Self::default_in(&Surroundings::found(), None))
    }

    fn guests_or(&self, usual: &Self) -> Guests {
        let own = Guests::new(&self.data);
        match own.is_empty() {
            true => Guests::new(&usual.data),
            false => own,
        }
    }

    /// A file or directory that belongs to all workspaces of this root. No workspace can have a name with `@` in it.
    #[must_use]
    pub fn shared(&self, name: &str) -> PathBuf {
        self.path.join(format!("@{name}"))
    }
}

impl Surroundings {
    /// Rootless podman calls us as uid 0 of its user namespace, with `XDG_RUNTIME_DIR` and without `USER`; for root
    /// it sets `XDG_RUNTIME_DIR` to nothing.
    fn found() -> Self {
        let runtime_directory =
            std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
        if runtime_directory.is_none() {
            return Self::default();
        }
        let effective_uid = rustix::process::geteuid().as_raw();
        let in_user_namespace = effective_uid == 0 && in_user_namespace();
        Self {
            effective_uid,
            in_user_namespace,
            user: std::env::var_os("USER"),
            runtime_directory,
            data_directory: data_directory(),
        }
    }
}

/// Where the user keeps data (XDG Base Directory Specification).
fn data_directory() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|path| !path.is_empty());
    let own = set("XDG_DATA_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(Path::new(&set("HOME")?).join(".local/share")));
    own.map(|directory| directory.join("bulkhead"))
}

/// Whether ids are mapped: the first user namespace maps all of them to themselves in one line.
pub(super) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    fields != ["0", "0", "4294967295"] && !fields.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(uid: u32, mapped: bool, user: Option<&str>, directory: Option<&str>) -> PathBuf {
        let around = Surroundings {
            effective_uid: uid,
            in_user_namespace: mapped,
            user: user.map(OsString::from),
            runtime_directory: directory.map(OsString::from),
            data_directory: None,
        };
        StateRoot::default_in(&around, None).path
    }

    #[test]
    fn a_root_without_guests_of_its_own_has_those_of_the_host() {
        let home = tempfile::tempdir().unwrap();
        let [own, usual] =
            ["own", "usual"].map(|name| StateRoot::named(&home.path().join(name)).unwrap());
        let is_of = |root: &StateRoot| own.guests_or(&usual) == Guests::new(&root.data);
        assert!(is_of(&usual));
        std::fs::create_dir_all(own.data.join("guests")).unwrap();
        assert!(is_of(&usual));
        std::fs::create_dir(own.data.join("guests/slim")).unwrap();
        assert!(is_of(&own));
    }

    #[test]
    fn root_keeps_its_state_in_run() {
        assert_eq!(
            chosen(0, false, None, Some("/run/user/0")),
            Path::new("/run/bulkhead")
        );
        assert_eq!(chosen(0, false, None, None), Path::new("/run/bulkhead"));
    }

    #[test]
    fn root_of_a_user_namespace_keeps_it_in_its_runtime_directory() {
        assert_eq!(
            chosen(0, true, None, Some("/run/user/1")),
            Path::new("/run/user/1/bulkhead")
        );
        assert_eq!(
            chosen(0, true, Some("root"), Some("/run/user/1")),
            Path::new("/run/bulkhead")
        );
    }

    #[test]
    fn users_keep_it_in_their_runtime_directory() {
        assert_eq!(
            chosen(7, false, Some("u"), Some("/run/user/7")),
            Path::new("/run/user/7/bulkhead")
        );
        assert_eq!(
            chosen(7, false, Some("u"), Some("")),
            Path::new("/run/bulkhead")
        );
    }

    #[test]
    fn the_hosts_own_root_is_refused() {
        assert!(StateRoot::choose(Some(Path::new("/")), None).is_err());
        assert!(StateRoot::choose(Some(Path::new("/run/x/")), None).is_ok());
    }
}
