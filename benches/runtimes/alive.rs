//! What commands take while many workspaces are alive, and whether that grows with their number.

use crate::Bench;
use crate::Outcome;
use crate::bundle::Bundle;
use crate::contender::Act;
use crate::figures::Aim;
use crate::figures::Measure;
use crate::figures::Samples;
use crate::figures::median;

/// How many are few.
const FEW: usize = 10;
/// How often a command is given that is not given to each.
const TIMES: usize = 20;
/// How often one is given to few, both before there are many and when they have gone again.
const BESIDE: usize = 100;
/// What is no growth: as much as two medians of the same differ on a machine that does something else too.
const NOISE: f64 = 1.15;

/// Makes many sleep at once under each runtime, and looks at them, enters them and removes them one by one.
pub(crate) fn many(bench: &Bench) -> Outcome<()> {
    let total = bench.wishes.alive;
    let name = format!("{total} alive");
    if !bench.wanted(&name) || total < 2 * FEW {
        return Ok(());
    }
    let bundle = Bundle::sleeping(&bench.home.join("alive"))?;
    let mut crowd = Crowd {
        bench,
        bundle,
        alive: 0,
    };
    let done = crowd.measure(&name, total);
    // Also after a failure: they would sleep for days.
    crowd.remove_all();
    done
}

struct Crowd<'a> {
    bench: &'a Bench,
    bundle: Bundle,
    alive: usize,
}

fn id(number: usize) -> String {
    format!("alive-{number}")
}

impl Crowd<'_> {
    fn measure(&mut self, name: &str, total: usize) -> Outcome<()> {
        self.grow(FEW)?;
        let mut few_state = self.each("state", BESIDE)?;
        let mut few_exec = self.each("exec", BESIDE)?;
        self.grow(total)?;
        let list = self.list()?;
        let state = self.each("state", total)?;
        let exec = self.each("exec", total)?;
        let delete = self.delete()?;
        join(&mut few_state, self.each("state", BESIDE)?);
        join(&mut few_exec, self.each("exec", BESIDE)?);
        let aims = [Aim::new("crun", Measure::Wall, 0.60)];
        for (what, samples) in [
            ("list", &list),
            ("state", &state),
            ("exec", &exec),
            ("delete", &delete),
        ] {
            self.bench
                .report(&format!("{what}, {name}"), samples, &aims);
        }
        self.growth("state", &few_state, &state);
        self.growth("exec", &few_exec, &exec);
        let (first, last) = ends(&delete);
        self.growth("delete", &last, &first);
        Ok(())
    }

    /// Until so many are alive under each.
    fn grow(&mut self, total: usize) -> Outcome<()> {
        while self.alive < total {
            let id = id(self.alive);
            let act = Act::Create {
                bundle: &self.bundle,
                id: &id,
            };
            self.bench.progress("made alive", self.alive, total);
            for index in self.bench.runtimes() {
                self.bench.take(index, &act)?;
                self.bench.take(index, &Act::Words(&["start", &id]))?;
            }
            self.alive += 1;
        }
        Ok(())
    }

    fn list(&self) -> Outcome<Samples> {
        let mut samples = Samples::new();
        for round in 0..TIMES {
            for index in self.bench.turn(round) {
                self.sample(&mut samples, index, &Act::Words(&["list"]))?;
            }
        }
        Ok(samples)
    }

    /// So often, of one after the other.
    fn each(&self, word: &str, times: usize) -> Outcome<Samples> {
        let mut samples = Samples::new();
        for round in 0..times {
            self.bench.progress(word, round, times);
            let id = id(round % self.alive);
            let turn = self.bench.turn(round);
            for index in turn.filter(|index| !self.is_floor(*index)) {
                let words = [word, &id];
                let act = match word {
                    "exec" => Act::Exec { id: &id, pid: 0 },
                    _ => Act::Words(&words),
                };
                self.sample(&mut samples, index, &act)?;
            }
        }
        Ok(samples)
    }

    fn sample(&self, samples: &mut Samples, index: usize, act: &Act<'_>) -> Outcome<()> {
        if let Some(taken) = self.bench.take(index, act)? {
            samples.entry(index).or_default().push(taken);
        }
        Ok(())
    }

    /// It has no workspaces that stay.
    fn is_floor(&self, index: usize) -> bool {
        !self.bench.runtimes().any(|runtime| runtime == index)
    }

    /// Down to few.
    fn delete(&mut self) -> Outcome<Samples> {
        let mut samples = Samples::new();
        let total = self.alive - FEW;
        for round in 0..total {
            self.bench.progress("delete", round, total);
            let id = id(self.alive - 1);
            for index in self.bench.turn(round) {
                let act = Act::Words(&["delete", "--force", &id]);
                self.sample(&mut samples, index, &act)?;
            }
            self.alive -= 1;
        }
        Ok(samples)
    }

    fn remove_all(&mut self) {
        for number in 0..self.alive {
            for index in self.bench.runtimes() {
                let act = Act::Words(&["delete", "--force", &id(number)]);
                drop(self.bench.take(index, &act));
            }
        }
        self.alive = 0;
    }

    /// Our own with many alive against our own with few, before and after: a host drifts meanwhile.
    fn growth(&self, what: &str, few: &Samples, many: &Samples) {
        let wall = |samples: &Samples| samples.get(&0).map(|own| median(own, Measure::Wall));
        if let (Some(few), Some(many)) = (wall(few), wall(many)) {
            let aim = Aim::new("few alive", Measure::Growth, NOISE);
            let mut verdicts = self.bench.verdicts.borrow_mut();
            verdicts.add(&format!("{what}, many alive"), aim, many / few);
        }
    }
}

fn join(all: &mut Samples, more: Samples) {
    for (index, taken) in more {
        all.entry(index).or_default().extend(taken);
    }
}

/// The first and the last fifth.
fn ends(samples: &Samples) -> (Samples, Samples) {
    let part = |first: bool| {
        let cut = |taken: &Vec<_>| {
            let fifth = (taken.len() / 5).max(1);
            let from = if first { 0 } else { taken.len() - fifth };
            taken.iter().skip(from).take(fifth).copied().collect()
        };
        samples
            .iter()
            .map(|(index, taken)| (*index, cut(taken)))
            .collect()
    };
    (part(true), part(false))
}
