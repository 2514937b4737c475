//! The same machine in QEMU: `microvm` with KVM and nothing that is not asked for, and virtiofsd.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use bulkhead::agent::wire;
use bulkhead::sys::inherited;
use bulkhead::sys::vsock;

use crate::Outcome;
use crate::figures::quantile;
use crate::world::Processes;
use crate::world::Wanted;
use crate::world::World;

/// The guest's number on its socket device.
const CID: u32 = 77;
/// Where Debian has it.
const SERVER: &str = "/usr/libexec/virtiofsd";
/// What is left out of the machine: everything that our guest has no use for.
pub(crate) const LEAN: &str =
    "microvm,acpi=on,pit=off,pic=off,rtc=off,pcie=off,usb=off,ioapic2=off,auto-kernel-cmdline=off";

/// A machine, which ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    /// QEMU and the file server, which has a child of its own.
    pub(crate) processes: Processes,
    hello: Option<OwnedFd>,
}

impl Running {
    /// Waits until the agent says that it listens.
    pub(crate) fn until_hello(&self) -> Outcome<()> {
        let hello = self.hello.as_ref().ok_or("there is no socket device")?;
        vsock::accept(hello.as_fd())?;
        Ok(())
    }

    /// A connection to a port of the guest, which must listen.
    pub(crate) fn call(&self, port: u32) -> Outcome<UnixStream> {
        Ok(UnixStream::from(vsock::connect(CID, port)?))
    }
}

/// Starts the processes; nothing is waited for.
pub(crate) fn start(home: &Path, wanted: &Wanted, options: &[&str]) -> Outcome<Running> {
    let hello = wanted.vsock.then(|| vsock::listen(wire::HELLO_PORT));
    let hello = hello.transpose()?;
    let socket = home.join("virtiofsd.sock");
    let served = wanted.share.as_ref();
    let files = served
        .map(|share| serve(home, &socket, share))
        .transpose()?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-enable-kvm",
        "-cpu",
        "host",
        "-nodefaults",
        "-no-user-config",
    ]);
    command.args(["-nographic", "-no-reboot", "-smp", "1"]);
    command.args(options);
    let size = wanted.memory;
    command.args(["-machine", "memory-backend=ram", "-object"]);
    command.arg(format!("memory-backend-memfd,id=ram,size={size},share=on"));
    command.args(["-m", &format!("{}M", size >> 20)]);
    command.arg("-kernel").arg(&wanted.kernel);
    command.arg("-initrd").arg(&wanted.initramfs);
    command.args(["-append", &wanted.cmdline]);
    command
        .arg("-serial")
        .arg(format!("file:{}", wanted.serial.display()));
    command.args(["-device", "virtio-rng-device"]);
    command.args(["-device", "virtio-balloon-device,free-page-reporting=on"]);
    devices(&mut command, wanted, &socket);
    command.stdin(Stdio::null());
    let vmm = command.spawn()?;
    Ok(Running {
        processes: Processes { vmm, files },
        hello,
    })
}

fn devices(command: &mut Command, wanted: &Wanted, socket: &Path) {
    if wanted.vsock {
        command.arg("-device");
        command.arg(format!("vhost-vsock-device,guest-cid={CID}"));
    }
    if wanted.share.is_some() {
        command.arg("-chardev");
        command.arg(format!("socket,id=files,path={}", socket.display()));
        command.args([
            "-device",
            "vhost-user-fs-device,chardev=files,tag=share,queue-size=1024",
        ]);
    }
    if let Some(disk) = &wanted.disk {
        command.args(["-object", "iothread,id=disk", "-drive"]);
        command.arg(format!(
            "file={},format=raw,if=none,id=disk,aio=io_uring,discard=unmap",
            disk.display()
        ));
        command.args(["-device", "virtio-blk-device,drive=disk,iothread=disk"]);
    }
    if let Some((tap, kernel_moves)) = &wanted.tap {
        let vhost = if *kernel_moves { "on" } else { "off" };
        command.arg("-netdev");
        command.arg(format!(
            "tap,id=net,ifname={tap},script=no,downscript=no,vhost={vhost}"
        ));
        command.args([
            "-device",
            "virtio-net-device,netdev=net,mac=02:00:00:00:00:01",
        ]);
    }
}

/// Starts virtiofsd, as trusting as our own server is: the guest believes what it knows for the same time. It is not
/// waited for: who connects to its socket is in the queue.
fn serve(home: &Path, socket: &Path, tree: &Path) -> Outcome<Child> {
    // The tree is where the agent looks for it, with nothing beside it.
    let name = tree.file_name().unwrap_or_default();
    let served = home.join("served").join(name);
    let place = served.join("root");
    std::fs::create_dir_all(&place)?;
    if std::fs::metadata(&place)?.ino() != std::fs::metadata(tree)?.ino() {
        let mut mount = Command::new("mount");
        let bound = mount.arg("--bind").arg(tree).arg(&place).status()?;
        bound.success().then_some(()).ok_or("mount has failed")?;
    }
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket)?;
    inherited::hand_on(listener.as_fd())?;
    let child = Command::new(SERVER)
        .arg(format!("--fd={}", listener.as_raw_fd()))
        .arg(format!("--shared-dir={}", served.display()))
        .args([
            "--cache=auto",
            "--announce-submounts",
            "--xattr",
            "--posix-acl",
        ])
        .args(["--inode-file-handles=never", "--log-level=error"])
        .stdin(Stdio::null())
        .spawn()?;
    Ok(child)
}

/// Compares sets of options of QEMU's, so that ours is compared with the best of them.
pub(crate) fn options(world: &World, runs: usize) -> Outcome<()> {
    let qboot = "qboot.rom";
    let sets: [&[&str]; 4] = [
        &["-M", "microvm,acpi=on"],
        &["-M", LEAN],
        &["-M", LEAN, "-bios", qboot],
        &["-M", "microvm,acpi=on", "-bios", qboot],
    ];
    for set in sets {
        let mut times = Vec::new();
        for _ in 0..runs {
            let began = Instant::now();
            let running = start(&world.home, &world.wanted(), set)?;
            running.until_hello()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("{set:?}: agent after {:.0} ms", quantile(&times, 50));
    }
    Ok(())
}
