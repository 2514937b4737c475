//! A user without any rights, whom only the test's own mount namespaces know.
//!
//! No account is made on the host: a script enters a mount namespace in which `/etc/passwd`, `/etc/subuid` and
//! `/etc/subgid` have one more line, and becomes that user there.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use super::bundle::Bundle;
use super::home::Home;
use super::home::Said;
use super::home::eventually;
use super::wall;

/// The user's number.
pub(crate) const UID: u32 = 61_234;
/// The first of the numbers that the user may map.
pub(crate) const RANGE: u32 = 700_000;
/// How many they are.
const SIZE: u32 = 65_536;

/// A user, with a copy of the binary, a runtime directory and whatever workspaces are in it.
#[derive(Debug)]
pub(crate) struct Somebody {
    directory: tempfile::TempDir,
    group: Option<PathBuf>,
}

impl Somebody {
    /// A user with nothing yet.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-user-")
            .tempdir()
            .unwrap();
        let made = Self {
            directory,
            group: None,
        };
        let here = made.directory.path();
        allow(here, 0o711);
        std::fs::create_dir(here.join("run")).unwrap();
        std::os::unix::fs::chown(here.join("run"), Some(UID), Some(UID)).unwrap();
        allow(&here.join("run"), 0o700);
        std::fs::copy(wall::built(), here.join("bulkhead")).unwrap();
        let account = format!("bulkhead-tester:x:{UID}:{UID}::/:/bin/sh\n");
        let range = format!("bulkhead-tester:{RANGE}:{SIZE}\n");
        for (name, line) in [("passwd", &account), ("subuid", &range), ("subgid", &range)] {
            let present = std::fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            std::fs::write(here.join(name), present + line).unwrap();
            allow(&here.join(name), 0o644);
        }
        std::fs::write(here.join("as"), become_user(here)).unwrap();
        allow(&here.join("as"), 0o755);
        made
    }

    /// The same user, whose commands are run in this cgroup.
    pub(crate) fn in_group(mut self, group: PathBuf) -> Self {
        self.group = Some(group);
        self
    }

    /// A name that no other test has.
    pub(crate) fn id(&self) -> String {
        Home::new().id()
    }

    /// Where the user's state is kept.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("run/bulkhead")
    }

    /// The user's binary.
    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.path().join("bulkhead")
    }

    /// Any program as this user.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.directory.path().join("as"));
        command.arg(program).stdin(Stdio::null());
        command.envs(self.group.as_ref().map(|group| ("GROUP", group)));
        command
    }

    /// The binary as this user, to be given more.
    pub(crate) fn command(&self) -> Command {
        self.program(self.binary())
    }

    /// Runs a command to its end.
    pub(crate) fn bulkhead<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    /// Makes a workspace, with standard streams that lead nowhere.
    #[track_caller]
    pub(crate) fn create(&self, bundle: &Bundle, id: &str) {
        detached(self.command(), bundle, id);
    }

    /// Makes a workspace and starts its program.
    #[track_caller]
    pub(crate) fn start(&self, bundle: &Bundle, id: &str) {
        self.create(bundle, id);
        self.bulkhead(["start", id]).ok();
    }

    /// Root of a user namespace that has all of this user's numbers, as rootless podman is.
    pub(crate) fn namespace(&self) -> Namespace<'_> {
        let mut command = self.program("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
            "sleep",
            "1000",
        ]);
        let holder = command.spawn().unwrap();
        let name = format!("/proc/{}/comm", holder.id());
        eventually("the user namespace", || {
            std::fs::read_to_string(&name).unwrap_or_default() == "sleep\n"
        });
        Namespace { user: self, holder }
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root())
            .into_iter()
            .flatten()
            .flatten()
        {
            let root = self.root();
            Command::new(self.binary())
                .args([
                    OsStr::new("--root"),
                    root.as_ref(),
                    "delete".as_ref(),
                    "--force".as_ref(),
                ])
                .arg(entry.file_name())
                .status()
                .unwrap();
        }
    }
}

/// A user namespace that a process holds open.
#[derive(Debug)]
pub(crate) struct Namespace<'a> {
    user: &'a Somebody,
    holder: Child,
}

impl Namespace<'_> {
    /// The binary as root of the namespace.
    pub(crate) fn command(&self) -> Command {
        let runtime = format!(
            "XDG_RUNTIME_DIR={}/run",
            self.user.directory.path().display()
        );
        let mut command = Command::new("nsenter");
        command
            .args([
                "--user",
                "--mount",
                "--target",
                &self.holder.id().to_string(),
            ])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", &runtime])
            .arg(self.user.binary())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn bulkhead<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    /// Makes a workspace, with standard streams that lead nowhere.
    #[track_caller]
    pub(crate) fn create(&self, bundle: &Bundle, id: &str) {
        detached(self.command(), bundle, id);
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

/// Gives a bundle to the user.
pub(crate) fn owned(bundle: Bundle) -> Bundle {
    let given = Command::new("chown")
        .args(["-hR", &UID.to_string()])
        .arg(bundle.path())
        .status();
    assert!(given.unwrap().success());
    bundle
}

/// A bundle in which root is the user and nobody else exists.
pub(crate) fn alone(bundle: Bundle) -> Bundle {
    let own = serde_json::json!([{ "containerID": 0, "hostID": UID, "size": 1 }]);
    owned(mapped(bundle, &own))
}

/// A bundle in which root is the user, and the others have the user's range.
pub(crate) fn with_range(bundle: Bundle) -> Bundle {
    let all = serde_json::json!([
        { "containerID": 0, "hostID": UID, "size": 1 },
        { "containerID": 1, "hostID": RANGE, "size": SIZE },
    ]);
    owned(mapped(bundle, &all))
}

fn mapped(bundle: Bundle, mappings: &serde_json::Value) -> Bundle {
    bundle.with(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({ "type": "user" }));
        linux["uidMappings"] = mappings.clone();
        linux["gidMappings"] = mappings.clone();
    })
}

#[track_caller]
fn detached(mut command: Command, bundle: &Bundle, id: &str) {
    let errors = bundle.path().join("errors");
    command.args(["create", "-b"]).arg(bundle.path()).arg(id);
    command
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap());
    let made = command.status().unwrap();
    assert!(
        made.success(),
        "{}",
        std::fs::read_to_string(&errors).unwrap()
    );
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn become_user(here: &Path) -> String {
    let here = here.display();
    format!(
        r#"#!/bin/sh
if [ -z "$INSIDE" ]; then
    INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
fi
for name in passwd subuid subgid; do
    mount --bind {here}/$name /etc/$name || exit 99
done
[ -z "$GROUP" ] || echo 0 >"$GROUP/cgroup.procs" || exit 98
exec setpriv --reuid {UID} --regid {UID} --clear-groups \
    env -i PATH="$PATH" HOME=/ XDG_RUNTIME_DIR={here}/run "$@"
"#
    )
}
