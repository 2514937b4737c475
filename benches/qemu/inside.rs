//! What runs in the guest when devices are measured: the first process, which loads the modules, does what its command
//! line names, says the figures on the serial port, and switches the machine off.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead::sys::route::Route;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkMessage;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;

use crate::Outcome;

/// How long each figure is taken.
const SPAN: Duration = Duration::from_millis(700);
/// How many files are made, looked at and removed.
const FILES: usize = 200;
/// The large file that is read in pieces.
const LARGE: usize = 16 << 20;
const PAGE: usize = 4096;
const BLOCK: usize = 128 << 10;
/// Where the host is, and where the guest.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The port of the host's side.
pub(crate) const PORT: u16 = 7777;
/// What is before each figure on the serial port.
pub(crate) const MARK: &str = "FIGURE ";

/// The whole life of the first process.
pub(crate) fn live() -> Outcome<()> {
    let done = work();
    if let Err(error) = done {
        tell(&format!("FAILED {error}"));
    }
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

fn work() -> Outcome<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(kind, kind, at)?;
    }
    for list in ["order", "virtio-1.order", "virtio-2.order"] {
        load(list)?;
    }
    let words = std::fs::read_to_string("/proc/cmdline")?;
    for word in words.split_whitespace() {
        match word {
            "bench.disk" => disk()?,
            "bench.net" => network()?,
            "bench.files" => files()?,
            _ => {}
        }
    }
    Ok(())
}

/// Loads the modules of a list.
fn load(list: &str) -> Outcome<()> {
    let home = Path::new("/modules");
    for name in std::fs::read_to_string(home.join(list))?.lines() {
        let file = rustix::fs::open(home.join(name), OFlags::RDONLY, Mode::empty())?;
        // One for a device that is not there is not missed.
        rustix::system::finit_module(&file, c"", 0).ok();
    }
    Ok(())
}

/// Says something where the host hears it: in the kernel's log, as what is urgent.
fn tell(words: &str) {
    // Nobody else is there to be told that this does not go.
    std::fs::write("/dev/kmsg", format!("<0>{words}\n")).ok();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the first process of a guest is alone with its paths"
)]
fn mount(kind: &str, source: &str, at: &str) -> Outcome<()> {
    std::fs::create_dir_all(at)?;
    rustix::mount::mount(source, at, kind, MountFlags::empty(), c"")?;
    Ok(())
}

fn say(name: &str, value: f64) {
    tell(&format!("{MARK}{name}={value:.3}"));
}

/// Does something over and over for a while; gives how often in a second.
fn rate(mut work: impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < SPAN {
        work(count as usize)?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// A buffer that begins at a page, as direct transfers need it.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new(length: usize) -> Self {
        let room = vec![0x5a; length + PAGE];
        let begin = room.as_ptr().align_offset(PAGE);
        Self(room, begin)
    }

    fn of(&mut self, length: usize) -> &mut [u8] {
        let from = self.1;
        self.0.get_mut(from..from + length).unwrap_or_default()
    }
}

/// A place in a file of `pages` pages that looks like chance, and is the same in every machine.
fn place(turn: usize, pages: usize) -> u64 {
    ((turn.wrapping_mul(2_654_435_761) >> 3) % pages * PAGE) as u64
}

fn direct(path: &str) -> Outcome<File> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let mut options = OpenOptions::new();
    Ok(options
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)?)
}

fn disk() -> Outcome<()> {
    let disk = Arc::new(direct("/dev/vda")?);
    let pages = LARGE / PAGE;
    let mut room = Aligned::new(BLOCK);
    let read = |turn, room: &mut Aligned| -> Outcome<()> {
        Ok(disk.read_exact_at(room.of(PAGE), place(turn, pages))?)
    };
    say("disk read 4k", rate(|turn| read(turn, &mut room))?);
    say(
        "disk write 4k",
        rate(|turn| Ok(disk.write_all_at(room.of(PAGE), place(turn, pages))?))?,
    );
    let blocks = LARGE / BLOCK;
    let megabytes = BLOCK as f64 / 1e6;
    let at = |turn: usize| (turn % blocks * BLOCK) as u64;
    let reads = rate(|turn| Ok(disk.read_exact_at(room.of(BLOCK), at(turn))?))?;
    say("disk read 128k", reads * megabytes);
    let writes = rate(|turn| Ok(disk.write_all_at(room.of(BLOCK), at(turn))?))?;
    say("disk write 128k", writes * megabytes);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let mut room = Aligned::new(PAGE);
                let read = |turn: usize| -> Outcome<()> {
                    let at = place(turn * 4 + number, pages);
                    Ok(disk.read_exact_at(room.of(PAGE), at)?)
                };
                rate(read).unwrap_or(f64::NAN)
            })
        })
        .collect();
    let all = threads.into_iter().map(|thread| thread.join());
    say(
        "disk read 4k, 4 at once",
        all.map(|one| one.unwrap_or(f64::NAN)).sum(),
    );
    Ok(())
}

fn network() -> Outcome<()> {
    address()?;
    let call = |what: u8| -> Outcome<TcpStream> {
        let mut stream = TcpStream::connect((HOST, PORT))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[what])?;
        Ok(stream)
    };
    let mut stream = call(b'p')?;
    let turns = rate(|_| {
        stream.write_all(&[0])?;
        Ok(stream.read_exact(&mut [0])?)
    })?;
    drop(stream);
    say("network turns", turns);
    let mut block = vec![0; BLOCK];
    let mut stream = call(b'u')?;
    let began = Instant::now();
    let mut sent = 0.0;
    while began.elapsed() < SPAN {
        stream.write_all(&block)?;
        sent += block.len() as f64;
    }
    stream.shutdown(Shutdown::Write)?;
    // The host answers when it has all.
    stream.read_exact(&mut [0])?;
    say("network send", sent / 1e6 / began.elapsed().as_secs_f64());
    let mut stream = call(b'd')?;
    let began = Instant::now();
    let mut came = 0.0;
    loop {
        let count = stream.read(&mut block)?;
        came += count as f64;
        if count == 0 {
            break;
        }
    }
    say(
        "network receive",
        came / 1e6 / began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Gives the one interface its address.
fn address() -> Outcome<()> {
    let mut kernel = Route::open()?;
    let index = kernel.index_of("eth0")?;
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.index = index;
    address.header.prefix_len = 24;
    address.attributes = vec![
        AddressAttribute::Local(GUEST.into()),
        AddressAttribute::Address(GUEST.into()),
    ];
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    kernel.tell(RouteNetlinkMessage::NewAddress(address), flags)?;
    let mut up = LinkMessage::default();
    up.header.index = index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    kernel.tell(RouteNetlinkMessage::SetLink(up), 0)?;
    Ok(())
}

/// Lets the kernel forget names, and with 3 also what was in files.
fn forget(what: u8) -> Outcome<()> {
    Ok(std::fs::write(
        "/proc/sys/vm/drop_caches",
        what.to_string(),
    )?)
}

/// Does something for each file once; says how many in a second.
fn each(name: &str, mut work: impl FnMut(&str) -> Outcome<()>) -> Outcome<()> {
    let began = Instant::now();
    for number in 0..FILES {
        work(&format!("/mnt/root/bench/{number}"))?;
    }
    say(name, FILES as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn files() -> Outcome<()> {
    mount("virtiofs", "share", "/mnt")?;
    std::fs::create_dir("/mnt/root/bench")?;
    let page = vec![1; PAGE];
    each("files create", |path| {
        File::create_new(path)?;
        Ok(())
    })?;
    forget(2)?;
    each("files stat", |path| {
        std::fs::metadata(path)?;
        Ok(())
    })?;
    forget(2)?;
    let began = Instant::now();
    for entry in std::fs::read_dir("/mnt/root/bench")? {
        entry?.metadata()?;
    }
    say("files list", FILES as f64 / began.elapsed().as_secs_f64());
    each("files write 4k", |path| Ok(std::fs::write(path, &page)?))?;
    forget(3)?;
    each("files open, read 4k", |path| {
        let length = std::fs::read(path)?.len();
        (length == PAGE).then_some(()).ok_or("too short")?;
        Ok(())
    })?;
    each("files rename", |path| {
        Ok(std::fs::rename(path, format!("{path}-"))?)
    })?;
    each("files unlink", |path| {
        Ok(std::fs::remove_file(format!("{path}-"))?)
    })?;
    large()?;
    Ok(std::fs::remove_dir("/mnt/root/bench")?)
}

/// One large file, in pieces.
fn large() -> Outcome<()> {
    let path = "/mnt/root/bench/large";
    std::fs::write(path, vec![3; LARGE])?;
    let file = direct(path)?;
    let mut room = Aligned::new(BLOCK);
    let reads = rate(|turn| Ok(file.read_exact_at(room.of(PAGE), place(turn, LARGE / PAGE))?))?;
    say("files read 4k", reads);
    let writes = rate(|turn| Ok(file.write_all_at(room.of(PAGE), place(turn, LARGE / PAGE))?))?;
    say("files overwrite 4k", writes);
    forget(3)?;
    let mut plain = File::open(path)?;
    let began = Instant::now();
    while plain.read(room.of(BLOCK))? > 0 {}
    let took = began.elapsed().as_secs_f64();
    say("files read all", LARGE as f64 / 1e6 / took);
    Ok(std::fs::remove_file(path)?)
}
