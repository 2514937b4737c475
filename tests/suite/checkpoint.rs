//! Containers that are saved to files and come back, by a real CRIU: only in the test machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;

/// Counts in a file that the host sees and in a variable that only the process has.
const COUNTING: &str = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done";

/// A container that is saved and restored, with its own directory for images.
struct Saved {
    home: Home,
    bundle: Bundle,
    id: String,
}

impl Saved {
    fn running(bundle: Bundle) -> Self {
        let home = Home::new();
        let id = home.id();
        home.create(&bundle, &id);
        home.bulkhead(["start", &id]).ok();
        Self { home, bundle, id }
    }

    fn command(&self, words: &[&str], more: &[&OsStr]) -> Said {
        let words = words.iter().map(OsStr::new);
        let all = words
            .chain(more.iter().copied())
            .chain([OsStr::new(&self.id)]);
        self.home.bulkhead(all.collect::<Vec<_>>())
    }

    fn checkpoint(&self, images: &Path, options: &[&str]) -> Said {
        let work = self.home.beside("work");
        let places = [
            "--image-path".as_ref(),
            images.as_os_str(),
            "--work-path".as_ref(),
            work.as_os_str(),
        ];
        self.command(&[&["checkpoint"], options].concat(), &places)
    }

    /// Restores it, with standard streams that lead nowhere, as a caller that goes on would.
    fn restore(&self, images: &Path, options: &[&str]) -> Said {
        let errors = self.home.beside("restore.err");
        let mut command = self.home.command();
        command.arg("restore").args(options);
        command.arg("--image-path").arg(images);
        command.arg("--bundle").arg(self.bundle.path());
        command.arg(&self.id).stdout(Stdio::null());
        let status = command
            .stderr(fs::File::create(&errors).unwrap())
            .status()
            .unwrap();
        Said {
            status: status.code().unwrap(),
            out: String::new(),
            err: fs::read_to_string(errors).unwrap(),
        }
    }

    fn count(&self) -> u64 {
        let text = fs::read_to_string(self.bundle.rootfs("tmp/count")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }

    #[track_caller]
    fn counts_on_from(&self, before: u64) {
        eventually("counting", || self.count() > before + 3);
    }
}

#[test]
fn a_process_that_counts_goes_on_counting_after_its_return() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(COUNTING));
    saved.counts_on_from(10);
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    assert_eq!(saved.home.status(&saved.id), "stopped");
    let before = saved.count();
    saved.restore(&images, &["--detach", "-no-subreaper"]).ok();
    assert_eq!(saved.home.status(&saved.id), "running");
    saved.counts_on_from(before);
    assert!(saved.count() < before + 10_000);
}

#[test]
fn the_processes_of_a_copy_that_leaves_them_running_go_on() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(COUNTING));
    saved.counts_on_from(1);
    let pid = saved.home.pid(&saved.id);
    let options = ["--leave-running", "--leave-running", "--file-locks"];
    saved
        .checkpoint(&saved.home.beside("images"), &options)
        .ok();
    assert_eq!(saved.home.pid(&saved.id), pid);
    saved.counts_on_from(saved.count());
}

#[test]
fn a_paused_container_is_saved_and_stays_paused() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(COUNTING));
    saved.counts_on_from(1);
    saved.home.bulkhead(["pause", &saved.id]).ok();
    saved
        .checkpoint(&saved.home.beside("images"), &["--leave-running"])
        .ok();
    assert_eq!(saved.home.status(&saved.id), "paused");
    saved.home.bulkhead(["resume", &saved.id]).ok();
    saved.counts_on_from(saved.count());
}

#[test]
fn memory_that_was_saved_before_is_taken_from_there() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(COUNTING));
    saved.counts_on_from(1);
    saved
        .checkpoint(&saved.home.beside("first"), &["--pre-dump"])
        .ok();
    assert_eq!(saved.home.status(&saved.id), "running");
    let images = saved.home.beside("images");
    saved
        .checkpoint(&images, &["--parent-path", "../first"])
        .ok();
    assert_eq!(
        fs::read_link(images.join("parent")).unwrap(),
        Path::new("../first")
    );
    let before = saved.count();
    saved.restore(&images, &["--detach"]).ok();
    saved.counts_on_from(before);
}

#[test]
fn a_parent_that_is_not_there_is_refused_before_anything_is_done() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(COUNTING));
    let images = saved.home.beside("images");
    let refusal = saved
        .checkpoint(&images, &["--parent-path", "../nowhere"])
        .failed();
    assert!(refusal.contains("--parent-path"), "{refusal}");
    assert_eq!(saved.home.status(&saved.id), "running");
}

#[test]
fn established_connections_go_on() {
    need!(root, cgroup2, criu);
    let script = "ip link set lo up; nc -l -p 7 -e cat & sleep 0.5; \
                  (i=0; while true; do i=$((i+1)); echo $i; sleep 0.02; done) | nc 127.0.0.1 7 | \
                  while read n; do echo $n > /tmp/count; done";
    let saved = Saved::running(Bundle::shell(script));
    saved.counts_on_from(1);
    let images = saved.home.beside("images");
    let refusal = saved.checkpoint(&images, &["--leave-running"]).failed();
    assert!(refusal.contains("dump.log"), "{refusal}");
    saved.checkpoint(&images, &["--tcp-established"]).ok();
    let before = saved.count();
    saved
        .restore(&images, &["--detach", "--tcp-established"])
        .ok();
    saved.counts_on_from(before);
}

#[test]
fn a_directory_of_the_host_comes_back_as_the_bundle_says() {
    need!(root, cgroup2, criu);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "before").unwrap();
    let bundle = Bundle::shell(COUNTING).with(|config| {
        let source = outside.path();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/fixed", "type": "bind", "source": source, "options": ["rbind", "ro"]}));
        mounts.push(json!({"destination": "/run/link/open", "type": "bind", "source": source, "options": ["bind"]}));
        let file = outside.path().join("file");
        mounts.push(json!({"destination": "/etc/one", "type": "bind", "source": file, "options": ["bind"]}));
    });
    fs::create_dir(bundle.rootfs("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", bundle.rootfs("run/link")).unwrap();
    let saved = Saved::running(bundle);
    saved.counts_on_from(1);
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    fs::write(outside.path().join("file"), "after").unwrap();
    saved.restore(&images, &["--detach"]).ok();
    let inside = |script: &str| saved.home.bulkhead(["exec", &saved.id, "sh", "-c", script]);
    assert_eq!(inside("cat /fixed/file /etc/one").ok(), "afterafter");
    assert!(
        inside("echo x > /fixed/new")
            .failed()
            .contains("Read-only file system")
    );
    inside("echo x > /elsewhere/open/new").ok();
    assert!(outside.path().join("new").exists());
}

#[test]
fn images_cannot_make_a_read_only_directory_writable() {
    need!(root, cgroup2, criu);
    let outside = tempfile::tempdir().unwrap();
    let bind = |options: &[&str]| {
        let source = outside.path();
        json!({"destination": "/data", "type": "bind", "source": source, "options": options})
    };
    let open = bind(&["bind"]);
    let bundle =
        Bundle::shell(COUNTING).with(|config| config["mounts"].as_array_mut().unwrap().push(open));
    let mut saved = Saved::running(bundle);
    saved.counts_on_from(1);
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    let fixed = bind(&["bind", "ro"]);
    saved.bundle = saved
        .bundle
        .with(|config| *config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = fixed);
    let refusal = saved.restore(&images, &["--detach"]).failed();
    assert!(refusal.contains("must be read-only"), "{refusal}");
    assert!(
        saved
            .home
            .bulkhead(["state", &saved.id])
            .failed()
            .contains("does not exist")
    );
}

#[test]
fn a_restored_program_in_the_foreground_gives_its_status() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::shell(
        "until [ -e /tmp/go ]; do sleep 0.02; done; exit 7",
    ));
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    fs::write(saved.bundle.rootfs("tmp/go"), "").unwrap();
    assert_eq!(saved.restore(&images, &[]).status, 7);
    assert!(
        saved
            .home
            .bulkhead(["state", &saved.id])
            .failed()
            .contains("does not exist")
    );
}

#[test]
fn hooks_run_while_a_container_comes_back() {
    need!(root, cgroup2, criu);
    let log = tempfile::NamedTempFile::new().unwrap();
    let hook = |name: &str| {
        let script = format!("cat > /dev/null; echo {name} >> {}", log.path().display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let hooks = json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "poststop": hook("poststop")});
    let bundle = Bundle::shell(COUNTING).with(|config| config["hooks"] = hooks);
    let saved = Saved::running(bundle);
    saved.counts_on_from(1);
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    fs::write(log.path(), "").unwrap();
    saved.restore(&images, &["--detach"]).ok();
    let ran = fs::read_to_string(log.path()).unwrap();
    assert_eq!(ran, "poststop\nprestart\ncreateRuntime\n");
}

#[test]
fn the_terminal_of_a_restored_container_goes_to_the_console_socket() {
    need!(root, cgroup2, criu);
    let bundle = Bundle::shell(COUNTING).with(|config| config["process"]["terminal"] = json!(true));
    let home = Home::new();
    let id = home.id();
    let path = home.beside("console");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = ["--console-socket".as_ref(), path.as_os_str()];
    let place = ["--bundle".as_ref(), bundle.path().as_os_str()];
    let mut create: Vec<&OsStr> = vec!["run".as_ref(), "--detach".as_ref()];
    create.extend(socket.iter().chain(&place).copied());
    create.push(id.as_ref());
    home.bulkhead(create).ok();
    let first = listener.accept().unwrap();
    let saved = Saved { home, bundle, id };
    saved.counts_on_from(1);
    let images = saved.home.beside("images");
    saved.checkpoint(&images, &[]).ok();
    drop(first);
    let before = saved.count();
    let socket = path.to_str().unwrap();
    saved
        .restore(&images, &["--detach", "--console-socket", socket])
        .ok();
    let (_second, _) = listener.accept().unwrap();
    saved.counts_on_from(before);
}

#[test]
fn what_has_ended_cannot_be_saved() {
    need!(root, cgroup2, criu);
    let saved = Saved::running(Bundle::new(&["true"]));
    eventually("the end", || saved.home.status(&saved.id) == "stopped");
    let refusal = saved.checkpoint(&saved.home.beside("images"), &[]).failed();
    assert!(
        refusal.contains("cannot be checkpointed in stopped state"),
        "{refusal}"
    );
}

#[test]
fn a_caller_that_asks_whether_there_is_a_checkpoint_is_told_yes() {
    assert_eq!(Home::new().bulkhead(["checkpoint", "--help"]).status, 0);
}
