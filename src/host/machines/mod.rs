//! Whether this machine can run machines: what KVM is here, and whether a guest gets through what any kernel does.
//!
//! KVM may answer, make a machine and a processor, and still run no stock kernel (PVM, which takes guests made for it
//! only). So where the processor's flags do not vouch for it, a guest of a few instructions is tried, for no longer than
//! [`trial::PATIENCE`].

mod trial;

use std::os::fd::AsFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde::Serialize;

use crate::host::machines::trial::Outcome;
use crate::sys::Errno;
use crate::sys::probe;

/// Of which kind KVM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Intel's VT-x.
    Vmx,
    /// AMD's SVM.
    Svm,
    /// In software, for guests made for it.
    Pvm,
    /// None of these, and it answers all the same.
    Other,
    /// There is none, or none that may be used.
    None,
}

/// Whether machines can run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machines {
    /// Of which kind KVM is.
    pub kind: Kind,
    /// Whether a stock kernel runs in them.
    pub usable: bool,
    /// What was found, in a few words.
    pub found: String,
    /// What to do to have them; empty if they can be had.
    pub remedy: &'static str,
}

const ANOTHER_HOST: &str = "a host with VT-x or SVM, or nesting switched on in the machine outside";

impl Machines {
    /// Looks, and tries a guest only where the processor does not vouch for KVM.
    #[must_use]
    pub fn look() -> Self {
        Self::judge(false)
    }

    /// Looks, and tries a guest in any case.
    #[must_use]
    pub fn try_out() -> Self {
        Self::judge(true)
    }

    /// Why there can be no machine here, and what to do, in one sentence; none if there can.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let Self { found, remedy, .. } = self;
        (!self.usable)
            .then(|| format!("microVMs cannot run on this host ({found}); needed: {remedy}"))
    }

    fn judge(thorough: bool) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let hardware = hardware(&cpuinfo);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let answer = rustix::fs::open("/dev/kvm", flags, Mode::empty())
            .and_then(|device| probe::kvm_version(device.as_fd()));
        if let Err(errno) = answer {
            return Self::absent(errno, hardware);
        }
        match hardware {
            Some(kind) if !thorough => Self::fine(kind),
            Some(kind) => Self::tried(kind, &trial::run()),
            None => Self::tried(in_software(), &trial::run()),
        }
    }

    fn fine(kind: Kind) -> Self {
        let found = match kind {
            Kind::Vmx => "VT-x",
            Kind::Svm => "SVM",
            Kind::Pvm => "PVM; a guest runs all the same",
            Kind::Other | Kind::None => "neither VT-x nor SVM; a guest runs all the same",
        };
        Self {
            kind,
            usable: true,
            found: found.to_owned(),
            remedy: "",
        }
    }

    fn absent(errno: Errno, hardware: Option<Kind>) -> Self {
        let (found, remedy) = match (errno, hardware) {
            (Errno::ACCESS, _) => ("no right to /dev/kvm", "be root, or in the group kvm"),
            (_, Some(Kind::Vmx)) => ("no /dev/kvm", "modprobe kvm_intel"),
            (_, Some(_)) => ("no /dev/kvm", "modprobe kvm_amd"),
            (_, None) => ("no /dev/kvm, and neither VT-x nor SVM", ANOTHER_HOST),
        };
        Self {
            kind: Kind::None,
            usable: false,
            found: format!("{found}: {errno}"),
            remedy,
        }
    }

    /// What the guest's fate says of this kind.
    fn tried(kind: Kind, outcome: &Outcome) -> Self {
        if *outcome == Outcome::Through {
            return Self::fine(kind);
        }
        let name = match kind {
            Kind::Vmx => "VT-x",
            Kind::Svm => "SVM",
            Kind::Pvm => "PVM, which takes only guests made for it",
            Kind::Other | Kind::None => "neither VT-x nor SVM",
        };
        Self {
            kind,
            usable: false,
            found: format!("{name}: {outcome}"),
            remedy: ANOTHER_HOST,
        }
    }
}

/// What KVM is that is not the processor's.
fn in_software() -> Kind {
    match std::fs::exists("/sys/module/kvm_pvm") {
        Ok(true) => Kind::Pvm,
        _ => Kind::Other,
    }
}

/// What the flags of the first processor say.
fn hardware(cpuinfo: &str) -> Option<Kind> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    match (has("vmx"), has("svm")) {
        (true, _) => Some(Kind::Vmx),
        (false, true) => Some(Kind::Svm),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_shows_in_the_flags_of_the_processor() {
        let kind = hardware("model\nflags\t\t: fpu vmx sse\n");
        assert_eq!(kind, Some(Kind::Vmx));
        assert_eq!(hardware("flags\t\t: fpu svm_lock svm\n"), Some(Kind::Svm));
        assert_eq!(hardware("flags\t\t: fpu svm_lock\n"), None);
    }

    #[test]
    fn what_cannot_be_had_is_said_in_one_sentence_with_the_way_out() {
        let machines = Machines::tried(Kind::Pvm, &Outcome::Late);
        let sentence = machines.refusal().unwrap();
        assert!(
            sentence.contains("PVM") && sentence.contains("VT-x or SVM"),
            "{sentence}"
        );
        let missing = Machines::absent(Errno::NOENT, Some(Kind::Svm)).refusal();
        assert!(missing.unwrap().contains("modprobe kvm_amd"));
        assert_eq!(Machines::fine(Kind::Vmx).refusal(), None);
    }
}
