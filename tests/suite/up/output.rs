//! What programs write, on its way through a monitor.

use std::io::Read;
use std::process::Stdio;

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;

const MIB: u64 = 1 << 20;

fn size_of_log(document: &Document, home: &Home) -> u64 {
    let estate = document.estate(home);
    ["log", "log.1", "log.2"]
        .iter()
        .filter_map(|name| std::fs::metadata(estate.join(name)).ok())
        .map(|meta| meta.len())
        .sum()
}

#[test]
fn a_flood_arrives_whole_and_is_kept_in_part() {
    need!(root);
    let home = Home::new();
    let document = Document::new(
        &home,
        "dd if=/dev/zero bs=64k count=640 2>/dev/null; echo end",
        "",
    );
    let mut up = residue::marked(home.command(), &document.id);
    let output = up.arg("up").arg(document.file()).output().unwrap();
    assert_eq!(output.stdout.len() as u64, 40 * MIB + 4);
    assert!(output.stdout.ends_with(b"end\n"));
    document.vanishes(&home);
}

#[test]
fn a_flood_that_nobody_reads_is_kept_in_bounded_files() {
    need!(root);
    let home = Home::new();
    let document = Document::new(
        &home,
        "dd if=/dev/zero bs=64k count=640 2>/dev/null; echo end",
        "",
    );
    document.up(&home);
    document.becomes(&home, "stopped");
    eventually("the last words", || {
        home.bulkhead(["logs", "-n", "1", &document.id])
            .ok()
            .ends_with("end\n")
    });
    let kept = size_of_log(&document, &home);
    assert!((8 * MIB..=24 * MIB).contains(&kept), "{kept}");
    document.down(&home);
}

#[test]
fn who_does_not_read_slows_the_program_and_loses_nothing() {
    need!(root);
    let home = Home::new();
    let out = home.beside("out");
    std::fs::create_dir(&out).unwrap();
    let mount = format!(
        "[[mount]]\nsource = \"{}\"\ntarget = \"/out\"\nmode = \"rw\"\n",
        out.display()
    );
    let script = "dd if=/dev/zero bs=64k count=160 2>/dev/null; touch /out/done";
    let document = Document::new(&home, script, &mount);
    let mut up = document.attached(&home);
    let full = || size_of_log(&document, &home);
    eventually("output", || full() > 100_000);
    // It comes to stand: the pipes and the line are full, and that is far less than what is written.
    std::thread::park_timeout(std::time::Duration::from_millis(300));
    assert!(full() < 5 * MIB, "{}", full());
    assert!(!out.join("done").exists());
    assert_eq!(document.status(&home), "running");
    let mut read = Vec::new();
    up.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read.len() as u64, 10 * MIB);
    assert!(up.wait().unwrap().success());
    assert!(out.join("done").exists());
}

#[test]
fn what_is_followed_ends_with_the_workspace() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo 1; sleep 0.3; echo 2; sleep 0.3; printf 3", "");
    document.up(&home);
    let said = home.bulkhead(["logs", "-f", &document.id]);
    assert_eq!(said.ok(), "1\n2\n3");
    document.down(&home);
}

#[test]
fn the_last_lines_are_counted_and_old_ones_left_out() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "for i in 1 2 3 4; do echo $i; done; printf 5", "");
    document.up(&home);
    document.becomes(&home, "stopped");
    let logs = |words: &[&str]| {
        let words = words.iter().copied().chain([document.id.as_str()]);
        home.bulkhead(std::iter::once("logs").chain(words)).ok()
    };
    eventually("all lines", || logs(&[]) == "1\n2\n3\n4\n5");
    assert_eq!(logs(&["-n", "2"]), "4\n5");
    assert_eq!(logs(&["-n", "0"]), "");
    assert_eq!(logs(&["-n", "9"]), "1\n2\n3\n4\n5");
    assert_eq!(logs(&["--since", "1h"]), "1\n2\n3\n4\n5");
    assert_eq!(logs(&["--since", "1ms"]), "");
    document.down(&home);
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_program() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "while echo y; do :; done; exit 1", "");
    let mut up = residue::marked(home.command(), &document.id);
    let mut up = up
        .arg("up")
        .arg(document.file())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    up.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let before = size_of_log(&document, &home);
    eventually("more output", || size_of_log(&document, &home) != before);
    assert_eq!(document.status(&home), "running");
    home.bulkhead(["down", "--time", "0", &document.id]).ok();
    assert_eq!(up.wait().unwrap().code(), Some(137));
    document.vanishes(&home);
}
