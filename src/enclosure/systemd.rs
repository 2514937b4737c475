//! Asks systemd over D-Bus: make a scope for a process, change it, end it.
//!
//! The connection has threads of its own inside this process. So it is made only after the workspace's first process
//! is born, it lives for one errand, and its threads take no signals: those stay with whoever waits for them. Every
//! errand has a deadline.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::SigSet;
use zbus::Connection;
use zbus::OwnedObjectPath;
use zbus::OwnedVariant;
use zbus::Variant;
use zbus::connection::Builder;
use zbus::export::futures_core::Stream;

use crate::plan::cgroup::Unit;
use crate::plan::cgroup::unit::Property;
use crate::plan::cgroup::unit::Value;

/// How long one errand may take: what `DefaultTimeoutStartSec=` is for a job, with something to spare for the bus.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Why systemd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus could not be reached, or what was asked was refused.
    #[error("systemd: cannot {action} unit {unit}")]
    Bus {
        /// What was asked.
        action: &'static str,
        /// The unit.
        unit: String,
        /// What the bus says.
        source: Box<zbus::Error>,
    },
    /// The job ended otherwise than asked.
    #[error("systemd: the job to {action} unit {unit} ended as {result:?}")]
    Job {
        /// What was asked.
        action: &'static str,
        /// The unit.
        unit: String,
        /// How it ended.
        result: String,
    },
    /// No answer.
    #[error("systemd: no answer in {} s to {action} unit {unit}", PATIENCE.as_secs())]
    Late {
        /// What was asked.
        action: &'static str,
        /// The unit.
        unit: String,
    },
}

/// A property with its value as the bus has it.
type Told<'a> = (&'a str, Variant<'a>);

/// Makes a scope with a process in it, and gives the cgroup that it has, from the mount point on.
pub(super) fn start(
    unit: &Unit,
    pid: i32,
    properties: &[Property],
) -> Result<PathBuf, SystemdError> {
    let mut path = PathBuf::new();
    errand("start", unit, async |bus| {
        let mut told: Vec<Told<'_>> = properties.iter().map(tell).collect();
        told.push(("PIDs", Variant::from(vec![pid.unsigned_abs()])));
        let none: [(&str, Vec<Told<'_>>); 0] = [];
        let body = (unit.name.as_str(), "fail", &told, &none[..]);
        let mut jobs = bus.jobs().await?;
        let reply = match bus.call("StartTransientUnit", &body).await {
            // One of that name that failed is still known: forget it.
            Err(error) if is(&error, "UnitExists") => {
                bus.call("ResetFailedUnit", &unit.name.as_str()).await?;
                bus.call("StartTransientUnit", &body).await?
            }
            other => other?,
        };
        let result = jobs.done(&reply).await?;
        path = bus.control_group(&unit.name).await?;
        Ok(result)
    })?;
    Ok(path)
}

/// Changes a unit, until it ends.
pub(super) fn change(unit: &Unit, properties: &[Property]) -> Result<(), SystemdError> {
    errand("change", unit, async |bus| {
        let told: Vec<Told<'_>> = properties.iter().map(tell).collect();
        bus.call("SetUnitProperties", &(unit.name.as_str(), true, &told))
            .await?;
        Ok("done".to_owned())
    })
}

/// Ends a unit and forgets it. That there is none is no error.
pub(super) fn stop(unit: &Unit) -> Result<(), SystemdError> {
    errand("stop", unit, async |bus| {
        let mut jobs = bus.jobs().await?;
        let result = match bus.call("StopUnit", &(unit.name.as_str(), "replace")).await {
            Err(error) if is(&error, "NoSuchUnit") => return Ok("done".to_owned()),
            other => jobs.done(&other?).await?,
        };
        // It is known no longer if it did not fail, and then there is nothing to forget.
        let forgotten = bus.call("ResetFailedUnit", &unit.name.as_str()).await;
        match forgotten {
            Err(error) if !is(&error, "NoSuchUnit") => Err(error),
            _ => Ok(result),
        }
    })
}

/// Connects, does one thing within the deadline, and looks how it ended.
fn errand(
    action: &'static str,
    unit: &Unit,
    doing: impl AsyncFnOnce(&Bus) -> zbus::Result<String>,
) -> Result<(), SystemdError> {
    let quiet = Quiet::new();
    let ended = within(Instant::now() + PATIENCE, async {
        let bus = Bus::connect(unit.user).await?;
        doing(&bus).await
    });
    drop(quiet);
    let unit = unit.name.clone();
    match ended {
        None => Err(SystemdError::Late { action, unit }),
        Some(Err(source)) => Err(SystemdError::Bus {
            action,
            unit,
            source: Box::new(source),
        }),
        Some(Ok(result)) if result == "done" => Ok(()),
        Some(Ok(result)) => Err(SystemdError::Job {
            action,
            unit,
            result,
        }),
    }
}

/// A connection to the bus that the right systemd is on.
struct Bus {
    connection: Connection,
}

impl Bus {
    async fn connect(user: Option<u32>) -> zbus::Result<Self> {
        let builder = match user {
            None => Builder::system(),
            // In a user namespace the bus knows the caller by the number that the host has for it.
            Some(uid) => user_bus().user_id(uid),
        };
        Ok(Self {
            connection: builder.build().await?,
        })
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), method, body)
            .await
    }

    /// Where the processes of a scope are, from the mount point on.
    async fn control_group(&self, unit: &str) -> zbus::Result<PathBuf> {
        let reply = self.call("GetUnit", &unit).await?;
        let path: OwnedObjectPath = reply.body().deserialize()?;
        let wanted = ("org.freedesktop.systemd1.Scope", "ControlGroup");
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .connection
            .call_method(Some(SYSTEMD), path.as_str(), properties, "Get", &wanted)
            .await?;
        let body = reply.body();
        let value: OwnedVariant = body.deserialize()?;
        let path = String::try_from(value)?;
        Ok(PathBuf::from(path.trim_start_matches('/')))
    }

    /// Listens to how jobs end; to be called before the job is asked for.
    async fn jobs(&self) -> zbus::Result<Jobs> {
        let rule = format!(
            "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',\
             member='JobRemoved'"
        );
        let stream =
            zbus::MessageStream::for_match_rule(rule.as_str(), &self.connection, None).await?;
        self.call("Subscribe", &()).await?;
        Ok(Jobs { stream })
    }
}

/// The bus of the user: the session's, or the one that is always there for a user who is logged in.
fn user_bus() -> Builder<'static> {
    match (
        std::env::var("DBUS_SESSION_BUS_ADDRESS"),
        std::env::var("XDG_RUNTIME_DIR"),
    ) {
        (Err(_), Ok(directory)) => Builder::address(format!("unix:path={directory}/bus").as_str()),
        _ => Builder::session(),
    }
}

/// The ends of jobs.
struct Jobs {
    stream: zbus::MessageStream,
}

impl Jobs {
    /// Waits for the end of the job that `reply` names, and gives how it ended.
    async fn done(&mut self, reply: &zbus::Message) -> zbus::Result<String> {
        let wanted: OwnedObjectPath = reply.body().deserialize()?;
        loop {
            let next =
                std::future::poll_fn(|context| Pin::new(&mut self.stream).poll_next(context));
            let Some(message) = next.await else {
                return Err(zbus::Error::InvalidReply);
            };
            let message = message?;
            let body = message.body();
            let (_, job, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
            if job == wanted {
                return Ok(result);
            }
        }
    }
}

/// Whether an answer is this error of systemd's.
fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, _, _)
        if found.as_str() == format!("{SYSTEMD}.{name}"))
}

fn tell(property: &Property) -> Told<'_> {
    let value = match &property.value {
        Value::Flag(flag) => Variant::from(*flag),
        Value::Int(number) => Variant::from(*number),
        Value::Unsigned(number) => Variant::from(*number),
        Value::Long(number) => Variant::from(*number),
        Value::UnsignedLong(number) => Variant::from(*number),
        Value::Double(number) => Variant::from(*number),
        Value::Text(text) => Variant::from(text.as_str()),
        Value::Texts(texts) => Variant::from(texts.clone()),
        Value::Ints(numbers) => Variant::from(numbers.clone()),
        Value::Bytes(bytes) => Variant::from(bytes.clone()),
        Value::Unsigneds(numbers) => Variant::from(numbers.clone()),
        Value::Pairs(pairs) => Variant::from(pairs.clone()),
    };
    (property.name.as_str(), value)
}

/// Keeps signals off the threads that are made while this lives.
struct Quiet {
    before: Option<SigSet>,
}

impl Quiet {
    fn new() -> Self {
        Self {
            before: SigSet::all()
                .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
                .ok(),
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // It was in force before, so it can be again.
            before.thread_set_mask().unwrap_or_default();
        }
    }
}

/// Runs a future on this thread; none if it is not done by the deadline.
fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_is_never_done_ends_at_its_deadline() {
        let deadline = Instant::now() + Duration::from_millis(10);
        assert_eq!(within(deadline, std::future::pending::<()>()), None);
        assert_eq!(within(deadline, async { 5 }), Some(5));
    }
}
