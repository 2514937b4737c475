//! Namespaces that are there already and that a workspace joins, behind either wall.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::BackendError;
use crate::plan::namespaces;
use crate::plan::namespaces::Join;
use crate::sys::namespace;

/// Opens a namespace, and sees that it is of the kind that it is named as.
pub(super) fn open(join: &Join) -> Result<OwnedFd, BackendError> {
    let (index, path) = (join.index, join.path.clone());
    // What is no namespace may be a pipe, and nobody waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // host path: the namespace that the caller named.
    let opened = rustix::fs::open(&join.path, flags, Mode::empty());
    let file = opened.map_err(|source| BackendError::Field {
        field: format!("linux.namespaces[{index}].path"),
        what: format!("open {path:?}"),
        source,
    })?;
    let found = match namespace::kind(file.as_fd()) {
        Ok(kind) if kind == join.kind => return Ok(file),
        Ok(kind) => format!("a {} namespace", namespaces::name(kind)),
        Err(_) => "no namespace".to_owned(),
    };
    Err(BackendError::OtherNamespace {
        index,
        path,
        found,
        wanted: join.name.clone(),
    })
}
