//! Unpacked images: made once, used by many, kept while they are used.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use super::builder::Entry;
use super::builder::Layer;
use super::builder::Layout;
use super::builder::Packing;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::somebody::Somebody;
use bulkhead::workspace::report::Counted;
use bulkhead::workspace::report::End;
use bulkhead::workspace::report::Report;
use bulkhead::workspace::root::StateRoot;
use bulkhead::workspace::rootfs;
use bulkhead::workspace::rootfs::Resolved;

/// Keeps what is said.
#[derive(Debug, Default)]
struct Kept(RefCell<Vec<String>>);

impl Report for Kept {
    fn warning(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }

    fn debug(&self, _text: &dyn Fn() -> String) {
        // Nobody looks inside.
    }

    fn begun(&self, _first: &Counted<'_>) {
        // Nothing is billed here.
    }

    fn ending(&self, _last: &Counted<'_>, _end: End) {
        // Nothing is billed here.
    }
}

fn resolve(home: &Home, text: &str) -> Result<Resolved, String> {
    let places = StateRoot::choose(Some(&home.root()), None).unwrap();
    let said = Kept::default();
    rootfs::resolve(text, &home.beside(""), &places, &said).map_err(|error| error.to_string())
}

/// A layer with a busybox and what it needs.
fn busybox() -> Layer {
    let program = fs::read("/bin/busybox").unwrap();
    let made = Layer::default().entry(&Entry {
        name: "bin/busybox",
        mode: 0o755,
        content: &program,
        ..Entry::default()
    });
    ["sh", "cat", "test", "sleep", "rm"]
        .into_iter()
        .fold(made, |layer, name| {
            layer.link(&format!("bin/{name}"), "busybox")
        })
        .directory("proc")
        .directory("dev")
        .file("etc/image", "yes\n")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A bundle over an unpacked image with a layer of its own.
fn over(home: &Home, tree: &Path, name: &str, script: &str) -> Bundle {
    Bundle::shell(script).with(|config| {
        config["root"]["path"] = json!(tree);
        for part in ["upper", "work"] {
            let path = home.beside(&format!("{name}/{part}"));
            fs::create_dir_all(&path).unwrap();
            config["annotations"][format!("dev.bulkhead.rootfs.{part}")] = json!(path);
        }
    })
}

fn listed(home: &Home) -> Vec<Value> {
    let text = home.bulkhead(["images", "ls", "--format", "json"]).ok();
    serde_json::from_str(&text).unwrap()
}

/// Makes an image look as if nobody had asked for it for a long time.
fn forget(home: &Home) {
    for entry in fs::read_dir(home.root().join("@data/images")).unwrap() {
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let times = fs::FileTimes::new().set_modified(long_ago);
        let opened = fs::File::open(entry.unwrap().path()).unwrap();
        opened.set_times(times).unwrap();
    }
}

#[test]
fn a_directory_is_used_as_it_is() {
    let home = Home::new();
    let directory = tempfile::tempdir().unwrap();
    let found = resolve(&home, text(directory.path())).unwrap();
    assert_eq!(found.directory, directory.path());
    assert_eq!((found.image, found.digest), (None, None));
    let said = resolve(&home, "nothing-there").unwrap_err();
    assert!(said.starts_with("rootfs: cannot use"), "{said}");
    let said = resolve(&home, &format!("oci:{}", directory.path().display())).unwrap_err();
    assert!(said.contains("is no OCI layout"), "{said}");
    let said = resolve(&home, "docker-archive:x.tar").unwrap_err();
    assert!(
        said.contains("skopeo copy docker-archive:x.tar oci-archive:FILE"),
        "{said}"
    );
}

#[test]
fn an_image_is_unpacked_once_and_is_the_same_from_a_directory_and_an_archive() {
    let home = Home::new();
    fs::create_dir_all(home.beside("")).unwrap();
    let layout = Layout::packed(&[busybox()], Packing::Gzip);
    let archive = layout.archive(&home.beside(""));
    let one = resolve(&home, text(layout.path())).unwrap();
    let mark = one.directory.join("etc/image");
    let made = fs::metadata(&mark).unwrap();
    let two = resolve(&home, text(&archive)).unwrap();
    let three = resolve(&home, "oci-archive:image.tar").unwrap();
    assert_eq!(one, two);
    assert_eq!(one, three);
    let again = fs::metadata(&mark).unwrap();
    assert_eq!(made.created().unwrap(), again.created().unwrap());
    assert_eq!(one.image.unwrap().command, ["/bin/sh", "-c", "echo hello"]);
    let rows = listed(&home);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["digest"], one.digest.unwrap());
    assert_eq!(rows[0]["origins"].as_array().unwrap().len(), 2);
}

#[test]
fn two_workspaces_run_from_one_image_and_do_not_see_each_others_files() {
    need!(root, cgroup2);
    let home = Home::new();
    let layout = Layout::of(&[busybox()]);
    let tree = resolve(&home, text(layout.path())).unwrap().directory;
    let first = "rm /etc/image && echo mine >/new && cat /new";
    assert_eq!(home.run(&over(&home, &tree, "one", first)).ok(), "mine\n");
    let second = "cat /etc/image && test ! -e /new";
    assert_eq!(home.run(&over(&home, &tree, "two", second)).ok(), "yes\n");
    assert!(!tree.join("new").exists());
}

#[test]
fn a_bundle_that_is_compiled_without_a_layer_does_not_write_to_the_shared_tree() {
    need!(root, cgroup2);
    let home = Home::new();
    let layout = Layout::of(&[busybox().directory("sys").directory("etc").directory("tmp")]);
    let document = home.beside("workspace.toml");
    let command = r#"["sh", "-c", "cat /etc/image; echo x >/etc/image"]"#;
    let words = format!(
        "name = \"x\"\nuser = \"0:0\"\ncommand = {command}\nrootfs = {:?}\n",
        layout.path()
    );
    fs::write(&document, words).unwrap();
    let compiled = home.bulkhead([OsStr::new("compile"), document.as_os_str()]);
    let bundle = Bundle::new(&["true"]);
    let config: Value = serde_json::from_str(&compiled.ok()).unwrap();
    assert_eq!(config["root"]["readonly"], true);
    let path = config["root"]["path"].as_str().unwrap().to_owned();
    let said = home.run(
        &bundle
            .with(|own| own["root"] = config["root"].clone())
            .with(|own| {
                own["process"]["args"] = config["process"]["args"].clone();
            }),
    );
    assert_eq!(said.out, "yes\n", "{}", said.err);
    assert!(said.err.contains("Read-only file system"), "{}", said.err);
    let kept = fs::read_to_string(Path::new(&path).join("etc/image")).unwrap();
    assert_eq!(kept, "yes\n");
}

#[test]
fn eight_at_once_get_one_tree() {
    let home = Home::new();
    let layout = Layout::of(&[busybox()]);
    let found: Vec<Resolved> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| resolve(&home, text(layout.path())).unwrap()))
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(found.iter().all(|one| *one == found[0]));
    let names = fs::read_dir(home.root().join("@data/images")).unwrap();
    assert_eq!(names.count(), 1);
}

#[test]
fn what_cannot_be_unpacked_leaves_nothing() {
    let home = Home::new();
    let layout = Layout::of(&[busybox().file("../out", "x")]);
    resolve(&home, text(layout.path())).unwrap_err();
    let names = fs::read_dir(home.root().join("@data/images")).unwrap();
    assert_eq!(names.count(), 0);
}

#[test]
fn what_a_killed_command_left_goes_with_the_next() {
    let home = Home::new();
    let left = home.root().join("@data/images/.new-sha256-dead");
    fs::create_dir_all(left.join("rootfs/etc")).unwrap();
    let layout = Layout::of(&[busybox()]);
    resolve(&home, text(layout.path())).unwrap();
    assert!(!left.exists());
}

#[test]
fn an_image_that_is_used_is_not_removed() {
    need!(root, cgroup2);
    let home = Home::new();
    let layout = Layout::of(&[busybox()]);
    let found = resolve(&home, text(layout.path())).unwrap();
    let digest = found.digest.clone().unwrap();
    let id = home.id();
    home.start(&over(&home, &found.directory, &id, "sleep 1000"), &id);
    forget(&home);
    let table = home.bulkhead(["images"]).ok();
    assert!(table.contains(&digest) && table.contains(&id), "{table}");
    let said = home.bulkhead(["images", "rm", &digest]).failed();
    assert!(said.contains(&format!("it is used by {id}")), "{said}");
    home.bulkhead(["images", "gc"]).ok();
    assert!(found.directory.exists());
    home.bulkhead(["delete", "--force", &id]).ok();
    home.bulkhead(["images", "rm", &digest[..20]]).ok();
    assert!(!found.directory.exists());
    assert_eq!(listed(&home), Vec::<Value>::new());
}

#[test]
fn collection_keeps_what_was_asked_for_a_moment_ago() {
    let home = Home::new();
    let layout = Layout::of(&[busybox()]);
    let found = resolve(&home, text(layout.path())).unwrap();
    home.bulkhead(["images", "gc"]).ok();
    assert!(found.directory.exists());
    forget(&home);
    let said = home.bulkhead(["images", "gc"]).ok();
    assert_eq!(said.trim_end(), found.digest.unwrap());
    assert!(!found.directory.exists());
}

#[test]
fn a_digest_that_means_nothing_is_refused() {
    let home = Home::new();
    let said = home.bulkhead(["images", "rm", "sha256:abcdef"]).failed();
    assert!(said.contains("it means none of those"), "{said}");
}

#[test]
fn an_image_that_skopeo_has_copied_is_the_same() {
    let Ok(_) = Command::new("skopeo").arg("--version").output() else {
        return crate::support::need::missing("skopeo is not installed");
    };
    let home = Home::new();
    let layout = Layout::packed(
        &[busybox(), Layer::default().file("two", "2")],
        Packing::Gzip,
    );
    let copy = |from: &str, to: &str| {
        let said = Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--quiet", from, to])
            .output()
            .unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
    };
    let original = resolve(&home, text(layout.path())).unwrap();
    let archive = home.beside("copy.tar").display().to_string();
    let directory = home.beside("copy").display().to_string();
    let docker = home.beside("docker.tar").display().to_string();
    copy(
        &format!("oci:{}", layout.path().display()),
        &format!("oci-archive:{archive}:x:1"),
    );
    copy(
        &format!("oci-archive:{archive}:x:1"),
        &format!("oci:{directory}:y"),
    );
    copy(
        &format!("oci:{directory}:y"),
        &format!("docker-archive:{docker}:z:1"),
    );
    copy(
        &format!("docker-archive:{docker}"),
        &format!("oci:{directory}:z"),
    );
    for reference in [
        format!("{archive}:x:1"),
        format!("oci:{directory}:y"),
        format!("{directory}:z"),
    ] {
        let found = resolve(&home, &reference).unwrap();
        assert_eq!(found.directory, original.directory, "{reference}");
    }
    assert_eq!(
        fs::read_to_string(original.directory.join("two")).unwrap(),
        "2"
    );
}

#[test]
fn an_image_that_podman_has_saved_runs() {
    need!(machine);
    let home = Home::new();
    let layout = Layout::packed(&[busybox()], Packing::Gzip);
    let save = home.beside("saved.tar").display().to_string();
    let podman = |args: &[&str]| {
        let said = Command::new("podman").args(args).output().unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        String::from_utf8(said.stdout).unwrap()
    };
    let from = format!("oci:{}", layout.path().display());
    let pulled = podman(&["pull", "--quiet", &from]);
    podman(&[
        "save",
        "--quiet",
        "--format",
        "oci-archive",
        "-o",
        &save,
        pulled.trim(),
    ]);
    let tree = resolve(&home, &save).unwrap().directory;
    let said = home.run(&over(&home, &tree, "one", "cat /etc/image"));
    assert_eq!(said.ok(), "yes\n");
}

#[test]
fn a_user_without_rights_unpacks_what_it_may() {
    need!(root, cgroup2, uidmap);
    let user = Somebody::new();
    let layout = Layout::of(&[busybox()
        .entry(&Entry {
            kind: tar::EntryType::Char,
            name: "dev/disk",
            device: (8, 0),
            ..Entry::default()
        })
        .entry(&Entry {
            kind: tar::EntryType::Directory,
            name: "closed",
            mode: 0o555,
            owner: (7, 7),
            ..Entry::default()
        })
        .file("closed/file", "x")]);
    let made = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(layout.path())
        .status();
    assert!(made.unwrap().success());
    let document = layout.path().join("workspace.toml");
    let words = format!(
        "name = \"x\"\nuser = \"0:0\"\nrootfs = {:?}\n",
        layout.path()
    );
    fs::write(&document, words).unwrap();
    let root = user.root();
    let words = [
        OsStr::new("--root"),
        root.as_os_str(),
        OsStr::new("compile"),
    ];
    let said = user.bulkhead(words.into_iter().chain([document.as_os_str()]));
    let config: Value = serde_json::from_str(&said.clone().ok()).unwrap();
    let tree = Path::new(config["root"]["path"].as_str().unwrap());
    assert_eq!(fs::read_to_string(tree.join("closed/file")).unwrap(), "x");
    assert!(!tree.join("dev/disk").exists());
    assert!(
        said.err
            .contains("device nodes such as dev/disk are left out"),
        "{}",
        said.err
    );
}
