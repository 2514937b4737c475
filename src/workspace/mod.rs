//! The running thing: created, started, stopped and found again from the store.
