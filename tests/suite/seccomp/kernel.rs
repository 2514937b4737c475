//! The kernel takes our programs and does what they say.
//!
//! A filter without `TSYNC` confines one thread: each test loads its own in a thread of its own.
#![expect(
    unsafe_code,
    reason = "calls without a wrapper, and a filter between fork and exec"
)]

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use bulkhead::plan::seccomp;
use bulkhead::plan::seccomp::Filter;
use bulkhead::spec::seccomp::Seccomp;
use bulkhead::sys;
use libseccomp_sys as c;
use rustix::fs::Mode;
use rustix::io::Errno;
use serde_json::json;

use super::engine;

fn compile(profile: &Seccomp) -> Filter {
    seccomp::compile(profile, seccomp::native()).unwrap()
}

/// A filter that does this with `mkdir`, and lets everything else through.
fn on_mkdir(rule: &serde_json::Value) -> Filter {
    let mut rule = rule.clone();
    rule["names"] = json!(["mkdir", "mkdirat"]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [rule]});
    compile(&serde_json::from_value(profile).unwrap())
}

fn load(filter: &Filter) -> Option<OwnedFd> {
    rustix::thread::set_no_new_privs(true).unwrap();
    let instructions = filter.instructions.iter().copied().map(Into::into);
    sys::seccomp::load(instructions, filter.flags).unwrap()
}

/// What `work` gives in a thread that is confined.
fn confined<T: Send>(filter: &Filter, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert!(load(filter).is_none());
            work()
        });
        thread.join().unwrap()
    })
}

fn mkdir(path: impl AsRef<Path>) -> Result<(), Errno> {
    rustix::fs::mkdir(path.as_ref(), Mode::RWXU)
}

/// Makes a system call that has no wrapper, without arguments.
fn call(number: i64) -> Result<i64, Errno> {
    // SAFETY: the numbers asked for here are of no call, or of one that fails without arguments.
    match unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
        value => Ok(value),
    }
}

#[test]
fn a_call_fails_with_the_number_of_the_rule() {
    let home = tempfile::tempdir().unwrap();
    let filter = on_mkdir(&json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 95}));
    assert_eq!(
        confined(&filter, || mkdir(home.path().join("new"))),
        Err(Errno::OPNOTSUPP)
    );
    assert!(!home.path().join("new").exists());
}

#[test]
fn a_logged_call_is_made() {
    let home = tempfile::tempdir().unwrap();
    let filter = on_mkdir(&json!({"action": "SCMP_ACT_LOG"}));
    assert_eq!(confined(&filter, || mkdir(home.path().join("new"))), Ok(()));
}

#[test]
fn a_traced_call_without_a_tracer_is_not_implemented() {
    let filter = on_mkdir(&json!({"action": "SCMP_ACT_TRACE", "errnoRet": 7}));
    assert_eq!(
        confined(&filter, || mkdir("/nowhere/new")),
        Err(Errno::NOSYS)
    );
}

#[test]
fn a_condition_looks_at_the_argument() {
    let filter = on_mkdir(
        &json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [
        {"index": 2, "value": 0o777, "valueTwo": 0o700, "op": "SCMP_CMP_MASKED_EQ"}]}),
    );
    let asked = confined(&filter, || {
        [Mode::RWXU, Mode::RWXU | Mode::RWXG]
            .map(|mode| rustix::fs::mkdirat(rustix::fs::CWD, "/nowhere/new", mode))
    });
    assert_eq!(asked, [Err(Errno::OPNOTSUPP), Err(Errno::NOENT)]);
}

#[test]
fn a_killed_process_dies_of_a_bad_system_call() {
    let filter = on_mkdir(&json!({"action": "SCMP_ACT_KILL_PROCESS"}));
    let mut command = Command::new("mkdir");
    command.arg("/nowhere/new");
    // SAFETY: the child only makes system calls: the vector of instructions that `load` makes comes from
    // an allocator that glibc leaves usable after fork.
    unsafe {
        command.pre_exec(move || {
            load(&filter);
            Ok(())
        })
    };
    assert_eq!(command.status().unwrap().signal(), Some(libc::SIGSYS));
}

#[test]
fn programs_live_under_the_profiles_of_engines() {
    for profile in [engine::docker(), engine::podman()] {
        let filter = compile(&profile);
        let mut command = Command::new("sh");
        command.args(["-c", "ls / >/dev/null && echo lives"]);
        // SAFETY: as above.
        unsafe {
            command.pre_exec(move || {
                load(&filter);
                Ok(())
            })
        };
        assert_eq!(command.output().unwrap().stdout, b"lives\n");
    }
}

#[test]
fn dockers_profile_denies_what_it_knows_and_lacks_what_it_does_not() {
    let asked = confined(&compile(&engine::docker()), || {
        [libc::SYS_mount, libc::SYS_getpid, 999].map(|number| call(number).err())
    });
    assert_eq!(asked, [Some(Errno::PERM), None, Some(Errno::NOSYS)]);
}

#[test]
fn an_agent_answers_for_the_kernel() {
    let filter = on_mkdir(&json!({"action": "SCMP_ACT_NOTIFY"}));
    let (sender, receiver) = mpsc::channel();
    let answered = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sender.send(load(&filter).unwrap()).unwrap();
            mkdir("/nowhere/new")
        });
        answer(&receiver.recv().unwrap(), Errno::XDEV);
        thread.join().unwrap()
    });
    assert_eq!(answered, Err(Errno::XDEV));
}

/// Waits for one call, and fails it.
fn answer(listener: &OwnedFd, errno: Errno) {
    let (mut request, mut response) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: both places are alive for the call.
    let made = unsafe { c::seccomp_notify_alloc(&raw mut request, &raw mut response) };
    assert_eq!(made, 0);
    // SAFETY: the descriptor is a listener, and the request was just made for it.
    let received = unsafe { c::seccomp_notify_receive(listener.as_raw_fd(), request) };
    assert_eq!(received, 0);
    // SAFETY: filled in by the call above.
    let id = unsafe { (*request).id };
    let refusal = c::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno.raw_os_error(),
        flags: 0,
    };
    // SAFETY: made by libseccomp at least as large as this.
    unsafe { response.write(refusal) };
    // SAFETY: the descriptor is a listener, and the response was just filled in.
    let sent = unsafe { c::seccomp_notify_respond(listener.as_raw_fd(), response) };
    assert_eq!(sent, 0);
    // SAFETY: both were made by seccomp_notify_alloc, and nobody uses them afterwards.
    unsafe { c::seccomp_notify_free(request, response) };
}

#[test]
fn a_program_as_long_as_the_kernel_takes_is_taken() {
    let rules: Vec<_> = (0..600)
        .map(|value| {
            json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": value % 7 + 1,
                "args": [{"index": 1, "value": 0x1_0000_0000_u64 * value, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let filter = compile(&serde_json::from_value(profile).unwrap());
    assert!(
        filter.instructions.len() > 2000,
        "{}",
        filter.instructions.len()
    );
    assert_eq!(
        confined(&filter, || mkdir("/nowhere/new")),
        Err(Errno::NOENT)
    );
}
