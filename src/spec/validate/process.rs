//! Checks the process: what it runs, as whom, and every number it brings for the kernel.

use std::collections::BTreeSet;

use super::Checked;
use super::absolute;
use super::out_of_range;
use super::required;
use crate::spec::SpecError;
use crate::spec::Warning;
use crate::spec::capability;
use crate::spec::list;
use crate::spec::process::Capabilities;
use crate::spec::process::Process;
use crate::spec::process::Rlimit;
use crate::spec::process::Scheduler;
use crate::spec::process::SchedulerPolicy;
use crate::spec::process::User;
use crate::spec::user::NO_ID;

impl Process {
    /// Checks a process alone, as `exec` does; see [`Spec::validate`](crate::spec::Spec::validate).
    ///
    /// # Errors
    ///
    /// [`SpecError::Value`]; paths begin with `process`.
    pub fn validate(&self) -> Result<Vec<Warning>, SpecError> {
        let mut warnings = Vec::new();
        check(self, &mut warnings)?;
        Ok(warnings)
    }
}

pub(super) fn check(process: &Process, warnings: &mut Vec<Warning>) -> Checked {
    match process.args.first() {
        None => {
            return Err(required(
                "process.args",
                "the program to run and its arguments",
            ));
        }
        Some(program) if program.is_empty() => {
            return Err(required("process.args[0]", "the program to run"));
        }
        Some(_) => {}
    }
    absolute(&process.cwd, || "process.cwd".to_owned())?;
    environment(&process.env, "process.env")?;
    user(&process.user)?;
    rlimits(&process.rlimits)?;
    if let Some(sets) = &process.capabilities {
        capabilities(sets, warnings);
    }
    label(&process.apparmor_profile, "process.apparmorProfile")?;
    label(&process.selinux_label, "process.selinuxLabel")?;
    if let Some(score) = process.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(out_of_range(
            "process.oomScoreAdj",
            score.into(),
            -1000,
            1000,
        ));
    }
    if let Some(rule) = &process.scheduler {
        scheduler(rule)?;
    }
    if let Some(rank) = process.io_priority
        && !(0..=7).contains(&rank.priority)
    {
        return Err(out_of_range(
            "process.ioPriority.priority",
            rank.priority.into(),
            0,
            7,
        ));
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        processors(&affinity.initial, "process.execCPUAffinity.initial")?;
        processors(&affinity.last, "process.execCPUAffinity.final")?;
    }
    Ok(())
}

/// Checks a list of `KEY=value`.
pub(super) fn environment(entries: &[String], path: &str) -> Checked {
    for (index, entry) in entries.iter().enumerate() {
        // What an entry holds may be a secret: it is not repeated.
        let reason = match entry.split_once('=') {
            None => "has no equals sign, expected KEY=value",
            Some(("", _)) => "has no name before the equals sign, expected KEY=value",
            Some(_) => continue,
        };
        return Err(SpecError::value(format!("{path}[{index}]"), reason));
    }
    Ok(())
}

fn user(user: &User) -> Checked {
    let ids = [("uid".to_owned(), user.uid), ("gid".to_owned(), user.gid)];
    let more = user.additional_gids.iter().enumerate();
    let more = more.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid));
    if let Some((name, _)) = ids.into_iter().chain(more).find(|(_, id)| *id == NO_ID) {
        let reason =
            format!("{NO_ID} means \"leave it as it is\" to the kernel and is nobody's id");
        return Err(SpecError::value(format!("process.user.{name}"), reason));
    }
    match user.umask {
        Some(umask) if umask > 0o777 => {
            let reason = format!("{umask} ({umask:#o}) has bits beyond 511 (0o777)");
            Err(SpecError::value("process.user.umask", reason))
        }
        _ => Ok(()),
    }
}

fn rlimits(limits: &[Rlimit]) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, limit) in limits.iter().enumerate() {
        let path = format!("process.rlimits[{index}]");
        if !seen.insert(limit.kind) {
            let reason = "is limited twice; leave one of the entries out";
            return Err(SpecError::value(format!("{path}.type"), reason));
        }
        if limit.soft > limit.hard {
            let reason = format!("{} is above the hard limit {}", limit.soft, limit.hard);
            return Err(SpecError::value(format!("{path}.soft"), reason));
        }
    }
    Ok(())
}

fn capabilities(sets: &Capabilities, warnings: &mut Vec<Warning>) {
    for (set, names) in sets.by_name() {
        let unknown = names.iter().enumerate();
        let unknown = unknown.filter(|(_, name)| capability::number(name).is_none());
        warnings.extend(unknown.map(|(index, name)| {
            let path = format!("process.capabilities.{set}[{index}]");
            Warning::new(
                path,
                format!("{name:?} is not a capability of Linux and is ignored"),
            )
        }));
    }
}

/// A security label is written to a file of the kernel, one line long.
pub(super) fn label(label: &str, path: &str) -> Checked {
    if label.contains(char::is_control) {
        let reason = format!("{label:?} has a control character in it");
        return Err(SpecError::value(path, reason));
    }
    Ok(())
}

fn processors(list: &str, path: &str) -> Checked {
    list::ranges(list).map_err(|error| SpecError::value(path, error.to_string()))?;
    Ok(())
}

fn scheduler(rule: &Scheduler) -> Checked {
    let real_time = matches!(rule.policy, SchedulerPolicy::Fifo | SchedulerPolicy::Rr);
    let wrong = |name: &str, reason: &str| {
        Err(SpecError::value(
            format!("process.scheduler.{name}"),
            reason,
        ))
    };
    if rule.policy == SchedulerPolicy::Iso {
        return wrong(
            "policy",
            "SCHED_ISO was never part of Linux; choose another",
        );
    }
    if !(-20..=19).contains(&rule.nice) {
        return Err(out_of_range(
            "process.scheduler.nice",
            rule.nice.into(),
            -20,
            19,
        ));
    }
    if real_time && !(1..=99).contains(&rule.priority) {
        return Err(out_of_range(
            "process.scheduler.priority",
            rule.priority.into(),
            1,
            99,
        ));
    }
    if !real_time && rule.priority != 0 {
        return wrong(
            "priority",
            "is for SCHED_FIFO and SCHED_RR only; leave it out",
        );
    }
    let times = [
        ("runtime", rule.runtime),
        ("deadline", rule.deadline),
        ("period", rule.period),
    ];
    if rule.policy != SchedulerPolicy::Deadline {
        return match times.iter().find(|(_, time)| *time != 0) {
            Some((name, _)) => wrong(name, "is for SCHED_DEADLINE only; leave it out"),
            None => Ok(()),
        };
    }
    deadline(rule)
}

/// The kernel wants `runtime <= deadline <= period`; a period of nothing is the deadline.
fn deadline(rule: &Scheduler) -> Checked {
    if rule.runtime == 0 {
        return Err(required(
            "process.scheduler.runtime",
            "nanoseconds of each period",
        ));
    }
    if rule.runtime > rule.deadline {
        let reason = format!("{} is above the deadline {}", rule.runtime, rule.deadline);
        return Err(SpecError::value("process.scheduler.runtime", reason));
    }
    if rule.period != 0 && rule.deadline > rule.period {
        let reason = format!("{} is above the period {}", rule.deadline, rule.period);
        return Err(SpecError::value("process.scheduler.deadline", reason));
    }
    Ok(())
}
