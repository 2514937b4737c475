//! The guests of a host: kernels that machines boot, each with the first files that its machine finds.
//!
//! ```text
//! DATA/guests/NAME/vmlinux     the kernel, as ELF: nothing is unpacked when a machine is made
//! DATA/guests/NAME/initramfs   the agent as `/init`, and the modules that it loads
//! DATA/guests/NAME/guest.json  what is known about both
//! ```
//!
//! A guest is made beside its place and renamed into it, so that whoever looks finds all of it or none.

mod cpio;
mod error;
mod initramfs;
mod kernel;
mod modules;
mod store;

pub use error::GuestError;
pub use store::About;
pub use store::CMDLINE;
pub use store::Guest;
pub use store::Guests;
pub use store::New;
