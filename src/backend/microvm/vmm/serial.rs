//! The serial port: where a kernel says why it stops, and nothing else of consequence.
//!
//! What is written beyond a limit is counted and forgotten, so that a guest cannot fill the host's disk with it. How much
//! that was so far stands in the log's last line.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::FileExt;
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
/// After how many bytes that were not kept the log says so anew.
const STEP: u64 = 64 << 10;

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
    /// Where what is kept ends, in a file.
    end: Option<u64>,
    /// Whether it has been said there that something was lost.
    noted: bool,
    line: Vec<u8>,
    words: Arc<LastWords>,
}

impl Sink {
    /// Takes `limit` bytes, to a file or to nowhere.
    pub(super) fn new(mut file: Option<File>, limit: u64, words: Arc<LastWords>) -> Self {
        // A pipe has no place where anything could be written again.
        let end = file.as_mut().and_then(|file| file.stream_position().ok());
        Self {
            file,
            end,
            left: limit,
            lost: 0,
            noted: false,
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
            let steps = self.lost / STEP;
            self.lost = self.lost.saturating_add(length);
            if !self.noted || self.lost / STEP > steps {
                self.tell_lost();
            }
            return;
        }
        self.left -= length;
        self.end = self.end.map(|end| end.saturating_add(length));
        // Nobody may read any more, or the disk is full: the guest is not to stand still for that.
        file.write_all(bytes).unwrap_or_default();
    }

    /// Writes how much was lost, over what was written of it before.
    fn tell_lost(&mut self) {
        self.noted = true;
        if let (Some(file), Some(end)) = (&self.file, self.end) {
            let lost = self.lost;
            let words = format!("\n[the limit of this log: {lost} bytes more were not kept]\n");
            // A disk that is full says so itself.
            file.write_all_at(words.as_bytes(), end).unwrap_or_default();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.lost > 0 {
            self.tell_lost();
        }
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
        let mut read = || {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        let note = |lost| format!("\n[the limit of this log: {lost} bytes more were not kept]\n");
        assert_eq!(read(), "x".repeat(1000) + &note(STEP));
        assert_eq!((sink.lost, sink.line.len()), (99_000, LINE_MAX));
        drop(sink);
        assert_eq!(read(), "x".repeat(1000) + &note(99_000));
    }
}
