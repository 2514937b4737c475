//! From a bundle to what will be done: everything that can be wrong with it is found here, before anything is made.

use std::path::Path;
use std::path::PathBuf;

use crate::backend::microvm::Machine;
use crate::host::Host;
use crate::plan;
use crate::plan::Plan;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::cgroup::Manager;
use crate::plan::cgroup::Place;
use crate::spec::Spec;
use crate::spec::SpecError;
use crate::spec::asked::Asked;
use crate::spec::asked::Isolation;
use crate::spec::id::ContainerId;
use crate::spec::process::Process;
use crate::workspace::error::WorkspaceError;
use crate::workspace::handing::Descriptors;
use crate::workspace::layer;
use crate::workspace::notify;
use crate::workspace::report::Report;
use crate::workspace::store::Store;
use crate::workspace::wall;
use crate::workspace::wall::Ground;
use crate::workspace::wiring;

/// What a caller says about a workspace that it wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name.
    pub id: ContainerId,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The configuration, where it is not the bundle's.
    pub config: Option<PathBuf>,
    /// Who makes its cgroup.
    pub manager: Manager,
    /// Whether to do without the rights of root; `None` is as the caller is found.
    pub rootless: Option<bool>,
    /// Move the root over `/` in place of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Leave the session keyring alone.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on are handed in, after those of `$LISTEN_FDS`.
    pub preserve_fds: u32,
    /// The wall that the caller wants, whatever the configuration says; `None` leaves it to that.
    pub isolation: Option<Isolation>,
}

impl Wish {
    /// A workspace whose cgroup `manager` makes, and nothing said about it beyond that.
    #[must_use]
    pub fn plain(id: ContainerId, bundle: PathBuf, manager: Manager) -> Self {
        Self {
            id,
            bundle,
            config: None,
            manager,
            rootless: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            isolation: None,
        }
    }
}

/// A configuration, as it is written and as it is meant.
#[derive(Debug, Clone)]
pub struct Written {
    /// The text of `config.json`.
    pub text: Vec<u8>,
    /// What it says.
    pub spec: Spec,
}

impl Written {
    /// Writes a configuration.
    ///
    /// # Errors
    ///
    /// As [`Spec::write`].
    pub fn of(spec: Spec) -> Result<Self, SpecError> {
        let text = spec.write()?;
        Ok(Self { text, spec })
    }
}

/// What will be done for a wish.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// The configuration as it was read.
    pub config: Vec<u8>,
    /// The configuration, understood and completed.
    pub spec: Spec,
    /// Which wall it is put behind.
    pub isolation: Isolation,
    /// What is done to make it: in a child, or in a guest.
    pub plan: Plan,
    /// The machine that it is put into, behind the wall that has one.
    pub machine: Option<Box<Machine>>,
    /// What is done to make its cgroup.
    pub cgroup: CgroupPlan,
    /// Whether its readiness is passed on.
    pub notifies: bool,
    /// What it asks for beyond OCI.
    pub asked: Asked,
}

impl Blueprint {
    /// Reads the bundle and plans what will be done; nothing is changed.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`] names the property or file at fault.
    pub fn draw(wish: &Wish, store: &Store, report: &dyn Report) -> Result<Self, WorkspaceError> {
        let bundle = absolute(&wish.bundle)?;
        let written = read_of(wish, &bundle)?;
        Self::draw_at(bundle, wish, written, store, report)
    }

    /// As [`Blueprint::draw`], for who has just `written` what is in the bundle.
    ///
    /// # Errors
    ///
    /// As [`Blueprint::draw`].
    pub fn draw_from(
        wish: &Wish,
        written: Written,
        store: &Store,
        report: &dyn Report,
    ) -> Result<Self, WorkspaceError> {
        Self::draw_at(absolute(&wish.bundle)?, wish, written, store, report)
    }

    fn draw_at(
        bundle: PathBuf,
        wish: &Wish,
        written: Written,
        store: &Store,
        report: &dyn Report,
    ) -> Result<Self, WorkspaceError> {
        let home = &store.root().join(&wish.id);
        let mut spec = understand(written.spec, report)?;
        let asked = Asked::of(&spec.annotations)?;
        let isolation = wall::chosen(wish.isolation, &asked, &spec);
        let descriptors = Descriptors::find(wish.preserve_fds)?;
        let told = descriptors.environment.iter().cloned();
        spec.process.env.extend(told);
        let notifies = !wall::is_machine(isolation) && notify::manager().is_some();
        if notifies {
            notify::prepare(&mut spec, home);
        }
        wiring::prepare(&mut spec, &asked, home);
        let host = look()?;
        let rootless = is_rootless(&host, wish.rootless);
        plan::network::check(&asked, &spec, rootless)?;
        let rootfs = bundle.join(&spec.root.path);
        let (layer, root_owner) = layer::check(asked.layer.as_ref(), &rootfs)?;
        let mut options = plan::Options {
            preserved: descriptors.count,
            layer,
            root_owner,
            ..options(wish, &bundle, &host, &spec)
        };
        let machine = Ground {
            isolation,
            home,
            places: store.places(),
            host: &host,
        }
        .machine(&spec, &options, report)?;
        let limited = wall::enclosed(&spec, machine.as_deref());
        let cgroup = cgroup(wish, &limited, &host, rootless)?;
        options.cgroup = cgroup.place.directory();
        options.placed_later = matches!(cgroup.place, Place::Scope { .. });
        options.bridged = wiring::asked_for(&asked).is_some();
        let plan = match &machine {
            Some(machine) => machine.plan.plan.clone(),
            None => plan::build(&spec, &options)?,
        };
        Ok(Self {
            bundle,
            rootfs,
            config: written.text,
            spec,
            isolation,
            plan,
            machine,
            cgroup,
            notifies,
            asked,
        })
    }
}

/// What is planned for the cgroup.
fn cgroup(
    wish: &Wish,
    limited: &Spec,
    host: &Host,
    rootless: bool,
) -> Result<CgroupPlan, WorkspaceError> {
    let choice = plan::cgroup::Options {
        manager: wish.manager,
        rootless,
    };
    let request = plan::cgroup::Request::of(wish.id.as_str(), limited);
    Ok(plan::cgroup::plan(&request, host, choice)?)
}

/// What the caller and the machine decide of a plan.
fn options(wish: &Wish, bundle: &Path, host: &Host, spec: &Spec) -> plan::Options {
    plan::Options {
        id: wish.id.to_string(),
        bundle: bundle.to_owned(),
        no_pivot: wish.no_pivot,
        no_new_keyring: wish.no_new_keyring,
        rootless: host.caller.uid != 0,
        nested: host.caller.in_user_namespace,
        apparmor: apparmor(&spec.process),
        selinux: selinux(spec, &spec.process),
        ..plan::Options::default()
    }
}

/// The configuration of a wish.
fn read_of(wish: &Wish, bundle: &Path) -> Result<Written, WorkspaceError> {
    let usual = || bundle.join("config.json");
    let text = read(&wish.config.clone().unwrap_or_else(usual))?;
    let spec = Spec::parse(&text)?;
    Ok(Written { text, spec })
}

/// A configuration that has been checked, and completed for who calls.
fn understand(mut spec: Spec, report: &dyn Report) -> Result<Spec, WorkspaceError> {
    for warning in spec.validate()? {
        report.warning(&format!("{}: {}", warning.path, warning.text));
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    spec.map_caller(uid.as_raw(), gid.as_raw())?;
    Ok(spec)
}

/// Reads a file that a caller named.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, WorkspaceError> {
    std::fs::read(path).map_err(|source| WorkspaceError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// What this machine can do.
pub(super) fn look() -> Result<Host, WorkspaceError> {
    Host::look().map_err(|source| WorkspaceError::Unreadable {
        path: "/proc".into(),
        source,
    })
}

/// Whether the caller has no power over the machine, unless it says so itself.
pub(super) fn is_rootless(host: &Host, said: Option<bool>) -> bool {
    said.unwrap_or(host.caller.uid != 0 || host.caller.in_user_namespace)
}

/// Whether AppArmor is in force (`aa_enabled` reads the same file), as far as a program asks for it.
pub(super) fn apparmor(process: &Process) -> bool {
    let answer = || std::fs::read("/sys/module/apparmor/parameters/enabled");
    let asks = !process.apparmor_profile.is_empty();
    asks && answer().is_ok_and(|answer| answer.starts_with(b"Y"))
}

/// Whether SELinux is in force, as far as a workspace or one of its programs asks for it.
pub(super) fn selinux(spec: &Spec, process: &Process) -> bool {
    let asks = !process.selinux_label.is_empty() || !spec.linux.mount_label.is_empty();
    asks && Path::new("/sys/fs/selinux/enforce").exists()
}

/// An absolute path without `.` and trailing slashes; links in it are left to the kernel.
fn absolute(path: &Path) -> Result<PathBuf, WorkspaceError> {
    let made = std::path::absolute(path);
    let path = made.map_err(|source| WorkspaceError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(path.components().collect())
}
