//! Requests whose buffers are the same memory again and again: more bytes than the guest has. A device must not take as
//! much of the host's memory for them.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;

use bulkhead::backend::microvm::vmm::virtio::VirtioDevice;
use bulkhead::backend::microvm::vmm::virtio::balloon::Balloon;
use bulkhead::backend::microvm::vmm::virtio::block::Block;
use bulkhead::backend::microvm::vmm::virtio::block::BlockOptions;
use bulkhead::backend::microvm::vmm::virtio::console::Console;
use bulkhead::backend::microvm::vmm::virtio::rng::Rng;
use bulkhead::backend::microvm::vmm::virtio::vsock::Vsock;

use super::devices::disk;
use super::guest::BUFFERS;
use super::guest::Guest;
use super::guest::NEXT;
use super::guest::SIZE;
use super::guest::WRITE;

/// The largest range of memory that there is, up to the gap.
const LARGE: (u64, u32) = (0x2_0000, 0x6_0000);
/// Which descriptors are room: none, all, all but the first.
const SHAPES: [usize; 3] = [SIZE as usize, 0, 1];

/// Puts such requests into every queue of every device; `watched` runs what serves one.
pub fn run(mut watched: impl FnMut(&str, &mut dyn FnMut())) {
    let options = |direct| BlockOptions {
        direct,
        ..BlockOptions::default()
    };
    for direct in [true, false] {
        each(
            "disk",
            || Block::new(disk(), &options(direct)).unwrap(),
            &mut watched,
        );
    }
    each(
        "console",
        || Console::new(Some(disk()), 1 << 16),
        &mut watched,
    );
    each("random numbers", || Rng::new().unwrap(), &mut watched);
    each("balloon", || Balloon::new(true).unwrap(), &mut watched);
    each("sockets", vsock, &mut watched);
}

fn vsock() -> Vsock {
    let name = format!("bulkhead-overlap-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    Vsock::new(3, OwnedFd::from(listener)).unwrap().0
}

fn each<D: VirtioDevice + 'static>(
    name: &str,
    make: impl Fn() -> D,
    watched: &mut impl FnMut(&str, &mut dyn FnMut()),
) {
    let queues = make().queue_sizes().len();
    for (queue, room) in (0..queues).flat_map(|queue| SHAPES.map(|room| (queue, room))) {
        for kind in 0..2_u32 {
            let mut guest = Guest::new(make(), u64::MAX);
            request(&mut guest, queue, room, kind);
            watched(name, &mut || guest.turn());
        }
    }
}

/// A request that begins like one to a disk, to read or to write; the rest is large.
fn request(guest: &mut Guest, queue: usize, room: usize, kind: u32) {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&kind.to_le_bytes());
    guest.put(BUFFERS, &head);
    for index in 0..SIZE {
        let last = index == SIZE - 1;
        let place = match index {
            0 => (BUFFERS, 16),
            _ if last => (BUFFERS + 0x100, 1),
            _ => LARGE,
        };
        let more = if last { 0 } else { NEXT };
        let given = usize::from(index) < room;
        let flags = more | if given { 0 } else { WRITE };
        guest.describe(queue, index, place, flags, index + 1);
    }
    guest.offer(queue, 0);
    guest.kick(queue);
}
