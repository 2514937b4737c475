//! Puts the parts of a plan in their order.
//!
//! The order is that of `runtime-spec/lifecycle.md`: namespaces, tree, hooks, root, names, labels, parameters,
//! what is hidden, limits, identity, rights, start, program.

use std::path::Path;
use std::path::PathBuf;

use crate::plan::Options;
use crate::plan::Outside;
use crate::plan::Plan;
use crate::plan::error::PlanError;
use crate::plan::hooks;
use crate::plan::mounts;
use crate::plan::namespaces;
use crate::plan::namespaces::Namespaces;
use crate::plan::namespaces::NetworkMaker;
use crate::plan::process;
use crate::plan::process::Rights;
use crate::plan::step::Barrier;
use crate::plan::step::Device;
use crate::plan::step::Entry;
use crate::plan::step::Idmap;
use crate::plan::step::Overlay;
use crate::plan::step::Step;
use crate::spec::Spec;
use crate::spec::asked::Layer;
use crate::spec::sysctl;

/// Turns a spec into the list of things to do.
///
/// # Errors
///
/// [`PlanError`], whose message starts with the field at fault. The spec must have been validated.
pub fn build(spec: &Spec, options: &Options) -> Result<Plan, PlanError> {
    let mut namespaces = namespaces::of(spec);
    if options.rootless && !namespaces.has(namespaces::USER) {
        return Err(PlanError::UserNamespaceNeeded);
    }
    process::need_selinux("linux.mountLabel", &spec.linux.mount_label, options)?;
    let outside = outside(spec, &namespaces);
    namespaces.network_by = network_maker(&namespaces, &outside, options);
    let mut steps = Vec::new();
    steps.push(Step::Session);
    if !outside.is_empty() || namespaces.mapping.is_some() || options.placed_later {
        steps.push(Step::Await(Barrier::Outside));
    }
    steps.extend(first(spec, &namespaces, options));
    steps.extend(tree(spec, &namespaces, options)?);
    steps.extend(names(spec));
    let process = &spec.process;
    steps.extend(process::labels(process, options)?);
    steps.extend(parameters(spec));
    steps.extend(mounts::concealed(spec));
    let propagation = spec.linux.rootfs_propagation;
    steps.extend(propagation.map(|wanted| Step::RootPropagation {
        flag: mounts::propagation(wanted),
        recursive: wanted.recursive,
    }));
    steps.extend(process::tuning(
        spec,
        process,
        namespaces.has(namespaces::USER),
    ));
    let Rights { before, after } = process::rights(spec, process, options)?;
    steps.extend(before);
    if namespaces.network_by == NetworkMaker::Outside {
        let needed = steps.iter().position(needs_network);
        let at = needed.map_or(steps.len(), |first| behind_devices(&mut steps, first));
        // Who puts a link into it sees to the loopback interface too; else whoever makes it does, unless something here could
        // come before that.
        let without_link = !options.bridged;
        namespaces.loopback = without_link && !steps.iter().any(needs_loopback);
        let loopback = (without_link && !namespaces.loopback).then_some(Step::Loopback);
        steps.splice(at..at, [Step::JoinNetwork].into_iter().chain(loopback));
    }
    steps.push(Step::Await(Barrier::Start));
    let start = &spec.hooks.start_container;
    steps.extend(hooks::steps(
        "startContainer",
        start,
        "created",
        spec,
        options,
    ));
    steps.extend(after);
    Ok(Plan {
        namespaces,
        outside,
        steps,
    })
}

/// Where there are users of its own it belongs to them, and is made with them; and who makes one outside must be able to
/// come back to its own.
fn network_maker(namespaces: &Namespaces, outside: &Outside, options: &Options) -> NetworkMaker {
    let with_others = namespaces.new & namespaces::NETWORK == 0
        || namespaces.has(namespaces::USER)
        || namespaces.two_generations();
    let one_way = options.nested || options.rootless;
    if with_others || one_way || !outside.interfaces.is_empty() {
        NetworkMaker::Birth
    } else {
        NetworkMaker::Outside
    }
}

/// File systems that are the same whatever the network of who mounts them.
const WITHOUT_NETWORK: [&str; 7] = [
    "proc", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2",
];

/// Whether what a step does, or who is called by it, depends on the network namespace of the process.
fn needs_network(step: &Step) -> bool {
    if let Step::Mount(mount) = step {
        return !WITHOUT_NETWORK.contains(&mount.kind.as_str());
    }
    if let Step::Bind(bind) = step {
        // What `/proc/net` is depends on who looks it up.
        return bind.source.starts_with("/proc");
    }
    matches!(
        step,
        Step::Await(Barrier::RuntimeHooks) | Step::Hook(_) | Step::Enter(_)
    )
}

/// Puts file systems that need the network, from the `first` on, behind the devices and links that follow, where neither has to
/// do with the other: the process makes these while its network is being made. Gives where they are now.
fn behind_devices(steps: &mut [Step], first: usize) -> usize {
    let Some((Step::Mount(mount), _)) = steps.get(first..).and_then(<[Step]>::split_first) else {
        return first;
    };
    // Of one whose place may be a link it is not known where it is.
    if !mount.ordinary {
        return first;
    }
    let top = mount.destination.clone();
    let apart = |path: &Path| !path.starts_with(&top) && !top.starts_with(path);
    let mounts = run_of(
        steps,
        first,
        |step| matches!(step, Step::Mount(mount) if mount.destination.starts_with(&top)),
    );
    let devices = run_of(
        steps,
        first + mounts,
        |step| matches!(step, Step::Device(Device { path, .. }) | Step::Symlink { path, .. } if apart(path)),
    );
    if let Some(both) = steps.get_mut(first..first + mounts + devices) {
        both.rotate_left(mounts);
    }
    first + devices
}

/// How many steps from one on are of a kind.
fn run_of(steps: &[Step], from: usize, kind: impl Fn(&Step) -> bool) -> usize {
    let rest = steps.iter().skip(from);
    rest.take_while(|step| kind(step)).count()
}

/// Whether what a step does, or who is called by it, may want to speak with this network itself.
fn needs_loopback(step: &Step) -> bool {
    if let Step::Mount(mount) = step {
        return mount.kind != "sysfs" && needs_network(step);
    }
    matches!(step, Step::Hook(_))
}

/// What a process in a user namespace has no right to, and what nobody can do from inside.
fn outside(spec: &Spec, namespaces: &Namespaces) -> Outside {
    let inside = namespaces.has(namespaces::USER);
    let interfaces = spec.linux.net_devices.iter().map(|(name, device)| {
        let inner = if device.name.is_empty() {
            name
        } else {
            &device.name
        };
        (name.clone(), inner.clone())
    });
    Outside {
        oom_score: spec.process.oom_score_adj.filter(|_| inside),
        limits: if inside {
            process::limits(&spec.process)
        } else {
            Vec::new()
        },
        interfaces: interfaces.collect(),
    }
}

fn first(spec: &Spec, namespaces: &Namespaces, options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    let in_user_namespace = namespaces.has(namespaces::USER);
    let has_root = namespaces
        .mapping
        .as_ref()
        .is_none_or(|mapping| mapping.root);
    if in_user_namespace && has_root {
        steps.push(Step::BecomeRoot);
    } else if let Some(score) = spec.process.oom_score_adj.filter(|_| !in_user_namespace) {
        steps.push(Step::OomScore(score));
    }
    if namespaces.ipc_later() {
        steps.push(Step::IpcNamespace);
    }
    if namespaces.new & namespaces::CGROUP != 0 {
        steps.push(Step::CgroupNamespace);
    }
    if !options.no_new_keyring {
        steps.push(Step::Keyring(format!("_ses.{}", options.id)));
    }
    // One that is joined later comes up then.
    let with_others = namespaces.network_by == NetworkMaker::Birth;
    if namespaces.new & namespaces::NETWORK != 0 && with_others {
        steps.push(Step::Loopback);
    }
    steps
}

/// The tree, up to the step into it.
fn tree(spec: &Spec, namespaces: &Namespaces, options: &Options) -> Result<Vec<Step>, PlanError> {
    let path = options.bundle.join(&spec.root.path);
    let mut steps = Vec::new();
    if namespaces.has(namespaces::MOUNT) {
        steps.push(Step::Propagate(mounts::inherited(spec)));
        steps.push(match &options.layer {
            Some(layer) => {
                let layers = overlay(path, layer, spec, namespaces, options);
                Step::Overlay(Box::new(layers))
            }
            None => {
                let cut_off = mounts::inherited(spec) == mounts::SHARED;
                Step::Root { path, cut_off }
            }
        });
        steps.extend(mounts::mounts(spec, namespaces, options)?);
        steps.extend(mounts::devices(spec, namespaces));
    } else {
        shared(spec, options)?;
        steps.push(Step::PlainRoot(path));
    }
    if !spec.process.cwd.as_os_str().is_empty() {
        steps.push(Step::Directory(mounts::absolute(&spec.process.cwd)));
    }
    if spec.process.terminal {
        steps.push(process::console(
            &spec.process,
            namespaces.has(namespaces::MOUNT),
        ));
    }
    if !spec.hooks.prestart.is_empty() || !spec.hooks.create_runtime.is_empty() {
        steps.push(Step::Await(Barrier::RuntimeHooks));
    }
    let hooks = &spec.hooks.create_container;
    steps.extend(hooks::steps(
        "createContainer",
        hooks,
        "creating",
        spec,
        options,
    ));
    steps.push(Step::Enter(entry(namespaces, options)));
    if spec.root.readonly && namespaces.has(namespaces::MOUNT) {
        steps.push(Step::ReadonlyRoot);
    }
    Ok(steps)
}

/// The layers of the root of a workspace that shares its root filesystem.
///
/// Owners of the files are mapped into a user namespace unless the root filesystem belongs to the inside already. Who is
/// in a user namespace may not set `trusted.` attributes, so the kernel then keeps its notes in `user.` ones.
pub(super) fn overlay(
    lower: PathBuf,
    layer: &Layer,
    spec: &Spec,
    namespaces: &Namespaces,
    options: &Options,
) -> Overlay {
    let linux = &spec.linux;
    let inside = |id: u32| {
        linux
            .uid_mappings
            .iter()
            .any(|line| (line.host_id..line.host_id.saturating_add(line.size)).contains(&id))
    };
    let new_users = namespaces.new & namespaces::USER != 0;
    let mapped = new_users && !options.rootless && !options.nested && !inside(options.root_owner);
    let mut further = Vec::new();
    if namespaces.has(namespaces::USER) || options.nested {
        further.push(("userxattr".to_owned(), None));
    }
    if !linux.mount_label.is_empty() {
        further.push(("context".to_owned(), Some(linux.mount_label.clone())));
    }
    if layer.volatile {
        further.push(("volatile".to_owned(), None));
    }
    Overlay {
        lower,
        upper: layer.upper.clone().into(),
        work: layer.work.clone().into(),
        idmap: mapped.then(|| Idmap {
            users: namespaces::lines(&linux.uid_mappings),
            groups: namespaces::lines(&linux.gid_mappings),
            recursive: false,
        }),
        options: further,
    }
}

/// Without a mount namespace of its own a workspace must not ask for mounts: they would be the host's.
fn shared(spec: &Spec, options: &Options) -> Result<(), PlanError> {
    let asks = [
        (
            "annotations.dev.bulkhead.rootfs.upper",
            options.layer.is_some(),
        ),
        ("mounts", !spec.mounts.is_empty()),
        ("linux.maskedPaths", !spec.linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", !spec.linux.readonly_paths.is_empty()),
        ("linux.devices", !spec.linux.devices.is_empty()),
        ("root.readonly", spec.root.readonly),
    ];
    match asks.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(PlanError::MountNamespaceNeeded { field }),
        None => Ok(()),
    }
}

fn entry(namespaces: &Namespaces, options: &Options) -> Entry {
    if !namespaces.has(namespaces::MOUNT) {
        Entry::Chroot
    } else if options.no_pivot {
        Entry::Move
    } else {
        Entry::Pivot
    }
}

fn names(spec: &Spec) -> Vec<Step> {
    let mut steps = Vec::new();
    if !spec.hostname.is_empty() {
        steps.push(Step::Hostname(spec.hostname.clone()));
    }
    if !spec.domainname.is_empty() {
        steps.push(Step::Domainname(spec.domainname.clone()));
    }
    steps
}

fn parameters(spec: &Spec) -> impl Iterator<Item = Step> + '_ {
    spec.linux.sysctl.iter().map(|(key, value)| Step::Sysctl {
        key: sysctl::path(key).unwrap_or_else(|| key.clone()),
        value: value.clone(),
    })
}
