//! Connections to the guest from within the machine's own process.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc;

use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

/// One who wants to be connected.
#[derive(Debug)]
pub(super) struct Call {
    /// The guest's port.
    pub(super) port: u32,
    /// What becomes the stream.
    pub(super) socket: OwnedFd,
}

/// Connects to the guest from any thread. Copies do the same.
#[derive(Debug, Clone)]
pub struct Connector {
    calls: mpsc::Sender<Call>,
    bell: Arc<EventFd>,
}

/// What a [`Connector`] rings.
#[derive(Debug)]
pub(super) struct Bell(Arc<EventFd>);

impl Connector {
    /// A connector, and where its calls arrive.
    ///
    /// # Errors
    ///
    /// Fails as `eventfd(2)` does.
    pub(super) fn new() -> io::Result<(Self, Bell, mpsc::Receiver<Call>)> {
        let bell = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let (calls, inbox) = mpsc::channel();
        let connector = Self {
            calls,
            bell: Arc::clone(&bell),
        };
        Ok((connector, Bell(bell), inbox))
    }

    /// Makes `socket` a stream to the guest's `port`, once the guest is ready: the other end of the socket is then as if
    /// it were in the guest. It carries the stream's bytes alone, both before and after; when the guest refuses, it ends.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the device is gone.
    pub fn connect(&self, port: u32, socket: OwnedFd) -> io::Result<()> {
        let sent = self.calls.send(Call { port, socket });
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        // It fails only when the counter is full: then the bell is ringing.
        self.bell.write(1).ok();
        Ok(())
    }
}

impl Bell {
    /// Makes it quiet until it is rung again.
    pub(super) fn hush(&self) {
        // It fails only when it is quiet.
        self.0.read().ok();
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
