//! What a monitor does all the time: waits for whatever concerns its workspace first, and sees to it.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::enclosure::watch::OverLimit;
use crate::monitor;
use crate::monitor::MonitorError;
use crate::monitor::alarm::Alarm;
use crate::monitor::billing::Billing;
use crate::monitor::failed;
use crate::monitor::journal::Journal;
use crate::monitor::line::Line;
use crate::monitor::line::Order;
use crate::monitor::lower::grace_of;
use crate::monitor::outlet::Outlet;
use crate::monitor::program::Program;
use crate::monitor::remarks;
use crate::monitor::remarks::Remarks;
use crate::monitor::reset::Resets;
use crate::monitor::streams;
use crate::plan::cgroup::Manager;
use crate::spec::asked::Asked;
use crate::spec::asked::Expiry;
use crate::spec::asked::OverLimit as Wanted;
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::sys::signal::Signals;
use crate::workspace::estate;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;
use crate::workspace::wiring;

/// How long a program that was told to end may take.
const GRACE: Duration = Duration::from_secs(10);
const HANGUP: i32 = 1;
const INTERRUPT: i32 = 2;
const TERMINATE: i32 = 15;
const CHILD: i32 = 17;

/// A monitor at work.
pub(super) struct Watch<'a> {
    pub(super) store: &'a Store,
    pub(super) workspace: Workspace,
    pub(super) program: Option<Program>,
    pub(super) signals: Signals,
    pub(super) journal: Option<Journal>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) line: Option<Line>,
    /// Whether this monitor, and no other command, sees it to its end.
    pub(super) keeps: bool,
    /// Whether it is removed at its end without being asked.
    pub(super) passing: bool,
    pub(super) billing: Billing,
    alarm: Alarm,
    memory: Option<OverLimit>,
    restarts: bool,
    resets: Resets,
    manager: Manager,
    /// What it had of its network before it is started again.
    addresses: Vec<IpAddr>,
    /// It stands still because its lease has ended.
    held: bool,
    kill_at: Option<Instant>,
    start_at: Option<Instant>,
}

/// Something that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ended,
    Ready,
    Signal,
    Order,
    Room,
    Expired,
    Changed,
    Output(usize),
    Memory(usize),
}

/// How the monitor's work is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The program has ended so.
    Ended(Option<Exit>),
    /// Nothing shall be left of the workspace.
    Removed,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        store: &'a Store,
        workspace: Workspace,
        program: Program,
        signals: Signals,
    ) -> Result<Self, MonitorError> {
        let mut alarm = Alarm::of(&workspace).map_err(failed("watch the lease"))?;
        alarm.set(&workspace)?;
        let asked = Asked::of(&workspace.record().annotations).unwrap_or_default();
        let mut watch = Self {
            store,
            resets: Resets::of(&workspace),
            manager: workspace.manager(),
            billing: Billing::of(&workspace),
            keeps: monitor::is_kept(store, &workspace.record().id),
            workspace,
            program: Some(program),
            signals,
            journal: None,
            outlets: Vec::new(),
            line: None,
            passing: false,
            alarm,
            memory: None,
            restarts: asked.over_limit == Wanted::Reset,
            addresses: Vec::new(),
            held: false,
            kill_at: None,
            start_at: None,
        };
        watch.watch_memory();
        Ok(watch)
    }

    pub(super) fn with_output(mut self, journal: Option<Journal>, outlets: Vec<Outlet>) -> Self {
        self.journal = journal;
        self.outlets = outlets;
        self
    }

    /// Prepares for an end that somebody waits for.
    pub(super) fn prepare_for_the_end(&mut self) {
        if let Some(program) = &mut self.program {
            program.held.prepare(&self.workspace);
        }
    }

    /// A program that this monitor has made may have run out of memory already.
    fn watch_memory(&mut self) {
        let fresh = self.program.as_ref().is_some_and(Program::is_child);
        let wanted = self.restarts.then(|| self.workspace.enclosure().ok());
        self.memory = wanted
            .flatten()
            .and_then(|enclosure| enclosure.watch_memory(fresh).ok().flatten());
    }

    /// Stays until the work is over; gives the exit status of the monitor.
    ///
    /// Output goes over `line` only when who listens there stays with the workspace; orders come from it in any case.
    pub(super) fn stay(mut self, line: Option<Line>, passing: bool) -> i32 {
        self.passing = passing && line.is_some();
        self.line = line;
        loop {
            let over = match self.wait() {
                Ok(happened) => happened
                    .into_iter()
                    .find_map(|what| self.see_to(what))
                    .or_else(|| self.see_to_time()),
                // Nothing can be waited for any more: the workspace goes on, and another monitor may be given to it.
                Err(_) => return 1,
            };
            if let Some(over) = over {
                return self.finish(over);
            }
        }
    }

    /// Waits for the next thing to happen, or for the next time.
    fn wait(&self) -> Result<Vec<What>, Errno> {
        let mut watched: Vec<(What, PollFd<'_>)> = vec![
            (What::Signal, PollFd::new(&self.signals, PollFlags::IN)),
            (What::Expired, PollFd::new(&self.alarm.timer, PollFlags::IN)),
            (
                What::Changed,
                PollFd::new(&self.alarm.changes, PollFlags::IN),
            ),
        ];
        if let Some(program) = &self.program {
            watched.push((What::Ended, PollFd::new(&program.process, PollFlags::IN)));
            let ready = program.ready.iter();
            watched.extend(ready.map(|ready| (What::Ready, PollFd::new(ready, PollFlags::IN))));
        }
        for (index, outlet) in self.outlets.iter().enumerate().filter(|(_, it)| it.wants()) {
            let pipe = PollFd::new(&outlet.pipe, PollFlags::IN);
            watched.push((What::Output(index), pipe));
        }
        if let Some(line) = &self.line {
            watched.push((What::Order, PollFd::new(line, PollFlags::IN)));
            if self.outlets.iter().any(Outlet::waits) {
                watched.push((What::Room, PollFd::new(line, PollFlags::OUT)));
            }
        }
        let files = self.memory.iter().flat_map(OverLimit::files);
        let files = files.map(|file| PollFd::new(file, PollFlags::PRI));
        watched.extend(files.enumerate().map(|(at, file)| (What::Memory(at), file)));
        let (whats, mut files): (Vec<What>, Vec<PollFd<'_>>) = watched.into_iter().unzip();
        match rustix::event::poll(&mut files, self.patience().as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let ready = whats.into_iter().zip(&files);
        Ok(ready
            .filter(|(_, file)| !file.revents().is_empty())
            .map(|(what, _)| what)
            .collect())
    }

    /// How long until the next time at which something is to be done.
    fn patience(&self) -> Option<Timespec> {
        let looks = self.program.as_ref().and_then(|_| self.billing.next());
        let times = self.kill_at.into_iter().chain(self.start_at).chain(looks);
        let next = times.min()?;
        let left = next.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }

    fn see_to(&mut self, what: What) -> Option<Over> {
        match what {
            What::Ended => self.ended(),
            What::Ready => {
                let told = self.program.as_mut().map(Program::tell_ready);
                told.and(None)
            }
            What::Signal => self.take_signals(),
            What::Order => self.take_order(),
            What::Room => {
                let outlets = self.outlets.iter_mut();
                outlets.for_each(|outlet| outlet.offer(&mut self.line));
                None
            }
            What::Expired => self.expired(),
            What::Changed => self.changed(),
            What::Output(index) => {
                let outlet = self.outlets.get_mut(index)?;
                match self.passing {
                    true => outlet.carry(self.journal.as_mut(), &mut self.line),
                    false => outlet.carry(self.journal.as_mut(), &mut None),
                };
                None
            }
            What::Memory(index) => self.memory_ran_out(index > 0),
        }
    }

    fn see_to_time(&mut self) -> Option<Over> {
        let now = Instant::now();
        if self.program.is_some() {
            let (store, line) = (self.store, self.line.as_ref());
            self.billing.look(store, &self.workspace, line);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            return self.start_again();
        }
        None
    }

    fn ended(&mut self) -> Option<Over> {
        let exit = self.program.as_mut()?.exit()?;
        if let Some(over) = self.memory_ran_out(false) {
            return Some(over);
        }
        // Memory may have been the reason, and then it is on its way back already.
        self.program.as_ref()?;
        Some(Over::Ended(exit))
    }

    fn take_signals(&mut self) -> Option<Over> {
        let mut over = None;
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                HANGUP | INTERRUPT | TERMINATE => over = over.or(self.begin_end()),
                CHILD => {
                    let own = self.program.as_ref().map(|program| program.pid);
                    process::collect_but(own);
                }
                _ => {}
            }
        }
        over
    }

    fn take_order(&mut self) -> Option<Over> {
        match self.line.as_ref().map(Line::ordered)? {
            Ok(Some(Order::Signal(number))) => self.signal(number),
            Ok(Some(Order::Undo)) => return Some(Over::Removed),
            Ok(Some(Order::Go)) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(None) | Err(_) => self.go_on_alone(),
        }
        None
    }

    /// Who looked on has gone: it is as if nobody ever had.
    fn go_on_alone(&mut self) {
        self.line = None;
        self.passing = false;
        let outlets = self.outlets.iter_mut();
        outlets.for_each(|outlet| outlet.offer(&mut self.line));
    }

    fn signal(&self, number: i32) {
        if let Some(program) = &self.program {
            // It has ended: the loop is about to see that.
            process::signal(program.process.as_fd(), number).unwrap_or_default();
        }
    }

    /// Tells the program to end, and gives it some time.
    fn begin_end(&mut self) -> Option<Over> {
        let Some(program) = &self.program else {
            return Some(Over::Ended(None));
        };
        let grace = grace_of(&self.workspace, program.process.as_fd(), GRACE);
        self.signal(TERMINATE);
        // What stands still does not hear.
        self.workspace.resume().unwrap_or_default();
        self.kill_at.get_or_insert_with(|| Instant::now() + grace);
        None
    }

    fn kill(&self) {
        let killed = self.workspace.enclosure().and_then(|it| Ok(it.kill()?));
        drop(killed);
        self.signal(KILL);
    }

    pub(super) fn remark(&mut self, text: &str) {
        if let Some(journal) = &mut self.journal {
            journal.remark(text);
        }
    }

    fn expired(&mut self) -> Option<Over> {
        if !self.alarm.has_ended() {
            return None;
        }
        match self.workspace.on_expiry() {
            Expiry::Stop => {
                self.remark("its lease has ended: it is told to end");
                self.begin_end()
            }
            Expiry::Pause => {
                self.remark("its lease has ended: it stands still until that is extended");
                self.held = true;
                // One that stands still already is left so.
                self.workspace.pause().unwrap_or_default();
                None
            }
            Expiry::Trash => {
                let id = &self.workspace.record().id;
                // What cannot be forgotten now stays for `down`.
                estate::keep(self.store.places(), id, false).unwrap_or_default();
                Some(Over::Removed)
            }
        }
    }

    fn changed(&mut self) -> Option<Over> {
        let here = rustix::fs::fstat(self.workspace.directory());
        if here.is_ok_and(|stat| stat.st_nlink == 0) {
            return Some(Over::Ended(None));
        }
        if !self.alarm.lease_was_changed() || self.alarm.set(&self.workspace).is_err() {
            return None;
        }
        if self.held && !self.alarm.has_ended() {
            self.held = false;
            self.workspace.resume().unwrap_or_default();
        }
        None
    }

    /// Looks whether memory was short; if so, and that is wanted, begins again.
    fn memory_ran_out(&mut self, stalled: bool) -> Option<Over> {
        let workspace = &self.workspace;
        let short = |it: &mut OverLimit| it.happened(stalled) || workspace.was_short_inside();
        let short = self.memory.as_mut().is_some_and(short);
        if !short || self.kill_at.is_some() {
            return None;
        }
        let ran = self.program.as_ref().map(|it| it.since.elapsed());
        let next = self.resets.next(ran.unwrap_or_default(), SystemTime::now());
        let Some(wait) = next else {
            self.remark("it needed more memory than its limit once more, and is not started again");
            self.memory = None;
            self.kill();
            return None;
        };
        self.remark(&format!(
            "it needed more memory than its limit: it is started again in {} s",
            wait.as_secs()
        ));
        self.resets.write(&self.workspace).unwrap_or_default();
        self.memory = None;
        let id = self.workspace.record().id.as_str();
        self.addresses = wiring::addresses(self.store.places())
            .remove(id)
            .unwrap_or_default();
        let remarks = Remarks::none(self.store).since(self.billing.begun());
        let settled = self.workspace.settle(None, &remarks);
        drop(remarks);
        if let Some(program) = self.program.take() {
            program.collect();
        }
        self.start_at = Some(Instant::now() + wait);
        settled.is_err().then_some(Over::Ended(None))
    }

    fn start_again(&mut self) -> Option<Over> {
        match self.try_again() {
            Ok(program) => {
                self.program = Some(program);
                self.outlets.iter_mut().for_each(|it| it.open = true);
                self.billing = Billing::of(&self.workspace);
                self.watch_memory();
                None
            }
            Err(error) => {
                let text = format!("it cannot be started again: {}", remarks::words(&error));
                self.remark(&text);
                Some(Over::Ended(None))
            }
        }
    }

    fn try_again(&mut self) -> Result<Program, MonitorError> {
        let id = self.workspace.record().id.clone();
        streams::lead_into(&estate::pipes(self.store.places(), &id), false)?;
        let remarks = Remarks::none(self.store);
        let addresses = &self.addresses;
        let made = self
            .workspace
            .again(self.store, self.manager, addresses, &remarks);
        let started = made.and_then(|(plan, made)| self.workspace.let_go(&plan, made, &remarks));
        streams::lead_nowhere()?;
        Ok(Program::child(started?))
    }

    /// What is waited for while output is drained.
    pub(super) fn told_to_hurry(&self) -> bool {
        std::iter::from_fn(|| self.signals.next().ok().flatten())
            .any(|signal| matches!(signal, HANGUP | INTERRUPT | TERMINATE))
    }
}
