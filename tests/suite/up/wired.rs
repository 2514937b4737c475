//! Workspaces of documents that are on a network, and go: what is still there at the moment the command returns.

use std::process::Stdio;

use super::Document;
use crate::need;
use crate::network::left;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;

/// A document on a network, which may be the last there.
fn wired(home: &Home, script: &str) -> Document {
    Document::new(home, script, "[network]\nbridge = \"net\"\n")
}

/// What anybody can find of it and its network.
fn found(home: &Home, document: &Document) -> Vec<String> {
    let mut found = left(home, &["net"], &[&document.id]);
    found.extend(
        [home.root().join(&document.id), document.estate(home)]
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    found
}

/// `up` under strace with these options, to its end; gives what strace wrote.
fn traced(home: &Home, document: &Document, options: &[&str]) -> String {
    let trace = home.beside("trace");
    let plain = residue::marked(home.command(), &document.id);
    let mut command = std::process::Command::new("strace");
    command
        .args(["-f", "--seccomp-bpf", "-qq", "-o"])
        .arg(&trace)
        .args(options);
    command
        .arg(plain.get_program())
        .args(plain.get_args())
        .arg("up")
        .arg(document.file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().unwrap();
    std::fs::read_to_string(trace).unwrap_or_default()
}

#[test]
fn nothing_of_a_network_is_found_when_up_returns() {
    need!(root, nft);
    let home = Home::new();
    let document = wired(&home, "ip -o -4 addr show eth0 | grep -q 10.");
    for round in 0..5 {
        let said = document.attached(&home).wait_with_output().unwrap();
        assert!(said.status.success(), "{said:?}");
        assert_eq!(found(&home, &document), Vec::<String>::new(), "{round}");
    }
    // The monitor goes when the kernel has taken apart what nobody finds.
    document.vanishes(&home);
}

#[test]
fn others_keep_their_network_when_one_goes() {
    need!(root, nft);
    let home = Home::new();
    let stays = wired(&home, "exec sleep 1000");
    stays.up(&home);
    let goes = wired(&home, "true");
    let said = goes.attached(&home).wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(left(&home, &[], &[&goes.id]), ["the directory of leases"]);
    assert_eq!(
        left(&home, &["net"], &[&stays.id]).len(),
        4,
        "bridge, table, link and leases"
    );
    stays.down(&home);
    assert_eq!(found(&home, &stays), Vec::<String>::new());
}

/// Puts it away, if it is there.
fn down(home: &Home, document: &Document) {
    if home.root().join(&document.id).exists() {
        home.bulkhead(["down", "--time", "0", &document.id]);
    }
}

#[test]
fn a_monitor_that_is_killed_or_refused_at_any_message_leaves_nothing() {
    need!(root, nft, strace);
    for fault in ["signal=SIGKILL", "error=ENOMEM"] {
        // Each thread counts its own messages; the one that removes a link sends only one.
        for number in 1..=8 {
            let home = Home::new();
            let document = wired(&home, "true");
            let inject = format!("inject=sendto:{fault}:when={number}");
            traced(&home, &document, &["-e", "trace=sendto", "-e", &inject]);
            eventually("that nothing is left", || {
                home.bulkhead(["gc"]).ok();
                down(&home, &document);
                document.left(&home).is_empty() && found(&home, &document).is_empty()
            });
        }
    }
}

#[test]
fn up_does_not_wait_for_the_disk_which_has_the_bill_soon_after() {
    need!(root, cgroup2, strace);
    let home = Home::new();
    let document = Document::new(&home, "true", "");
    let slow = "inject=fdatasync:delay_enter=700000";
    let begun = std::time::Instant::now();
    let text = traced(
        &home,
        &document,
        &["-e", "trace=fdatasync,sendmsg", "-e", slow],
    );
    assert!(begun.elapsed().as_millis() >= 700, "strace waits for all");
    let at = |word: &str| {
        let lines = text.lines().enumerate();
        let found = lines.filter(|(_, line)| line.contains(word));
        found.map(|(number, _)| number).last()
    };
    let told = at("\"x{").expect("up is told how it ended");
    let synced = at("fdatasync");
    assert!(synced > Some(told), "{text}");
    let ledger = home.bulkhead(["ledger"]).ok();
    assert!(ledger.contains(&document.id), "{ledger}");
}
