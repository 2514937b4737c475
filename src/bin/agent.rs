//! The `bulkhead-agent` binary: the first process of a machine.

use std::process::ExitCode;

/// What the product is built with; the tests' own programs have that of the C library.
#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    bulkhead::agent::main()
}
