//! A workspace with a writable layer of its own over a root filesystem that is shared.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::somebody::Somebody;
use crate::support::somebody::UID;
use crate::support::somebody::alone;
use crate::support::wall;

/// The first number outside of those that a mapped workspace has.
const RANGE: u32 = 700_000;

/// Two fresh directories for a layer.
fn layer(home: &Home, name: &str) -> (PathBuf, PathBuf) {
    let made = ["upper", "work"].map(|part| {
        let path = home.beside(&format!("{name}/{part}"));
        fs::create_dir_all(&path).unwrap();
        path
    });
    let [upper, work] = made;
    (upper, work)
}

/// The same bundle with a layer of its own, over the root filesystem of `lower`.
fn layered(bundle: Bundle, lower: &Path, (upper, work): &(PathBuf, PathBuf)) -> Bundle {
    bundle.with(|config| {
        config["root"]["path"] = json!(lower);
        config["annotations"]["dev.bulkhead.rootfs.upper"] = json!(upper);
        config["annotations"]["dev.bulkhead.rootfs.work"] = json!(work);
    })
}

/// A user namespace in which root is number [`RANGE`] outside.
fn mapped(bundle: Bundle) -> Bundle {
    let mapping = json!([{ "containerID": 0, "hostID": RANGE, "size": 65_536 }]);
    bundle.with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
    })
}

/// Every path below a directory, with what a change of it would show.
fn seen(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            found.push(format!(
                "{} {:o} {} {}",
                path.display(),
                meta.mode(),
                meta.len(),
                meta.ctime_nsec()
            ));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn mounts_below(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = path.display().to_string();
    table
        .lines()
        .filter(|line| line.contains(&name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_is_written_is_in_the_layer_and_not_in_what_is_shared() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let before = seen(&lower.rootfs("/"));
    let own = layer(&home, "one");
    let script = "echo new >/etc/new && echo changed >>/etc/passwd && mkdir /srv && rm /etc/group";
    let said = home.run(&layered(Bundle::shell(script), &lower.rootfs("/"), &own));
    said.ok();
    assert_eq!(fs::read_to_string(own.0.join("etc/new")).unwrap(), "new\n");
    let passwd = fs::read_to_string(own.0.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:") && passwd.ends_with("changed\n"));
    assert!(own.0.join("srv").is_dir());
    assert_eq!(seen(&lower.rootfs("/")), before);
    assert_eq!(mounts_below(&home.beside("")), Vec::<String>::new());
}

#[test]
fn what_is_removed_is_a_whiteout_in_the_layer() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    home.run(&layered(
        Bundle::shell("rm /etc/group && test ! -e /etc/group"),
        &lower.rootfs("/"),
        &own,
    ))
    .ok();
    let whiteout = fs::symlink_metadata(own.0.join("etc/group")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
    assert!(lower.rootfs("/etc/group").exists());
}

#[test]
fn two_workspaces_share_a_root_filesystem_and_do_not_see_each_others_files() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let ids = [home.id(), home.id()];
    for id in &ids {
        let bundle = layered(
            Bundle::new(&["sleep", "1000"]),
            &lower.rootfs("/"),
            &layer(&home, id),
        );
        home.start(&bundle, id);
    }
    let write = format!("echo {} >/etc/mine", ids[0]);
    home.bulkhead(["exec", &ids[0], "/bin/sh", "-c", &write])
        .ok();
    let read = |id: &str| home.bulkhead(["exec", id, "/bin/cat", "/etc/mine"]);
    assert_eq!(read(&ids[0]).ok(), format!("{}\n", ids[0]));
    read(&ids[1]).failed();
    assert!(!lower.rootfs("/etc/mine").exists());
    for id in &ids {
        home.bulkhead(["delete", "--force", id]).ok();
    }
    assert_eq!(mounts_below(&home.beside("")), Vec::<String>::new());
}

#[test]
fn a_layer_keeps_what_was_written_for_the_next_workspace() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    let root = lower.rootfs("/");
    home.run(&layered(
        Bundle::shell("rm -r /etc; echo 1 >/one"),
        &root,
        &own,
    ))
    .ok();
    let script = "cat /one; test ! -e /etc/passwd && echo gone";
    let said = home.run(&layered(Bundle::shell(script), &root, &own));
    assert_eq!(said.ok(), "1\ngone\n");
}

#[test]
fn a_read_only_root_stays_read_only_and_its_mount_points_are_made_in_the_layer() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    let bundle = layered(
        Bundle::shell("touch /file 2>&1; ls -d /made/point"),
        &lower.rootfs("/"),
        &own,
    );
    let bundle = bundle.with(|config| {
        config["root"]["readonly"] = json!(true);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/made/point", "type": "tmpfs", "source": "x" }));
    });
    let out = home.run(&bundle).ok();
    assert!(out.contains("Read-only file system"), "{out}");
    assert!(out.ends_with("/made/point\n"), "{out}");
    assert!(own.0.join("made/point").is_dir());
    assert!(!lower.rootfs("/made").exists());
}

#[test]
fn owners_are_mapped_into_a_user_namespace_and_files_keep_the_numbers_of_the_inside() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let before = seen(&lower.rootfs("/"));
    let own = layer(&home, "one");
    // Nobody but root reaches the layers, as where this program keeps its own.
    fs::set_permissions(home.beside("one"), fs::Permissions::from_mode(0o700)).unwrap();
    let script = "stat -c '%u %g' /etc/passwd && echo x >/etc/new && rm /etc/group && mv /root /moved \
                  && mkdir /root && stat -c %u /etc/new /root && touch /tmp/x && chmod 4755 /tmp/x";
    let bundle = mapped(layered(Bundle::shell(script), &lower.rootfs("/"), &own));
    assert_eq!(home.run(&bundle).ok(), "0 0\n0\n0\n");
    assert_eq!(fs::metadata(own.0.join("etc/new")).unwrap().uid(), 0);
    assert_eq!(seen(&lower.rootfs("/")), before);
    assert_eq!(mounts_below(&home.beside("")), Vec::<String>::new());
    // What was written is the same for a workspace without a user namespace, but for the kernel's own notes.
    assert_eq!(fs::read_to_string(own.0.join("etc/new")).unwrap(), "x\n");
}

#[test]
fn a_root_filesystem_that_belongs_to_the_inside_is_not_mapped_again() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    let given = [lower.rootfs("/"), own.0.clone(), own.1.clone()];
    let owner = format!("{RANGE}:{RANGE}");
    let chown = std::process::Command::new("chown")
        .args(["-hR", &owner])
        .args(given)
        .status();
    assert!(chown.unwrap().success());
    let script = "stat -c %u /etc/passwd && echo x >/etc/new && rm /etc/group";
    let bundle = mapped(layered(Bundle::shell(script), &lower.rootfs("/"), &own));
    assert_eq!(home.run(&bundle).ok(), "0\n");
    assert_eq!(fs::metadata(own.0.join("etc/new")).unwrap().uid(), RANGE);
}

#[test]
fn the_layers_of_a_workspace_without_pivot_root_are_the_same() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    for (name, bundle) in [
        ("plain", Bundle::shell("echo x >/new")),
        ("mapped", mapped(Bundle::shell("echo x >/new"))),
    ] {
        let own = layer(&home, name);
        let bundle = layered(bundle, &lower.rootfs("/"), &own);
        let id = home.id();
        let path = bundle.path().display().to_string();
        home.bulkhead(["run", "--no-pivot", "-b", &path, &id]).ok();
        assert!(own.0.join("new").exists(), "{name}");
    }
}

#[test]
fn a_mount_comes_and_goes_while_the_workspace_runs() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let id = home.id();
    let own = layer(&home, &id);
    let bundle = layered(Bundle::new(&["sleep", "1000"]), &lower.rootfs("/"), &own);
    home.start(&bundle, &id);
    let hot = home.beside("hot.json");
    let source = home.beside("shared");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let mounts =
        json!([{ "destination": "/hot", "source": source, "type": "bind", "options": ["bind"] }]);
    fs::write(&hot, mounts.to_string()).unwrap();
    let hot = hot.display().to_string();
    home.bulkhead(["mounts", "add", &id, &hot]).ok();
    let read = || home.bulkhead(["exec", &id, "/bin/cat", "/hot/file"]);
    assert_eq!(read().ok(), "x");
    home.bulkhead(["mounts", "remove", &id, &hot]).ok();
    read().failed();
    assert!(!lower.rootfs("/hot").exists());
}

#[test]
fn the_plan_shows_the_layer() {
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    let bundle = layered(Bundle::new(&["true"]), &lower.rootfs("/"), &own);
    let path = bundle.path().display().to_string();
    let plan = home.bulkhead(["plan", &path]).ok();
    let (upper, root) = (own.0.display(), lower.rootfs("/").display().to_string());
    assert!(
        plan.contains(&format!("lay {upper} over {root} as the root\n")),
        "{plan}"
    );
}

#[test]
fn a_layer_that_cannot_be_one_is_refused_by_the_name_of_its_annotation() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let good = layer(&home, "one");
    let foreign = layer(&home, "foreign");
    std::os::unix::fs::chown(&foreign.0, Some(12_345), None).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let inside = lower.rootfs("/tmp");
    let cases = [
        (
            home.beside("none"),
            good.1.clone(),
            "rootfs.upper: cannot use",
        ),
        (
            good.0.clone(),
            home.beside("none"),
            "rootfs.work: cannot use",
        ),
        (foreign.0, foreign.1, "rootfs.upper: \""),
        (
            good.0.clone(),
            elsewhere.path().to_owned(),
            "rootfs.work: \"",
        ),
        (good.0.clone(), good.0.clone(), "must not lie in"),
        (inside, good.1.clone(), "must not lie in"),
    ];
    for (upper, work, expected) in cases {
        let bundle = layered(Bundle::new(&["true"]), &lower.rootfs("/"), &(upper, work));
        let said = home.run(&bundle).failed();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("annotations.dev.bulkhead.rootfs."), "{said}");
    }
}

#[test]
fn a_volatile_layer_waits_for_no_disk_and_is_taken_once() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    // Behind a wall of its own a workspace does not see how the host has mounted its root.
    let script = match wall::is_microvm() {
        true => "true",
        // It is "fsync=volatile" in the table of later kernels.
        false => "grep -q '^[^ ]* / overlay [^ ]*[,=]volatile' /proc/mounts",
    };
    let bundle = layered(Bundle::shell(script), &lower.rootfs("/"), &own).with(|config| {
        config["annotations"]["dev.bulkhead.rootfs.volatile"] = json!("true");
    });
    home.run(&bundle).ok();
    // The host might have crashed meanwhile, for all that the kernel knows.
    let said = home.run(&bundle).failed();
    let mark = own.1.join("work/incompat");
    let expected =
        format!("rootfs.work: the layer was volatile when it was used before; remove {mark:?}");
    assert!(said.contains(&expected), "{said}");
    fs::remove_dir_all(mark).unwrap();
    home.run(&bundle).ok();
}

#[test]
fn a_layer_needs_a_mount_namespace() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let own = layer(&home, "one");
    let bundle = layered(Bundle::new(&["true"]), &lower.rootfs("/"), &own).with(|config| {
        config["mounts"] = json!([]);
        config["hostname"] = json!("");
        config["linux"] = json!({ "namespaces": [{ "type": "pid" }] });
    });
    let said = home.run(&bundle).failed();
    assert!(
        said.contains("annotations.dev.bulkhead.rootfs.upper: needs a mount namespace"),
        "{said}"
    );
}

#[test]
fn a_user_without_rights_lays_a_layer_of_its_own() {
    need!(root, cgroup2, uidmap);
    let user = Somebody::new();
    let lower = Bundle::new(&["true"]);
    let layer = Bundle::new(&["true"]);
    let own = (layer.path().join("upper"), layer.path().join("work"));
    fs::create_dir(&own.0).unwrap();
    fs::create_dir(&own.1).unwrap();
    let given = std::process::Command::new("chown")
        .args(["-hR", &format!("{UID}:{UID}")])
        .args([lower.path(), layer.path()])
        .status();
    assert!(given.unwrap().success());
    let script =
        "echo x >/etc/new && rm /etc/group && rm -r /root && mkdir /root && stat -c %u /etc/new";
    let bundle = alone(layered(Bundle::shell(script), &lower.rootfs("/"), &own));
    for path in [lower.path(), layer.path(), bundle.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = bundle.path().display().to_string();
    let said = user.bulkhead(["run", "-b", &path, &user.id()]);
    assert_eq!(said.ok(), "0\n");
    assert_eq!(fs::metadata(own.0.join("etc/new")).unwrap().uid(), UID);
    assert!(lower.rootfs("/etc/group").exists());
}

#[test]
fn a_workspace_with_a_layer_is_not_saved_half() {
    need!(root, cgroup2);
    let home = Home::new();
    let lower = Bundle::new(&["true"]);
    let id = home.id();
    let own = layer(&home, &id);
    let bundle = layered(Bundle::new(&["sleep", "1000"]), &lower.rootfs("/"), &own);
    home.start(&bundle, &id);
    let images = home.beside("images").display().to_string();
    let said = home.bulkhead(["checkpoint", "--image-path", &images, &id]);
    assert!(
        said.failed()
            .contains("annotations.dev.bulkhead.rootfs.upper: a workspace")
    );
    assert_eq!(home.status(&id), "running");
}
