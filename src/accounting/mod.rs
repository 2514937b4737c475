//! What a workspace cost: usage as it stands, and the ledger of what was used.
