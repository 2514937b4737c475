//! File systems on block devices and in image files.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::wall;

/// An image of a file system of 16 MiB.
fn image(home: &Home, name: &str) -> PathBuf {
    let image = home.beside(name);
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("busybox")
        .args(["mke2fs", "-F"])
        .arg(&image)
        .output();
    Said::from(made.unwrap()).ok();
    image
}

/// A block device that is an image, until it goes.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Self {
        let said: Said = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output()
            .unwrap()
            .into();
        Self(said.ok().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup")
            .args(["--detach", &self.0])
            .status()
            .unwrap();
    }
}

/// A bundle that has a disk at `/disk`, and may use it.
fn with_disk(script: &str, source: &str, options: &[&str]) -> Bundle {
    Bundle::shell(script).with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/disk", "type": "ext2", "source": source, "options": options}),
        );
        config["linux"]["resources"] =
            json!({"devices": [{"allow": true, "type": "b", "access": "rwm"}]});
    })
}

/// Whether some bytes are in an image.
fn holds(image: &Path, text: &str) -> bool {
    let bytes = std::fs::read(image).unwrap();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn what_is_written_to_a_block_device_is_on_it_and_found_again() {
    need!(root, cgroup2, machine, kvm);
    let home = Home::new();
    let image = image(&home, "disk");
    let device = Loop::of(&image);
    let script = "grep ' /disk ' /proc/mounts | cut -d' ' -f3; echo written to a disk >/disk/made; busybox sync";
    assert_eq!(home.run(&with_disk(script, &device.0, &[])).ok(), "ext2\n");
    let before = std::fs::read(&device.0).unwrap();
    let script = "cat /disk/made; touch /disk/x || echo denied";
    let said = home.run(&with_disk(script, &device.0, &["ro"]));
    assert_eq!(said.out, "written to a disk\ndenied\n", "{}", said.err);
    assert!(
        std::fs::read(&device.0).unwrap() == before,
        "it was written to"
    );
    drop(device);
    assert!(holds(&image, "written to a disk"));
}

#[test]
fn a_machine_has_image_files_as_disks_and_one_that_is_written_to_alone() {
    need!(root, cgroup2, machine, kvm);
    let home = Home::new();
    let image = image(&home, "disk.img");
    let path = image.display().to_string();
    if !wall::is_microvm() {
        // A container has the host's kernel, which mounts devices alone.
        let words = home.run(&with_disk("true", &path, &[])).failed();
        assert!(words.contains("mount ext2"), "{words}");
        return;
    }
    let (first, id) = (with_disk("exec sleep 1000", &path, &[]), home.id());
    home.start(&first, &id);
    let words = home.run(&with_disk("true", &path, &[])).failed();
    assert!(
        words.contains("is in use; a machine that writes to a disk has it alone"),
        "{words}"
    );
    home.bulkhead([
        "exec",
        &id,
        "sh",
        "-c",
        "echo made >/disk/made; busybox sync",
    ])
    .ok();
    home.bulkhead(["delete", "--force", &id]).ok();
    assert_eq!(
        home.run(&with_disk("cat /disk/made", &path, &["ro"])).ok(),
        "made\n"
    );
}
