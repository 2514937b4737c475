//! The list of writes: one line of one file of the cgroup each, and the field of the spec that asked for it.
//!
//! A value that leaves everything as it is becomes no write at all: callers like Docker complete an update with
//! zeros. A value that lifts a limit needs no controller as long as nothing has been limited, which is why a fresh
//! cgroup may go without a controller that only `-1` was asked of.

use std::collections::BTreeSet;
use std::fmt;

use crate::host::Host;
use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::Manager;
use crate::plan::cgroup::Options;
use crate::plan::cgroup::cpu;
use crate::plan::cgroup::device::DeviceFilter;
use crate::plan::cgroup::guarantee;
use crate::plan::cgroup::guarantee::DiskShares;
use crate::plan::cgroup::io;
use crate::plan::cgroup::memory;
use crate::plan::cgroup::other;
use crate::spec::asked::Guarantee;
use crate::spec::asked::PREFIX;
use crate::spec::resources::Resources;

/// One line for one file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CgroupWrite {
    /// The file, in the workspace's own directory.
    pub file: String,
    /// What is written, without a newline.
    pub value: String,
    /// The field of the spec that asked for it, from `linux` on.
    pub field: String,
    /// What to do if there is no such file.
    pub if_absent: IfAbsent,
}

/// What to do if a file is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub enum IfAbsent {
    /// The limit could not be kept: fail.
    #[default]
    Fail,
    /// What it would have limited does not exist either: go on.
    Skip,
    /// Write something else to another file.
    Instead {
        /// The other file.
        file: String,
        /// What is written there.
        value: String,
    },
}

/// What a workspace may use.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Limits {
    /// The controllers that the writes need.
    pub controllers: BTreeSet<String>,
    /// The writes, in an order in which a fresh cgroup takes them.
    pub writes: Vec<CgroupWrite>,
    /// The device filter; none leaves the present one in place.
    pub devices: Option<DeviceFilter>,
    /// Whether the device filter may be missing: without root nobody may load one, and device nodes that could be
    /// opened cannot be made either.
    pub filter_optional: bool,
    /// Refuse a memory limit below what is in use.
    pub check_before_update: bool,
    /// What was asked and has no meaning in cgroup v2, a sentence each.
    pub ignored: Vec<String>,
}

/// What is in force, for what one field alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// The limit of memory in bytes; none if there is none.
    pub memory_limit: Option<i64>,
    /// Processor time per period in microseconds; none if there is no limit.
    pub cpu_quota: Option<i64>,
    /// That period.
    pub cpu_period: Option<u64>,
}

impl Limits {
    /// The weight for the CPU that is asked for.
    #[must_use]
    pub fn cpu_weight(&self) -> Option<u64> {
        let mut written = self.writes.iter();
        let last = written.rfind(|write| write.file == guarantee::CPU_WEIGHT)?;
        last.value.parse().ok()
    }

    /// The parts of disks that are asked for, beside those that were before.
    #[must_use]
    pub fn disk_shares(&self, before: &DiskShares) -> DiskShares {
        let mut shares = before.clone();
        let written = self.writes.iter();
        for write in written.filter(|write| write.file == io::WEIGHT) {
            match write.value.split_once(' ') {
                None => shares.usual = write.value.parse().ok(),
                Some((disk, share)) => {
                    let share = share.parse().ok();
                    shares
                        .of
                        .extend(share.map(|share| (disk.to_owned(), share)));
                }
            }
        }
        shares
    }
}

impl CgroupWrite {
    /// A line for a file that must be there.
    pub(super) fn new(file: &str, value: &dyn fmt::Display, field: &str) -> Self {
        Self {
            file: file.to_owned(),
            value: value.to_string(),
            field: format!("linux.resources.{field}"),
            if_absent: IfAbsent::Fail,
        }
    }

    /// The same, but it is no harm if the file is missing.
    pub(super) fn or_skip(self) -> Self {
        Self {
            if_absent: IfAbsent::Skip,
            ..self
        }
    }

    /// The controller that the file belongs to; none for files that every cgroup has.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        let (controller, parameter) = self.file.split_once('.')?;
        let everywhere = controller == "cgroup" || parameter == "pressure";
        (!everywhere).then_some(controller)
    }

    /// Whether this only lifts a limit.
    fn lifts(&self) -> bool {
        self.value == "max"
    }
}

impl fmt::Display for CgroupWrite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "write {:?} to {}", self.value, self.file)
    }
}

/// The limits of a workspace that is made.
pub(super) fn first(
    resources: Option<&Resources>,
    oci_version: &str,
    guarantee: &Guarantee,
    host: &Host,
) -> Result<Limits, CgroupError> {
    let nothing = Resources::default();
    let resources = resources.unwrap_or(&nothing);
    let mut limits = gather(resources, &Present::default())?;
    limits
        .writes
        .extend(other::pids_at_first(resources, oci_version));
    guarantee::gather(guarantee, &mut limits);
    limits
        .writes
        .retain(|write| !write.lifts() || is_available(write, host));
    limits.devices = Some(DeviceFilter::new(&resources.devices));
    let mut limits = finish(limits, host)?;
    provide(guarantee, host, &mut limits)?;
    Ok(limits)
}

/// What is left of the limits of a workspace that has no cgroup to keep them in: none may have been asked for. Rules for
/// devices are in every engine's configurations, whatever its user asked for, so they are passed over with a word.
pub(super) fn unkept(
    resources: &Resources,
    oci_version: &str,
    options: Options,
) -> Result<Limits, CgroupError> {
    let mut limits = gather(resources, &Present::default())?;
    limits
        .writes
        .extend(other::pids_at_first(resources, oci_version));
    if let Some(write) = limits.writes.iter().find(|write| !write.lifts()) {
        return Err(CgroupError::Unkept {
            field: write.field.clone(),
            disabled: options.manager == Manager::Disabled,
        });
    }
    let mut nothing = Limits {
        ignored: limits.ignored,
        ..Limits::default()
    };
    if !resources.devices.is_empty() && !options.rootless {
        nothing.ignored.push(
            "ignoring linux.resources.devices: without a cgroup (--cgroup-manager disabled) no device is refused"
                .to_owned(),
        );
    }
    Ok(nothing)
}

/// The changes of a workspace that is there.
///
/// # Errors
///
/// As for a workspace that is made; besides, what is in force counts for fields that depend on each other.
pub fn update(
    resources: &Resources,
    present: &Present,
    host: &Host,
) -> Result<Limits, CgroupError> {
    let mut limits = gather(resources, present)?;
    limits.writes.extend(other::pids_at_update(resources));
    limits.devices = (!resources.devices.is_empty()).then(|| DeviceFilter::new(&resources.devices));
    limits.check_before_update = resources
        .memory
        .as_ref()
        .and_then(|memory| memory.check_before_update)
        .unwrap_or_default();
    finish(limits, host)
}

/// Adds what a workspace that is there shall be promised. What it is promised no more is written as nothing.
pub(super) fn promise(
    promised: &Guarantee,
    host: &Host,
    limits: &mut Limits,
) -> Result<(), CgroupError> {
    let mut more = Limits::default();
    guarantee::gather(promised, &mut more);
    // The weight is written when all are weighed; here it would undo what the share has become.
    more.writes
        .retain(|write| write.file != guarantee::CPU_WEIGHT);
    if promised.memory_bytes == 0 && host.cgroup.controllers.contains("memory") {
        let nothing = guarantee::write(guarantee::MEMORY_MIN, 0, "memory.reserve");
        more.writes.push(nothing.or_skip());
    }
    let more = finish(more, host)?;
    limits.writes.extend(more.writes);
    limits.controllers.extend(more.controllers);
    provide(promised, host, limits)
}

/// Sees to the controllers of weights that are written when all are weighed.
fn provide(promised: &Guarantee, host: &Host, limits: &mut Limits) -> Result<(), CgroupError> {
    for (controller, key) in guarantee::needs(promised) {
        if !host.cgroup.controllers.contains(controller) {
            let field = format!("annotations.{PREFIX}{key}");
            return Err(missing_controller(field, controller, host));
        }
        limits.controllers.insert(controller.to_owned());
    }
    Ok(())
}

fn gather(resources: &Resources, present: &Present) -> Result<Limits, CgroupError> {
    let mut limits = Limits::default();
    if let Some(memory) = &resources.memory {
        memory::gather(memory, present, &mut limits)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu::gather(cpu, present, &mut limits)?;
    }
    if let Some(block_io) = &resources.block_io {
        io::gather(block_io, &mut limits);
    }
    other::gather(resources, &mut limits)?;
    Ok(limits)
}

/// Looks whether every controller is there.
fn finish(mut limits: Limits, host: &Host) -> Result<Limits, CgroupError> {
    limits.filter_optional = host.caller.in_user_namespace || host.caller.uid != 0;
    for write in &limits.writes {
        let Some(controller) = write.controller() else {
            continue;
        };
        if !is_available(write, host) {
            return Err(unavailable(write, controller, host));
        }
        limits.controllers.insert(controller.to_owned());
    }
    Ok(limits)
}

fn is_available(write: &CgroupWrite, host: &Host) -> bool {
    write
        .controller()
        .is_none_or(|controller| host.cgroup.controllers.contains(controller))
}

fn unavailable(write: &CgroupWrite, controller: &str, host: &Host) -> CgroupError {
    missing_controller(write.field.clone(), controller, host)
}

fn missing_controller(field: String, controller: &str, host: &Host) -> CgroupError {
    let controller = controller.to_owned();
    match host.cgroup.legacy_place(&controller) {
        Some(legacy) => CgroupError::BoundToV1 {
            field,
            legacy: legacy.to_owned(),
            controller,
        },
        None => CgroupError::NoController {
            field,
            controller,
            mount: host.cgroup.mount.clone().unwrap_or_default(),
        },
    }
}
