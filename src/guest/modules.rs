//! Chooses the modules that a machine needs, in the order in which they can be loaded.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use crate::guest::error::GuestError;
use crate::guest::kernel;

/// What every machine has and cannot do without.
const NEEDED: [&str; 3] = ["virtio_mmio", "vmw_vsock_virtio_transport", "virtiofs"];
/// What a machine may have: the kind of a device (`VIRTIO_ID_*`), its driver, and whether a kernel may lack that.
const DRIVERS: [(u32, &str, bool); 4] = [
    (1, "virtio_net", false),
    (2, "virtio_blk", false),
    (4, "virtio_rng", true),
    (5, "virtio_balloon", false),
];
/// What is loaded when a program in the workspace makes the kernel ask for it.
const ON_DEMAND: [&str; 9] = [
    "overlay", "erofs", "squashfs", "loop", "tun", "veth", "bridge", "macvlan", "dummy",
];

/// A module, unpacked.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name, as the kernel spells it.
    pub(super) name: String,
    /// What is loaded.
    pub(super) object: Vec<u8>,
}

/// Modules for a machine.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// All of them, what others need before those.
    pub(super) all: Vec<Module>,
    /// The names of those that are loaded at once, in order.
    pub(super) first: Vec<String>,
    /// What the kernel may ask for, or a machine may have, and the names of what is loaded then, in order.
    pub(super) on_demand: Vec<(String, Vec<String>)>,
}

/// Chooses from the directory of a kernel's modules, `lib/modules/VERSION`. Without `signed` their signatures are left
/// out, so that a kernel which would take them without has nothing to verify while it boots.
pub(super) fn choose(directory: &Path, signed: bool) -> Result<Modules, GuestError> {
    let mut index = Index::read(directory, signed)?;
    let mut chosen = Modules::default();
    for name in NEEDED {
        index.order_of(name, &mut chosen.first, false)?;
    }
    for (kind, name, optional) in DRIVERS {
        let mut order = chosen.first.clone();
        index.order_of(name, &mut order, optional)?;
        let order = order.split_off(chosen.first.len());
        if !order.is_empty() {
            chosen.on_demand.push((format!("virtio-{kind}"), order));
        }
    }
    for name in ON_DEMAND {
        if !index.has(name) {
            continue;
        }
        let mut order = Vec::new();
        index.order(name, &mut order)?;
        chosen.on_demand.push((name.to_owned(), order.clone()));
        let aliases = index.aliases(name).into_iter();
        chosen
            .on_demand
            .extend(aliases.map(|alias| (alias, order.clone())));
    }
    chosen.all = index.read.into_values().collect();
    Ok(chosen)
}

/// Where the file of each module below a directory is.
fn files_below(directory: &Path) -> Result<BTreeMap<String, PathBuf>, GuestError> {
    let mut files = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(GuestError::file("read", &folder))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if name.contains(".ko") {
                files.insert(name_of(&name), path);
            }
        }
    }
    Ok(files)
}

/// A directory of modules.
#[derive(Debug)]
struct Index {
    directory: PathBuf,
    signed: bool,
    /// Where each is.
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    /// Those that have been looked into.
    read: BTreeMap<String, Module>,
}

impl Index {
    fn read(directory: &Path, signed: bool) -> Result<Self, GuestError> {
        let path = directory.join("modules.builtin");
        let list = std::fs::read_to_string(&path).map_err(GuestError::file("read", path))?;
        Ok(Self {
            directory: directory.to_owned(),
            signed,
            files: files_below(directory)?,
            built_in: list.lines().map(name_of).collect(),
            read: BTreeMap::new(),
        })
    }

    /// Adds a module that the kernel does not have built in, after all that it needs.
    fn order_of(
        &mut self,
        name: &str,
        list: &mut Vec<String>,
        optional: bool,
    ) -> Result<(), GuestError> {
        if self.has(name) || optional || self.built_in.contains(name) {
            return self.order(name, list);
        }
        Err(GuestError::NoModule {
            name: name.to_owned(),
            directory: self.directory.clone(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Adds a module to a list, after all that it needs; what is there already is left where it is.
    fn order(&mut self, name: &str, list: &mut Vec<String>) -> Result<(), GuestError> {
        // Each name is looked at twice: when what it needs is not yet in the list, and when it is. Who is met again in
        // between needs itself, by way of others, and is loaded after them.
        let mut begun = BTreeSet::new();
        let mut open = vec![(name.to_owned(), false)];
        while let Some((name, ready)) = open.pop() {
            if list.contains(&name) || !self.has(&name) {
                continue;
            }
            if ready {
                list.push(name);
                continue;
            }
            if !begun.insert(name.clone()) {
                continue;
            }
            self.look_into(&name)?;
            let module = self.read.get(&name);
            let needs = module.map(|module| said(&module.object, "depends="));
            let needs = needs.unwrap_or_default();
            open.push((name, true));
            let names = needs.iter().flat_map(|list| list.split(','));
            let names = names.filter(|name| !name.is_empty()).map(name_of);
            open.extend(names.map(|name| (name, false)));
        }
        Ok(())
    }

    /// The exact names under which the kernel may ask for a module.
    fn aliases(&self, name: &str) -> Vec<String> {
        let module = self.read.get(name);
        let mut aliases = module.map_or_else(Vec::new, |module| said(&module.object, "alias="));
        aliases.retain(|alias| !alias.contains(['*', '?', '[', '/']));
        aliases
    }

    fn look_into(&mut self, name: &str) -> Result<(), GuestError> {
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        let packed = std::fs::read(path).map_err(GuestError::file("read", path))?;
        let unpacked = match path.extension().and_then(|ending| ending.to_str()) {
            Some("xz") => kernel::xz(&packed),
            Some("gz") => whole(flate2::read::GzDecoder::new(packed.as_slice())),
            Some("zst") => match ruzstd::decoding::StreamingDecoder::new(packed.as_slice()) {
                Ok(decoder) => whole(decoder),
                Err(error) => Err(error.to_string()),
            },
            _ => Ok(packed),
        };
        let damaged = |words: String| GuestError::File {
            what: "unpack",
            path: path.clone(),
            source: std::io::Error::other(words),
        };
        let mut object = unpacked.map_err(damaged)?;
        if !self.signed {
            object.truncate(without_signature(&object));
        }
        let module = Module {
            name: name.to_owned(),
            object,
        };
        self.read.insert(name.to_owned(), module);
        Ok(())
    }
}

/// How long a module is without its signature (`struct module_signature`), which stands behind it: the signature, eight
/// bytes that say of which kind it is, its length, and a mark.
fn without_signature(object: &[u8]) -> usize {
    const MARK: &[u8] = b"~Module signature appended~\n";
    let signature = || {
        let rest = object.strip_suffix(MARK)?;
        let (rest, length) = rest.split_last_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest.len().checked_sub(8)?.checked_sub(length)
    };
    signature().unwrap_or(object.len())
}

/// What a module says about itself under a heading: its strings stand one after the other, each with a zero behind it.
fn said(object: &[u8], heading: &str) -> Vec<String> {
    let strings = object.split(|byte| *byte == 0);
    let meant = strings.filter_map(|text| text.strip_prefix(heading.as_bytes()));
    meant
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

fn whole(mut from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match from.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// The kernel's name for a module's file.
fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    let name = base.split(".ko").next().unwrap_or(base);
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of modules; each file, with what it says about itself.
    fn modules(built_in: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("modules.builtin"), built_in).unwrap();
        std::fs::create_dir(home.path().join("kernel")).unwrap();
        for (file, words) in files {
            let object = format!("\0{}\0", words.replace(' ', "\0"));
            std::fs::write(home.path().join("kernel").join(file), object).unwrap();
        }
        home
    }

    #[test]
    fn what_others_need_comes_first() {
        let built_in = "k/virtio_mmio.ko\nk/virtio_blk.ko\nk/virtio_net.ko\nk/virtiofs.ko\nk/virtio_balloon.ko\nk/crc.ko\n";
        let home = modules(
            built_in,
            &[
                ("vmw_vsock_virtio_transport.ko", "depends=common,vsock"),
                ("common.ko", "depends=vsock"),
                ("vsock.ko", "depends="),
                ("virtio-rng.ko", "license=GPL"),
                ("erofs.ko", "alias=fs-erofs alias=x*y depends=lzo,crc"),
                ("lzo.ko", ""),
                ("unwanted.ko", ""),
            ],
        );
        let chosen = choose(home.path(), true).unwrap();
        assert_eq!(
            chosen.first,
            ["vsock", "common", "vmw_vsock_virtio_transport"]
        );
        let expected = [
            ("virtio-4", &["virtio_rng"][..]),
            ("erofs", &["lzo", "erofs"]),
            ("fs-erofs", &["lzo", "erofs"]),
        ];
        let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected = expected.map(|(asked, order)| (asked.to_owned(), words(order)));
        assert_eq!(chosen.on_demand, expected);
        assert_eq!(chosen.all.len(), 6);
    }

    #[test]
    fn a_signature_is_left_out_whole_and_nothing_else() {
        let mark = b"~Module signature appended~\n".as_slice();
        let signed = [b"module", b"SIGN".as_slice(), &[0; 8], &[0, 0, 0, 4], mark].concat();
        assert_eq!(without_signature(&signed), 6);
        let false_length = [b"m".as_slice(), &[0; 8], &[0, 0, 0, 9], mark].concat();
        for whole in [b"module".as_slice(), mark, &false_length] {
            assert_eq!(without_signature(whole), whole.len());
        }
    }

    #[test]
    fn a_kernel_without_what_every_machine_needs_is_refused_by_its_name() {
        let home = modules("", &[]);
        let refused = choose(home.path(), true).unwrap_err().to_string();
        assert!(refused.contains("no virtio_mmio"), "{refused}");
    }

    #[test]
    fn modules_that_need_each_other_are_no_endless_way() {
        let built_in = "k/virtio_blk.ko\nk/virtio_net.ko\nk/virtiofs.ko\nk/virtio_balloon.ko\nk/vmw_vsock_virtio_transport.ko\n";
        let files = [
            ("virtio_mmio.ko", "depends=a"),
            ("a.ko", "depends=virtio-mmio"),
        ];
        let home = modules(built_in, &files);
        assert_eq!(choose(home.path(), true).unwrap().first.len(), 2);
    }
}
