//! The names of the Linux capabilities and their numbers.

/// All capabilities that Linux has, each at the place of its number (`capabilities(7)`; the last came with Linux 5.9).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability; none when nobody has heard of the name. Names are as in `config.json`: `CAP_KILL`.
pub fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
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
    }

    #[test]
    fn unknown_names_add_no_bits() {
        assert_eq!(
            bits(&["CAP_KILL", "CAP_OF_TOMORROW", "CAP_CHOWN"]),
            0b10_0001
        );
    }
}
