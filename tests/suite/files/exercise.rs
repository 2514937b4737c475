//! A program that uses files in every way that programs do, and says what it found. It runs in a directory, on the host
//! or in a guest, and must find the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::fs::XattrFlags;
use rustix::fs::inotify;
use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::MmapRegion;
use vm_memory::VolatileMemory;

/// What was found, by the name of the question.
pub(crate) type Found = BTreeMap<&'static str, String>;

/// The length of the files that are written at random.
const LENGTH: usize = 256 * 1024;
/// How often.
const ROUNDS: u32 = 1500;

type Question = (&'static str, fn(&Path) -> io::Result<String>);

/// Asks every question in an empty directory; what is made stays there.
pub(crate) fn facts(directory: &Path) -> Found {
    let questions: [Question; 17] = [
        ("owner", owner),
        ("mode", mode),
        ("attributes", attributes),
        ("trusted attributes", trusted),
        ("access list", access_list),
        ("hard links", hard_links),
        ("symbolic links", symbolic_links),
        ("sparse", sparse),
        ("sync", sync),
        ("locks", locks),
        ("inotify", watched),
        ("rename over open", renamed_over),
        ("removed while open", removed),
        ("shared mapping", mapped),
        ("without a name", nameless),
        ("append", appended),
        ("directory", listed),
    ];
    let mut found = Found::new();
    for (name, question) in questions {
        let place = directory.join(name.replace(' ', "-"));
        std::fs::create_dir(&place).unwrap();
        let answer = question(&place).unwrap_or_else(|error| format!("{error}"));
        found.insert(name, answer);
    }
    found
}

fn open(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn owner(at: &Path) -> io::Result<String> {
    std::fs::write(at.join("file"), "")?;
    std::os::unix::fs::chown(at.join("file"), Some(1234), Some(4321))?;
    std::os::unix::fs::symlink("nowhere", at.join("link"))?;
    std::os::unix::fs::lchown(at.join("link"), Some(77), Some(88))?;
    let of = |name| {
        at.join(name)
            .symlink_metadata()
            .map(|one| (one.uid(), one.gid()))
    };
    Ok(format!("{:?} {:?}", of("file")?, of("link")?))
}

fn mode(at: &Path) -> io::Result<String> {
    let file = at.join("file");
    std::fs::write(&file, "")?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o6751))?;
    let before = file.metadata()?.mode();
    std::os::unix::fs::chown(&file, Some(9), Some(9))?;
    Ok(format!("{before:o} {:o}", file.metadata()?.mode()))
}

fn attributes(at: &Path) -> io::Result<String> {
    let file = at.join("file");
    std::fs::write(&file, "")?;
    let mut said = Vec::new();
    for name in ["user.one", "security.capability"] {
        let value: &[u8] = match name {
            "security.capability" => &[1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => b"value",
        };
        let set = rustix::fs::setxattr(&file, name, value, XattrFlags::empty());
        let mut back = [0; 64];
        let got = rustix::fs::getxattr(&file, name, &mut back);
        said.push(format!("{name} {set:?} {got:?}"));
    }
    let again = rustix::fs::setxattr(&file, "user.one", b"x", XattrFlags::CREATE);
    said.push(format!("{again:?}"));
    std::fs::write(&file, "changed")?;
    let left = rustix::fs::getxattr(&file, "security.capability", &mut [0; 64]);
    said.push(format!("{left:?}"));
    Ok(said.join(", "))
}

fn trusted(at: &Path) -> io::Result<String> {
    std::fs::write(at.join("file"), "")?;
    let set = rustix::fs::setxattr(
        at.join("file"),
        "trusted.one",
        b"value",
        XattrFlags::empty(),
    );
    Ok(format!("{set:?}"))
}

fn access_list(at: &Path) -> io::Result<String> {
    let file = at.join("file");
    std::fs::write(&file, "")?;
    // Version 2: user::rw-, user 7 r--, group::r--, mask::r--, other::---.
    let mut list = vec![2, 0, 0, 0];
    for (tag, rights, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 7),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_access";
    let set = rustix::fs::setxattr(&file, name, &list, XattrFlags::empty());
    let got = rustix::fs::getxattr(&file, name, &mut [0; 64]);
    Ok(format!("{set:?} {got:?} {:o}", file.metadata()?.mode()))
}

fn hard_links(at: &Path) -> io::Result<String> {
    std::fs::write(at.join("one"), "1")?;
    std::fs::hard_link(at.join("one"), at.join("two"))?;
    std::fs::write(at.join("two"), "2")?;
    let (one, two) = (at.join("one").metadata()?, at.join("two").metadata()?);
    let text = std::fs::read_to_string(at.join("one"))?;
    Ok(format!("{} {} {text}", one.ino() == two.ino(), one.nlink()))
}

fn symbolic_links(at: &Path) -> io::Result<String> {
    std::fs::create_dir(at.join("directory"))?;
    std::fs::write(at.join("directory/file"), "text")?;
    std::os::unix::fs::symlink("directory", at.join("link"))?;
    std::os::unix::fs::symlink("loop", at.join("loop"))?;
    let through = std::fs::read_to_string(at.join("link/file"))?;
    let looped = File::open(at.join("loop")).unwrap_err().raw_os_error();
    Ok(format!(
        "{through} {looped:?} {:?}",
        at.join("link").read_link()?
    ))
}

fn sparse(at: &Path) -> io::Result<String> {
    let file = open(&at.join("file"))?;
    file.write_all_at(b"end", 64 << 20)?;
    file.write_all_at(b"begin", 0)?;
    file.sync_all()?;
    let few = file.metadata()?.blocks() < 1024;
    let hole = rustix::fs::seek(&file, SeekFrom::Hole(0)).map(|hole| hole < 1 << 20);
    let data = rustix::fs::seek(&file, SeekFrom::Data(1 << 20)).map(|data| data > 32 << 20);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punched = rustix::fs::fallocate(&file, punch, 0, 4096);
    let mut first = [1; 5];
    file.read_exact_at(&mut first, 0)?;
    Ok(format!("{few} {hole:?} {data:?} {punched:?} {first:?}"))
}

fn sync(at: &Path) -> io::Result<String> {
    let file = open(&at.join("file"))?;
    file.write_all_at(b"text", 0)?;
    file.sync_data()?;
    file.sync_all()?;
    let directory = File::open(at)?.sync_all();
    Ok(format!("{directory:?} {:?}", rustix::fs::syncfs(&file)))
}

fn locks(at: &Path) -> io::Result<String> {
    let path = at.join("file");
    let (one, other) = (open(&path)?, open(&path)?);
    rustix::fs::flock(&one, FlockOperation::LockExclusive)?;
    let held = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    drop(one);
    let free = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    let record = rustix::fs::fcntl_lock(&other, FlockOperation::NonBlockingLockExclusive);
    Ok(format!("{held:?} {free:?} {record:?}"))
}

fn watched(at: &Path) -> io::Result<String> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
    let wanted = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watch, at, wanted)?;
    std::fs::write(at.join("file"), "text")?;
    std::fs::rename(at.join("file"), at.join("other"))?;
    std::fs::remove_file(at.join("other"))?;
    let mut space = [std::mem::MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(watch.as_fd(), &mut space);
    let mut said = Vec::new();
    while let Ok(event) = events.next() {
        said.push(format!("{:?}", event.events()));
    }
    Ok(said.join(" "))
}

fn renamed_over(at: &Path) -> io::Result<String> {
    std::fs::write(at.join("old"), "old")?;
    std::fs::write(at.join("new"), "new")?;
    let (mut old, mut new) = (String::new(), String::new());
    let mut held = File::open(at.join("old"))?;
    std::fs::rename(at.join("new"), at.join("old"))?;
    held.read_to_string(&mut old)?;
    File::open(at.join("old"))?.read_to_string(&mut new)?;
    Ok(format!("{old} {new} {}", held.metadata()?.nlink()))
}

fn removed(at: &Path) -> io::Result<String> {
    let mut file = open(&at.join("file"))?;
    std::fs::remove_file(at.join("file"))?;
    file.write_all(b"still here")?;
    let mut text = [0; 10];
    file.read_exact_at(&mut text, 0)?;
    let same = text == *b"still here";
    file.set_len(5)?;
    let metadata = file.metadata()?;
    Ok(format!("{same} {} {}", metadata.len(), metadata.nlink()))
}

fn mapped(at: &Path) -> io::Result<String> {
    let file = open(&at.join("file"))?;
    file.set_len(8192)?;
    let region = map(&file, 8192).map_err(io::Error::other)?;
    let memory = region.as_volatile_slice();
    memory
        .write_slice(b"mapped", 4090)
        .map_err(io::Error::other)?;
    let mut read = [0; 6];
    file.read_exact_at(&mut read, 4090)?;
    file.write_all_at(b"WRITTEN", 100)?;
    let mut seen = [0; 7];
    memory
        .read_slice(&mut seen, 100)
        .map_err(io::Error::other)?;
    Ok(format!(
        "{:?} {:?}",
        read == *b"mapped",
        seen == *b"WRITTEN"
    ))
}

fn map(file: &File, length: usize) -> Result<MmapRegion<()>, String> {
    let place = FileOffset::new(file.try_clone().map_err(|error| error.to_string())?, 0);
    MmapRegion::from_file(place, length).map_err(|error| error.to_string())
}

fn nameless(at: &Path) -> io::Result<String> {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let file: OwnedFd = rustix::fs::open(at, flags, Mode::from(0o600))?;
    rustix::io::write(&file, b"text")?;
    Ok("made".to_owned())
}

fn appended(at: &Path) -> io::Result<String> {
    let how = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(at.join("file"))
    };
    let (mut one, mut other) = (how()?, how()?);
    for round in 0..10 {
        writeln!(one, "one {round}")?;
        writeln!(other, "other {round}")?;
    }
    let text = std::fs::read_to_string(at.join("file"))?;
    Ok(format!("{} {}", text.lines().count(), text.len()))
}

fn listed(at: &Path) -> io::Result<String> {
    for number in 0..500 {
        std::fs::write(at.join(format!("{number:04}")), "")?;
    }
    let (mut count, mut removed) = (0, 0);
    for entry in std::fs::read_dir(at)? {
        count += 1;
        // Removing what was listed does not hide what was not.
        if count % 2 == 0 {
            std::fs::remove_file(entry?.path())?;
            removed += 1;
        }
    }
    let refused = std::fs::remove_dir(at).unwrap_err().raw_os_error();
    Ok(format!(
        "{count} {removed} {} {refused:?}",
        std::fs::read_dir(at)?.count()
    ))
}

/// Numbers that are the same wherever it runs.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// One file that is written at random, and what must be in it.
struct Model {
    path: PathBuf,
    file: File,
    content: Vec<u8>,
}

/// Writes, reads, cuts, punches, maps and renames a few files at random, and compares each reading with what must be there.
pub(super) fn at_random(directory: &Path, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut models: Vec<Model> = (0..3)
        .map(|number| {
            let path = directory.join(format!("file{number}"));
            let file = open(&path).unwrap();
            let content = Vec::new();
            Model {
                path,
                file,
                content,
            }
        })
        .collect();
    for round in 0..ROUNDS {
        let which = numbers.below(models.len());
        let model = &mut models[which];
        model.step(&mut numbers, round);
    }
    for model in &models {
        assert_eq!(std::fs::read(&model.path).unwrap(), model.content);
    }
}

impl Model {
    fn step(&mut self, numbers: &mut Numbers, round: u32) {
        let at = numbers.below(LENGTH);
        let length = 1 + numbers.below(20_000.min(LENGTH - at));
        match numbers.below(8) {
            0..=2 => self.write(at, length, round),
            3 => self.map_write(at, length, round),
            4 => self.cut(at),
            5 => self.punch(at, length),
            6 => self.rename(round),
            _ => {}
        }
        let mut read = vec![0; length];
        let got = self.file.read_at(&mut read, at as u64).unwrap();
        let end = self.content.len().min(at + length);
        let expected = self.content.get(at..end).unwrap_or_default();
        assert_eq!(&read[..got], expected, "round {round}: {at} {length}");
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[at..end].copy_from_slice(data);
    }

    fn write(&mut self, at: usize, length: usize, round: u32) {
        let data: Vec<u8> = (0..length)
            .map(|byte| byte.to_le_bytes()[0] ^ round.to_le_bytes()[0])
            .collect();
        self.file.write_all_at(&data, at as u64).unwrap();
        self.put(at, &data);
    }

    fn map_write(&mut self, at: usize, length: usize, round: u32) {
        let end = self.content.len().min(at + length);
        if end <= at {
            return;
        }
        let data: Vec<u8> = (at..end)
            .map(|byte| byte.to_le_bytes()[0] ^ round.to_le_bytes()[0] ^ 0x55)
            .collect();
        let region = map(&self.file, self.content.len()).unwrap();
        region.as_volatile_slice().write_slice(&data, at).unwrap();
        self.put(at, &data);
    }

    fn cut(&mut self, at: usize) {
        self.file.set_len(at as u64).unwrap();
        self.content.resize(at, 0);
    }

    fn punch(&mut self, at: usize, length: usize) {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, how, at as u64, length as u64).unwrap();
        let end = self.content.len().min(at + length);
        if let Some(hole) = self.content.get_mut(at..end) {
            hole.fill(0);
        }
    }

    /// A new name, and a new descriptor by it: a cache must not be lost, and not be believed.
    fn rename(&mut self, round: u32) {
        let name = self.path.with_extension(round.to_string());
        std::fs::rename(&self.path, &name).unwrap();
        self.file = open(&name).unwrap();
        self.path = name;
    }
}
