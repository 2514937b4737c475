//! What of the container's behaviour a microVM does not have, or has otherwise: tests by their names, each with the reason.
//!
//! All others run behind both walls.

use std::process::Command;

/// The beginning of the name of a test or of several, and why it says nothing about a machine.
const DIFFERENT: &[(&str, &str)] = &[
    ("both::a_", "asks behind both walls by itself"),
    ("both::what_", "asks behind both walls by itself"),
    (
        "callers::containerd::containerd_checkpoints",
        "refused by name: memory of a machine is not written by CRIU",
    ),
    (
        "callers::docker::docker_counts",
        "what callers list by themselves are the processes of the machine on the host",
    ),
    (
        "callers::docker::docker_is_told_of_a_program",
        "Docker looks at the events of the host's cgroup, in which the guest's kernel kills nobody",
    ),
    (
        "callers::docker::docker_privileged",
        "refused by name: devices of the host",
    ),
    (
        "callers::docker::docker_updates_limits",
        "limits of processor time and swap are the host's alone; `both::commands` asks for the others inside",
    ),
    (
        "callers::podman::podman_checkpoints",
        "refused by name: memory of a machine is not written by CRIU",
    ),
    (
        "callers::podman::podman_counts",
        "what callers list by themselves are the processes of the machine on the host",
    ),
    (
        "callers::podman::podman_devices",
        "refused by name: devices of the host",
    ),
    (
        "callers::podman::podman_hands",
        "refused by name: a descriptor cannot go into a machine",
    ),
    (
        "callers::podman::podman_joins",
        "refused by name: a machine joins a network alone",
    ),
    (
        "callers::podman::podman_privileged",
        "refused by name: devices of the host",
    ),
    (
        "callers::podman::podman_scopes",
        "limits of the host have the machine on top; `both::commands` asks inside",
    ),
    (
        "callers::rootless::",
        "refused by name: a machine needs root of the host",
    ),
    (
        "container::conceal::the_null_device_of_the_image_must_be",
        "a bind of a directory without devices: the share of a machine has none either, and the words are the guest's",
    ),
    (
        "container::descriptor::descriptors_that_are",
        "refused by name: a descriptor cannot go into a machine",
    ),
    (
        "container::descriptor::sockets_of_the_service",
        "refused by name: a descriptor cannot go into a machine",
    ),
    (
        "container::descriptor::a_descriptor_that_is_to_be_kept",
        "refused by name: a descriptor cannot go into a machine",
    ),
    (
        "container::descriptor::readiness",
        "no socket of the host is reached from a machine",
    ),
    (
        "container::device::devices_that_are_asked_for",
        "refused by name: one of them is a block device of the host",
    ),
    (
        "container::filter::the_agent_is",
        "refused by name: nobody on the host decides about calls of a guest",
    ),
    (
        "container::filter::an_agent_that",
        "refused by name: nobody on the host decides about calls of a guest",
    ),
    (
        "container::hostile::a_process_is_hidden",
        "the process on the host is the keeper, which stays hidden",
    ),
    (
        "container::interface::",
        "refused by name: an interface of the host cannot move into a machine",
    ),
    (
        "container::mount::a_link_as_the_source_is_shown",
        "refused by name: a link cannot be mounted in a machine as one",
    ),
    (
        "container::mount::a_missing_source",
        "found before anything is made, and named by its property and not by a step",
    ),
    (
        "container::mount::a_stack_of_layers",
        "refused by name: a stack of the host's directories in a mount",
    ),
    (
        "container::namespace::every_namespace_that",
        "the guest's network is its kernel's first, whose number is that of the host's",
    ),
    (
        "container::namespace::what_is_not_asked_for",
        "refused by name: a machine shares no namespace with the host",
    ),
    (
        "container::namespace::namespaces_are_joined",
        "refused by name: a machine joins a network alone",
    ),
    (
        "container::namespace::a_mount_namespace",
        "refused by name: a machine joins a network alone",
    ),
    (
        "container::namespace::a_pid_namespace",
        "refused by name: a machine joins a network alone",
    ),
    (
        "container::namespace::a_user_namespace",
        "refused by name: a machine joins a network alone",
    ),
    (
        "container::namespace::a_path_to_another_kind",
        "refused by name: a machine joins a network alone",
    ),
    (
        "container::namespace::one_more_program_is_in_all",
        "namespaces of a guest have no numbers on the host",
    ),
    (
        "container::namespace::a_new_user_namespace_and",
        "the guest's namespace is another one; its interfaces are taken on",
    ),
    ("container::plan::", "plans as text, without any wall"),
    (
        "container::propagation::mounts_of_the_host",
        "mounts of the host do not show in a machine later",
    ),
    (
        "container::propagation::a_slave",
        "refused by name: mounts of the host do not show in a machine later",
    ),
    (
        "container::propagation::a_shared_mount",
        "refused by name: mounts of a machine do not show on the host",
    ),
    (
        "container::option::recursive_words",
        "one share shows a tree with the mounts below it: they are no mounts of the guest",
    ),
    (
        "container::tuning::a_class_of_cache",
        "refused by name: a machine is in no class of the cache",
    ),
    (
        "container::tuning::an_exec_runs_on_the_cpus",
        "refused by name: a machine does not see the host's processors",
    ),
    (
        "container::tuning::memory_comes_from",
        "refused by name: a machine does not see the host's memory nodes",
    ),
    (
        "container::tuning::a_memory_policy",
        "refused by name: a machine does not see the host's memory nodes",
    ),
    (
        "exec::exec_takes_a_process_from_a_file",
        "`ps` has the numbers of the guest, and the pid file that of the host's process",
    ),
    (
        "exec::exec_is_born_in_the_cgroup",
        "the cgroup of a program in a machine is the guest's",
    ),
    (
        "exec::exec_goes_where",
        "the cgroup of a program in a machine is the guest's",
    ),
    (
        "exec::a_workspace_without_a_cgroup",
        "`ps` has the numbers of the guest, and not that of the keeper",
    ),
    (
        "hot_mounts::",
        "refused by name: nothing of the host shows in a machine later",
    ),
    (
        "lifecycle::processes_are_listed",
        "`ps` has the numbers of the guest, and no options of ps(1)",
    ),
    (
        "lifecycle::the_end_of_a_first_process_that_shares",
        "refused by name: a machine shares no namespace with the host",
    ),
    (
        "lifecycle::a_plan_is_printed",
        "the state root is there before: the guests are in it",
    ),
    (
        "network::reach::a_published_port_of_udp",
        "its server is in the workspace's network on the host, whose packets are the machine's; `wall::network` asks inside",
    ),
    (
        "network::reach::the_hosts_is",
        "refused by name: a machine shares no namespace with the host",
    ),
    (
        "run::the_end_of_a_process",
        "asks the kernel, without any wall",
    ),
    (
        "up::elsewhere::systemd_makes",
        "limits of the host have the machine on top; `both::commands` asks inside",
    ),
    (
        "update::options_with",
        "limits of the host have the machine on top; `both::commands` asks inside",
    ),
    (
        "update::resources_are",
        "limits of the host have the machine on top; `both::commands` asks inside",
    ),
    (
        "update::shares_of_the_cache",
        "refused by name: a machine is in no class of the cache",
    ),
];

/// Why a test says nothing about a machine, when it does not.
pub(crate) fn reason(test: &str) -> Option<&'static str> {
    let mut found = DIFFERENT.iter().filter(|(name, _)| test.starts_with(name));
    found.next().map(|(_, reason)| *reason)
}

#[test]
fn every_exception_is_one_of_a_test_that_there_is() {
    let listed = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format=terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for (name, reason) in DIFFERENT {
        let there = listed.lines().any(|line| line.starts_with(name));
        assert!(there, "no test is called {name}");
        assert!(reason.len() > 20, "{name} has no reason");
    }
}
