//! What was measured, and whether it is what was aimed at.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeValLike;

use crate::Outcome;
use crate::contender::Contender;

/// What one command took.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

/// The samples of one scenario, by contender.
pub(crate) type Samples = BTreeMap<usize, Vec<Taken>>;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Wall,
    Cpu,
    Memory,
    /// With many alive, against few.
    Growth,
}

/// How much of another's figure ours may be.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    against: String,
    measure: Measure,
    most: f64,
}

impl Aim {
    pub(crate) fn new(against: &str, measure: Measure, most: f64) -> Self {
        Self {
            against: against.to_owned(),
            measure,
            most,
        }
    }
}

/// The CPU time of all children that were waited for so far.
pub(crate) fn used() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// The median, in milliseconds.
pub(crate) fn median(taken: &[Taken], measure: Measure) -> f64 {
    quantile(taken, measure, 50)
}

fn quantile(taken: &[Taken], measure: Measure, percent: usize) -> f64 {
    let mut sorted: Vec<f64> = taken
        .iter()
        .map(|one| match measure {
            Measure::Cpu => one.cpu.as_secs_f64() * 1e3,
            Measure::Wall | Measure::Memory | Measure::Growth => one.wall.as_secs_f64() * 1e3,
        })
        .collect();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// Prints one scenario.
pub(crate) fn print(name: &str, contenders: &[Contender], samples: &Samples) {
    println!("\n{name}");
    println!(
        "  {:<12} {:>10} {:>10} {:>10} {:>10}   ours/theirs",
        "runtime", "wall ms", "p10", "p90", "CPU ms"
    );
    let own = samples.get(&0);
    for (index, taken) in samples {
        let of = |measure| median(taken, measure);
        let ratio = |measure| own.map_or(f64::NAN, |own| median(own, measure) / of(measure));
        let ratios = if *index == 0 {
            String::new()
        } else {
            let (wall, cpu) = (ratio(Measure::Wall), ratio(Measure::Cpu));
            format!("wall {wall:.2}  CPU {cpu:.2}")
        };
        println!(
            "  {:<12} {:>10.3} {:>10.3} {:>10.3} {:>10.3}   {ratios}",
            contenders[*index].name,
            of(Measure::Wall),
            quantile(taken, Measure::Wall, 10),
            quantile(taken, Measure::Wall, 90),
            of(Measure::Cpu),
        );
    }
}

/// Every aim and what came of it.
#[derive(Default)]
pub(crate) struct Verdicts {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    aim: Aim,
    found: f64,
}

impl Verdicts {
    /// Compares our own samples with those of whom the aims name, as far as they are there.
    pub(crate) fn judge(
        &mut self,
        what: &str,
        contenders: &[Contender],
        samples: &Samples,
        aims: &[Aim],
    ) {
        let Some(own) = samples.get(&0) else { return };
        for aim in aims {
            let other = contenders.iter().position(|one| one.name == aim.against);
            let Some(theirs) = other.and_then(|index| samples.get(&index)) else {
                continue;
            };
            let found = median(own, aim.measure) / median(theirs, aim.measure);
            self.add(what, aim.clone(), found);
        }
    }

    /// Keeps a ratio that was found.
    pub(crate) fn add(&mut self, what: &str, aim: Aim, found: f64) {
        self.rows.push(Row {
            what: what.to_owned(),
            aim,
            found,
        });
    }

    /// Prints them.
    pub(crate) fn print(&self) {
        println!(
            "\n{:<34} {:<10} {:<9} {:>6} {:>6}",
            "what", "against", "measure", "aim", "found"
        );
        for Row { what, aim, found } in &self.rows {
            let measure = match aim.measure {
                Measure::Wall => "wall",
                Measure::Cpu => "CPU",
                Measure::Memory => "memory",
                Measure::Growth => "growth",
            };
            let verdict = if *found <= aim.most { "" } else { "  missed" };
            let (against, most) = (&aim.against, aim.most);
            println!("{what:<34} {against:<10} {measure:<9} {most:>6.2} {found:>6.2}{verdict}");
        }
    }
}
