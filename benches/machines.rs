//! Measures the process of a machine by itself: from its start to its guest's first word, its memory beside the guest's,
//! and what it uses at rest.
//!
//! The guest is a handful of instructions, so that what is measured is ours: reading the document, opening KVM, memory,
//! processors, tables, the jail.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "../tests/suite/vmm/guest.rs"]
#[expect(dead_code, reason = "the tests have guests that do more")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod guest;
#[path = "../tests/suite/support/processor.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on is none"
)]
mod processor;

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use guest::Guest;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds that are not counted, first.
const WARM_UP: usize = 5;
/// How long a machine at rest is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// How often a guest at rest is woken by its timer: as often as Debian's kernel comes out of its processor then, and ten
/// times as often.
const WAKES: [u32; 2] = [25, 250];

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let rounds = match words.next().as_deref() {
        Some("--runs") => words.next().ok_or("--runs N")?.parse()?,
        _ => 100,
    };
    let program = std::env::var_os("BULKHEAD").ok_or("BULKHEAD names the binary")?;
    let home = tempfile::tempdir()?;
    let document = home.path().join("config");
    describe(&document, &Guest::new().says("x").stands())?;
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for round in 0..WARM_UP + rounds {
        let (time, size) = measure(Path::new(&program), &document)?;
        if round >= WARM_UP {
            times.push(time);
            memory.push(size);
        }
    }
    times.sort();
    memory.sort_unstable();
    let worst = times.get(rounds * 95 / 100).ok_or("no rounds")?;
    let median = times.get(rounds / 2).ok_or("no rounds")?;
    println!("start to the guest's first word: median {median:.2?}, 95 of 100 below {worst:.2?}");
    let size = memory.get(rounds / 2).ok_or("no rounds")?;
    println!("memory beside the guest's (PSS): median {size} KiB");
    for often in WAKES {
        describe(&document, &Guest::new().rests(1_000_000_000 / often))?;
        let (share, woken) = rest(Path::new(&program), &document)?;
        println!("at rest, woken {woken:.0} times a second: {share:.3} % of a processor");
    }
    Ok(())
}

/// Writes a machine down, and its guest beside that.
fn describe(path: &Path, guest: &Guest) -> Outcome<()> {
    let kernel = path.with_extension("kernel");
    std::fs::write(&kernel, guest.pvh())?;
    let config = serde_json::json!({
        "vcpus": 1,
        "memory": 128 << 20,
        "kernel": {"path": kernel},
        "serial": {"to": {"fd": 1}},
        "rng": true,
        "balloon": {},
    });
    Ok(std::fs::write(path, config.to_string())?)
}

fn start(program: &Path, document: &Path) -> Outcome<(Child, ChildStdout)> {
    let mut child = Command::new(program)
        .args(["@vmm", "--config"])
        .arg(document)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    Ok((child, output))
}

/// How long one took until its guest spoke, and the KiB that are its own then.
fn measure(program: &Path, document: &Path) -> Outcome<(Duration, u64)> {
    let began = Instant::now();
    let (mut child, mut output) = start(program, document)?;
    let heard = output.read_exact(&mut [0]);
    let time = began.elapsed();
    let size = size(&child);
    child.kill()?;
    child.wait()?;
    heard?;
    Ok((time, size?))
}

/// Percent of a processor that a machine takes which only its timer wakes, and how often it says a second that it was.
#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is that nothing happens"
)]
fn rest(program: &Path, document: &Path) -> Outcome<(f64, f64)> {
    let (mut child, mut output) = start(program, document)?;
    output.read_exact(&mut [0])?;
    let before = processor::used(child.id());
    let began = Instant::now();
    std::thread::sleep(WATCHED);
    let (used, took) = (processor::used(child.id()) - before, began.elapsed());
    child.kill()?;
    child.wait()?;
    let mut words = Vec::new();
    output.read_to_end(&mut words)?;
    let seconds = took.as_secs_f64();
    Ok((
        used.as_secs_f64() / seconds * 100.0,
        words.len() as f64 / seconds,
    ))
}

/// The share of its memory that is its own, without what is shared, which is the guest's.
fn size(child: &Child) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id()))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse::<u64>().ok())
    };
    let (anonymous, file) = (field("Pss_Anon:"), field("Pss_File:"));
    Ok(anonymous
        .zip(file)
        .map(|(one, other)| one + other)
        .ok_or("no PSS")?)
}
