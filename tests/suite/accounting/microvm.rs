//! The bill of a microVM beside independent readings, and that one is written however it ends.

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use bulkhead::accounting::Reason;
use bulkhead::accounting::Usage;
use bulkhead::accounting::ledger::entry::Entry;
use bulkhead::accounting::usage::Machine;
use serde_json::Value;
use serde_json::json;

use crate::accounting::life::entries;
use crate::accounting::life::group;
use crate::accounting::life::total;
use crate::accounting::life::words;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

/// Works until it has used two seconds, and says how much it was then, in hundredths.
const BURN: &str = "used=0; while [ $used -lt 200 ]; do i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; \
    read -r line </proc/self/stat; set -- $line; used=$(( ${14} + ${15} )); done; echo $used";
/// What `dd` writes in the tests, in MiB.
const WRITTEN: u64 = 16;
/// What a limit of memory is in the tests.
const LIMIT: u64 = 160 << 20;

/// A state root that finds the guests of the test machine.
fn home() -> Home {
    let home = Home::new();
    with_guests(&home);
    home
}

/// Lets a state root find the guests of the test machine.
pub(crate) fn with_guests(home: &Home) {
    let data = home.root().join("@data");
    std::fs::create_dir_all(&data).unwrap();
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/@data/guests");
    std::os::unix::fs::symlink(guests, data.join("guests")).unwrap();
}

/// A bundle that is put into a machine, and billed.
fn in_machine(script: &str) -> Bundle {
    Bundle::shell(script).with(|config| {
        config["annotations"] = json!({
            "dev.bulkhead.billed": "true",
            "dev.bulkhead.isolation": "microvm",
        });
        config["linux"]["resources"] = json!({"memory": {"limit": LIMIT}});
    })
}

/// The bill of a workspace so far.
pub(crate) fn usage(home: &Home, id: &str) -> Usage {
    let text = home.bulkhead(["usage", id, "-f", "json"]).ok();
    serde_json::from_str(&text).unwrap()
}

fn inside(home: &Home, id: &str, script: &str) -> String {
    home.bulkhead(["exec", id, "sh", "-c", script]).ok()
}

/// Whether a figure is the other one but for so many in a hundred.
#[track_caller]
fn agree(figure: u64, reading: u64, percent: u64) {
    let apart = figure.abs_diff(reading);
    assert!(
        apart * 100 <= reading * percent,
        "{figure} is not {reading}"
    );
}

/// Every microsecond has somebody who used it, and those in the guest are among the processors'.
#[track_caller]
fn roles_are_the_total(usage: &Usage) {
    let roles = &usage.cpu.roles;
    let parts = [&roles.vmm, &roles.fileserver, &roles.vhost, &roles.proxy];
    let others = parts.into_iter().flatten().map(|role| role.total_us);
    let sum = roles.workload.total_us + others.sum::<u64>();
    assert_eq!(sum, usage.cpu.total_us, "{roles:?}");
    assert!(roles.workload.guest_us.unwrap() <= roles.workload.total_us);
    assert!(roles.vmm.as_ref().unwrap().total_us > 0, "{roles:?}");
    assert!(roles.fileserver.as_ref().unwrap().total_us > 0, "{roles:?}");
    assert!(roles.proxy.as_ref().unwrap().total_us > 0, "{roles:?}");
}

/// A machine on a network, with a directory of a disk.
fn machine(disk: &Path) -> Bundle {
    let bundle = in_machine("nc -l -p 5000 >/dev/null; exec sleep 1000").with(|config| {
        config["annotations"]["dev.bulkhead.network"] = json!("billvm");
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/disk", "type": "bind", "options": ["bind", "rw"],
            "source": disk.to_str().unwrap()}),
        );
    });
    std::fs::create_dir(bundle.rootfs("disk")).unwrap();
    bundle
}

#[test]
fn the_figures_of_a_machine_are_those_of_independent_readings() {
    need!(root, limits, machine, kvm);
    let home = home();
    let id = &home.id();
    // A block device is below it, which /tmp need not have.
    let disk = tempfile::tempdir_in("/var").unwrap();
    let bundle = machine(disk.path());
    home.start(&bundle, id);
    let begun = usage(&home, id);
    roles_are_the_total(&begun);
    processor_time(&home, id);
    bytes_of_files(&home, id);
    bytes_of_the_network(&home, id);
    parts_of_memory(&home, id);
    every_view_shows_the_parts(&home, id);
    a_machine_that_stands_still_is_read(&home, id);
    let before = usage(&home, id);
    home.bulkhead(["delete", "--force", id]).ok();
    let last = last(&home, id, "ended deleted").usage;
    roles_are_the_total(&last);
    assert!(last.cpu.total_us >= before.cpu.total_us);
    assert!(last.cpu.roles.workload.guest_us >= before.cpu.roles.workload.guest_us);
    assert!(last.machine.unwrap().exits >= before.machine.unwrap().exits);
    let received = |usage: &Usage| usage.of_links(|link| link.in_bytes);
    assert!(received(&last) >= received(&before));
}

/// What the program measures is time of the guest, the guest's is its only processor's, and that runs no longer than the
/// clock.
fn processor_time(home: &Home, id: &str) {
    let (before, begun) = (usage(home, id), Instant::now());
    let hundredths: u64 = inside(home, id, BURN).trim().parse().unwrap();
    let after = usage(home, id);
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
    roles_are_the_total(&after);
    let more = |figure: fn(&Usage) -> u64| figure(&after) - figure(&before);
    let guest = more(|usage| usage.cpu.roles.workload.guest_us.unwrap());
    let vcpu = more(|usage| usage.cpu.roles.workload.total_us);
    let burnt = hundredths * 10_000;
    // The kernel inside works for the program too, and where the host's processor is one of software the guest misses
    // ticks: what it counts is then less than what it had.
    assert!(guest >= burnt * 8 / 10, "{guest} of {burnt}");
    assert!(
        vcpu >= guest * 9 / 10 && vcpu <= took,
        "{guest}, {vcpu} of {took}"
    );
    let more = |figure: fn(&Machine) -> u64| {
        figure(after.machine.as_ref().unwrap()) - figure(before.machine.as_ref().unwrap())
    };
    assert!(more(|machine| machine.exits) > more(|machine| machine.halts));
}

/// What is written inside is written by the file server, and counted at the disk.
fn bytes_of_files(home: &Home, id: &str) {
    let written = |usage: &Usage| usage.of_devices(|device| device.written_bytes).unwrap();
    let served = |usage: &Usage| usage.cpu.roles.fileserver.as_ref().unwrap().total_us;
    let before = usage(home, id);
    let dd = format!("dd if=/dev/zero of=/disk/file bs=1M count={WRITTEN} conv=fsync 2>/dev/null");
    inside(home, id, &dd);
    let after = usage(home, id);
    // The journal of the file system is on the disk too.
    agree(written(&after) - written(&before), WRITTEN << 20, 15);
    assert!(served(&after) > served(&before));
}

fn bytes_of_the_network(home: &Home, id: &str) {
    const SENT: usize = 2 << 20;
    let network: Value =
        serde_json::from_str(&home.bulkhead(["net", "inspect", "billvm"]).ok()).unwrap();
    let address = network["workspaces"][0]["addresses"][0].as_str().unwrap();
    let stream = RefCell::new(None);
    let before = usage(home, id).of_links(|link| link.in_bytes).unwrap();
    eventually("somebody to listen", || {
        *stream.borrow_mut() = TcpStream::connect((address, 5000)).ok();
        stream.borrow().is_some()
    });
    let mut stream = stream.into_inner().unwrap();
    stream.write_all(&vec![7; SENT]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let received = || usage(home, id).of_links(|link| link.in_bytes).unwrap() - before;
    eventually("all to arrive", || received() >= SENT as u64);
    // Frames have headers.
    agree(received(), SENT as u64, 8);
}

/// The guest holds what was written to its memory, and gives it back; the machine's own is what was promised.
fn parts_of_memory(home: &Home, id: &str) {
    const HELD: u64 = 48 << 20;
    let guest = || usage(home, id).memory.unwrap().guest_bytes.unwrap();
    let before = guest();
    inside(
        home,
        id,
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=48 2>/dev/null",
    );
    let held = guest();
    // Some of it may have been the guest's before, and free.
    assert!(held >= before + HELD / 2, "{before} and {held}");
    let memory = usage(home, id).memory.unwrap();
    let cache = memory.by_kind.file_bytes - memory.by_kind.shmem_bytes;
    let (guest_bytes, overhead) = (memory.guest_bytes.unwrap(), memory.overhead_bytes.unwrap());
    agree(guest_bytes + overhead + cache, memory.current_bytes, 2);
    assert!(
        (1 << 20..48 << 20).contains(&overhead),
        "{overhead} bytes on top"
    );
    inside(home, id, "rm /dev/shm/held");
    eventually("memory to be given back", || guest() + HELD / 2 <= held);
}

fn every_view_shows_the_parts(home: &Home, id: &str) {
    let table = home.bulkhead(["usage", id]).ok();
    assert!(
        table.contains("MICROVM") && table.contains("OVERHEAD"),
        "{table}"
    );
    let metrics = home.bulkhead(["usage", id, "-f", "openmetrics"]).ok();
    for (family, label) in [
        ("cpu_role_seconds_total", "role=\"fileserver\""),
        ("memory_part_bytes", "part=\"guest\""),
        ("machine_exits_total", "why=\"halt\""),
    ] {
        let sample = format!("bulkhead_{family}{{id=\"{id}\",{label}}}");
        assert!(metrics.contains(&sample), "{metrics}");
    }
    let before = usage(home, id).cpu.total_us * 1000;
    let events: Value =
        serde_json::from_str(&home.bulkhead(["events", "--stats", id]).ok()).unwrap();
    let told = events["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(told >= before, "{told} after {before}");
}

fn a_machine_that_stands_still_is_read(home: &Home, id: &str) {
    home.bulkhead(["pause", id]).ok();
    let (one, other) = (usage(home, id), usage(home, id));
    home.bulkhead(["resume", id]).ok();
    roles_are_the_total(&one);
    assert_eq!(one.cpu.roles.workload, other.cpu.roles.workload);
    assert_eq!(one.machine, other.machine);
    assert!(one.memory.unwrap().guest_bytes.unwrap() > 0);
}

/// The last line of a life, which ends so.
#[track_caller]
fn last(home: &Home, id: &str, how: &str) -> Entry {
    let entries = entries(home, id);
    assert_eq!(words(&entries).last().unwrap(), how);
    entries.into_iter().next_back().unwrap()
}

fn run(home: &Home, bundle: &Bundle) -> (String, i32, String) {
    let id = home.id();
    let said = home.bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id]);
    (id, said.status, said.out)
}

#[test]
fn a_machine_that_ends_by_itself_is_billed_with_what_was_used_in_its_guest() {
    need!(root, limits, machine, kvm);
    let home = home();
    let (id, status, out) = run(&home, &in_machine(&format!("{BURN}; exit 7")));
    assert_eq!(status, 7, "{out}");
    let hundredths: u64 = out.trim().parse().unwrap();
    let last = last(&home, &id, "ended exited");
    roles_are_the_total(&last.usage);
    let guest = last.usage.cpu.roles.workload.guest_us.unwrap();
    // What the kernel inside needed for its boot comes on top.
    assert!(guest >= hundredths * 10_000 * 8 / 10, "{guest}");
    assert_eq!(last.exit_status, Some(7));
}

#[test]
fn a_machine_that_is_killed_is_billed_to_its_last_microsecond() {
    need!(root, limits, machine, kvm);
    let home = home();
    let id = &home.id();
    let bundle = in_machine("while :; do :; done");
    home.start(&bundle, id);
    let whole = group(&home, id);
    let before = usage(&home, id);
    let stat = whole.join("cpu.stat");
    let more = before.cpu.total_us + 500_000;
    eventually("some use of the processor", || total(&stat) > more);
    home.bulkhead(["kill", id, "KILL"]).ok();
    // A VMM takes a moment to give its memory back, which is the workspace's too.
    let gone = || std::fs::read_to_string(whole.join("cgroup.events")).unwrap();
    eventually("its end", || gone().contains("populated 0"));
    let (used, vcpu) = (total(&stat), total(&whole.join("vcpu/cpu.stat")));
    home.bulkhead(["delete", id]).ok();
    let all = entries(&home, id);
    let (begun, last) = (&all[0].usage, &all[all.len() - 1].usage);
    roles_are_the_total(last);
    // A thread that has left its group still goes the last steps of its end there.
    for (billed, read) in [
        (last.cpu.total_us, used),
        (last.cpu.roles.workload.total_us, vcpu),
    ] {
        assert!((read..read + 20_000).contains(&billed), "{billed}, {read}");
    }
    // What was in the guest is known as of the last look that was kept: nobody stayed with it.
    assert!(last.cpu.roles.workload.guest_us >= begun.cpu.roles.workload.guest_us);
}

#[test]
fn who_wants_more_memory_than_its_limit_is_killed_inside_and_the_machine_is_not() {
    need!(root, limits, machine, kvm);
    let home = home();
    let glutton = in_machine("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    let (id, status, out) = run(&home, &glutton);
    assert_eq!(status, 137, "{out}");
    let last = last(&home, &id, "ended oom");
    assert_eq!((last.reason, last.signal), (Some(Reason::Oom), Some(9)));
    let memory = last.usage.memory.unwrap();
    assert_eq!(memory.events.oom_kill, 0, "the host has killed nobody");
    let peak = memory.peak_bytes.unwrap();
    assert!(peak > LIMIT && peak < LIMIT + (200 << 20), "{peak}");
}
