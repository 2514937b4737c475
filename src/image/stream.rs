//! A layer as a stream of bytes: unpacked, and checked on the way against all that is said of it.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::errors::ReadFrameHeaderError;

use super::choose::LayerOf;
use super::digest::Hasher;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// Reads from `inner` and notes what went through.
#[derive(Debug)]
struct Checked<R> {
    inner: R,
    hasher: Hasher,
    length: u64,
}

impl<R: Read> Checked<R> {
    fn new(inner: R, digest: &str) -> std::io::Result<Self> {
        let unknown = || wrong(format!("{digest}: only sha256 and sha512 can be verified"));
        Ok(Self {
            inner,
            hasher: Hasher::of(digest).ok_or_else(unknown)?,
            length: 0,
        })
    }

    /// Reads what is left, and compares.
    fn finish(mut self, what: &str, digest: &str) -> std::io::Result<u64> {
        std::io::copy(&mut self, &mut std::io::sink())?;
        let found = self.hasher.text();
        if found != digest {
            return Err(wrong(format!("{what} is {found} and should be {digest}")));
        }
        Ok(self.length)
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hasher.update(into.get(..read).unwrap_or_default());
        self.length += read as u64;
        Ok(read)
    }
}

fn wrong(text: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}

type Packed<R> = BufReader<Checked<R>>;

/// The ways in which a layer may be packed; which it is, its first bytes say.
enum Unpacked<R: Read> {
    Plain(Box<Packed<R>>),
    Gzip(Box<MultiGzDecoder<Packed<R>>>),
    Zstd(Box<Zstd<Packed<R>>>),
}

impl<R: Read> Unpacked<R> {
    fn into_inner(self) -> Packed<R> {
        match self {
            Self::Plain(inner) => *inner,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.source,
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// A layer, unpacked.
pub(super) struct Layer<R: Read> {
    plain: Checked<Unpacked<R>>,
    digest: String,
    diff: String,
    size: u64,
}

impl<R: Read> Layer<R> {
    /// Begins to read a layer.
    pub(super) fn new(packed: R, layer: &LayerOf) -> std::io::Result<Self> {
        let mut packed = BufReader::with_capacity(CHUNK, Checked::new(packed, &layer.digest)?);
        let first = packed.fill_buf()?;
        let unpacked = match first {
            [0x1f, 0x8b, ..] => Unpacked::Gzip(Box::new(MultiGzDecoder::new(packed))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Unpacked::Zstd(Box::new(Zstd::new(packed)))
            }
            _ => Unpacked::Plain(Box::new(packed)),
        };
        Ok(Self {
            plain: Checked::new(unpacked, &layer.diff)?,
            digest: layer.digest.clone(),
            diff: layer.diff.clone(),
            size: layer.size,
        })
    }

    /// Reads what is left, and compares digests and size with what is said of it.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        std::io::copy(&mut self.plain, &mut std::io::sink())?;
        let Checked { inner, hasher, .. } = self.plain;
        let packed = inner.into_inner().into_inner();
        let size = packed.finish("as it is packed it", &self.digest)?;
        if size != self.size {
            let why = format!("it has {size} bytes and should have {}", self.size);
            return Err(wrong(why));
        }
        let found = hasher.text();
        if found != self.diff {
            let why = format!("unpacked it is {found} and should be {}", self.diff);
            return Err(wrong(why));
        }
        Ok(())
    }
}

impl<R: Read> Read for Layer<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.plain.read(into)
    }
}

/// Any number of zstd frames, one after the other, with what is to be skipped between them.
struct Zstd<R> {
    decoder: FrameDecoder,
    source: R,
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            decoder: FrameDecoder::new(),
            source,
            inside: false,
        }
    }

    /// Goes to the next frame; `false` at the end.
    fn next_frame(&mut self) -> std::io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    std::io::copy(&mut skipped, &mut std::io::sink())?;
                }
                Err(error) => return Err(wrong(format!("as zstd it cannot be read: {error}"))),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if !self.inside && !self.next_frame()? {
                return Ok(0);
            }
            self.inside = true;
            let read = self.decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.inside = false;
                continue;
            }
            let some = BlockDecodingStrategy::UptoBytes(CHUNK);
            self.decoder
                .decode_blocks(&mut self.source, some)
                .map_err(|error| wrong(format!("as zstd it cannot be read: {error}")))?;
        }
    }
}
