//! `linux.resources.blockIO` in cgroup v2: io.max, and the weights of whichever scheduler there is.

use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::IfAbsent;
use crate::plan::cgroup::Limits;
use crate::spec::resources::BlockIo;
use crate::spec::resources::ThrottleDevice;

/// The file of weights that the scheduler BFQ has.
pub(super) const WEIGHT: &str = "io.bfq.weight";

/// Adds what the field asks for.
pub(super) fn gather(io: &BlockIo, limits: &mut Limits) {
    if let Some(value) = io.weight.filter(|weight| *weight != 0) {
        limits.writes.push(weight("", value, "blockIO.weight"));
    }
    for (index, entry) in io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        if let Some(value) = entry.weight.filter(|weight| *weight != 0) {
            let device = format!("{}:{} ", entry.major, entry.minor);
            limits.writes.push(weight(&device, value, &field));
        }
    }
    let leaf = io.leaf_weight.is_some_and(|weight| weight != 0)
        || io
            .weight_device
            .iter()
            .any(|entry| entry.leaf_weight.is_some_and(|weight| weight != 0));
    if leaf {
        limits.ignored.push(
            "linux.resources.blockIO.leafWeight: only cgroup v1 can do this, ignoring".to_owned(),
        );
    }
    throttle(
        &io.throttle_read_bps_device,
        "rbps",
        "throttleReadBpsDevice",
        limits,
    );
    throttle(
        &io.throttle_write_bps_device,
        "wbps",
        "throttleWriteBpsDevice",
        limits,
    );
    throttle(
        &io.throttle_read_iops_device,
        "riops",
        "throttleReadIOPSDevice",
        limits,
    );
    throttle(
        &io.throttle_write_iops_device,
        "wiops",
        "throttleWriteIOPSDevice",
        limits,
    );
}

/// The BFQ scheduler counts as the OCI does, 1 to 1000; io.weight, which iocost has, goes from 1 to 10000.
fn weight(device: &str, weight: u16, field: &str) -> CgroupWrite {
    let wide = widened(weight.into());
    CgroupWrite {
        if_absent: IfAbsent::Instead {
            file: "io.weight".to_owned(),
            value: format!("{device}{wide}"),
        },
        ..CgroupWrite::new(WEIGHT, &format!("{device}{weight}"), field)
    }
}

/// The same weight in the range of io.weight, as the other runtimes widen it.
pub(super) fn widened(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

fn throttle(entries: &[ThrottleDevice], key: &str, list: &str, limits: &mut Limits) {
    for (index, entry) in entries.iter().enumerate() {
        let rate = match entry.rate {
            0 => "max".to_owned(),
            rate => rate.to_string(),
        };
        limits.writes.push(CgroupWrite::new(
            "io.max",
            &format!("{}:{} {key}={rate}", entry.major, entry.minor),
            &format!("blockIO.{list}[{index}]"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::WeightDevice;

    fn gathered(io: &BlockIo) -> Limits {
        let mut limits = Limits::default();
        gather(io, &mut limits);
        limits
    }

    #[test]
    fn a_weight_is_meant_for_bfq_and_widened_for_iocost() {
        let limits = gathered(&BlockIo {
            weight: Some(1000),
            ..BlockIo::default()
        });
        assert_eq!(limits.writes[0].value, "1000");
        assert_eq!(
            limits.writes[0].if_absent,
            IfAbsent::Instead {
                file: "io.weight".to_owned(),
                value: "10000".to_owned()
            }
        );
    }

    #[test]
    fn a_device_weight_names_its_device() {
        let entry = WeightDevice {
            major: 8,
            minor: 16,
            weight: Some(10),
            leaf_weight: None,
        };
        let limits = gathered(&BlockIo {
            weight_device: vec![entry],
            ..BlockIo::default()
        });
        assert_eq!(limits.writes[0].value, "8:16 10");
        assert_eq!(
            limits.writes[0].field,
            "linux.resources.blockIO.weightDevice[0]"
        );
    }

    #[test]
    fn a_rate_of_zero_lifts_the_limit() {
        let entry = ThrottleDevice {
            major: 8,
            minor: 0,
            rate: 0,
        };
        let limits = gathered(&BlockIo {
            throttle_read_iops_device: vec![entry],
            ..BlockIo::default()
        });
        assert_eq!(
            limits.writes[0].to_string(),
            "write \"8:0 riops=max\" to io.max"
        );
    }
}
