//! The path of a cgroup: any words are refused or lead below the mount point, whoever makes the group.

use std::collections::BTreeMap;
use std::path::Component;
use std::path::Path;

use bulkhead::host::Host;
use bulkhead::plan::cgroup;
use bulkhead::plan::cgroup::Manager;
use bulkhead::plan::cgroup::Options;
use bulkhead::plan::cgroup::Request;

const MOUNT: &str = "/sys/fs/cgroup";

/// Takes these bytes as `linux.cgroupsPath`.
pub fn run(bytes: &[u8]) {
    let path = String::from_utf8_lossy(bytes);
    let annotations = BTreeMap::new();
    let mut host = Host::default();
    host.cgroup.mount = Some(MOUNT.into());
    host.cgroup.own = "/user.slice/here/session".into();
    host.cgroup.systemd = true;
    for manager in [Manager::Cgroupfs, Manager::Systemd] {
        for rootless in [false, true] {
            let request = Request {
                id: "fuzz",
                oci_version: "1.3.0",
                path: &path,
                resources: None,
                annotations: &annotations,
                owner: None,
            };
            let options = Options { manager, rootless };
            if let Ok(planned) = cgroup::plan(&request, &host, options) {
                below(&planned.place.directory().unwrap());
            }
        }
    }
}

fn below(directory: &Path) {
    let rest = directory.strip_prefix(MOUNT).unwrap();
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    assert!(
        rest.components().all(normal) && rest != Path::new(""),
        "{directory:?} leads elsewhere"
    );
}
