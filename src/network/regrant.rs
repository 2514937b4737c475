//! Other rates for a workspace that is connected already.

use crate::network::Places;
use crate::network::error::NetworkError;
use crate::network::lease::Leases;
use crate::network::shape;
use crate::network::wire;
use crate::plan::network::NetworkPlan;

/// Lets the rates of `plan` hold for its workspace, which is on the network. Packets that wait in the queues are lost.
///
/// # Errors
///
/// [`NetworkError::NoCapacity`] for a reserve of an unknown whole; [`NetworkError::Missing`] when the workspace is not
/// there; else what the kernel refused. Everything is then as it was.
pub fn regrant(plan: &NetworkPlan, places: &Places) -> Result<(), NetworkError> {
    shape::check(plan)?;
    let missing = || NetworkError::Missing {
        network: plan.network.clone(),
    };
    let leases = Leases::lock_present(&places.leases)?.ok_or_else(missing)?;
    let register = leases.read(&plan.network, &wire::boot_id()?)?;
    let mut register = register.ok_or_else(missing)?;
    let before = register.clone();
    let lease = register.leases.get_mut(&plan.id).ok_or_else(missing)?;
    (lease.inward, lease.outward) = (plan.inward, plan.outward);
    // A capacity that nobody has said counts only while somebody was promised some of it.
    register.capacity = match register.is_reserved() {
        true => plan.capacity.or(before.capacity),
        false => before.capacity.filter(|capacity| capacity.said),
    };
    let mut route = wire::open()?;
    let done = shape::renew(&mut route, &places.root, &mut register, None)
        .and_then(|()| leases.write(&register));
    if done.is_err() {
        // The first error is the one to tell.
        let mut before = before;
        shape::renew(&mut route, &places.root, &mut before, None).unwrap_or_default();
    }
    done
}
