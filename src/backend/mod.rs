//! What can be put into an enclosure, and how it is talked to.
