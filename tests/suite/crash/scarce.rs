//! Descriptors, room and rights run out: what is asked for is done or refused with its reason, and nothing is left.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use nix::mount::MntFlags;
use nix::mount::MsFlags;

use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::elsewhere::own_mounts;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::residue;
use crate::support::residue::marked;
use crate::support::wall;

/// The binary under a shell script that prepares for it and ends with `exec "$@"`.
fn within(home: &Home, id: &str, script: &str, words: &[&OsStr]) -> Said {
    let plain = home.command();
    let mut shell = marked(Command::new("/bin/sh"), id);
    shell.args(["-c", script, "sh"]).arg(plain.get_program());
    shell.args(plain.get_args()).args(words);
    shell.stdin(Stdio::null());
    shell.output().unwrap().into()
}

/// The words that run a bundle.
fn run<'a>(bundle: &'a Bundle, id: &'a str) -> [&'a OsStr; 4] {
    [
        "run".as_ref(),
        "-b".as_ref(),
        bundle.path().as_os_str(),
        id.as_ref(),
    ]
}

#[test]
fn who_may_open_few_files_is_told_so_and_leaves_nothing() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    let mut outcomes = [0, 0];
    for files in (4..64).step_by(3) {
        let script = format!("ulimit -Sn {files} && exec \"$@\"");
        let said = within(&home, &id, &script, &run(&bundle, &id));
        let told = said.err.contains("oo many open files");
        assert!(said.status == 0 || told, "with {files} files: {said:?}");
        outcomes[usize::from(said.status == 0)] += 1;
        assert_eq!(
            residue::of(&home, &id),
            Vec::<String>::new(),
            "with {files} files"
        );
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// A bundle with this many binds of one directory.
fn bound(id: &str, count: usize) -> Bundle {
    let bundle = residue::mark(
        Bundle::new(&["grep", "-c", " /many/", "/proc/self/mountinfo"]),
        id,
    );
    let source = bundle.rootfs("tmp").display().to_string();
    bundle.with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.extend((0..count).map(|number| {
            serde_json::json!({
                "destination": format!("/many/{number}"), "source": source, "options": ["bind", "ro"],
            })
        }));
    })
}

#[test]
fn three_hundred_mounts_are_made_or_refused_whole() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = bound(&id, 300);
    for files in [1024, 256, 64] {
        let script = format!("ulimit -Sn {files} && exec \"$@\"");
        let said = within(&home, &id, &script, &run(&bundle, &id));
        let told = said.err.contains("oo many open files");
        assert!(
            said.out == "300\n" || (said.status != 0 && told),
            "with {files} files: {said:?}"
        );
        assert!(said.status == 0 || files < 1024, "{said:?}");
        residue::remove(&home, &id);
    }
}

/// A file system of this size in memory as the state root, as long as the value lives.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    #[expect(clippy::disallowed_methods, reason = "a directory of the test's own")]
    fn new(place: &'a Path, options: &str) -> Self {
        std::fs::create_dir_all(place).unwrap();
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        nix::mount::mount(Some("small"), place, Some("tmpfs"), flags, Some(options)).unwrap();
        Self(place)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        nix::mount::umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Leaves `free` bytes in a directory.
fn fill(root: &Path, free: u64) {
    let filler = root.join("@filler");
    std::fs::remove_file(&filler).unwrap_or_default();
    let room = rustix::fs::statvfs(root).unwrap();
    let room = room.f_bavail * room.f_frsize;
    let bytes = vec![0; usize::try_from(room.saturating_sub(free)).unwrap()];
    std::fs::write(&filler, bytes).unwrap();
}

/// What the state of a workspace would look like if a write had been cut short.
fn empty_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let cut = entries.filter(|entry| {
        entry
            .metadata()
            .is_ok_and(|file| file.is_file() && file.len() == 0)
    });
    cut.map(|entry| entry.path().display().to_string())
        .collect()
}

/// Makes, starts, kills and deletes with what room there is; gives whether all of it was done.
fn live(home: &Home, bundle: &Bundle, id: &str, why: &str) -> bool {
    let path = bundle.path().to_str().unwrap();
    let create: &[&str] = &["create", "-b", path, id];
    let mut done = true;
    for words in [
        create,
        &["start", id],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
    ] {
        let mut command = residue::quiet(home, id, words);
        let errors = home.beside("errors");
        command.stderr(std::fs::File::create(&errors).unwrap());
        let made = ended(&mut command.spawn().unwrap()).success();
        let said = std::fs::read_to_string(&errors).unwrap();
        let first = words[0];
        assert!(made || first != "delete", "{why}: {said}");
        let told = said.contains("no space left") || said.contains("No space left");
        assert!(made || told || !done, "{why}: {first}: {said}");
        if first == "create" && !made {
            assert_eq!(residue::of(home, id), Vec::<String>::new(), "{why}");
        }
        done &= made;
    }
    assert_eq!(residue::of(home, id), Vec::<String>::new(), "{why}");
    done
}

#[test]
fn a_full_state_root_costs_no_state_that_was_there() {
    need!(root, cgroup2);
    let home = Home::new();
    let root = home.root();
    let (old, id) = (home.id(), home.id());
    let (stays, bundle) = (residue::sleeper(&old), residue::sleeper(&id));
    let _small = Small::new(&root, "size=1m");
    home.start(&stays, &old);
    let kept = std::fs::read(root.join(&old).join("state.json")).unwrap();
    let mut outcomes = [0, 0];
    for pages in 0..16 {
        fill(&root, pages * 4096);
        let done = live(&home, &bundle, &id, &format!("{pages} pages free"));
        outcomes[usize::from(done)] += 1;
        assert_eq!(
            std::fs::read(root.join(&old).join("state.json")).unwrap(),
            kept
        );
        assert_eq!(empty_files(&root.join(&old)), Vec::<String>::new());
        assert_eq!(home.status(&old), "running");
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    fill(&root, 0);
    home.bulkhead(["kill", &old, "KILL"]).ok();
    residue::remove(&home, &old);
    std::fs::remove_file(root.join("@filler")).unwrap();
}

#[test]
fn a_state_root_without_inodes_costs_no_state_that_was_there() {
    need!(root, cgroup2);
    let home = Home::new();
    let root = home.root();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let mut outcomes = [0, 0];
    for inodes in 1..24 {
        let small = Small::new(&root, &format!("nr_inodes={inodes}"));
        let done = live(&home, &bundle, &id, &format!("{inodes} inodes"));
        outcomes[usize::from(done)] += 1;
        drop(small);
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn a_run_directory_that_is_read_only_is_named_and_nothing_is_made() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    let script = "mount --bind /run /run && mount -o remount,bind,ro /run && shift 3 && \
                  exec env -u XDG_RUNTIME_DIR \"$0\" \"$@\"";
    let mut command = marked(own_mounts(script), &id);
    command
        .arg(wall::built())
        .args(["1", "2", "3"])
        .args(run(&bundle, &id));
    let said: Said = command.output().unwrap().into();
    let told = said.failed();
    assert!(
        told.contains("/run/bulkhead") && told.contains("ead-only file system"),
        "{told}"
    );
    assert_eq!(residue::of(&home, &id), Vec::<String>::new());
}

#[test]
fn cgroups_that_are_read_only_are_named_or_done_without_and_nothing_is_left() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    let script = "for place in /sys/fs/cgroup/unified /sys/fs/cgroup; do \
                  test -e $place/cgroup.controllers || continue; \
                  mount --bind $place $place && mount -o remount,bind,ro $place || exit 99; done; exec \"$@\"";
    let whole = format!("exec unshare --mount --propagation private sh -c '{script}' sh \"$@\"");
    let said = within(&home, &id, &whole, &run(&bundle, &id));
    let told = said.err.contains("/sys/fs/cgroup") && said.err.contains("ead-only file system");
    assert!(said.status == 0 || told, "{said:?}");
    assert_ne!(said.status, 99, "{said:?}");
    residue::remove(&home, &id);
}

#[test]
fn an_error_of_any_length_is_told_to_its_end_or_cut_but_never_waited_for() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let words = format!("head -c 200000 /dev/zero | tr '\\0' x >&2; echo {id} >&2; exit 1");
    let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", words], "env": ["PATH=/bin:/usr/bin"]}]);
    for kind in ["createRuntime", "poststart"] {
        let bundle = residue::sleeper(&id).with(|config| config["hooks"][kind] = hook.clone());
        let said = within(&home, &id, "exec \"$@\"", &run(&bundle, &id)).failed();
        assert!(
            said.contains(kind) && said.contains("xxx"),
            "{kind}: {} bytes",
            said.len()
        );
        residue::remove(&home, &id);
    }
    let long = "x".repeat(100_000);
    let bundle = residue::mark(Bundle::new(&[&format!("/{long}")]), &id);
    let said = within(&home, &id, "exec \"$@\"", &run(&bundle, &id)).failed();
    assert!(
        said.contains("name too long"),
        "{} bytes: {:.300}",
        said.len(),
        said
    );
    residue::remove(&home, &id);
}
