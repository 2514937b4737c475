//! Where the cgroup of a workspace is: a pure function of `linux.cgroupsPath`, the id and the manager.
//!
//! Because it is one, a workspace whose state is lost can still be found and removed. A path that is absolute starts
//! at the root of the cgroup mount; one that is relative, or missing, starts at the parent of the caller's own group,
//! since a group that has processes in it cannot have children with limits.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::defence::Defence;
use crate::host::Host;
use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::Manager;
use crate::plan::cgroup::Options;
use crate::plan::cgroup::Request;

/// What a scope's name begins with unless the bundle says otherwise.
const PREFIX: &str = "bulkhead";

/// The group that workspaces are weighed against each other in, and where a workspace with a guarantee goes by itself.
/// Others may be named after it: `bulkhead-NAME`.
const POOL: &str = "bulkhead";
/// The same where systemd makes it.
const SLICE: &str = "bulkhead.slice";

/// Where a workspace is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Place {
    /// In the cgroup of whoever started it.
    #[default]
    Nowhere,
    /// In a directory that this program makes.
    Directory {
        /// The mount point of cgroup2.
        mount: PathBuf,
        /// The directory, from the mount point on.
        path: PathBuf,
    },
    /// In a scope that systemd makes.
    Scope {
        /// The mount point of cgroup2.
        mount: PathBuf,
        /// The directory that systemd will make, from the mount point on.
        path: PathBuf,
        /// The scope.
        unit: Unit,
    },
}

/// A scope of systemd.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Its name, with `.scope` at the end.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// The user of the host whose own systemd is meant; none is the machine's.
    pub user: Option<u32>,
}

impl Place {
    /// The directory as a path of the host, if there is one.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::Directory { mount, path } | Self::Scope { mount, path, .. } => {
                Some(mount.join(path))
            }
        }
    }

    /// The group in which this is weighed against others, from the mount point on; none if nobody weighs it.
    #[must_use]
    pub fn pool(&self) -> Option<&Path> {
        let (Self::Directory { path, .. } | Self::Scope { path, .. }) = self else {
            return None;
        };
        let pool = path.parent()?;
        let name = pool.file_name()?.to_str()?;
        let ours = name == POOL || name == SLICE || name.starts_with("bulkhead-");
        ours.then_some(pool)
    }
}

/// Refuses a place where a guarantee would be an empty word: outside a pool, or in one whose own neighbours are not
/// weighed.
pub(super) fn refuse_unweighed(
    place: &Place,
    host: &Host,
    options: Options,
) -> Result<(), CgroupError> {
    let beside_caller = host.cgroup.own.parent().and_then(below_root);
    let outermost = |pool: &Path| {
        let around = pool.parent().unwrap_or(Path::new(""));
        around == Path::new("") || options.rootless || Some(around) == beside_caller.as_deref()
    };
    if place.pool().is_some_and(outermost) {
        return Ok(());
    }
    let (pool, example) = match options.manager {
        Manager::Systemd => (SLICE, "\"bulkhead.slice:bulkhead:NAME\""),
        Manager::Cgroupfs | Manager::Disabled => ("/bulkhead", "\"/bulkhead/NAME\""),
    };
    let given = place.directory();
    let given = given.map_or("no cgroup".to_owned(), |path| path.display().to_string());
    Err(CgroupError::Unweighed {
        given,
        pool,
        example,
    })
}

/// Chooses the place; `promised` is whether it was promised anything.
pub(super) fn choose(
    request: &Request<'_>,
    host: &Host,
    options: Options,
    promised: bool,
) -> Result<Place, CgroupError> {
    let mount = match (options.manager, &host.cgroup.mount) {
        (Manager::Disabled, _) => return Ok(Place::Nowhere),
        (_, Some(mount)) => mount.clone(),
        (_, None) if options.rootless && request.path.is_empty() => return Ok(Place::Nowhere),
        (_, None) => return Err(CgroupError::NoCgroup2),
    };
    if options.manager == Manager::Systemd {
        return scope(request, host, options, (mount, promised));
    }
    let given = match (request.path, promised) {
        ("", false) => PathBuf::from(request.id),
        // A user's own groups are beside the caller, those of the machine at its root.
        ("", true) if options.rootless => Path::new(POOL).join(request.id),
        ("", true) => Path::new("/").join(POOL).join(request.id),
        (path, _) => PathBuf::from(path),
    };
    let own = host.cgroup.own.parent().unwrap_or(Path::new("/"));
    let path = below_root(&own.join(given)).ok_or_else(|| CgroupError::PathEscapes {
        given: request.path.to_owned(),
    })?;
    Ok(Place::Directory { mount, path })
}

/// Makes a path relative to the root of the mount; none if it leads out of it or names the root itself.
fn below_root(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => below.push(name),
            Component::ParentDir if Defence::CgroupPath.is_out() => drop(below.pop()),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!below.as_os_str().is_empty()).then_some(below)
}

fn scope(
    request: &Request<'_>,
    host: &Host,
    options: Options,
    (mount, promised): (PathBuf, bool),
) -> Result<Place, CgroupError> {
    if !host.cgroup.systemd {
        return Err(CgroupError::NoSystemd);
    }
    let words: Vec<&str> = request.path.split(':').collect();
    let (slice, prefix, name) = match words.as_slice() {
        [""] if promised => (SLICE, PREFIX, request.id),
        [""] => ("", PREFIX, request.id),
        // What a document says, which does not know who will make its cgroup.
        [path] if below_pool(path).is_some() => {
            (SLICE, PREFIX, below_pool(path).unwrap_or_default())
        }
        [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
        _ => {
            return Err(CgroupError::NotAScope {
                given: request.path.to_owned(),
            });
        }
    };
    let slice = match (slice, options.rootless) {
        ("", true) => "user.slice",
        ("", false) => "system.slice",
        (given, _) => given,
    };
    let name = match prefix {
        "" => format!("{}.scope", unit_name(name)),
        prefix => format!("{}-{}.scope", unit_name(prefix), unit_name(name)),
    };
    let path = systemd_root(host, options)
        .join(expand_slice(slice)?)
        .join(&name);
    let unit = Unit {
        name,
        slice: slice.to_owned(),
        user: options.rootless.then_some(host.caller.host_uid),
    };
    Ok(Place::Scope { mount, path, unit })
}

/// The name in `/bulkhead/NAME`.
fn below_pool(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix('/')?
        .strip_prefix(POOL)?
        .strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The group below which the systemd in question keeps its slices, from the mount point on.
fn systemd_root(host: &Host, options: Options) -> PathBuf {
    if !options.rootless {
        return PathBuf::new();
    }
    let uid = host.caller.host_uid;
    PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service"))
}

/// Where a slice is: `a-b.slice` is inside `a.slice`, and `-.slice` is the root.
///
/// # Errors
///
/// If that is not the name of a slice.
pub fn expand_slice(slice: &str) -> Result<PathBuf, CgroupError> {
    let wrong = || CgroupError::NotASlice {
        given: slice.to_owned(),
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut name = String::new();
    for word in stem.split('-') {
        if word.is_empty() || word.contains('/') || word.starts_with('.') {
            return Err(wrong());
        }
        name = if name.is_empty() {
            word.to_owned()
        } else {
            format!("{name}-{word}")
        };
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

/// Writes the characters that a unit's name cannot have as systemd does (`systemd.unit(5)`).
fn unit_name(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("\\x{byte:02x}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
