//! Who shall own the cgroup of a workspace (runtime-spec, "Cgroup ownership").
//!
//! A workspace that has a cgroup namespace of its own and sees `/sys/fs/cgroup` writable may make groups below its
//! own. For that its directory and a few files belong to the user that its first process runs as. In every other case
//! nothing is given away.

use std::path::Path;

use crate::spec::Spec;
use crate::spec::linux::NamespaceKind;

/// The user of the host who shall own the cgroup, if anybody but its maker.
pub(super) fn of(spec: &Spec) -> Option<u32> {
    let namespace = spec.linux.namespace(NamespaceKind::Cgroup)?;
    if !namespace.path.as_os_str().is_empty() || !sees_its_cgroup_writable(spec) {
        return None;
    }
    on_host(spec, spec.process.user.uid)
}

fn sees_its_cgroup_writable(spec: &Spec) -> bool {
    spec.mounts.iter().any(|mount| {
        mount.source == "cgroup"
            && mount.destination == Path::new("/sys/fs/cgroup")
            && !mount.options.iter().any(|option| option == "ro")
    })
}

/// The user as the host counts; none if a user namespace is joined whose mappings are not in the document.
fn on_host(spec: &Spec, uid: u32) -> Option<u32> {
    if !spec.linux.has(NamespaceKind::User) {
        return Some(uid);
    }
    spec.linux
        .uid_mappings
        .iter()
        .find(|range| uid >= range.container_id && uid - range.container_id < range.size)
        .and_then(|range| range.host_id.checked_add(uid - range.container_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mount_option: &str, namespaces: &str) -> Spec {
        let json = format!(
            r#"{{"process":{{"user":{{"uid":5,"gid":0}}}},
            "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",
                "options":["{mount_option}"]}}],
            "linux":{{"namespaces":[{namespaces}],
                "uidMappings":[{{"containerID":0,"hostID":100000,"size":10}}]}}}}"#
        );
        Spec::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_user_of_a_writable_view_owns_the_cgroup() {
        assert_eq!(
            of(&spec("rw", r#"{"type":"cgroup"},{"type":"user"}"#)),
            Some(100_005)
        );
        assert_eq!(of(&spec("rw", r#"{"type":"cgroup"}"#)), Some(5));
    }

    #[test]
    fn a_read_only_view_gives_nothing_away() {
        assert_eq!(
            of(&spec("ro", r#"{"type":"cgroup"},{"type":"user"}"#)),
            None
        );
    }

    #[test]
    fn without_a_cgroup_namespace_nothing_is_given_away() {
        assert_eq!(of(&spec("rw", r#"{"type":"user"}"#)), None);
        let joined = r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"}"#;
        assert_eq!(of(&spec("rw", joined)), None);
    }
}
