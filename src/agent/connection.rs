//! A connection from the host, as those see it who answer: several may want to say something.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::agent::wire;
use crate::agent::wire::Event;

/// The writing half.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Mutex<UnixStream>,
}

impl Writer {
    /// Writes to this connection.
    pub(super) fn new(connection: UnixStream) -> Self {
        Self {
            connection: Mutex::new(connection),
        }
    }

    /// Says something. Who has gone away does not hear it; whoever reads from the connection notices that.
    pub(super) fn send(&self, event: &Event) {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if wire::send(&*connection, event).is_err() {
            connection
                .shutdown(std::net::Shutdown::Both)
                .unwrap_or_default();
        }
    }
}
