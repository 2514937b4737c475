//! The box that a workspace lives in: its cgroup, its device filter, its counters.
