//! What the tests share: bundles to run, a place to run them in, and what they need of the machine.

pub mod bundle;
pub mod home;
pub mod need;
