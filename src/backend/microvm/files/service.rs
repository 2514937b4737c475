//! Takes requests out of a guest's queues and answers them: virtio-fs as a vhost-user device.
//!
//! What a guest sends is looked at as what a stranger sends. A request that makes no sense is answered with `EINVAL`; a
//! queue that makes no sense ends the service, and the machine with it.

use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use anyhow::anyhow;
use vhost::vhost_user::Backend;
use vhost::vhost_user::Listener;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::VhostUserVirtioFeatures;
use vhost_user_backend::VhostUserBackend;
use vhost_user_backend::VhostUserDaemon;
use vhost_user_backend::VringMutex;
use vhost_user_backend::VringState;
use vhost_user_backend::VringT;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::DescriptorChain;
use virtio_queue::QueueOwnedT;
use virtio_queue::QueueT;
use virtiofsd::descriptor_utils::Reader;
use virtiofsd::descriptor_utils::Writer;
use virtiofsd::fuse::InHeader;
use virtiofsd::fuse::Opcode;
use virtiofsd::fuse::OutHeader;
use virtiofsd::server::Server;
use vm_memory::ByteValued;
use vm_memory::GuestAddressSpace;
use vm_memory::GuestMemoryAtomic;
use vm_memory::GuestMemoryLoadGuard;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

use super::names::Named;

type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type SharedMemory = GuestMemoryAtomic<Memory>;
type Guarded = GuestMemoryLoadGuard<Memory>;
type Vring = VringMutex<SharedMemory>;

/// One queue for what must not wait behind other requests, and one for those.
pub const QUEUES: usize = 2;
/// The most requests that a queue can hold.
pub const QUEUE_SIZE: u16 = 1024;

/// How a service ends.
#[derive(Debug)]
enum End {
    /// The VMM has let go of the connection.
    Released,
    /// Something is wrong.
    Broken(anyhow::Error),
}

/// A service with its threads.
#[derive(Debug)]
pub(super) struct Running(mpsc::Receiver<End>);

impl Running {
    /// Waits until the VMM lets go.
    pub(super) fn until_the_end(self) -> anyhow::Result<()> {
        match self.0.recv() {
            Ok(End::Released) | Err(_) => Ok(()),
            Ok(End::Broken(error)) => Err(error),
        }
    }
}

/// Serves the one that connects to `listener`; its requests are answered in a thread of their own.
pub(super) fn start(files: Named, listener: OwnedFd) -> anyhow::Result<Running> {
    let (tell, hear) = mpsc::channel();
    let service = Arc::new(Service {
        server: Server::new(files),
        memory: RwLock::new(None),
        tell: tell.clone(),
    });
    let memory = SharedMemory::new(Memory::new());
    let mut daemon = VhostUserDaemon::new("files".to_owned(), service, memory)
        .map_err(|error| anyhow!("{error}"))
        .context("cannot start the service")?;
    daemon
        .start(&mut Listener::from(UnixListener::from(listener)))
        .map_err(|error| anyhow!("{error}"))
        .context("cannot take the VMM's connection")?;
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(move || {
            // However a connection ends: without it there is nobody left to serve.
            daemon.wait().unwrap_or_default();
            tell.send(End::Released).unwrap_or_default();
            // Its other threads end with the process.
            std::mem::forget(daemon);
        })
        .context("cannot start a thread")?;
    Ok(Running(hear))
}

/// The device.
struct Service {
    server: Server<Named>,
    memory: RwLock<Option<SharedMemory>>,
    tell: mpsc::Sender<End>,
}

impl VhostUserBackend for Service {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        usize::from(QUEUE_SIZE)
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.server.destroy();
    }

    // Each queue knows it itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    // The device never asks anything of the VMM.
    fn set_backend_req_fd(&self, _backend: Backend) {}

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &self,
        queue: u16,
        _events: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(queue)) else {
            return Ok(());
        };
        let done = self.serve(vring);
        if let Err(error) = &done {
            let error = anyhow!("queue {queue} of the guest makes no sense: {error}");
            self.tell.send(End::Broken(error)).unwrap_or_default();
        }
        done
    }
}

impl Service {
    /// Answers all requests of a queue. The guest need not say that it has more while this goes on.
    ///
    /// The ring is held all the time: when the VMM has it stopped, no answer is on its way into the guest's memory.
    fn serve(&self, vring: &Vring) -> io::Result<()> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let mut ring = vring.get_mut();
        // A kick may be heard when the ring has been stopped already.
        let stopped = !ring.is_enabled() || !ring.get_queue().ready();
        let Some(memory) = memory.as_ref().filter(|_| !stopped) else {
            return Ok(());
        };
        loop {
            ring.disable_notification().map_err(io::Error::other)?;
            while let Some(request) = next(&mut ring, memory)? {
                let head = request.head_index();
                let length = self.answer(&memory.memory(), request);
                give_back(&mut ring, head, length)?;
            }
            if !ring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }

    /// Answers one request; gives the length of the answer.
    fn answer(&self, memory: &Memory, request: DescriptorChain<Guarded>) -> u32 {
        let made = Reader::new(memory, request.clone())
            .and_then(|reader| Ok((reader, Writer::new(memory, request.clone())?)));
        let Ok((reader, writer)) = made else {
            return 0;
        };
        let Ok(asked) = reader.clone().read_obj::<InHeader>() else {
            return 0;
        };
        if writer.available_bytes() < size_of::<OutHeader>() && wants_answer(asked.opcode) {
            return 0;
        }
        let answered = self
            .server
            .handle_message(reader, writer, None::<&mut Backend>);
        match answered {
            Ok(length) => u32::try_from(length).unwrap_or(0),
            Err(_) => refuse(memory, request, asked.unique),
        }
    }
}

fn next(
    ring: &mut VringState<SharedMemory>,
    memory: &SharedMemory,
) -> io::Result<Option<DescriptorChain<Guarded>>> {
    let mut requests = ring
        .get_queue_mut()
        .iter(memory.memory())
        .map_err(io::Error::other)?;
    Ok(requests.next())
}

/// Gives a request back with its answer, and tells the guest when it wants to be told.
fn give_back(ring: &mut VringState<SharedMemory>, head: u16, length: u32) -> io::Result<()> {
    ring.add_used(head, length).map_err(io::Error::other)?;
    if ring.needs_notification().map_err(io::Error::other)? {
        ring.signal_used_queue()?;
    }
    Ok(())
}

/// Whether something is written back: there is no answer to being forgotten.
fn wants_answer(opcode: u32) -> bool {
    let silent = [
        Opcode::Forget,
        Opcode::BatchForget,
        Opcode::Interrupt,
        Opcode::Destroy,
    ];
    !silent.iter().any(|silent| *silent as u32 == opcode)
}

/// Answers a request that made no sense.
fn refuse(memory: &Memory, request: DescriptorChain<Guarded>, unique: u64) -> u32 {
    let length = u32::try_from(size_of::<OutHeader>()).unwrap_or(0);
    let answer = OutHeader {
        len: length,
        error: -libc::EINVAL,
        unique,
    };
    let written = Writer::new(memory, request)
        .ok()
        .and_then(|mut writer| writer.write_all(answer.as_slice()).ok());
    written.map_or(0, |()| length)
}
