//! For how long a workspace is granted: when that began, when it ends, and who watches over it.
//!
//! Times are of `CLOCK_BOOTTIME`, which goes on while the host is suspended and is not set by anybody. They matter only
//! in the uptime in which they were written, as everything in the state root does.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::time::ClockId;
use serde::Deserialize;
use serde::Serialize;

use crate::spec::asked::Asked;
use crate::spec::asked::Expiry;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::life::Life;
use crate::workspace::store;

/// From when until when a workspace is granted (`lease.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// When it began, in microseconds of `CLOCK_BOOTTIME`.
    pub begun_us: u64,
    /// When it ends, in the same.
    pub expires_us: u64,
}

/// How a term is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It lasts longer by so much; one that has expired, from now on.
    Extend(Duration),
    /// It ends so much from now.
    Set(Duration),
}

/// Now, in microseconds of `CLOCK_BOOTTIME`.
#[must_use]
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl Term {
    /// A term of `ttl` that begins at `now_us`.
    #[must_use]
    pub fn begin(ttl: Duration, now_us: u64) -> Self {
        Self {
            begun_us: now_us,
            expires_us: now_us.saturating_add(us(ttl)),
        }
    }

    /// All that is granted, what was added included, in microseconds.
    #[must_use]
    pub fn granted_us(&self) -> u64 {
        self.expires_us.saturating_sub(self.begun_us)
    }

    /// What of it has passed at `now_us`.
    #[must_use]
    pub fn used_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.begun_us).min(self.granted_us())
    }

    /// What of it is left at `now_us`.
    #[must_use]
    pub fn remaining_us(&self, now_us: u64) -> u64 {
        self.expires_us.saturating_sub(now_us)
    }

    /// Whether it has ended at `now_us`.
    #[must_use]
    pub fn has_expired(&self, now_us: u64) -> bool {
        now_us >= self.expires_us
    }

    /// The term after a change that is made at `now_us`.
    #[must_use]
    pub fn changed(self, change: Change, now_us: u64) -> Self {
        let expires_us = match change {
            Change::Extend(span) => self.expires_us.max(now_us).saturating_add(us(span)),
            Change::Set(span) => now_us.saturating_add(us(span)),
        };
        Self { expires_us, ..self }
    }
}

impl Workspace {
    /// Its term; nothing when it is granted without end, or has not been started.
    ///
    /// # Errors
    ///
    /// Fails when there is one that cannot be read.
    pub fn term(&self) -> Result<Option<Term>, WorkspaceError> {
        let bytes = self.home.read(store::LEASE)?;
        Ok(bytes
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()?)
    }

    /// Whether its term has ended; one without a term has none that could.
    ///
    /// # Errors
    ///
    /// As [`Workspace::term`].
    pub fn term_is_over(&self) -> Result<bool, WorkspaceError> {
        Ok(self.term()?.is_some_and(|term| term.has_expired(now_us())))
    }

    /// Begins the term that its annotations ask for; nothing when they ask for none.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written down.
    pub fn begin_term(&self) -> Result<Option<Term>, WorkspaceError> {
        let Some(lease) = Asked::of(&self.record.annotations)?.lease else {
            return Ok(None);
        };
        let term = Term::begin(lease.ttl, now_us());
        self.write_term(&term)?;
        Ok(Some(term))
    }

    /// Changes its term, and gives what it is then. One without a term is given one by [`Change::Set`] and
    /// [`Change::Extend`] alike.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written down.
    pub fn change_term(&self, change: Change) -> Result<Term, WorkspaceError> {
        self.home.lock()?;
        let now = now_us();
        let old = self.term()?.unwrap_or(Term {
            begun_us: now,
            expires_us: now,
        });
        let new = old.changed(change, now);
        self.write_term(&new)?;
        self.home.unlock()?;
        Ok(new)
    }

    fn write_term(&self, term: &Term) -> Result<(), WorkspaceError> {
        Ok(self.home.write(store::LEASE, &serde_json::to_vec(term)?)?)
    }

    /// What becomes of it when its term ends.
    #[must_use]
    pub fn on_expiry(&self) -> Expiry {
        let asked = Asked::of(&self.record.annotations).unwrap_or_default();
        asked.lease.map(|lease| lease.on_expiry).unwrap_or_default()
    }

    /// The process that stays with it, while that lives.
    #[must_use]
    pub fn monitor(&self) -> Option<Life> {
        let bytes = self.home.read(store::MONITOR).ok().flatten()?;
        let life = Life::from_text(std::str::from_utf8(&bytes).ok()?)?;
        life.goes_on().then_some(life)
    }

    /// Writes down that this process stays with it from now on.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written down.
    pub fn note_monitor(&self) -> Result<(), WorkspaceError> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let life = Life::of(own).map_err(WorkspaceError::probe)?;
        Ok(self.home.write(store::MONITOR, life.text().as_bytes())?)
    }

    /// Keeps other commands from changing it until [`Workspace::unlock`], or until this value is dropped.
    ///
    /// # Errors
    ///
    /// [`crate::workspace::store::StoreError::Removed`] when it has been removed meanwhile.
    pub fn lock(&self) -> Result<(), WorkspaceError> {
        Ok(self.home.lock()?)
    }

    /// Lets other commands change it.
    ///
    /// # Errors
    ///
    /// Fails as `flock(2)` does.
    pub fn unlock(&self) -> Result<(), WorkspaceError> {
        Ok(self.home.unlock()?)
    }

    /// Its directory in the state root.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }

    /// A file of it, as [`store::Home::read`] gives it.
    ///
    /// # Errors
    ///
    /// Fails when there is one that cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, WorkspaceError> {
        Ok(self.home.read(name)?)
    }

    /// Puts a file of it in place as a whole.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn set_file(&self, name: &str, bytes: &[u8]) -> Result<(), WorkspaceError> {
        Ok(self.home.write(name, bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_term_that_is_extended_lasts_longer_by_that() {
        let term = Term::begin(HOUR, 1000).changed(Change::Extend(HOUR), 2000);
        assert_eq!(term.granted_us(), 7_200_000_000);
        assert_eq!(term.used_us(2000), 1000);
    }

    #[test]
    fn one_that_has_expired_is_extended_from_now_on() {
        let now = 9_000_000_000_000;
        let term = Term::begin(HOUR, 0).changed(Change::Extend(HOUR), now);
        assert_eq!(term.remaining_us(now), 3_600_000_000);
    }

    #[test]
    fn a_term_can_be_shortened_to_nothing() {
        let term = Term::begin(HOUR, 0).changed(Change::Set(Duration::ZERO), 5);
        assert!(term.has_expired(5));
        assert_eq!(term.remaining_us(6), 0);
    }

    #[test]
    fn boottime_goes_on() {
        let first = now_us();
        assert!(first > 0 && now_us() >= first);
    }
}
