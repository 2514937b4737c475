//! The ledger as files: whatever happens to a writer, what was entered before is read.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use bulkhead::accounting::Ledger;
use bulkhead::accounting::Reason;
use bulkhead::accounting::ledger::entry::Entry;
use bulkhead::accounting::ledger::entry::Kind;
use bulkhead::accounting::usage::Cpu;
use bulkhead::accounting::usage::Pressures;
use bulkhead::accounting::usage::Usage;
use bulkhead::workspace::root::StateRoot;

/// Below which there is a ledger of a test's own.
pub(super) fn root(directory: &Path) -> StateRoot {
    StateRoot::choose(Some(directory), None).unwrap()
}

pub(super) fn entry(id: &str, kind: Kind, total_us: u64) -> Entry {
    Entry {
        version: 1,
        kind,
        reason: None,
        exit_status: None,
        signal: None,
        annotations: BTreeMap::new(),
        usage: Usage {
            id: id.parse().unwrap(),
            created: "2026-01-02T03:04:05.000000006Z".to_owned(),
            boot: "first".to_owned(),
            at: "2026-01-02T03:04:06.000Z".to_owned(),
            isolation: "container".to_owned(),
            cpu: Cpu {
                total_us,
                ..Cpu::default()
            },
            memory: None,
            io: None,
            pids: None,
            network: None,
            pressure: Pressures::default(),
            lease: None,
            energy: None,
            machine: None,
        },
    }
}

pub(super) fn open(root: &StateRoot, boot: &str) -> Ledger {
    Ledger::with(root, boot.to_owned(), 1 << 20, 4).unwrap()
}

/// The totals of all entries in the order they are read, and the warnings.
fn totals(ledger: &Ledger) -> (Vec<u64>, Vec<String>) {
    let mut found = Vec::new();
    let warnings = ledger.replay(|entry| found.push(entry.usage.cpu.total_us));
    (found, warnings.unwrap())
}

fn files(root: &StateRoot) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.data.join("ledger")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_ledger_that_is_not_there_is_empty_and_looking_makes_none() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    assert_eq!(totals(&open(&root, "first")), (vec![], vec![]));
    assert!(!root.data.exists());
}

#[test]
fn what_is_entered_is_read_in_order() {
    let home = tempfile::tempdir().unwrap();
    let ledger = open(&root(home.path()), "first");
    let entered = [
        entry("a", Kind::Created, 1),
        entry("b", Kind::Interval, 2),
        entry("a", Kind::Ended, 3),
    ];
    entered.iter().for_each(|one| ledger.append(one).unwrap());
    let mut read = Vec::new();
    ledger.replay(|entry| read.push(entry)).unwrap();
    assert_eq!(read, entered);
}

#[test]
fn what_is_on_its_way_to_the_disk_is_read_as_well() {
    let home = tempfile::tempdir().unwrap();
    let ledger = open(&root(home.path()), "first");
    ledger.sync().unwrap();
    let entered = entry("a", Kind::Created, 1);
    ledger.enter(&entered).unwrap();
    let mut read = Vec::new();
    ledger.replay(|entry| read.push(entry)).unwrap();
    assert_eq!(read, [entered]);
    ledger.sync().unwrap();
}

#[test]
fn a_line_at_whose_writing_the_host_went_down_is_passed_over_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    let ledger = open(&root, "first");
    ledger.append(&entry("a", Kind::Created, 1)).unwrap();
    let whole = std::fs::read(&files(&root)[0]).unwrap();
    // What lacks nothing but the end of the line says all it should.
    for length in 1..whole.len() - 1 {
        let mut torn = whole.clone();
        torn.extend_from_slice(&whole[..length]);
        std::fs::write(&files(&root)[0], &torn).unwrap();
        let (read, warnings) = totals(&ledger);
        assert_eq!((read, warnings.len()), (vec![1], 1), "{length}");
        assert!(warnings[0].contains("line 2"), "{}", warnings[0]);
        ledger.append(&entry("a", Kind::Interval, 2)).unwrap();
        let (read, warnings) = totals(&ledger);
        assert_eq!((read, warnings.len()), (vec![1, 2], 1), "{length}");
    }
}

#[test]
fn bytes_that_are_no_text_do_not_hide_what_follows() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    let ledger = open(&root, "first");
    ledger.append(&entry("a", Kind::Created, 1)).unwrap();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&files(&root)[0])
        .unwrap();
    file.write_all(b"\0\xff\0\n").unwrap();
    ledger.append(&entry("a", Kind::Ended, 2)).unwrap();
    let (read, warnings) = totals(&ledger);
    assert_eq!((read, warnings.len()), (vec![1, 2], 1));
}

#[test]
fn files_follow_each_other_and_the_oldest_go() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    let ledger = Ledger::with(&root, "first".to_owned(), 2000, 3).unwrap();
    for total in 0..100 {
        ledger.append(&entry("a", Kind::Interval, total)).unwrap();
    }
    let files = files(&root);
    assert_eq!(files.len(), 3);
    let sizes = files.iter().map(|file| file.metadata().unwrap().len());
    assert!(sizes.max().unwrap() < 3000);
    let (read, warnings) = totals(&ledger);
    assert_eq!(warnings, Vec::<String>::new());
    assert!(read.len() > 5 && read.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(read.last(), Some(&99));
}

#[test]
fn writers_at_once_lose_nothing_also_while_files_change() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let root = &root;
            scope.spawn(move || {
                let ledger = Ledger::with(root, "first".to_owned(), 20_000, 1000).unwrap();
                let totals = (0..100).map(|total| writer * 1000 + total);
                let lines = totals.map(|total| entry("a", Kind::Interval, total));
                lines.for_each(|line| ledger.append(&line).unwrap());
            });
        }
    });
    let (mut read, warnings) = totals(&open(&root, "first"));
    read.sort_unstable();
    let all = (0..4).flat_map(|writer| (0..100).map(move |total| writer * 1000 + total));
    assert_eq!((read, warnings), (all.collect(), vec![]));
    assert!(files(&root).len() > 3);
}

#[test]
fn a_life_that_the_host_went_down_with_is_closed_once_and_marked() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    let ledger = open(&root, "first");
    ledger.append(&entry("lost", Kind::Created, 1)).unwrap();
    ledger.append(&entry("over", Kind::Ended, 5)).unwrap();
    ledger.append(&entry("lost", Kind::Interval, 7)).unwrap();
    for _ in 0..2 {
        let ledger = open(&root, "second");
        let mut read = Vec::new();
        ledger.replay(|entry| read.push(entry)).unwrap();
        assert_eq!(read.len(), 4);
        let last = &read[3];
        assert_eq!(last.usage.id.as_str(), "lost");
        assert_eq!(
            (last.kind, last.reason),
            (Kind::Ended, Some(Reason::LostAtReboot))
        );
        assert_eq!(last.usage.cpu.total_us, 7);
    }
}

#[test]
fn a_write_that_finds_no_room_leaves_nothing_of_itself() {
    let home = tempfile::tempdir().unwrap();
    let root = root(home.path());
    let ledger = open(&root, "first");
    ledger.append(&entry("a", Kind::Created, 1)).unwrap();
    let before = std::fs::read(&files(&root)[0]).unwrap();
    let status = limited_append(&root, before.len() as u64 + 100);
    assert!(!status.success());
    assert_eq!(std::fs::read(&files(&root)[0]).unwrap(), before);
}

/// Appends in a process of its own that may not make files larger than `bytes`.
fn limited_append(root: &StateRoot, bytes: u64) -> std::process::ExitStatus {
    let own = std::env::current_exe().unwrap();
    let name = "accounting::ledger::appends_when_told_to";
    std::process::Command::new("prlimit")
        .arg(format!("--fsize={bytes}"))
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env("BULKHEAD_TEST_LEDGER", &root.path)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// The other half of the test before: does nothing by itself.
#[test]
fn appends_when_told_to() {
    let Some(directory) = std::env::var_os("BULKHEAD_TEST_LEDGER") else {
        return;
    };
    let ledger = open(&root(Path::new(&directory)), "first");
    ledger.append(&entry("a", Kind::Ended, 2)).unwrap();
}
