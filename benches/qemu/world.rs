//! What both sides are given: a guest, a bundle whose program says one byte, and a place for everything.

use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;

use bulkhead::agent::wire::Create;
use bulkhead::agent::wire::Output;
use bulkhead::agent::wire::Streams;
use bulkhead::guest;
use bulkhead::guest::Guests;
use bulkhead::plan::cgroup::Manager;
use bulkhead::plan::machine::MachinePlan;
use bulkhead::spec::asked::Isolation;
use bulkhead::workspace::blueprint::Blueprint;
use bulkhead::workspace::blueprint::Wish;
use bulkhead::workspace::report::Counted;
use bulkhead::workspace::report::End;
use bulkhead::workspace::report::Report;
use bulkhead::workspace::root::StateRoot;
use bulkhead::workspace::store::Store;
use serde_json::json;

use crate::Outcome;

/// Everything that both sides have in common.
#[derive(Debug)]
pub(crate) struct World {
    /// The product.
    pub(crate) bulkhead: PathBuf,
    /// The state root with the guest in it.
    pub(crate) root: PathBuf,
    /// A directory for everything; it goes with the test machine.
    pub(crate) home: PathBuf,
    /// A bundle whose program says one byte and stays.
    pub(crate) bundle: PathBuf,
    /// The kernel, an ELF file.
    pub(crate) kernel: PathBuf,
    /// Its first files, with the agent.
    pub(crate) initramfs: PathBuf,
    /// The words on its command line.
    pub(crate) cmdline: String,
    /// What is planned for the bundle.
    pub(crate) plan: MachinePlan,
}

/// The processes of a machine, which end with this.
#[derive(Debug)]
pub(crate) struct Processes {
    /// The one with the guest's memory.
    pub(crate) vmm: Child,
    /// The file server, if there is one.
    pub(crate) files: Option<Child>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in [Some(&mut self.vmm), self.files.as_mut()]
            .into_iter()
            .flatten()
        {
            // One that has ended already cannot be killed.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// A machine that is to be started, the same on both sides.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// Its first files.
    pub(crate) initramfs: PathBuf,
    /// The words on its command line.
    pub(crate) cmdline: String,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// A directory that is served under the tag `share`, with the tree in its subdirectory `root`.
    pub(crate) share: Option<PathBuf>,
    /// A disk.
    pub(crate) disk: Option<PathBuf>,
    /// The name of a tap that is there, and whether the kernel moves its frames.
    pub(crate) tap: Option<(String, bool)>,
    /// Whether there is a socket device.
    pub(crate) vsock: bool,
    /// Where its serial port writes to.
    pub(crate) serial: PathBuf,
}

struct Silent;

impl Report for Silent {
    fn warning(&self, _text: &str) {}
    fn debug(&self, _text: &dyn Fn() -> String) {}
    fn begun(&self, _first: &Counted<'_>) {}
    fn ending(&self, _last: &Counted<'_>, _end: End) {}
}

impl World {
    /// Makes everything ready.
    pub(crate) fn prepare() -> Outcome<Self> {
        let bulkhead = std::env::var_os("BULKHEAD").ok_or("BULKHEAD names the binary")?;
        let root = std::env::var_os("GUESTS").ok_or("GUESTS names the state root with a guest")?;
        let root = PathBuf::from(root);
        for module in ["kvm_amd", "kvm_intel", "vhost_vsock", "vhost_net", "tun"] {
            // One of the first two is there; what else is missing is noticed when it is used.
            Command::new("modprobe").arg("-q").arg(module).status().ok();
        }
        let home = std::env::temp_dir().join(format!("bulkhead-bench-{}", std::process::id()));
        let bundle = home.join("bundle");
        make_bundle(&bundle)?;
        let guest = Guests::new(&root.join("@data")).usual()?;
        if !guest.about.acpi {
            // It would wait for ever in QEMU's machine for devices that it does not find.
            return Err(format!(
                "guest {}: QEMU's machine describes its devices by ACPI alone",
                guest.name
            )
            .into());
        }
        let plan = plan(&bundle, &root)?;
        println!("guest {}: {}", guest.name, guest.about.kernel);
        Ok(Self {
            bulkhead: bulkhead.into(),
            kernel: guest.kernel(),
            initramfs: guest.initramfs(),
            cmdline: guest::CMDLINE.to_owned(),
            root,
            bundle,
            plan,
            home,
        })
    }

    /// A path in the directory for everything.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The machine that the bundle asks for.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            cmdline: self.cmdline.clone(),
            memory: self.plan.size.memory_bytes,
            share: Some(self.bundle.join("rootfs")),
            disk: None,
            tap: None,
            vsock: true,
            serial: self.path("serial"),
        }
    }

    /// What the agent is asked to make.
    pub(crate) fn create(&self) -> Create {
        Create {
            plan: self.plan.plan.clone(),
            streams: Streams::Pipes {
                input: false,
                output: Output::Stream,
                error: Output::Nowhere,
            },
            ..Create::default()
        }
    }
}

/// What the product plans for a bundle behind the second wall.
fn plan(bundle: &Path, root: &Path) -> Outcome<MachinePlan> {
    let store = Store::new(StateRoot::choose(Some(root), None)?);
    let wish = Wish {
        isolation: Some(Isolation::MicroVm),
        ..Wish::plain("bench".parse()?, bundle.to_owned(), Manager::Disabled)
    };
    let blueprint = Blueprint::draw(&wish, &store, &Silent)?;
    Ok(blueprint.machine.ok_or("no machine is planned")?.plan)
}

/// A bundle with the mounts that every container has.
fn make_bundle(at: &Path) -> Outcome<()> {
    let bin = at.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    let first = bin.join("first");
    std::fs::write(&first, program())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&first, mode)?;
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "process": {"args": ["/bin/first"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]},
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {"namespaces": namespaces},
    });
    std::fs::write(at.join("config.json"), config.to_string())?;
    Ok(())
}

/// A program of a few instructions: the first that does something writes one byte; then it stands.
fn program() -> Vec<u8> {
    crate::guest::program(&[
        // write(1, "!", 1)
        0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x48, 0x8d, 0x35, 16, 0, 0, 0, 0xba, 1, 0, 0, 0, 0x0f,
        0x05, // pause(), for ever
        0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7, b'!',
    ])
}
