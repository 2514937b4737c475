//! Parameters and names that belong to the container's own namespaces.

use serde_json::json;

use super::add;
use super::inside;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

#[test]
fn names_of_host_and_domain_are_set_inside_only() {
    need!(root, cgroup2);
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let seen = inside("hostname; cat /proc/sys/kernel/domainname", |config| {
        config["hostname"] = json!("inside-host");
        config["domainname"] = json!("inside.domain");
    });
    assert_eq!(seen, "inside-host\ninside.domain");
    let after = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(before, after);
}

#[test]
fn parameters_of_each_namespace_are_set_inside_only() {
    need!(root, cgroup2);
    let before = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let script =
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmni fs/mqueue/msg_max kernel/domainname";
    let seen = inside(script, |config| {
        config["linux"]["sysctl"] = json!({
            "net.ipv4.ip_forward": "1",
            "kernel.shmmni": "123",
            "fs.mqueue.msg_max": "17",
            "kernel/domainname": "by.sysctl",
        });
    });
    assert_eq!(seen, "1\n123\n17\nby.sysctl");
    let after = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_eq!(before, after);
}

#[test]
fn parameters_are_set_without_a_proc_of_the_images_own() {
    need!(root, cgroup2);
    let seen = inside("echo ran", |config| {
        config["mounts"] = json!([]);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["linux"]["sysctl"] = json!({"kernel.shmmni": "124"});
    });
    assert_eq!(seen, "ran");
}

#[test]
fn parameters_of_the_machine_and_wrong_values_are_refused() {
    need!(root, cgroup2);
    let words = refused(|config| config["linux"]["sysctl"] = json!({"kernel.panic": "1"}));
    assert!(words.contains("kernel.panic"), "{words}");
    let words = refused(|config| config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "no"}));
    assert!(
        words.contains("set sysctl net/ipv4/ip_forward to \"no\": invalid argument"),
        "{words}"
    );
}

#[test]
fn the_clock_inside_can_be_ahead() {
    need!(root, cgroup2);
    let seen = inside(
        "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time",
        |config| {
            add(config, "/linux/namespaces", json!({"type": "time"}));
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 500_000_000, "nanosecs": 5}, "monotonic": {"secs": 86400}});
        },
    );
    let (uptime, namespace) = seen.split_once('\n').unwrap();
    assert!(uptime.parse::<u64>().unwrap() >= 500_000_000, "{uptime}");
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    assert_ne!(namespace, own.to_str().unwrap());
}

#[test]
fn one_more_program_has_the_clock_of_its_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        add(config, "/linux/namespaces", json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 500_000_000}});
    });
    let id = home.id();
    home.start(&bundle, &id);
    let uptime = home
        .bulkhead(["exec", &id, "cut", "-d.", "-f1", "/proc/uptime"])
        .ok();
    assert!(uptime.trim_end().parse::<u64>().unwrap() >= 500_000_000);
}
