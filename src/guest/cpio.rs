//! Writes an archive as the kernel unpacks its first files from (`initramfs`, the "newc" form of cpio).

/// What comes before each file.
const MAGIC: &str = "070701";
/// The name that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive that grows.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, 0o040_755, (0, 0), &[]);
    }

    /// Adds a file that is read, or a program.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | mode, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, 0o120_777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, 0o020_000 | mode, (major, minor), &[]);
    }

    /// The whole archive. A file of 4 GiB or more does not fit, and gives `None`.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        self.entry(END, 0, (0, 0), &[]);
        (self.count != u32::MAX).then_some(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let Ok(size) = u32::try_from(content.len()) else {
            self.count = u32::MAX;
            return;
        };
        self.count = self.count.saturating_add(1);
        let name = path.trim_start_matches('/');
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Number, mode, owner, group, links, time, size, device of the archive, device, length of the name, checksum.
        let fields = [
            self.count, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0,
        ];
        self.bytes.extend(MAGIC.bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
