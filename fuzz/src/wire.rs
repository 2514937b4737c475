//! What the host and a guest's agent say to each other: any bytes are a message or an error, and a message stays what it
//! is when it is said again.

use bulkhead::agent::wire;
use bulkhead::agent::wire::Attach;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads these bytes as each kind of message, with the length that stands before them and with the right one.
pub fn run(bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let framed = [&length.to_le_bytes(), bytes].concat();
    for bytes in [bytes, &framed] {
        again::<Request>(bytes);
        again::<Event>(bytes);
        again::<Attach>(bytes);
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(Some(message)) = wire::receive::<T>(bytes) {
        let mut said = Vec::new();
        wire::send(&mut said, &message).unwrap();
        assert_eq!(wire::receive(said.as_slice()).unwrap(), Some(message));
    }
}
