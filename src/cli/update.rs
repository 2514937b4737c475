//! `update`: change the limits of a workspace.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::spec;
use crate::spec::id::ContainerId;
use crate::spec::quantity;
use crate::spec::resources::BlockIo;
use crate::spec::resources::Cpu;
use crate::spec::resources::Memory;
use crate::spec::resources::Pids;
use crate::spec::resources::Resources;
use crate::workspace::limiting;
use crate::workspace::limiting::Change;

/// The period that a limit of CPUs is kept in: the kernel's own, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Thousandths of a CPU that make the least quota which the kernel takes in that period.
const LEAST_MILLI: u64 = 10;

/// Change the limits of a workspace
///
/// Sizes may carry a unit (k, m, g, t: powers of 1024); -1 means without limit.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// JSON file with OCI resources, - for standard input; the other options are ignored then
    #[arg(long, short = 'r', value_name = "FILE")]
    resources: Option<String>,
    /// Weight of its block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a CPU period in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time in a period in microseconds
    #[arg(long, value_name = "US")]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Weight of its CPU time
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Length of a real-time period in microseconds (cgroup v1 only)
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period in microseconds (cgroup v1 only)
    #[arg(long, value_name = "US")]
    cpu_rt_runtime: Option<i64>,
    /// CPUs to use, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// 1: run only when nothing else wants to
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Ignored: kernel memory is part of memory
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    /// Ignored: kernel memory is part of memory
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory_tcp: Option<String>,
    /// Most memory
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory that is reclaimed last
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Most memory and swap together
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// Most processes and threads
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// Share of the L3 cache (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Share of the memory bandwidth (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// CPUs that it gets whenever it wants them, such as 0.25; 0: none
    #[arg(long, value_name = "CPUS", value_parser = cpus)]
    cpu_reserve: Option<u64>,
    /// Most CPUs at any time, such as 1.5; -1: without limit
    #[arg(long, value_name = "CPUS", conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpu_limit: Option<String>,
    /// Memory that is not taken from it, such as 128M; 0: none
    #[arg(long, value_name = "BYTES", value_parser = size)]
    memory_reserve: Option<u64>,
    /// Bytes in a second that it can read from its root's disk, such as 20M; 0: none
    #[arg(long, value_name = "BYTES", value_parser = size)]
    io_read_reserve: Option<u64>,
    /// Bytes in a second that it can write to it; 0: none
    #[arg(long, value_name = "BYTES", value_parser = size)]
    io_write_reserve: Option<u64>,
    /// Bits in a second that it receives whenever there are so many for it, such as 10mbit; 0: none
    #[arg(long, value_name = "RATE", value_parser = rate)]
    network_in_reserve: Option<Rate>,
    /// Most bits in a second that it receives; -1: without limit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    network_in_limit: Option<Rate>,
    /// Bits in a second that it can send whenever it has so many; 0: none
    #[arg(long, value_name = "RATE", value_parser = rate)]
    network_out_reserve: Option<Rate>,
    /// Most bits in a second that it sends; -1: without limit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    network_out_limit: Option<Rate>,
    /// Most memory; the same as --memory
    #[arg(long, value_name = "BYTES", conflicts_with = "memory")]
    memory_limit: Option<String>,
    /// Which workspace
    id: ContainerId,
}

fn cpus(word: &str) -> Result<u64, String> {
    quantity::cpus(word).ok_or_else(|| format!("not {}", quantity::CPUS))
}

fn size(word: &str) -> Result<u64, String> {
    quantity::bytes(word).ok_or_else(|| format!("not {}", quantity::BYTES))
}

/// A rate of the network as it is written; none when there shall be none any more.
#[derive(Debug, Clone)]
struct Rate(Option<String>);

fn rate(word: &str) -> Result<Rate, String> {
    match word {
        "0" | "-1" => Ok(Rate(None)),
        _ if quantity::bits_per_second(word).is_some() => Ok(Rate(Some(word.to_owned()))),
        _ => Err(format!("not {}", quantity::RATE)),
    }
}

/// Runs `update`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    update(args, session).with_context(|| format!("cannot update {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}

fn update(args: &Args, session: &Session) -> anyhow::Result<()> {
    let resources = match args.resources.as_deref() {
        Some("-") => from_json(&read_all(std::io::stdin())?)?,
        Some(path) => {
            from_json(&std::fs::read(path).with_context(|| format!("cannot read {path:?}"))?)?
        }
        None => args.named()?,
    };
    let shares = [&args.l3_cache_schema, &args.mem_bw_schema];
    let shares: Vec<String> = shares.into_iter().flatten().cloned().collect();
    let change = Change {
        resources,
        shares,
        promises: args.promises(),
    };
    limiting::update(&session.store()?, &args.id, &change, &session.log)?;
    Ok(())
}

fn from_json(bytes: &[u8]) -> anyhow::Result<Resources> {
    spec::parse(bytes).context("--resources")
}

fn read_all(mut from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)
        .context("--resources: cannot read standard input")?;
    Ok(bytes)
}

impl Args {
    /// What the options name.
    fn named(&self) -> anyhow::Result<Resources> {
        Ok(Resources {
            memory: Some(self.memory()?),
            cpu: Some(self.cpu()?),
            pids: self.pids_limit.map(|limit| Pids { limit: Some(limit) }),
            block_io: self.blkio_weight.map(|weight| BlockIo {
                weight: Some(weight),
                ..BlockIo::default()
            }),
            ..Resources::default()
        })
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        let sized = |name: &str, word: &Option<String>| {
            let bytes = word
                .as_deref()
                .map(|word| bytes(word).with_context(|| format!("--{name}: {word:?} is no size")));
            bytes.transpose()
        };
        Ok(Memory {
            limit: match &self.memory_limit {
                None => sized("memory", &self.memory)?,
                limit => sized("memory-limit", limit)?,
            },
            reservation: sized("memory-reservation", &self.memory_reservation)?,
            swap: sized("memory-swap", &self.memory_swap)?,
            kernel: sized("kernel-memory", &self.kernel_memory)?,
            kernel_tcp: sized("kernel-memory-tcp", &self.kernel_memory_tcp)?,
            ..Memory::default()
        })
    }

    /// What it shall be promised, as annotations.
    fn promises(&self) -> BTreeMap<&'static str, Option<String>> {
        let cpu = self.cpu_reserve.map(quantity::cpus_text);
        let bytes = |amount: Option<u64>| amount.map(|bytes| bytes.to_string());
        let promises = [
            ("cpu.reserve", cpu),
            ("memory.reserve", bytes(self.memory_reserve)),
            ("io.read.reserve", bytes(self.io_read_reserve)),
            ("io.write.reserve", bytes(self.io_write_reserve)),
        ];
        let rates = [
            ("network.in.reserve", &self.network_in_reserve),
            ("network.in.limit", &self.network_in_limit),
            ("network.out.reserve", &self.network_out_reserve),
            ("network.out.limit", &self.network_out_limit),
        ];
        let rates = rates.into_iter();
        let rates = rates.filter_map(|(key, rate)| Some((key, rate.as_ref()?.0.clone())));
        let promises = promises.into_iter();
        let promises = promises.filter_map(|(key, value)| Some((key, Some(value?))));
        promises.chain(rates).collect()
    }

    /// The quota in a period that `--cpu-limit` is, or the quota and the period that were given.
    fn bandwidth(&self) -> anyhow::Result<(Option<i64>, Option<u64>)> {
        let Some(word) = &self.cpu_limit else {
            return Ok((self.cpu_quota, self.cpu_period));
        };
        if word == "-1" {
            return Ok((Some(-1), Some(PERIOD_US)));
        }
        let milli = quantity::cpus(word).filter(|milli| *milli >= LEAST_MILLI);
        let milli = milli.with_context(|| {
            format!(
                "--cpu-limit: {word:?} is not {}, at least 0.01",
                quantity::CPUS
            )
        })?;
        let quota = i64::try_from(milli.saturating_mul(PERIOD_US / 1000))?;
        Ok((Some(quota), Some(PERIOD_US)))
    }

    fn cpu(&self) -> anyhow::Result<Cpu> {
        let (quota, period) = self.bandwidth()?;
        Ok(Cpu {
            shares: self.cpu_share,
            quota,
            burst: self.cpu_burst,
            period,
            realtime_runtime: self.cpu_rt_runtime,
            realtime_period: self.cpu_rt_period,
            cpus: self.cpuset_cpus.clone(),
            mems: self.cpuset_mems.clone(),
            idle: self.cpu_idle,
        })
    }
}

/// A number of bytes: `-1`, `1048576`, `1024k`, `64m`, `64MB`, `1.5g`; units are powers of 1024.
fn bytes(word: &str) -> Option<i64> {
    if word == "-1" {
        return Some(-1);
    }
    let lower = word.to_ascii_lowercase();
    let end = lower
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let factor: i64 = match unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(unit)
    {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    let Some((whole, part)) = digits.split_once('.') else {
        return digits.parse::<i64>().ok()?.checked_mul(factor);
    };
    let scale = 10i64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = part.parse::<i64>().ok()?.checked_mul(factor)? / scale;
    whole
        .parse::<i64>()
        .ok()?
        .checked_mul(factor)?
        .checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_that_are_powers_of_1024() {
        for (word, expected) in [
            ("-1", -1),
            ("0", 0),
            ("123", 123),
            ("64m", 64 << 20),
            ("1.5G", 3 << 29),
            ("2KiB", 2048),
            ("1 mb", 1 << 20),
        ] {
            assert_eq!(bytes(word), Some(expected), "{word}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for word in ["", "m", "-2", "1x", "9999999999g", "0x10", "1.m"] {
            assert_eq!(bytes(word), None, "{word}");
        }
    }
}
