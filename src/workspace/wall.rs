//! Which wall a workspace is put behind: decided once, here, and found again from its record.

use std::borrow::Cow;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::backend::Backend;
use crate::backend::container::Container;
use crate::backend::microvm::Machine;
use crate::backend::microvm::MicroVm;
use crate::host::Host;
use crate::plan;
use crate::plan::machine;
use crate::plan::machine::Facts;
use crate::plan::machine::Kind;
use crate::spec::Spec;
use crate::spec::asked::Asked;
use crate::spec::asked::Isolation;
use crate::spec::mount_options::MountOptions;
use crate::spec::mounts::Mount;
use crate::workspace::error::WorkspaceError;
use crate::workspace::machines;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;

/// The wall that is asked for: by the command line or the command's name, else by the annotation, else by a `vm` object.
#[must_use]
pub fn chosen(said: Option<Isolation>, asked: &Asked, spec: &Spec) -> Isolation {
    let by_machine = spec.vm.as_ref().map(|_| Isolation::MicroVm);
    said.or(asked.isolation)
        .or(by_machine)
        .unwrap_or(Isolation::Container)
}

/// Whether a kernel of its own is asked for.
pub(super) fn is_machine(isolation: Isolation) -> bool {
    isolation == Isolation::MicroVm
}

/// What stands behind the wall of a workspace whose directory is `home`; `machine` is one that is to be made.
pub(super) fn behind<'a>(
    isolation: Isolation,
    home: BorrowedFd<'a>,
    machine: Option<&'a Machine>,
) -> Box<dyn Backend + 'a> {
    match isolation {
        Isolation::Container => Box::new(Container),
        Isolation::MicroVm => Box::new(MicroVm { home, machine }),
    }
}

/// What the machine of a workspace depends on besides its configuration.
pub(super) struct Ground<'a> {
    /// The wall that was chosen.
    pub(super) isolation: Isolation,
    /// Where the workspace's directory will be.
    pub(super) home: &'a Path,
    /// Where guest kernels are.
    pub(super) places: &'a StateRoot,
    /// What is known of this machine.
    pub(super) host: &'a Host,
}

impl Ground<'_> {
    /// Plans the machine, behind the wall that has one. That there can be none is found here, before anything is made.
    pub(super) fn machine(
        &self,
        spec: &Spec,
        options: &plan::Options,
        report: &dyn Report,
    ) -> Result<Option<Box<Machine>>, WorkspaceError> {
        if !is_machine(self.isolation) {
            if spec.vm.is_some() {
                report.warning(
                    "vm: is ignored: a container shares the host's kernel and has no machine",
                );
            }
            return Ok(None);
        }
        let plan = machine::plan(spec, options, &self.facts(spec, options))?;
        for remark in &plan.remarks {
            report.warning(remark);
        }
        let boot = machines::boot(&plan.kernel, self.places)?;
        Ok(Some(Box::new(Machine { plan, boot })))
    }

    fn facts(&self, spec: &Spec, options: &plan::Options) -> Facts {
        let own = |mount: &Mount| {
            machine::is_bind(mount) && Path::new(&mount.source).starts_with(self.home)
        };
        let sources = spec.mounts.iter().map(|mount| match own(mount) {
            // What this program mounts itself is made with the workspace.
            true => Some(Kind::File),
            false => source(mount, options),
        });
        Facts {
            sources: sources.collect(),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            descriptors: options.preserved,
            rootless: self.host.caller.uid != 0 || self.host.caller.in_user_namespace,
        }
    }
}

/// The configuration with the limits of the enclosure: those of a machine have room for the machine itself.
pub(super) fn enclosed<'a>(spec: &'a Spec, machine: Option<&Machine>) -> Cow<'a, Spec> {
    let Some(machine) = machine else {
        return Cow::Borrowed(spec);
    };
    let mut roomy = spec.clone();
    roomy.linux.resources = Some(machine.plan.resources.clone());
    Cow::Owned(roomy)
}

/// What a bind mount would show, or where a file system is.
fn source(mount: &Mount, options: &plan::Options) -> Option<Kind> {
    if !machine::is_bind(mount) && !machine::is_on_disk(mount) {
        return None;
    }
    let read = MountOptions::of(mount);
    let path = options.bundle.join(&mount.source);
    let followed = !read.source_nofollow && !read.copy_symlink;
    kind(&path, followed)
}

fn kind(path: &Path, follow: bool) -> Option<Kind> {
    let found = if follow {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    let found = found.ok()?.file_type();
    Some(if found.is_dir() {
        Kind::Directory
    } else if found.is_symlink() {
        Kind::Link
    } else if found.is_block_device() {
        Kind::Block
    } else if found.is_char_device() || found.is_fifo() || found.is_socket() {
        Kind::Other
    } else {
        Kind::File
    })
}
