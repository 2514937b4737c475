//! Archives that want out, or want too much.

use std::fs;
use std::process::Command;

use tar::EntryType;

use super::builder::Entry;
use super::builder::Layer;
use super::builder::Layout;
use super::builder::Packing;
use super::builder::Unpacked;
use bulkhead::image::Limits;

#[test]
fn an_absolute_path_is_one_inside() {
    let made = Unpacked::whole(&[Layer::default().file("/etc/bulkhead-hostile", "x")]);
    assert_eq!(made.read("etc/bulkhead-hostile"), "x");
    assert!(!std::path::Path::new("/etc/bulkhead-hostile").exists());
}

#[test]
fn a_path_with_dots_that_lead_up_is_refused() {
    for name in ["../outside/new", "a/../../outside/new", "..", "/../x"] {
        let made = Unpacked::of(&[Layer::default().file(name, "x")]);
        let said = made.done.clone().unwrap_err();
        assert!(said.contains("there is .. in the path"), "{said}");
        assert!(said.contains("layer sha256:"), "{said}");
        made.assert_outside_untouched();
    }
}

#[test]
fn a_link_is_never_written_through_to_the_outside() {
    for target in ["../outside", "/../../outside", "../../../../../../tmp"] {
        let layer = Layer::default()
            .link("link", target)
            .file("link/bulkhead-hostile", "x");
        let made = Unpacked::of(&[layer]);
        made.assert_outside_untouched();
        assert!(!std::path::Path::new("/tmp/bulkhead-hostile").exists());
    }
}

#[test]
fn a_link_in_place_of_a_file_is_replaced_and_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let victim = home.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let layer = Layer::default()
        .link("file", victim.to_str().unwrap())
        .file("file", "changed");
    let made = Unpacked::whole(&[layer]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(made.read("file"), "changed");
}

#[test]
fn a_hard_link_to_the_outside_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let victim = home.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    for target in [victim.to_str().unwrap(), "../outside/file"] {
        let layer = Layer::default().hard_link("file", target);
        let made = Unpacked::of(&[layer.file("file", "changed")]);
        made.done.clone().unwrap_err();
        made.assert_outside_untouched();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    }
}

#[test]
fn a_hard_link_through_a_link_stays_inside() {
    let layer = Layer::default()
        .link("up", "../outside")
        .hard_link("mine", "up/file");
    let made = Unpacked::of(&[layer]);
    made.done.clone().unwrap_err();
    made.assert_outside_untouched();
}

#[test]
fn a_whiteout_of_the_outside_removes_nothing_there() {
    let layers = [
        Layer::default()
            .link("up", "../outside")
            .file("up/.wh.file", ""),
        Layer::default().file("../outside/.wh.file", ""),
        Layer::default().file(".wh...", ""),
        Layer::default().file(".wh..", ""),
        Layer::default().file(".wh.", ""),
        Layer::default()
            .link("up", "../outside")
            .file("up/.wh..wh..opq", ""),
    ];
    for layer in layers {
        Unpacked::of(&[layer]).assert_outside_untouched();
    }
}

#[test]
fn a_whiteout_of_a_link_removes_the_link_and_not_what_it_names() {
    let lower = Layer::default().file("kept/file", "x").link("link", "kept");
    let upper = Layer::default().file(".wh.link", "");
    let made = Unpacked::whole(&[lower, upper]);
    assert!(!made.at("link").is_symlink());
    assert_eq!(made.read("kept/file"), "x");
}

#[test]
fn a_bomb_is_stopped_at_the_limit_of_bytes() {
    let zeros = vec![0u8; 4 << 20];
    let layer = Layer::default().entry(&Entry {
        name: "bomb",
        content: &zeros,
        ..Entry::default()
    });
    let limits = Limits {
        bytes: 1 << 16,
        ..Limits::default()
    };
    for packing in [Packing::Gzip, Packing::Zstd] {
        let layout = Layout::packed(std::slice::from_ref(&layer), packing);
        let made = Unpacked::from(&layout, limits);
        let said = made.done.clone().unwrap_err();
        assert!(said.contains("holds more than 65536 bytes"), "{said}");
        assert!(said.contains("\"bomb\""), "{said}");
        assert!(said.contains("name the directory as rootfs"), "{said}");
    }
}

#[test]
fn a_sparse_file_counts_with_its_holes() {
    let home = tempfile::tempdir().unwrap();
    let file = fs::File::create(home.path().join("huge")).unwrap();
    file.set_len(1 << 50)
        .unwrap_or_else(|_| file.set_len(1 << 42).unwrap());
    let packed = Command::new("tar")
        .args(["--sparse", "--format", "gnu", "-cf", "-", "huge"])
        .current_dir(home.path())
        .output()
        .unwrap();
    let made = Unpacked::from(&Layout::raw(&packed.stdout), Limits::default());
    let said = made.done.clone().unwrap_err();
    assert!(said.contains("holds more than"), "{said}");
}

#[test]
fn what_follows_the_archive_counts_too() {
    let mut bytes = Layer::default().file("a", "x").plain();
    bytes.resize(4 << 20, 0);
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let said = Unpacked::from(&Layout::raw(&bytes), limits)
        .done
        .unwrap_err();
    assert!(said.contains("holds more than 1048576 bytes"), "{said}");
}

#[test]
fn too_many_entries_are_refused() {
    let mut layer = Layer::default();
    for number in 0..20 {
        layer = layer.file(&number.to_string(), "");
    }
    let limits = Limits {
        entries: 10,
        ..Limits::default()
    };
    let said = Unpacked::from(&Layout::of(&[layer]), limits)
        .done
        .unwrap_err();
    assert!(said.contains("holds more than 10 entries"), "{said}");
}

#[test]
fn an_extended_header_without_end_is_refused_and_not_kept() {
    let long = vec![b'x'; 5 << 20];
    let layer = Layer::default().entry(&Entry {
        name: "file",
        records: &[("comment", &long)],
        ..Entry::default()
    });
    let said = Unpacked::of(&[layer]).done.unwrap_err();
    assert!(said.contains("extended headers"), "{said}");
}

#[test]
fn a_header_that_states_two_sizes_is_refused() {
    let layer = Layer::default().entry(&Entry {
        kind: EntryType::Regular,
        name: "file",
        content: b"abc",
        records: &[("comment", b"line\nbreak"), ("size", b"1")],
        ..Entry::default()
    });
    let said = Unpacked::of(&[layer]).done.unwrap_err();
    assert!(said.contains("two sizes"), "{said}");
}

#[test]
fn an_entry_of_no_known_type_is_refused() {
    let layer = Layer::default().entry(&Entry {
        kind: EntryType::new(b'Z'),
        name: "strange",
        ..Entry::default()
    });
    let said = Unpacked::of(&[layer]).done.unwrap_err();
    assert!(said.contains("type 0x5a is not known"), "{said}");
}

#[test]
fn a_layer_that_is_no_archive_is_refused() {
    let said = Unpacked::from(&Layout::raw(&[0x41; 2048]), Limits::default());
    assert!(said.done.is_err());
}
