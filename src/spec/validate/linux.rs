//! Checks what only Linux has: namespaces, and everything that would change the host without one.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Checked;
use super::absolute;
use super::identity::mappings;
use super::needs_namespace;
use super::process::label;
use super::required;
use crate::spec::Spec;
use crate::spec::SpecError;
use crate::spec::Warning;
use crate::spec::linux::Device;
use crate::spec::linux::DeviceKind;
use crate::spec::linux::IntelRdt;
use crate::spec::linux::Linux;
use crate::spec::linux::MemoryPolicy;
use crate::spec::linux::MemoryPolicyFlag;
use crate::spec::linux::MemoryPolicyMode;
use crate::spec::linux::NamespaceKind;
use crate::spec::list;
use crate::spec::sysctl;

/// The longest name of a network interface, in bytes.
const LONGEST_INTERFACE: usize = 15;

pub(super) fn check(spec: &Spec, warnings: &mut Vec<Warning>) -> Checked {
    let linux = &spec.linux;
    namespaces(linux)?;
    identity(linux, warnings)?;
    time(linux)?;
    sysctls(linux)?;
    for (index, device) in linux.devices.iter().enumerate() {
        self::device(device, &format!("linux.devices[{index}]"))?;
    }
    interfaces(linux)?;
    hidden(spec)?;
    label(&linux.mount_label, "linux.mountLabel")?;
    if let Some(seccomp) = &linux.seccomp {
        seccomp.validate()?;
    }
    if let Some(resources) = &linux.resources {
        resources.check()?;
    }
    if let Some(rdt) = &linux.intel_rdt {
        resctrl(rdt)?;
    }
    if let Some(policy) = &linux.memory_policy {
        memory_policy(policy)?;
    }
    match &linux.personality {
        Some(personality) if !personality.flags.is_empty() => {
            let reason = "the specification defines no flags; leave them out";
            Err(SpecError::value("linux.personality.flags", reason))
        }
        _ => Ok(()),
    }
}

fn namespaces(linux: &Linux) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let path = format!("linux.namespaces[{index}]");
        if !seen.insert(namespace.kind) {
            let reason = format!("{:?} stands twice in the list", namespace.kind.as_str());
            return Err(SpecError::value(format!("{path}.type"), reason));
        }
        if !namespace.is_new() {
            absolute(&namespace.path, || format!("{path}.path"))?;
        }
    }
    Ok(())
}

fn identity(linux: &Linux, warnings: &mut Vec<Warning>) -> Checked {
    let both = [
        ("linux.uidMappings", &linux.uid_mappings),
        ("linux.gidMappings", &linux.gid_mappings),
    ];
    for (path, list) in both.into_iter().filter(|(_, list)| !list.is_empty()) {
        mappings(list, path)?;
        match linux.namespace(NamespaceKind::User) {
            None => {
                let reason = "need a user namespace; add {\"type\": \"user\"} to linux.namespaces";
                return Err(SpecError::value(path, reason));
            }
            Some(joined) if !joined.is_new() => {
                let text = "are ignored: the user namespace that is joined has its own";
                warnings.push(Warning::new(path, text));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn time(linux: &Linux) -> Checked {
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    match linux.namespace(NamespaceKind::Time) {
        None => return Err(needs_namespace("linux.timeOffsets", NamespaceKind::Time)),
        Some(joined) if !joined.is_new() => {
            let reason = "cannot be given to a time namespace that is joined; leave them out";
            return Err(SpecError::value("linux.timeOffsets", reason));
        }
        Some(_) => {}
    }
    match linux
        .time_offsets
        .iter()
        .find(|(_, offset)| offset.nanosecs > 999_999_999)
    {
        Some((clock, offset)) => {
            let path = format!("linux.timeOffsets.{clock}.nanosecs");
            let reason = format!(
                "{} is a second or more, 999999999 is the most",
                offset.nanosecs
            );
            Err(SpecError::value(path, reason))
        }
        None => Ok(()),
    }
}

fn sysctls(linux: &Linux) -> Checked {
    for key in linux.sysctl.keys() {
        let at = format!("linux.sysctl[{key:?}]");
        let Some(path) = sysctl::path(key) else {
            let reason =
                "is no name of a kernel parameter, expected one such as net.core.somaxconn";
            return Err(SpecError::value(at, reason));
        };
        match sysctl::owner(&path) {
            Some(kind) if linux.has(kind) => {}
            Some(kind) => return Err(needs_namespace(at, kind)),
            None if path == "kernel/hostname" => {
                return Err(SpecError::value(at, "has a property of its own: hostname"));
            }
            None => {
                let reason = "belongs to the whole machine and not to a namespace; \
                              set it on the host, or leave it out";
                return Err(SpecError::value(at, reason));
            }
        }
    }
    Ok(())
}

fn device(device: &Device, path: &str) -> Checked {
    absolute(&device.path, || format!("{path}.path"))?;
    if device.kind == DeviceKind::Fifo {
        return Ok(());
    }
    for (name, number) in [("major", device.major), ("minor", device.minor)] {
        let Some(number) = number else {
            return Err(required(format!("{path}.{name}"), "a device number"));
        };
        if u32::try_from(number).is_err() {
            let reason = format!("{number} is no device number, expected 0 or more");
            return Err(SpecError::value(format!("{path}.{name}"), reason));
        }
    }
    Ok(())
}

fn interfaces(linux: &Linux) -> Checked {
    if !linux.net_devices.is_empty() && !linux.has(NamespaceKind::Network) {
        return Err(needs_namespace("linux.netDevices", NamespaceKind::Network));
    }
    let mut taken = BTreeMap::new();
    for (name, device) in &linux.net_devices {
        let path = format!("linux.netDevices[{name:?}]");
        interface_name(name, &path)?;
        let inside = if device.name.is_empty() {
            name
        } else {
            &device.name
        };
        interface_name(inside, &format!("{path}.name"))?;
        if let Some(other) = taken.insert(inside, name) {
            let reason = format!("{inside:?} is also the name of {other:?} in the container");
            return Err(SpecError::value(format!("{path}.name"), reason));
        }
    }
    Ok(())
}

/// What the kernel's `dev_valid_name` says.
fn interface_name(name: &str, path: &str) -> Checked {
    let forbidden = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST_INTERFACE {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." || name.contains(forbidden) {
        "has a dot alone, a slash, a colon or white space"
    } else {
        return Ok(());
    };
    Err(SpecError::value(
        path,
        format!("{name:?} is no name of an interface: it {reason}"),
    ))
}

/// Paths that are masked or read-only need mounts, and mounts need a namespace.
fn hidden(spec: &Spec) -> Checked {
    let lists = [
        ("linux.maskedPaths", &spec.linux.masked_paths),
        ("linux.readonlyPaths", &spec.linux.readonly_paths),
    ];
    let private = spec.linux.has(NamespaceKind::Mount);
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        if !private {
            return Err(needs_namespace(name, NamespaceKind::Mount));
        }
        for (index, path) in list.iter().enumerate() {
            absolute(path, || format!("{name}[{index}]"))?;
        }
    }
    if spec.root.readonly && !private {
        return Err(needs_namespace("root.readonly", NamespaceKind::Mount));
    }
    if spec.linux.rootfs_propagation.is_some() && !private {
        return Err(needs_namespace(
            "linux.rootfsPropagation",
            NamespaceKind::Mount,
        ));
    }
    Ok(())
}

fn resctrl(rdt: &IntelRdt) -> Checked {
    let id = rdt.clos_id.as_str();
    if id == "." || id == ".." || id.contains(['/', '\n']) {
        let reason = format!("{id:?} is no name of a directory");
        return Err(SpecError::value("linux.intelRdt.closID", reason));
    }
    let bandwidth = rdt.mem_bw_schema.as_str();
    if !bandwidth.is_empty() && (!bandwidth.starts_with("MB:") || bandwidth.contains('\n')) {
        let reason = format!("{bandwidth:?} is not one line that begins with MB:");
        return Err(SpecError::value("linux.intelRdt.memBwSchema", reason));
    }
    Ok(())
}

fn memory_policy(policy: &MemoryPolicy) -> Checked {
    let path = "linux.memoryPolicy.nodes";
    let nodes = list::ranges(&policy.nodes);
    let nodes = nodes.map_err(|error| SpecError::value(path, error.to_string()))?;
    match policy.mode {
        MemoryPolicyMode::Default | MemoryPolicyMode::Local if !nodes.is_empty() => {
            let reason = "are not for this mode, which takes the node where the thread runs";
            return Err(SpecError::value(path, reason));
        }
        MemoryPolicyMode::Bind
        | MemoryPolicyMode::Interleave
        | MemoryPolicyMode::WeightedInterleave
        | MemoryPolicyMode::PreferredMany
            if nodes.is_empty() =>
        {
            return Err(required(path, "a list such as 0-3,7 for this mode"));
        }
        MemoryPolicyMode::Preferred
        | MemoryPolicyMode::Default
        | MemoryPolicyMode::Local
        | MemoryPolicyMode::Bind
        | MemoryPolicyMode::Interleave
        | MemoryPolicyMode::WeightedInterleave
        | MemoryPolicyMode::PreferredMany => {}
    }
    let has = |flag| policy.flags.contains(&flag);
    if has(MemoryPolicyFlag::RelativeNodes) && has(MemoryPolicyFlag::StaticNodes) {
        let reason = "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other";
        return Err(SpecError::value("linux.memoryPolicy.flags", reason));
    }
    Ok(())
}
