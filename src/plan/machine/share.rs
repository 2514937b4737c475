//! What a guest sees of the host's files: the root filesystem and what is bound into it, as a container's plan has them.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Plan;
use crate::plan::share::ROOT;
use crate::plan::share::Share;
use crate::plan::share::Source;
use crate::plan::step::Bind;
use crate::plan::step::Step;
use crate::spec::mount_options::MountOptions;
use crate::spec::mounts::Mount;

/// Where a guest finds what is shared with it: each under its name.
pub const SHARES: &str = "/run/share";

/// What something on the host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    #[default]
    Directory,
    /// A regular file.
    File,
    /// A link.
    Link,
    /// A block device.
    Block,
    /// Another device, a socket or a pipe.
    Other,
}

/// The name of share `number`, counted among the binds; that of the root is 0.
fn name(number: usize) -> String {
    if number == 0 {
        ROOT.to_owned()
    } else {
        number.to_string()
    }
}

/// Where the guest finds share `number`.
pub(super) fn inside(number: usize) -> PathBuf {
    Path::new(SHARES).join(name(number))
}

/// What a container of this plan would have of the host's files, the root first. How mounts are shared with others is
/// nothing for a file server.
pub(super) fn of(container: &Plan) -> Vec<Share> {
    let sources = container.steps.iter().filter_map(source);
    let shares = sources.enumerate().map(|(number, source)| Share {
        name: name(number),
        source,
    });
    shares.collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other steps are done inside and take nothing from the host"
)]
fn source(step: &Step) -> Option<Source> {
    match step {
        Step::Root { path, .. } => Some(Source::Tree(Box::new(Bind {
            source: path.clone(),
            recursive: true,
            follow: true,
            ..Bind::default()
        }))),
        Step::Overlay(layers) => Some(Source::Layers(layers.clone())),
        Step::Bind(bind) => {
            let mut bind = bind.clone();
            bind.attributes.propagation.clear();
            Some(Source::Tree(bind))
        }
        _ => None,
    }
}

/// Lets the bind mounts of a guest's spec begin where it finds the shares; owners have been mapped on the way to it.
pub(super) fn redirect(mounts: &mut [Mount]) {
    let binds = mounts.iter_mut().filter(|mount| is_bind(mount));
    for (index, mount) in binds.enumerate() {
        mount.source = inside(index + 1).display().to_string();
        mount.uid_mappings.clear();
        mount.gid_mappings.clear();
        let owners = |word: &str| matches!(word, "idmap" | "ridmap");
        mount.options.retain(|word| !owners(word));
    }
}

/// Whether a mount shows what is on the host.
#[must_use]
pub fn is_bind(mount: &Mount) -> bool {
    let read = MountOptions::of(mount);
    !read.remount && read.bind.is_some()
}
