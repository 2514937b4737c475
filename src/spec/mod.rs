//! What was asked for: the OCI configuration, read and checked without a kernel.
