//! Directories that somebody keeps exchanging for links to the outside, on every processor, while a root is built.
//!
//! The steps are those of a `create` and done by the same code, in a thread with a mount namespace of its own: the costly
//! part of a `create` is the process, and nothing of the race is in it. Whole creations are raced too, fewer of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bulkhead::init;
use bulkhead::init::report::Trouble;
use bulkhead::plan::step::Bind;
use bulkhead::plan::step::Device;
use bulkhead::plan::step::Filesystem;
use bulkhead::plan::step::Step;
use bulkhead::sys::mount;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use serde_json::json;

use super::rounds;
use super::tries;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::sentinel::Sentinel;

/// Threads, one for each processor, that exchange pairs of names as fast as they can until this is dropped.
struct Racers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Racers {
    fn start(pairs: &[(PathBuf, PathBuf)]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().unwrap().get();
        let one = |_| {
            let (over, pairs) = (Arc::clone(&over), pairs.to_vec());
            std::thread::spawn(move || exchange(&pairs, &over))
        };
        Self {
            threads: (0..processors).map(one).collect(),
            over,
        }
    }

    /// Ends them; gives how often they have exchanged something.
    fn stop(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|one| one.join().unwrap()).sum()
    }
}

impl Drop for Racers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn exchange(pairs: &[(PathBuf, PathBuf)], over: &AtomicBool) -> usize {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        for (one, other) in pairs {
            // One of them may not be there at the moment.
            let exchanged =
                rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok();
            done += usize::from(exchanged);
        }
    }
    done
}

/// A root whose directory `flip` is a link to the outside half of the time, and the outside.
struct Scene {
    sentinel: Sentinel,
    directory: tempfile::TempDir,
}

impl Scene {
    /// Inside there is a directory where the link leads as well, so that whoever resolves it inside always succeeds.
    fn new() -> Self {
        let scene = Self {
            sentinel: Sentinel::new(),
            directory: tempfile::Builder::new()
                .prefix("bulkhead-race-")
                .tempdir()
                .unwrap(),
        };
        let outside = scene.sentinel.outside();
        let root = scene.root();
        fs::create_dir_all(root.join("flip/sub")).unwrap();
        fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap()).join("sub")).unwrap();
        let up = "../".repeat(20);
        let leads = Path::new(&up).join(outside.strip_prefix("/").unwrap());
        symlink(leads, root.join("other")).unwrap();
        fs::create_dir(scene.directory.path().join("volume")).unwrap();
        fs::write(scene.directory.path().join("file"), "").unwrap();
        scene
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    fn pair(&self) -> (PathBuf, PathBuf) {
        (self.root().join("flip"), self.root().join("other"))
    }

    fn source(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Does the steps that each try has, all the while; fails when something of the host changes or is mounted over, and
    /// when more than one try in a thousand fails though nothing forbids it.
    #[track_caller]
    fn race(&self, pairs: &[(PathBuf, PathBuf)], steps: impl Fn(&Self, usize) -> Vec<Step> + Sync) {
        let racers = Racers::start(pairs);
        let outcome = std::thread::scope(|scope| {
            let tries = scope.spawn(|| in_own_namespace(self, &steps));
            tries.join().unwrap()
        });
        let exchanged = racers.stop();
        self.sentinel.untouched();
        assert_eq!(outcome.escaped, Vec::<String>::new());
        assert!(exchanged > tries(), "only {exchanged} exchanges");
        assert!(
            outcome.failed.len() * 1000 <= tries(),
            "{} of {} tries failed: {:?}",
            outcome.failed.len(),
            tries(),
            outcome.failed.first()
        );
    }
}

/// What came of all tries.
#[derive(Default)]
struct Outcome {
    failed: Vec<(usize, Trouble)>,
    escaped: Vec<String>,
}

fn in_own_namespace(
    scene: &Scene,
    steps: &(impl Fn(&Scene, usize) -> Vec<Step> + Sync),
) -> Outcome {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount::propagate_all(1 << 18).unwrap();
    let mut outcome = Outcome::default();
    let before = mount_points();
    for number in 0..tries() {
        let root = take(&scene.root());
        let held = root.try_clone().unwrap();
        let done = init::below(&steps(scene, number), root, BTreeMap::new(), |_| true);
        outcome.failed.extend(done.err());
        let inside = |point: &String| Path::new(point).starts_with(scene.root());
        let strays = mount_points().into_iter().filter(|point| !inside(point));
        outcome
            .escaped
            .extend(strays.filter(|point| !before.contains(point)));
        drop(held);
        rustix::mount::unmount(scene.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    outcome
}

/// Puts a copy of the root's mount over the root, as a `create` does.
fn take(root: &Path) -> OwnedFd {
    let tree = mount::copy_tree_at(root, true, true).unwrap();
    let place = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    mount::attach(&tree, &place).unwrap();
    tree
}

fn mount_points() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let point = |line: &str| line.split(' ').nth(4).unwrap().to_owned();
    text.lines().map(point).collect()
}

fn bind(source: PathBuf, destination: impl Into<PathBuf>) -> Step {
    Step::Bind(Box::new(Bind {
        source,
        destination: destination.into(),
        follow: true,
        follow_destination: true,
        ..Bind::default()
    }))
}

fn tmpfs(destination: impl Into<PathBuf>, copy_up: bool) -> Step {
    Step::Mount(Box::new(Filesystem {
        destination: destination.into(),
        kind: "tmpfs".to_owned(),
        source: "race".to_owned(),
        copy_up,
        ..Filesystem::default()
    }))
}

#[test]
fn a_volume_lands_inside_however_its_target_is_exchanged() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |scene, _| {
        vec![
            bind(scene.source("volume"), "/flip"),
            bind(scene.source("volume"), "/flip/sub"),
        ]
    });
}

#[test]
fn a_new_file_system_lands_inside_however_its_target_is_exchanged() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |_, _| {
        vec![tmpfs("/flip/sub", false), tmpfs("/flip", false)]
    });
}

#[test]
fn directories_are_made_inside_however_those_above_are_exchanged() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |_, number| {
        vec![Step::Directory(format!("/flip/{number}/deep").into())]
    });
}

#[test]
fn files_for_mounts_are_made_inside_however_directories_above_are_exchanged() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |scene, number| {
        vec![bind(scene.source("file"), format!("/flip/{number}/file"))]
    });
}

#[test]
fn devices_and_links_are_made_inside_however_their_directory_is_exchanged() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |_, number| {
        vec![
            Step::Device(Device {
                path: format!("/flip/device-{number}").into(),
                kind: 'c',
                major: 1,
                minor: 3,
                mode: 0o666,
                uid: 7,
                gid: 7,
                bind: false,
            }),
            Step::Symlink {
                path: format!("/flip/link-{number}").into(),
                target: "away".into(),
            },
        ]
    });
}

#[test]
fn nothing_of_the_outside_is_copied_into_what_covers_an_exchanged_directory() {
    need!(root);
    let scene = Scene::new();
    scene.race(&[scene.pair()], |_, _| {
        vec![tmpfs("/flip", true), Step::Mask("/flip/secret".into())]
    });
    let copied = Bundle::shell("cat /flip/secret /flip/sub/secret; true");
    fs::create_dir_all(copied.rootfs("/flip/sub")).unwrap();
    symlink(scene.sentinel.outside(), copied.rootfs("/other")).unwrap();
    let copied = copied.with(|config| {
        crate::container::add(
            config,
            "/mounts",
            json!({"destination": "/flip", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}),
        );
    });
    let racers = Racers::start(&[(copied.rootfs("/flip"), copied.rootfs("/other"))]);
    let home = Home::new();
    for _ in 0..rounds(50) {
        // Where the link leads nothing is inside, so half of these fail, as they should.
        assert_eq!(home.run(&copied).out, "");
    }
    racers.stop();
    scene.sentinel.untouched();
}

#[test]
fn entries_that_become_links_while_they_are_copied_show_nothing_of_the_outside() {
    need!(root);
    let scene = Scene::new();
    let root = scene.root();
    fs::create_dir_all(root.join("covered/dir")).unwrap();
    symlink(scene.sentinel.outside(), root.join("covered/other")).unwrap();
    let pairs = [(root.join("covered/dir"), root.join("covered/other"))];
    let racers = Racers::start(&pairs);
    let seen = std::thread::scope(|scope| {
        let copy = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount::propagate_all(1 << 18).unwrap();
            (0..tries()).any(|_| copies_a_secret(&root))
        };
        scope.spawn(copy).join().unwrap()
    });
    racers.stop();
    assert!(!seen, "a file of the outside was copied");
    scene.sentinel.untouched();
}

/// Covers a directory with a copy of it; whether a file of the outside is in the copy. That a link was met where a
/// directory was is a failure, and right.
fn copies_a_secret(root: &Path) -> bool {
    let step = [tmpfs("/covered", true)];
    let copied = init::below(&step, take(root), BTreeMap::new(), |_| true).is_ok();
    let real = |name: &str| {
        let place = root.join("covered").join(name);
        let directory = place.symlink_metadata().is_ok_and(|found| found.is_dir());
        directory && place.join("secret").exists()
    };
    let seen = copied && (real("dir") || real("other"));
    rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).unwrap();
    seen
}

#[test]
fn a_masked_file_is_hidden_or_the_workspace_refused_however_the_null_device_is_exchanged() {
    need!(root);
    let scene = Scene::new();
    let root = scene.root();
    fs::create_dir(root.join("dev")).unwrap();
    fs::write(root.join("masked"), "hidden\n").unwrap();
    let node = rustix::fs::FileType::CharacterDevice;
    let mode = Mode::from_raw_mode(0o666);
    let number = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("dev/null"), node, mode, number).unwrap();
    symlink("/masked-too", root.join("dev/link")).unwrap();
    fs::write(root.join("masked-too"), "another\n").unwrap();
    let racers = Racers::start(&[(root.join("dev/null"), root.join("dev/link"))]);
    let covers = std::thread::scope(|scope| {
        let mask = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount::propagate_all(1 << 18).unwrap();
            (0..tries()).map(|_| masked(&root)).collect::<Vec<_>>()
        };
        scope.spawn(mask).join().unwrap()
    });
    racers.stop();
    scene.sentinel.untouched();
    let hidden = covers.iter().flatten().filter(|text| text.is_empty());
    let (hidden, accepted) = (hidden.count(), covers.iter().flatten().count());
    assert_eq!(hidden, accepted, "something else covered the masked file");
    assert!(
        0 < accepted && accepted < covers.len(),
        "{accepted} accepted"
    );
}

/// What is read of the masked file, when the masking succeeds: nothing too where no device can be opened (`nodev`).
fn masked(root: &Path) -> Option<String> {
    let step = [Step::Mask("/masked".into())];
    let done = init::below(&step, take(root), BTreeMap::new(), |_| true).is_ok();
    let text = done.then(|| fs::read_to_string(root.join("masked")).unwrap_or_default());
    rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).unwrap();
    text
}

#[test]
fn a_tree_is_removed_and_nothing_that_its_directories_are_exchanged_for() {
    need!(root);
    let sentinel = Sentinel::new();
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    let racers = Racers::start(&[(top.join("tree/dir"), top.join("tree/link"))]);
    for _ in 0..tries() {
        fs::create_dir_all(top.join("tree/dir")).unwrap();
        fs::write(top.join("tree/dir/file"), "").unwrap_or_default();
        symlink(sentinel.outside(), top.join("tree/link")).unwrap();
        // A link where a directory was is a failure, and right; then another time.
        while bulkhead::sys::tree::remove(&held, "tree".as_ref()).is_err() {}
    }
    racers.stop();
    sentinel.untouched();
}

#[test]
fn whole_creations_mount_inside_what_they_mount() {
    need!(root, cgroup2);
    let (scene, home) = (Scene::new(), Home::new());
    let outside = scene.sentinel.outside();
    let bundle = Bundle::shell("grep -c race /proc/self/mountinfo").with(|config| {
        for (place, kind) in [
            ("/flip", "bind"),
            ("/flip/sub", "tmpfs"),
            ("/flip/new/b", "bind"),
        ] {
            let mount = json!({"destination": place, "type": kind, "source": scene.source("volume"),
                "options": if kind == "bind" { json!(["bind"]) } else { json!([]) }});
            crate::container::add(config, "/mounts", mount);
        }
        config["process"]["cwd"] = json!("/flip");
    });
    let inner = bundle.rootfs(outside.to_str().unwrap());
    for place in [
        bundle.rootfs("/flip/sub"),
        inner.join("sub"),
        inner.join("new/b"),
    ] {
        fs::create_dir_all(place).unwrap();
    }
    fs::create_dir_all(scene.source("volume").join("sub")).unwrap();
    fs::create_dir_all(scene.source("volume").join("new/b")).unwrap();
    symlink(outside, bundle.rootfs("/other")).unwrap();
    let racers = Racers::start(&[(bundle.rootfs("/flip"), bundle.rootfs("/other"))]);
    let all: Vec<String> = (0..rounds(40)).map(|_| home.run(&bundle).ok()).collect();
    racers.stop();
    scene.sentinel.untouched();
    let inside = all.iter().filter(|seen| seen.as_str() == "3\n").count();
    assert_eq!(inside, all.len(), "{all:?}");
}
