//! Measures what a workspace costs beyond its program: a document with a network, beside the same bundle without one.
//!
//! `up` and `run` take turns in every round, each time in another order; what is quoted is the ratio of two medians of the
//! same call. Each is called when the kernel has come to rest after the one before, and then without a rest: the end of a
//! network namespace goes on for tens of milliseconds when its workspace is gone, and who comes next waits for locks of the
//! kernel. Then workspaces go up and down one after the other, and the last of them are compared with the first.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::error::Error;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds that are not counted, first.
const WARM_UP: usize = 5;
/// How long the kernel has to come to rest.
const REST: Duration = Duration::from_millis(50);
/// How many workspaces go up and down in sequence.
const SEQUENCE: usize = 100;
/// How many at each end of the sequence are compared.
const END: usize = 20;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Outcome<Option<u64>> {
        let at = words.iter().position(|word| word == name);
        let value = at.map(|at| words.get(at + 1).ok_or(format!("{name} N")));
        Ok(value.transpose()?.map(|value| value.parse()).transpose()?)
    };
    let rounds = usize::try_from(number("--runs")?.unwrap_or(100))?;
    let rest = number("--rest")?.map(Duration::from_millis);
    let home = std::env::var_os("HOME_OF_WORKSPACES");
    let home =
        PathBuf::from(home.ok_or("HOME_OF_WORKSPACES is a directory; benches/run makes it")?);
    let bench = Bench::new(&home)?;
    if let Some(rest) = rest {
        return bench.beside_run(rounds, rest);
    }
    bench.beside_run(rounds, REST)?;
    bench.beside_run(rounds, Duration::ZERO)?;
    bench.sequence()
}

/// A document, what it compiles to without its network, and the binary.
struct Bench {
    program: PathBuf,
    home: PathBuf,
}

impl Bench {
    fn new(home: &Path) -> Outcome<Self> {
        let bench = Self {
            program: std::env::var_os("BULKHEAD")
                .ok_or("BULKHEAD names the binary; benches/run sets it")?
                .into(),
            home: home.to_owned(),
        };
        let root = home.join("rootfs");
        for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for name in ["true", "sleep"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        bench.document("wired", "default", "true")?;
        bench.document("bare", "none", "true")?;
        bench.document("sleeper", "default", "sleep")?;
        let text = bench.taken(&["compile", "bare.toml"])?.1;
        let bundle = home.join("bundle");
        std::fs::create_dir(&bundle)?;
        std::fs::write(bundle.join("config.json"), plain(&text)?)?;
        Ok(bench)
    }

    fn document(&self, name: &str, network: &str, program: &str) -> Outcome<()> {
        let text = format!(
            "name = \"{name}\"\nrootfs = \"./rootfs\"\ncommand = [\"{program}\", \"1000\"]\n\
             [network]\nbridge = \"{network}\"\n"
        );
        Ok(std::fs::write(
            self.home.join(format!("{name}.toml")),
            text,
        )?)
    }

    /// `up` with a network and `run` without, in turn, each after a rest.
    fn beside_run(&self, rounds: usize, rest: Duration) -> Outcome<()> {
        // Holds the network, so that no round makes or removes the bridge.
        self.taken(&["up", "-d", "sleeper.toml"])?;
        let mut calls = [
            ("run, without network", Vec::new()),
            ("up, without network", Vec::new()),
            ("up, with network", Vec::new()),
        ];
        for round in 0..rounds + WARM_UP {
            let id = format!("run-{round}");
            let words: [&[&str]; 3] = [
                &["run", "-b", "bundle", &id],
                &["up", "bare.toml"],
                &["up", "wired.toml"],
            ];
            for turn in 0..calls.len() {
                let which = (turn + round) % calls.len();
                pause(rest);
                calls[which].1.push(self.taken(words[which])?.0);
            }
        }
        for (_, samples) in &mut calls {
            samples.drain(..WARM_UP);
        }
        self.taken(&["down", "--time", "0", "sleeper"])?;
        let base = median(&mut calls[0].1.clone());
        println!(
            "{rounds} rounds in turn, {} ms of rest before each call: medians in ms, and their ratio to run of the same bundle",
            rest.as_millis()
        );
        for (name, samples) in &mut calls {
            let middle = median(samples);
            println!("  {name:<24} {middle:>8.3}   {:.2}", middle / base);
        }
        Ok(())
    }

    /// Many up and down, one after the other.
    fn sequence(&self) -> Outcome<()> {
        let mut taken = Vec::new();
        for _ in 0..SEQUENCE {
            let up = self.taken(&["up", "-d", "sleeper.toml"])?.0;
            let down = self.taken(&["down", "--time", "0", "sleeper"])?.0;
            taken.push(up + down);
        }
        let first = median(&mut taken[..END].to_vec());
        let last = median(&mut taken[SEQUENCE - END..].to_vec());
        println!(
            "\n{SEQUENCE} with network up and down in sequence: medians of the first and the last {END} in ms"
        );
        println!(
            "  first {first:.3}, last {last:.3}, ratio {:.2}",
            last / first
        );
        Ok(())
    }

    /// Runs a command; gives its milliseconds and its output.
    fn taken(&self, words: &[&str]) -> Outcome<(f64, String)> {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.home.join("state"))
            .args(words)
            .current_dir(&self.home)
            .stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        let wall = begun.elapsed().as_secs_f64() * 1e3;
        if output.status.success() {
            return Ok((wall, String::from_utf8(output.stdout)?));
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{words:?}: {}: {said}", output.status).into())
    }
}

/// A configuration without what was asked for beyond OCI.
fn plain(text: &str) -> Outcome<Vec<u8>> {
    let mut config: Value = serde_json::from_str(text)?;
    let all = config
        .as_object_mut()
        .ok_or("the configuration is no object")?;
    all.remove("annotations");
    Ok(serde_json::to_vec(&config)?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when the kernel has come to rest"
)]
fn pause(rest: Duration) {
    std::thread::sleep(rest);
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
