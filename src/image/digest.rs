//! Digests as image documents write them, made while bytes go by.

use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;

/// A digest that is being made.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    /// `sha256:`.
    Sha256(Sha256),
    /// `sha512:`.
    Sha512(Sha512),
}

impl Hasher {
    /// For a digest as it is written in a document; nothing for an algorithm that is not known.
    pub(super) fn of(digest: &str) -> Option<Self> {
        match digest.split_once(':')? {
            ("sha256", _) => Some(Self::Sha256(Sha256::new())),
            ("sha512", _) => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest as it is written in a document.
    pub(super) fn text(self) -> String {
        match self {
            Self::Sha256(state) => format!("sha256:{:x}", state.finalize()),
            Self::Sha512(state) => format!("sha512:{:x}", state.finalize()),
        }
    }
}
