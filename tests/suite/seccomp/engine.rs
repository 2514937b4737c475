//! Makes of an engine's profile what the engine writes into `linux.seccomp`.

use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;
use serde::Deserialize;

/// What Docker and Podman give to a container that asks for nothing.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Docker's default profile, for x86-64 and the usual capabilities.
pub(super) fn docker() -> Seccomp {
    profile(include_str!("../../fixtures/seccomp/docker.json"))
}

/// Podman's default profile, for x86-64 and the usual capabilities.
pub(super) fn podman() -> Seccomp {
    profile(include_str!("../../fixtures/seccomp/podman.json"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(flatten)]
    common: Seccomp,
    arch_map: Vec<ArchMap>,
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    rule: Rule,
    #[serde(default)]
    includes: Circumstances,
    #[serde(default)]
    excludes: Circumstances,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Circumstances {
    caps: Vec<String>,
    arches: Vec<String>,
}

impl Circumstances {
    fn has_capability(&self) -> bool {
        self.caps
            .iter()
            .any(|cap| CAPABILITIES.contains(&cap.as_str()))
    }

    fn has_architecture(&self) -> bool {
        self.arches.iter().any(|arch| arch == "amd64")
    }
}

impl Entry {
    fn applies(&self) -> bool {
        (self.includes.caps.is_empty() || self.includes.has_capability())
            && (self.includes.arches.is_empty() || self.includes.has_architecture())
            && !self.excludes.has_capability()
            && !self.excludes.has_architecture()
    }
}

fn profile(json: &str) -> Seccomp {
    let profile: Profile = serde_json::from_str(json).expect("an engine's profile");
    let own = profile
        .arch_map
        .into_iter()
        .find(|map| map.architecture == Arch::X86_64);
    let own = own.expect("an entry for this architecture");
    let others = own.sub_architectures.unwrap_or_default();
    let applying = profile.syscalls.into_iter().filter(Entry::applies);
    Seccomp {
        architectures: [own.architecture].into_iter().chain(others).collect(),
        syscalls: applying.map(|entry| entry.rule).collect(),
        ..profile.common
    }
}
