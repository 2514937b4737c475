//! What a caller hands to a container and is handed back: terminals, descriptors, readiness.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;

use bulkhead::sys::socket;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle.with(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 17, "width": 91});
    })
}

/// Takes the one descriptor that a caller's socket is sent.
fn received(listener: &UnixListener) -> (String, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 256];
    let (length, mut fds) = socket::receive_with(stream.as_fd(), &mut name).unwrap();
    assert_eq!(fds.len(), 1);
    (
        String::from_utf8_lossy(&name[..length]).into_owned(),
        fds.remove(0),
    )
}

#[test]
fn the_master_of_a_terminal_comes_over_the_console_socket() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = with_terminal(Bundle::shell("tty; stty size; read line; echo got $line"));
    let path = home.beside("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let id = home.id();
    let mut command = home.command();
    command
        .args(["create", "-b"])
        .arg(bundle.path())
        .arg("--console-socket")
        .arg(&path)
        .arg(&id);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let (_, master) = received(&listener);
    let mut master = std::fs::File::from(master);
    home.bulkhead(["start", &id]).ok();
    let mut lines = BufReader::new(master.try_clone().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "/dev/pts/0");
    assert_eq!(lines.next().unwrap().unwrap(), "17 91");
    master.write_all(b"word\n").unwrap();
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "word",
        "the terminal echoes"
    );
    assert_eq!(lines.next().unwrap().unwrap(), "got word");
}

#[test]
fn a_terminal_without_anybody_at_its_other_end_is_refused_before_anything_is_made() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = with_terminal(Bundle::new(&["true"]));
    let id = home.id();
    let args = [
        "create".as_ref(),
        "-b".as_ref(),
        bundle.path().as_os_str(),
        id.as_ref(),
    ];
    assert!(home.bulkhead(args).failed().contains("--console-socket"));
    assert!(!home.root().exists());
}

#[test]
fn run_carries_the_bytes_of_a_terminal_both_ways() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = with_terminal(Bundle::shell(
        "test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo $x; exit 5",
    ));
    let mut command = home.command();
    command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(home.id())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(
        text.contains("all\r\n") && text.ends_with("typed\r\n"),
        "{text:?}"
    );
}

#[test]
fn nothing_that_was_written_to_a_terminal_is_lost_at_the_end() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = with_terminal(Bundle::shell(
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done",
    ));
    let text = home.run(&bundle).ok();
    assert_eq!(text.lines().count(), 3000);
    assert!(text.ends_with("line 2999\r\n"));
}

#[test]
fn exec_gives_a_terminal_too() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = Bundle::new(&["sleep", "1000"]);
    home.start(&bundle, &id);
    assert_eq!(
        home.bulkhead(["exec", "--tty", &id, "tty"]).ok(),
        "/dev/pts/0\r\n"
    );
    assert_eq!(home.bulkhead(["exec", &id, "tty"]).status, 1);
}

#[test]
fn exec_sends_the_master_of_its_terminal_to_the_console_socket() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let id = home.id();
    home.start(&bundle, &id);
    let path = home.beside("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = home.command();
    command
        .args(["exec", "--tty", "--detach", "--console-socket"])
        .arg(&path)
        .arg(&id)
        .args(["sh", "-c", "echo in; sleep 1"]);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let (_, master) = received(&listener);
    let mut line = String::new();
    BufReader::new(std::fs::File::from(master))
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "in\r\n");
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let path = home.beside("console.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let id = home.id();
    home.start(&bundle, &id);
    let socket = path.to_str().unwrap();
    let directory = bundle.path().to_str().unwrap();
    let other = home.id();
    let calls = [
        vec![
            "create",
            "--console-socket",
            socket,
            "-b",
            directory,
            &other,
        ],
        vec!["run", "--console-socket", socket, "-b", directory, &other],
        vec!["exec", "--console-socket", socket, &id, "true"],
    ];
    for call in calls {
        let words = home.bulkhead(&call).err;
        let expected = "cannot use console socket if bulkhead will not detach or allocate tty";
        assert!(words.contains(expected), "{call:?}: {words}");
    }
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), format!("{id}\n"));
}

#[test]
fn a_pidfd_comes_over_its_socket() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let path = home.beside("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let id = home.id();
    let mut command = home.command();
    command
        .args(["create", "-b"])
        .arg(bundle.path())
        .arg("--pidfd-socket")
        .arg(&path)
        .arg(&id);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let (_, pidfd) = received(&listener);
    bulkhead::sys::process::signal(pidfd.as_fd(), 9).unwrap();
    eventually("its end", || home.status(&id) == "stopped");
}

#[test]
fn a_pidfd_comes_where_the_annotation_says() {
    need!(root, cgroup2);
    let home = Home::new();
    let path = home.beside("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let bundle = Bundle::new(&["sleep", "1000"])
        .with(|config| config["annotations"] = json!({"run.oci.pidfd_receiver": path}));
    let id = home.id();
    home.create(&bundle, &id);
    let (_, pidfd) = received(&listener);
    bulkhead::sys::process::signal(pidfd.as_fd(), 0).unwrap();
}

#[test]
fn only_descriptors_that_are_to_be_kept_are_handed_in() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("ls /proc/self/fd | wc -l; cat <&3; echo $LISTEN_FDS $LISTEN_PID");
    let id = home.id();
    let word = home.beside("word");
    std::fs::write(&word, "kept\n").unwrap();
    let line = format!(
        "export LISTEN_PID=${{2:-$$}}; exec {} --root {} run -b {} $1 {id} 3<{} 4</dev/null 5</dev/null",
        env!("CARGO_BIN_EXE_bulkhead"),
        home.root().display(),
        bundle.path().display(),
        word.display(),
    );
    let run = |option: &str, listen: &str, whose: &str| {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", &line, "sh", option, whose])
            .env_remove("LISTEN_FDS")
            .envs((!listen.is_empty()).then_some(("LISTEN_FDS", listen)));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    // Beside the streams, ls has the directory that it reads.
    assert_eq!(run("--preserve-fds=1", "", ""), "5\nkept\n\n");
    assert_eq!(run("--no-pivot=false", "2", ""), "6\nkept\n2 1\n");
    assert!(run("--no-pivot=false", "", "").starts_with("4\n"));
    // Not for this process, so neither handed on nor read.
    for listen in ["2", "two"] {
        assert!(run("--no-pivot=false", listen, "1").starts_with("4\n"));
    }
}

#[test]
fn descriptors_that_are_not_open_cannot_be_kept() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["true"]);
    let id = home.id();
    let args = [
        "run".as_ref(),
        "--preserve-fds".as_ref(),
        "90".as_ref(),
        "-b".as_ref(),
        bundle.path().as_os_str(),
        id.as_ref(),
    ];
    assert!(
        home.bulkhead(args)
            .failed()
            .contains("--preserve-fds: descriptor")
    );
}

#[test]
fn readiness_reaches_the_service_manager_with_the_number_that_it_knows() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("echo $NOTIFY_SOCKET > /where; ls -l $NOTIFY_SOCKET >> /where; sleep 1000");
    let path = home.beside("manager.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    let id = home.id();
    let mut command = home.command();
    command
        .env("NOTIFY_SOCKET", &path)
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(&id)
        .stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let own = home.root().join(&id).join("notify/notify.sock");
    eventually("the program", || {
        std::fs::read_to_string(bundle.rootfs("/where")).is_ok_and(|text| text.lines().count() == 2)
    });
    let inside = UnixDatagram::unbound().unwrap();
    inside.send_to(b"STATUS=starting\n", &own).unwrap();
    inside.send_to(b"READY=1\nSTATUS=up\n", &own).unwrap();
    let mut message = [0; 256];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&message[..length]),
        format!("READY=1\nMAINPID={}\n", home.pid(&id))
    );
    home.bulkhead(["kill", &id, "KILL"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}
