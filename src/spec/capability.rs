//! The names of the Linux capabilities and their numbers.

use std::str::FromStr;

use caps::Capability;

/// The names of all capabilities that Linux has, in the order of their numbers (`capabilities(7)`; the last came
/// with Linux 5.9).
#[must_use]
pub fn names() -> Vec<String> {
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_by_key(Capability::index);
    all.into_iter()
        .map(|capability| capability.to_string())
        .collect()
}

/// The number of a capability; none when nobody has heard of the name. Names are as in `config.json`: `CAP_KILL`.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    Capability::from_str(name)
        .ok()
        .map(|capability| capability.index())
}

/// The capabilities that a list of names stands for, as bits at their numbers. Unknown names are passed over, as
/// [`Process::validate`](super::process::Process::validate) has warned of them.
pub fn bits<S: AsRef<str>>(names: &[S]) -> u64 {
    let numbers = names.iter().filter_map(|name| number(name.as_ref()));
    numbers.fold(0, |bits, number| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_its_number_in_the_kernel() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("sys_admin"), None);
        assert_eq!(names().len(), 41);
    }

    #[test]
    fn unknown_names_add_no_bits() {
        assert_eq!(
            bits(&["CAP_KILL", "CAP_OF_TOMORROW", "CAP_CHOWN"]),
            0b10_0001
        );
    }
}
