//! What either end of the wire may be sent by the other, and must bear.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;

use bulkhead::agent::client;
use bulkhead::agent::client::Client;
use bulkhead::agent::wire;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Stream;
use bulkhead::agent::wire::Streams;
use bulkhead::agent::wire::WireError;
use proptest::prelude::*;

use super::Agent;
use super::errand;
use super::idle;
use crate::need;

/// Sends bytes to the agent and ends; gives what it answered.
fn answered(agent: &Agent, socket: &str, bytes: &[u8]) -> Vec<u8> {
    let mut connection = agent.socket(socket);
    // It may hang up before it has read all.
    connection.write_all(bytes).unwrap_or_default();
    connection
        .shutdown(std::net::Shutdown::Write)
        .unwrap_or_default();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap_or_default();
    answer
}

fn frame(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_le_bytes(), text].concat()
}

/// The first frame of a conversation, with fields after the version.
fn greeting(fields: &str) -> Vec<u8> {
    let version = wire::VERSION;
    frame(format!("{{\"Hello\":{{\"version\":{version}{fields}}}}}").as_bytes())
}

#[test]
fn the_agent_bears_what_is_no_request() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let hello = greeting("");
    let after = |text: &[u8]| [hello.as_slice(), &frame(text)].concat();
    let cases = [
        Vec::new(),
        vec![0],
        vec![0, 0, 0, 0],
        vec![0xff; 4],
        [&(1u32 << 25).to_le_bytes()[..], &[b'{'; 100]].concat(),
        frame(b"\"Start\""),
        frame(&[b'['; 100_000]),
        after(b"\"Dance\""),
        after(br#"{"Create":{}}"#),
        after(br#"{"Wait":{"session":0,"x":1}}"#),
        hello[..10].to_vec(),
    ];
    for bytes in cases {
        for socket in ["control", "streams"] {
            answered(&agent, socket, &bytes);
        }
    }
    assert!(agent.client().ask(&Request::Start).is_ok());
}

#[test]
fn another_version_is_told_which_one_it_is() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let answer = answered(&agent, "control", &frame(br#"{"Hello":{"version":999}}"#));
    let event: Event = wire::receive(answer.as_slice()).unwrap().unwrap();
    assert!(
        matches!(
            event,
            Event::Hello {
                version: wire::VERSION,
                ..
            }
        ),
        "{event:?}"
    );
    let mut connection = agent.socket("streams");
    let attach = wire::Attach {
        version: 999,
        session: 0,
        stream: Stream::Output,
    };
    wire::send(&mut connection, &attach).unwrap();
    let event: Event = wire::receive(&connection).unwrap().unwrap();
    assert!(matches!(event, Event::Failed(_)), "{event:?}");
}

#[test]
fn what_is_asked_at_the_wrong_time_is_refused_and_the_conversation_goes_on() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let mut client = agent.client();
    let session = 0;
    for request in [
        Request::Start,
        Request::Proceed,
        Request::Hello {
            version: wire::VERSION,
        },
        Request::Wait { session },
        Request::Resize {
            session,
            rows: 1,
            columns: 1,
        },
        errand(&idle(), "true", Streams::default()),
    ] {
        let answer = client.ask(&request).unwrap();
        assert!(
            matches!(answer, Event::Failed(_)),
            "{request:?}: {answer:?}"
        );
    }
    let bundle = idle();
    agent.create(&mut client, &bundle, Streams::default());
    let second = agent.create(&mut client, &bundle, Streams::default());
    assert!(matches!(second, Event::Failed(_)), "{second:?}");
}

#[test]
fn more_connections_than_are_allowed_are_closed_and_the_others_live() {
    need!(root, cgroup2);
    let agent = Agent::new();
    let mut first = agent.client();
    let others: Vec<UnixStream> = (0..300).map(|_| agent.socket("control")).collect();
    assert!(matches!(
        first.ask(&Request::Usage).unwrap(),
        Event::Usage(_)
    ));
    drop(others);
    crate::support::home::eventually("there is room again", || {
        Client::open(agent.socket("control")).is_ok()
    });
}

/// A guest that answers with `bytes`, whatever it is asked.
fn guest(bytes: Vec<u8>) -> UnixStream {
    let (host, mut guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        guest.write_all(&bytes).unwrap_or_default();
        guest
            .shutdown(std::net::Shutdown::Write)
            .unwrap_or_default();
        let mut asked = Vec::new();
        guest.read_to_end(&mut asked).unwrap_or_default();
    });
    host
}

#[test]
fn a_guest_of_another_version_is_named_with_the_way_out() {
    let other = frame(br#"{"Hello":{"version":999,"kernel":"x"}}"#);
    let refused = Client::open(guest(other)).unwrap_err();
    let words = refused.to_string();
    assert!(
        words.contains("version 999") && words.contains("make guest"),
        "{words}"
    );
}

#[test]
fn a_guest_that_announces_too_much_is_not_listened_to() {
    let bytes = [&u32::MAX.to_le_bytes()[..], &[b' '; 64]].concat();
    let refused = Client::open(guest(bytes)).unwrap_err();
    assert!(matches!(refused, WireError::TooLong { .. }), "{refused:?}");
}

#[test]
fn a_guest_that_tells_of_one_end_after_the_other_is_not_listened_to_for_ever() {
    let mut bytes = greeting(r#","kernel":"x""#);
    let end = frame(br#"{"Exited":{"session":7,"exit":{"Status":0}}}"#);
    bytes.extend(end.repeat(5000));
    bytes.extend(frame(br#""Done""#));
    let mut client = Client::open(guest(bytes)).unwrap();
    let refused = client.ask(&Request::Processes).unwrap_err();
    assert!(matches!(refused, WireError::OutOfTurn), "{refused:?}");
}

#[test]
fn a_machine_that_does_not_answer_the_call_is_not_taken_for_one_that_does() {
    for answer in [&b""[..], b"NO\n", b"O", &[b'K'; 4096]] {
        let refused = client::call(guest(answer.to_vec()), 1024).unwrap_err();
        assert!(
            matches!(refused, WireError::NoAnswer { port: 1024 }),
            "{refused:?}"
        );
    }
    let mut through = client::call(guest(b"OK 77\nbytes".to_vec()), 1024).unwrap();
    let mut rest = String::new();
    through.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bytes");
}

/// JSON as a guest or a host may send it: near to what is understood, and far.
fn near_misses() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        br#"{"Started":{"session":1,"pid":7}}"#.to_vec(),
        br#"{"Exited":{"session":1,"exit":{"Status":0}}}"#.to_vec(),
        br#"{"Exited":{"session":0,"exit":{"Signal":9}}}"#.to_vec(),
        br#"{"Failed":{"Step":{"index":4294967295,"errno":-5,"reason":65535,"detail":"\u0000"}}}"#
            .to_vec(),
        br#"{"Processes":[]}"#.to_vec(),
        b"\"Done\"".to_vec(),
    ];
    let whole = proptest::sample::select(known.to_vec());
    (whole, any::<prop::sample::Index>(), any::<u8>(), 0..4u8).prop_map(
        |(mut text, at, byte, how)| {
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.truncate(at),
                2 => text.insert(at, byte),
                _ => {}
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_host_bears_whatever_a_guest_says(
        frames in proptest::collection::vec(near_misses(), 0..6),
        rest in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = greeting(r#","kernel":"6.1""#);
        for text in &frames {
            bytes.extend(frame(text));
        }
        bytes.extend(rest);
        let mut client = Client::open(guest(bytes)).unwrap();
        // Each answer is one or an error; it ends either way.
        while client.ask(&Request::Processes).is_ok() {}
        client.exited(1).map(drop).unwrap_or_default();
    }

    #[test]
    fn no_bytes_are_taken_for_a_request_that_they_are_not(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(Some(request)) = wire::receive::<Request>(bytes.as_slice()) {
            let mut again = Vec::new();
            wire::send(&mut again, &request).unwrap();
            prop_assert_eq!(wire::receive::<Request>(again.as_slice()).unwrap(), Some(request));
        }
    }
}
