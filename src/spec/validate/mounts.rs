//! Checks the mounts: where they go, and whose ids an id-mapped one takes.

use super::Checked;
use super::identity::mappings;
use super::needs_namespace;
use super::required;
use crate::spec::Spec;
use crate::spec::SpecError;
use crate::spec::Warning;
use crate::spec::linux::NamespaceKind;
use crate::spec::mount_options::MountOptions;
use crate::spec::mounts::Mount;

pub(super) fn check(spec: &Spec, warnings: &mut Vec<Warning>) -> Checked {
    if !spec.mounts.is_empty() && !spec.linux.has(NamespaceKind::Mount) {
        return Err(needs_namespace("mounts", NamespaceKind::Mount));
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        let path = format!("mounts[{index}]");
        destination(mount, &path, warnings)?;
        kind_and_source(mount, &path)?;
        let earlier = spec.mounts.get(..index).unwrap_or_default();
        remount(mount, earlier, &path)?;
        id_map(mount, &path, spec)?;
    }
    Ok(())
}

fn destination(mount: &Mount, path: &str, warnings: &mut Vec<Warning>) -> Checked {
    let path = format!("{path}.destination");
    if mount.destination.as_os_str().is_empty() {
        return Err(required(path, "an absolute path in the container"));
    }
    if !mount.destination.is_absolute() {
        let text = format!(
            "{:?} is not absolute, it is taken from / on",
            mount.destination
        );
        warnings.push(Warning::new(path, text));
    }
    Ok(())
}

fn kind_and_source(mount: &Mount, path: &str) -> Checked {
    let options = MountOptions::of(mount);
    if options.bind.is_some() && mount.source.is_empty() {
        return Err(required(format!("{path}.source"), "the path to bind"));
    }
    if options.bind.is_none() && !options.remount && mount.kind.is_empty() {
        let expected = "a filesystem type, or the option \"bind\" or \"rbind\"";
        return Err(required(format!("{path}.type"), expected));
    }
    if options.copy_up && mount.kind != "tmpfs" {
        let reason = "\"tmpcopyup\" is for the type tmpfs only";
        return Err(SpecError::value(format!("{path}.options"), reason));
    }
    Ok(())
}

/// Changing a filesystem changes it wherever it is mounted, on the host too, unless it is the container's own.
fn remount(mount: &Mount, earlier: &[Mount], path: &str) -> Checked {
    let options = MountOptions::of(mount);
    if !options.remount || options.bind.is_some() {
        return Ok(());
    }
    let mut before = earlier.iter().rev();
    let changed = before.find(|other| other.destination == mount.destination);
    let is_own = |other: &Mount| other.kind == "tmpfs" && MountOptions::of(other).bind.is_none();
    if changed.is_some_and(is_own) {
        return Ok(());
    }
    let reason = "\"remount\" would change a filesystem that the host may use as well; \
                  add \"bind\" to change the mount alone";
    Err(SpecError::value(format!("{path}.options"), reason))
}

fn id_map(mount: &Mount, path: &str, spec: &Spec) -> Checked {
    mappings(&mount.uid_mappings, &format!("{path}.uidMappings"))?;
    mappings(&mount.gid_mappings, &format!("{path}.gidMappings"))?;
    match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (false, false) => return Ok(()),
        (false, true) => {
            return Err(required(
                format!("{path}.gidMappings"),
                "them beside uidMappings",
            ));
        }
        (true, false) => {
            return Err(required(
                format!("{path}.uidMappings"),
                "them beside gidMappings",
            ));
        }
        (true, true) => {}
    }
    if MountOptions::of(mount).id_map.is_some() && !spec.linux.has(NamespaceKind::User) {
        let reason = "\"idmap\" without uidMappings and gidMappings takes those of the container, \
                      which has no user namespace; give the mount its own";
        return Err(SpecError::value(format!("{path}.options"), reason));
    }
    Ok(())
}
