//! The figures beside independent readings: what the program, the sender and the kernel's other counters say.

use std::cell::RefCell;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;

use bulkhead::accounting::Reason;
use bulkhead::accounting::Usage;
use serde_json::json;

use crate::accounting::life::billed;
use crate::accounting::life::entries;
use crate::accounting::life::group;
use crate::accounting::life::total;
use crate::need;
use crate::network::addresses;
use crate::network::gateway_of;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::wall;

/// Whether a figure is the other one but for two in a hundred.
#[track_caller]
fn agree(figure: u64, reading: u64) {
    let apart = figure.abs_diff(reading);
    assert!(apart * 50 <= reading, "{figure} is not {reading}");
}

/// What the last line of a workspace's life says.
fn last(home: &Home, id: &str) -> Usage {
    entries(home, id).pop().unwrap().usage
}

fn run(home: &Home, bundle: Bundle) -> (String, String) {
    let id = home.id();
    let bundle = billed(bundle);
    let out = home.bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id]);
    (id, out.ok())
}

#[test]
fn processor_time_is_what_the_program_itself_has_measured() {
    need!(root, cgroup2);
    // Works until it has used five seconds, and says how much it was then: user and system, in hundredths.
    let burn = "used=0; while [ $used -lt 500 ]; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; \
        read -r line </proc/self/stat; set -- $line; used=$(( ${14} + ${15} )); done; echo $used";
    let home = Home::new();
    let (id, out) = run(&home, Bundle::shell(burn));
    let hundredths: u64 = out.trim().parse().unwrap();
    agree(last(&home, &id).cpu.total_us, hundredths * 10_000);
}

#[test]
fn bytes_of_direct_input_and_output_are_those_that_dd_moved() {
    need!(root, limits);
    let home = Home::new();
    // A block device is below it, which /tmp need not have.
    let disk = tempfile::tempdir_in("/var").unwrap();
    let moved = "dd if=/dev/zero of=/disk/file bs=1M count=32 oflag=direct && \
        dd if=/disk/file of=/dev/null bs=1M count=32 iflag=direct";
    let bundle = Bundle::shell(moved).with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/disk", "type": "bind", "options": ["bind", "rw"],
            "source": disk.path().to_str().unwrap()}),
        );
    });
    std::fs::create_dir(bundle.rootfs("disk")).unwrap();
    let (id, _) = run(&home, bundle);
    let usage = last(&home, &id);
    agree(
        usage.of_devices(|device| device.written_bytes).unwrap(),
        32 << 20,
    );
    agree(
        usage.of_devices(|device| device.read_bytes).unwrap(),
        32 << 20,
    );
}

#[test]
fn memory_at_its_peak_is_what_the_program_has_touched() {
    need!(root, limits);
    let home = Home::new();
    let bundle = Bundle::shell("dd if=/dev/zero of=/dev/shm/file bs=1M count=48").with(|config| {
        config["mounts"][3]["options"] = json!(["nosuid", "mode=1777", "size=65536k"]);
    });
    let (id, _) = run(&home, bundle);
    let peak = last(&home, &id).memory.unwrap().peak_bytes.unwrap();
    // dd's own buffer, the programs and the kernel's pages for them come on top.
    assert!((48 << 20..54 << 20).contains(&peak), "{peak}");
}

#[test]
fn bytes_on_the_network_are_those_that_were_sent() {
    need!(root, cgroup2);
    const SENT: usize = 24 << 20;
    let (home, id) = (Home::new(), "sink");
    let bundle = Bundle::shell("nc -l -p 5000 >/dev/null; sleep 1000").with(|config| {
        config["annotations"] = json!({"dev.bulkhead.network": "bill"});
    });
    home.start(&bundle, id);
    let address = addresses(&home, "bill", id)[0];
    let stream = RefCell::new(None);
    eventually("somebody to listen", || {
        *stream.borrow_mut() = TcpStream::connect((address, 5000)).ok();
        stream.borrow().is_some()
    });
    let mut stream = stream.into_inner().unwrap();
    stream.write_all(&vec![7; SENT]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let usage = || -> Usage {
        let text = home.bulkhead(["usage", id, "-f", "json"]).ok();
        serde_json::from_str(&text).unwrap()
    };
    let received = || usage().of_links(|link| link.in_bytes).unwrap();
    eventually("all to arrive", || received() >= SENT as u64);
    let (usage, received) = (usage(), received());
    agree(received, SENT as u64);
    assert_eq!(usage.cpu.on_behalf.how.as_str(), "estimated");
    home.bulkhead(["delete", "--force", id]).ok();
    let billed = last(&home, id).of_links(|link| link.in_bytes).unwrap();
    assert!(billed >= received, "{billed} of {received}");
}

/// The bundle with the host's programs in it: busybox has none that sends packets, or much at once.
fn with_the_hosts_shell(bundle: Bundle) -> Bundle {
    for link in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), bundle.rootfs(link)).unwrap();
    }
    std::fs::create_dir(bundle.rootfs("usr")).unwrap();
    bundle.with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"]}));
    })
}

#[test]
fn bytes_that_leave_by_the_network_are_those_that_arrive_at_the_host() {
    need!(root, cgroup2);
    const SENT: usize = 24 << 20;
    let (home, id) = (Home::new(), "source");
    let host = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    let script = format!(
        "while [ ! -s /go ]; do sleep 0.1; done; export to=/dev/tcp/$(cat /go)/{port}; \
         /usr/bin/bash -c 'exec 3>$to; dd if=/dev/zero bs=1M count=24 >&3'; exec sleep 1000"
    );
    let bundle = with_the_hosts_shell(Bundle::shell(&script)).with(|config| {
        config["annotations"] = json!({"dev.bulkhead.network": "sent"});
    });
    home.start(&bundle, id);
    let bridge = gateway_of(addresses(&home, "sent", id)[0]);
    std::fs::write(bundle.rootfs("go"), bridge.to_string()).unwrap();
    let (mut stream, _) = host.accept().unwrap();
    let arrived = std::io::copy(&mut (&mut stream).take(SENT as u64), &mut std::io::sink());
    assert_eq!(arrived.unwrap(), SENT as u64);
    home.bulkhead(["delete", "--force", id]).ok();
    let billed = last(&home, id).of_links(|link| link.out_bytes).unwrap();
    agree(billed, SENT as u64);
    assert!(billed > SENT as u64, "{billed}");
}

/// Time of all processors in soft interrupts since the start of the machine, in microseconds.
fn softirq_us() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let line = text.lines().next().unwrap();
    let ticks: u64 = line.split_whitespace().nth(7).unwrap().parse().unwrap();
    ticks * 10_000
}

#[test]
fn work_on_behalf_of_the_only_one_who_sends_is_most_of_all_such_work() {
    need!(root, limits, machine);
    let home = Home::new();
    let (sink, source) = (home.id(), home.id());
    let on_net = |script: &str| {
        Bundle::shell(script).with(|config| {
            config["annotations"] = json!({"dev.bulkhead.network": "behalf"});
        })
    };
    let drain = on_net("exec sleep 1000");
    home.start(&drain, &sink);
    // To a group of which nobody is a member: nobody answers that nobody listens.
    let send = "exec 3>/dev/udp/239.255.0.1/9; dd if=/dev/zero bs=64 count=400000 >&3";
    let flood = on_net(&format!(
        "while [ ! -e /go ]; do sleep 0.2; done; /usr/bin/bash -c '{send}'; exec sleep 1000"
    ));
    let flood = with_the_hosts_shell(flood);
    home.start(&flood, &source);
    let usage = |id: &str| -> Usage {
        let text = home.bulkhead(["usage", id, "-f", "json"]).ok();
        serde_json::from_str(&text).unwrap()
    };
    let both = || -> u64 {
        let of = |id: &str| usage(id).cpu.on_behalf.us.unwrap();
        of(&sink) + of(&source)
    };
    let (all, estimated) = (softirq_us(), both());
    std::fs::write(flood.rootfs("go"), "").unwrap();
    let sent = || usage(&source).of_links(|link| link.out_packets).unwrap();
    eventually("a flood", || sent() > 50_000);
    let (all, estimated) = (softirq_us() - all, both() - estimated);
    // Timers and the rest of the machine are in the truth too, and what is estimated of each is a part of that.
    assert!(all > 200_000, "{all} us is too little to compare");
    let part = estimated * 100 / all;
    assert!(
        (60..=105).contains(&part),
        "{estimated} of {all} us: {part} %"
    );
}

#[test]
fn who_is_killed_for_want_of_memory_is_billed_with_the_reason() {
    need!(root, limits);
    let home = Home::new();
    let id = home.id();
    let glutton = billed(Bundle::shell(
        "x=$(dd if=/dev/zero bs=1M count=64 | cat -v)",
    ));
    let glutton = glutton.with(|config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 16_777_216, "swap": 16_777_216},
            "unified": {"memory.oom.group": "1"},
        });
    });
    let said = home.bulkhead(["run", "-b", glutton.path().to_str().unwrap(), &id]);
    assert_eq!(said.status, 137, "{}", said.err);
    let last = entries(&home, &id).pop().unwrap();
    assert_eq!((last.reason, last.signal), (Some(Reason::Oom), Some(9)));
    let memory = last.usage.memory.unwrap();
    assert!(memory.events.oom_kill > 0);
    agree(memory.peak_bytes.unwrap(), 16 << 20);
}

#[test]
fn the_first_page_and_the_first_microsecond_are_the_workspaces() {
    need!(root, limits);
    let home = Home::new();
    let id = home.id();
    // Not started: whatever is there was used before the program's first instruction.
    home.create(&billed(Bundle::new(&["sleep", "1000"])), &id);
    let group = group(&home, &id);
    assert!(total(&group.join("cpu.stat")) > 0);
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
    let anonymous = read("memory.stat");
    let anonymous = anonymous
        .lines()
        .find_map(|line| line.strip_prefix("anon "));
    assert!(anonymous.unwrap().parse::<u64>().unwrap() > 0);
    let usage = entries(&home, &id).pop().unwrap().usage;
    assert!(usage.cpu.total_us > 0 && usage.memory.unwrap().current_bytes > 0);
}

#[test]
fn what_a_workspace_uses_is_not_charged_to_the_runtime() {
    need!(root, limits);
    let home = Home::new();
    let (own, id) = (home.id(), home.id());
    let own = Path::new("/sys/fs/cgroup").join(own);
    std::fs::create_dir(&own).unwrap();
    let greedy = billed(Bundle::shell(
        "dd if=/dev/zero of=/dev/shm/file bs=1M count=40",
    ));
    let mut command = std::process::Command::new("sh");
    let script = "echo $$ >$0/cgroup.procs; exec \"$@\"";
    command.args(["-c", script]).arg(&own).arg(wall::built());
    command.arg("--root").arg(home.root()).args(["run", "-b"]);
    let output = command.arg(greedy.path()).arg(&id).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let peak = std::fs::read_to_string(own.join("memory.peak")).unwrap();
    std::fs::remove_dir(&own).unwrap();
    let runtime: u64 = peak.trim().parse().unwrap();
    let workspace = last(&home, &id).memory.unwrap().peak_bytes.unwrap();
    assert!(
        workspace >= 40 << 20 && runtime < 40 << 20,
        "{workspace} and {runtime}"
    );
}

#[test]
fn whoever_gets_less_than_the_guarantee_is_seen_to_be_held() {
    need!(root, limits);
    let home = Home::new();
    let id = home.id();
    // Promised half a processor, and limited to a tenth.
    let bundle = Bundle::shell("while :; do :; done").with(|config| {
        config["annotations"] = json!({"dev.bulkhead.cpu.reserve": "0.5"});
        config["linux"]["resources"] = json!({"cpu": {"quota": 10_000, "period": 100_000}});
    });
    home.start(&bundle, &id);
    let stat = group(&home, &id).join("cpu.stat");
    eventually("some use of the processor", || total(&stat) > 300_000);
    let usage = home.bulkhead(["usage", &id, "-f", "json"]).ok();
    let usage: Usage = serde_json::from_str(&usage).unwrap();
    let hold = usage.cpu.hold_ms.unwrap();
    // A tenth took three seconds; of the half that was promised, four tenths of them are missing.
    assert!((700..8000).contains(&hold), "{hold}");
    assert!(usage.cpu.throttled_us.unwrap() > 1_000_000);
}
