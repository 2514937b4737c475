//! Disks: whether those who share one are weighed, which is what a promise of bandwidth needs.

use std::path::Path;

use crate::host::cgroup::Cgroups;
use crate::host::disk;
use crate::host::disk::Weigher;
use crate::host::survey::Finding;
use crate::host::survey::text;

const AREA: &str = "disk";

pub(super) fn findings(cgroups: &Cgroups) -> Vec<Finding> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten();
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| is_used(name)).collect();
    names.sort();
    let found = names.iter().filter_map(|name| {
        let numbers = text(&format!("/sys/block/{name}/dev"))?;
        let scheduler = disk::scheduler(&numbers)?;
        Some(finding(cgroups, name, &numbers, &scheduler))
    });
    found.collect()
}

/// Memory and files that only might become disks are left out.
fn is_used(name: &str) -> bool {
    let size = text(&format!("/sys/block/{name}/size"));
    !name.starts_with("ram") && size.is_some_and(|size| size != "0")
}

fn finding(cgroups: &Cgroups, name: &str, numbers: &str, scheduler: &str) -> Finding {
    let title = format!("{name} ({numbers}) weighed");
    let mount = cgroups.mount.as_deref().unwrap_or(Path::new("/"));
    let controlled = cgroups.controllers.contains("io");
    match Weigher::of(numbers, mount).filter(|_| controlled) {
        Some(weigher) => Finding::yes(AREA, &title, weigher.name()),
        None => {
            let remedy = format!(
                "the io controller of cgroup v2, and: echo bfq >/sys/block/{name}/queue/scheduler; \
                 echo 0 >/sys/block/{name}/queue/iosched/low_latency; or \"{numbers} enable=1\" in io.cost.qos; \
                 until then io.read.reserve and io.write.reserve are refused"
            );
            Finding::no(AREA, &title, format!("scheduler {scheduler}"), &remedy)
        }
    }
}
