//! Whether a port of the host is free to be published, and who has it if not.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::path::Path;

use crate::network::error::NetworkError;
use crate::network::lease::Leases;
use crate::network::lease::Register;
use crate::network::link;
use crate::plan::network;
use crate::plan::network::Publish;
use crate::plan::network::Transport;

/// Checks that ports are neither published by another workspace of the state root nor listened on by a program.
///
/// # Errors
///
/// [`NetworkError::Port`] names the holder.
pub(super) fn check(
    publish: &[Publish],
    own: &Register,
    leases: &Leases,
) -> Result<(), NetworkError> {
    if publish.is_empty() {
        return Ok(());
    }
    let mut registers = vec![own.clone()];
    for name in leases.networks()? {
        if name != own.network {
            registers.extend(leases.read(&name, &own.boot)?);
        }
    }
    for port in publish {
        let holder = registers
            .iter()
            .find_map(|register| published(port, register));
        if let Some(holder) = holder {
            return Err(NetworkError::Port {
                port: port.to_string(),
                holder,
            });
        }
        listened(port)?;
    }
    Ok(())
}

/// The workspace of a network that has this port.
fn published(port: &Publish, register: &Register) -> Option<String> {
    let mut leases = register.leases.iter();
    let collides = |other: &Publish| network::collide(other, port);
    let (id, _) = leases.find(|(_, lease)| lease.publish.iter().any(collides))?;
    Some(format!("workspace {id} of network {}", register.network))
}

/// A port that can be listened on has no listener.
fn listened(port: &Publish) -> Result<(), NetworkError> {
    let everywhere = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let addresses = match port.address {
        Some(address) => vec![address],
        None if link::has_ipv6() => everywhere.to_vec(),
        None => everywhere[..1].to_vec(),
    };
    for address in addresses {
        let at = (address, port.host_port);
        let tried = match port.transport {
            Transport::Tcp => TcpListener::bind(at).map(drop),
            Transport::Udp => UdpSocket::bind(at).map(drop),
        };
        match tried {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(NetworkError::Port {
                    port: port.to_string(),
                    holder: listener(port),
                });
            }
            Err(source) => {
                return Err(NetworkError::Listen {
                    port: port.to_string(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// The program that listens on a port, in words.
fn listener(port: &Publish) -> String {
    let tables = match port.transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
    };
    let texts = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(Path::new("/proc/net").join(table)).ok());
    let sockets: Vec<String> = texts
        .flat_map(|text| sockets_at(&text, port.host_port))
        .collect();
    let found = sockets.iter().find_map(|socket| owner_of(socket));
    found.unwrap_or_else(|| "a program of the host".to_owned())
}

/// The sockets in one of the kernel's tables that wait at a port: TCP says so (state `0A`), UDP has no peer (`07`).
fn sockets_at(table: &str, port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let waiting = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = fields.get(1)?.ends_with(&wanted);
        let waits = ["0A", "07"].contains(fields.get(3)?);
        (local && waits).then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    };
    table.lines().skip(1).filter_map(waiting).collect()
}

/// The process that has a socket open.
fn owner_of(socket: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut owners = processes.filter(|entry| {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .iter()
            .all(u8::is_ascii_digit)
        {
            return false;
        }
        let files = std::fs::read_dir(entry.path().join("fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|link| link == OsStr::new(socket))
        })
    });
    let owner = owners.next()?;
    let name = std::fs::read_to_string(owner.path().join("comm")).ok()?;
    let pid = owner.file_name();
    Some(format!(
        "{} (process {})",
        name.trim(),
        pid.to_string_lossy()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_a_program_listens_on_is_refused_with_its_name() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listening.local_addr().unwrap().port();
        let port: Publish = format!("127.0.0.1:{number}:80").parse().unwrap();
        let error = listened(&port).unwrap_err().to_string();
        let own = format!("(process {})", std::process::id());
        assert!(error.contains(&own), "{error}");
        drop(listening);
        assert!(listened(&port).is_ok());
    }

    #[test]
    fn an_address_of_another_host_cannot_be_listened_on() {
        let port: Publish = "192.0.2.1:80:80".parse().unwrap();
        assert!(matches!(listened(&port), Err(NetworkError::Listen { .. })));
    }
}
