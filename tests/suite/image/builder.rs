//! Images made on the spot: layers entry by entry, as no well-behaved tool would write some of them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use tar::EntryType;

use bulkhead::image;
use bulkhead::image::ImageError;
use bulkhead::image::Limits;
use bulkhead::image::Source;

/// The digest of some bytes, as documents write it.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// A tar archive in the making.
#[derive(Debug, Default, Clone)]
pub(super) struct Layer {
    bytes: Vec<u8>,
}

/// An entry that is about to be written.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: EntryType,
    pub(super) name: &'a str,
    pub(super) link: &'a str,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    pub(super) device: (u32, u32),
    pub(super) content: &'a [u8],
    pub(super) records: &'a [(&'a str, &'a [u8])],
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            kind: EntryType::Regular,
            name: "",
            link: "",
            mode: 0o644,
            owner: (0, 0),
            device: (0, 0),
            content: b"",
            records: &[],
        }
    }
}

impl Layer {
    /// Writes an entry just as it is said.
    pub(super) fn entry(mut self, entry: &Entry<'_>) -> Self {
        if !entry.records.is_empty() {
            let mut records = Vec::new();
            for (key, value) in entry.records {
                records.extend(record(key, value));
            }
            self.block(
                &Entry {
                    kind: EntryType::XHeader,
                    name: "extended",
                    ..Entry::default()
                },
                &records,
            );
        }
        self.block(entry, entry.content);
        self
    }

    fn block(&mut self, entry: &Entry<'_>, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_old_mut();
        raw.name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        raw.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(super) fn file(self, name: &str, content: &str) -> Self {
        self.entry(&Entry {
            name,
            content: content.as_bytes(),
            ..Entry::default()
        })
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(&Entry {
            kind: EntryType::Directory,
            name,
            mode: 0o755,
            ..Entry::default()
        })
    }

    pub(super) fn link(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            kind: EntryType::Symlink,
            name,
            link,
            ..Entry::default()
        })
    }

    pub(super) fn hard_link(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            kind: EntryType::Link,
            name,
            link,
            ..Entry::default()
        })
    }

    /// The whole archive.
    pub(super) fn plain(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if length.to_string().len() + body != length {
        length = length.to_string().len() + body;
    }
    let mut text = format!("{length} {key}=").into_bytes();
    text.extend(value);
    text.push(b'\n');
    text
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packing {
    Plain,
    Gzip,
    /// Two frames, with something to be skipped between them.
    Zstd,
}

impl Packing {
    fn pack(self, plain: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => plain.to_vec(),
            Self::Gzip => {
                let mut packer =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(plain).unwrap();
                packer.finish().unwrap()
            }
            Self::Zstd => {
                let (one, other) = plain.split_at(plain.len() / 2);
                let mut packed = frame(one);
                packed.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
                packed.extend(frame(other));
                packed
            }
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

fn frame(plain: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(plain, level)
}

/// A layout in a directory of its own, which goes with it.
#[derive(Debug)]
pub(super) struct Layout {
    directory: tempfile::TempDir,
    index: Vec<Value>,
}

impl Layout {
    /// A layout without images.
    pub(super) fn empty() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-image-")
            .tempdir()
            .unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
        fs::write(directory.path().join("oci-layout"), version).unwrap();
        let made = Self {
            directory,
            index: Vec::new(),
        };
        made.write_index();
        made
    }

    /// A layout with one image of these layers.
    pub(super) fn of(layers: &[Layer]) -> Self {
        Self::packed(layers, Packing::Plain)
    }

    pub(super) fn packed(layers: &[Layer], packing: Packing) -> Self {
        let mut made = Self::empty();
        let entry = made.manifest(layers, packing, "amd64");
        made.add(entry);
        made
    }

    /// A layout with one image of one layer, whatever is in it.
    pub(super) fn raw(layer: &[u8]) -> Self {
        let bytes = layer.to_vec();
        let mut made = Self::empty();
        let entry = made.manifest(&[Layer { bytes }], Packing::Plain, "amd64");
        made.add(entry);
        made
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        let value = digest.strip_prefix("sha256:").unwrap();
        self.path().join("blobs/sha256").join(value)
    }

    /// Stores a part and gives a descriptor of it.
    pub(super) fn store(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        fs::write(self.blob(&digest), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    /// Stores an image; gives the descriptor of its manifest.
    pub(super) fn manifest(&self, layers: &[Layer], packing: Packing, architecture: &str) -> Value {
        let kind = format!("application/vnd.oci.image.layer.v1.tar{}", packing.suffix());
        let plain: Vec<Vec<u8>> = layers.iter().map(Layer::plain).collect();
        let diffs: Vec<String> = plain.iter().map(|bytes| digest(bytes)).collect();
        let stored = plain
            .iter()
            .map(|bytes| self.store(&kind, &packing.pack(bytes)));
        let stored: Vec<Value> = stored.collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/bin", "FROM=image"],
                "Entrypoint": ["/bin/sh"],
                "Cmd": ["-c", "echo hello"],
                "WorkingDir": "/tmp",
                "User": "guest",
            },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        let config = self.store(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": stored });
        self.store(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    /// Names an image in the index.
    pub(super) fn add(&mut self, entry: Value) {
        self.index.push(entry);
        self.write_index();
    }

    fn write_index(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.index });
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// The first image of the index, changed.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.index[0]);
        self.write_index();
    }

    /// The same as an archive, beside it.
    pub(super) fn archive(&self, home: &Path) -> PathBuf {
        let made = home.join("image.tar");
        let status = Command::new("tar")
            .arg("-C")
            .arg(self.path())
            .arg("-cf")
            .arg(&made)
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        made
    }
}

/// A tree that was unpacked, beside a directory that no archive may reach.
#[derive(Debug)]
pub(super) struct Unpacked {
    directory: tempfile::TempDir,
    /// What could not be done.
    pub(super) remarks: Vec<String>,
    /// How it ended.
    pub(super) done: Result<u64, String>,
}

impl Unpacked {
    /// Unpacks the only image of a layout.
    pub(super) fn from(layout: &Layout, limits: Limits) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-tree-")
            .tempdir()
            .unwrap();
        let root = directory.path().join("tree");
        fs::create_dir(&root).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/file"), "untouched").unwrap();
        let mut remarks = Vec::new();
        let unpack = || -> Result<u64, ImageError> {
            let source = Source::open(layout.path())?;
            let chosen = image::choose(&source, None)?;
            image::unpack(&source, &chosen, &root, limits, &mut |text| {
                remarks.push(text);
            })
        };
        let done = unpack_text(unpack);
        Self {
            directory,
            remarks,
            done,
        }
    }

    /// Unpacks an image of these layers.
    pub(super) fn of(layers: &[Layer]) -> Self {
        Self::from(&Layout::of(layers), Limits::default())
    }

    /// The same, which must succeed.
    #[track_caller]
    pub(super) fn whole(layers: &[Layer]) -> Self {
        let made = Self::of(layers);
        made.done.clone().unwrap();
        made
    }

    /// A path in the tree.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("tree").join(path)
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// What is beside the tree, which must be as it was.
    #[track_caller]
    pub(super) fn assert_outside_untouched(&self) {
        let names = fs::read_dir(self.directory.path()).unwrap();
        assert_eq!(names.count(), 2);
        let outside = self.directory.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "untouched"
        );
    }
}

fn unpack_text(unpack: impl FnOnce() -> Result<u64, ImageError>) -> Result<u64, String> {
    unpack().map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    })
}
