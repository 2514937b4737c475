//! Takes the kernel out of what distributions ship: an ELF file behind code that unpacks it at every boot.

use std::io::Read;
use std::path::Path;

use crate::guest::error::GuestError;

/// No kernel is larger than this when it is unpacked, in bytes.
const LARGEST: usize = 512 << 20;
/// What the kernel's version stands behind, in its own words.
const VERSION_WORDS: &[u8] = b"Linux version ";

/// A kernel that can be mapped as it is.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The ELF file.
    pub(super) elf: Vec<u8>,
    /// What `uname -r` will say; empty when it does not tell.
    pub(super) version: String,
}

/// Unpacks a kernel, an ELF file or a bzImage; `path` is where it came from.
pub(super) fn unpack(image: Vec<u8>, path: &Path) -> Result<Kernel, GuestError> {
    let elf = match is_elf(&image) {
        true => image,
        false => {
            let none = || GuestError::NoKernel {
                path: path.to_owned(),
            };
            let payload = payload(&image).ok_or_else(none)?;
            unpacked(payload, path)?
        }
    };
    if !is_elf(&elf) {
        return Err(GuestError::NoKernel {
            path: path.to_owned(),
        });
    }
    let version = version(&elf);
    Ok(Kernel { elf, version })
}

/// A file for x86-64.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01") && bytes.get(18..20) == Some(&[62, 0])
}

/// What a bzImage unpacks when it is booted (boot protocol 2.08 and later).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" || image.get(0x207)? < &2 {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        count => usize::from(*count),
    };
    let begin = (sectors + 1) * 512 + word(0x248)?;
    image.get(begin..begin.checked_add(word(0x24c)?)?)
}

fn unpacked(packed: &[u8], path: &Path) -> Result<Vec<u8>, GuestError> {
    let damaged = |words: String| GuestError::Damaged {
        path: path.to_owned(),
        words,
    };
    let other = |method| {
        Err(GuestError::Packed {
            path: path.to_owned(),
            method,
        })
    };
    match packed {
        [0x7f, b'E', b'L', b'F', ..] => Ok(packed.to_vec()),
        [0x1f, 0x8b, ..] => read_all(flate2::read::GzDecoder::new(packed)).map_err(damaged),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed);
            let decoder = decoder.map_err(|error| damaged(error.to_string()))?;
            read_all(decoder).map_err(damaged)
        }
        // Its size stands behind it, which is no part of the stream.
        [0xfd, b'7', b'z', b'X', b'Z', 0, .., _, _, _, _] => {
            xz(&packed[..packed.len() - 4]).map_err(damaged)
        }
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => lz4(blocks).map_err(damaged),
        [b'B', b'Z', b'h', ..] => other("bzip2"),
        [0x5d, 0, 0, ..] => other("lzma"),
        [0x89, b'L', b'Z', b'O', ..] => other("lzo"),
        _ => other("something unknown"),
    }
}

fn read_all(from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let most = from.take(LARGEST as u64 + 1);
    let read = std::io::BufReader::new(most).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > LARGEST => Err("it is too large".to_owned()),
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// Unpacks `.xz`; nothing may follow the stream.
pub(super) fn xz(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Bounded::default();
    let mut rest = packed;
    match lzma_rs::xz_decompress(&mut rest, &mut bytes) {
        Ok(()) => Ok(bytes.0),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes bytes up to what a kernel may have.
#[derive(Debug, Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST {
            return Err(std::io::Error::other("it is too large"));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Unpacks the old form of LZ4, which kernels use: blocks of up to 8 MiB, each after its length; the size of the whole
/// behind the last.
fn lz4(mut blocks: &[u8]) -> Result<Vec<u8>, String> {
    const BLOCK: usize = 8 << 20;
    let mut whole = Vec::new();
    let mut block = vec![0; BLOCK];
    while let Some((head, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*head) as usize;
        let Some(packed) = rest.get(..length).filter(|_| whole.len() < LARGEST) else {
            // The size of what has been unpacked, and the end.
            return match length == whole.len() && rest.is_empty() {
                true => Ok(whole),
                false => Err("it ends in the middle of a block".to_owned()),
            };
        };
        let unpacked = lz4_flex::block::decompress_into(packed, &mut block);
        let unpacked = unpacked.map_err(|error| error.to_string())?;
        whole.extend(&block[..unpacked]);
        blocks = &rest[length..];
    }
    Ok(whole)
}

/// Looks for what the kernel says first when it boots.
fn version(elf: &[u8]) -> String {
    let at = elf
        .windows(VERSION_WORDS.len())
        .position(|words| words == VERSION_WORDS);
    let rest = at.and_then(|at| elf.get(at + VERSION_WORDS.len()..));
    let word = rest.and_then(|rest| rest.split(|byte| !byte.is_ascii_graphic()).next());
    String::from_utf8_lossy(word.unwrap_or_default()).into_owned()
}
