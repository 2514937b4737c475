//! `linux.resources.cpu` in cgroup v2: cpu.weight, cpu.max, cpu.max.burst, cpu.idle and the cpuset files.

use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::Present;
use crate::spec::resources::Cpu;

/// The period that the kernel starts with, in microseconds.
const USUAL_PERIOD: u64 = 100_000;

/// Adds what the field asks for.
pub(super) fn gather(cpu: &Cpu, present: &Present, limits: &mut Limits) -> Result<(), CgroupError> {
    let realtime = cpu.realtime_runtime.is_some_and(|time| time != 0)
        || cpu.realtime_period.is_some_and(|time| time != 0);
    if realtime {
        return Err(CgroupError::OnlyV1 {
            field: "linux.resources.cpu.realtimeRuntime",
            advice: "use process.scheduler for a realtime policy",
        });
    }
    let writes = &mut limits.writes;
    // A lower quota is refused while more burst is allowed, and more burst while the quota is lower: the kernel wants
    // burst <= quota after each write. So burst is taken away before and given after.
    let burst = cpu
        .burst
        .map(|burst| CgroupWrite::new("cpu.max.burst", &burst, "cpu.burst"));
    if burst.is_some() && bandwidth(cpu, present).is_some() {
        writes.push(CgroupWrite::new("cpu.max.burst", &0, "cpu.burst"));
    }
    writes.extend(bandwidth(cpu, present));
    writes.extend(burst);
    let idle = cpu
        .idle
        .map(|idle| CgroupWrite::new("cpu.idle", &idle, "cpu.idle"));
    writes.extend(idle);
    // A group that is idle has no weight, and the kernel refuses one (EINVAL).
    if let Some(shares) = cpu
        .shares
        .filter(|shares| *shares != 0 && cpu.idle != Some(1))
    {
        writes.push(CgroupWrite::new(
            "cpu.weight",
            &weight(shares),
            "cpu.shares",
        ));
    }
    for (file, list) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        if let Some(list) = list
            .as_deref()
            .map(str::trim)
            .filter(|list| !list.is_empty())
        {
            let write = CgroupWrite::new(&format!("cpuset.{file}"), &list, &format!("cpu.{file}"));
            writes.push(write);
        }
    }
    Ok(())
}

/// The line for cpu.max; what is not said is what is in force.
fn bandwidth(cpu: &Cpu, present: &Present) -> Option<CgroupWrite> {
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    let field = match (quota, period) {
        (None, None) => return None,
        (Some(_), _) => "cpu.quota",
        (None, Some(_)) => "cpu.period",
    };
    let quota = quota.or(present.cpu_quota).filter(|quota| *quota > 0);
    let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    let period = period.or(present.cpu_period).unwrap_or(USUAL_PERIOD);
    Some(CgroupWrite::new(
        "cpu.max",
        &format!("{quota} {period}"),
        field,
    ))
}

/// Shares of cgroup v1 (2 to 262144, usually 1024) as a weight of cgroup v2 (1 to 10000, usually 100).
///
/// The curve goes through (2, 1), (1024, 100) and (262144, 10000): `10^((l² + 125 l) / 612 - 7 / 34)` with
/// `l = log2(shares)`. It is the one that the other runtimes have agreed on, so that a share means the same with each.
fn weight(shares: u64) -> u32 {
    let shares = u32::try_from(shares).unwrap_or(u32::MAX).clamp(2, 262_144);
    let l = f64::from(shares).log2();
    let exact = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
    (1..10_000)
        .find(|weight| f64::from(*weight) + 1e-6 >= exact)
        .unwrap_or(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cpu: &Cpu, present: &Present) -> Vec<String> {
        let mut limits = Limits::default();
        gather(cpu, present, &mut limits).unwrap();
        limits
            .writes
            .iter()
            .map(|write| format!("{} {}", write.file, write.value))
            .collect()
    }

    #[test]
    fn the_curve_of_weights_goes_through_its_three_points() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([0, 1, u64::MAX].map(weight), [1, 1, 10_000]);
    }

    #[test]
    fn more_shares_are_never_less_weight() {
        let weights: Vec<u32> = (2..4096).map(weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn a_quota_without_a_period_has_the_usual_one() {
        let cpu = Cpu {
            quota: Some(50_000),
            ..Cpu::default()
        };
        assert_eq!(written(&cpu, &Present::default()), ["cpu.max 50000 100000"]);
    }

    #[test]
    fn a_quota_of_minus_one_is_no_limit() {
        let cpu = Cpu {
            quota: Some(-1),
            period: Some(200_000),
            ..Cpu::default()
        };
        assert_eq!(written(&cpu, &Present::default()), ["cpu.max max 200000"]);
    }

    #[test]
    fn a_period_alone_keeps_the_quota_in_force() {
        let cpu = Cpu {
            period: Some(200_000),
            ..Cpu::default()
        };
        let present = Present {
            cpu_quota: Some(70_000),
            ..Present::default()
        };
        assert_eq!(written(&cpu, &present), ["cpu.max 70000 200000"]);
    }

    #[test]
    fn burst_is_given_after_the_quota_that_it_is_a_part_of() {
        let cpu = Cpu {
            quota: Some(50_000),
            burst: Some(20_000),
            ..Cpu::default()
        };
        assert_eq!(
            written(&cpu, &Present::default()),
            [
                "cpu.max.burst 0",
                "cpu.max 50000 100000",
                "cpu.max.burst 20000"
            ]
        );
    }

    #[test]
    fn zeros_leave_everything_alone() {
        let cpu = Cpu {
            shares: Some(0),
            quota: Some(0),
            period: Some(0),
            realtime_period: Some(0),
            cpus: Some(String::new()),
            ..Cpu::default()
        };
        assert!(written(&cpu, &Present::default()).is_empty());
    }

    #[test]
    fn an_idle_group_is_given_no_weight() {
        let cpu = Cpu {
            shares: Some(1024),
            idle: Some(1),
            ..Cpu::default()
        };
        assert_eq!(written(&cpu, &Present::default()), ["cpu.idle 1"]);
    }

    #[test]
    fn realtime_is_refused() {
        let cpu = Cpu {
            realtime_runtime: Some(1),
            ..Cpu::default()
        };
        let refused = gather(&cpu, &Present::default(), &mut Limits::default());
        assert!(matches!(refused, Err(CgroupError::OnlyV1 { .. })));
    }
}
