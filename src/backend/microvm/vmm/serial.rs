//! The serial port: where a kernel says why it stops, and nothing else of consequence.
//!
//! What is written beyond a limit is counted and forgotten, so that a guest cannot fill the host's disk with it.

use std::fs::File;
use std::io;
use std::io::Write;
use std::sync::Arc;

use vm_superio::Serial;
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::power::LastWords;

/// What a kernel's last words begin with.
const PANIC: &str = "Kernel panic - not syncing: ";
/// The longest line that is looked at for them.
const LINE_MAX: usize = 512;

/// The port's interrupt.
#[derive(Debug)]
pub(super) struct Line(pub(super) EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Where the guest's words go to.
#[derive(Debug)]
pub(super) struct Sink {
    file: Option<File>,
    left: u64,
    lost: u64,
    line: Vec<u8>,
    words: Arc<LastWords>,
}

impl Sink {
    /// Takes `limit` bytes, to a file or to nowhere.
    pub(super) fn new(file: Option<File>, limit: u64, words: Arc<LastWords>) -> Self {
        Self {
            file,
            left: limit,
            lost: 0,
            line: Vec::new(),
            words,
        }
    }

    fn listen(&mut self, byte: u8) {
        if byte != b'\n' {
            if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
            return;
        }
        let line = String::from_utf8_lossy(&self.line);
        if let Some((_, words)) = line.split_once(PANIC) {
            self.words.say(words.trim_end());
        }
        self.line.clear();
    }

    fn keep(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let Some(file) = &mut self.file else { return };
        if self.left < length {
            if self.lost == 0 {
                // The end of what is kept; the file may be full, and then it says so itself.
                file.write_all(b"\n[the limit of this log]\n")
                    .unwrap_or_default();
            }
            self.lost = self.lost.saturating_add(length);
            return;
        }
        self.left -= length;
        // Nobody may read any more, or the disk is full: the guest is not to stand still for that.
        file.write_all(bytes).unwrap_or_default();
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.listen(*byte));
        self.keep(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The port itself.
pub(super) struct Port(Serial<Line, NoEvents, Sink>);

impl Port {
    /// A port with this interrupt, that writes there.
    pub(super) fn new(line: Line, sink: Sink) -> Self {
        Self(Serial::new(line, sink))
    }
}

impl BusDevice for Port {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.0.read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            // An interrupt that cannot be raised is one that the guest has not yet taken.
            self.0.write(offset, *byte).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Seek;

    use super::*;

    #[test]
    fn the_last_words_of_a_kernel_are_heard() {
        let words = Arc::new(LastWords::default());
        let mut sink = Sink::new(None, 0, words.clone());
        sink.write_all(b"[1.0] hello\r\n[1.1] Kernel panic - not syncing: no init\r\nCPU: 0\n")
            .unwrap();
        assert_eq!(words.said().as_deref(), Some("no init"));
    }

    #[test]
    fn a_guest_that_floods_its_port_fills_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(Some(file.try_clone().unwrap()), 1000, Arc::default());
        for _ in 0..100_000 {
            sink.write_all(b"x").unwrap();
        }
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x".repeat(1000) + "\n[the limit of this log]\n");
        assert_eq!((sink.lost, sink.line.len()), (99_000, LINE_MAX));
    }
}
