//! The kernel, made safe: the only module with `unsafe` in it, without policy of its own.
