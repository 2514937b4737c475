//! What is promised to workspaces: who is granted what, which weights follow, and whether it holds against neighbours.

mod disks;
mod granting;
mod microvm;
mod shares;
mod weights;

use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;
use serde_json::json;

use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// A state root, and a pool that no other test has.
#[derive(Debug)]
struct Scene {
    home: Home,
    pool: Pool,
    /// Bundles, which workspaces run from as long as they live.
    bundles: Mutex<Vec<Bundle>>,
}

/// A group for workspaces that goes with the test, when the workspaces in it have gone.
#[derive(Debug)]
struct Pool(String);

impl Drop for Pool {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir(self.path());
        assert!(
            removed.is_ok() || !self.path().exists() || std::thread::panicking(),
            "{removed:?}"
        );
    }
}

impl Pool {
    fn path(&self) -> PathBuf {
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        let mount = if unified.exists() {
            unified
        } else {
            PathBuf::from("/sys/fs/cgroup")
        };
        mount.join(&self.0)
    }
}

impl Scene {
    fn new() -> Self {
        let home = Home::new();
        let pool = Pool(format!("bulkhead-{}", home.id()));
        let bundles = Mutex::new(Vec::new());
        Self {
            home,
            pool,
            bundles,
        }
    }

    /// What the administrator says.
    fn host_file(&self, text: &str) {
        std::fs::create_dir_all(self.home.root()).unwrap();
        std::fs::write(self.home.root().join("@host.toml"), text).unwrap();
    }

    /// A bundle that asks for something, in the pool; an id for it.
    fn asking(&self, script: &str, asked: &[(&str, &str)]) -> (Bundle, String) {
        let id = self.home.id();
        let bundle = Bundle::shell(script).with(|config| {
            config["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", self.pool.0));
            for (key, value) in asked {
                config["annotations"][format!("dev.bulkhead.{key}")] = json!(value);
            }
        });
        (bundle, id)
    }

    /// A workspace that waits, and asks for something.
    fn holding(&self, asked: &[(&str, &str)]) -> String {
        let (bundle, id) = self.asking("exec sleep 1000", asked);
        self.start(bundle, &id);
        id
    }

    /// Starts a workspace whose bundle stays as long as this does.
    fn start(&self, bundle: Bundle, id: &str) {
        self.home.start(&bundle, id);
        self.bundles.lock().unwrap().push(bundle);
    }

    /// Lets everybody begin who waits for the file `/go`.
    fn go(&self) {
        for bundle in self.bundles.lock().unwrap().iter() {
            std::fs::write(bundle.rootfs("go"), "").unwrap();
        }
    }

    /// Lets everybody stand still, so that commands need not share the machine with them, or go on.
    fn stand_still(&self, still: bool) {
        let value = if still { "1" } else { "0" };
        std::fs::write(self.pool.path().join("cgroup.freeze"), value).unwrap();
    }

    /// Tries to make one.
    fn try_to_hold(&self, asked: &[(&str, &str)]) -> (Said, String) {
        let (bundle, id) = self.asking("exec sleep 1000", asked);
        let said = create(&self.home, &bundle, &id);
        self.bundles.lock().unwrap().push(bundle);
        (said, id)
    }

    fn group(&self, id: &str) -> PathBuf {
        self.pool.path().join(id)
    }

    /// A file of a workspace's cgroup.
    fn read(&self, id: &str, file: &str) -> String {
        read(&self.group(id).join(file))
    }

    /// An entry of what `capacity` prints.
    fn capacity(&self, resource: &str) -> Value {
        let text = self.home.bulkhead(["capacity", "--format", "json"]).ok();
        let document: Value = serde_json::from_str(&text).unwrap();
        let mut entries = document["resources"].as_array().unwrap().iter();
        entries
            .find(|entry| entry["resource"] == resource)
            .unwrap()
            .clone()
    }

    /// How much of a resource is free.
    fn free(&self, resource: &str, unit: &str) -> u64 {
        self.capacity(resource)[format!("free_{unit}")]
            .as_u64()
            .unwrap()
    }
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Creates with streams that lead nowhere but for what is said of errors.
fn create(home: &Home, bundle: &Bundle, id: &str) -> Said {
    let mut command = home.command();
    command
        .arg("create")
        .arg("--bundle")
        .arg(bundle.path())
        .arg(id);
    let errors = home.beside(&format!("{id}.err"));
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap());
    let status = command.status().unwrap();
    Said {
        status: status.code().unwrap_or(-1),
        out: String::new(),
        err: std::fs::read_to_string(errors).unwrap(),
    }
}

/// CPUs in thousandths, as they are asked for.
fn cpus(milli: u64) -> String {
    format!("{}.{:03}", milli / 1000, milli % 1000)
}
