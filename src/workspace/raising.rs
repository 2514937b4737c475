//! Makes a workspace for a process that stays with it: its parent, who may end it, give back what it holds, and make it
//! again in the same place.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use crate::backend::Made;
use crate::backend::microvm;
use crate::enclosure::Place;
use crate::plan::Plan;
use crate::plan::cgroup::Manager;
use crate::spec::Spec;
use crate::spec::asked::Network;
use crate::spec::process::RlimitKind;
use crate::sys::process::Exit;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::blueprint::Wish;
use crate::workspace::blueprint::Written;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::held::Farewell;
use crate::workspace::held::Held;
use crate::workspace::making;
use crate::workspace::making::Arrangement;
use crate::workspace::notify::Notify;
use crate::workspace::promised::Promised;
use crate::workspace::record::Record;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::shortage;
use crate::workspace::starting;
use crate::workspace::store;
use crate::workspace::store::Store;
use crate::workspace::wiring;

/// A workspace that stands, with its program waiting to be let go by this process.
#[derive(Debug)]
pub struct Raised {
    workspace: Workspace,
    made: Made,
    plan: Plan,
    /// Whether other commands may do something to it.
    is_shown: bool,
}

/// Makes a workspace whose program has this process's standard streams, up to the point where it waits. What is `written`
/// stands in its bundle; its `network` namespace somebody else makes meanwhile.
///
/// # Errors
///
/// [`WorkspaceError`]; nothing of it is left then.
pub fn raise(
    store: &Store,
    wish: &Wish,
    written: Written,
    network: Promised,
    timed: bool,
    report: &dyn Report,
) -> Result<Raised, WorkspaceError> {
    let blueprint = without_console(Blueprint::draw_from(wish, written, store, report)?)?;
    let standing = making::build(
        store,
        wish,
        &blueprint,
        arrangement(timed, Some(network)),
        report,
    )?;
    Ok(Raised {
        workspace: Workspace {
            home: standing.home,
            record: standing.record,
        },
        made: standing.made,
        plan: blueprint.plan,
        is_shown: false,
    })
}

/// Refuses a terminal: nobody would be there to have its other end.
fn without_console(blueprint: Blueprint) -> Result<Blueprint, WorkspaceError> {
    if blueprint.spec.process.terminal {
        return Err(WorkspaceError::NoConsole);
    }
    Ok(blueprint)
}

/// Asks for the addresses that it had, where it does not ask for any itself.
fn keep_addresses(blueprint: &mut Blueprint, addresses: &[IpAddr]) {
    if let Some(Network::Bridge(bridged)) = &mut blueprint.asked.network
        && bridged.addresses.is_empty()
    {
        bridged.addresses = addresses.to_vec();
    }
}

fn arrangement(timed: bool, network: Option<Promised>) -> Arrangement {
    Arrangement {
        console: None,
        network,
        started_later: false,
        begun_later: true,
        timed,
    }
}

/// Fits what a document became to what this process may do. The limit of open files that documents have by default is
/// without `CAP_SYS_RESOURCE` no more than its own. A user who is not root is root inside; the cgroup is beside the
/// user's own, or none when nothing is asked of one.
pub fn fit_to_caller(spec: &mut Spec) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        spec.be_of(uid.as_raw(), gid.as_raw());
        spec.linux.cgroups_path.clear();
        if let Some(resources) = &mut spec.linux.resources {
            // Nobody can make a device there that a filter would have to keep from being used.
            resources.devices.clear();
        }
    }
    let free = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_RESOURCE,
    );
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let Some(most) = own.maximum.filter(|_| !free.unwrap_or(false)) else {
        return;
    };
    let files = spec.process.rlimits.iter_mut();
    for limit in files.filter(|limit| limit.kind == RlimitKind::Nofile) {
        limit.hard = limit.hard.min(most);
        limit.soft = limit.soft.min(most);
    }
}

impl Raised {
    /// Lets other commands at it, who stays with it being known: before [`Raised::start`] where that is not soon.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`] when that cannot be written down.
    pub fn show(&mut self) -> Result<(), WorkspaceError> {
        self.show_now()?;
        self.is_shown = true;
        Ok(())
    }

    fn show_now(&self) -> Result<(), WorkspaceError> {
        self.workspace.note_monitor()?;
        self.workspace.unlock()
    }

    /// Lets the program go, and other commands at it; its lease begins. Its bill begins when [`Workspace::tell_begun`] is
    /// called. Something may be done `meanwhile`, until it runs.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`] when it cannot be executed, or a poststart hook fails.
    pub fn start(
        self,
        report: &dyn Report,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(Workspace, Started), WorkspaceError> {
        let mut held = Held::default();
        let mut shown = Ok(());
        let begun = self.let_go(&mut || {
            held = self.workspace.hold();
            if !self.is_shown {
                shown = self.show_now();
            }
            meanwhile();
        });
        match begun.and_then(|notify| shown.map(|()| notify)) {
            Ok(notify) => {
                let started = Started {
                    process: self.made.process,
                    pid: self.made.handle.pid,
                    notify,
                    held,
                };
                Ok((self.workspace, started))
            }
            Err(error) => Err(self.undo(error, report)),
        }
    }

    fn let_go(&self, meanwhile: &mut dyn FnMut()) -> Result<Option<Notify>, WorkspaceError> {
        let workspace = &self.workspace;
        let notify = starting::open_notify(&workspace.home)?;
        if workspace.term()?.is_none() {
            workspace.begin_term()?;
        }
        let process = self.made.process.as_fd();
        starting::let_go(
            &self.plan,
            &workspace.home,
            &workspace.record,
            &self.made.waiting(),
            meanwhile,
        )
        .map_err(|error| shortage::explain_at(&workspace.record.place, error))?;
        starting::poststart(&workspace.record, process)?;
        Ok(notify)
    }

    /// Removes it, and gives why, with what could not be removed.
    #[must_use]
    pub fn undo(self, error: WorkspaceError, report: &dyn Report) -> WorkspaceError {
        let Workspace { home, record } = self.workspace;
        removing::take_back(home, &record, error, report)
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.workspace.record
    }
}

/// A program that runs, as its parent has it.
#[derive(Debug)]
pub struct Started {
    /// The first process.
    pub process: OwnedFd,
    /// Its number.
    pub pid: i32,
    /// Whom to tell when it says that it is ready.
    pub notify: Option<Notify>,
    /// Its namespaces.
    pub held: Held,
}

impl Started {
    /// The first process.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Workspace {
    /// Gives back what the host lent after its program has ended: it stays listed, with how it ended.
    ///
    /// # Errors
    ///
    /// Everything that could not be given back, and the rest is.
    pub fn settle(
        &mut self,
        exit: Option<Exit>,
        report: &dyn Report,
    ) -> Result<(), WorkspaceError> {
        let mut farewell = Farewell {
            exit,
            ..Farewell::default()
        };
        self.release(report, &mut farewell)?;
        self.note_settled()
    }

    /// As [`Workspace::settle`], for who knows soon what becomes of it then: [`Workspace::note_settled`] or
    /// [`Workspace::erase`].
    ///
    /// # Errors
    ///
    /// As [`Workspace::settle`].
    pub fn release(
        &mut self,
        report: &dyn Report,
        farewell: &mut Farewell,
    ) -> Result<(), WorkspaceError> {
        self.lock()?;
        let left = removing::release(&self.home, Some(&self.record), report, farewell);
        self.unlock()?;
        removing::all_or_several(left)
    }

    /// Writes down that it was released: from here on the names on the host may be somebody else's.
    ///
    /// # Errors
    ///
    /// [`StoreError`](crate::workspace::store::StoreError) when that cannot be written.
    pub fn note_settled(&mut self) -> Result<(), WorkspaceError> {
        self.lock()?;
        let noted = self.note_settled_locked();
        self.unlock()?;
        noted
    }

    fn note_settled_locked(&mut self) -> Result<(), WorkspaceError> {
        self.record.place = Place::Nowhere;
        self.home.write(store::SETTLED, &[])?;
        self.home.write(store::STATE, &self.record.to_bytes()?)?;
        for name in [
            store::CGROUP,
            store::INTENDED,
            store::FOUND,
            store::INIT,
            store::START,
            microvm::SOCKET,
            microvm::ENDED,
            microvm::LAST_WORD,
            microvm::ORDERS,
        ] {
            self.home.forget(name)?;
        }
        Ok(())
    }

    fn give_back(&mut self, report: &dyn Report) -> Result<(), WorkspaceError> {
        let mut farewell = Farewell::default();
        let left = removing::release(&self.home, Some(&self.record), report, &mut farewell);
        removing::all_or_several(left)?;
        self.note_settled_locked()
    }

    /// Whether what the host lent has been given back.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.home.read(store::SETTLED), Ok(Some(_)))
    }

    /// Removes everything of it, whatever runs in it.
    ///
    /// # Errors
    ///
    /// Everything that could not be removed, and the rest is.
    pub fn raze(self, report: &dyn Report) -> Result<(), WorkspaceError> {
        self.lock()?;
        let Self { home, record } = self;
        removing::all_or_several(removing::remove(home, Some(&record), report))
    }

    /// Removes what is left of it after [`Workspace::release`].
    ///
    /// # Errors
    ///
    /// Fails with the first thing that cannot be removed.
    pub fn erase(self, report: &dyn Report) -> Result<(), WorkspaceError> {
        self.lock()?;
        removing::after_the_end(Some(&self.record), report);
        Ok(self.home.remove()?)
    }

    /// Ends it and makes it again under the same name, from the same bundle, at the same `addresses` of its network, its
    /// program waiting to be let go.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError`]; it is then stopped, and holds nothing.
    pub fn again(
        &mut self,
        store: &Store,
        manager: Manager,
        addresses: &[IpAddr],
        report: &dyn Report,
    ) -> Result<(Plan, Made), WorkspaceError> {
        self.lock()?;
        let wish = Wish {
            isolation: Some(self.record.isolation),
            ..Wish::plain(self.record.id.clone(), self.record.bundle.clone(), manager)
        };
        let made = self.again_locked(store, &wish, addresses, report);
        self.unlock()?;
        made
    }

    fn again_locked(
        &mut self,
        store: &Store,
        wish: &Wish,
        addresses: &[IpAddr],
        report: &dyn Report,
    ) -> Result<(Plan, Made), WorkspaceError> {
        self.give_back(report)?;
        removing::after_the_end(Some(&self.record), report);
        let mut blueprint = without_console(Blueprint::draw(wish, store, report)?)?;
        keep_addresses(&mut blueprint, addresses);
        self.home.forget(store::SETTLED)?;
        let network = wiring::plan(&blueprint, wish.id.as_str(), store.places())?;
        let created = std::mem::take(&mut self.record.created);
        self.record = making::intent(wish, &blueprint)?;
        self.record.created = created;
        let erected = making::erect(
            &self.home,
            &mut self.record,
            &blueprint,
            arrangement(false, None),
            network.as_ref(),
            report,
        );
        match erected {
            Ok(made) => Ok((blueprint.plan, made)),
            Err(error) => {
                self.give_back(report)?;
                Err(error)
            }
        }
    }

    /// Lets the program of [`Workspace::again`] go.
    ///
    /// # Errors
    ///
    /// As [`Raised::start`]; it is then stopped, and holds nothing.
    pub fn let_go(
        &mut self,
        plan: &Plan,
        made: Made,
        report: &dyn Report,
    ) -> Result<Started, WorkspaceError> {
        let process = made.process.as_fd();
        let mut held = Held::default();
        let begun = starting::let_go(plan, &self.home, &self.record, &made.waiting(), &mut || {
            held = self.hold()
        })
        .map_err(|error| shortage::explain_at(&self.record.place, error))
        .inspect(|()| self.tell_begun(report))
        .and_then(|()| starting::poststart(&self.record, process));
        match begun {
            Ok(()) => Ok(Started {
                process: made.process,
                pid: made.handle.pid,
                notify: None,
                held,
            }),
            Err(error) => {
                self.lock()?;
                self.give_back(report)?;
                self.unlock()?;
                Err(error)
            }
        }
    }

    /// Says that it stands: when its program has been let go, which need not wait for that.
    pub fn tell_begun(&self, report: &dyn Report) {
        if removing::is_billed(&self.record)
            && let Ok(enclosure) = self.enclosure()
        {
            making::tell_begun(&self.home, &self.record, &enclosure, report);
        }
    }

    /// Who made its cgroup.
    #[must_use]
    pub fn manager(&self) -> Manager {
        match self.record.place {
            Place::Scope { .. } => Manager::Systemd,
            Place::Directory { .. } => Manager::Cgroupfs,
            Place::Nowhere => Manager::Disabled,
        }
    }
}
