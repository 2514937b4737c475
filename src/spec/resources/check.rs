//! Which resources can be meant: values that no kernel could make sense of are refused by name.

use crate::spec::list;
use crate::spec::list::ListError;
use crate::spec::resources::BlockIo;
use crate::spec::resources::Cpu;
use crate::spec::resources::DeviceRule;
use crate::spec::resources::HugepageLimit;
use crate::spec::resources::Memory;
use crate::spec::resources::Rdma;
use crate::spec::resources::Resources;
use crate::spec::resources::WeightDevice;

/// Device numbers are 32 bits wide in the kernel's filter.
const LAST_DEVICE_NUMBER: i64 = u32::MAX as i64;

/// A value of `linux.resources` that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    /// A device rule for something that is not a device.
    #[error("linux.resources.devices[{index}].type: {given:?} is none of \"a\", \"b\" and \"c\"")]
    DeviceType {
        /// Which rule.
        index: usize,
        /// What it says.
        given: String,
    },
    /// A device rule that allows or denies nothing, or something unknown.
    #[error(
        "linux.resources.devices[{index}].access: {given:?} is not made of \"r\", \"w\" and \"m\""
    )]
    DeviceAccess {
        /// Which rule.
        index: usize,
        /// What it says.
        given: String,
    },
    /// A number outside of what the field can hold.
    #[error("linux.{field}: {given} is not in {lowest}..={highest}")]
    OutOfRange {
        /// The field, below `linux`.
        field: String,
        /// What it says.
        given: i128,
        /// The smallest that can be meant.
        lowest: i128,
        /// The greatest that can be meant.
        highest: i128,
    },
    /// Burst time that is more than the quota it is a part of.
    #[error("linux.resources.cpu.burst: {burst} us is more than the quota of {quota} us")]
    BurstBeyondQuota {
        /// What `burst` says.
        burst: u64,
        /// What `quota` says.
        quota: i64,
    },
    /// Something that is not a list like `0-3,7`.
    #[error("linux.resources.cpu.{field}: not a list of numbers")]
    List {
        /// The field.
        field: &'static str,
        /// Which part of it is no list.
        source: ListError,
    },
    /// A weight for a device without a weight in it.
    #[error(
        "linux.resources.blockIO.weightDevice[{index}]: neither weight nor leafWeight is given"
    )]
    NoWeight {
        /// Which entry.
        index: usize,
    },
    /// Something that is not a page size like `2MB`.
    #[error("linux.resources.hugepageLimits[{index}].pageSize: {given:?} is not like \"2MB\"")]
    PageSize {
        /// Which entry.
        index: usize,
        /// What it says.
        given: String,
    },
    /// An RDMA device without a limit.
    #[error("linux.resources.rdma[{device:?}]: neither hcaHandles nor hcaObjects is given")]
    NoRdmaLimit {
        /// Which device.
        device: String,
    },
    /// A name that would not be one word, or not stay in its directory.
    #[error("linux.{field}: {given:?} is not a plain name")]
    NotAName {
        /// The field, below `linux`.
        field: String,
        /// What it says.
        given: String,
    },
}

impl Resources {
    /// Looks for values that cannot be meant, without asking any kernel.
    ///
    /// # Errors
    ///
    /// The first such value, by the path of its field.
    pub fn check(&self) -> Result<(), ResourcesError> {
        self.devices.iter().enumerate().try_for_each(check_device)?;
        self.memory.as_ref().map_or(Ok(()), check_memory)?;
        self.cpu.as_ref().map_or(Ok(()), check_cpu)?;
        let pids = self.pids.as_ref().and_then(|pids| pids.limit);
        within("resources.pids.limit", pids, -1, i64::MAX)?;
        self.block_io.as_ref().map_or(Ok(()), check_block_io)?;
        self.hugepage_limits
            .iter()
            .enumerate()
            .try_for_each(check_hugepage)?;
        self.rdma.iter().try_for_each(check_rdma)?;
        self.unified.keys().try_for_each(|file| {
            plain_name(file).ok_or_else(|| ResourcesError::NotAName {
                field: "resources.unified".to_owned(),
                given: file.clone(),
            })
        })
    }
}

fn check_device((index, rule): (usize, &DeviceRule)) -> Result<(), ResourcesError> {
    let given = rule.kind.clone().unwrap_or_default();
    if !matches!(given.as_str(), "" | "a" | "b" | "c") {
        return Err(ResourcesError::DeviceType { index, given });
    }
    let known = rule.access.chars().all(|access| "rwm".contains(access));
    if rule.access.is_empty() || !known {
        return Err(ResourcesError::DeviceAccess {
            index,
            given: rule.access.clone(),
        });
    }
    let field = format!("resources.devices[{index}]");
    within(
        &format!("{field}.major"),
        rule.major,
        -1,
        LAST_DEVICE_NUMBER,
    )?;
    within(
        &format!("{field}.minor"),
        rule.minor,
        -1,
        LAST_DEVICE_NUMBER,
    )
}

fn check_memory(memory: &Memory) -> Result<(), ResourcesError> {
    for (name, value) in [
        ("limit", memory.limit),
        ("reservation", memory.reservation),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ] {
        within(&format!("resources.memory.{name}"), value, -1, i64::MAX)?;
    }
    // Older callers say "not set" as -1, which Go's decoder turns into the greatest number.
    let swappiness = memory.swappiness.filter(|value| *value != u64::MAX);
    within("resources.memory.swappiness", swappiness, 0, 100)
}

fn check_cpu(cpu: &Cpu) -> Result<(), ResourcesError> {
    within("resources.cpu.quota", cpu.quota, -1, i64::MAX)?;
    within("resources.cpu.idle", cpu.idle, 0, 1)?;
    if let (Some(burst), Some(quota)) = (cpu.burst, cpu.quota)
        && quota > 0
        && burst > quota.unsigned_abs()
    {
        return Err(ResourcesError::BurstBeyondQuota { burst, quota });
    }
    for (field, list) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        list::ranges(list.as_deref().unwrap_or_default())
            .map_err(|source| ResourcesError::List { field, source })?;
    }
    Ok(())
}

fn check_block_io(io: &BlockIo) -> Result<(), ResourcesError> {
    let weight = io.weight.filter(|weight| *weight != 0);
    within("resources.blockIO.weight", weight, 10, 1000)?;
    io.weight_device
        .iter()
        .enumerate()
        .try_for_each(check_weight)?;
    for (list, entries) in [
        ("throttleReadBpsDevice", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &io.throttle_write_iops_device),
    ] {
        for (index, entry) in entries.iter().enumerate() {
            let field = format!("resources.blockIO.{list}[{index}]");
            within(
                &format!("{field}.major"),
                Some(entry.major),
                0,
                LAST_DEVICE_NUMBER,
            )?;
            within(
                &format!("{field}.minor"),
                Some(entry.minor),
                0,
                LAST_DEVICE_NUMBER,
            )?;
        }
    }
    Ok(())
}

fn check_weight((index, entry): (usize, &WeightDevice)) -> Result<(), ResourcesError> {
    if entry.weight.is_none() && entry.leaf_weight.is_none() {
        return Err(ResourcesError::NoWeight { index });
    }
    let field = format!("resources.blockIO.weightDevice[{index}]");
    within(
        &format!("{field}.major"),
        Some(entry.major),
        0,
        LAST_DEVICE_NUMBER,
    )?;
    within(
        &format!("{field}.minor"),
        Some(entry.minor),
        0,
        LAST_DEVICE_NUMBER,
    )?;
    let weight = entry.weight.filter(|weight| *weight != 0);
    within(&format!("{field}.weight"), weight, 10, 1000)
}

fn check_hugepage((index, entry): (usize, &HugepageLimit)) -> Result<(), ResourcesError> {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| entry.page_size.strip_suffix(unit));
    let digits =
        |number: &str| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    if number.is_some_and(digits) {
        return Ok(());
    }
    Err(ResourcesError::PageSize {
        index,
        given: entry.page_size.clone(),
    })
}

fn check_rdma((device, limits): (&String, &Rdma)) -> Result<(), ResourcesError> {
    if limits.hca_handles.is_none() && limits.hca_objects.is_none() {
        return Err(ResourcesError::NoRdmaLimit {
            device: device.clone(),
        });
    }
    if plain_name(device).is_none() || device.contains(char::is_whitespace) {
        return Err(ResourcesError::NotAName {
            field: "resources.rdma".to_owned(),
            given: device.clone(),
        });
    }
    Ok(())
}

/// Some, if `name` names something directly in a directory and nothing else.
fn plain_name(name: &str) -> Option<()> {
    let wrong = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0', '\n']);
    (!wrong).then_some(())
}

fn within<T: Into<i128>>(
    field: &str,
    value: Option<T>,
    lowest: i64,
    highest: i64,
) -> Result<(), ResourcesError> {
    let (lowest, highest) = (i128::from(lowest), i128::from(highest));
    match value.map(Into::into) {
        Some(given) if given < lowest || given > highest => Err(ResourcesError::OutOfRange {
            field: field.to_owned(),
            given,
            lowest,
            highest,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        let resources: Resources = serde_json::from_str(json).unwrap();
        resources.check().unwrap_err().to_string()
    }

    #[test]
    fn what_callers_write_for_nothing_is_nothing() {
        let json = r#"{"devices":null,"memory":null,"unified":null,"hugepageLimits":null,
            "blockIO":{"weightDevice":null},"unknown":1}"#;
        let resources: Resources = serde_json::from_str(json).unwrap();
        assert_eq!(resources.check(), Ok(()));
        assert_eq!(resources.block_io, Some(BlockIo::default()));
    }

    #[test]
    fn names_with_capitals_are_read() {
        let json = r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":9}]},
            "memory":{"disableOOMKiller":true,"kernelTCP":-1},"network":{"classID":3}}"#;
        let resources: Resources = serde_json::from_str(json).unwrap();
        assert_eq!(
            resources.block_io.unwrap().throttle_read_iops_device[0].rate,
            9
        );
        assert_eq!(resources.memory.unwrap().kernel_tcp, Some(-1));
        assert_eq!(resources.network.unwrap().class_id, Some(3));
    }

    #[test]
    fn a_device_rule_without_access_is_refused_by_its_path() {
        assert_eq!(
            refused(r#"{"devices":[{"allow":true,"access":"r"},{"allow":true}]}"#),
            "linux.resources.devices[1].access: \"\" is not made of \"r\", \"w\" and \"m\""
        );
    }

    #[test]
    fn a_device_number_beyond_the_kernels_is_refused() {
        assert_eq!(
            refused(r#"{"devices":[{"access":"r","major":4294967296}]}"#),
            "linux.resources.devices[0].major: 4294967296 is not in -1..=4294967295"
        );
    }

    #[test]
    fn burst_beyond_the_quota_is_refused() {
        assert_eq!(
            refused(r#"{"cpu":{"burst":2000,"quota":1000}}"#),
            "linux.resources.cpu.burst: 2000 us is more than the quota of 1000 us"
        );
    }

    #[test]
    fn a_weight_outside_of_the_range_is_refused() {
        assert_eq!(
            refused(r#"{"blockIO":{"weight":5}}"#),
            "linux.resources.blockIO.weight: 5 is not in 10..=1000"
        );
    }

    #[test]
    fn a_page_size_that_is_none_is_refused() {
        assert_eq!(
            refused(r#"{"hugepageLimits":[{"pageSize":"2M","limit":1}]}"#),
            "linux.resources.hugepageLimits[0].pageSize: \"2M\" is not like \"2MB\""
        );
    }

    #[test]
    fn a_file_of_another_directory_is_refused() {
        assert_eq!(
            refused(r#"{"unified":{"../memory.max":"1"}}"#),
            "linux.resources.unified: \"../memory.max\" is not a plain name"
        );
    }
}
