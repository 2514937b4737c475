//! The configuration as a whole: every property, every example, and the specification's own types beside ours.

mod examples;
mod oracle;
mod promises;
mod properties;
mod random;
mod walk;
