//! The small controllers, and `unified`: tasks, huge pages, RDMA, and what is written as it comes.

use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::Limits;
use crate::spec::resources::Network;
use crate::spec::resources::Rdma;
use crate::spec::resources::Resources;

/// Files of every cgroup that move processes or change the tree. A bundle that could write them could take other
/// people's processes into its box.
const NOT_LIMITS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

/// Adds what the fields ask for; `unified` comes last and so wins.
pub(super) fn gather(resources: &Resources, limits: &mut Limits) -> Result<(), CgroupError> {
    for (index, entry) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let file = format!("hugetlb.{}", entry.page_size);
        let limit = match entry.limit {
            u64::MAX => "max".to_owned(),
            bytes => bytes.to_string(),
        };
        let max = CgroupWrite::new(&format!("{file}.max"), &limit, &field);
        // Reservations are counted since Linux 5.7.
        let rsvd = CgroupWrite::new(&format!("{file}.rsvd.max"), &limit, &field).or_skip();
        limits.writes.extend([max, rsvd]);
    }
    for (device, entry) in &resources.rdma {
        let field = format!("rdma[{device:?}]");
        limits
            .writes
            .push(CgroupWrite::new("rdma.max", &rdma(device, entry), &field));
    }
    resources.network.as_ref().map_or(Ok(()), refuse_network)?;
    for (file, value) in &resources.unified {
        limits.writes.extend(unified(file, value)?);
    }
    Ok(())
}

/// The limit of tasks at creation.
///
/// Up to runtime-spec 1.2 zero meant "no limit", and callers of that age say it so; since 1.3 zero is a number like
/// any other. A group of no tasks cannot be started in, so that number is one: what is there may run and not fork.
pub(super) fn pids_at_first(resources: &Resources, oci_version: &str) -> Option<CgroupWrite> {
    let limit = resources.pids.as_ref()?.limit?;
    let value = match limit {
        0 if is_before_1_3(oci_version) => "max".to_owned(),
        0 => "1".to_owned(),
        limit => tasks(limit),
    };
    Some(CgroupWrite::new("pids.max", &value, "pids.limit"))
}

/// The limit of tasks at an update, which callers complete with zeros.
pub(super) fn pids_at_update(resources: &Resources) -> Option<CgroupWrite> {
    let limit = resources.pids.as_ref()?.limit.filter(|limit| *limit != 0)?;
    Some(CgroupWrite::new("pids.max", &tasks(limit), "pids.limit"))
}

fn tasks(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

fn is_before_1_3(version: &str) -> bool {
    let mut numbers = version
        .split(['.', '-'])
        .map(|number| number.parse::<u32>().ok());
    matches!(
        (numbers.next().flatten(), numbers.next().flatten()),
        (Some(1), Some(0..=2))
    )
}

fn rdma(device: &str, limits: &Rdma) -> String {
    let mut line = device.to_owned();
    if let Some(handles) = limits.hca_handles {
        line += &format!(" hca_handle={handles}");
    }
    if let Some(objects) = limits.hca_objects {
        line += &format!(" hca_object={objects}");
    }
    line
}

fn refuse_network(network: &Network) -> Result<(), CgroupError> {
    let field = if network.class_id.is_some_and(|class| class != 0) {
        "linux.resources.network.classID"
    } else if !network.priorities.is_empty() {
        "linux.resources.network.priorities"
    } else {
        return Ok(());
    };
    let advice = "match on the cgroup's path in nftables (`socket cgroupv2`) instead";
    Err(CgroupError::OnlyV1 { field, advice })
}

/// The kernel takes one line at a time from files that hold several.
fn unified(file: &str, value: &str) -> Result<Vec<CgroupWrite>, CgroupError> {
    if NOT_LIMITS.contains(&file) {
        return Err(CgroupError::NotALimit {
            file: file.to_owned(),
        });
    }
    if !file.contains('.') {
        return Err(CgroupError::NotAParameter {
            file: file.to_owned(),
        });
    }
    let field = format!("unified[{file:?}]");
    let lines = value.lines().filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| CgroupWrite::new(file, &line, &field))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::HugepageLimit;
    use crate::spec::resources::Pids;

    fn pids(limit: i64) -> Resources {
        Resources {
            pids: Some(Pids { limit: Some(limit) }),
            ..Resources::default()
        }
    }

    fn gathered(resources: &Resources) -> Result<Vec<String>, CgroupError> {
        let mut limits = Limits::default();
        gather(resources, &mut limits)?;
        Ok(limits.writes.iter().map(ToString::to_string).collect())
    }

    fn unified_with(file: &str, value: &str) -> Resources {
        let unified = [(file.to_owned(), value.to_owned())].into();
        Resources {
            unified,
            ..Resources::default()
        }
    }

    #[test]
    fn no_tasks_meant_no_limit_before_1_3() {
        assert_eq!(pids_at_first(&pids(0), "1.2.1").unwrap().value, "max");
        assert_eq!(pids_at_first(&pids(0), "1.0.2-dev").unwrap().value, "max");
        assert_eq!(pids_at_first(&pids(0), "1.3.0").unwrap().value, "1");
    }

    #[test]
    fn no_tasks_leave_an_update_alone() {
        assert_eq!(pids_at_update(&pids(0)), None);
        assert_eq!(pids_at_update(&pids(-1)).unwrap().value, "max");
    }

    #[test]
    fn huge_pages_are_limited_in_use_and_in_reservation() {
        let entry = HugepageLimit {
            page_size: "2MB".to_owned(),
            limit: 0,
        };
        let resources = Resources {
            hugepage_limits: vec![entry],
            ..Resources::default()
        };
        assert_eq!(
            gathered(&resources).unwrap(),
            [
                "write \"0\" to hugetlb.2MB.max",
                "write \"0\" to hugetlb.2MB.rsvd.max"
            ]
        );
    }

    #[test]
    fn an_rdma_device_has_one_line() {
        let limits = Rdma {
            hca_handles: Some(3),
            hca_objects: Some(10_000),
        };
        assert_eq!(
            rdma("mlx5_1", &limits),
            "mlx5_1 hca_handle=3 hca_object=10000"
        );
    }

    #[test]
    fn an_unknown_file_is_written_line_by_line() {
        let resources = unified_with("io.max", "259:0 rbps=1\n253:0 rbps=2");
        assert_eq!(
            gathered(&resources).unwrap(),
            [
                "write \"259:0 rbps=1\" to io.max",
                "write \"253:0 rbps=2\" to io.max"
            ]
        );
    }

    #[test]
    fn a_file_that_moves_processes_is_no_limit() {
        let file = "cgroup.procs".to_owned();
        assert_eq!(
            gathered(&unified_with(&file, "1")),
            Err(CgroupError::NotALimit { file })
        );
    }

    #[test]
    fn network_classes_are_refused() {
        let network = Network {
            class_id: Some(7),
            priorities: Vec::new(),
        };
        assert!(refuse_network(&network).is_err());
        assert_eq!(refuse_network(&Network::default()), Ok(()));
    }
}
