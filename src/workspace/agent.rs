//! Hands the listener of a system call filter to the agent that the configuration names.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use serde::Serialize;

use crate::spec::Spec;
use crate::spec::state::State;
use crate::sys::socket;

/// Who decides about system calls of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The socket on which it waits.
    path: PathBuf,
    /// What the configuration tells it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
}

/// What it is told: the specification's container process state.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Introduction<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

impl Agent {
    /// The agent that a configuration names.
    #[must_use]
    pub fn of(spec: &Spec) -> Option<Self> {
        let seccomp = spec.linux.seccomp.as_ref()?;
        let path = seccomp.listener()?.clone();
        let metadata = seccomp.listener_metadata.clone().unwrap_or_default();
        Some(Self { path, metadata })
    }

    /// Hands it the listener of process `pid`.
    ///
    /// # Errors
    ///
    /// Fails when nobody waits on the socket.
    pub fn introduce(&self, pid: i32, listener: &OwnedFd, state: &State) -> anyhow::Result<()> {
        let introduction = Introduction {
            oci_version: &state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: &self.metadata,
            state,
        };
        let text = serde_json::to_vec(&introduction)?;
        let path = &self.path;
        socket::connect_stream(path)
            .and_then(|agent| socket::send_with(agent.as_fd(), &text, &[listener.as_fd()]))
            .with_context(|| {
                format!(
                    "linux.seccomp.listenerPath: cannot hand the listener to {}",
                    path.display()
                )
            })
    }
}

/// Hands over the listener, if there is an agent.
pub(super) fn introduce(
    agent: Option<&Agent>,
    pid: i32,
    listener: &OwnedFd,
    state: &State,
) -> anyhow::Result<()> {
    let agent = agent.context("linux.seccomp.listenerPath: missing")?;
    agent.introduce(pid, listener, state)
}
