//! Measures runtimes against each other: the same bundle, one runtime after the other in every round.
//!
//! Machines drift, so no figure stands alone: each is a median over rounds in which all runtimes took their turn,
//! and what is quoted is the ratio of two medians of the same call. CPU time is that of the runtime and of what it
//! waited for (`getrusage(2)`, children). Beside the runtimes runs the floor, which does what the kernel must do and
//! nothing else. At the end stands what was aimed at, and whether it was reached.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::print_stderr, reason = "whoever waits wants to know for what")]

#[path = "runtimes/alive.rs"]
mod alive;
#[path = "runtimes/bundle.rs"]
mod bundle;
#[path = "runtimes/contender.rs"]
mod contender;
#[path = "runtimes/figures.rs"]
mod figures;
#[path = "runtimes/memory.rs"]
mod memory;

use std::cell::RefCell;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use bundle::Bundle;
use contender::Act;
use contender::Contender;
use contender::Role;
use figures::Aim;
use figures::Measure;
use figures::Samples;
use figures::Taken;
use figures::Verdicts;
use figures::used;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds that are not counted, first.
const WARM_UP: usize = 5;
/// How many workspaces run at the same time, and how many there are in all, in the crowded scenario.
const CROWD: (usize, usize) = (8, 400);

fn main() -> Outcome<()> {
    let wishes = Wishes::read()?;
    let home = tempfile::tempdir()?;
    let state = tempfile::tempdir_in(wishes.state())?;
    let contenders = contender::all(&wishes.others, state.path())?;
    let names: Vec<&str> = contenders.iter().map(|one| one.name.as_str()).collect();
    println!("{} rounds each, in turn: {}", wishes.runs, names.join(", "));
    let bench = Bench {
        home: home.path().to_owned(),
        contenders,
        wishes,
        verdicts: RefCell::new(Verdicts::default()),
    };
    if bench.wishes.memory {
        memory::smallest(&bench)?;
    } else {
        bench.plain()?;
        bench.dressed()?;
        bench.phases()?;
        bench.exec()?;
        bench.crowd()?;
        alive::many(&bench)?;
        memory::peak(&bench)?;
    }
    bench.verdicts.borrow().print();
    Ok(())
}

/// What the command line asks for.
struct Wishes {
    runs: usize,
    alive: usize,
    only: Option<String>,
    memory: bool,
    others: Vec<(String, PathBuf)>,
}

impl Wishes {
    fn read() -> Outcome<Self> {
        let mut wishes = Self {
            runs: 100,
            alive: 500,
            only: None,
            memory: false,
            others: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || -> Outcome<usize> {
                let number = words.next().ok_or(format!("{word} needs a number"))?;
                Ok(number.parse()?)
            };
            match (word.as_str(), word.split_once('=')) {
                ("--runs", _) => wishes.runs = number()?.max(1),
                ("--alive", _) => wishes.alive = number()?,
                ("--only", _) => wishes.only = words.next(),
                ("--memory", _) => wishes.memory = true,
                ("--bench", _) => {}
                (_, Some((name, path))) => wishes.others.push((name.to_owned(), path.into())),
                _ => {
                    return Err(format!(
                        "{word:?}: expected --runs N, --alive N, --only WORD, --memory or NAME=PATH"
                    )
                    .into());
                }
            }
        }
        Ok(wishes)
    }

    /// Where the runtimes keep their state: in memory, as on a machine in use.
    fn state(&self) -> PathBuf {
        std::env::var_os("BENCH_STATE").map_or_else(|| "/run".into(), PathBuf::from)
    }
}

struct Bench {
    home: PathBuf,
    contenders: Vec<Contender>,
    wishes: Wishes,
    verdicts: RefCell<Verdicts>,
}

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        let only = self.wishes.only.as_ref();
        only.is_none_or(|only| name.contains(only.as_str()))
    }

    /// `run` of `true` in five namespaces and a network namespace.
    fn plain(&self) -> Outcome<()> {
        let aims = [
            Aim::new("crun", Measure::Wall, 0.50),
            Aim::new("crun", Measure::Cpu, 0.40),
            Aim::new("runc", Measure::Wall, 0.20),
            Aim::new("floor", Measure::Wall, 1.50),
        ];
        let bundle = Bundle::new(&self.home.join("plain"))?;
        self.run_scenario("run true", &bundle, &aims)
    }

    /// The same with a system call filter and twenty bind mounts.
    fn dressed(&self) -> Outcome<()> {
        let aims = [
            Aim::new("crun", Measure::Wall, 0.50),
            Aim::new("runc", Measure::Wall, 0.20),
        ];
        let bundle = Bundle::dressed(&self.home.join("dressed"))?;
        self.run_scenario("run true, filter, 20 binds", &bundle, &aims)
    }

    fn run_scenario(&self, name: &str, bundle: &Bundle, aims: &[Aim]) -> Outcome<()> {
        if !self.wanted(name) {
            return Ok(());
        }
        let mut samples = Samples::new();
        for round in 0..self.wishes.runs + WARM_UP {
            self.progress(name, round, self.wishes.runs + WARM_UP);
            let id = format!("bench-{round}");
            for index in self.turn(round) {
                let act = Act::Run { bundle, id: &id };
                self.sample(&mut samples, round, index, &act)?;
            }
        }
        self.report(name, &samples, aims);
        Ok(())
    }

    /// Each command of a life on its own.
    fn phases(&self) -> Outcome<()> {
        if !self.wanted("create start state delete") {
            return Ok(());
        }
        let bundle = Bundle::new(&self.home.join("phases"))?;
        let mut samples = [const { Samples::new() }; 4];
        for round in 0..self.wishes.runs + WARM_UP {
            self.progress("create to delete", round, self.wishes.runs + WARM_UP);
            let id = format!("bench-{round}");
            let acts = [
                Act::Create {
                    bundle: &bundle,
                    id: &id,
                },
                Act::Words(&["start", &id]),
                Act::Words(&["state", &id]),
                Act::Words(&["delete", "--force", &id]),
            ];
            for index in self.turn(round) {
                let mut all = acts.iter().zip(&mut samples);
                all.try_for_each(|(act, samples)| self.sample(samples, round, index, act))?;
            }
        }
        let aims = [Aim::new("crun", Measure::Wall, 0.60)];
        for (name, samples) in ["create", "start", "state", "delete"].iter().zip(&samples) {
            self.report(name, samples, &aims);
        }
        Ok(())
    }

    /// `exec` of `true` in a workspace that sleeps.
    fn exec(&self) -> Outcome<()> {
        let name = "exec true";
        if !self.wanted(name) {
            return Ok(());
        }
        let bundle = Bundle::sleeping(&self.home.join("exec"))?;
        let id = "bench-exec";
        for index in self.runtimes() {
            let act = Act::Create {
                bundle: &bundle,
                id,
            };
            self.take(index, &act)?;
            self.take(index, &Act::Words(&["start", id]))?;
        }
        let pid = self.contenders.first().map_or(Ok(0), |own| own.pid(id))?;
        let mut samples = Samples::new();
        for round in 0..self.wishes.runs + WARM_UP {
            self.progress(name, round, self.wishes.runs + WARM_UP);
            for index in self.turn(round) {
                self.sample(&mut samples, round, index, &Act::Exec { id, pid })?;
            }
        }
        for index in self.runtimes() {
            self.take(index, &Act::Words(&["delete", "--force", id]))?;
        }
        let aims = [
            Aim::new("crun", Measure::Wall, 0.50),
            Aim::new("runc", Measure::Wall, 0.20),
        ];
        self.report(name, &samples, &aims);
        Ok(())
    }

    /// Many at once, until all are done.
    fn crowd(&self) -> Outcome<()> {
        let (at_once, total) = CROWD;
        let name = format!("{at_once} at once, {total} in all");
        if !self.wanted(&name) {
            return Ok(());
        }
        let bundle = Bundle::new(&self.home.join("crowd"))?;
        let mut samples = Samples::new();
        let rounds = self.wishes.runs.div_ceil(20).max(3);
        for round in 0..rounds {
            for index in self.turn(round) {
                self.progress(&name, round, rounds);
                let before = used()?;
                let begun = Instant::now();
                self.fill(index, &bundle, at_once, total)?;
                let taken = Taken {
                    wall: begun.elapsed(),
                    cpu: used()?.saturating_sub(before),
                };
                samples.entry(index).or_default().push(taken);
            }
        }
        self.report(&name, &samples, &[Aim::new("crun", Measure::Wall, 0.60)]);
        Ok(())
    }

    fn fill(&self, index: usize, bundle: &Bundle, at_once: usize, total: usize) -> Outcome<()> {
        let contender = &self.contenders[index];
        let failures = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once)
                .map(|worker| {
                    scope.spawn(move || failures(contender, bundle, worker, total / at_once))
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(1))
                .sum::<usize>()
        });
        if failures == 0 {
            Ok(())
        } else {
            Err(format!("{failures} runs failed").into())
        }
    }

    /// Who goes first changes with every round.
    fn turn(&self, round: usize) -> impl Iterator<Item = usize> + use<> {
        let many = self.contenders.len();
        (0..many).map(move |place| (place + round) % many)
    }

    /// Those that are whole runtimes, and one of each.
    fn runtimes(&self) -> impl Iterator<Item = usize> + '_ {
        let whole = |one: &Contender| matches!(one.role, Role::Own | Role::Other);
        (0..self.contenders.len()).filter(move |index| whole(&self.contenders[*index]))
    }

    /// Does it, and keeps what it took when that was no warming up.
    fn sample(
        &self,
        samples: &mut Samples,
        round: usize,
        index: usize,
        act: &Act<'_>,
    ) -> Outcome<()> {
        if let Some(taken) = self.take(index, act)?
            && round >= WARM_UP
        {
            samples.entry(index).or_default().push(taken);
        }
        Ok(())
    }

    /// Does it and measures it; nothing where it is none of this contender's business.
    fn take(&self, index: usize, act: &Act<'_>) -> Outcome<Option<Taken>> {
        let contender = &self.contenders[index];
        let Some(mut command) = contender.command(act) else {
            return Ok(None);
        };
        let before = used()?;
        let begun = Instant::now();
        let status = command.status()?;
        let taken = Taken {
            wall: begun.elapsed(),
            cpu: used()?.saturating_sub(before),
        };
        if status.success() {
            Ok(Some(taken))
        } else {
            Err(contender.explain(act, status).into())
        }
    }

    /// Says how far it is, where that takes long.
    fn progress(&self, name: &str, done: usize, total: usize) {
        if done.is_multiple_of(total.div_ceil(4)) {
            eprintln!("{name}: {done} of {total}");
        }
    }

    /// Prints medians and the ratio of our own to each other's, and keeps what was aimed at.
    fn report(&self, name: &str, samples: &Samples, aims: &[Aim]) {
        figures::print(name, &self.contenders, samples);
        let mut verdicts = self.verdicts.borrow_mut();
        verdicts.judge(name, &self.contenders, samples, aims);
    }
}

/// Runs one worker's share of workspaces, one after the other, and counts those that failed.
fn failures(contender: &Contender, bundle: &Bundle, worker: usize, share: usize) -> usize {
    (0..share)
        .filter(|turn| {
            let id = format!("bench-{worker}-{turn}");
            let act = Act::Run { bundle, id: &id };
            contender
                .command(&act)
                .is_some_and(|mut command| !command.status().is_ok_and(|status| status.success()))
        })
        .count()
}
