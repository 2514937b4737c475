//! A workspace's entries from its birth to each of its ends.

use bulkhead::accounting::Ledger;
use bulkhead::accounting::ledger::entry::Entry;
use bulkhead::accounting::ledger::entry::Kind;
use bulkhead::workspace::root::StateRoot;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::up::Document;

/// A bundle that is billed.
pub(super) fn billed(bundle: Bundle) -> Bundle {
    bundle.with(|config| {
        config["annotations"] = serde_json::json!({"dev.bulkhead.billed": "true"});
    })
}

/// All entries of a workspace.
pub(super) fn entries(home: &Home, id: &str) -> Vec<Entry> {
    let root = StateRoot::choose(Some(&home.root()), None).unwrap();
    let mut found = Vec::new();
    let warnings = Ledger::open(&root)
        .unwrap()
        .replay(|entry| found.push(entry))
        .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    found.retain(|entry| entry.usage.id.as_str() == id);
    found
}

/// Its kinds and reasons as they stand in the ledger.
pub(super) fn words(entries: &[Entry]) -> Vec<String> {
    let word = |entry: &Entry| {
        let value = serde_json::to_value(entry).unwrap();
        let reason = value["reason"].as_str().unwrap_or("-");
        format!("{} {reason}", value["kind"].as_str().unwrap())
    };
    entries.iter().map(word).collect()
}

#[test]
fn what_is_not_billed_is_not_entered() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["true"]));
    home.run(&bundle).ok();
    assert!(!home.root().join("@data").exists());
}

#[test]
fn a_run_is_entered_when_it_begins_and_with_how_it_ended() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = billed(Bundle::shell("exit 7"));
    let said = home.bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id]);
    assert_eq!((said.status, said.err.as_str()), (7, ""));
    let entries = entries(&home, &id);
    assert_eq!(words(&entries), ["created -", "ended exited"]);
    assert_eq!(entries[1].exit_status, Some(7));
    assert!(entries[1].usage.cpu.total_us > entries[0].usage.cpu.total_us);
    assert_eq!(entries[0].life(), entries[1].life());
}

#[test]
fn a_program_that_up_stays_with_has_a_first_line_if_it_runs_for_a_moment_and_a_last_one_always() {
    need!(root, cgroup2);
    let home = Home::new();
    let short = Document::new(&home, "true", "");
    home.bulkhead(["up", short.file().to_str().unwrap()]).ok();
    let entered = entries(&home, &short.id);
    let last = entered.last().unwrap();
    assert_eq!(words(&entered).last().unwrap(), "ended exited");
    // The moment when it began was looked at, so what the host did since is known.
    assert!(last.usage.cpu.total_us > 0 && last.usage.cpu.hold_ms.is_some());
    let long = Document::new(&home, "sleep 0.5", "");
    home.bulkhead(["up", long.file().to_str().unwrap()]).ok();
    let entered = entries(&home, &long.id);
    assert_eq!(words(&entered), ["created -", "ended exited"]);
    assert!(entered[0].usage.at < entered[1].usage.at);
}

#[test]
fn a_workspace_that_was_deleted_by_force_is_billed_to_its_last_moment() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    home.start(&billed(Bundle::shell("while :; do :; done")), &id);
    let stat = cpu_stat(&home, &id);
    eventually("some use of the processor", || total(&stat) > 200_000);
    let before = total(&stat);
    home.bulkhead(["delete", "--force", &id]).ok();
    let entries = entries(&home, &id);
    assert_eq!(words(&entries), ["created -", "ended deleted"]);
    let billed = entries[1].usage.cpu.total_us;
    assert!(billed >= before, "{billed} of at least {before}");
}

#[test]
fn a_workspace_that_was_killed_is_billed_exactly() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    home.start(&billed(Bundle::shell("while :; do :; done")), &id);
    let stat = cpu_stat(&home, &id);
    eventually("some use of the processor", || total(&stat) > 100_000);
    home.bulkhead(["kill", &id, "KILL"]).ok();
    eventually("its end", || home.status(&id) == "stopped");
    let used = total(&stat);
    home.bulkhead(["delete", &id]).ok();
    let last = entries(&home, &id).pop().unwrap();
    assert_eq!((last.kind, last.usage.cpu.total_us), (Kind::Ended, used));
}

/// `cpu.stat` of the cgroup that a workspace is in.
pub(super) fn cpu_stat(home: &Home, id: &str) -> std::path::PathBuf {
    group(home, id).join("cpu.stat")
}

/// The cgroup that a workspace is in.
pub(super) fn group(home: &Home, id: &str) -> std::path::PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", home.pid(id))).unwrap();
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::Path::new);
    let mount = mounts
        .into_iter()
        .find(|mount| mount.join("cgroup.controllers").exists());
    mount.unwrap().join(path)
}

/// All processor time in a `cpu.stat`.
pub(super) fn total(stat: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(stat).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    line.unwrap().parse().unwrap()
}

#[test]
fn an_end_that_could_not_be_entered_is_told_of_and_entered_when_the_rest_goes() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::new(
        &home,
        "while [ ! -e /end ]; do sleep 0.05; done; exit 3",
        "",
    );
    document.up(&home);
    let created = || words(&entries(&home, &document.id));
    eventually("its first line", || created() == ["created -"]);
    let ledger = home.root().join("@data/ledger");
    let aside = ledger.with_extension("aside");
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::write(&ledger, "").unwrap();
    let pid = home.pid(&document.id);
    crate::up::signal(pid, "-KILL");
    document.becomes(&home, "stopped");
    let told = || home.bulkhead(["logs", &document.id]).err;
    eventually("words about it", || told().contains("cannot be billed"));
    std::fs::remove_file(&ledger).unwrap();
    std::fs::rename(&aside, &ledger).unwrap();
    document.down(&home);
    let words = words(&entries(&home, &document.id));
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[1].starts_with("ended "), "{words:?}");
}

#[test]
fn what_one_that_has_ended_used_is_told_from_its_bill() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::new(
        &home,
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
        "",
    );
    document.up(&home);
    document.becomes(&home, "stopped");
    // It has stopped a moment before its monitor has billed it.
    let entered = || words(&entries(&home, &document.id));
    eventually("its end in the ledger", || {
        let last = entered().pop();
        last.is_some_and(|words| words.starts_with("ended "))
    });
    let total = || {
        entries(&home, &document.id)
            .pop()
            .unwrap()
            .usage
            .cpu
            .total_us
    };
    let told = home.bulkhead(["usage", &document.id, "-f", "json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["cpu"]["total_us"], total());
    let said = home.bulkhead(["usage", "nobody", &document.id, &document.id]);
    assert_eq!(
        said.out.matches(document.id.as_str()).count(),
        1,
        "{said:?}"
    );
    assert!(said.failed().contains("the usage of nobody"));
    document.down(&home);
}
