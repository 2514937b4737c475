//! `up` and monitors that are killed at any moment: `down` or `gc` find all that is left.

use std::process::Stdio;
use std::time::Duration;

use super::Document;
use super::signal;
use crate::need;
use crate::support::home::Home;
use crate::support::residue;

/// The processes of a workspace that are this program: `up` and the monitor, which is its copy.
fn ours(document: &Document) -> Vec<i32> {
    residue::processes(&document.id)
        .iter()
        .filter(|line| line.contains("--root"))
        .filter_map(|line| {
            line.strip_prefix("process /proc/")?
                .split(':')
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

/// Kills `up`, the monitor or both after `delay`, and removes what is left.
#[track_caller]
fn kill_after(delay: Duration, attached: bool, which: usize) {
    let home = Home::new();
    let document = Document::sleeper(&home, "[lease]\nttl = \"1h\"\n");
    let mut up = residue::marked(home.command(), &document.id);
    up.arg("up").args((!attached).then_some("-d"));
    let up = up
        .arg(document.file())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::park_timeout(delay);
    let first = i32::try_from(up.id()).unwrap();
    let others = ours(&document).into_iter().filter(|pid| *pid != first);
    let mut victims: Vec<i32> = others.collect();
    match which {
        0 => victims = vec![first],
        1 => {}
        _ => victims.push(first),
    }
    victims.iter().for_each(|pid| signal(*pid, "-KILL"));
    // What goes on is brought down, and what does not exist need not be: it may only be about to.
    let up = std::cell::RefCell::new(up);
    crate::support::home::eventually("the end of up", || {
        home.bulkhead(["down", "--time", "0", &document.id]);
        up.borrow_mut().try_wait().unwrap().is_some()
    });
    crate::support::home::eventually("that nothing is left", || {
        home.bulkhead(["gc"]).ok();
        if home.root().join(&document.id).exists() {
            home.bulkhead(["down", "--time", "0", &document.id]);
        }
        document.left(&home).is_empty()
    });
}

#[test]
fn whatever_is_killed_at_whatever_moment_leaves_nothing() {
    need!(root);
    for round in 0..36 {
        let delay = Duration::from_micros(1000 + round * 2500);
        kill_after(delay, round % 2 == 0, usize::try_from(round % 3).unwrap());
    }
}

#[test]
fn a_monitor_that_is_killed_while_up_stays_is_told() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo ready; exec sleep 1000", "");
    let mut up = document.attached(&home);
    let mut ready = [0; 6];
    std::io::Read::read_exact(up.stdout.as_mut().unwrap(), &mut ready).unwrap();
    signal(document.monitor(&home), "-KILL");
    let said = up.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("its monitor was killed"), "{error}");
    assert_eq!(document.status(&home), "running");
    document.down(&home);
}
