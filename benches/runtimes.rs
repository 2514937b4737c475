//! Measures runtimes against each other: the same bundle, one runtime after the other in every round.
//!
//! Machines drift, so no figure stands alone: each is a median over rounds in which all runtimes took their turn,
//! and what is quoted is the ratio of two medians of the same call. CPU time is that of the runtime and of what it
//! waited for (`getrusage(2)`, children).

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeValLike;
use serde_json::Value;
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds that are not counted, first.
const WARM_UP: usize = 5;
/// How many workspaces run at the same time, and how many there are in all, in the crowded scenario.
const CROWD: (usize, usize) = (8, 400);

fn main() -> Outcome<()> {
    let wishes = Wishes::read()?;
    let home = tempfile::tempdir()?;
    let runtimes = wishes.runtimes()?;
    let names: Vec<&str> = runtimes
        .iter()
        .map(|runtime| runtime.name.as_str())
        .collect();
    println!("{} rounds each, in turn: {}", wishes.runs, names.join(", "));
    let bench = Bench {
        home: home.path().to_owned(),
        runtimes,
        wishes,
    };
    bench.plain()?;
    bench.dressed()?;
    bench.phases()?;
    bench.exec()?;
    bench.crowd()
}

/// What the command line asks for.
struct Wishes {
    runs: usize,
    only: Option<String>,
    others: Vec<(String, PathBuf)>,
}

impl Wishes {
    fn read() -> Outcome<Self> {
        let mut wishes = Self {
            runs: 100,
            only: None,
            others: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match (word.as_str(), word.split_once('=')) {
                ("--runs", _) => {
                    wishes.runs = words.next().ok_or("--runs needs a number")?.parse()?
                }
                ("--only", _) => wishes.only = words.next(),
                ("--bench", _) => {}
                (_, Some((name, path))) => wishes.others.push((name.to_owned(), path.into())),
                _ => {
                    return Err(
                        format!("{word:?}: expected --runs N, --only WORD or NAME=PATH").into(),
                    );
                }
            }
        }
        Ok(wishes)
    }

    fn runtimes(&self) -> Outcome<Vec<Runtime>> {
        let own =
            std::env::var("BULKHEAD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_bulkhead").to_owned());
        let mut runtimes = vec![Runtime {
            name: "bulkhead".to_owned(),
            path: own.into(),
        }];
        for name in ["crun", "runc"] {
            if let Some(path) = in_path(name) {
                runtimes.push(Runtime {
                    name: name.to_owned(),
                    path,
                });
            }
        }
        for (name, path) in &self.others {
            runtimes.push(Runtime {
                name: name.clone(),
                path: path.clone(),
            });
        }
        if runtimes.len() < 2 {
            return Err("no other runtime to compare with: install crun or runc".into());
        }
        Ok(runtimes)
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

struct Runtime {
    name: String,
    path: PathBuf,
}

struct Bench {
    home: PathBuf,
    runtimes: Vec<Runtime>,
    wishes: Wishes,
}

/// What one command took.
#[derive(Clone, Copy)]
struct Taken {
    wall: Duration,
    cpu: Duration,
}

/// The samples of one scenario, by runtime.
type Samples = BTreeMap<usize, Vec<Taken>>;

impl Bench {
    fn wanted(&self, name: &str) -> bool {
        self.wishes
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    }

    /// `run` of `true` in five namespaces and a network namespace.
    fn plain(&self) -> Outcome<()> {
        self.run_scenario("run true", &bundle(&self.home.join("plain"), false)?)
    }

    /// The same with a system call filter and twenty bind mounts.
    fn dressed(&self) -> Outcome<()> {
        self.run_scenario(
            "run true, filter, 20 binds",
            &bundle(&self.home.join("dressed"), true)?,
        )
    }

    fn run_scenario(&self, name: &str, bundle: &Path) -> Outcome<()> {
        if !self.wanted(name) {
            return Ok(());
        }
        let mut samples = Samples::new();
        for round in 0..self.wishes.runs + WARM_UP {
            for index in self.turn(round) {
                let id = format!("bench-{round}");
                let taken = self.command(index, &["run", "--bundle", text(bundle), &id])?;
                keep(&mut samples, round, index, taken);
            }
        }
        self.report(name, &samples);
        Ok(())
    }

    /// Each command of a life on its own.
    fn phases(&self) -> Outcome<()> {
        if !self.wanted("create start state delete") {
            return Ok(());
        }
        let bundle = bundle(&self.home.join("phases"), false)?;
        let calls: [&[&str]; 4] = [
            &["create", "--bundle", text(&bundle)],
            &["start"],
            &["state"],
            &["delete", "--force"],
        ];
        let mut samples = [const { Samples::new() }; 4];
        for round in 0..self.wishes.runs + WARM_UP {
            for index in self.turn(round) {
                self.phase(round, index, &calls, &mut samples)?;
            }
        }
        for (call, samples) in calls.iter().zip(&samples) {
            self.report(call.first().copied().unwrap_or_default(), samples);
        }
        Ok(())
    }

    /// One life of one workspace, each call measured.
    fn phase(
        &self,
        round: usize,
        index: usize,
        calls: &[&[&str]],
        samples: &mut [Samples],
    ) -> Outcome<()> {
        let id = format!("bench-{round}");
        for (call, samples) in calls.iter().zip(samples) {
            let words: Vec<&str> = call.iter().copied().chain([id.as_str()]).collect();
            keep(samples, round, index, self.command(index, &words)?);
        }
        Ok(())
    }

    /// `exec` of `true` in a workspace that sleeps.
    fn exec(&self) -> Outcome<()> {
        if !self.wanted("exec true") {
            return Ok(());
        }
        let bundle = sleeping(&self.home.join("exec"))?;
        for index in 0..self.runtimes.len() {
            self.command(index, &["create", "--bundle", text(&bundle), "bench-exec"])?;
            self.command(index, &["start", "bench-exec"])?;
        }
        let mut samples = Samples::new();
        for round in 0..self.wishes.runs + WARM_UP {
            for index in self.turn(round) {
                let taken = self.command(index, &["exec", "bench-exec", "/bin/true"])?;
                keep(&mut samples, round, index, taken);
            }
        }
        for index in 0..self.runtimes.len() {
            self.command(index, &["delete", "--force", "bench-exec"])?;
        }
        self.report("exec true", &samples);
        Ok(())
    }

    /// Many at once, until all are done.
    fn crowd(&self) -> Outcome<()> {
        let (at_once, total) = CROWD;
        let name = format!("{at_once} at once, {total} in all");
        if !self.wanted(&name) {
            return Ok(());
        }
        let bundle = bundle(&self.home.join("crowd"), false)?;
        let mut samples = Samples::new();
        for round in 0..3 {
            for index in self.turn(round) {
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
        self.report(&name, &samples);
        Ok(())
    }

    fn fill(&self, index: usize, bundle: &Path, at_once: usize, total: usize) -> Outcome<()> {
        let failures = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once)
                .map(|worker| {
                    scope.spawn(move || self.failures(index, bundle, worker, total / at_once))
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

    /// Runs one worker's share of workspaces, one after the other, and counts those that failed.
    fn failures(&self, index: usize, bundle: &Path, worker: usize, share: usize) -> usize {
        (0..share)
            .filter(|turn| {
                let id = format!("bench-{worker}-{turn}");
                let words = ["run", "--bundle", text(bundle), &id];
                let status = self.prepared(index, &words).status();
                status.is_ok_and(|status| !status.success())
            })
            .count()
    }

    /// Who goes first changes with every round.
    fn turn(&self, round: usize) -> impl Iterator<Item = usize> {
        let many = self.runtimes.len();
        (0..many).map(move |place| (place + round) % many)
    }

    fn prepared(&self, index: usize, words: &[&str]) -> Command {
        let runtime = &self.runtimes[index];
        let mut command = Command::new(&runtime.path);
        command
            .arg("--root")
            .arg(self.home.join(&runtime.name))
            .args(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn command(&self, index: usize, words: &[&str]) -> Outcome<Taken> {
        let before = used()?;
        let begun = Instant::now();
        let status = self.prepared(index, words).status()?;
        let taken = Taken {
            wall: begun.elapsed(),
            cpu: used()?.saturating_sub(before),
        };
        if status.success() {
            return Ok(taken);
        }
        let said = self
            .prepared(index, words)
            .stderr(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        Err(format!("{} {words:?}: {status}: {said}", self.runtimes[index].name).into())
    }

    /// Prints medians, and the ratio of our own to each other's.
    fn report(&self, name: &str, samples: &Samples) {
        println!("\n{name}");
        println!(
            "  {:<12} {:>10} {:>10} {:>10} {:>10}   ours/theirs",
            "runtime", "wall ms", "p10", "p90", "CPU ms"
        );
        let own = samples.get(&0).map(|taken| medians(taken));
        for (index, taken) in samples {
            let (wall, cpu) = medians(taken);
            let ratio = match own {
                Some((own_wall, own_cpu)) if *index > 0 => {
                    format!("wall {:.2}  CPU {:.2}", own_wall / wall, own_cpu / cpu)
                }
                _ => String::new(),
            };
            let (low, high) = (quantile(taken, 10), quantile(taken, 90));
            let runtime = &self.runtimes[*index].name;
            println!("  {runtime:<12} {wall:>10.3} {low:>10.3} {high:>10.3} {cpu:>10.3}   {ratio}");
        }
    }
}

fn keep(samples: &mut Samples, round: usize, index: usize, taken: Taken) {
    if round >= WARM_UP {
        samples.entry(index).or_default().push(taken);
    }
}

fn medians(taken: &[Taken]) -> (f64, f64) {
    let mut cpu: Vec<f64> = taken
        .iter()
        .map(|one| one.cpu.as_secs_f64() * 1e3)
        .collect();
    cpu.sort_by(f64::total_cmp);
    (quantile(taken, 50), cpu[cpu.len() / 2])
}

fn quantile(taken: &[Taken], percent: usize) -> f64 {
    let mut wall: Vec<f64> = taken
        .iter()
        .map(|one| one.wall.as_secs_f64() * 1e3)
        .collect();
    wall.sort_by(f64::total_cmp);
    wall[(wall.len() - 1) * percent / 100]
}

/// The CPU time of all children that were waited for so far.
fn used() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A bundle of busybox and `true`.
fn bundle(at: &Path, dressed: bool) -> Outcome<PathBuf> {
    let bin = at.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy("/bin/busybox", bin.join("busybox"))?;
    for name in ["true", "sleep", "sh"] {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    let mut spec = default_spec(at)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["root"]["path"] = json!("rootfs");
    // What every runtime of the last years takes.
    spec["ociVersion"] = json!("1.0.2");
    // A device filter needs the right to raise RLIMIT_MEMLOCK under crun; not every machine gives it.
    spec["linux"]["resources"] = json!({});
    if dressed {
        dress(at, &mut spec)?;
    }
    std::fs::write(at.join("config.json"), serde_json::to_vec_pretty(&spec)?)?;
    Ok(at.to_owned())
}

fn sleeping(at: &Path) -> Outcome<PathBuf> {
    let at = bundle(at, false)?;
    let config = at.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    spec["process"]["args"] = json!(["/bin/sleep", "1000000"]);
    std::fs::write(config, serde_json::to_vec_pretty(&spec)?)?;
    Ok(at)
}

fn default_spec(at: &Path) -> Outcome<Value> {
    let own =
        std::env::var("BULKHEAD").unwrap_or_else(|_| env!("CARGO_BIN_EXE_bulkhead").to_owned());
    let made = Command::new(own)
        .arg("spec")
        .arg("--bundle")
        .arg(at)
        .status()?;
    if !made.success() {
        return Err("bulkhead spec failed".into());
    }
    let spec = serde_json::from_slice(&std::fs::read(at.join("config.json"))?)?;
    Ok(spec)
}

/// Docker's default filter, and twenty directories bound from outside.
fn dress(at: &Path, spec: &mut Value) -> Outcome<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/seccomp/docker.json");
    spec["linux"]["seccomp"] = filter(&serde_json::from_slice(&std::fs::read(source)?)?);
    let mounts = spec["mounts"].as_array_mut().ok_or("mounts is no list")?;
    for index in 0..20 {
        let source = at.join(format!("bound-{index}"));
        std::fs::create_dir_all(&source)?;
        mounts.push(json!({
            "destination": format!("/mnt/{index}"),
            "type": "bind",
            "source": source,
            "options": ["rbind", "rprivate", if index % 2 == 0 { "ro" } else { "rw" }],
        }));
    }
    Ok(())
}

/// The profile as Docker hands it to a runtime: what depends on capabilities that a usual container lacks is left out.
fn filter(docker: &Value) -> Value {
    let rules = docker["syscalls"].as_array().into_iter().flatten();
    let usual = rules.filter(|rule| {
        let asks = |part: &str, key: &str| {
            rule[part][key]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        };
        let elsewhere = rule["includes"]["arches"]
            .as_array()
            .is_some_and(|arches| !arches.iter().any(|arch| arch == "amd64"));
        !asks("includes", "caps") && !elsewhere
    });
    let syscalls: Vec<Value> = usual
        .map(|rule| {
            json!({
                "names": rule["names"],
                "action": rule["action"],
                "errnoRet": rule["errnoRet"],
                "args": rule["args"],
            })
        })
        .collect();
    json!({
        "defaultAction": docker["defaultAction"],
        "defaultErrnoRet": docker["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls,
    })
}
