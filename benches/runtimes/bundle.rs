//! The bundles that are run: busybox, five namespaces and a network namespace, the default mounts.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use crate::Outcome;
use crate::contender;
use crate::contender::Role;

/// How many directories a dressed bundle binds.
const BINDS: usize = 20;

/// A root filesystem, with a configuration for ourselves and one for all others.
///
/// A device filter needs the right to raise `RLIMIT_MEMLOCK` under crun, and not every machine gives it. So nobody has
/// one here: our own configuration, where a filter is the default, allows everything.
pub(crate) struct Bundle {
    at: PathBuf,
    own: String,
    others: String,
    binds: usize,
}

impl Bundle {
    /// Which runs `true`.
    pub(crate) fn new(at: &Path) -> Outcome<Self> {
        Self::make(at, 0, |_| Ok(()))
    }

    /// The same with Docker's default filter, and twenty directories bound from outside.
    pub(crate) fn dressed(at: &Path) -> Outcome<Self> {
        Self::make(at, BINDS, |spec| dress(at, spec))
    }

    /// Which sleeps.
    pub(crate) fn sleeping(at: &Path) -> Outcome<Self> {
        Self::make(at, 0, |spec| {
            spec["process"]["args"] = json!(["/bin/sleep", "1000000"]);
            Ok(())
        })
    }

    /// Which runs `true` in so many bytes.
    pub(crate) fn limited(at: &Path, bytes: usize) -> Outcome<Self> {
        Self::make(at, 0, |spec| {
            spec["linux"]["resources"] = json!({"memory": {"limit": bytes}});
            Ok(())
        })
    }

    fn make(
        at: &Path,
        binds: usize,
        change: impl FnOnce(&mut Value) -> Outcome<()>,
    ) -> Outcome<Self> {
        let rootfs = at.join("rootfs");
        for directory in ["bin", "dev", "proc", "sys"] {
            std::fs::create_dir_all(rootfs.join(directory))?;
        }
        for index in 0..binds {
            std::fs::create_dir_all(at.join(format!("bound-{index}")))?;
            std::fs::create_dir_all(rootfs.join(format!("mnt/{index}")))?;
        }
        if !rootfs.join("bin/busybox").exists() {
            std::fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
            for name in ["true", "sleep", "sh"] {
                std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
            }
        }
        let mut spec = default_spec(at)?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["root"]["path"] = json!(rootfs);
        // What every runtime of the last years takes.
        spec["ociVersion"] = json!("1.0.2");
        spec["linux"]["resources"] = json!({});
        change(&mut spec)?;
        let others = written(&at.join("others"), &spec)?;
        spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        let own = written(&at.join("own"), &spec)?;
        Ok(Self {
            at: at.to_owned(),
            own,
            others,
            binds,
        })
    }

    /// The directory of the configuration that is for whom.
    pub(crate) fn of(&self, role: Role) -> &str {
        match role {
            Role::Own => &self.own,
            Role::Filtered | Role::Other | Role::Floor | Role::Asked | Role::Guarded => {
                &self.others
            }
        }
    }

    /// What the floor is told to do all that the plain configuration asks for, guarded or not; it knows no other.
    pub(crate) fn asked(&self, role: Role, id: &str, state: &Path) -> Option<Vec<String>> {
        if self.binds > 0 {
            return None;
        }
        let rootfs = self.at.join("rootfs");
        let is_guarded = role == Role::Guarded;
        let mode = if is_guarded { "guarded" } else { "asked" };
        let mut words = vec![
            mode.to_owned(),
            rootfs.to_string_lossy().into_owned(),
            id.to_owned(),
            format!("{}-{id}", state.display()),
        ];
        words.extend(is_guarded.then(|| format!("{}/config.json", self.of(role))));
        Some(words)
    }

    /// What the floor is told.
    pub(crate) fn floor(&self, id: &str) -> Vec<String> {
        let rootfs = self.at.join("rootfs");
        vec![
            "run".to_owned(),
            rootfs.to_string_lossy().into_owned(),
            id.to_owned(),
            self.at.to_string_lossy().into_owned(),
            self.binds.to_string(),
        ]
    }
}

fn written(at: &Path, spec: &Value) -> Outcome<String> {
    std::fs::create_dir_all(at)?;
    std::fs::write(at.join("config.json"), serde_json::to_vec_pretty(spec)?)?;
    Ok(at.to_string_lossy().into_owned())
}

fn default_spec(at: &Path) -> Outcome<Value> {
    let config = at.join("config.json");
    if !config.exists() {
        let made = Command::new(contender::own())
            .arg("spec")
            .arg("--bundle")
            .arg(at)
            .status()?;
        if !made.success() {
            return Err("bulkhead spec failed".into());
        }
    }
    Ok(serde_json::from_slice(&std::fs::read(config)?)?)
}

fn dress(at: &Path, spec: &mut Value) -> Outcome<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/seccomp/docker.json");
    spec["linux"]["seccomp"] = filter(&serde_json::from_slice(&std::fs::read(source)?)?);
    let mounts = spec["mounts"].as_array_mut().ok_or("mounts is no list")?;
    for index in 0..BINDS {
        mounts.push(json!({
            "destination": format!("/mnt/{index}"),
            "type": "bind",
            "source": at.join(format!("bound-{index}")),
            "options": ["rbind", "rprivate", if index % 2 == 0 { "ro" } else { "rw" }],
        }));
    }
    Ok(())
}

/// The profile as Docker hands it to a runtime: what depends on capabilities that a usual container lacks is left out.
fn filter(docker: &Value) -> Value {
    let rules = docker["syscalls"].as_array().into_iter().flatten();
    let usual = rules.filter(|rule| {
        let asks = |part: &str, key: &str| {
            rule[part][key]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        };
        let elsewhere = rule["includes"]["arches"]
            .as_array()
            .is_some_and(|arches| !arches.iter().any(|arch| arch == "amd64"));
        !asks("includes", "caps") && !elsewhere
    });
    let syscalls: Vec<Value> = usual
        .map(|rule| {
            json!({
                "names": rule["names"],
                "action": rule["action"],
                "errnoRet": rule["errnoRet"],
                "args": rule["args"],
            })
        })
        .collect();
    json!({
        "defaultAction": docker["defaultAction"],
        "defaultErrnoRet": docker["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls,
    })
}
