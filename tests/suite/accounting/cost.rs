//! What it costs to look at many workspaces.

use bulkhead::accounting::Meter;
use bulkhead::workspace::found::Workspace;
use bulkhead::workspace::root::StateRoot;
use bulkhead::workspace::store::Store;

use crate::accounting::life::billed;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

const MANY: usize = 200;
/// One percent of a processor over the ten seconds between two looks.
const ALLOWED_US: i64 = 100_000;

/// Processor time of this thread.
fn thread_us() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a directory of the test's own")]
fn looking_at_200_workspaces_every_ten_seconds_takes_less_than_a_hundredth_of_a_processor() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), billed(Bundle::new(&["sleep", "1000"])));
    // As /run is one.
    std::fs::create_dir(home.root()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", home.root(), "tmpfs", flags, None).unwrap();
    let ids: Vec<String> = (0..MANY).map(|_| home.id()).collect();
    ids.iter().for_each(|id| home.create(&bundle, id));
    let root = StateRoot::choose(Some(&home.root()), None).unwrap();
    let store = Store::new(root);
    let found = ids
        .iter()
        .map(|id| Workspace::find(&store, &id.parse().unwrap()).unwrap());
    let mut watched: Vec<(Workspace, Meter)> = found
        .map(|workspace| {
            let meter = Meter::new(&workspace);
            (workspace, meter)
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..10 {
        let before = thread_us();
        for (workspace, meter) in &mut watched {
            let usage = meter.sample(workspace).unwrap();
            assert!(usage.cpu.total_us > 0);
            meter.keep(workspace).unwrap();
        }
        taken.push(thread_us() - before);
    }
    ids.iter().for_each(|id| {
        home.bulkhead(["delete", "--force", id]).ok();
    });
    rustix::mount::unmount(home.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let least = taken.iter().min().unwrap();
    assert!(*least < ALLOWED_US, "{taken:?} us of {ALLOWED_US}");
}
