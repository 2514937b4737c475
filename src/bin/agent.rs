//! The `bulkhead-agent` binary: the first process of a machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::agent::main()
}
