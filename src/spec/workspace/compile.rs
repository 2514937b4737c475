//! Turns a document into a plain OCI configuration, the same bytes for the same document and surroundings.

use std::collections::BTreeMap;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use super::Document;
use super::DocumentError;
use super::Mode;
use super::Surroundings;
use super::Who;
use super::amount::Word;
use super::annotations;
use super::error::Fault;
use super::error::Problem;
use super::resources;
use crate::spec::Root;
use crate::spec::Spec;
use crate::spec::linux::Namespace;
use crate::spec::linux::NamespaceKind;
use crate::spec::mounts::Mount;
use crate::spec::process::Capabilities;
use crate::spec::process::Process;
use crate::spec::process::User;
use crate::spec::vm::HwConfig;
use crate::spec::vm::Kernel;
use crate::spec::vm::Vm;

/// The oldest version of OCI that has all that a document compiles to, so that older runtimes take the bundle too.
const OCI_VERSION: &str = "1.0.2";

/// The cgroup that all workspaces of documents share as siblings.
const PARENT: &str = "/bulkhead";

/// What programs of distributions expect to be allowed: the set that container engines have settled on.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
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

impl Document {
    /// The OCI configuration that asks for what the document says.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when neither the document nor an image names a program, when a rate is asked of a root
    /// filesystem that is on no block device, and for whatever was changed since it was read and now means nothing.
    pub fn compile(&self, around: &Surroundings) -> Result<Spec, DocumentError> {
        self.compiled(around)
            .map_err(|fault| self.origin.place(fault))
    }

    fn compiled(&self, around: &Surroundings) -> Result<Spec, Fault> {
        self.check()?;
        let mut spec = Spec::starter();
        spec.oci_version = OCI_VERSION.to_owned();
        // The tree of an image is shared: without a layer above it nobody may write to it.
        let shared = around.image.is_some() && around.layer.is_none();
        spec.root = Root {
            path: around.rootfs.clone(),
            readonly: self.readonly || shared,
        };
        spec.hostname = self
            .hostname
            .clone()
            .unwrap_or_else(|| self.name.to_string());
        *spec.process = self.process(around)?;
        spec.mounts.extend(self.bind_mounts(&around.base)?);
        spec.annotations = annotations::annotations(self, around);
        spec.vm = self.vm(&around.base);
        spec.linux.cgroups_path = format!("{PARENT}/{}", self.name);
        self.place_network(&mut spec);
        let limits = spec.linux.resources.get_or_insert_default();
        resources::limit(self, around.device, limits)?;
        Ok(spec)
    }

    fn process(&self, around: &Surroundings) -> Result<Process, Fault> {
        let image = around.image.clone().unwrap_or_default();
        let from_image = || image.user.as_deref().map(of_image).transpose();
        let user = match self.user {
            Some(who) => Some(who),
            None => from_image()?,
        };
        let all = CAPABILITIES.map(str::to_owned).to_vec();
        let starter = Spec::starter().process;
        Ok(Process {
            terminal: false,
            user: user.map(numbers).unwrap_or_default(),
            args: self.program(&image.command)?.to_vec(),
            env: environment(starter.env, &image.env, &self.env),
            cwd: self
                .cwd
                .clone()
                .or(image.cwd.map(PathBuf::from))
                .unwrap_or_else(|| PathBuf::from("/")),
            capabilities: Some(Capabilities {
                bounding: all.clone(),
                effective: all.clone(),
                permitted: all,
                ..Capabilities::default()
            }),
            rlimits: Vec::new(),
            ..*starter
        })
    }

    /// The program to run: the document's, or else the image's.
    fn program<'a>(&'a self, image: &'a [String]) -> Result<&'a [String], Fault> {
        match (self.command.as_slice(), image) {
            ([], []) => {
                let expected = "the program and its arguments, as the root names none".to_owned();
                Err(Fault::here(Problem::Missing { expected }).below("command"))
            }
            ([], image) => Ok(image),
            (own, _) => Ok(own),
        }
    }

    fn bind_mounts(&self, base: &Path) -> Result<Vec<Mount>, Fault> {
        let mounts = self.mount.iter().enumerate().map(|(index, mount)| {
            let source = absolute(base, &mount.source);
            let source = source.into_os_string().into_string().map_err(|_| {
                let text = "leads through a directory whose name is no UTF-8";
                Fault::meaning(format!("mount[{index}].source"), text)
            })?;
            let mode = match mount.mode {
                Mode::Rw => "rw",
                Mode::Ro => "rro",
            };
            let options = ["rbind", "rprivate", "nosuid", "nodev", mode];
            Ok(Mount {
                destination: mount.target.clone(),
                kind: "bind".to_owned(),
                source,
                options: options.map(str::to_owned).to_vec(),
                ..Mount::default()
            })
        });
        mounts.collect()
    }

    fn vm(&self, base: &Path) -> Option<Vm> {
        let machine = self.machine.as_ref()?;
        let named = machine.kernel.as_deref().filter(|word| *word != "default");
        let hardware = machine.vcpus.map(|vcpus| HwConfig {
            vcpus: Some(vcpus),
            ..HwConfig::default()
        });
        Some(Vm {
            kernel: Kernel {
                path: named.map_or_else(PathBuf::new, |word| kernel(base, word)),
                ..Kernel::default()
            },
            hw_config: hardware,
            ..Vm::default()
        })
    }

    /// Leaves the network to the host, joins a namespace that is there, or keeps the new one.
    fn place_network(&self, spec: &mut Spec) {
        let bridge = self.network.as_ref().map(|network| network.bridge.as_str());
        let namespaces = &mut spec.linux.namespaces;
        match bridge {
            Some("host") => namespaces.retain(|one| one.kind != NamespaceKind::Network),
            Some(path) if path.starts_with('/') => {
                let joined = Namespace {
                    kind: NamespaceKind::Network,
                    path: PathBuf::from(path),
                };
                namespaces.retain(|one| one.kind != NamespaceKind::Network);
                namespaces.push(joined);
            }
            _ => {}
        }
    }
}

fn numbers(who: Who) -> User {
    User {
        uid: who.uid,
        gid: who.gid,
        ..User::default()
    }
}

fn of_image(text: &str) -> Result<Who, Fault> {
    Who::read(text).ok_or_else(|| {
        let said =
            format!("the image names the user {text:?}, which it does not know; give UID:GID");
        Fault::meaning("user", said)
    })
}

/// The variables of all, the later ones winning; each stands where it stood first.
fn environment(
    usual: Vec<String>,
    image: &[String],
    own: &BTreeMap<String, String>,
) -> Vec<String> {
    let own = own.iter().map(|(name, value)| format!("{name}={value}"));
    // A terminal is named by those who have one.
    let usual = usual.into_iter().filter(|pair| !pair.starts_with("TERM="));
    let mut all: Vec<String> = Vec::new();
    for pair in usual.chain(image.iter().cloned()).chain(own) {
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|one| name(one) == name(&pair)) {
            Some(one) => *one = pair,
            None => all.push(pair),
        }
    }
    all
}

/// A path of the document, taken from the document's directory; links in it are left to whoever follows them.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    let parts = path.components();
    base.join(
        parts
            .filter(|part| *part != Component::CurDir)
            .collect::<PathBuf>(),
    )
}

/// A word without a slash is the name of a guest of this host.
fn kernel(base: &Path, word: &str) -> PathBuf {
    match word.contains('/') {
        true => absolute(base, Path::new(word)),
        false => PathBuf::from(word),
    }
}
