//! Turns `linux.resources` and `linux.cgroupsPath` into a place, a list of writes and a device filter.
//!
//! Nothing here touches a cgroup: what the machine has comes in as a [`Host`], and every refusal is made here, before
//! the first directory is. Only cgroup v2 is written to. A limit whose controller cgroup v2 does not have on this
//! machine is refused with the name of the field, of the controller, and of what holds it.

mod annotation;
mod cpu;
pub mod device;
mod error;
pub mod guarantee;
mod io;
mod limits;
mod memory;
mod other;
mod owner;
mod place;
pub mod unit;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

pub use error::CgroupError;
pub use limits::CgroupWrite;
pub use limits::IfAbsent;
pub use limits::Limits;
pub use limits::Present;
pub use limits::update;
pub use place::Place;
pub use place::Unit;
pub use place::expand_slice;

use crate::host::Host;
use crate::spec::Spec;
use crate::spec::asked;
use crate::spec::asked::Asked;
use crate::spec::asked::Guarantee;
use crate::spec::resources::Resources;

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// This program does, with `mkdir(2)`.
    #[default]
    Cgroupfs,
    /// systemd does, as a scope of its own.
    Systemd,
    /// Nobody does: the workspace stays in the cgroup of the caller.
    Disabled,
}

/// What the caller chose, as opposed to the bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Who makes the cgroup.
    pub manager: Manager,
    /// Whether the caller has no power over the machine: then a cgroup that nobody asked anything of may be missing.
    pub rootless: bool,
}

/// The parts of a spec that a cgroup depends on.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The name of the workspace.
    pub id: &'a str,
    /// `ociVersion`: what a limit of zero tasks means has changed in 1.3.
    pub oci_version: &'a str,
    /// `linux.cgroupsPath`, empty if there is none.
    pub path: &'a str,
    /// `linux.resources`.
    pub resources: Option<&'a Resources>,
    /// `annotations`: those that begin with `org.systemd.property.` are for the unit.
    pub annotations: &'a BTreeMap<String, String>,
    /// The user of the host who shall own the cgroup: see [`CgroupPlan::owner`].
    pub owner: Option<u32>,
}

impl<'a> Request<'a> {
    /// Takes what a cgroup depends on out of a bundle's configuration.
    #[must_use]
    pub fn of(id: &'a str, spec: &'a Spec) -> Self {
        Self {
            id,
            oci_version: &spec.oci_version,
            path: &spec.linux.cgroups_path,
            resources: spec.linux.resources.as_ref(),
            annotations: &spec.annotations,
            owner: owner::of(spec),
        }
    }
}

/// Where a workspace is kept and what it may use there.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CgroupPlan {
    /// Where.
    pub place: Place,
    /// What it may use.
    pub limits: Limits,
    /// The controllers that count what is billed; one that cannot be enabled counts nothing.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub counted: BTreeSet<String>,
    /// What the scope is besides its limits; empty if there is none.
    pub properties: Vec<unit::Property>,
    /// The user of the host who is given the cgroup, when the workspace has a user namespace, a cgroup namespace and
    /// a writable view of its cgroup (runtime-spec, "Cgroup ownership").
    pub owner: Option<u32>,
    /// Whether the workspace may start without a cgroup of its own: nothing was asked of one, and the caller may have
    /// no right to make one.
    pub dispensable: bool,
}

/// Plans the cgroup of a workspace.
///
/// # Errors
///
/// If something is asked that this machine or cgroup v2 cannot give; the message begins with the field at fault.
pub fn plan(
    request: &Request<'_>,
    host: &Host,
    options: Options,
) -> Result<CgroupPlan, CgroupError> {
    let guarantee = Asked::of(request.annotations)?.guarantee;
    let place = place::choose(request, host, options, guarantee.is_some())?;
    if guarantee.is_some() {
        place::refuse_unweighed(&place, host, options)?;
    }
    let mut limits = match (&place, request.resources) {
        (Place::Nowhere, None) => Limits::default(),
        (Place::Nowhere, Some(asked)) => limits::unkept(asked, request.oci_version, options)?,
        (_, resources) => limits::first(resources, request.oci_version, &guarantee, host)?,
    };
    let properties = match &place {
        Place::Scope { unit, .. } => {
            let mut all = unit::scope(request.id, &unit.slice);
            all.extend(annotation::properties(request.annotations)?);
            all
        }
        Place::Nowhere | Place::Directory { .. } => Vec::new(),
    };
    limits.filter_optional |= options.rootless;
    let dispensable = options.rootless && request.path.is_empty() && limits.writes.is_empty();
    Ok(CgroupPlan {
        place,
        limits,
        counted: counted(request, host, options),
        properties,
        owner: request.owner,
        dispensable,
    })
}

/// What a workspace that is billed is counted by, of what this machine has. A user without power over the machine is
/// counted by what was delegated.
fn counted(request: &Request<'_>, host: &Host, options: Options) -> BTreeSet<String> {
    let billed = |key: &String| key.starts_with(asked::PREFIX);
    if options.rootless || !request.annotations.keys().any(billed) {
        return BTreeSet::new();
    }
    let counting = ["cpu", "io", "memory", "pids"].map(str::to_owned);
    let present = |name: &String| host.cgroup.controllers.contains(name);
    counting.into_iter().filter(present).collect()
}

/// Adds to the changes of a workspace that is there what it shall be promised.
///
/// # Errors
///
/// If it is where nobody weighs its neighbours, or a controller is not there.
pub fn promise(
    place: &Place,
    promised: &Guarantee,
    host: &Host,
    limits: &mut Limits,
) -> Result<(), CgroupError> {
    let manager = match place {
        Place::Nowhere => Manager::Disabled,
        Place::Directory { .. } => Manager::Cgroupfs,
        Place::Scope { .. } => Manager::Systemd,
    };
    let rootless = host.caller.uid != 0 || host.caller.in_user_namespace;
    place::refuse_unweighed(place, host, Options { manager, rootless })?;
    limits::promise(promised, host, limits)
}
