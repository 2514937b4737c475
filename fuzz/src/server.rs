//! The device of a file server's, whose server answers anything: the machine's process must not be confused by one that
//! has been taken over by its guest.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use bulkhead::backend::microvm::vmm::virtio::Fs;

use super::guest::Guest;
use super::source::Source;

/// Requests that are answered (vhost-user), in the order in which a device makes them.
const ASKED: [u32; 16] = [3, 1, 15, 16, 2, 5, 8, 9, 10, 13, 12, 18, 11, 34, 0, 40];
/// A header's flags: this version, and that it is a reply.
const REPLY: u32 = 1 | 1 << 2;

/// Lets a driver at the device while these bytes are all that its server ever says.
pub fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut said = Vec::new();
    for _ in 0..24 {
        let Some(answer) = answer(&mut source) else {
            break;
        };
        said.extend(answer);
    }
    // All of it is there before anything is asked, and then the end: nobody waits for more.
    far.set_nonblocking(true).unwrap();
    far.write_all(&said).ok();
    far.shutdown(Shutdown::Write).unwrap();
    let device = Fs::new("share", near.into(), || ()).unwrap();
    let mut guest = Guest::new(device, u64::MAX);
    for _ in 0..4 {
        guest.begin();
        guest.kick(0);
        guest.turn();
    }
}

fn answer(source: &mut Source<'_>) -> Option<Vec<u8>> {
    let request = source.one_of(&ASKED)?;
    let flags = source.one_of(&[REPLY, REPLY, 1, 0, u32::MAX, 1 | 1 << 3])?;
    let length = source.one_of(&[8_u32, 8, 0, 4, 12, 4096, u32::MAX])?;
    let mut answer = Vec::new();
    for word in [request, flags, length] {
        answer.extend(word.to_le_bytes());
    }
    let given = match source.byte()? % 4 {
        0 => usize::from(source.byte()?),
        _ => usize::try_from(length).unwrap_or(0).min(64),
    };
    for _ in 0..given {
        answer.push(source.byte()?);
    }
    Some(answer)
}
