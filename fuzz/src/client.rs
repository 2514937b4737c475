//! The host's side of the conversation with an agent: whatever a guest answers, the host asks on or says why not.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use bulkhead::agent::client;
use bulkhead::agent::client::Client;
use bulkhead::agent::wire;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Stream;
use bulkhead::sys::process::Exit;

use super::source::Source;

/// Lets these bytes be a guest's answers: to a call, to a request for a stream, and to a conversation.
pub fn run(bytes: &[u8]) {
    let (host, _guest) = saying(bytes);
    client::call(host, wire::CONTROL_PORT).ok();
    let (host, _guest) = saying(bytes);
    client::attach(host, wire::WORKLOAD, Stream::Output).ok();
    let (host, _guest) = saying(bytes);
    converse(Client::open(host).ok());
    let mut source = Source::new(bytes);
    let mut said = framed(&Event::Hello {
        version: wire::VERSION,
        kernel: "6.1".to_owned(),
    });
    while let Some(answer) = answer(&mut source) {
        said.extend(answer);
    }
    let (host, _guest) = saying(&said);
    converse(Client::open(host).ok());
}

/// A connection to somebody who says this and nothing more; as long as the other end is there, it can be asked.
fn saying(bytes: &[u8]) -> (UnixStream, UnixStream) {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    far.write_all(bytes).ok();
    far.shutdown(Shutdown::Write).unwrap();
    (near, far)
}

fn converse(client: Option<Client>) {
    let Some(mut client) = client else { return };
    let session = wire::WORKLOAD;
    for request in [
        Request::Start,
        Request::Processes,
        Request::Wait { session },
        Request::Usage,
        Request::Shutdown,
    ] {
        if client.ask(&request).is_err() {
            return;
        }
    }
    client.exited(session).ok();
}

/// An answer that an agent might give, or bytes that are none.
fn answer(source: &mut Source<'_>) -> Option<Vec<u8>> {
    let session = u32::from(source.byte()? % 3);
    Some(match source.byte()? % 6 {
        0 => framed(&Event::Done),
        1 => framed(&Event::Started { session, pid: 1 }),
        2 => framed(&Event::Exited {
            session,
            exit: Exit::Status(source.byte()?.into()),
        }),
        3 => framed(&Event::Processes(Vec::new())),
        4 => source.word()?.to_le_bytes().to_vec(),
        _ => {
            let length = usize::from(source.byte()?);
            let mut bytes = u32::try_from(length).unwrap_or(0).to_le_bytes().to_vec();
            for _ in 0..length {
                bytes.push(source.byte()?);
            }
            bytes
        }
    })
}

fn framed(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::send(&mut bytes, event).unwrap();
    bytes
}
