//! The agent of a machine, without the machine: it runs beside the tests, on sockets, and makes what it makes in a guest.

mod hostile;
mod programs;
mod streams;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bulkhead::agent::client;
use bulkhead::agent::client::Client;
use bulkhead::agent::wire::Create;
use bulkhead::agent::wire::Event;
use bulkhead::agent::wire::Exec;
use bulkhead::agent::wire::Output;
use bulkhead::agent::wire::Request;
use bulkhead::agent::wire::Stream;
use bulkhead::agent::wire::Streams;
use bulkhead::agent::wire::WORKLOAD;
use bulkhead::plan;
use bulkhead::spec::Spec;
use bulkhead::spec::process::Process;
use bulkhead::sys::process::Exit;

use crate::support::bundle::Bundle;
use crate::support::home::eventually;

/// Standard input, output and error over connections of their own.
const ALL: Streams = Streams::Pipes {
    input: true,
    output: Output::Stream,
    error: Output::Stream,
};

/// An agent that ends with this value, and all that it has made with it.
struct Agent {
    process: Child,
    directory: tempfile::TempDir,
    cgroup: PathBuf,
}

impl Agent {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .unwrap();
        let cgroup = root.join(format!("test-agent-{}-{count}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"))
            .arg("@serve")
            .arg(directory.path())
            .arg(&cgroup)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self {
            process,
            directory,
            cgroup,
        };
        eventually("the agent listens", || {
            agent.try_socket("streams").is_some()
        });
        agent
    }

    fn try_socket(&self, name: &str) -> Option<UnixStream> {
        UnixStream::connect(self.directory.path().join(name)).ok()
    }

    fn socket(&self, name: &str) -> UnixStream {
        self.try_socket(name).unwrap()
    }

    fn client(&self) -> Client {
        Client::open(self.socket("control")).unwrap()
    }

    fn attach(&self, session: u32, stream: Stream) -> UnixStream {
        client::attach(self.socket("streams"), session, stream).unwrap()
    }

    /// Makes the workspace of a bundle.
    fn create(&self, client: &mut Client, bundle: &Bundle, streams: Streams) -> Event {
        let wanted = Create {
            plan: planned(bundle),
            streams,
            ..Create::default()
        };
        client.ask(&Request::Create(Box::new(wanted))).unwrap()
    }

    /// Makes the workspace of a bundle and starts it, its output going nowhere.
    fn started(&self, bundle: &Bundle) -> Client {
        let mut client = self.client();
        let created = self.create(&mut client, bundle, Streams::default());
        assert!(matches!(created, Event::Created { .. }), "{created:?}");
        let started = client.ask(&Request::Start).unwrap();
        assert!(matches!(started, Event::Started { .. }), "{started:?}");
        client
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        std::fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let inside = self.cgroup.join("workspace");
        if std::thread::panicking() {
            return;
        }
        eventually("the cgroup empties", || {
            !inside.exists() || std::fs::remove_dir(&inside).is_ok()
        });
        std::fs::remove_dir(&self.cgroup).unwrap();
    }
}

fn spec(bundle: &Bundle) -> Spec {
    Spec::parse(bundle.config.to_string().as_bytes()).unwrap()
}

fn planned(bundle: &Bundle) -> plan::Plan {
    plan::build(&spec(bundle), &options(bundle)).unwrap()
}

fn options(bundle: &Bundle) -> plan::Options {
    plan::Options {
        id: "guest".to_owned(),
        bundle: bundle.path().to_owned(),
        ..plan::Options::default()
    }
}

/// One more program for the workspace of `bundle`.
fn errand(bundle: &Bundle, script: &str, streams: Streams) -> Request {
    let spec = spec(bundle);
    let process = Process {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        terminal: streams == Streams::Terminal,
        ..(*spec.process).clone()
    };
    let plan = plan::exec(&spec, &process, &options(bundle)).unwrap();
    Request::Exec(Box::new(Exec { plan, streams }))
}

/// Runs one more program; gives how it is called.
#[track_caller]
fn run(client: &mut Client, errand: &Request) -> u32 {
    let answer = client.ask(errand).unwrap();
    let Event::Started { session, .. } = answer else {
        panic!("it did not start: {answer:?}");
    };
    session
}

/// Waits for the end of the workspace's own program.
#[track_caller]
fn ended(client: &mut Client) -> Exit {
    let session = WORKLOAD;
    let answer = client.ask(&Request::Wait { session }).unwrap();
    let Event::Exited { exit, .. } = answer else {
        panic!("it did not end: {answer:?}");
    };
    exit
}

fn text(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A workspace that does nothing for as long as it is let.
fn idle() -> Bundle {
    Bundle::new(&["/bin/sleep", "1000"])
}
