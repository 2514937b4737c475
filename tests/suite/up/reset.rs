//! Workspaces that need more memory than their limit, and are started again.

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;

const LIMIT: &str = "[memory]\nlimit = \"24M\"\non_over_limit = \"reset\"\n";

#[test]
fn one_that_runs_out_of_memory_is_started_again() {
    need!(root, limits);
    let home = Home::new();
    // The layer outlives a reset: the first run leaves a file there, and fills the memory.
    let script = "if test -e /second; then echo again; exec sleep 1000; fi; touch /second; \
                  echo first; exec dd if=/dev/zero of=/dev/null bs=64M";
    let document = Document::new(&home, script, LIMIT);
    document.up(&home);
    eventually("the reset", || document.row(&home)["resets"] == 1);
    eventually("the second start", || {
        home.bulkhead(["logs", &document.id]).ok() == "first\nagain\n"
    });
    assert_eq!(document.status(&home), "running");
    let said = home.bulkhead(["logs", &document.id]);
    assert!(
        said.err.contains("more memory than its limit"),
        "{}",
        said.err
    );
    document.down(&home);
}

#[test]
fn one_that_always_runs_out_of_memory_waits_longer_each_time_and_can_be_ended() {
    need!(root, limits);
    let home = Home::new();
    let document = Document::new(&home, "exec dd if=/dev/zero of=/dev/null bs=64M", LIMIT);
    let begun = std::time::Instant::now();
    document.up(&home);
    eventually("three resets", || {
        document.row(&home)["resets"].as_u64() >= Some(3)
    });
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
    document.becomes(&home, "restarting");
    document.down(&home);
}

#[test]
fn without_reset_it_has_ended() {
    need!(root, limits);
    let home = Home::new();
    let limit = LIMIT.replace("reset", "kill");
    let document = Document::new(&home, "exec dd if=/dev/zero of=/dev/null bs=64M", &limit);
    document.up(&home);
    document.becomes(&home, "stopped");
    eventually("the status", || document.row(&home)["exit_status"] == 137);
    assert_eq!(document.row(&home)["resets"], 0);
    document.down(&home);
}

#[test]
fn whoever_of_it_needs_too_much_it_ends_as_a_whole() {
    need!(root, limits);
    let home = Home::new();
    let limit = LIMIT.replace("reset", "kill");
    let script = "dd if=/dev/zero of=/dev/null bs=64M; exec sleep 1000";
    let document = Document::new(&home, script, &limit);
    document.up(&home);
    document.becomes(&home, "stopped");
    eventually("the status", || document.row(&home)["exit_status"] == 137);
    document.down(&home);
}
