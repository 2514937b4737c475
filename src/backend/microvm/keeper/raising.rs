//! From settings to a machine in which the program waits for its start.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use super::Result;
use super::Taken;
use super::process;
use super::process::Given;
use super::process::Vmm;
use super::staying::Standing;
use crate::agent::client::Client;
use crate::agent::wire;
use crate::agent::wire::Create;
use crate::agent::wire::Event;
use crate::agent::wire::Interface;
use crate::agent::wire::Request;
use crate::agent::wire::Route;
use crate::agent::wire::Streams;
use crate::backend::BackendError;
use crate::backend::microvm::Machine;
use crate::backend::microvm::files;
use crate::backend::microvm::files::Order;
use crate::backend::microvm::lower;
use crate::backend::microvm::pump;
use crate::backend::microvm::pump::Pumps;
use crate::backend::microvm::report::Reporter;
use crate::backend::microvm::signals;
use crate::backend::microvm::talk;
use crate::backend::microvm::terminal;
use crate::enclosure::threads;
use crate::network::NetworkError;
use crate::network::tap;
use crate::network::tap::Carried;
use crate::plan::step::Barrier;
use crate::sys::clone::Birth;
use crate::sys::signal::Signals;

/// How many random bytes the guest begins with.
const SEED: usize = 64;

/// Makes everything, up to the point where the program in the guest waits for its start.
pub(super) fn raise(machine: &Machine, taken: Taken, reporter: &mut Reporter) -> Result<Standing> {
    crate::sys::process::hide().map_err(BackendError::kernel("hide the process"))?;
    rustix::process::setsid().map(drop).unwrap_or_default();
    for barrier in [Barrier::Outside, Barrier::RuntimeHooks] {
        reporter.reached(barrier)?;
        reporter.wait()?;
    }
    let held = Signals::hold().map_err(BackendError::kernel("hold signals back"))?;
    let carried = tap::carry_over().map_err(|error| BackendError::Machine(words(&error)))?;
    let vmm = make(machine, &taken, &carried)?;
    let Taken {
        home,
        start,
        console,
        listener,
        ..
    } = taken;
    // A connection is answered by the VMM or, when that has gone, by its end.
    drop(listener);
    let built =
        settle(machine, &home, console, interfaces(&carried)).and_then(|(agent, streams)| {
            if machine.plan.sealed_root {
                lower::seal_root(vmm.server())?;
            }
            let counters = vmm.counters();
            // Nothing of the workload's has run yet: what was heard up to here was the agent's own.
            lower::lower()?;
            let pumps = Pumps::begin(home.as_fd(), wire::WORKLOAD, streams)?;
            let second = talk::open(home.as_fd(), talk::BOOT)?;
            let terminal = streams == Streams::Terminal;
            signals::pass_on(held, second, wire::WORKLOAD, terminal)?;
            reporter.reached(Barrier::Start)?;
            Ok((agent, pumps, counters))
        });
    match built {
        Ok((agent, pumps, counters)) => Ok(Standing {
            home,
            start,
            vmm,
            counters,
            agent,
            pumps,
        }),
        // That the machine has ended says more than that nobody answers.
        Err(error) => Err(vmm.explain(error)),
    }
}

/// Makes the file server and the VMM. This process has one thread until both are there.
fn make(machine: &Machine, taken: &Taken, carried: &[Carried]) -> Result<Vmm> {
    let parts = taken
        .cgroup
        .as_ref()
        .and_then(|whole| threads::divide(whole.as_fd()));
    let place = parts.as_ref().map(|parts| parts.files.directory.as_fd());
    let server = files::launch(&Order {
        program: files::OWN,
        shares: &machine.plan.shares,
        birth: Birth {
            cgroup: place,
            ..Birth::default()
        },
        users: None,
        directory: taken.home.as_fd(),
    })?;
    let vmm = process::start(
        machine,
        &Given {
            home: taken.home.as_fd(),
            listener: taken.listener.as_fd(),
            server: &server,
            parts: parts.as_ref(),
            carried,
            disks: &taken.disks,
        },
    )?;
    Ok(vmm)
}

/// Has the agent build the workspace.
fn settle(
    machine: &Machine,
    home: &OwnedFd,
    console: Option<OwnedFd>,
    interfaces: Vec<Interface>,
) -> Result<(Client, Streams)> {
    let machine = &machine.plan;
    let streams = match (terminal::wanted(&machine.plan.steps), console) {
        (Some(size), Some(console)) => {
            terminal::open(&console, size)?;
            Streams::Terminal
        }
        (Some(_), None) => return Err(BackendError::OutOfTurn),
        (None, _) => pump::streams(),
    };
    let mut agent = talk::open(home.as_fd(), talk::BOOT)?;
    let create = Create {
        plan: machine.plan.clone(),
        streams,
        disks: Vec::new(),
        interfaces,
        sysctls: machine.sysctls.clone(),
        limits: talk::limits(machine.limits, false),
        devices: machine.devices.clone(),
        unix_ns: talk::now(),
        seed: seed(),
    };
    let mut request = Request::Create(Box::new(create));
    loop {
        let answer = talk::answered(agent.ask(&request), &machine.plan.steps)?;
        if matches!(answer, Event::Created { .. }) {
            return Ok((agent, streams));
        }
        let Event::Hooks = answer else {
            return Err(BackendError::OutOfTurn);
        };
        request = Request::Proceed;
    }
}

/// The interfaces of the namespace, as the guest takes them on.
fn interfaces(carried: &[Carried]) -> Vec<Interface> {
    let routes = |one: &Carried| {
        let ways = one.routes.iter().map(|way| Route {
            to: way.to,
            gateway: way.gateway,
            source: way.source,
            metric: way.metric,
        });
        ways.collect()
    };
    let all = carried.iter().map(|one| Interface {
        name: one.name.clone(),
        mac: one.mac,
        mtu: one.mtu,
        addresses: one.addresses.clone(),
        routes: routes(one),
    });
    all.collect()
}

fn words(error: &NetworkError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn seed() -> Vec<u8> {
    let mut bytes = vec![0; SEED];
    let filled = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    filled.map_or_else(|_| Vec::new(), |()| bytes)
}
