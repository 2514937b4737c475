//! The file server of a machine, spoken to as a guest's kernel would, over the real device and the real process.
//!
//! There is no guest here: a test drives the registers of the device, puts requests into rings in shared memory, and
//! compares what comes back with the directory that is served.

mod client;
mod driver;
mod ends;
mod hostile;
mod jail;
mod place;
mod serving;
