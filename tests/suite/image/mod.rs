//! Root filesystems that are shared: writable layers above them, and images that are unpacked to become one.

mod builder;
mod choosing;
mod documents;
mod hostile;
mod killed;
mod overlay;
mod shared;
mod unpack;
