//! Every path that the runtime touches below a root, with everything in its place that an image can hold there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::container::add;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::need::in_machine;
use crate::support::sentinel::Sentinel;

/// What the runtime makes, opens, covers or enters.
const TOUCHED: [&str; 30] = [
    "/proc",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/dev/pts",
    "/dev/pts/ptmx",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/mine",
    "/etc",
    "/etc/passwd",
    "/etc/group",
    "/etc/secret",
    "/run",
    "/tmp",
    "/data",
    "/data/file",
    "/work",
    "/bin/program",
];

/// What is put there.
const THINGS: [&str; 8] = [
    "absolute", "relative", "dangling", "loop", "pipe", "socket", "device", "hardlink",
];

/// How long one of these may take on a busy machine of software: what waits for a pipe waits for ever.
const BOUND: &str = "60";

/// A bundle that uses all of them, and has a `/dev` of the image's own.
fn bundle() -> Bundle {
    let bundle = Bundle::new(&["/bin/program"]).with(configuration);
    for directory in [
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "sys/fs/cgroup",
        "data",
        "work",
    ] {
        fs::create_dir_all(bundle.rootfs(directory)).unwrap();
    }
    fs::write(bundle.rootfs("/etc/secret"), "hidden\n").unwrap();
    fs::write(bundle.rootfs("/bin/program"), "#!/bin/sh\necho it ran\n").unwrap();
    fs::set_permissions(
        bundle.rootfs("/bin/program"),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::create_dir(bundle.path().join("volume")).unwrap();
    fs::write(bundle.path().join("file"), "").unwrap();
    bundle
}

fn configuration(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] == "/proc" || mount["destination"] == "/dev/pts");
    for mount in [
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}),
        json!({"destination": "/run", "type": "tmpfs", "source": "run", "options": ["tmpcopyup"]}),
        json!({"destination": "/tmp", "source": "volume", "options": ["bind"]}),
        json!({"destination": "/data/file", "source": "file", "options": ["bind"]}),
    ] {
        add(config, "/mounts", mount);
    }
    config["process"]["cwd"] = json!("/work/below");
    config["linux"]["maskedPaths"] = json!(["/etc/secret", "/proc/kcore"]);
    config["linux"]["readonlyPaths"] = json!(["/data", "/proc/sys"]);
    config["linux"]["devices"] = json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "uid": 7, "gid": 7, "fileMode": 0o600}
    ]);
}

/// Puts something hostile in a place; gives what must be held as long as it shall stand.
fn put(thing: &str, place: &Path, outside: &Path) -> Option<UnixListener> {
    let node = |kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, place, kind, mode, device).unwrap();
    };
    match thing {
        "absolute" => symlink(outside, place).unwrap(),
        "relative" => {
            let up = "../".repeat(24);
            let leads = Path::new(&up).join(outside.strip_prefix("/").unwrap());
            symlink(leads.join("secret"), place).unwrap();
        }
        "dangling" => symlink(outside.join("nothing/below"), place).unwrap(),
        "loop" => symlink(place.file_name().unwrap(), place).unwrap(),
        "pipe" => node(rustix::fs::FileType::Fifo, 0),
        "socket" => return Some(UnixListener::bind(place).unwrap()),
        "device" => node(
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::makedev(1, 5),
        ),
        _ => fs::hard_link(outside.join("secret"), place).unwrap(),
    }
    None
}

/// Runs the bundle with a terminal or without; whoever hangs is killed with status 124.
fn run(home: &Home, bundle: &Bundle, terminal: bool) -> i32 {
    let inner = home.command();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", BOUND]);
    if terminal {
        command.args(["script", "--quiet", "--return", "--command"]);
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        let bundle = bundle.path().display();
        command.arg(format!("{} run -b {bundle} {}", words.join(" "), home.id()));
        command.arg("/dev/null");
    } else {
        command.arg(inner.get_program()).args(inner.get_args());
        command
            .args(["run", "-b"])
            .arg(bundle.path())
            .arg(home.id());
    }
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .code()
        .unwrap()
}

/// Takes the place's own content aside, puts the thing there, runs, and puts everything back.
fn one(home: &Home, bundle: &Bundle, sentinel: &Sentinel, case: (&str, &str), terminal: bool) {
    let (touched, thing) = case;
    let place = bundle.rootfs(touched);
    let aside = bundle.path().join("aside");
    let was_there = fs::rename(&place, &aside).is_ok();
    let held = put(thing, &place, sentinel.outside());
    let status = run(home, bundle, terminal);
    assert!(status != 124 && status != 137, "{thing} at {touched} hung");
    drop(held);
    clear(&place);
    if was_there {
        fs::rename(&aside, &place).unwrap();
    }
}

fn clear(place: &Path) {
    let parent = fs::File::open(place.parent().unwrap()).unwrap();
    bulkhead::sys::tree::remove(&parent, place.file_name().unwrap()).unwrap();
}

/// All combinations; on an emulated processor a fifth of them, every path and every thing among them.
fn cases() -> Vec<(&'static str, &'static str)> {
    let stride = if in_machine() { 5 } else { 1 };
    let all = TOUCHED.iter().enumerate().flat_map(|(row, touched)| {
        let things = THINGS.iter().enumerate();
        things.map(move |(column, thing)| (row + column, (*touched, *thing)))
    });
    all.filter(|(number, _)| number % stride == 0)
        .map(|(_, case)| case)
        .collect()
}

#[test]
fn whatever_stands_where_the_runtime_works_nothing_outside_is_changed() {
    need!(root, cgroup2);
    let (home, bundle, sentinel) = (Home::new(), bundle(), Sentinel::new());
    assert_eq!(
        run(&home, &bundle, false),
        0,
        "it runs when nothing is wrong"
    );
    for case in cases() {
        one(&home, &bundle, &sentinel, case, false);
    }
    sentinel.untouched();
}

#[test]
fn whatever_stands_where_a_terminal_is_made_nothing_outside_is_changed() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    let bundle = bundle().with(|config| config["process"]["terminal"] = json!(true));
    assert_eq!(
        run(&home, &bundle, true),
        0,
        "it runs when nothing is wrong"
    );
    for touched in [
        "/dev",
        "/dev/pts",
        "/dev/pts/ptmx",
        "/dev/ptmx",
        "/dev/console",
    ] {
        for thing in THINGS {
            one(&home, &bundle, &sentinel, (touched, thing), true);
        }
    }
    sentinel.untouched();
}

#[test]
fn a_link_in_place_of_the_console_is_not_followed_even_inside() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = bundle().with(|config| config["process"]["terminal"] = json!(true));
    fs::write(bundle.rootfs("/etc/target"), "text").unwrap();
    symlink("/etc/target", bundle.rootfs("/dev/console")).unwrap();
    assert_ne!(run(&home, &bundle, true), 0);
}

#[test]
fn a_link_to_nothing_in_place_of_a_file_makes_no_file_outside() {
    need!(root, cgroup2);
    let (home, bundle, sentinel) = (Home::new(), bundle(), Sentinel::new());
    symlink(sentinel.outside().join("made"), bundle.rootfs("/data/file")).unwrap();
    run(&home, &bundle, false);
    sentinel.untouched();
}

/// A caller's own streams, whatever `/dev/null` of the image is.
#[test]
fn streams_stay_the_callers_whatever_the_null_device_of_the_image_is() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    let bundle = Bundle::shell("cat; echo out; echo err >&2").with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] == "/proc");
        config["process"]["user"] = json!({"uid": 7, "gid": 7});
    });
    for thing in THINGS {
        let place = bundle.rootfs("/dev/null");
        let held = put(thing, &place, sentinel.outside());
        let file: PathBuf = home.beside("stream");
        fs::write(&file, "in\n").unwrap();
        let mut command = home.command();
        command
            .args(["run", "-b"])
            .arg(bundle.path())
            .arg(home.id());
        let ended = command
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        if ended.status.success() {
            assert_eq!(ended.stdout, b"in\nout\n", "{thing}");
        }
        drop(held);
        clear(&place);
    }
    sentinel.untouched();
}
