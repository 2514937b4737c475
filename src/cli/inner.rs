//! The processes of a machine, which are this program under words that nobody types: they are started by `create`.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::backend::microvm::files;
use crate::backend::microvm::keeper;
use crate::backend::microvm::vmm;

/// Plays the part that the first argument names; none when it is a command like any other.
pub(super) fn part(args: &[OsString]) -> Option<ExitCode> {
    let (word, rest) = args.split_first()?;
    match word.to_str()? {
        files::WORD => Some(ended(files::serve(rest))),
        keeper::WORD => Some(stayed(rest)),
        vmm::WORD => Some(vmm::main(rest)),
        _ => None,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a part of a machine has no log; what it says is for whoever started it by hand"
)]
fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead {}: {error:#}", files::WORD);
            ExitCode::FAILURE
        }
    }
}

/// A keeper ends as the program in its guest does.
fn stayed(args: &[OsString]) -> ExitCode {
    let source = args.first().and_then(|word| word.to_str());
    let status = keeper::live(source.unwrap_or_default());
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
