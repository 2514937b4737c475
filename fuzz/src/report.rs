//! What the one who does the steps of a plan says to the one who started it: any bytes are a message or none, and a message
//! arrives as it was sent.

use bulkhead::init::report::Message;

/// How much of a failure's words is sent.
const LONGEST: usize = 2048 - 16;

/// Reads these bytes as a message, and sends it again.
pub fn run(bytes: &[u8]) {
    let Some(message) = Message::decode(bytes) else {
        return;
    };
    let (here, there) = bulkhead::sys::socket::pair().unwrap();
    message.send(&here).unwrap();
    let heard = Message::receive(&there).unwrap().unwrap();
    match (&message, &heard) {
        (Message::Failed { trouble, .. }, Message::Failed { trouble: other, .. })
            if trouble.detail.len() > LONGEST =>
        {
            assert!(other.detail.len() <= LONGEST + 4);
        }
        _ => assert_eq!(heard, message),
    }
}
