//! From the list of images in a layout to the one that is meant: its manifest, its configuration, its layers.

use std::io::Read;

use oci_spec::image::Arch;
use oci_spec::image::Descriptor;
use oci_spec::image::ImageConfiguration;
use oci_spec::image::ImageIndex;
use oci_spec::image::ImageManifest;
use oci_spec::image::Os;
use sha2::Digest;
use sha2::Sha256;

use super::digest::Hasher;
use super::error::ImageError;
use super::source::Source;

/// The annotation that names an image in a layout.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The longest manifest, index or configuration, in bytes.
const LONGEST: u64 = 8 << 20;
/// How deep lists of images may lie in each other.
const DEEPEST: usize = 4;
/// The most layers of one image: overlay file systems of other tools end at about this number.
const MOST_LAYERS: usize = 500;

/// The kinds of lists and of manifests, and of layers up to the suffix that says how they are packed.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const LAYERS: [&str; 7] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
];

/// What an image says about its program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// Entry point and command, one behind the other.
    pub command: Vec<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// `USER[:GROUP]`, by names or numbers.
    pub user: Option<String>,
}

/// One layer, as manifest and configuration speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerOf {
    /// The digest of it as it is packed.
    pub digest: String,
    /// Its size as it is packed, in bytes.
    pub size: u64,
    /// The digest of it unpacked.
    pub diff: String,
}

/// The image that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The digest of its manifest.
    pub manifest: String,
    /// The name of all its layers together (`ChainID` of the image specification).
    pub chain: String,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerOf>,
    /// What it says about its program.
    pub defaults: Defaults,
}

/// Finds the image that `reference`, a name or a digest, means; or without one, the only one for this machine.
///
/// # Errors
///
/// [`ImageError`] says what there is to choose from, or which part is damaged.
pub fn choose(source: &Source, reference: Option<&str>) -> Result<Chosen, ImageError> {
    let index: ImageIndex = parsed(source, "index.json", &source.index()?)?;
    let search = Search { source, reference };
    let found = search.among(index.manifests(), false, 0)?;
    match found.as_slice() {
        [one] => search.open(one),
        [] => Err(search.nothing(index.manifests())),
        several => Err(unchosen(
            source,
            format!(
                "it holds several images; name one of them behind its path: {}",
                names(several)
            ),
        )),
    }
}

struct Search<'a> {
    source: &'a Source,
    reference: Option<&'a str>,
}

impl Search<'_> {
    /// The manifests for this machine that are meant; `named` once a list that holds them was.
    fn among(
        &self,
        entries: &[Descriptor],
        named: bool,
        depth: usize,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let mut found: Vec<Descriptor> = Vec::new();
        for entry in entries {
            let meant = named || self.means(entry);
            let kind = entry.media_type().to_string();
            if INDEXES.contains(&kind.as_str()) && depth < DEEPEST {
                let bytes = verified(self.source, entry)?;
                let inner: ImageIndex = parsed(self.source, entry.digest().as_ref(), &bytes)?;
                // A list for several machines stands for the first that fits.
                let below = self.among(inner.manifests(), meant, depth + 1)?;
                found.extend(below.into_iter().take(1));
            } else if meant && MANIFESTS.contains(&kind.as_str()) && fits(entry) {
                found.push(entry.clone());
            }
        }
        found.dedup_by(|one, other| one.digest() == other.digest());
        Ok(found)
    }

    fn means(&self, entry: &Descriptor) -> bool {
        let Some(wanted) = self.reference else {
            return true;
        };
        let name = name_of(entry).unwrap_or_default();
        let tagged = name.strip_suffix(wanted);
        entry.digest().as_ref() == wanted
            || name == wanted
            || tagged.is_some_and(|rest| rest.ends_with(':'))
    }

    fn nothing(&self, entries: &[Descriptor]) -> ImageError {
        let wanted = match self.reference {
            Some(reference) => format!("{reference:?} for {}", platform()),
            None => format!("an image for {}", platform()),
        };
        let why = match entries {
            [] => "it holds no image at all".to_owned(),
            some => format!("{wanted} is not among what it holds: {}", names(some)),
        };
        unchosen(self.source, why)
    }

    /// Reads what a manifest leads to.
    fn open(&self, entry: &Descriptor) -> Result<Chosen, ImageError> {
        let source = self.source;
        let digest = entry.digest().to_string();
        let manifest: ImageManifest = parsed(source, &digest, &verified(source, entry)?)?;
        let about = manifest.config();
        let part = about.digest().as_ref();
        let config: ImageConfiguration = parsed(source, part, &verified(source, about)?)?;
        if *config.os() != Os::Linux || *config.architecture() != Arch::default() {
            let (os, architecture) = (config.os(), config.architecture());
            let why = format!("it is for {os}/{architecture}, and this is {}", platform());
            return Err(unchosen(source, why));
        }
        let layers = layers_of(source, &digest, &manifest, &config)?;
        Ok(Chosen {
            manifest: digest,
            chain: chain(&layers),
            layers,
            defaults: defaults(&config),
        })
    }
}

fn layers_of(
    source: &Source,
    digest: &str,
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> Result<Vec<LayerOf>, ImageError> {
    let malformed = |why: String| ImageError::Malformed {
        file: source.path().to_owned(),
        part: digest.to_owned(),
        why,
    };
    let (layers, diffs) = (manifest.layers(), config.rootfs().diff_ids());
    if layers.len() != diffs.len() || layers.is_empty() || layers.len() > MOST_LAYERS {
        return Err(malformed(format!(
            "it has {} layers and its configuration {}; from 1 to {MOST_LAYERS} are possible",
            layers.len(),
            diffs.len()
        )));
    }
    for layer in layers {
        let kind = layer.media_type().to_string();
        if !LAYERS.contains(&kind.as_str()) {
            return Err(malformed(format!("a layer of kind {kind:?} is not known")));
        }
    }
    let pairs = layers.iter().zip(diffs);
    let made = pairs.map(|(layer, diff)| LayerOf {
        digest: layer.digest().to_string(),
        size: layer.size(),
        diff: diff.clone(),
    });
    Ok(made.collect())
}

/// `ChainID`: the name of a stack of layers by what is in each.
fn chain(layers: &[LayerOf]) -> String {
    let mut diffs = layers.iter().map(|layer| layer.diff.clone());
    let first = diffs.next().unwrap_or_default();
    diffs.fold(first, |below, diff| {
        format!("sha256:{:x}", Sha256::digest(format!("{below} {diff}")))
    })
}

fn defaults(config: &ImageConfiguration) -> Defaults {
    let Some(config) = config.config() else {
        return Defaults::default();
    };
    let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let some = |word: &Option<String>| word.clone().filter(|word| !word.is_empty());
    let mut command = list(config.entrypoint());
    command.extend(list(config.cmd()));
    Defaults {
        env: list(config.env()),
        command,
        cwd: some(config.working_dir()),
        user: some(config.user()),
    }
}

/// A part that is read whole, after it was compared with what is said of it.
fn verified(source: &Source, part: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = part.digest().to_string();
    let damaged = |why: String| ImageError::Damaged {
        file: source.path().to_owned(),
        digest: digest.clone(),
        why,
    };
    let Some(mut hasher) = Hasher::of(&digest) else {
        return Err(damaged("only sha256 and sha512 can be verified".to_owned()));
    };
    if part.size() > LONGEST {
        return Err(damaged(format!(
            "{} bytes are too many for a document",
            part.size()
        )));
    }
    let mut bytes = Vec::new();
    let read = source
        .blob(&digest)?
        .take(LONGEST + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| ImageError::Unreadable {
        file: source.path().to_owned(),
        part: digest.clone(),
        source: error,
    })?;
    if bytes.len() as u64 != part.size() {
        let why = format!(
            "it has {} bytes and should have {}",
            bytes.len(),
            part.size()
        );
        return Err(damaged(why));
    }
    hasher.update(&bytes);
    let found = hasher.text();
    if found != digest {
        return Err(damaged(format!("it is {found}")));
    }
    Ok(bytes)
}

fn parsed<T: serde::de::DeserializeOwned>(
    source: &Source,
    part: &str,
    bytes: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Malformed {
        file: source.path().to_owned(),
        part: part.to_owned(),
        why: error.to_string(),
    })
}

/// Whether an entry is for this machine, as far as it says.
fn fits(entry: &Descriptor) -> bool {
    entry.platform().as_ref().is_none_or(|platform| {
        *platform.os() == Os::Linux && *platform.architecture() == Arch::default()
    })
}

fn platform() -> String {
    format!("{}/{}", Os::Linux, Arch::default())
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations().as_ref()?;
    annotations.get(NAME).map(String::as_str)
}

fn names(entries: &[Descriptor]) -> String {
    let words = entries.iter().map(|entry| {
        let platform = entry.platform().as_ref().map_or_else(String::new, |found| {
            format!(" ({}/{})", found.os(), found.architecture())
        });
        match name_of(entry) {
            Some(name) => format!(":{name}{platform}"),
            None => format!("@{}{platform}", entry.digest()),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

fn unchosen(source: &Source, why: String) -> ImageError {
    ImageError::Unchosen {
        file: source.path().to_owned(),
        why,
    }
}
