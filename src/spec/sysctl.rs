//! Which kernel parameters belong to a container's namespaces, and where they lie below `/proc/sys`.
//!
//! `/proc/sys` is only partly divided between namespaces: whatever is not on the list would change the host.

use super::linux::NamespaceKind;

/// What belongs to the ipc namespace, beside all below `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Where a parameter lies below `/proc/sys`. Both ways of writing are understood, as by `sysctl(8)`: whichever of `.`
/// and `/` comes first divides, the other is a letter. None when the path would leave `/proc/sys`.
///
/// ```
/// use bulkhead::spec::sysctl::path;
/// let written = path("net.ipv4.conf.eno2/100.rp_filter");
/// assert_eq!(written.as_deref(), Some("net/ipv4/conf/eno2.100/rp_filter"));
/// assert_eq!(path("net/ipv4/ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
/// assert_eq!(path("net/../kernel/core_pattern"), None);
/// ```
pub fn path(key: &str) -> Option<String> {
    let first = key.find(['.', '/'])?;
    let path: String = match key.as_bytes().get(first)? {
        b'/' => key.to_owned(),
        _ => key.chars().map(exchange).collect(),
    };
    let leaves = |part: &str| part.is_empty() || part == "." || part == "..";
    (!path.split('/').any(leaves)).then_some(path)
}

fn exchange(letter: char) -> char {
    match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// The namespace that a parameter belongs to, by its path; none when it belongs to the whole machine.
///
/// `kernel/hostname` is the uts namespace's as well, but `hostname` is its property.
pub fn owner(path: &str) -> Option<NamespaceKind> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return Some(NamespaceKind::Ipc);
    }
    if path.starts_with("net/") {
        return Some(NamespaceKind::Network);
    }
    (path == "kernel/domainname").then_some(NamespaceKind::Uts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leaves_proc_sys() {
        for key in [
            "net",
            "",
            ".",
            "/net/core",
            "net//core",
            "net.ipv4..x",
            "net/..",
            "net.ipv4.",
        ] {
            assert_eq!(path(key), None, "{key}");
        }
    }

    #[test]
    fn only_parameters_of_namespaces_have_an_owner() {
        assert_eq!(owner("net/core/somaxconn"), Some(NamespaceKind::Network));
        assert_eq!(owner("kernel/shmmax"), Some(NamespaceKind::Ipc));
        assert_eq!(owner("fs/mqueue/msg_max"), Some(NamespaceKind::Ipc));
        assert_eq!(owner("kernel/domainname"), Some(NamespaceKind::Uts));
        assert_eq!(owner("kernel/core_pattern"), None);
        assert_eq!(owner("network/x"), None);
    }
}
