//! A machine of ours: the VMM and the file server, started by a document as the keeper starts them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use bulkhead::agent::client;
use bulkhead::plan::share;
use bulkhead::plan::share::Share;
use bulkhead::plan::share::Source;
use bulkhead::plan::step::Bind;
use bulkhead::sys::inherited;
use bulkhead::sys::socket;
use bulkhead::sys::tap;
use serde_json::Value;
use serde_json::json;

use crate::Outcome;
use crate::world::Processes;
use crate::world::Wanted;

/// A machine, which ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its processes.
    pub(crate) processes: Processes,
    /// Where connections to the guest begin.
    pub(crate) way: PathBuf,
    /// Where it is told that the guest runs.
    pub(crate) report: Option<File>,
}

impl Running {
    /// A connection to a port of the guest; it waits for the guest.
    pub(crate) fn call(&self, port: u32) -> Outcome<UnixStream> {
        Ok(client::call(UnixStream::connect(&self.way)?, port)?)
    }

    /// Waits until the guest is about to run its first instruction.
    pub(crate) fn until_running(&mut self) -> Outcome<()> {
        let report = self.report.as_mut().ok_or("there is no report")?;
        let mut byte = [0];
        report.read_exact(&mut byte)?;
        Ok(())
    }
}

/// Starts the processes; nothing is waited for.
pub(crate) fn start(bulkhead: &Path, home: &Path, wanted: &Wanted) -> Outcome<Running> {
    let served = wanted.share.as_ref();
    let served = served
        .map(|share| serve(bulkhead, home, share))
        .transpose()?;
    let (files, connection) = served.unzip();
    let way = home.join("vm.sock");
    std::fs::remove_file(&way).ok();
    let listener = UnixListener::bind(&way)?;
    let (report, told) = std::io::pipe()?;
    let tap = wanted.tap.as_ref().map(|(name, _)| tap::open(name));
    let tap = tap.transpose()?;
    let vhost = vhost(wanted)?;
    let mut config = json!({
        "vcpus": 1,
        "memory": wanted.memory,
        "kernel": {"path": wanted.kernel},
        "initramfs": {"path": wanted.initramfs},
        "cmdline": wanted.cmdline,
        "serial": {"to": {"path": wanted.serial}},
        "rng": true,
        "balloon": {},
        "report": told.as_raw_fd(),
    });
    if wanted.vsock {
        config["vsock"] = json!({"listener": listener.as_raw_fd()});
    }
    if let Some(disk) = &wanted.disk {
        config["disks"] = json!([{"image": {"path": disk}}]);
    }
    if let Some(connection) = &connection {
        config["shares"] = json!([{"tag": share::TAG, "socket": connection.as_raw_fd()}]);
    }
    if let Some(tap) = &tap {
        config["nics"] = json!([{
            "tap": tap.as_raw_fd(),
            "mac": "02:00:00:00:00:01",
            "vhost": vhost.as_ref().map(AsRawFd::as_raw_fd),
        }]);
    }
    let handed = [Some(listener.as_fd()), Some(told.as_fd())];
    let optional = [
        tap.as_ref().map(AsFd::as_fd),
        vhost.as_ref().map(AsFd::as_fd),
        connection.as_ref().map(AsFd::as_fd),
    ];
    for fd in handed.into_iter().chain(optional).flatten() {
        inherited::hand_on(fd)?;
    }
    let vmm = command(bulkhead, home, "@vmm", &config)?.spawn()?;
    Ok(Running {
        processes: Processes { vmm, files },
        way,
        report: Some(File::from(OwnedFd::from(report))),
    })
}

/// What moves the packets in the kernel, where it is to.
fn vhost(wanted: &Wanted) -> Outcome<Option<File>> {
    let kernel_moves = wanted
        .tap
        .as_ref()
        .is_some_and(|(_, kernel_moves)| *kernel_moves);
    let vhost = kernel_moves.then(|| {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/vhost-net")
    });
    Ok(vhost.transpose()?)
}

/// Starts a file server, and gives the connection to it.
fn serve(bulkhead: &Path, home: &Path, tree: &Path) -> Outcome<(Child, OwnedFd)> {
    let place = File::open(home)?;
    let listener = socket::listen_stream(place.as_fd(), "files.sock")?;
    let connection = socket::connect_stream_in(place.as_fd(), "files.sock")?;
    std::fs::remove_file(home.join("files.sock"))?;
    inherited::hand_on(listener.as_fd())?;
    let share = Share {
        name: share::ROOT.to_owned(),
        source: Source::Tree(Box::new(Bind {
            source: tree.to_owned(),
            recursive: true,
            ..Bind::default()
        })),
    };
    let settings = json!({"shares": [share], "listener": listener.as_raw_fd()});
    let child = command(bulkhead, home, "@files", &settings)?.spawn()?;
    Ok((child, connection))
}

fn command(bulkhead: &Path, home: &Path, word: &str, settings: &Value) -> Outcome<Command> {
    let path = home.join(format!("{word}.json"));
    std::fs::write(&path, settings.to_string())?;
    let mut command = Command::new(bulkhead);
    command.arg(word).arg("--config").arg(path);
    command.stdin(Stdio::null());
    Ok(command)
}
