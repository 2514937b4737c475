//! The kernel of a distribution in a machine of ours; in the test machine, where there is KVM that takes one.

use std::process::Command;

use serde_json::json;

use super::Machine;
use super::guest;
use crate::need;

/// The kernel that the test machine itself runs.
const KERNEL: &str = "/boot/vmlinuz";

fn machine() -> Machine {
    let loaded = Command::new("modprobe").arg("kvm_amd").status().unwrap();
    assert!(loaded.success());
    Machine::of(&std::fs::read(KERNEL).unwrap())
        .with("memory", json!(256 << 20))
        .with("vcpus", json!(2))
        .with("cmdline", json!("console=ttyS0 panic=-1 quiet"))
}

/// A first program that speaks and then switches the machine off.
fn init() -> Vec<u8> {
    let words = b"init speaks\n";
    let length = u8::try_from(words.len()).unwrap();
    let code = [
        // write(1, words, length): eax 1, edi 1, rsi behind the code, edx length
        &[0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0][..],
        &[0x48, 0x8d, 0x35, 31, 0, 0, 0],
        &[0xba, length, 0, 0, 0, 0x0f, 0x05],
        // reboot(0xfee1dead, 0x28121969, 0x4321fedc): eax 169
        &[0xb8, 169, 0, 0, 0, 0xbf, 0xad, 0xde, 0xe1, 0xfe],
        &[0xbe, 0x69, 0x19, 0x12, 0x28, 0xba, 0xdc, 0xfe, 0x21, 0x43],
        &[0x0f, 0x05, 0xeb, 0xfe],
        words,
    ];
    guest::program(&code.concat())
}

/// An archive (cpio, "newc") with a console and a first program.
fn initramfs() -> Vec<u8> {
    let mut archive = Vec::new();
    add(&mut archive, "dev", 0o040_755, 0, &[]);
    add(&mut archive, "dev/console", 0o020_600, 1, &[]);
    add(&mut archive, "init", 0o100_755, 0, &init());
    add(&mut archive, "TRAILER!!!", 0, 0, &[]);
    archive
}

/// Adds an entry; `device` is the minor number of one whose major number is 5.
fn add(archive: &mut Vec<u8>, name: &str, mode: u32, device: u32, content: &[u8]) {
    let major = if device > 0 { 5 } else { 0 };
    let size = u32::try_from(content.len()).unwrap();
    let length = u32::try_from(name.len() + 1).unwrap();
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, major, device, length, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[test]
fn the_kernel_of_a_distribution_runs_its_first_program_and_is_switched_off_by_it() {
    need!(machine);
    let machine = machine();
    let path = machine.path("initramfs");
    std::fs::write(&path, initramfs()).unwrap();
    let ended = machine.with("initramfs", json!({"path": path})).run();
    assert!(ended.serial.contains("init speaks"), "{}", ended.serial);
    let expected = json!({"event": "ended", "reason": "power-off"});
    assert_eq!(ended.events.last(), Some(&expected));
}

#[test]
fn a_kernel_that_panics_ends_with_its_words() {
    need!(machine);
    let ended = machine().run();
    let last = ended.events.last().unwrap();
    assert_eq!(last["reason"], "reset", "{}", ended.serial);
    let words = last["panic"].as_str().unwrap();
    assert!(words.contains("Unable to mount root fs"), "{words}");
}
