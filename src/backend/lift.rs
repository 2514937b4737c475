//! Makes the mounts that only the outside can make: id-mapped ones, and sources that the users of a user
//! namespace could not reach.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::mapping;
use crate::backend::BackendError;
use crate::init::Layers;
use crate::plan::Plan;
use crate::plan::namespaces;
use crate::plan::namespaces::Mapping;
use crate::plan::step::Bind;
use crate::plan::step::Idmap;
use crate::plan::step::Overlay;
use crate::plan::step::Step;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::mount;
use crate::sys::mount::Change;
use crate::sys::path;
use crate::sys::process;

/// `MS_SLAVE`.
const SLAVE: u64 = 1 << 19;

/// The mounts to hand to the process, by the index of the step that attaches each.
pub(super) fn mounts(plan: &Plan) -> Result<BTreeMap<usize, OwnedFd>, BackendError> {
    let privileged = rustix::process::geteuid().is_root();
    let hidden = privileged && plan.namespaces.new & namespaces::USER != 0;
    let mut made = BTreeMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        if let Step::Bind(bind) = step
            && (hidden || bind.idmap.is_some())
        {
            made.insert(index, lift(bind)?);
        }
    }
    Ok(made)
}

/// The layers of the root, where the process could not reach them or their owners are mapped.
pub(super) fn layers(plan: &Plan) -> Result<Option<Layers>, BackendError> {
    let privileged = rustix::process::geteuid().is_root();
    let hidden = privileged && plan.namespaces.new & namespaces::USER != 0;
    for step in &plan.steps {
        if let Step::Overlay(overlay) = step
            && hidden
        {
            return lift_layers(overlay).map(Some);
        }
    }
    Ok(None)
}

/// The layers of a root, copied and with their owners mapped.
pub(super) fn lift_layers(overlay: &Overlay) -> Result<Layers, BackendError> {
    let above = common(&overlay.upper, &overlay.work);
    let tree = |source: &Path| {
        lift(&Bind {
            source: source.to_owned(),
            idmap: overlay.idmap.clone(),
            follow: true,
            ..Bind::default()
        })
    };
    let home = tree(&above)?;
    let below = |path: &Path| {
        let inside = path.strip_prefix(&above).unwrap_or(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        path::open_plain_in(&home, path::relative(inside), flags)
            .map_err(BackendError::kernel(format!("open {}", path.display())))
    };
    Ok(Layers {
        lower: tree(&overlay.lower)?,
        upper: below(&overlay.upper)?,
        work: below(&overlay.work)?,
        home,
    })
}

/// The deepest directory that both paths lead through.
fn common(one: &Path, other: &Path) -> PathBuf {
    let pairs = one.components().zip(other.components());
    pairs
        .take_while(|(one, other)| one == other)
        .map(|(same, _)| same)
        .collect()
}

/// One such mount.
pub(super) fn lift(bind: &Bind) -> Result<OwnedFd, BackendError> {
    let tree = mount::copy_tree_at(&bind.source, bind.recursive, bind.follow).map_err(
        BackendError::kernel(format!("copy the mount of {}", bind.source.display())),
    )?;
    // The copy is a peer of the host's mount; what happens inside must not be seen there.
    let quiet = Change {
        propagation: SLAVE,
        ..Change::default()
    };
    mount::set_attributes(tree.as_fd(), &quiet, true)
        .map_err(BackendError::kernel("set the propagation of a mount"))?;
    if let Some(idmap) = &bind.idmap {
        let users = user_namespace(idmap)?;
        let change = Change {
            set: mount::ATTR_IDMAP,
            user_namespace: u64::from(users.as_raw_fd().unsigned_abs()),
            ..Change::default()
        };
        mount::set_attributes(tree.as_fd(), &change, idmap.recursive).map_err(
            BackendError::kernel(format!("map the owners of {}", bind.source.display())),
        )?;
    }
    Ok(tree)
}

/// A user namespace of these mappings, held by its descriptor alone: the process that it was made for is gone
/// when this returns.
fn user_namespace(idmap: &Idmap) -> Result<OwnedFd, BackendError> {
    let birth = Birth {
        namespaces: namespaces::USER,
        ..Birth::default()
    };
    let child = clone::spawn(birth, || {
        nix::unistd::pause();
        0
    })
    .map_err(BackendError::kernel("make a user namespace"))?;
    let mapping = Mapping {
        users: idmap.users.clone(),
        groups: idmap.groups.clone(),
        wide: true,
        root: true,
    };
    let opened = process::number_in_proc(child.pidfd.as_fd())
        .map_err(BackendError::kernel("find a process in /proc"))
        .and_then(|pid| {
            mapping::write(pid, &mapping)?;
            let path = format!("/proc/{pid}/ns/user");
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(BackendError::kernel("open a user namespace"))
        });
    process::end(child.pidfd.as_fd());
    opened
}
