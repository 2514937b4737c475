//! The `bulkhead` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::cli::main()
}
