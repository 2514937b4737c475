//! The cgroup of a workspace when systemd makes it, with a real systemd (in the test machine).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use bulkhead::enclosure::Enclosure;
use bulkhead::host::Host;
use bulkhead::plan::cgroup;
use bulkhead::plan::cgroup::Manager;
use bulkhead::plan::cgroup::Options;
use bulkhead::plan::cgroup::Request;
use bulkhead::spec::resources::Resources;

use crate::need;
use crate::support::wall;

/// A scope with a shell in it, both gone at the end.
struct Scene {
    host: Host,
    unit: String,
    made: Enclosure,
    shell: Child,
}

impl Scene {
    fn new(name: &str, resources: &str) -> Self {
        Self::annotated(name, resources, &BTreeMap::new())
    }

    fn annotated(name: &str, resources: &str, annotations: &BTreeMap<String, String>) -> Self {
        let host = Host::look().unwrap();
        let resources: Resources = serde_json::from_str(resources).unwrap();
        let request = Request {
            id: name,
            oci_version: "1.3.0",
            path: &format!("bulkhead-test.slice:t:{name}"),
            resources: Some(&resources),
            annotations,
            owner: None,
        };
        let options = Options {
            manager: Manager::Systemd,
            rootless: false,
        };
        let plan = cgroup::plan(&request, &host, options).unwrap();
        let shell = Command::new("sh")
            .args(["-c", "while read line; do eval \"$line\"; done"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut made = Enclosure::prepare(&plan).unwrap();
        assert!(made.birthplace().is_none());
        made.adopt(i32::try_from(shell.id()).unwrap()).unwrap();
        Self {
            host,
            unit: format!("t-{name}.scope"),
            made,
            shell,
        }
    }

    fn read(&self, file: &str) -> String {
        let path = self.made.directory().unwrap().join(file);
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    fn shown(&self, property: &str) -> String {
        let arguments = ["show", "--value", "--property", property, &self.unit];
        let output = Command::new("systemctl").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether the shell may open a file for reading.
    fn opens(&mut self, file: &str) -> bool {
        use std::io::Read;
        let line = format!("(exec 3<{file}) && echo y || echo n\n");
        self.shell
            .stdin
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let mut answer = [0; 2];
        self.shell
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut answer)
            .unwrap();
        answer[0] == b'y'
    }

    fn update(&mut self, change: &str) {
        let resources: Resources = serde_json::from_str(change).unwrap();
        let present = self.made.present().unwrap();
        let limits = cgroup::update(&resources, &present, &self.host).unwrap();
        self.made.update(&limits).unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.made.kill().unwrap();
        self.made
            .wait_empty(Instant::now() + Duration::from_secs(90))
            .unwrap();
        self.made.remove().unwrap();
        self.shell.wait().unwrap();
    }
}

fn reload() {
    let done = Command::new("systemctl")
        .arg("daemon-reload")
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn a_scope_holds_its_process_under_its_limits() {
    need!(systemd, limits);
    let scene = Scene::new(
        "limits",
        r#"{"memory":{"limit":67108864},"cpu":{"quota":12345,"shares":512,"cpus":"0"},
            "pids":{"limit":50},"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#,
    );
    let pid = i32::try_from(scene.shell.id()).unwrap();
    assert_eq!(scene.made.processes().unwrap(), [pid]);
    let files = [
        "memory.max",
        "cpu.max",
        "cpuset.cpus",
        "pids.max",
        "hugetlb.2MB.max",
    ];
    assert_eq!(
        files.map(|file| scene.read(file)),
        ["67108864", "12345 100000", "0", "50", "2097152"]
    );
    let properties = [
        "MemoryMax",
        "CPUQuotaPerSecUSec",
        "TasksMax",
        "Slice",
        "Delegate",
    ];
    assert_eq!(
        properties.map(|name| scene.shown(name)),
        ["67108864", "130ms", "50", "bulkhead-test.slice", "yes"]
    );
}

#[test]
fn device_rules_outlive_a_reload_of_systemd() {
    need!(systemd, limits);
    let allow = r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    let mut scene = Scene::new("devices", allow);
    assert!(scene.opens("/dev/kmsg"));
    assert!(!scene.opens("/dev/mem"));
    reload();
    assert!(scene.opens("/dev/kmsg"));
    assert!(!scene.opens("/dev/mem"));
    assert_eq!(scene.shown("DevicePolicy"), "strict");
}

#[test]
fn a_device_is_added_and_taken_away_while_the_scope_runs() {
    need!(systemd, limits);
    let mut scene = Scene::new("hotplug", "{}");
    assert!(!scene.opens("/dev/kmsg"));
    scene.update(r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"rw"}]}"#);
    reload();
    assert!(scene.opens("/dev/kmsg"));
    scene.update(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    reload();
    assert!(!scene.opens("/dev/kmsg"));
    assert!(scene.opens("/dev/null"));
}

#[test]
fn an_update_outlives_a_reload_of_systemd() {
    need!(systemd, limits);
    let mut scene = Scene::new(
        "update",
        r#"{"pids":{"limit":50},"memory":{"limit":67108864}}"#,
    );
    scene.update(r#"{"pids":{"limit":60},"memory":{"limit":33554432}}"#);
    reload();
    assert_eq!(
        ["pids.max", "memory.max"].map(|file| scene.read(file)),
        ["60", "33554432"]
    );
}

#[test]
fn a_scope_is_gone_from_systemd_when_it_is_removed() {
    need!(systemd, limits);
    let mut scene = Scene::new("gone", "{}");
    assert_eq!(scene.shown("ActiveState"), "active");
    scene.made.kill().unwrap();
    scene
        .made
        .wait_empty(Instant::now() + Duration::from_secs(90))
        .unwrap();
    scene.made.remove().unwrap();
    assert_eq!(scene.shown("LoadState"), "not-found");
    assert!(!scene.made.directory().unwrap().exists());
}

#[test]
fn annotations_are_properties_of_the_scope() {
    need!(systemd, limits);
    let annotations = [
        (
            "org.systemd.property.TimeoutStopSec".to_owned(),
            "uint64 7".to_owned(),
        ),
        (
            "org.systemd.property.CollectMode".to_owned(),
            "'inactive'".to_owned(),
        ),
    ]
    .into();
    let scene = Scene::annotated("annotated", "{}", &annotations);
    assert_eq!(scene.shown("TimeoutStopUSec"), "7s");
    assert_eq!(scene.shown("CollectMode"), "inactive");
}

#[test]
fn a_property_that_systemd_does_not_take_is_told_with_its_reason() {
    need!(systemd, limits);
    let mut shell = Command::new("sleep").arg("100").spawn().unwrap();
    let host = Host::look().unwrap();
    let annotations = [(
        "org.systemd.property.NoSuchThing".to_owned(),
        "true".to_owned(),
    )]
    .into();
    let request = Request {
        id: "refused",
        oci_version: "1.3.0",
        path: "",
        resources: None,
        annotations: &annotations,
        owner: None,
    };
    let options = Options {
        manager: Manager::Systemd,
        rootless: false,
    };
    let plan = cgroup::plan(&request, &host, options).unwrap();
    let mut made = Enclosure::prepare(&plan).unwrap();
    let refused = made.adopt(i32::try_from(shell.id()).unwrap()).unwrap_err();
    let chain = format!("{:#}", anyhow::Error::new(refused));
    assert!(
        chain.contains("cannot start unit bulkhead-refused.scope"),
        "{chain}"
    );
    assert!(chain.contains("NoSuchThing"), "{chain}");
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn without_root_the_users_own_systemd_makes_the_scope() {
    need!(systemd, limits);
    let script = r#"set -e
        systemctl start user@1000.service
        directory=$(mktemp -d); mkdir -p $directory/rootfs/bin $directory/rootfs/proc \
            $directory/rootfs/dev $directory/rootfs/sys
        cp /bin/busybox $directory/rootfs/bin/sleep
        cd $directory; chown -R user $directory
        cat >script <<'END'
        set -e; export XDG_RUNTIME_DIR=/run/user/1000
        "$1" spec --rootless
        jq '.process.terminal=false | .process.args=["sleep","1000"]
            | .linux.resources={"memory":{"limit":67108864},"pids":{"limit":20}}' \
            config.json >changed; mv changed config.json
        "$1" --systemd-cgroup run --detach users-own </dev/null >errors 2>&1 \
            || { cat errors >&2; exit 1; }
        group=/sys/fs/cgroup$(cut -d: -f3 /proc/$("$1" state users-own | jq .pid)/cgroup)
        echo ${group##*/}; cat $group/memory.max $group/pids.max
        "$1" update --pids-limit 33 users-own; cat $group/pids.max
        "$1" delete --force users-own; test ! -e $group
END
        su user -c "bash $directory/script \"$1\""; rm -r $directory"#;
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(wall::built())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let found: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        found,
        ["bulkhead-users-own.scope", "67108864", "20", "33"],
        "{errors}"
    );
    assert!(output.status.success(), "{errors}");
}
