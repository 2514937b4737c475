//! Packets between the rings and the clients: taken out of guest memory and put into it in batches.
//!
//! Bytes go from the guest's buffers to a client's socket, and from there to the guest's buffers, without a copy of ours
//! in between. Many packets in a row to one client are one write; one read fills many of the guest's buffers.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::backend::microvm::vmm::virtio::Chain;
use crate::backend::microvm::vmm::virtio::ChainError;
use crate::backend::microvm::vmm::virtio::DeviceError;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::Ring;
use crate::backend::microvm::vmm::virtio::vsock::channel::Channel;
use crate::backend::microvm::vmm::virtio::vsock::channel::Filled;
use crate::backend::microvm::vmm::virtio::vsock::hub::Hub;
use crate::backend::microvm::vmm::virtio::vsock::link::Link;
use crate::backend::microvm::vmm::virtio::vsock::link::ROOM;
use crate::backend::microvm::vmm::virtio::vsock::packet::HOST_CID;
use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::STREAM;
use crate::backend::microvm::vmm::virtio::vsock::packet::payload;
use crate::backend::microvm::vmm::virtio::vsock::packet::room;

/// How many packets are taken from the guest before other devices have their turn.
const MOST_TAKEN: usize = 512;
/// How many turns clients have before other devices have theirs.
const MOST_TURNS: usize = 32;
/// How many pieces of guest memory one call moves.
const MOST_PIECES: usize = 128;
/// How many of the guest's buffers one read fills at most.
const MOST_FILLED: usize = 64;

/// Whether there is more to do than was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing that could be done now.
    Nothing,
    /// More than there was time for.
    More,
}

/// Bytes of packets in a row that are for one client.
struct Run<'a> {
    port: u32,
    slices: Vec<VolatileSlice<'a>>,
    heads: Vec<u16>,
    length: u32,
}

impl Run<'_> {
    /// Gives the client the bytes, and the guest its buffers back.
    fn end(&mut self, hub: &mut Hub, ring: &mut Ring) -> Result<(), DeviceError> {
        if self.heads.is_empty() {
            return Ok(());
        }
        hub.deliver(self.port, &self.slices, self.length);
        self.slices.clear();
        self.length = 0;
        for head in self.heads.drain(..) {
            ring.push(head, 0)?;
        }
        Ok(())
    }

    fn is_long(&self) -> bool {
        self.slices.len() >= MOST_PIECES / 2 || self.length >= ROOM / 2
    }
}

/// Takes what the guest sends.
///
/// # Errors
///
/// The device needs a reset after what no driver does to a ring.
pub(super) fn take(hub: &mut Hub, ring: &mut Ring) -> Result<Left, DeviceError> {
    let memory = Arc::clone(ring.memory());
    let mut run = Run {
        port: 0,
        slices: Vec::with_capacity(MOST_PIECES),
        heads: Vec::with_capacity(MOST_PIECES),
        length: 0,
    };
    let mut left = Left::More;
    for _ in 0..MOST_TAKEN {
        if let Some(chain) = ring.pop()? {
            take_one(hub, ring, &memory, &mut run, &chain)?;
        } else {
            run.end(hub, ring)?;
            if !ring.listen()? {
                left = Left::Nothing;
                break;
            }
        }
    }
    run.end(hub, ring)?;
    ring.notify()?;
    Ok(left)
}

fn take_one<'a>(
    hub: &mut Hub,
    ring: &mut Ring,
    memory: &'a Memory,
    run: &mut Run<'a>,
    chain: &Chain,
) -> Result<(), DeviceError> {
    let mut bytes = [0; Header::LENGTH];
    if chain.reader(memory).read(&mut bytes).is_err() {
        // What has no header has no sender either: nobody can be told.
        ring.push(chain.head(), 0)?;
        return Ok(());
    }
    let packet = Header::parse(&bytes);
    let is_payload = packet.op() == Some(Op::Payload);
    if !is_payload || packet.dst_port != run.port || run.is_long() {
        run.end(hub, ring)?;
    }
    let there = room(chain.readable()).unwrap_or(0);
    if is_payload && packet.len > there {
        run.end(hub, ring)?;
        hub.refuse(&packet);
    } else if let Some(port) = hub.take(&packet) {
        run.port = port;
        run.heads.push(chain.head());
        run.length += payload(memory, chain.readable(), packet.len, &mut run.slices)
            .map_err(|_| DeviceError::Request("a packet outside of memory"))?;
        return Ok(());
    }
    ring.push(chain.head(), 0)?;
    Ok(())
}

/// Gives the guest what there is for it, as far as it has buffers.
///
/// # Errors
///
/// As [`take`].
pub(super) fn give(hub: &mut Hub, ring: &mut Ring) -> Result<Left, DeviceError> {
    let memory = Arc::clone(ring.memory());
    let mut left = Left::More;
    for _ in 0..MOST_TURNS {
        if !hub.has_something() {
            left = Left::Nothing;
            break;
        }
        if !turn(hub, ring, &memory)? && !ring.listen()? {
            left = Left::Nothing;
            break;
        }
        ring.notify()?;
    }
    ring.notify()?;
    Ok(left)
}

/// One turn: an answer to a packet of no stream, or what one client has. Gives whether the guest had buffers for it.
fn turn(hub: &mut Hub, ring: &mut Ring, memory: &Memory) -> Result<bool, DeviceError> {
    if hub.has_strays() {
        let Some(chain) = next_buffer(ring)? else {
            return Ok(false);
        };
        let stray = hub.next_stray().unwrap_or_default();
        put(ring, memory, &chain, &stray)?;
        return Ok(true);
    }
    let cid = hub.cid();
    let Some((port, channel)) = hub.next_in_row() else {
        return Ok(true);
    };
    let end = End { cid, port };
    let had_room = tell(channel, end, ring, memory)? && pour(channel, end, ring, memory)?;
    hub.settle(port);
    Ok(had_room)
}

/// The guest's next buffer that a packet fits in. One that none fits in goes back.
fn next_buffer(ring: &mut Ring) -> Result<Option<Chain>, DeviceError> {
    while let Some(chain) = ring.pop()? {
        if room(chain.writable()).is_some() {
            return Ok(Some(chain));
        }
        ring.push(chain.head(), 0)?;
    }
    Ok(None)
}

/// Puts a packet without bytes into a buffer, and gives it back.
fn put(
    ring: &mut Ring,
    memory: &Memory,
    chain: &Chain,
    packet: &Header,
) -> Result<(), DeviceError> {
    let written = chain.writer(memory).write(&packet.bytes());
    written.map_err(|_: ChainError| DeviceError::Request("a buffer outside of memory"))?;
    let length = u32::try_from(Header::LENGTH).unwrap_or(u32::MAX);
    ring.push(chain.head(), length.saturating_add(packet.len))?;
    Ok(())
}

/// Between whom a stream is: the guest's number, and the port of the host's end.
#[derive(Clone, Copy)]
struct End {
    cid: u64,
    port: u32,
}

/// The beginning of a packet of a stream.
fn header(channel: &mut Channel, end: End, op: Op) -> Header {
    let mut header = Header {
        src_cid: HOST_CID,
        dst_cid: end.cid,
        src_port: end.port,
        dst_port: channel.guest_port,
        kind: STREAM,
        op: op.number(),
        ..Header::default()
    };
    if let Some(link) = channel.link_mut() {
        link.stamp(&mut header);
    }
    header
}

/// Sends the packets of a stream that carry no bytes. Gives whether the guest had buffers for all.
fn tell(
    channel: &mut Channel,
    end: End,
    ring: &mut Ring,
    memory: &Memory,
) -> Result<bool, DeviceError> {
    while channel.link().is_some_and(Link::is_due) {
        let Some(chain) = next_buffer(ring)? else {
            return Ok(false);
        };
        let Some((op, flags)) = channel.link_mut().and_then(Link::next_due) else {
            ring.put_back(&chain);
            break;
        };
        let mut packet = header(channel, end, op);
        packet.flags = flags;
        put(ring, memory, &chain, &packet)?;
    }
    Ok(true)
}

/// Sends bytes of a client's: as many as it has, the guest grants, and one read takes. Gives whether the guest had buffers.
fn pour(
    channel: &mut Channel,
    end: End,
    ring: &mut Ring,
    memory: &Memory,
) -> Result<bool, DeviceError> {
    let credit = channel.pourable();
    if credit == 0 {
        return Ok(true);
    }
    let mut slices = Vec::with_capacity(MOST_PIECES);
    let (chains, room) = gather(ring, memory, credit, channel.appetite, &mut slices)?;
    if chains.is_empty() {
        return Ok(false);
    }
    let count = match channel.fill(&slices) {
        Filled::Bytes(count) => count,
        Filled::Nothing => 0,
    };
    // Who fills what there was is read more from the next time.
    channel.appetite = if count == room {
        (channel.appetite * 4).min(MOST_FILLED)
    } else {
        1
    };
    spread(channel, end, ring, memory, (&chains, count))?;
    Ok(true)
}

/// Takes buffers of the guest's, `most` of them, until they have room for `bytes`; gives them and their room.
fn gather<'a>(
    ring: &mut Ring,
    memory: &'a Memory,
    bytes: u32,
    most: usize,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Result<(Vec<Chain>, u32), DeviceError> {
    let mut chains = Vec::with_capacity(most);
    let mut found = 0;
    while chains.len() < most && found < bytes && slices.len() < MOST_PIECES {
        let Some(chain) = ring.pop()? else {
            break;
        };
        if room(chain.writable()).unwrap_or(0) > 0 {
            found += payload(memory, chain.writable(), bytes - found, slices)
                .map_err(|_| DeviceError::Request("a buffer outside of memory"))?;
            chains.push(chain);
        } else if chains.is_empty() {
            // No byte fits in it: it goes back.
            ring.push(chain.head(), 0)?;
        } else {
            ring.put_back(&chain);
            break;
        }
    }
    Ok((chains, found))
}

/// Makes packets of the first `count` bytes in the buffers `chains`, and puts the buffers behind these back.
fn spread(
    channel: &mut Channel,
    end: End,
    ring: &mut Ring,
    memory: &Memory,
    (chains, count): (&[Chain], u32),
) -> Result<(), DeviceError> {
    let mut left = count;
    let mut used = 0;
    for chain in chains {
        let part = room(chain.writable()).unwrap_or(0).min(left);
        if part == 0 {
            break;
        }
        let mut packet = header(channel, end, Op::Payload);
        packet.len = part;
        put(ring, memory, chain, &packet)?;
        if let Some(link) = channel.link_mut() {
            link.sent(part);
        }
        left -= part;
        used += 1;
    }
    for chain in chains.iter().skip(used).rev() {
        ring.put_back(chain);
    }
    Ok(())
}
