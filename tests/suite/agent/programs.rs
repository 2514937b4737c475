//! Programs in a guest: started, waited for, signalled, and explained when they do not come to be.

use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Failure;
use bulkhead::agent::wire::Limit;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Streams;
use bulkhead::agent::wire::WORKLOAD;
use bulkhead::backend::distant;
use bulkhead::sys::process::Exit;
use serde_json::json;

use super::Agent;
use super::ended;
use super::errand;
use super::idle;
use super::planned;
use super::run;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::lives;

#[test]
fn a_workspace_runs_and_its_status_is_told() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = Bundle::shell("exit 7");
    let mut client = agent.started(&bundle);
    assert_eq!(ended(&mut client), Exit::Status(7));
    assert_eq!(client.ask(&Request::Shutdown).unwrap(), Event::Done);
}

#[test]
fn nothing_runs_before_the_start() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = Bundle::shell("touch /ran");
    let mut client = agent.client();
    agent.create(&mut client, &bundle, Streams::default());
    assert!(!bundle.rootfs("ran").exists());
    client.ask(&Request::Start).unwrap();
    assert_eq!(ended(&mut client), Exit::Status(0));
    assert!(bundle.rootfs("ran").exists());
}

#[test]
fn a_failed_step_is_told_in_the_words_of_a_container() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = Bundle::new(&["/missing"]);
    let mut client = agent.client();
    let steps = planned(&bundle).steps;
    let answer = agent.create(&mut client, &bundle, Streams::default());
    let Event::Failed(failure) = answer else {
        panic!("{answer:?}");
    };
    let words = distant::understand(failure, &steps).to_string();
    assert_eq!(words, "exec: \"/missing\": no such file or directory");
}

#[test]
fn a_mount_that_fails_names_its_step() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle().with(|config| {
        let mount = json!({ "destination": "/x", "type": "bind", "source": "/missing", "options": ["bind"] });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let steps = planned(&bundle).steps;
    let answer = agent.create(&mut agent.client(), &bundle, Streams::default());
    let Event::Failed(failure @ Failure::Step { .. }) = answer else {
        panic!("{answer:?}");
    };
    let words = distant::understand(failure, &steps).to_string();
    assert!(words.contains("bind /missing"), "{words}");
    assert!(
        words.ends_with("no such file or directory (os error 2)"),
        "{words}"
    );
}

#[test]
fn every_signal_reaches_the_program() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    for number in [15, 34, 64] {
        let mut other = agent.client();
        let exec = errand(&bundle, "sleep 100", Streams::default());
        let session = run(&mut other, &exec);
        let signal = Request::Signal {
            session,
            number,
            all: false,
        };
        assert_eq!(client.ask(&signal).unwrap(), Event::Done);
        assert_eq!(other.exited(session).unwrap(), Exit::Signal(number));
    }
    let all = Request::Signal {
        session: WORKLOAD,
        number: 9,
        all: true,
    };
    assert_eq!(client.ask(&all).unwrap(), Event::Done);
    assert_eq!(ended(&mut client), Exit::Signal(9));
}

#[test]
fn a_program_ends_with_the_connection_that_started_it() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let mut other = agent.client();
    let exec = errand(&bundle, "sleep 1000", Streams::default());
    let Event::Started { pid, .. } = other.ask(&exec).unwrap() else {
        panic!("it did not start");
    };
    assert!(lives(pid));
    drop(other);
    crate::support::home::eventually("the program ends", || !lives(pid));
    assert!(matches!(
        client.ask(&Request::Processes).unwrap(),
        Event::Processes(_)
    ));
}

#[test]
fn the_workspace_takes_its_other_programs_with_it() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle().with(|config| {
        let kept = |space: &serde_json::Value| space["type"] != "pid";
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(kept);
    });
    let mut client = agent.started(&bundle);
    let exec = errand(&bundle, "trap '' TERM; sleep 1000", Streams::default());
    let session = run(&mut client, &exec);
    let end = Request::Signal {
        session: WORKLOAD,
        number: 9,
        all: false,
    };
    client.ask(&end).unwrap();
    assert_eq!(ended(&mut client), Exit::Signal(9));
    assert_eq!(client.exited(session).unwrap(), Exit::Signal(9));
}

#[test]
fn its_processes_are_listed_with_their_arguments() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let Event::Processes(list) = client.ask(&Request::Processes).unwrap() else {
        panic!("no list");
    };
    let arguments: Vec<_> = list.into_iter().map(|one| one.arguments).collect();
    assert_eq!(arguments, [["/bin/sleep", "1000"]]);
}

#[test]
fn the_runtimes_hooks_run_before_the_root_is_entered() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle().with(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
    });
    let mut client = agent.client();
    let answer = agent.create(&mut client, &bundle, Streams::default());
    assert_eq!(answer, Event::Hooks);
    let answer = client.ask(&Request::Proceed).unwrap();
    assert!(matches!(answer, Event::Created { .. }), "{answer:?}");
}

#[test]
fn a_workspace_that_is_killed_before_its_start_has_ended() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let mut client = agent.client();
    agent.create(&mut client, &idle(), Streams::default());
    let kill = Request::Signal {
        session: WORKLOAD,
        number: 9,
        all: false,
    };
    assert_eq!(client.ask(&kill).unwrap(), Event::Done);
    assert_eq!(ended(&mut client), Exit::Signal(9));
    assert!(matches!(
        client.ask(&Request::Start).unwrap(),
        Event::Failed(_)
    ));
}

#[test]
fn limits_are_written_inside() {
    need!(root, limits);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let limit = Limit {
        file: "pids.max".to_owned(),
        value: "77".to_owned(),
    };
    let update = Request::Update {
        limits: vec![limit],
    };
    assert_eq!(client.ask(&update).unwrap(), Event::Done);
    let written = std::fs::read_to_string(agent.cgroup.join("workspace/pids.max")).unwrap();
    assert_eq!(written, "77\n");
}

#[test]
fn the_agent_ends_when_nobody_is_left_to_tell() {
    need!(root, cgroup2);
    let mut agent = Agent::new();
    let bundle = Bundle::shell("exit 0");
    let mut client = agent.started(&bundle);
    assert_eq!(ended(&mut client), Exit::Status(0));
    assert!(agent.process.try_wait().unwrap().is_none());
    drop(client);
    assert!(agent.process.wait().unwrap().success());
}
