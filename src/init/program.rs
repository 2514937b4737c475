//! Finds the program, and becomes it.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::plan::accounts;
use crate::plan::step::Program;
use crate::plan::step::Step;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::path;
use crate::sys::process;

/// The longest user database that is read, in bytes: it belongs to the image.
const LONGEST_DATABASE: usize = 1 << 20;
/// Where a program is looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin";

/// A program that has been found, ready to be executed.
#[derive(Debug)]
pub(super) struct Found {
    path: CString,
    environment: Vec<CString>,
}

impl Doing {
    /// Finds the program with the rights that it will have, so that a missing one fails the creation
    /// and not the start.
    pub(super) fn look_up(&mut self, wanted: &Program) -> std::result::Result<(), Trouble> {
        // host path: the root itself.
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = find(&root, wanted)?;
        let environment = environment(&root, wanted)?;
        let path =
            CString::new(path.into_os_string().into_encoded_bytes()).map_err(|_| Errno::INVAL)?;
        self.program = Some(Found { path, environment });
        Ok(())
    }

    /// Becomes the program: nothing of ours stays open.
    pub(super) fn execute(&mut self, wanted: &Program) -> std::result::Result<(), Trouble> {
        let found = self
            .program
            .take()
            .ok_or(Trouble::because(Reason::Order, Errno::INVAL))?;
        let arguments = texts(&wanted.arguments)?;
        process::close_on_exec_from(3 + wanted.preserved)?;
        process::default_signals()?;
        Err(process::execute(&found.path, &arguments, &found.environment).into())
    }
}

fn texts<S: AsRef<str>>(strings: &[S]) -> Result<Vec<CString>> {
    strings
        .iter()
        .map(|text| CString::new(text.as_ref()).map_err(|_| Errno::INVAL))
        .collect()
}

fn find(root: &OwnedFd, wanted: &Program) -> std::result::Result<PathBuf, Trouble> {
    let Some(name) = wanted.arguments.first() else {
        return Err(Trouble::because(Reason::NoProgram, Errno::NOENT));
    };
    if name.contains('/') {
        return match executable(root, Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::ACCESS) => Err(Trouble::because(Reason::NotExecutable, Errno::ACCESS)),
            Err(errno @ Errno::NOENT) => Err(Trouble::because(Reason::NoProgram, errno)),
            Err(errno) => Err(errno.into()),
        };
    }
    let path = wanted
        .environment
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let mut denied = false;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        match executable(root, &candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    let reason = if denied {
        Reason::NotExecutable
    } else {
        Reason::NotInPath
    };
    Err(Trouble::because(
        reason,
        if denied { Errno::ACCESS } else { Errno::NOENT },
    ))
}

/// Whether a path leads, through no magic link, to a file that may be executed.
fn executable(root: &OwnedFd, candidate: &Path) -> Result<()> {
    let file = if candidate.is_absolute() {
        path::open_in(root, candidate, OFlags::PATH)?
    } else {
        path::open_from_here(candidate, OFlags::PATH)?
    };
    if !path::is_kind(file.as_fd(), FileType::RegularFile)? {
        return Err(Errno::ACCESS);
    }
    path::may_execute(file.as_fd())
}

/// The environment, with the user's home when it names none.
fn environment(root: &OwnedFd, wanted: &Program) -> Result<Vec<CString>> {
    let entries = wanted.environment.iter();
    let (empty, named): (Vec<&String>, Vec<&String>) = entries.partition(|entry| *entry == "HOME=");
    let mut environment = texts(&named)?;
    if !empty.is_empty() || !named.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = home_of(root, wanted.uid).unwrap_or_else(|| "/".to_owned());
        let entry = CString::new(format!("HOME={home}")).map_err(|_| Errno::INVAL)?;
        environment.push(entry);
    }
    Ok(environment)
}

/// The home directory of a user, from the image's own database.
fn home_of(root: &OwnedFd, uid: u32) -> Option<String> {
    let database = path::read_small(root, Path::new("/etc/passwd"), LONGEST_DATABASE).ok()?;
    accounts::home_of(&database, uid)
}

/// Prints how long a step took, where `--debug` asked for it.
pub(super) fn print_time(index: usize, step: &Step, took: Duration) {
    use std::io::Write;
    // Whoever closed standard error does not want to know.
    drop(writeln!(
        std::io::stderr(),
        "{:>8} us  step {index}: {step}",
        took.as_micros()
    ));
}
