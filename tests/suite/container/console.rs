//! The terminal of a program: handed to the caller, of the size asked for, and the program's own.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// Takes one connection; gives the bytes and the descriptor that come over it.
pub(crate) fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    let (socket, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(&socket, &mut buffers, &mut ancillary, flags).unwrap();
    let mut all = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    });
    let descriptor = all.next().unwrap().next().unwrap();
    drop(all);
    bytes.truncate(received.bytes);
    (bytes, descriptor)
}

fn terminal(config: &mut Value) {
    config["process"]["terminal"] = json!(true);
    config["process"]["consoleSize"] = json!({"height": 33, "width": 121});
}

/// Reads from the master of a terminal until a word has come.
fn read_until(master: &mut File, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let mut chunk = [0; 1024];
        let length = master.read(&mut chunk).unwrap();
        text += std::str::from_utf8(&chunk[..length]).unwrap();
    }
    text
}

/// Creates a workspace with a terminal; gives its master.
fn create(home: &Home, bundle: &Bundle, id: &str) -> File {
    let path = home.beside("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = home.command();
    command.args(["create", "--console-socket"]).arg(&path);
    command.arg("-b").arg(bundle.path()).arg(id);
    let errors = File::create(home.beside("create.err")).unwrap();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    let words = std::fs::read_to_string(home.beside("create.err")).unwrap();
    assert!(status.success(), "{words}");
    let (name, master) = receive(&listener);
    assert_eq!(name, b"/dev/ptmx");
    File::from(master)
}

#[test]
fn the_master_is_handed_to_the_caller_and_the_program_has_the_slave() {
    need!(root, cgroup2);
    let home = Home::new();
    let script =
        "stty size; tty; stat -c '%u %t' /dev/pts/0; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all
        echo to-console > /dev/console; read line; echo \"got $line\"";
    let bundle = Bundle::shell(script).with(|config| {
        terminal(config);
        config["process"]["user"]["uid"] = json!(1000);
    });
    let id = home.id();
    let mut master = create(&home, &bundle, &id);
    home.bulkhead(["start", &id]).ok();
    let text = read_until(&mut master, "to-console");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(
        lines[..5],
        ["33 121", "/dev/pts/0", "1000 88", "all", "to-console"]
    );
    master.write_all(b"hello\n").unwrap();
    assert!(read_until(&mut master, "got hello").contains("got hello"));
}

#[test]
fn the_terminal_is_the_controlling_one() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell(
        "trap 'echo interrupted; exit 0' INT; echo ready; while true; do sleep 0.05; done",
    )
    .with(terminal);
    let id = home.id();
    let mut master = create(&home, &bundle, &id);
    home.bulkhead(["start", &id]).ok();
    read_until(&mut master, "ready");
    master.write_all(&[3]).unwrap();
    assert!(read_until(&mut master, "interrupted").contains("interrupted"));
}

#[test]
fn the_console_is_the_terminal_and_no_file_of_the_image() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("grep ' /dev/console ' /proc/self/mountinfo; echo end").with(terminal);
    let id = home.id();
    let mut master = create(&home, &bundle, &id);
    home.bulkhead(["start", &id]).ok();
    let text = read_until(&mut master, "end");
    let mounts = super::mounted(text.lines().next().unwrap().trim_end());
    assert_eq!(mounts[0].kind, "devpts");
}

#[test]
fn run_and_exec_with_a_terminal_show_what_is_written_there() {
    need!(root, cgroup2);
    let home = Home::new();
    let said = home.run(&Bundle::shell("tty; stty size; echo done").with(terminal));
    assert_eq!(said.ok(), "/dev/pts/0\r\n33 121\r\ndone\r\n");
    let bundle = Bundle::new(&["sleep", "1000"]);
    let id = home.id();
    home.start(&bundle, &id);
    let said = home.bulkhead([
        "exec",
        "--tty",
        &id,
        "sh",
        "-c",
        "tty; [ -t 2 ] && echo yes",
    ]);
    assert_eq!(said.ok(), "/dev/pts/0\r\nyes\r\n");
}

#[test]
fn the_terminal_of_an_exec_is_handed_to_its_caller() {
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
        .arg(&path);
    command.args([&id, "sh", "-c", "tty; read x; echo \"got $x\""]);
    let said: Said = command.stdin(Stdio::null()).output().unwrap().into();
    said.ok();
    let mut master = File::from(receive(&listener).1);
    // The terminal echoes what is written to it: its name comes first only to who waits for it.
    assert_eq!(read_until(&mut master, "\n"), "/dev/pts/0\r\n");
    master.write_all(b"word\n").unwrap();
    read_until(&mut master, "got word");
}

#[test]
fn a_terminal_needs_somebody_to_hold_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("true").with(terminal);
    let mut command = home.command();
    command
        .args(["create", "-b"])
        .arg(bundle.path())
        .arg(home.id());
    let said: Said = command.output().unwrap().into();
    assert!(said.failed().contains("console"));
}

#[test]
fn a_terminal_works_in_a_user_namespace() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("tty; stat -c '%u %g %a' /dev/pts/0; echo x > /dev/console").with(|config| {
            terminal(config);
            super::owner::with_users(config);
            config["mounts"][2]["options"] =
                json!(["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]);
        });
    assert_eq!(home.run(&bundle).ok(), "/dev/pts/0\r\n0 5 620\r\nx\r\n");
}
