//! Stays with a workspace when nobody else does: its output, its lease, its samples for the bill.
