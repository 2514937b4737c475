//! What becomes of the entries of layers.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use super::builder::Entry;
use super::builder::Layer;
use super::builder::Layout;
use super::builder::Packing;
use super::builder::Unpacked;
use crate::need;
use bulkhead::image::Limits;

fn whiteout(layer: Layer, name: &str) -> Layer {
    layer.file(name, "")
}

#[test]
fn layers_are_unpacked_however_they_are_packed() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let long = "line of a file that is long enough for several blocks\n".repeat(9000);
        let lower = Layer::default().file("etc/one", "1").file("long", &long);
        let upper = Layer::default().file("etc/two", "2").file("etc/one", "new");
        let layout = Layout::packed(&[lower, upper], packing);
        let made = Unpacked::from(&layout, Limits::default());
        made.done.clone().unwrap();
        assert_eq!(made.read("etc/one"), "new", "{packing:?}");
        assert_eq!(made.read("etc/two"), "2");
        assert_eq!(made.read("long"), long);
    }
}

#[test]
fn a_whiteout_hides_what_lower_layers_have() {
    let lower = Layer::default()
        .file("gone", "1")
        .file("dir/gone", "1")
        .file("dir/kept", "1")
        .file("tree/a/b", "1");
    let upper = whiteout(Layer::default(), ".wh.gone");
    let upper = whiteout(whiteout(upper, "dir/.wh.gone"), ".wh.tree");
    let made = Unpacked::whole(&[lower, upper]);
    assert!(!made.at("gone").exists());
    assert!(!made.at("dir/gone").exists());
    assert!(!made.at("tree").exists());
    assert_eq!(made.read("dir/kept"), "1");
    assert!(!made.at(".wh.gone").exists());
}

#[test]
fn a_whiteout_does_not_hide_what_its_own_layer_has_before_or_after_it() {
    let lower = Layer::default().file("tree/old", "1").file("one", "1");
    let upper = Layer::default().file("tree/new", "2").file("one", "2");
    let upper = whiteout(whiteout(upper, ".wh.tree"), ".wh.one");
    let made = Unpacked::whole(&[lower, upper.file("tree/later", "3")]);
    assert!(!made.at("tree/old").exists());
    assert_eq!(made.read("tree/new"), "2");
    assert_eq!(made.read("tree/later"), "3");
    assert_eq!(made.read("one"), "2");
}

#[test]
fn an_opaque_directory_shows_its_own_layer_alone() {
    let lower = Layer::default()
        .file("dir/old", "1")
        .file("dir/sub/old", "1")
        .file("beside", "1");
    let upper = Layer::default().file("dir/sub/new", "2");
    let upper = whiteout(upper, "dir/.wh..wh..opq").file("dir/last", "2");
    let made = Unpacked::whole(&[lower, upper]);
    assert!(!made.at("dir/old").exists());
    assert!(!made.at("dir/sub/old").exists());
    assert_eq!(made.read("dir/sub/new"), "2");
    assert_eq!(made.read("dir/last"), "2");
    assert_eq!(made.read("beside"), "1");
}

#[test]
fn hard_links_lead_to_files_of_their_own_layer_and_of_lower_ones() {
    let lower = Layer::default().file("dir/a", "1").hard_link("b", "dir/a");
    let upper = Layer::default()
        .hard_link("c", "./dir/a")
        .hard_link("c", "c");
    let made = Unpacked::whole(&[lower, upper]);
    let inode = |path: &str| fs::metadata(made.at(path)).unwrap().ino();
    assert_eq!(inode("b"), inode("dir/a"));
    assert_eq!(inode("c"), inode("dir/a"));
}

#[test]
fn a_directory_stays_when_a_later_layer_says_it_again_and_gives_way_to_what_is_none() {
    let lower = Layer::default().file("kept/a", "1").file("replaced/a", "1");
    let upper = Layer::default()
        .directory("kept")
        .file("replaced", "file")
        .link("link", "kept");
    let last = Layer::default().directory("link");
    let made = Unpacked::whole(&[lower, upper, last]);
    assert_eq!(made.read("kept/a"), "1");
    assert_eq!(made.read("replaced"), "file");
    assert!(fs::symlink_metadata(made.at("link")).unwrap().is_dir());
}

#[test]
fn a_path_through_a_link_of_a_lower_layer_leads_where_the_link_leads() {
    let lower = Layer::default()
        .file("usr/lib/a", "1")
        .link("lib", "usr/lib")
        .link("abs", "/usr/lib");
    let upper = Layer::default().file("lib/b", "2").file("abs/c", "3");
    let made = Unpacked::whole(&[lower, whiteout(upper, "lib/.wh.a")]);
    assert_eq!(made.read("usr/lib/b"), "2");
    assert_eq!(made.read("usr/lib/c"), "3");
    assert!(!made.at("usr/lib/a").exists());
    assert!(made.at("lib").is_symlink());
}

#[test]
fn owners_modes_times_and_attributes_are_those_of_the_archive() {
    need!(root);
    // A file capability holds any bytes, the end of a line among them.
    let capability: &[u8] =
        b"\x01\x00\x00\x02\x0a\x20\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00";
    let layer = Layer::default()
        .entry(&Entry {
            name: "short",
            mode: 0o4755,
            owner: (1000, 2000),
            content: b"x",
            records: &[
                ("SCHILY.xattr.user.note", b"one\ntwo"),
                ("path", b"dir/program"),
                ("mtime", b"12345.5"),
                ("uid", b"70000"),
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ],
            ..Entry::default()
        })
        .entry(&Entry {
            kind: EntryType::Directory,
            name: "dir",
            mode: 0o1555,
            owner: (5, 6),
            ..Entry::default()
        });
    let made = Unpacked::whole(&[layer, Layer::default().file("dir/more", "1")]);
    let program = fs::metadata(made.at("dir/program")).unwrap();
    assert_eq!(program.mode() & 0o7777, 0o4755);
    assert_eq!((program.uid(), program.gid()), (70_000, 2000));
    assert_eq!(
        (program.mtime(), program.mtime_nsec()),
        (12_345, 500_000_000)
    );
    let attribute = |name: &str| {
        let mut value = vec![0u8; 64];
        let length = rustix::fs::getxattr(made.at("dir/program"), name, &mut value)?;
        value.truncate(length);
        Ok::<_, rustix::io::Errno>(value)
    };
    assert_eq!(attribute("user.note").unwrap(), b"one\ntwo");
    assert_eq!(attribute("security.capability").unwrap(), capability);
    attribute("trusted.overlay.opaque").unwrap_err();
    assert!(made.remarks[0].contains("trusted.overlay.opaque"));
    let directory = fs::metadata(made.at("dir")).unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o1555);
    assert_eq!((directory.uid(), directory.mtime()), (5, 1_000_000));
}

#[test]
fn nodes_and_pipes_are_made() {
    need!(root);
    let node = |kind, name| Entry {
        kind,
        name,
        device: (1, 3),
        ..Entry::default()
    };
    let layer = Layer::default()
        .entry(&node(EntryType::Char, "null"))
        .entry(&node(EntryType::Block, "block"))
        .entry(&node(EntryType::Fifo, "pipe"));
    let made = Unpacked::whole(&[layer]);
    let kind = |name: &str| fs::symlink_metadata(made.at(name)).unwrap().file_type();
    assert!(kind("null").is_char_device());
    assert!(kind("block").is_block_device());
    assert!(kind("pipe").is_fifo());
    let null = fs::metadata(made.at("null")).unwrap();
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn names_longer_than_a_header_are_whole() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = Layer::default().entry(&Entry {
        name: "short",
        content: b"x",
        records: &[("path", long.as_bytes())],
        ..Entry::default()
    });
    let made = Unpacked::whole(&[layer]);
    assert_eq!(made.read(&long), "x");
}

#[test]
fn sparse_files_of_gnu_tar_have_their_holes() {
    let home = tempfile::tempdir().unwrap();
    let file = fs::File::create(home.path().join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"begin", 0).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", 8 << 20).unwrap();
    for format in ["gnu", "posix"] {
        let packed = std::process::Command::new("tar")
            .args(["--sparse", "--format", format, "-cf", "-", "sparse"])
            .current_dir(home.path())
            .output()
            .unwrap();
        let layout = Layout::raw(&packed.stdout);
        let made = Unpacked::from(&layout, Limits::default());
        made.done.clone().unwrap();
        let about = fs::metadata(made.at("sparse")).unwrap();
        assert_eq!(about.len(), (8 << 20) + 3, "{format}");
        assert!(about.blocks() < 1024, "{format}: {} blocks", about.blocks());
        let whole = fs::read(made.at("sparse")).unwrap();
        assert!(whole.starts_with(b"begin\0") && whole.ends_with(b"\0end"));
    }
}
