//! Each system call of each command is spoilt once by each fault: the runtime, or the process that it makes, is killed
//! there, or the kernel refuses.
//!
//! In the usual run a systematic sample, the faults taking turns; in `make soak` every call with every fault.

use nix::errno::Errno;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::need;
use crate::support::residue;
use crate::support::residue::quiet;
use crate::support::scale;
use crate::support::tracer;
use crate::support::tracer::Call;
use crate::support::tracer::End;
use crate::support::tracer::Fault;
use crate::support::tracer::Followed;
use crate::support::tracer::Spoil;

/// How many calls of a command are spoilt in the usual run.
const SAMPLES: u32 = 24;
/// The same in the test machine, where each try takes ten times as long.
const FEW: u32 = 4;
/// The status of a command whose program was killed.
const KILLED: i32 = 128 + libc::SIGKILL;
/// How long a command may take, whatever the kernel refuses it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What happens at a call.
const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Refuse(Errno::EIO),
    Fault::Refuse(Errno::ENOSPC),
    Fault::Refuse(Errno::EMFILE),
    Fault::Refuse(Errno::ENOMEM),
    Fault::Refuse(Errno::EPERM),
    Fault::Refuse(Errno::EAGAIN),
    Fault::Refuse(Errno::EINTR),
];

/// A workspace to work on.
struct Stage {
    home: Home,
    id: String,
    bundle: Bundle,
}

impl Stage {
    fn new(script: &str) -> Self {
        let home = Home::new();
        let id = home.id();
        let bundle = residue::mark(Bundle::shell(script), &id);
        Self { home, id, bundle }
    }

    fn path(&self) -> String {
        self.bundle.path().display().to_string()
    }

    fn created(&self) {
        let made = quiet(
            &self.home,
            &self.id,
            ["create", "-b", &self.path(), &self.id],
        )
        .status();
        assert!(made.unwrap().success());
    }

    fn started(&self) {
        self.created();
        self.home.bulkhead(["start", &self.id]).ok();
    }

    fn paused(&self) {
        self.started();
        self.home.bulkhead(["pause", &self.id]).ok();
    }

    /// What is wrong with the workspace when it should have this status.
    fn is(&self, status: &str) -> Option<String> {
        let said = self.home.bulkhead(["state", &self.id]);
        let wanted = format!("\"status\": \"{status}\"");
        (!said.out.contains(&wanted)).then(|| format!("is not {status}: {}{}", said.out, said.err))
    }

    /// What is left of it, when nothing should be.
    fn left(&self) -> Option<String> {
        let left = residue::of(&self.home, &self.id);
        (!left.is_empty()).then(|| format!("left: {}", left.join("; ")))
    }
}

/// One command: what has to be there before it, its words, and what has to be true when it says that it succeeded and when
/// it says that it failed.
struct Act {
    name: &'static str,
    script: &'static str,
    before: fn(&Stage),
    words: fn(&Stage) -> Vec<String>,
    succeeded: fn(&Stage) -> Option<String>,
    failed: fn(&Stage) -> Option<String>,
}

const SLEEPS: &str = "exec sleep 1000";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Whatever has become of it, it is there.
fn anything(_: &Stage) -> Option<String> {
    None
}

fn one_of(stage: &Stage, wanted: &[&str]) -> Option<String> {
    let wrong: Vec<_> = wanted
        .iter()
        .filter_map(|status| stage.is(status))
        .collect();
    (wrong.len() == wanted.len()).then(|| wrong.join("; "))
}

/// What is tried: in a sample each call that is tried with the next fault, in a whole run every call with every fault.
fn chosen(calls: &[Call]) -> Vec<(Call, Fault)> {
    let all = calls.len() * FAULTS.len();
    let short = if need::machine().is_ok() {
        FEW
    } else {
        SAMPLES
    };
    let tries = scale::times(short, u32::try_from(all).unwrap());
    let tries = usize::try_from(tries).unwrap();
    let pick = |number: usize| match tries > calls.len() {
        true => (
            number % calls.len(),
            number / calls.len() + number % calls.len(),
        ),
        false => (number * calls.len() / tries, number),
    };
    (0..tries)
        .map(pick)
        .map(|(call, fault)| (calls[call], FAULTS[fault % FAULTS.len()]))
        .collect()
}

/// Calls that cannot fail, or from which nobody comes back. Whatever `close(2)` answers, the descriptor is closed: an answer
/// without that, which is what is made here, no kernel gives.
static CERTAIN: [i64; 13] = [
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_umask,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_set_tid_address,
];

fn certain(call: &Call) -> bool {
    CERTAIN.contains(&call.number.cast_signed())
}

/// One try and what was found to be wrong about it.
struct Try<'a> {
    act: &'a Act,
    stage: &'a Stage,
    call: Call,
    fault: Fault,
}

impl Try<'_> {
    /// Spoils the call; gives what is wrong, and whether the call came.
    fn made(&self) -> (Vec<String>, bool) {
        let Self {
            act,
            stage,
            call,
            fault,
        } = *self;
        (act.before)(stage);
        let errors = stage.home.beside("errors");
        let wanted = Spoil {
            who: call.who,
            index: call.index,
            fault,
            spared: &CERTAIN,
        };
        let followed = tracer::follow(&self.command(), &errors, Some(wanted));
        let said = std::fs::read_to_string(&errors).unwrap();
        let mut wrong: Vec<String> = self.judged(&followed, &said).into_iter().collect();
        if followed.took > PATIENCE {
            wrong.push(format!("took {:?}", followed.took));
        }
        let removed = stage.home.bulkhead(["delete", "--force", &stage.id]);
        if removed.status != 0 {
            wrong.push(format!("cannot be deleted: {}", removed.err.trim()));
        }
        wrong.extend(stage.left());
        let at = followed.spoilt.unwrap_or(call);
        let wrong = wrong.into_iter().map(|what| {
            format!(
                "{} process {} call {} ({}) {fault:?}: {what}",
                act.name, at.who, at.index, at.number
            )
        });
        (wrong.collect(), followed.spoilt.is_some())
    }

    fn command(&self) -> std::process::Command {
        quiet(
            &self.stage.home,
            &self.stage.id,
            (self.act.words)(self.stage),
        )
    }

    /// Whether the call is the one that a first process waits in when its creation has succeeded.
    fn is_the_wait_for_a_start(&self) -> bool {
        self.act.name == "create"
            && self.call.who > 0
            && self.call.number.cast_signed() == libc::SYS_accept4
    }

    /// What is wrong with how the command ended.
    fn judged(&self, followed: &Followed, said: &str) -> Option<String> {
        match followed.end {
            End::Status(0) => {
                let wrong = (self.act.succeeded)(self.stage);
                if wrong.is_some() && self.is_the_wait_for_a_start() {
                    // Who cannot wait ends by itself, which takes it a moment.
                    eventually("its end", || self.stage.is("stopped").is_none());
                    return None;
                }
                wrong.map(|why| format!("succeeded, but {why}; {said}"))
            }
            // Who was killed on the way to the program looks like a program that was killed.
            End::Status(KILLED) if self.fault == Fault::Kill && self.call.who > 0 => None,
            End::Status(_) => {
                let unclear = (!explains(said)).then(|| format!("says only {said:?}"));
                // What cannot be taken down after the program has run is left for a deletion.
                let judge = if followed.ran && self.act.name == "run" {
                    anything
                } else {
                    self.act.failed
                };
                unclear.or_else(|| judge(self.stage).map(|why| format!("{why}, after {said:?}")))
            }
            End::Signal(_) => None,
        }
    }
}

/// Whether an error says more than a number: what was tried, with which object.
fn explains(said: &str) -> bool {
    let last = said.trim().lines().last().unwrap_or_default();
    let words = last
        .split(": ")
        .filter(|part| !part.contains("(os error"))
        .count();
    // The last is what the C library says before there is a program.
    words >= 3
        || ["memory allocation of", "thread-local storage"]
            .iter()
            .any(|own| last.contains(own))
}

/// Tries an act with every fault that is due.
#[expect(
    clippy::print_stdout,
    reason = "how much was tried tells what a pass is worth"
)]
fn sweep(act: &Act) {
    let mut stage = Stage::new(act.script);
    (act.before)(&stage);
    let words = quiet(&stage.home, &stage.id, (act.words)(&stage));
    let whole = tracer::follow(&words, &stage.home.beside("errors"), None);
    assert_eq!(whole.end, End::Status(0));
    residue::remove(&stage.home, &stage.id);
    let calls: Vec<Call> = whole
        .calls
        .into_iter()
        .filter(|call| !certain(call))
        .collect();
    let chosen = chosen(&calls);
    let all = u32::try_from(chosen.len()).unwrap();
    let mut wrong = Vec::new();
    let mut missed = 0;
    for (done, (call, fault)) in (0..).zip(chosen) {
        let tried = Try {
            act,
            stage: &stage,
            call,
            fault,
        };
        let (found, came) = tried.made();
        missed += u32::from(!came);
        found.iter().for_each(|what| println!("{what}"));
        if !found.is_empty() {
            // What is left must not be taken for the next one's.
            stage = Stage::new(act.script);
        }
        wrong.extend(found);
        scale::progress(act.name, done + 1, all);
    }
    let processes = calls.iter().map(|call| call.who).max().unwrap_or_default() + 1;
    println!(
        "{}: {} calls of {processes} processes, {all} tries, {missed} without the call",
        act.name,
        calls.len()
    );
    assert_eq!(wrong, Vec::<String>::new());
    assert!(missed * 20 <= all, "{missed} of {all} calls did not come");
}

#[test]
fn create_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "create",
        script: SLEEPS,
        before: |_| (),
        words: |stage| words(&["create", "-b", &stage.path(), &stage.id]),
        succeeded: |stage| {
            let wrong = stage.is("created");
            wrong.or_else(|| {
                let started = stage.home.bulkhead(["start", &stage.id]);
                (started.status != 0).then(|| format!("cannot be started: {}", started.err))
            })
        },
        failed: Stage::left,
    });
}

#[test]
fn start_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "start",
        script: SLEEPS,
        before: Stage::created,
        words: |stage| words(&["start", &stage.id]),
        succeeded: |stage| stage.is("running"),
        failed: |stage| one_of(stage, &["created", "running", "stopped"]),
    });
}

#[test]
fn run_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "run",
        script: "exit 0",
        before: |_| (),
        words: |stage| words(&["run", "-b", &stage.path(), &stage.id]),
        succeeded: Stage::left,
        failed: Stage::left,
    });
}

#[test]
fn a_detached_run_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "run -d",
        script: SLEEPS,
        before: |_| (),
        words: |stage| words(&["run", "-d", "-b", &stage.path(), &stage.id]),
        succeeded: |stage| stage.is("running"),
        failed: Stage::left,
    });
}

#[test]
fn exec_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "exec",
        script: SLEEPS,
        before: Stage::started,
        words: |stage| words(&["exec", &stage.id, "true"]),
        succeeded: |stage| stage.is("running"),
        failed: |stage| stage.is("running"),
    });
}

#[test]
fn kill_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "kill",
        script: SLEEPS,
        before: Stage::started,
        words: |stage| words(&["kill", &stage.id, "KILL"]),
        succeeded: |stage| {
            eventually("the end", || stage.is("stopped").is_none());
            None
        },
        failed: |stage| stage.is("running"),
    });
}

#[test]
fn pause_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "pause",
        script: SLEEPS,
        before: Stage::started,
        words: |stage| words(&["pause", &stage.id]),
        succeeded: |stage| stage.is("paused"),
        failed: |stage| one_of(stage, &["running", "paused"]),
    });
}

#[test]
fn resume_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "resume",
        script: SLEEPS,
        before: Stage::paused,
        words: |stage| words(&["resume", &stage.id]),
        succeeded: |stage| stage.is("running"),
        failed: |stage| one_of(stage, &["running", "paused"]),
    });
}

#[test]
fn update_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "update",
        script: SLEEPS,
        before: Stage::started,
        words: |stage| {
            let asked = stage.home.beside("resources.json");
            let limits = need::limits().is_ok();
            let text = if limits {
                r#"{"pids":{"limit":40}}"#
            } else {
                "{}"
            };
            std::fs::write(&asked, text).unwrap();
            words(&["update", "-r", asked.to_str().unwrap(), &stage.id])
        },
        succeeded: |stage| stage.is("running"),
        failed: |stage| stage.is("running"),
    });
}

#[test]
fn delete_survives_every_fault() {
    need!(root, cgroup2);
    sweep(&Act {
        name: "delete",
        script: SLEEPS,
        before: Stage::started,
        words: |stage| words(&["delete", "--force", &stage.id]),
        succeeded: Stage::left,
        failed: anything,
    });
}
