//! Bundles made on the spot: Debian's busybox as the root filesystem, and a configuration to change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

/// Programs that tests run inside; all are the one busybox.
const PROGRAMS: [&str; 39] = [
    "ping", "cat", "chmod", "cut", "date", "dd", "echo", "env", "false", "grep", "hostname", "id",
    "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "ps", "pwd", "readlink", "rm", "sed",
    "sh", "sleep", "stat", "stty", "tail", "test", "timeout", "touch", "true", "tty", "ulimit",
    "uname", "wc", "nc", "ip",
];

/// A bundle in a directory of its own, which goes with it.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    /// The configuration; [`Bundle::write`] puts it into the directory.
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle whose program is `args`.
    pub(crate) fn new(args: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-bundle-")
            .tempdir()
            .unwrap();
        make_root(&directory.path().join("rootfs"));
        let bundle = Self {
            directory,
            config: configuration(args),
        };
        bundle.write();
        bundle
    }

    /// A bundle whose program is a shell script.
    pub(crate) fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below its root filesystem.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.path()
            .join("rootfs")
            .join(path.trim_start_matches('/'))
    }

    /// Changes the configuration and writes it.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.write();
        self
    }

    fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).unwrap();
        fs::write(self.path().join("config.json"), text).unwrap();
    }
}

fn make_root(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).unwrap();
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\n").unwrap();
}

fn configuration(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "hostname": "bulkhead",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}
