//! Commands of a workspace that runs: programs beside each other, signals, pauses, limits, streams and terminals.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use serde_json::json;

use crate::container::receive;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;

/// A workspace that runs a script, in which its own cgroup can be seen.
struct Runs {
    home: Home,
    id: String,
    bundle: Bundle,
}

impl Runs {
    #[track_caller]
    fn new(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let home = Home::new();
        let bundle = Bundle::shell(script).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "cgroup"}));
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                               "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
            );
            change(config);
        });
        let id = home.id();
        home.start(&bundle, &id);
        Self { home, id, bundle }
    }

    fn sleeping() -> Self {
        Self::new("exec sleep 1000", |_| {})
    }

    /// Another program in it, to be started.
    fn program(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.home.command();
        command.arg("exec").args(options);
        command.args([&self.id, "sh", "-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn exec(&self, script: &str) -> Said {
        self.program(&[], script).output().unwrap().into()
    }

    fn written(&self, file: &str) -> String {
        std::fs::read_to_string(self.bundle.rootfs(file)).unwrap_or_default()
    }
}

#[test]
fn many_programs_at_once_have_each_their_own_streams_terminal_and_status() {
    need!(root, cgroup2);
    let workspace = Runs::sleeping();
    let script = |number: i32| {
        format!(
            "n=0; while [ $n -lt 300 ]; do echo {number}-$n; n=$((n+1)); done; echo {number} >&2; exit {number}"
        )
    };
    let options = |number| if number % 2 == 0 { &["--tty"][..] } else { &[] };
    let each: Vec<(i32, Child)> = (1..=6)
        .map(|number| {
            let mut program = workspace.program(options(number), &script(number));
            (number, program.spawn().unwrap())
        })
        .collect();
    for (number, program) in each {
        let said: Said = program.wait_with_output().unwrap().into();
        assert_eq!(said.status, number, "{}", said.err);
        let end = if number % 2 == 0 { "\r\n" } else { "\n" };
        let lines: String = (0..300)
            .map(|line| format!("{number}-{line}{end}"))
            .collect();
        let (out, err) = match number % 2 {
            0 => (format!("{lines}{number}{end}"), String::new()),
            _ => (lines, format!("{number}\n")),
        };
        assert_eq!((said.out, said.err), (out, err));
    }
}

#[test]
fn a_signal_reaches_the_first_program_and_one_to_all_reaches_every_other() {
    need!(root, cgroup2);
    let each = "for s in USR1 34; do trap \"echo $0 $s >>/heard\" $s; done; echo $0 >>/ready; while :; do sleep 0.05; done";
    let workspace = Runs::new(
        "sh -c \"$EACH\" other & exec sh -c \"$EACH\" first",
        |config| {
            let env = config["process"]["env"].as_array_mut().unwrap();
            env.push(json!(format!("EACH={each}")));
        },
    );
    let id = workspace.id.as_str();
    let heard = || {
        let mut lines: Vec<String> = workspace
            .written("/heard")
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    eventually("both programs", || {
        workspace.written("/ready").lines().count() == 2
    });
    workspace.home.bulkhead(["kill", id, "USR1"]).ok();
    eventually("a signal", || heard() == ["first USR1"]);
    workspace.home.bulkhead(["kill", id, "34"]).ok();
    eventually("one of real time", || heard() == ["first 34", "first USR1"]);
    workspace.home.bulkhead(["kill", "--all", id, "34"]).ok();
    eventually("one to all", || {
        heard() == ["first 34", "first 34", "first USR1", "other 34"]
    });
}

#[test]
fn a_program_that_is_stopped_and_continued_goes_on() {
    need!(root, cgroup2);
    let workspace = Runs::new("while :; do echo . >>/steps; sleep 0.05; done", |_| {});
    let id = workspace.id.as_str();
    let steps = || workspace.written("/steps").len();
    let state = || {
        workspace
            .exec("sed -n 's/^State:.\\(.\\).*/\\1/p' /proc/1/status")
            .out
    };
    eventually("its steps", || steps() > 4);
    workspace.home.bulkhead(["kill", id, "STOP"]).ok();
    eventually("its stop", || state() == "T\n");
    let before = steps();
    workspace.home.bulkhead(["kill", id, "CONT"]).ok();
    eventually("more steps", || steps() > before);
}

#[test]
fn the_clock_inside_is_right_after_a_pause() {
    need!(root, cgroup2);
    let workspace = Runs::sleeping();
    let id = workspace.id.as_str();
    workspace.exec("true").ok();
    workspace.home.bulkhead(["pause", id]).ok();
    let paused = now();
    eventually("the pause", || now() - paused >= 3.0);
    workspace.home.bulkhead(["resume", id]).ok();
    let before = now();
    let inside: f64 = workspace.exec("date +%s").ok().trim().parse().unwrap();
    let after = now();
    assert!(
        before - 1.5 < inside && inside < after + 0.5,
        "{inside} is not between {before} and {after}"
    );
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs_f64()
}

#[test]
fn limits_hold_inside_and_so_do_those_that_are_changed() {
    need!(root, limits);
    let workspace = Runs::new("exec sleep 1000", |config| {
        config["linux"]["resources"] =
            json!({"memory": {"limit": 100_663_296}, "pids": {"limit": 50}});
    });
    let id = workspace.id.as_str();
    let limit = |file: &str| workspace.exec(&format!("cat /sys/fs/cgroup/{file}")).ok();
    assert_eq!(
        (limit("memory.max"), limit("pids.max")),
        ("100663296\n".to_owned(), "50\n".to_owned())
    );
    let update = [
        "update",
        "--memory",
        "64m",
        "--pids-limit",
        "4",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
        id,
    ];
    workspace.home.bulkhead(update).ok();
    assert_eq!(
        (limit("memory.max"), limit("pids.max")),
        ("67108864\n".to_owned(), "4\n".to_owned())
    );
    let report = workspace.home.bulkhead(["events", "--stats", id]).ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["data"]["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(report["data"]["pids"], json!({"current": 1, "limit": 4}));
    let many = workspace.exec("for n in 1 2 3 4 5 6; do sleep 5 & done 2>&1; wait");
    assert!(
        format!("{}{}", many.out, many.err).contains("can't fork"),
        "{many:?}"
    );
    workspace
        .home
        .bulkhead(["update", "--pids-limit", "-1", "--memory", "96m", id])
        .ok();
    assert_eq!(
        (limit("memory.max"), limit("pids.max")),
        ("100663296\n".to_owned(), "max\n".to_owned())
    );
}

#[test]
fn input_and_output_of_a_program_are_whole_to_the_last_byte() {
    need!(root, cgroup2);
    let workspace = Runs::sleeping();
    let mut bytes = vec![0; 12 << 20];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes.push(b'!');
    let given = workspace.home.beside("given");
    std::fs::write(&given, &bytes).unwrap();
    let taken = workspace.home.beside("taken");
    let through = |input: Stdio, output: Stdio| {
        let mut cat = workspace.program(&[], "cat; echo -n end >&2");
        let said: Said = cat.stdin(input).stdout(output).output().unwrap().into();
        assert_eq!((said.status, said.err.as_str()), (0, "end"));
        assert!(
            std::fs::read(&taken).unwrap() == bytes,
            "what came out is not what went in"
        );
    };
    // Files, which cannot be waited for, and pipes, whose ends can.
    through(
        File::open(&given).unwrap().into(),
        File::create(&taken).unwrap().into(),
    );
    let script = format!(
        "cat {} | \"$@\" | cat >{}",
        given.display(),
        taken.display()
    );
    let mut piped = Command::new("sh");
    piped.args(["-c", &script, "sh"]);
    let cat = workspace.program(&[], "cat");
    piped.arg(cat.get_program()).args(cat.get_args());
    std::fs::remove_file(&taken).unwrap();
    assert!(piped.status().unwrap().success());
    assert!(
        std::fs::read(&taken).unwrap() == bytes,
        "what came out of pipes is not what went in"
    );
}

#[test]
fn a_terminal_that_changes_its_size_is_told_to_the_program() {
    need!(root, cgroup2);
    let workspace = Runs::sleeping();
    let path = workspace.home.beside("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let path = path.display().to_string();
    let script = "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.05; done";
    let said = workspace
        .program(&["--tty", "--detach", "--console-socket", &path], script)
        .stdin(Stdio::null())
        .output();
    Said::from(said.unwrap()).ok();
    let mut master = File::from(receive(&listener).1);
    let mut text = String::new();
    let mut until = |word: &str, master: &mut File| {
        while !text.contains(word) {
            let mut chunk = [0; 256];
            let length = master.read(&mut chunk).unwrap();
            text += std::str::from_utf8(&chunk[..length]).unwrap();
        }
    };
    until("ready", &mut master);
    let size = rustix::termios::Winsize {
        ws_row: 43,
        ws_col: 132,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    until("43 132", &mut master);
}

#[test]
fn memory_that_runs_out_ends_the_program_and_is_told() {
    need!(root, limits);
    let glutton = "read x </go; x=$(dd if=/dev/zero bs=1M count=200 | busybox tr '\\0' x)";
    let workspace = Runs::new(
        &format!("while [ ! -e /go ]; do sleep 0.05; done; {glutton}"),
        |config| {
            config["linux"]["resources"] =
                json!({"memory": {"limit": 25_165_824, "swap": 25_165_824}});
        },
    );
    let id = workspace.id.as_str();
    let events = workspace
        .home
        .command()
        .args(["events", "--interval", "50ms", id])
        .stdout(Stdio::piped())
        .spawn();
    let mut events = events.unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["type"], "stats");
    std::fs::write(workspace.bundle.rootfs("/go"), "\n").unwrap();
    let told = lines.find(|line| line["type"] == "oom").unwrap();
    assert_eq!(told, json!({"type": "oom", "id": id}));
    lines.for_each(drop);
    assert!(events.wait().unwrap().success());
    assert_eq!(workspace.home.status(id), "stopped");
}
