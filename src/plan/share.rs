//! What a machine sees of the host's files: each share is one tree under a name, and there is nothing beside them.
//!
//! A share is a mount of the host's like any other. What a container is given as a mount in its own mount namespace,
//! a machine is given as the same mount in that of its file server: read-only, id-mapped, with or without the mounts
//! below it.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::step::Bind;
use crate::plan::step::Overlay;

/// The name of the share that holds the root filesystem. All others are called by numbers, `1` and up.
pub const ROOT: &str = "root";

/// The tag under which a guest finds the shares: `mount -t virtiofs share /somewhere`.
pub const TAG: &str = "share";

/// One tree of the host's files, and its name in the directory that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// One component of a path: [`ROOT`], or a number.
    pub name: String,
    /// What it is.
    pub source: Source,
}

/// Where the files of a share come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A directory or a single file, as it is. Where it goes in the guest is not said here: `destination` is not looked
    /// at. A link at the source that is to be copied becomes a link of that name.
    Tree(Box<Bind>),
    /// Two layers.
    Layers(Box<Overlay>),
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.source {
            Source::Layers(layers) => write!(f, "{layers}"),
            Source::Tree(tree) => {
                let below = if tree.recursive { " and all below" } else { "" };
                write!(f, "{}{below}", tree.source.display())?;
                let read_only = (tree.attributes.set | tree.attributes.set_below) & 1 != 0;
                let words = [
                    (read_only, ", read-only"),
                    (tree.idmap.is_some(), ", owners mapped"),
                ];
                let mut said = words.into_iter().filter(|(said, _)| *said);
                said.try_for_each(|(_, word)| f.write_str(word))
            }
        }
    }
}
