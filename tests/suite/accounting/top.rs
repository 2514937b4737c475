//! `top` at a terminal of its own.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::pty::OpenptFlags;

use crate::accounting::life::billed;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// A program at a new terminal of 80 by 24, and the terminal's other side.
fn at_terminal(mut command: Command) -> (Child, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let size = rustix::termios::Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let slave: OwnedFd = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap()
        .into();
    command.stdin(slave.try_clone().unwrap());
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    (command.spawn().unwrap(), File::from(master))
}

/// Reads until a word has come; what is blank is not written, so it has none in it.
fn read_until(terminal: &mut File, word: &str) -> String {
    let mut seen = Vec::new();
    let mut some = [0; 4096];
    let patience = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let deadline = Instant::now() + Duration::from_secs(90);
    while !String::from_utf8_lossy(&seen).contains(word) {
        let mut watched = [PollFd::new(terminal, PollFlags::IN)];
        let ready = rustix::event::poll(&mut watched, Some(&patience)).unwrap();
        let late = ready == 0 || Instant::now() > deadline;
        assert!(!late, "no {word} in {}", String::from_utf8_lossy(&seen));
        let length = terminal.read(&mut some).unwrap();
        seen.extend_from_slice(&some[..length]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn the_table_comes_and_a_key_ends_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    home.start(&billed(Bundle::new(&["sleep", "1000"])), &id);
    let mut command = home.command();
    command.args(["top", "-d", "0.2"]);
    let (mut child, mut terminal) = at_terminal(command);
    let seen = read_until(&mut terminal, "lease");
    assert!(seen.contains("workspaces,"), "{seen}");
    assert!(seen.contains(&id[..8]), "{seen}");
    // The alternate screen, which leaves the one before as it was.
    assert!(seen.contains("\x1b[?1049h"), "{seen:?}");
    terminal.write_all(b"mrq").unwrap();
    let rest = read_until(&mut terminal, "\x1b[?1049l");
    assert!(child.wait().unwrap().success(), "{rest}");
}

#[test]
fn without_a_terminal_it_says_what_goes_without() {
    let said = Home::new().bulkhead(["top"]).failed();
    assert!(
        said.contains("top needs a terminal; usage --watch"),
        "{said}"
    );
}
