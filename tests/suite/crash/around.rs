//! What changes around a workspace while it lives: the host's mounts, its uptime, the binary, cgroups below its own.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::mount::MntFlags;
use nix::mount::MsFlags;

use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::elsewhere::own_mounts;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::support::residue;
use crate::support::residue::quiet;
use crate::support::scale;
use crate::support::wall;
use crate::up::Document;
use crate::up::signal;

fn mounts_of(pid: &str) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    table.lines().count()
}

#[test]
fn a_program_that_joins_leaves_the_mounts_as_they_were() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    home.start(&bundle, &id);
    let pid = home.pid(&id).to_string();
    let before = mounts_of(&pid);
    for done in 0..scale::times(20, 1_000) {
        home.bulkhead(["exec", &id, "true"]).ok();
        scale::progress("mounts after exec", done, scale::times(20, 1_000));
    }
    assert_eq!(mounts_of(&pid), before);
    residue::remove(&home, &id);
}

#[expect(clippy::disallowed_methods, reason = "a directory of the test's own")]
fn mount(place: &Path) {
    let flags = MsFlags::MS_NOSUID;
    nix::mount::mount(Some("busy"), place, Some("tmpfs"), flags, Some("size=64k")).unwrap();
}

fn come_and_go(place: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        mount(place);
        nix::mount::umount2(place, MntFlags::MNT_DETACH).unwrap();
    }
}

/// File systems of the host, as long as the value lives.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    fn new(home: &Home, count: usize) -> Self {
        let place = |number| home.beside(&format!("mounts/{number}"));
        let places: Vec<PathBuf> = (0..count).map(place).collect();
        for place in &places {
            std::fs::create_dir_all(place).unwrap();
            mount(place);
        }
        Self(places)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in self.0.iter().rev() {
            nix::mount::umount2(place, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

#[test]
fn mounts_that_come_and_go_while_a_workspace_is_made_are_not_left_anywhere() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for racer in 0..4 {
            let place = home.beside(&format!("racer/{racer}"));
            std::fs::create_dir_all(&place).unwrap();
            let over = &over;
            scope.spawn(move || come_and_go(&place, over));
        }
        let runs = || {
            residue::of(&home, &id).is_empty()
                && home
                    .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
                    .status
                    == 0
        };
        let clean = (0..scale::times(20, 1_000)).all(|_| runs());
        over.store(true, Ordering::Relaxed);
        assert!(clean);
    });
    residue::remove(&home, &id);
}

/// How long a run takes beside so many mounts of the host, at the median.
fn beside(mounts: usize) -> std::time::Duration {
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    let _mounted = Mounted::new(&home, mounts);
    let one = || {
        let begun = std::time::Instant::now();
        home.bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
            .ok();
        begun.elapsed()
    };
    let mut all: Vec<_> = (0..scale::times(3, 200)).map(|_| one()).collect();
    all.sort();
    assert_eq!(residue::of(&home, &id), Vec::<String>::new());
    all[all.len() / 2]
}

#[test]
fn five_hundred_mounts_of_the_host_are_no_hindrance() {
    need!(root, cgroup2);
    let (none, some, many) = (beside(0), beside(300), beside(500));
    println!("run beside 0, 300, 500 mounts of the host: {none:?}, {some:?}, {many:?}");
}

/// A copy of the binary, and what it does with the state of `home`.
fn copied(home: &Home, words: &[&str]) -> Said {
    let mut command = Command::new(home.beside("bulkhead"));
    command.arg("--root").arg(home.root()).args(words);
    command.stdin(std::process::Stdio::null());
    command.output().unwrap().into()
}

#[test]
fn a_binary_that_is_replaced_goes_on_with_the_workspaces_of_the_old_one() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let document = Document::sleeper(&home, "[lease]\nttl = \"1h\"\n");
    let binary = home.beside("bulkhead");
    let install = || {
        let new = home.beside("new");
        std::fs::copy(wall::built(), &new).unwrap();
        std::fs::rename(new, &binary).unwrap();
    };
    install();
    let bundle = residue::sleeper(&id);
    let path = bundle.path().to_str().unwrap();
    let mut create = residue::marked(Command::new(&binary), &id);
    create
        .arg("--root")
        .arg(home.root())
        .args(["create", "-b", path, &id]);
    create
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    assert!(create.status().unwrap().success());
    copied(&home, &["up", "-d", document.file().to_str().unwrap()]).ok();
    install();
    copied(&home, &["start", &id]).ok();
    assert_eq!(copied(&home, &["exec", &id, "echo", "here"]).ok(), "here\n");
    assert_eq!(
        copied(&home, &["exec", &document.id, "echo", "here"]).ok(),
        "here\n"
    );
    std::fs::remove_file(&binary).unwrap();
    document.down(&home);
    residue::remove(&home, &id);
}

/// The cgroup of a process.
fn group(pid: i32) -> PathBuf {
    let lines = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    let places =
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|place| Path::new(place).join(path));
    places
        .into_iter()
        .find(|place| place.join("cgroup.procs").exists())
        .unwrap()
}

#[test]
fn cgroups_below_with_processes_that_end_slowly_go_with_the_workspace() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(
        Bundle::shell("for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait"),
        &id,
    );
    for done in 0..scale::times(3, 500) {
        home.start(&bundle, &id);
        let own = group(home.pid(&id));
        eventually("its children", || residue::processes(&id).len() == 9);
        let members = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
        for (number, pid) in members.lines().skip(1).enumerate() {
            let below = own.join(format!("a{number}/b/c"));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("cgroup.procs"), pid).unwrap();
        }
        residue::remove(&home, &id);
        scale::progress("cgroups below", done, scale::times(3, 500));
    }
}

#[test]
fn whoever_outlives_the_first_process_in_a_shared_pid_namespace_goes_with_the_workspace() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let script = "for n in 1 2 3; do sleep 1000 & done; wait";
    let bundle = residue::mark(Bundle::shell(script), &id).with(|config| {
        let all = config["linux"]["namespaces"].as_array_mut().unwrap();
        all.retain(|one| one["type"] != "pid");
    });
    for kill in [false, true] {
        home.start(&bundle, &id);
        eventually("its children", || residue::processes(&id).len() == 4);
        let first = home.pid(&id);
        signal(first, "-KILL");
        eventually("its end", || !lives(first));
        assert_eq!(home.status(&id), "stopped");
        if kill {
            home.bulkhead(["kill", &id, "KILL"]).ok();
            eventually("the end of the others", || {
                residue::processes(&id).is_empty()
            });
        }
        residue::remove(&home, &id);
    }
}

/// The binary on a host that has been started again since: its kernel has another id for this uptime.
fn after_a_reboot(home: &Home, words: &[&str]) -> Said {
    let id = home.beside("boot");
    std::fs::write(&id, "11111111-2222-4333-8444-555555555555\n").unwrap();
    let plain = home.command();
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut command = own_mounts(script);
    command
        .arg(id)
        .arg(plain.get_program())
        .args(plain.get_args())
        .args(words);
    command.stdin(std::process::Stdio::null());
    command.output().unwrap().into()
}

/// Ends what a reboot ends; its cgroup, its link and its lease stay.
fn lose_power(home: &Home, document: &Document) {
    let (monitor, program) = (document.monitor(home), home.pid(&document.id));
    signal(monitor, "-KILL");
    signal(program, "-KILL");
    eventually("the end of both", || !lives(monitor) && !lives(program));
}

#[test]
fn after_a_reboot_everything_of_the_last_uptime_is_collected_and_names_are_free() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::sleeper(
        &home,
        "[network]\nbridge = \"net\"\n[lease]\nttl = \"1h\"\n",
    );
    // The state may be kept or, as below /run, be gone.
    for wiped in [false, true] {
        document.up(&home);
        lose_power(&home, &document);
        if wiped {
            std::fs::remove_dir_all(home.root().join(&document.id)).unwrap();
        }
        after_a_reboot(&home, &["gc"]).ok();
        let state = home.root().join(&document.id);
        assert!(!state.exists(), "wiped: {wiped}");
        assert!(!document.estate(&home).exists(), "wiped: {wiped}");
        document.up(&home);
        document.down(&home);
    }
}

#[test]
fn a_name_and_an_address_are_free_at_once_when_their_workspace_is_deleted() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id).with(|config| {
        config["annotations"]["dev.bulkhead.network"] = "net".into();
        config["annotations"]["dev.bulkhead.network.address"] = "10.93.4.7".into();
    });
    for done in 0..scale::times(5, 500) {
        let words = ["create", "-b", bundle.path().to_str().unwrap(), &id];
        let mut create = quiet(&home, &id, words).spawn().unwrap();
        assert!(ended(&mut create).success());
        home.bulkhead(["delete", "--force", &id]).ok();
        scale::progress("name and address again", done, scale::times(5, 500));
    }
    residue::remove(&home, &id);
}
