//! From the call to the first instruction of the program, and what the machine itself needs in memory by then.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use bulkhead::agent::client;
use bulkhead::agent::client::Client;
use bulkhead::agent::wire;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Stream;

use crate::Outcome;
use crate::figures;
use crate::figures::Pair;
use crate::figures::quantile;
use crate::ours;
use crate::theirs;
use crate::world::World;

/// Rounds that are not counted, first.
const WARM_UP: usize = 1;
/// What the guest's clock says, beside the phases.
const UPTIME: &str = "(guest's uptime when agent answers)";
/// The options of QEMU's with which it boots fastest.
pub(crate) const OPTIONS: [&str; 4] = ["-M", theirs::LEAN, "-bios", "qboot.rom"];

/// A workspace made by the product, which ends with this.
#[derive(Debug)]
pub(crate) struct Workspace<'a> {
    world: &'a World,
    child: Child,
    id: &'static str,
}

impl<'a> Workspace<'a> {
    /// Runs the bundle until its program has said its byte.
    pub(crate) fn run(world: &'a World) -> Outcome<Self> {
        let id = "bench";
        let child = command(world)
            .args(["run", "--isolation", "microvm", "-b"])
            .arg(&world.bundle)
            .arg(id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut workspace = Self { world, child, id };
        let output = workspace.child.stdout.as_mut().ok_or("no output")?;
        output.read_exact(&mut [0])?;
        Ok(workspace)
    }

    /// The processes that belong to it, by the word that each is called with.
    pub(crate) fn processes(&self) -> Outcome<Vec<(String, u32)>> {
        let mut found = Vec::new();
        for word in ["@keeper", "@vmm", "@files"] {
            found.extend(called(word)?.into_iter().map(|pid| (word.to_owned(), pid)));
        }
        Ok(found)
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        let deleted = command(self.world)
            .args(["delete", "--force", self.id])
            .status();
        if deleted.is_err() {
            self.child.kill().ok();
        }
        self.child.wait().ok();
    }
}

fn command(world: &World) -> Command {
    let mut command = Command::new(&world.bulkhead);
    command.arg("--root").arg(&world.root);
    command
}

/// All processes whose first argument is this word.
pub(crate) fn called(word: &str) -> Outcome<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The KiB of a process's memory that are its own: anonymous pages, and its part of those of files. What it shares,
/// which is the guest's memory, is left out.
pub(crate) fn overhead(pid: u32) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse::<f64>().ok())
    };
    let own = field("Pss_Anon:").zip(field("Pss_File:"));
    Ok(own.map(|(one, other)| one + other).ok_or("no PSS")?)
}

/// What is asked of an agent, until its program has said its byte.
pub(crate) fn drive(
    world: &World,
    call: impl Fn(u32) -> Outcome<UnixStream>,
    mut reached: impl FnMut(&'static str, &mut Client) -> Outcome<()>,
) -> Outcome<()> {
    let mut agent = Client::open(call(wire::CONTROL_PORT)?)?;
    reached("agent answers", &mut agent)?;
    let create = Request::Create(Box::new(world.create()));
    let created = agent.ask(&create)?;
    if !matches!(created, Event::Created { .. }) {
        return Err(format!("not created: {created:?}").into());
    }
    reached("workspace made", &mut agent)?;
    let mut output = client::attach(call(wire::STREAM_PORT)?, wire::WORKLOAD, Stream::Output)?;
    let started = agent.ask(&Request::Start)?;
    if !matches!(started, Event::Started { .. }) {
        return Err(format!("not started: {started:?}").into());
    }
    output.read_exact(&mut [0])?;
    reached("first byte", &mut agent)
}

/// The time and the memory, the product's and QEMU's in turn.
pub(crate) fn compare(world: &World, runs: usize) -> Outcome<()> {
    let (mut time, mut bare, mut memory, mut all) = (
        Pair::default(),
        Pair::default(),
        Pair::default(),
        Pair::default(),
    );
    for round in 0..WARM_UP + runs {
        let next = |what| figures::next("boot", what, round, WARM_UP + runs);
        next("run");
        let (ours, machine, kept) = product(world)?;
        next("the VMM alone");
        let alone = by_itself(world)?;
        next("QEMU");
        let (theirs, need) = qemu(world)?;
        if round < WARM_UP {
            continue;
        }
        time.ours.push(ours);
        time.theirs.push(theirs);
        bare.ours.push(alone);
        bare.theirs.push(theirs);
        memory.ours.push(machine);
        memory.theirs.push(need);
        all.ours.push(machine + kept);
        all.theirs.push(need);
    }
    figures::head("boot");
    time.print("run to the program's first byte", "ms");
    bare.print("the same without the product's run", "ms");
    memory.print("VMM and file server, PSS", "KiB");
    all.print("the same with the keeper", "KiB");
    Ok(())
}

/// The whole product: milliseconds, KiB of VMM and file server, KiB of the keeper.
fn product(world: &World) -> Outcome<(f64, f64, f64)> {
    let began = Instant::now();
    let workspace = Workspace::run(world)?;
    let time = began.elapsed().as_secs_f64() * 1e3;
    let (mut machine, mut kept) = (0.0, 0.0);
    for (word, pid) in workspace.processes()? {
        let size = overhead(pid)?;
        match word.as_str() {
            "@keeper" => kept += size,
            _ => machine += size,
        }
    }
    Ok((time, machine, kept))
}

/// Our VMM and file server, driven as QEMU is: milliseconds.
fn by_itself(world: &World) -> Outcome<f64> {
    let began = Instant::now();
    let running = ours::start(&world.bulkhead, &world.home, &world.wanted())?;
    drive(world, |port| running.call(port), |_, _| Ok(()))?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// QEMU and virtiofsd: milliseconds, and KiB.
fn qemu(world: &World) -> Outcome<(f64, f64)> {
    let began = Instant::now();
    let running = theirs::start(&world.home, &world.wanted(), &OPTIONS)?;
    running.until_hello()?;
    drive(world, |port| running.call(port), |_, _| Ok(()))?;
    let time = began.elapsed().as_secs_f64() * 1e3;
    let mut need = overhead(running.processes.vmm.id())?;
    for pid in server_processes()? {
        need += overhead(pid)?;
    }
    Ok((time, need))
}

/// virtiofsd and its child.
pub(crate) fn server_processes() -> Outcome<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let called = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if called.trim() == "virtiofsd" {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Where the time goes, for both, without the product's own commands.
pub(crate) fn phases(world: &World, runs: usize) -> Outcome<()> {
    let mut rows: Vec<(&'static str, Pair)> = Vec::new();
    for round in 0..WARM_UP + runs {
        let next = |what| figures::next("phases", what, round, WARM_UP + runs);
        next("ours");
        let ours = our_phases(world)?;
        next("QEMU");
        let theirs = their_phases(world)?;
        if round < WARM_UP {
            continue;
        }
        for (at, (name, time)) in ours.into_iter().enumerate() {
            if rows.len() <= at {
                rows.push((name, Pair::default()));
            }
            let same = theirs.iter().find(|(other, _)| *other == name);
            if let Some((_, pair)) = rows.get_mut(at) {
                pair.ours.push(time);
                pair.theirs.push(same.map_or(f64::NAN, |(_, time)| *time));
            }
        }
    }
    figures::head("phases, since the one before");
    for (name, pair) in &rows {
        pair.print(name, "ms");
    }
    // What the guest's own clock says is among the others already.
    let phases = rows.iter().filter(|(name, _)| *name != UPTIME);
    let whole: f64 = phases.map(|(_, pair)| quantile(&pair.ours, 50)).sum();
    println!("{:<34} {whole:>10.2}", "sum of ours");
    Ok(())
}

/// Phases of a machine, each with the milliseconds since the one before; the guest's own clock last.
type Phases = Vec<(&'static str, f64)>;

/// Notes the time since the last note.
struct Clock {
    last: Instant,
    noted: Phases,
}

impl Clock {
    fn start() -> Self {
        Self {
            last: Instant::now(),
            noted: Vec::new(),
        }
    }

    fn note(&mut self, name: &'static str) {
        let now = Instant::now();
        let since = now.duration_since(self.last).as_secs_f64() * 1e3;
        self.noted.push((name, since));
        self.last = now;
    }
}

fn our_phases(world: &World) -> Outcome<Phases> {
    let mut clock = Clock::start();
    let mut running = ours::start(&world.bulkhead, &world.home, &world.wanted())?;
    running.until_running()?;
    clock.note("first guest instruction");
    guest_phases(world, |port| running.call(port), &mut clock)?;
    Ok(clock.noted)
}

fn their_phases(world: &World) -> Outcome<Phases> {
    let mut clock = Clock::start();
    let running = theirs::start(&world.home, &world.wanted(), &OPTIONS)?;
    running.until_hello()?;
    guest_phases(world, |port| running.call(port), &mut clock)?;
    Ok(clock.noted)
}

fn guest_phases(
    world: &World,
    call: impl Fn(u32) -> Outcome<UnixStream>,
    clock: &mut Clock,
) -> Outcome<()> {
    let mut uptime = 0.0;
    drive(world, call, |name, agent| {
        clock.note(name);
        if uptime == 0.0
            && let Event::Usage(usage) = agent.ask(&Request::Usage)?
        {
            uptime = f64::from(u32::try_from(usage.uptime_ms)?);
        }
        // What was asked in between is not counted.
        clock.last = Instant::now();
        Ok(())
    })?;
    clock.noted.push((UPTIME, uptime));
    Ok(())
}
