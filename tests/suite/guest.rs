//! What machines boot on a host: added from what distributions ship, listed, chosen, replaced, removed.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::home::Home;
use crate::support::home::Said;

/// A static program, which an agent must be.
const STATIC: &str = "/bin/busybox";

/// The least that is an ELF file for x86-64, and says which kernel it is.
fn elf(version: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = 62;
    bytes.extend(format!("Linux version {version} (somebody)").bytes());
    bytes
}

/// A bzImage that unpacks `payload`, as far as whoever unpacks it looks.
fn bz_image(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&8_u32.to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap();
    image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    image.extend([0; 8]);
    image.extend(payload);
    image
}

fn file(home: &Home, name: &str, bytes: &[u8]) -> PathBuf {
    let path = home.beside(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn add(home: &Home, kernel: &Path, more: &[&str]) -> Said {
    let kernel = kernel.to_str().unwrap();
    let first = ["guest", "add", "--kernel", kernel, "--agent", STATIC];
    home.bulkhead(first.iter().chain(more))
}

fn inspected(home: &Home, name: &str) -> Value {
    serde_json::from_str(&home.bulkhead(["guest", "inspect", name]).ok()).unwrap()
}

#[test]
fn a_kernel_is_added_as_it_is_and_known_by_its_version() {
    let home = Home::new();
    let kernel = elf("6.1.0-test");
    add(&home, &file(&home, "vmlinux", &kernel), &[]).ok();
    let shown = inspected(&home, "stock");
    assert_eq!(shown["kernel"], "6.1.0-test");
    assert_eq!(shown["acpi"], true);
    let put = std::fs::read(shown["vmlinux"].as_str().unwrap()).unwrap();
    assert_eq!(put, kernel);
    let initramfs = std::fs::read(shown["initramfs"].as_str().unwrap()).unwrap();
    assert!(initramfs.starts_with(b"070701"));
}

#[test]
fn pages_of_zeroes_in_a_kernel_are_holes() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let mut kernel = elf("6.1.0-test");
    kernel.resize(1 << 20, 0);
    kernel.push(1);
    add(&home, &file(&home, "vmlinux", &kernel), &[]).ok();
    let put = inspected(&home, "stock")["vmlinux"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(std::fs::read(&put).unwrap() == kernel);
    let blocks = std::fs::metadata(&put).unwrap().blocks();
    assert!(blocks * 512 < 128 << 10, "{blocks} blocks");
}

#[test]
fn what_is_packed_is_unpacked_once() {
    let kernel = elf("6.6.6");
    let size = u32::try_from(kernel.len()).unwrap().to_le_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&kernel).unwrap();
    let mut xz = Vec::new();
    lzma_rs::xz_compress(&mut kernel.as_slice(), &mut xz).unwrap();
    let block = lz4_flex::block::compress(&kernel);
    let length = u32::try_from(block.len()).unwrap().to_le_bytes();
    let lz4 = [&[0x02, 0x21, 0x4c, 0x18][..], &length, &block].concat();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(kernel.as_slice(), level);
    for (name, packed) in [
        ("gzip", gzip.finish().unwrap()),
        ("xz", [xz.as_slice(), &size].concat()),
        ("lz4", [lz4.as_slice(), &size].concat()),
        ("zstd", [zstd.as_slice(), &size].concat()),
        ("none", kernel.clone()),
    ] {
        let home = Home::new();
        let image = file(&home, "vmlinuz", &bz_image(&packed));
        add(&home, &image, &["--name", name]).ok();
        let put = inspected(&home, name)["vmlinux"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(std::fs::read(put).unwrap(), kernel, "{name}");
    }
}

#[test]
fn what_is_no_kernel_is_refused_and_nothing_is_left() {
    let home = Home::new();
    let kernel = elf("1");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&kernel).unwrap();
    let gzip = gzip.finish().unwrap();
    for (bytes, words) in [
        (Vec::new(), "neither an ELF file nor a bzImage"),
        (b"#!/bin/sh\n".to_vec(), "neither an ELF file nor a bzImage"),
        (
            bz_image(&kernel)[..1024].to_vec(),
            "neither an ELF file nor a bzImage",
        ),
        (bz_image(&gzip[..gzip.len() / 2]), "cannot be unpacked"),
        (
            bz_image(b"\x02\x21\x4c\x18\xff\xff\xff\x00abc"),
            "cannot be unpacked",
        ),
        (bz_image(b"BZh9 and so on"), "packed with bzip2"),
    ] {
        let refused = add(&home, &file(&home, "kernel", &bytes), &[]).failed();
        assert!(
            refused.contains("cannot add guest stock: --kernel: "),
            "{refused}"
        );
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(home.bulkhead(["guest", "ls", "-f", "json"]).ok(), "[]\n");
    let made = std::fs::read_dir(home.root().join("@data/guests"));
    assert_eq!(made.into_iter().flatten().count(), 0);
}

#[test]
fn an_agent_that_needs_other_files_is_refused() {
    let home = Home::new();
    let kernel = file(&home, "vmlinux", &elf("1"));
    for agent in ["/bin/bash", "/etc/passwd"] {
        let refused = add(&home, &kernel, &["--agent", agent]).failed();
        assert!(refused.contains("is not a static program"), "{refused}");
    }
}

#[test]
fn a_name_is_one_part_of_a_path() {
    let home = Home::new();
    let kernel = file(&home, "vmlinux", &elf("1"));
    for name in ["", ".", "..", "a/b", ".new-x", "a b"] {
        let refused = add(&home, &kernel, &["--name", name]).failed();
        assert!(refused.contains("--name:"), "{name:?}: {refused}");
    }
}

#[test]
fn slim_is_booted_before_stock_and_stock_before_others() {
    let home = Home::new();
    let kernel = file(&home, "vmlinux", &elf("1"));
    let none = home.bulkhead(["guest", "inspect"]).failed();
    assert!(none.contains("make one with: make guest"), "{none}");
    for name in ["other", "stock", "slim"] {
        add(&home, &kernel, &["--name", name]).ok();
        let usual = home.bulkhead(["guest", "inspect"]).ok();
        let usual: Value = serde_json::from_str(&usual).unwrap();
        assert_eq!(usual["name"], name);
    }
    home.bulkhead(["guest", "rm", "slim"]).ok();
    let table = home.bulkhead(["guest", "ls"]).ok();
    let usual = table.lines().find(|line| line.contains(" yes ")).unwrap();
    assert!(usual.starts_with("stock "), "{table}");
}

#[test]
fn a_guest_is_replaced_as_a_whole() {
    let home = Home::new();
    let config = file(&home, "config", b"CONFIG_PVH=y\n# CONFIG_ACPI is not set\n");
    add(&home, &file(&home, "one", &elf("1")), &[]).ok();
    let with = ["--config", config.to_str().unwrap()];
    add(&home, &file(&home, "two", &elf("2")), &with).ok();
    let shown = inspected(&home, "stock");
    assert_eq!(
        (&shown["kernel"], &shown["acpi"]),
        (&"2".into(), &false.into())
    );
    let left = std::fs::read_dir(home.root().join("@data/guests")).unwrap();
    assert_eq!(left.count(), 1);
}

#[test]
fn a_guest_that_is_not_there_cannot_be_removed() {
    let home = Home::new();
    let refused = home.bulkhead(["guest", "rm", "stock"]).failed();
    assert!(refused.contains("there is no guest stock"), "{refused}");
}
