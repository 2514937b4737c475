//! Checks what the values of a configuration mean, before anything is made.
//!
//! Types were checked when the document was read. Whatever needs the machine to be judged, such as whether a path
//! exists, is left to those who see the machine.

mod identity;
mod linux;
mod mounts;
mod process;

use std::path::Path;

use super::Spec;
use super::SpecError;
use super::Warning;
use super::hooks::Hook;
use super::linux::NamespaceKind;

type Checked = Result<(), SpecError>;

/// The longest host or domain name that `sethostname(2)` takes.
const LONGEST_NAME: usize = 64;

impl Spec {
    /// Checks everything that can be checked without the machine, and tells what is passed over.
    ///
    /// # Errors
    ///
    /// [`SpecError::Value`] with the path of the first property that cannot be used and what would be right.
    pub fn validate(&self) -> Result<Vec<Warning>, SpecError> {
        let mut warnings = Vec::new();
        version(&self.oci_version)?;
        if self.root.path.as_os_str().is_empty() {
            return Err(required("root.path", "the directory that becomes /"));
        }
        names(self)?;
        if let Some(value) = self.annotations.get("") {
            let reason = format!("the value {value:?} has no key, and keys cannot be empty");
            return Err(SpecError::value("annotations", reason));
        }
        process::check(&self.process, &mut warnings)?;
        linux::check(self, &mut warnings)?;
        mounts::check(self, &mut warnings)?;
        for (name, hooks) in self.hooks.by_name() {
            for (index, one) in hooks.iter().enumerate() {
                hook(one, &format!("hooks.{name}[{index}]"))?;
            }
        }
        Ok(warnings)
    }
}

/// Versions 1.0.0 to 1.3.x are understood, with whatever is written behind them.
fn version(text: &str) -> Checked {
    if text.is_empty() {
        return Err(required("ociVersion", "such as \"1.3.0\""));
    }
    let number = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Option<Vec<u32>> = number.split('.').map(super::user::id).collect();
    let prerelease = text
        .get(number.len()..)
        .unwrap_or_default()
        .starts_with('-');
    match parts.as_deref() {
        Some([1, 0, 0]) if prerelease => {}
        Some([1, 0..=3, _]) => return Ok(()),
        _ => {}
    }
    let reason = format!("{text:?} is not supported, versions 1.0.0 to 1.3.x are");
    Err(SpecError::value("ociVersion", reason))
}

fn names(spec: &Spec) -> Checked {
    for (path, name) in [
        ("hostname", &spec.hostname),
        ("domainname", &spec.domainname),
    ] {
        if name.is_empty() {
            continue;
        }
        if !spec.linux.has(NamespaceKind::Uts) {
            return Err(needs_namespace(path, NamespaceKind::Uts));
        }
        if name.len() > LONGEST_NAME {
            let reason = format!("is {} bytes long, {LONGEST_NAME} are possible", name.len());
            return Err(SpecError::value(path, reason));
        }
    }
    Ok(())
}

fn hook(hook: &Hook, path: &str) -> Checked {
    absolute(&hook.path, || format!("{path}.path"))?;
    process::environment(&hook.env, &format!("{path}.env"))?;
    match hook.timeout {
        Some(seconds) if seconds <= 0 => {
            let reason = format!("{seconds} seconds is no time; leave it out to wait without end");
            Err(SpecError::value(format!("{path}.timeout"), reason))
        }
        _ => Ok(()),
    }
}

fn absolute(value: &Path, path: impl Fn() -> String) -> Checked {
    if value.as_os_str().is_empty() {
        return Err(required(path(), "an absolute path"));
    }
    if !value.is_absolute() {
        let reason = format!("{value:?} is not absolute, it has to begin with /");
        return Err(SpecError::value(path(), reason));
    }
    Ok(())
}

fn required(path: impl Into<String>, expected: &str) -> SpecError {
    SpecError::value(path, format!("is missing, expected {expected}"))
}

fn needs_namespace(path: impl Into<String>, kind: NamespaceKind) -> SpecError {
    let reason = format!(
        "would change the host; add {{\"type\": \"{kind}\"}} to linux.namespaces, or leave it out"
    );
    SpecError::value(path, reason)
}

fn out_of_range(path: impl Into<String>, value: i64, first: i64, last: i64) -> SpecError {
    SpecError::value(path, format!("{value} is not between {first} and {last}"))
}
