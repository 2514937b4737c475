//! `usage` and `ledger` as their callers see them.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::accounting::life::billed;
use crate::accounting::life::cpu_stat;
use crate::accounting::life::total;
use crate::accounting::openmetrics;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A workspace that has used some of the processor and stands still.
fn paused(home: &Home, bundle: Bundle) -> String {
    let id = home.id();
    home.start(&billed(bundle), &id);
    let stat = cpu_stat(home, &id);
    eventually("some use of the processor", || total(&stat) > 50_000);
    home.bulkhead(["pause", &id]).ok();
    id
}

fn busy() -> Bundle {
    Bundle::shell("while :; do :; done")
}

#[test]
fn without_workspaces_every_format_says_so() {
    let home = Home::new();
    let usage = |format| home.bulkhead(["usage", "--format", format]).ok();
    assert_eq!(usage("table"), "there are no workspaces\n");
    assert_eq!(usage("json"), "[]\n");
    assert_eq!(usage("openmetrics"), "# EOF\n");
    let ledger = |format| home.bulkhead(["ledger", "--format", format]).ok();
    assert_eq!(ledger("table"), "nothing is in the ledger\n");
    assert_eq!(ledger("json"), "[]\n");
    assert!(ledger("csv").starts_with("group,lives,ended,present_s,cpu_total_us,"));
}

#[test]
fn a_wrong_word_is_refused_with_those_that_are_right() {
    let home = Home::new();
    for (args, right) in [
        (["usage", "--format", "xml"], "table, json, openmetrics"),
        (["ledger", "--format", "xml"], "table, json, csv"),
        (["ledger", "--group-by", "week"], "annotation:KEY"),
        (["ledger", "--since", "soon"], "2026-01-31"),
        (["usage", "--watch", "0/1"], "neither a time nor a name"),
        (["top", "--delay", "0"], "0.1 to 3600"),
    ] {
        let said = home.bulkhead(args).failed();
        assert!(said.contains(right), "{said}");
    }
    let said = home.bulkhead(["usage", "nobody"]).failed();
    assert!(
        said.contains("usage of nobody: container does not exist"),
        "{said}"
    );
}

#[test]
fn what_is_reported_is_what_the_kernel_has_counted() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = paused(&home, busy());
    let usage = parsed(&home.bulkhead(["usage", &id, "--format", "json"]).ok());
    let counted = total(&cpu_stat(&home, &id));
    assert_eq!(usage["cpu"]["total_us"], counted);
    assert_eq!(
        usage["cpu"]["roles"],
        json!({"workload": {"total_us": counted}})
    );
    assert_eq!(usage["cpu"]["hold_ms"], 0);
    assert_eq!(usage["isolation"], "container");
    assert_eq!(usage["network"], json!({}));
    let all = parsed(&home.bulkhead(["usage", "-f", "json"]).ok());
    assert_eq!(all[0]["cpu"]["total_us"], counted);
    let text = home.bulkhead(["usage", "-f", "openmetrics"]).ok();
    assert_eq!(openmetrics::ids(&text), std::slice::from_ref(&id));
    let table = home.bulkhead(["usage"]).ok();
    assert!(table.lines().nth(1).unwrap().contains("paused"), "{table}");
}

#[test]
fn a_watched_workspace_is_reported_again_until_nobody_reads() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = paused(&home, busy());
    let mut command = home.command();
    command.args(["usage", "--watch", "0.05", "-f", "json", &id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = parsed(&lines.next().unwrap().unwrap());
        assert_eq!(line["id"], id);
    }
    drop(lines);
    child.wait().unwrap();
}

#[test]
fn live_figures_and_the_ledger_agree() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = paused(&home, busy());
    let live = parsed(&home.bulkhead(["usage", &id, "-f", "json"]).ok());
    home.bulkhead(["delete", "--force", &id]).ok();
    let sums = parsed(&home.bulkhead(["ledger", "-f", "json"]).ok());
    assert_eq!(sums[0]["group"], id);
    let close = |sum: &str, key: &str| {
        let (sum, live) = (
            sums[0][sum].as_u64().unwrap(),
            live["cpu"][key].as_u64().unwrap(),
        );
        // Being killed takes a moment too, and that is billed.
        assert!(
            sum >= live && sum - live <= 100_000,
            "{key}: {sum} and {live}"
        );
    };
    close("cpu_total_us", "total_us");
    close("cpu_user_us", "user_us");
    close("cpu_system_us", "system_us");
}

#[test]
fn lives_are_summed_up_by_what_they_have_in_common() {
    need!(root, cgroup2);
    let home = Home::new();
    for team in ["red", "blue", "red"] {
        let bundle = Bundle::new(&["true"]).with(|config| {
            config["annotations"] =
                json!({"dev.bulkhead.billed": "true", "org.example.team": team});
        });
        home.run(&bundle).ok();
    }
    let by = |what: &str, more: &[&str]| {
        let args = ["ledger", "--format", "json", "--group-by", what];
        let groups = parsed(&home.bulkhead(args.iter().chain(more)).ok());
        let groups = groups.as_array().unwrap().iter();
        let counted =
            groups.map(|sum| format!("{} {}", sum["group"].as_str().unwrap(), sum["lives"]));
        counted.collect::<Vec<_>>()
    };
    assert_eq!(by("annotation:org.example.team", &[]), ["blue 1", "red 2"]);
    assert_eq!(by("isolation", &[]), ["container 3"]);
    assert_eq!(by("id", &[]).len(), 3);
    assert_eq!(by("isolation", &["--since", "1h"]), ["container 3"]);
    assert_eq!(by("isolation", &["--until", "1h"]), Vec::<String>::new());
    let csv = home
        .bulkhead(["ledger", "-f", "csv", "--group-by", "isolation"])
        .ok();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].starts_with("container,3,3,"),
        "{csv}"
    );
    let table = home.bulkhead(["ledger", "--group-by", "day"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
}
