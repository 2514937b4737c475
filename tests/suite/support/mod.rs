//! What the tests share: bundles to run, a place to run them in, and what they need of the machine.

pub(crate) mod allocations;
pub(crate) mod bundle;
pub(crate) mod elsewhere;
pub(crate) mod home;
pub(crate) mod need;
pub(crate) mod processor;
pub(crate) mod residue;
pub(crate) mod scale;
pub(crate) mod sentinel;
pub(crate) mod somebody;
pub(crate) mod tracer;
pub(crate) mod wall;
