//! Root filesystems that are shared: writable layers above them, and images that are unpacked to become one.

mod overlay;
