//! Why a network could not be made, used or undone.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::sys::Errno;

/// Why a network could not be made, used or undone.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused.
    #[error("network: cannot {what}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why it was refused.
        source: Errno,
    },
    /// A file of the leases, or one of the kernel's settings, could not be used.
    #[error("network: cannot {what} {path:?}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file of a network's leases says nothing.
    #[error(
        "network {network}: {path:?} is damaged; end its workspaces and remove it: bulkhead net rm --force {network}"
    )]
    Damaged {
        /// Which network.
        network: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An address is somebody else's.
    #[error(
        "annotations.dev.bulkhead.network.address: {address} belongs to {holder} on network {network}"
    )]
    Taken {
        /// Which.
        address: IpAddr,
        /// Of which network.
        network: String,
        /// Who has it.
        holder: String,
    },
    /// An address is not of the network.
    #[error(
        "annotations.dev.bulkhead.network.address: {address} is no address for a workspace of network {network}, which has {subnet}"
    )]
    Outside {
        /// Which.
        address: IpAddr,
        /// Of which network.
        network: String,
        /// What it has.
        subnet: String,
    },
    /// Addresses that were asked for lead elsewhere already.
    #[error(
        "annotations.dev.bulkhead.network.address: {address} cannot be on network {network}: {subnet} is used by {holder}"
    )]
    Used {
        /// Which.
        address: IpAddr,
        /// Of which network.
        network: String,
        /// What would be needed.
        subnet: String,
        /// What uses it.
        holder: String,
    },
    /// No address is left.
    #[error("network {network}: no address of {subnet} is free")]
    Full {
        /// Which network.
        network: String,
        /// What it has.
        subnet: String,
    },
    /// No part of the private addresses is left.
    #[error(
        "network {network}: no part of 10.0.0.0/8 is free on this host; give an address of another: dev.bulkhead.network.address"
    )]
    NoSubnet {
        /// Which network.
        network: String,
    },
    /// A port of the host is somebody else's.
    #[error("annotations.dev.bulkhead.network.publish: {port}: held by {holder}")]
    Port {
        /// Which.
        port: String,
        /// Who has it.
        holder: String,
    },
    /// An address of a published port is not the host's.
    #[error("annotations.dev.bulkhead.network.publish: {port}: cannot be listened on")]
    Listen {
        /// Which.
        port: String,
        /// Why.
        source: std::io::Error,
    },
    /// Ports are published by a program that is not there.
    #[error(
        "annotations.dev.bulkhead.network.publish: {port}: needs the program nft; install nftables"
    )]
    NoNft {
        /// The first port.
        port: String,
    },
    /// The program nft failed.
    #[error("network: nft cannot {what}: {said}")]
    Nft {
        /// What was tried.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// A rate is to be guaranteed, of an unknown whole.
    #[error(
        "annotations.dev.bulkhead.network.{direction}.reserve: the capacity of network {network} is not known; say it in host.toml: network.{network} = {{ in = \"1gbit\", out = \"1gbit\" }}"
    )]
    NoCapacity {
        /// In which direction.
        direction: &'static str,
        /// Which network.
        network: String,
    },
    /// There is no such network.
    #[error("network {network} does not exist")]
    Missing {
        /// Which.
        network: String,
    },
    /// Workspaces use it.
    #[error("network {network} is used by {}; end them first, or use --force", .holders.join(", "))]
    InUse {
        /// Which.
        network: String,
        /// By whom.
        holders: Vec<String>,
    },
    /// Several things could not be undone; all were tried.
    #[error("{}", .0.join("; "))]
    Several(Vec<String>),
}

impl NetworkError {
    /// The kernel refused to do `what`.
    pub(super) fn kernel(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    /// A file could not be used.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// None, the only one, or all of them as one.
    pub(super) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match (errors.pop(), errors.is_empty()) {
            (None, _) => Ok(()),
            (Some(error), true) => Err(error),
            (Some(last), false) => {
                let texts = errors.iter().chain([&last]).map(|error| {
                    let cause = std::error::Error::source(error);
                    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
                });
                Err(Self::Several(texts.collect()))
            }
        }
    }
}
