//! How much memory a runtime takes: of the machine's, and of what its workspace was given.

use std::process::Command;
use std::process::Stdio;

use crate::Bench;
use crate::Outcome;
use crate::bundle::Bundle;
use crate::contender;
use crate::contender::Act;
use crate::figures::Aim;
use crate::figures::Measure;

/// How often a peak is measured, and how often a limit must hold.
const TIMES: usize = 5;
/// What limits are tried, in KiB: from nothing to what is enough for anybody, in steps.
const HIGHEST: usize = 16 << 10;
const STEP: usize = 16;

/// The peak resident memory of the largest process of each command, as the kernel counts it (`getrusage(2)`).
pub(crate) fn peak(bench: &Bench) -> Outcome<()> {
    let name = "peak RSS of the largest process";
    let Some(floor) = contender::floor().filter(|_| bench.wanted(name)) else {
        return Ok(());
    };
    let plain = Bundle::new(&bench.home.join("peak-run"))?;
    let sleeping = Bundle::sleeping(&bench.home.join("peak"))?;
    println!("\n{name}, KiB");
    let mut largest = Vec::new();
    for index in bench.runtimes() {
        let contender = &bench.contenders[index];
        let id = "bench-peak";
        let acts = [
            (
                "run",
                Act::Run {
                    bundle: &plain,
                    id: "bench-peak-run",
                },
            ),
            (
                "create",
                Act::Create {
                    bundle: &sleeping,
                    id,
                },
            ),
            ("start", Act::Words(&["start", id])),
            ("state", Act::Words(&["state", id])),
            ("exec", Act::Exec { id, pid: 0 }),
            ("delete", Act::Words(&["delete", "--force", id])),
        ];
        let mut line = format!("  {:<12}", contender.name);
        let mut most = 0;
        for (word, act) in &acts {
            let once = matches!(*word, "create" | "start" | "delete");
            let mut sizes = Vec::new();
            for _ in 0..if once { 1 } else { TIMES } {
                let words = contender.words(act).unwrap_or_default();
                let said = Command::new(&floor)
                    .arg("size")
                    .arg(&contender.path)
                    .args(words)
                    .stdin(Stdio::null())
                    .stderr(Stdio::null())
                    .output()?;
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                let size: usize = said.lines().last().unwrap_or_default().trim().parse()?;
                sizes.push(size);
            }
            sizes.sort_unstable();
            let size = sizes[sizes.len() / 2];
            most = most.max(size);
            line.push_str(&format!(" {word} {size:>6}"));
        }
        println!("{line}");
        largest.push((contender.name.clone(), most));
    }
    judge(bench, name, &largest);
    Ok(())
}

/// The smallest `memory.max` under which `true` runs, in a tree of cgroups that counts memory.
pub(crate) fn smallest(bench: &Bench) -> Outcome<()> {
    let name = "smallest memory.max for true";
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    if !controllers.split_whitespace().any(|one| one == "memory") {
        return Err("no memory controller in /sys/fs/cgroup: run it in the test machine".into());
    }
    println!("\n{name}, KiB");
    let mut found = Vec::new();
    for index in bench.runtimes() {
        let limit = search(bench, index)?;
        println!("  {:<12} {limit:>6}", bench.contenders[index].name);
        found.push((bench.contenders[index].name.clone(), limit));
    }
    judge(bench, name, &found);
    Ok(())
}

/// The smallest limit that holds, by halves.
fn search(bench: &Bench, index: usize) -> Outcome<usize> {
    let (mut fails, mut holds) = (0, HIGHEST / STEP);
    if !works(bench, index, HIGHEST)? {
        return Err(format!(
            "{}: not even in {HIGHEST} KiB",
            bench.contenders[index].name
        )
        .into());
    }
    while holds - fails > 1 {
        let middle = usize::midpoint(fails, holds);
        if works(bench, index, middle * STEP)? {
            holds = middle;
        } else {
            fails = middle;
        }
    }
    Ok(holds * STEP)
}

fn works(bench: &Bench, index: usize, limit: usize) -> Outcome<bool> {
    let at = bench.home.join(format!("limit-{limit}"));
    let bundle = Bundle::limited(&at, limit << 10)?;
    let contender = &bench.contenders[index];
    for turn in 0..TIMES {
        let id = format!("limit-{turn}");
        let act = Act::Run {
            bundle: &bundle,
            id: &id,
        };
        let done = contender
            .command(&act)
            .map(|mut command| command.status())
            .transpose()?;
        if !done.is_some_and(|status| status.success()) {
            // What is left of it would be in the way of the next.
            let remove = Act::Words(&["delete", "--force", &id]);
            contender
                .command(&remove)
                .map(|mut command| command.status());
            return Ok(false);
        }
    }
    Ok(true)
}

fn judge(bench: &Bench, name: &str, found: &[(String, usize)]) {
    let of = |wanted: &str| {
        found
            .iter()
            .find(|(name, _)| name == wanted)
            .and_then(|(_, size)| u32::try_from(*size).ok())
            .map(f64::from)
    };
    if let (Some(own), Some(theirs)) = (of("bulkhead"), of("crun")) {
        let aim = Aim::new("crun", Measure::Memory, 1.00);
        bench.verdicts.borrow_mut().add(name, aim, own / theirs);
    }
}
