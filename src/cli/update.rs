//! `update`: change the limits of a workspace.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

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
    /// Which workspace
    id: ContainerId,
}

/// Runs `update`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("update: not available in this build")
}
