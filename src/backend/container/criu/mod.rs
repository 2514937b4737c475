//! Saves the processes of a workspace to files and brings them back, by CRIU.
//!
//! CRIU is run as its own service over one socket (`criu swrk`): unlike its command line that tells when namespaces
//! stand, hands over the master of a terminal, and makes the first process a child of ours.

mod error;
mod request;
mod wire;
mod worker;
mod yard;

pub use error::CriuError;
pub use request::Cgroups;
pub use request::Choices;
pub use request::Kind;
pub use request::MountMap;
pub use request::NetworkLock;
pub use request::Request;
pub use worker::Event;
pub use worker::Witness;
pub use worker::Worker;
pub use yard::Ground;
pub use yard::Yard;
pub use yard::name_below;
