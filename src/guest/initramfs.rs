//! Puts together the first files of a machine: the agent, and what it loads into its kernel.

use crate::guest::cpio::Archive;
use crate::guest::modules::Modules;

/// Where the modules are.
const MODULES: &str = "/modules";

/// The archive; `None` when something in it is too large for one.
pub(super) fn build(agent: &[u8], modules: &Modules) -> Option<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in [
        "/dev", "/proc", "/sys", "/run", "/tmp", "/sysroot", "/sbin", MODULES,
    ] {
        archive.directory(directory);
    }
    // What the first process writes before it has a /dev of its own is seen on the machine's console.
    archive.device("/dev/console", 0o600, 5, 1);
    archive.device("/dev/null", 0o666, 1, 3);
    archive.file("/init", 0o755, agent);
    // The kernel runs this when it lacks a module.
    archive.link("/sbin/modprobe", "/init");
    for module in &modules.all {
        archive.file(
            &format!("{MODULES}/{}.ko", module.name),
            0o644,
            &module.object,
        );
    }
    let lines =
        |names: &[String]| -> String { names.iter().map(|name| format!("{name}.ko\n")).collect() };
    archive.file(
        &format!("{MODULES}/order"),
        0o644,
        lines(&modules.first).as_bytes(),
    );
    for (asked, names) in &modules.on_demand {
        let path = format!("{MODULES}/{asked}.order");
        archive.file(&path, 0o644, lines(names).as_bytes());
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::process::Stdio;

    use super::*;
    use crate::guest::modules::Module;

    #[test]
    fn cpio_reads_what_the_kernel_will() {
        use std::io::Write;
        let modules = Modules {
            all: vec![Module {
                name: "vsock".to_owned(),
                object: b"object".to_vec(),
            }],
            first: vec!["vsock".to_owned()],
            on_demand: vec![("fs-x".to_owned(), vec!["vsock".to_owned()])],
        };
        let archive = build(b"agent", &modules).unwrap();
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let listed = cpio.wait_with_output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        for name in [
            "init",
            "sbin/modprobe",
            "modules/vsock.ko",
            "modules/order",
            "modules/fs-x.order",
        ] {
            assert!(text.lines().any(|line| line == name), "{name}: {text}");
        }
    }
}
