//! The devices of a machine: what a guest sees of the world, by virtio over memory-mapped registers.
//!
//! A [`Transport`] is the registers of one device. It holds the guest to the order of things, and hands a device that the
//! guest has set up, an [`Activation`], to the [`EventLoop`]. There, on one thread, every [`VirtioDevice`] does its work:
//! it takes buffers from its [`Ring`]s as checked [`Chain`]s, whose every byte lies in guest memory, and is woken by the
//! descriptors that it [`Watch`]es.
//!
//! A guest is not believed in anything. What no driver would do makes the device stand still until it is reset
//! (`DEVICE_NEEDS_RESET`); it costs nobody but that guest.

pub mod balloon;
pub mod block;
mod chain;
pub mod console;
mod device;
mod event_loop;
mod fs;
mod interrupt;
mod limiter;
pub mod net;
mod ring;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;
mod transport;
pub mod vsock;

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

pub use chain::Chain;
pub use chain::ChainError;
pub use chain::Cursor;
pub use chain::Segment;
pub use device::Activation;
pub use device::DeviceError;
pub use device::RING_FEATURES;
pub use device::VirtioDevice;
pub use device::read_bytes;
pub use event_loop::EventLoop;
pub use event_loop::Orders;
pub use event_loop::Seat;
pub use event_loop::Watch;
pub use fs::Fs;
pub use interrupt::Interrupt;
pub use limiter::Throttle;
pub use ring::Ring;
pub use ring::RingError;
pub use transport::Transport;
pub use transport::WINDOW;

/// The guest's memory, as all devices share it.
pub type Memory = Arc<GuestMemoryMmap<()>>;
