//! Descriptors: what the program is handed, and that it gets nothing else.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::process::Stdio;

use serde_json::json;

use super::inside;
use super::own_words;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// Lists the descriptors of the shell itself: by built-ins alone, so that none is opened for it.
const LIST: &str = "n=0; while [ $n -lt 120 ]; do if [ -L /proc/$$/fd/$n ]; then echo -n \"$n \"; fi; n=$((n+1)); done; echo";

/// The binary, started by a shell that first opens what the script says.
fn after(home: &Home, opening: &str, command: &str, bundle: &Bundle) -> Said {
    let script = format!("{opening}\nexec $RUN {command} -b $BUNDLE $ID");
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).stdin(Stdio::null());
    shell.env("RUN", own_words(home));
    shell.env("BUNDLE", bundle.path()).env("ID", home.id());
    shell.output().unwrap().into()
}

const TEN: &str = "exec 3</ 4</etc 5</tmp 6</proc 7</root 8</dev 9</usr 10</ 20</ 99</";

#[test]
fn nothing_that_the_caller_has_open_comes_in() {
    need!(root, cgroup2);
    let home = Home::new();
    let said = after(&home, TEN, "run", &Bundle::shell(LIST));
    assert_eq!(said.ok(), "0 1 2 \n");
}

#[test]
fn nothing_that_the_caller_of_exec_has_open_comes_in() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let script = format!("{TEN}\nexec $RUN exec $ID sh -c '{LIST}'");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .env("ID", &id)
        .env("RUN", own_words(&home));
    let said: Said = shell.output().unwrap().into();
    assert_eq!(said.ok(), "0 1 2 \n");
}

#[test]
fn descriptors_that_are_to_be_kept_are_and_no_others() {
    need!(root, cgroup2);
    let home = Home::new();
    let file = home.beside("kept");
    std::fs::write(&file, "kept\n").unwrap();
    let opening = format!("{TEN}\nexec 3</etc/passwd 4<{}", file.display());
    let bundle = Bundle::shell(&format!("{LIST}; cat <&4"));
    let said = after(&home, &opening, "run --preserve-fds 2", &bundle);
    assert_eq!(said.ok(), "0 1 2 3 4 \nkept\n");
}

#[test]
fn sockets_of_the_service_manager_are_handed_on_with_their_names() {
    need!(root, cgroup2);
    let home = Home::new();
    let opening = format!("{TEN}\nexport LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web");
    let bundle = Bundle::shell(&format!(
        "{LIST}; echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES"
    ));
    let said = after(&home, &opening, "run --preserve-fds 1", &bundle);
    assert_eq!(said.ok(), "0 1 2 3 4 \n1 1 web\n");
}

#[test]
fn a_descriptor_that_is_to_be_kept_must_be_open() {
    need!(root, cgroup2);
    let home = Home::new();
    let said = after(&home, "", "run --preserve-fds 3", &Bundle::shell(LIST));
    assert!(
        said.failed()
            .contains("--preserve-fds: descriptor 3 is not open")
    );
}

#[test]
fn the_programs_own_descriptors_are_not_taken_for_the_callers() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let mut shell = Command::new("sh");
    // The lowest numbers are those that the runtime opens first.
    shell.args([
        "-c",
        "exec 3<&- 4<&- 5<&-; exec $RUN exec --preserve-fds 1 $ID true",
    ]);
    let said: Said = shell
        .env("ID", &id)
        .env("RUN", own_words(&home))
        .output()
        .unwrap()
        .into();
    assert!(
        said.err
            .contains("--preserve-fds: descriptor 3 is not open"),
        "{}",
        said.err
    );
}

#[test]
fn exec_takes_nothing_from_a_service_manager() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let mut shell = Command::new("bash");
    let opening = "exec 3</etc/passwd; export LISTEN_FDS=1 LISTEN_PID=$$";
    shell.args([
        "-c",
        &format!("{opening}\nexec $RUN exec $ID sh -c '{LIST}'"),
    ]);
    let said: Said = shell
        .env("ID", &id)
        .env("RUN", own_words(&home))
        .output()
        .unwrap()
        .into();
    assert_eq!(said.ok(), "0 1 2 \n");
}

#[test]
fn standard_streams_belong_to_the_programs_user() {
    need!(root, cgroup2);
    let script = "echo x > /dev/stdout; echo y > /dev/stderr; stat -L -c %u /proc/self/fd/1";
    let home = Home::new();
    let bundle = Bundle::shell(script)
        .with(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let said = home.run(&bundle);
    assert_eq!((said.err.as_str(), said.status), ("y\n", 0));
    assert_eq!(said.out, "x\n1000\n");
}

#[test]
fn a_file_as_a_standard_stream_keeps_its_owner() {
    need!(root, cgroup2);
    let home = Home::new();
    let path = home.beside("output");
    let bundle = Bundle::shell("echo text")
        .with(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let mut command = home.command();
    command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(home.id());
    let status = command
        .stdout(File::create(&path).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(path.metadata().unwrap().uid(), 0);
    let null = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((null.uid(), null.mode() & 0o777), (0, 0o666));
}

#[test]
fn readiness_is_passed_on_to_the_service_manager() {
    need!(root, cgroup2);
    let home = Home::new();
    let path = home.beside("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    let script = "echo -n READY=1 | busybox nc -w 1 -u local:$NOTIFY_SOCKET 2>/dev/null; ls $NOTIFY_SOCKET; mount | grep -c notify";
    let bundle = Bundle::shell(&format!("{script}; exec sleep 1000"));
    let mut command = home.command();
    command
        .env("NOTIFY_SOCKET", &path)
        .args(["run", "-b"])
        .arg(bundle.path());
    let id = home.id();
    let mut child = command.arg(&id).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 25];
    let output = child.stdout.as_mut().unwrap();
    output.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"/run/notify/notify.sock\n1");
    let theirs = home.root().join(&id).join("notify/notify.sock");
    let program = UnixDatagram::unbound().unwrap();
    program.send_to(b"STATUS=working\nREADY=1", theirs).unwrap();
    let mut said = [0; 100];
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(90)))
        .unwrap();
    let length = manager.recv(&mut said).unwrap();
    let expected = format!("READY=1\nMAINPID={}\n", home.pid(&id));
    assert_eq!(std::str::from_utf8(&said[..length]).unwrap(), expected);
    home.bulkhead(["kill", &id, "KILL"]).ok();
    child.wait().unwrap();
}

#[test]
fn the_runtime_cannot_be_seen_from_inside() {
    need!(root, cgroup2);
    let seen = inside(
        "ps | grep -c [b]ulkhead; for l in exe cwd root; do readlink /proc/1/$l; done",
        |_| {},
    );
    assert_eq!(seen, "0\n/bin/busybox\n/\n/");
}
