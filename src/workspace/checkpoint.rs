//! Saves the processes of a workspace to files.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::backend::container::criu::Choices;
use crate::backend::container::criu::Event as CriuEvent;
use crate::backend::container::criu::Kind;
use crate::backend::container::criu::MountMap;
use crate::backend::container::criu::Request;
use crate::backend::container::criu::Witness;
use crate::backend::container::criu::Worker;
use crate::backend::container::criu::name_below;
use crate::plan;
use crate::plan::Plan;
use crate::plan::external;
use crate::plan::external::External;
use crate::plan::namespaces;
use crate::spec::asked::Asked;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::sys::mountinfo;
use crate::sys::mountinfo::Mounted;
use crate::workspace::blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::images;
use crate::workspace::images::Images;
use crate::workspace::images::ImagesError;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::notify;
use crate::workspace::store;
use crate::workspace::store::Store;
use crate::workspace::streams;
use crate::workspace::streams::Stream;
use crate::workspace::wiring;

/// How long processes that CRIU has killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a workspace is saved.
#[derive(Debug, Clone)]
pub struct Saving {
    /// Where.
    pub images: Images,
    /// Save memory only, and let the processes go on.
    pub pre_dump: bool,
    /// The descriptor on which the readiness of the page server is told.
    pub status_fd: Option<i32>,
}

/// Saves a workspace; unless its processes are let go on, it has ended then and can be restored under the same name.
///
/// # Errors
///
/// [`NotNow`] unless it runs or is paused; [`WorkspaceError::Images`] with the end of CRIU's log.
pub fn checkpoint(store: &Store, id: &ContainerId, saving: &Saving) -> Result<(), WorkspaceError> {
    let workspace = Workspace::find_locked(store, id)?;
    workspace.only_container("checkpoint")?;
    lifecycle::after(workspace.status()?, Event::Save)?;
    let ended = NotNow {
        state: Status::Stopped,
        event: Event::Save,
    };
    let init = workspace.record.init.as_ref().ok_or(ended)?;
    // Held so that the number stays this process's until CRIU has seized it.
    let _process = workspace.open_first()?.ok_or(ended)?;
    let subject = Subject::of(&workspace, init.pid)?;
    subject.save(saving)?;
    if saving.pre_dump || saving.images.choices.leave_running {
        return Ok(());
    }
    workspace
        .enclosure()?
        .wait_empty(Instant::now() + PATIENCE)?;
    Ok(workspace.home.write(store::CHECKPOINT, b"")?)
}

/// What CRIU must know of a workspace to save it.
struct Subject<'a> {
    workspace: &'a Workspace,
    pid: i32,
    plan: Plan,
    externals: Vec<External>,
    annotations: BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    fn of(workspace: &'a Workspace, pid: i32) -> Result<Self, WorkspaceError> {
        let mut spec = workspace.spec()?;
        notify::prepare_again(&mut spec, &workspace.home);
        let asked = Asked::of(&spec.annotations)?;
        if asked.layer.is_some() {
            return Err(ImagesError::Layered.into());
        }
        if wiring::asked_for(&asked).is_some() {
            return Err(ImagesError::Bridged.into());
        }
        let options = plan::Options {
            id: workspace.record.id.to_string(),
            bundle: workspace.record.bundle.clone(),
            cgroup: workspace.record.place.directory(),
            apparmor: blueprint::apparmor(&spec.process),
            selinux: blueprint::selinux(&spec, &spec.process),
            ..plan::Options::default()
        };
        let plan = plan::build(&spec, &options)?;
        if !plan.namespaces.has(namespaces::MOUNT) {
            return Err(ImagesError::NoMountNamespace.into());
        }
        let externals = external::of(&plan);
        Ok(Self {
            workspace,
            pid,
            plan,
            externals,
            annotations: spec.annotations,
        })
    }

    fn save(&self, saving: &Saving) -> Result<(), WorkspaceError> {
        let directories = saving.images.open(true)?;
        saving.images.check_parent()?;
        let rootfs = &self.workspace.record.rootfs;
        let config = images::options_file(&self.annotations, rootfs)?;
        let choices = Choices {
            config: config.as_ref().map(images::path_of),
            ..saving.images.choices.clone()
        };
        let streams = streams::of(self.pid).map_err(unreadable)?;
        let kind = match saving.pre_dump {
            true => Kind::PreDump,
            false => Kind::Dump,
        };
        let frozen = self.workspace.record.place.directory();
        let request = Request {
            kind,
            choices: &choices,
            images: directories.images.as_fd(),
            work: directories.work.as_fd(),
            pid: self.pid,
            root: rootfs.clone(),
            mounts: self.mounts()?,
            external: self.external(&streams)?,
            inherited: Vec::new(),
            joined: Vec::new(),
            freeze: frozen.filter(|place| place.exists()),
            cgroup: None,
        };
        if kind == Kind::Dump {
            write_streams(&saving.images.path, &streams)?;
        }
        let kept = [request.images, request.work];
        let worker = Worker::start(None, None, &kept).map_err(ImagesError::from)?;
        let mut witness = Teller(saving.status_fd);
        worker
            .serve(&request, &directories.log, &mut witness)
            .map_err(ImagesError::from)?;
        Ok(())
    }

    /// The mounts inside that are the host's, by where they are and by name.
    fn mounts(&self) -> Result<MountMap, WorkspaceError> {
        let inside = mountinfo::of_process(self.pid).map_err(unreadable)?;
        let own = mountinfo::of_process(own_pid()).map_err(unreadable)?;
        Ok(name_mounts(&self.externals, &inside, &own)?)
    }

    /// Namespaces that were joined, and standard streams that are files of the host.
    fn external(&self, streams: &[Stream]) -> Result<Vec<String>, WorkspaceError> {
        let mut external: Vec<String> = streams
            .iter()
            .filter(|stream| stream.external)
            .map(|stream| stream.key.clone())
            .collect();
        for join in &self.plan.namespaces.join {
            if let Some((kind, key)) = external_namespace(join.kind) {
                let path = format!("/proc/{}/ns/{kind}", self.pid);
                let inode = std::fs::metadata(path).map_err(unreadable)?.ino();
                external.push(format!("{kind}[{inode}]:{key}"));
            }
        }
        Ok(external)
    }
}

/// The kinds of namespaces that stay outside of an image, and how they are called in it.
pub(super) fn external_namespace(kind: u64) -> Option<(&'static str, &'static str)> {
    match kind {
        namespaces::NETWORK => Some(("net", "extRootNetNS")),
        namespaces::PID => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Finds each external mount inside: at the place that the configuration names; or else, when links in the image have
/// led it elsewhere, as a mount that shows the same part of the same file system. No path is looked up inside.
fn name_mounts(
    externals: &[External],
    inside: &[Mounted],
    own: &[Mounted],
) -> Result<MountMap, ImagesError> {
    let mut naming = Naming {
        inside,
        own,
        claimed: BTreeSet::new(),
        named: Vec::new(),
    };
    let mut elsewhere = Vec::new();
    for external in externals.iter().rev() {
        let there = |mounted: &&Mounted| mounted.at == external.bind.destination;
        match naming.free().into_iter().rev().find(there) {
            Some(top) => naming.name(external, top)?,
            None => elsewhere.push(external),
        }
    }
    for external in elsewhere {
        let Some(source) = source_of(&real(&external.bind.source), own) else {
            continue;
        };
        let same = |mounted: &&Mounted| {
            mounted.shows_same(&source) && mounted.read_only == external.read_only
        };
        if let Some(top) = naming.free().into_iter().find(same) {
            naming.name(external, top)?;
        }
    }
    Ok(naming.named)
}

/// Mounts inside, of which some have got their names.
struct Naming<'a> {
    inside: &'a [Mounted],
    own: &'a [Mounted],
    claimed: BTreeSet<u32>,
    named: MountMap,
}

impl<'a> Naming<'a> {
    fn free(&self) -> Vec<&'a Mounted> {
        let unclaimed = |mounted: &&Mounted| !self.claimed.contains(&mounted.id);
        self.inside.iter().filter(unclaimed).collect()
    }

    /// Names a mount, and those on it that the host has there too.
    fn name(&mut self, external: &External, top: &'a Mounted) -> Result<(), ImagesError> {
        if external.read_only && !top.read_only {
            return Err(ImagesError::Writable {
                destination: external.bind.destination.clone(),
            });
        }
        let source = real(&external.bind.source);
        for mounted in tree_of(&self.free(), top) {
            let below = mounted.at.strip_prefix(&top.at).unwrap_or(Path::new(""));
            let hosts = || {
                let host = mountinfo::at(self.own, &source.join(below));
                host.is_some_and(|host| host.shows_same(mounted))
            };
            if mounted.id == top.id || (external.bind.recursive && hosts()) {
                self.claimed.insert(mounted.id);
                let at = mounted.at.as_os_str().as_bytes().to_vec();
                self.named.push((at, name_below(external, below)));
            }
        }
        Ok(())
    }
}

/// A path of the host without links.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A mount and those that stand on it.
fn tree_of<'a>(mounts: &[&'a Mounted], top: &'a Mounted) -> Vec<&'a Mounted> {
    let mut tree = vec![top];
    let mut next = 0;
    while let Some(id) = tree.get(next).map(|mounted| mounted.id) {
        tree.extend(mounts.iter().filter(|mounted| mounted.parent == id));
        next += 1;
    }
    tree
}

/// What a path of the host shows, as if it were mounted.
fn source_of(real: &Path, own: &[Mounted]) -> Option<Mounted> {
    let holders = own
        .iter()
        .rev()
        .filter(|mounted| real.starts_with(&mounted.at));
    let holder = holders.max_by_key(|mounted| mounted.at.components().count())?;
    let below = real.strip_prefix(&holder.at).ok()?;
    Some(Mounted {
        root: holder.root.join(below).components().collect(),
        ..holder.clone()
    })
}

fn write_streams(images: &Path, streams: &[Stream]) -> Result<(), WorkspaceError> {
    let keys: Vec<&str> = streams.iter().map(|stream| stream.key.as_str()).collect();
    let path = images.join(streams::FILE);
    let text = serde_json::to_vec(&keys)?;
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&text));
    let what = "write";
    Ok(written.map_err(|source| ImagesError::Streams { what, path, source })?)
}

fn unreadable(source: std::io::Error) -> WorkspaceError {
    WorkspaceError::Unreadable {
        path: "/proc".into(),
        source,
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or_default()
}

/// Tells whoever waits that the page server takes questions.
#[derive(Debug)]
struct Teller(Option<i32>);

impl Witness for Teller {
    fn saw(&mut self, event: CriuEvent) -> anyhow::Result<()> {
        if let (CriuEvent::Ready, Some(fd)) = (event, self.0.take()) {
            let path = format!("/proc/self/fd/{fd}");
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .write_all(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::step::Bind;

    fn mounted(id: u32, parent: u32, root: &str, at: &str, read_only: bool) -> Mounted {
        Mounted {
            id,
            parent,
            device: "8:1".to_owned(),
            root: root.into(),
            at: at.into(),
            read_only,
        }
    }

    fn external(destination: &str, read_only: bool) -> External {
        External {
            name: format!("bind:{destination}"),
            bind: Bind {
                destination: destination.into(),
                source: "/nowhere".into(),
                recursive: true,
                ..Bind::default()
            },
            read_only,
        }
    }

    #[test]
    fn mounts_are_named_by_their_place_in_the_configuration() {
        let inside = [
            mounted(1, 0, "/r", "/", false),
            mounted(2, 1, "/srv", "/data", false),
            mounted(3, 2, "/other", "/data/below", false),
        ];
        let host = [mounted(9, 0, "/other", "/nowhere/below", false)];
        let named = name_mounts(&[external("/data", false)], &inside, &host).unwrap();
        let at: Vec<&[u8]> = named.iter().map(|(at, _)| at.as_slice()).collect();
        let names: Vec<&[u8]> = named.iter().map(|(_, name)| name.as_slice()).collect();
        assert_eq!(at, [b"/data".as_slice(), b"/data/below"]);
        assert_eq!(names, [b"bind:/data".as_slice(), b"bind:/data!below"]);
    }

    #[test]
    fn a_mount_of_the_workspace_on_one_of_the_host_is_its_own() {
        let inside = [
            mounted(2, 1, "/srv", "/data", false),
            mounted(3, 2, "/", "/data/tmp", false),
        ];
        let named = name_mounts(&[external("/data", false)], &inside, &[]).unwrap();
        assert_eq!(named.len(), 1);
    }

    #[test]
    fn a_writable_mount_does_not_get_the_name_of_a_read_only_one() {
        let inside = [
            mounted(1, 0, "/r", "/", false),
            mounted(2, 1, "/srv", "/secret", false),
        ];
        let refusal = name_mounts(&[external("/secret", true)], &inside, &[]);
        assert!(matches!(refusal, Err(ImagesError::Writable { .. })));
    }

    #[test]
    fn of_two_mounts_on_one_place_each_gets_its_own_name() {
        let inside = [
            mounted(1, 0, "/r", "/", false),
            mounted(2, 1, "/one", "/data", false),
            mounted(3, 2, "/two", "/data", false),
        ];
        let mut second = external("/data", false);
        second.name = "bind:/data#2".to_owned();
        let named = name_mounts(&[external("/data", false), second], &inside, &[]).unwrap();
        let names: Vec<&[u8]> = named.iter().map(|(_, name)| name.as_slice()).collect();
        assert_eq!(names, [b"bind:/data#2".as_slice(), b"bind:/data"]);
    }
}
