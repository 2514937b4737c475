//! Standard streams and terminals of programs in a guest: whole, in order, and closed when they are.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;

use bulkhead::agent::client;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Output;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Stream;
use bulkhead::agent::wire::Streams;
use bulkhead::sys::process::Exit;

use super::ALL;
use super::Agent;
use super::ended;
use super::errand;
use super::idle;
use super::run;
use super::text;
use crate::need;
use crate::support::bundle::Bundle;

#[test]
fn output_and_errors_are_whole_and_apart() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = Bundle::shell("read line; echo got $line; echo bad >&2; exit 3");
    let mut client = agent.client();
    agent.create(&mut client, &bundle, ALL);
    let mut input = agent.attach(0, Stream::Input);
    let output = agent.attach(0, Stream::Output);
    let error = agent.attach(0, Stream::Error);
    client.ask(&Request::Start).unwrap();
    input.write_all(b"word\n").unwrap();
    assert_eq!(text(output), "got word\n");
    assert_eq!(text(error), "bad\n");
    assert_eq!(ended(&mut client), Exit::Status(3));
}

#[test]
fn what_was_written_before_the_end_arrives_however_late_it_is_taken() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let exec = errand(
        &bundle,
        "dd if=/dev/zero bs=1000 count=200 2>/dev/null",
        ALL,
    );
    let session = run(&mut client, &exec);
    let error = agent.attach(session, Stream::Error);
    let mut output = agent.attach(session, Stream::Output);
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), text(error).as_str()), (200_000, ""));
    assert_eq!(client.exited(session).unwrap(), Exit::Status(0));
}

#[test]
fn the_end_is_not_told_before_the_output_is_taken() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let streams = Streams::Pipes {
        input: false,
        output: Output::Stream,
        error: Output::WithOutput,
    };
    let session = run(
        &mut client,
        &errand(&bundle, "echo a; echo b >&2; echo c", streams),
    );
    let wait = std::time::Duration::from_millis(200);
    client.connection().set_read_timeout(Some(wait)).unwrap();
    assert!(client.exited(session).is_err());
    client.connection().set_read_timeout(None).unwrap();
    assert_eq!(text(agent.attach(session, Stream::Output)), "a\nb\nc\n");
    assert_eq!(client.exited(session).unwrap(), Exit::Status(0));
}

#[test]
fn the_end_of_the_input_is_delivered() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let session = run(&mut client, &errand(&bundle, "wc -c", ALL));
    let mut input = agent.attach(session, Stream::Input);
    let output = agent.attach(session, Stream::Output);
    let _error = agent.attach(session, Stream::Error);
    input.write_all(&vec![b'x'; 3_000_000]).unwrap();
    input.shutdown(Shutdown::Write).unwrap();
    assert_eq!(text(output), "3000000\n");
    assert_eq!(client.exited(session).unwrap(), Exit::Status(0));
}

#[test]
fn a_process_left_behind_does_not_keep_the_end_back() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let session = run(&mut client, &errand(&bundle, "sleep 1000 & echo left", ALL));
    let output = agent.attach(session, Stream::Output);
    let error = agent.attach(session, Stream::Error);
    assert_eq!(
        (text(output).as_str(), text(error).as_str()),
        ("left\n", "")
    );
    assert_eq!(client.exited(session).unwrap(), Exit::Status(0));
}

#[test]
fn several_programs_do_not_mix() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let _first = agent.started(&bundle);
    let mut running = Vec::new();
    for number in 0..6 {
        let mut client = agent.client();
        let script =
            format!("for i in 1 2 3 4 5 6 7 8 9; do echo {number} $i; done; exit {number}");
        let session = run(&mut client, &errand(&bundle, &script, ALL));
        running.push((number, client, session));
    }
    for (number, mut client, session) in running.into_iter().rev() {
        let output = agent.attach(session, Stream::Output);
        let _error = agent.attach(session, Stream::Error);
        let expected: String = (1..10).map(|line| format!("{number} {line}\n")).collect();
        assert_eq!(text(output), expected);
        assert_eq!(client.exited(session).unwrap(), Exit::Status(number));
    }
}

#[test]
fn a_stream_is_attached_to_once() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let session = run(&mut client, &errand(&bundle, "cat", ALL));
    let _input = agent.attach(session, Stream::Input);
    for (session, stream) in [
        (session, Stream::Input),
        (session, Stream::Terminal),
        (session + 1, Stream::Output),
    ] {
        let refused = client::attach(agent.socket("streams"), session, stream);
        assert!(refused.is_err(), "{session} {stream:?}");
    }
}

#[test]
fn a_terminal_has_a_size_and_its_last_words() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let script = "read line; stty size; echo $line; tty; exit 4";
    let session = run(&mut client, &errand(&bundle, script, Streams::Terminal));
    let mut terminal = agent.attach(session, Stream::Terminal);
    let resize = Request::Resize {
        session,
        rows: 40,
        columns: 132,
    };
    assert_eq!(client.ask(&resize).unwrap(), Event::Done);
    terminal.write_all(b"typed\n").unwrap();
    let shown = text(terminal);
    assert!(shown.contains("40 132\r\ntyped\r\n/dev/pts/"), "{shown:?}");
    assert_eq!(client.exited(session).unwrap(), Exit::Status(4));
}

#[test]
fn a_host_that_goes_away_leaves_no_program_waiting() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let bundle = idle();
    let mut client = agent.started(&bundle);
    let session = run(&mut client, &errand(&bundle, "yes", ALL));
    let mut output = agent.attach(session, Stream::Output);
    let _error = agent.attach(session, Stream::Error);
    output.read_exact(&mut [0; 1000]).unwrap();
    drop(output);
    assert_eq!(client.exited(session).unwrap(), Exit::Signal(13));
}
