//! Workspaces of documents on a network: many of them, and what is left when everything of one was killed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::addresses;
use super::inside;
use super::left;
use super::network;
use super::port;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::up::Document;
use crate::up::signal;

/// A network with a published port and rates.
fn everything() -> String {
    format!(
        "[network]\nbridge = \"net\"\npublish = [\"{}:5000\"]\nin = {{ limit = \"10mbit\" }}\n",
        port()
    )
}

/// Brings one up, and kills its program and its monitor at once.
fn killed(home: &Home) -> Document {
    let document = Document::sleeper(home, &everything());
    document.up(home);
    let (monitor, program) = (document.monitor(home), home.pid(&document.id));
    signal(monitor, "-KILL");
    signal(program, "-KILL");
    eventually("the end of both", || !lives(monitor) && !lives(program));
    document
}

#[test]
fn the_network_of_one_whose_processes_were_all_killed_is_collected() {
    need!(root, nft);
    let home = Home::new();
    let document = killed(&home);
    assert!(!left(&home, &["net"], &[]).is_empty());
    let done = home.bulkhead(["gc"]).ok();
    assert!(done.contains("given back"), "{done}");
    assert_eq!(left(&home, &["net"], &[&document.id]), Vec::<String>::new());
    document.down(&home);
}

#[test]
fn the_network_of_one_of_which_nothing_else_is_left_is_collected() {
    need!(root, nft);
    let home = Home::new();
    let document = killed(&home);
    // As after a loss of the state directory: only the leases tell of it.
    std::fs::remove_dir_all(home.root().join(&document.id)).unwrap();
    let told = home.bulkhead(["gc", "--dry-run"]).ok();
    assert!(
        told.contains(&format!("lease of {}", document.id)),
        "{told}"
    );
    home.bulkhead(["gc"]).ok();
    assert_eq!(left(&home, &["net"], &[&document.id]), Vec::<String>::new());
    assert!(!document.estate(&home).exists());
    remove_group(&document.id);
}

/// Nobody could know of the cgroup any more.
fn remove_group(id: &str) {
    let groups = ["/sys/fs/cgroup/unified/bulkhead", "/sys/fs/cgroup/bulkhead"];
    for group in groups.map(|group| PathBuf::from(group).join(id)) {
        std::fs::remove_dir(group).unwrap_or_default();
    }
}

#[test]
fn a_hundred_brought_up_on_one_bridge_reach_each_other_and_leave_nothing() {
    need!(root);
    let home = Home::new();
    let shared = Bundle::shell("true");
    let ids: Vec<String> = (0..100).map(|_| home.id()).collect();
    let directory = home.beside("documents");
    std::fs::create_dir(&directory).unwrap();
    let files = ids.iter().map(|id| {
        let text = format!(
            "name = \"{id}\"\nrootfs = \"{}\"\ncommand = [\"/bin/sleep\", \"1000\"]\n\
             [network]\nbridge = \"many\"\n",
            shared.rootfs("").display()
        );
        let file = directory.join(format!("{id}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    });
    let files: Vec<PathBuf> = files.collect();
    let mut up = home.command();
    up.args(["up", "-d"]).args(&files);
    // The monitors must not hold the ends of pipes.
    let quiet = std::process::Stdio::null;
    let status = up.stdout(quiet()).stderr(quiet()).status();
    assert!(status.unwrap().success());
    let all = network(&home, "many");
    let all = all["workspaces"].as_array().unwrap();
    let seen: BTreeSet<&str> = all
        .iter()
        .flat_map(|one| one["addresses"].as_array().unwrap())
        .map(|address| address.as_str().unwrap())
        .collect();
    assert_eq!(all.len(), 100);
    assert_eq!(
        seen.len(),
        all[0]["addresses"].as_array().unwrap().len() * 100
    );
    let last = addresses(&home, "many", &ids[99])[0];
    inside(&home, &ids[0], &format!("ping -c 1 -W 5 {last}")).ok();
    let names = ids.iter().map(String::as_str);
    let words: Vec<&str> = ["down", "--time", "0"]
        .into_iter()
        .chain(names.clone())
        .collect();
    home.bulkhead(words).ok();
    let names: Vec<&str> = names.collect();
    assert_eq!(left(&home, &["many"], &names), Vec::<String>::new());
}
