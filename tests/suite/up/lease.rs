//! Leases: what happens at their end, how late, and who sees to it.

use std::time::Duration;
use std::time::Instant;

use super::Document;
use super::signal;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::support::residue;

/// The latest that an end may be seen to, besides what the machine takes to make a workspace and to look at it.
const LATE: Duration = Duration::from_secs(1);

fn lease(ttl: &str, then: &str) -> String {
    format!("[lease]\nttl = \"{ttl}\"\non_expiry = \"{then}\"\n")
}

/// When a lease began: not before the first of these moments, and not after the second.
struct Begun {
    earliest: Instant,
    latest: Instant,
}

/// Does what begins a lease.
fn begun(begin: impl FnOnce()) -> Begun {
    let earliest = Instant::now();
    begin();
    Begun {
        earliest,
        latest: Instant::now(),
    }
}

/// Waits until `done`, which must be after `ttl` and not later than it may. It is as late as the last look that has not
/// seen it yet says: how long a look takes is not the lease's.
#[track_caller]
fn in_time(begun: &Begun, ttl: Duration, what: &str, done: impl Fn() -> bool) {
    let unseen = std::cell::Cell::new(begun.latest);
    eventually(what, || {
        let before = Instant::now();
        let seen = done();
        if !seen {
            unseen.set(before);
        }
        seen
    });
    let took = begun.earliest.elapsed();
    assert!(took >= ttl, "{what} too early: {took:?}");
    let took = unseen.get().saturating_duration_since(begun.latest);
    assert!(took < ttl + LATE, "{what} too late: {took:?}");
}

const TTL: Duration = Duration::from_millis(1200);

#[test]
fn a_program_is_told_to_end_in_time_though_up_has_gone() {
    need!(root);
    let home = Home::new();
    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    let document = Document::new(&home, script, &lease("1200ms", "stop"));
    let begun = begun(|| document.up(&home));
    assert_eq!(document.row(&home)["lease"]["watched"], true);
    in_time(&begun, TTL, "its end", || {
        document.row(&home)["exit_status"] == 3
    });
    let said = home.bulkhead(["logs", &document.id]);
    assert!(said.err.contains("its lease has ended"), "{}", said.err);
    document.down(&home);
}

#[test]
fn one_that_stands_still_goes_on_when_it_is_extended() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::sleeper(&home, &lease("1200ms", "pause"));
    let begun = begun(|| document.up(&home));
    in_time(&begun, TTL, "its standstill", || {
        document.status(&home) == "paused"
    });
    let refused = home.bulkhead(["resume", &document.id]).failed();
    let way_out = format!("bulkhead lease {} --extend", document.id);
    assert!(refused.contains(&way_out), "{refused}");
    assert_eq!(document.status(&home), "paused");
    home.bulkhead(["lease", &document.id, "--extend", "1h"])
        .ok();
    document.becomes(&home, "running");
    let left = document.row(&home)["lease"]["remaining_us"].as_u64();
    assert!(left.is_some_and(|left| left > 3_590_000_000), "{left:?}");
    document.down(&home);
}

#[test]
fn one_that_cannot_hear_is_not_waited_for() {
    need!(root);
    let home = Home::new();
    // It is the first of its namespace and has no handler, so the kernel keeps the signal from it.
    let document = Document::sleeper(&home, &lease("1200ms", "stop"));
    let begun = begun(|| document.up(&home));
    in_time(&begun, TTL, "its end", || {
        document.status(&home) == "stopped"
    });
    document.down(&home);
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let asked = Instant::now();
    home.bulkhead(["down", &document.id]).ok();
    let took = asked.elapsed();
    document.vanishes(&home);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn one_that_is_being_ended_is_granted_nothing_more() {
    need!(root);
    let home = Home::new();
    let script = "trap : TERM; echo ready; while :; do sleep 0.05; done";
    let document = Document::new(&home, script, &lease("1h", "stop"));
    document.up(&home);
    // A machine's program may take longer to hear than its lease would last.
    eventually("what it says when it can hear", || {
        home.bulkhead(["logs", &document.id]).out == "ready\n"
    });
    home.bulkhead(["lease", &document.id, "--set", "200ms"])
        .ok();
    let told = || home.bulkhead(["logs", &document.id]).err;
    eventually("the end of its lease", || {
        told().contains("its lease has ended")
    });
    let refused = home
        .bulkhead(["lease", &document.id, "--extend", "1h"])
        .failed();
    assert!(refused.contains("being ended"), "{refused}");
    home.bulkhead(["down", "-t", "0", &document.id]).ok();
}

#[test]
fn trash_leaves_nothing_of_it() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, &lease("1200ms", "trash"));
    let begun = begun(|| document.up(&home));
    in_time(&begun, TTL, "the end of everything", || {
        document.left(&home).is_empty()
    });
}

#[test]
fn an_attached_up_is_told_of_the_end() {
    need!(root);
    let home = Home::new();
    let script = "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    let document = Document::new(&home, script, &lease("1s", "stop"));
    let mut up = document.attached(&home);
    let mut ready = [0; 6];
    std::io::Read::read_exact(up.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let runs = Instant::now();
    assert_eq!(up.wait().unwrap().code(), Some(8));
    assert!(runs.elapsed() < Duration::from_secs(1) + LATE);
    document.vanishes(&home);
}

#[test]
fn a_lease_is_shortened_and_lengthened() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, &lease("1h", "trash"));
    document.up(&home);
    home.bulkhead(["lease", &document.id, "--extend", "1h"])
        .ok();
    let granted = document.row(&home)["lease"]["granted_us"].as_u64();
    assert_eq!(granted, Some(7_200_000_000));
    let begun = begun(|| {
        home.bulkhead(["lease", &document.id, "--set", "300ms"])
            .ok();
    });
    in_time(&begun, Duration::from_millis(300), "the end", || {
        document.left(&home).is_empty()
    });
}

#[test]
fn a_bundle_with_a_lease_is_watched_over_too() {
    need!(root);
    let home = Home::new();
    let id = home.id();
    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    let bundle = residue::mark(Bundle::shell(script), &id).with(|config| {
        config["annotations"] = serde_json::json!({ "dev.bulkhead.lease.ttl": "1s" });
    });
    home.create(&bundle, &id);
    let begun = begun(|| {
        home.bulkhead(["start", &id]).ok();
    });
    in_time(&begun, Duration::from_secs(1), "its end", || {
        home.status(&id) == "stopped"
    });
    residue::remove(&home, &id);
}

#[test]
fn a_bundle_that_runs_in_the_foreground_is_watched_over_too() {
    need!(root);
    let home = Home::new();
    let bundle = Bundle::shell("trap 'exit 3' TERM; while :; do sleep 0.05; done").with(|config| {
        config["annotations"] = serde_json::json!({ "dev.bulkhead.lease.ttl": "1s" });
    });
    let plain = Bundle::shell("true");
    let usual = Instant::now();
    home.run(&plain).ok();
    let usual = usual.elapsed();
    let begun = Instant::now();
    let said = home.run(&bundle);
    assert_eq!(said.status, 3);
    // What a bundle takes besides its program is not the lease's.
    let took = begun.elapsed();
    let latest = Duration::from_secs(1) + LATE + usual * 2;
    assert!(took >= Duration::from_secs(1) && took < latest, "{took:?}");
}

#[test]
fn a_lost_monitor_is_seen_and_replaced() {
    need!(root);
    let home = Home::new();
    let script = "trap 'exit 3' TERM; echo one; while :; do sleep 0.05; echo more; done";
    let document = Document::new(&home, script, &lease("1h", "stop"));
    document.up(&home);
    let first = document.monitor(&home);
    let pid = home.pid(&document.id);
    signal(first, "-KILL");
    eventually("its end", || !lives(first));
    assert_eq!(document.row(&home)["lease"]["watched"], false);
    assert_eq!(document.row(&home)["alone"], true);
    assert!(home.bulkhead(["ls"]).ok().contains("running (alone)"));
    assert!(lives(pid), "the program has ended with its monitor");
    let done = home.bulkhead(["gc"]).ok();
    assert!(done.contains("watched over again"), "{done}");
    let second = document.monitor(&home);
    assert!(second != first && lives(second));
    assert_eq!(document.row(&home)["lease"]["watched"], true);
    assert_eq!(document.row(&home)["alone"], false);
    let lines = || home.bulkhead(["logs", &document.id]).ok().lines().count();
    let before = lines();
    eventually("more output", || lines() > before);
    assert!(lives(pid));
    document.down(&home);
}

#[test]
fn a_lease_that_ended_unseen_ends_with_the_next_monitor() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, &lease("1s", "trash"));
    document.up(&home);
    let monitor = document.monitor(&home);
    signal(monitor, "-KILL");
    eventually("the end of the lease", || {
        document.row(&home)["lease"]["remaining_us"] == 0
    });
    assert_eq!(document.status(&home), "running");
    home.bulkhead(["gc"]).ok();
    document.vanishes(&home);
}

#[test]
fn the_lease_is_told_in_words() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, &lease("2h", "pause"));
    document.up(&home);
    let text = home.bulkhead(["lease", &document.id]).ok();
    for words in [
        "granted      2h",
        "then         pause",
        "watched by   process ",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let far = ["lease", &document.id, "--extend", "90000000h"];
    let text = home.bulkhead(far).ok();
    assert!(text.contains("after the year 9999"), "{text}");
    let wrong = home.bulkhead(["lease", &document.id, "--extend", "soon"]);
    assert!(wrong.failed().contains("a span of time such as"));
    document.down(&home);
}
