//! What this machine can do, found once, as a plain value that tests can make.
