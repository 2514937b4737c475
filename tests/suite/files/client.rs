//! The words of a guest's kernel to a file server (FUSE 7.38), as far as the tests need them.

use super::driver::Driver;

/// The root of what is served.
pub(super) const ROOT: u64 = 1;
/// What a guest's kernel offers here: submounts, access control lists, and the server's care for set-user-id bits.
const OFFERED: u32 = 1 << 27 | 1 << 20 | 1 << 6 | 1 << 29 | 1 << 28 | 1 << 30 | 1 << 13 | 1 << 14;
/// The length of the header of a request, and of an answer.
const HEADER: usize = 40;
const ANSWERED: usize = 16;
/// The largest answer that is looked at here.
const ROOM: usize = 1 << 17;

/// Requests by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Ask {
    Lookup = 1,
    Getattr = 3,
    Setattr = 4,
    Readlink = 5,
    Symlink = 6,
    Mknod = 8,
    Mkdir = 9,
    Unlink = 10,
    Rmdir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Release = 18,
    Setxattr = 21,
    Getxattr = 22,
    Removexattr = 24,
    Init = 26,
    Opendir = 27,
    Readdir = 28,
    Create = 35,
    Fallocate = 43,
    Rename2 = 45,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// Its number in further requests.
    pub(super) id: u64,
    /// Its number on the host.
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// How long it may be believed, in seconds.
    pub(super) valid: u64,
}

/// An answer, or the number of an error.
pub(super) type Answer<T> = Result<T, i32>;

/// A guest's kernel that has mounted what is served.
pub(super) struct Client {
    pub(super) driver: Driver,
    /// Whose requests they are.
    pub(super) uid: u32,
    pub(super) gid: u32,
    unique: u64,
    /// What the server agreed to at first.
    pub(super) agreed: u32,
}

/// Bytes of numbers, one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(pub(super) Vec<u8>);

impl Words {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn name(self, name: &[u8]) -> Self {
        self.bytes(name).bytes(&[0])
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The attributes that begin at `at`.
fn node(bytes: &[u8], id: u64, at: usize, valid: u64) -> Node {
    Node {
        id,
        inode: u64_at(bytes, at),
        size: u64_at(bytes, at + 8),
        mode: u32_at(bytes, at + 60),
        links: u32_at(bytes, at + 64),
        uid: u32_at(bytes, at + 68),
        gid: u32_at(bytes, at + 72),
        valid,
    }
}

fn entry(bytes: &[u8]) -> Node {
    node(bytes, u64_at(bytes, 0), 40, u64_at(bytes, 16))
}

impl Client {
    /// Mounts what is served.
    pub(super) fn new(driver: Driver) -> Self {
        let mut client = Self {
            driver,
            uid: 0,
            gid: 0,
            unique: 0,
            agreed: 0,
        };
        client.mount();
        client
    }

    /// The first request of a mount.
    pub(super) fn mount(&mut self) {
        let mut body = Words::default().u32(7).u32(38).u32(1 << 20).u32(OFFERED);
        for _ in 0..12 {
            body = body.u32(0);
        }
        let answer = self.ask(Ask::Init, 0, body).unwrap();
        assert_eq!(u32_at(&answer, 0), 7);
        self.agreed = u32_at(&answer, 12);
    }

    /// A request with its header.
    pub(super) fn request(&mut self, opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        self.unique += 2;
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let header = Words::default().u32(length).u32(opcode).u64(self.unique);
        let header = header.u64(node).u32(self.uid).u32(self.gid).u32(7).u32(0);
        header.bytes(body).0
    }

    /// Asks, and gives what follows the header of the answer.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "words are put together for one request"
    )]
    pub(super) fn ask(&mut self, ask: Ask, node: u64, body: Words) -> Answer<Vec<u8>> {
        let request = self.request(ask as u32, node, &body.0);
        let answer = self.driver.ask(1, &request, ROOM);
        self.understand(&answer)
    }

    /// What an answer says, if it is one to the last request.
    pub(super) fn understand(&self, answer: &[u8]) -> Answer<Vec<u8>> {
        assert!(answer.len() >= ANSWERED, "no answer: {answer:?}");
        assert_eq!(u64_at(answer, 8), self.unique);
        assert_eq!(u32_at(answer, 0) as usize, answer.len());
        match i32::from_le_bytes(answer[4..8].try_into().unwrap()) {
            0 => Ok(answer[ANSWERED..].to_vec()),
            error => Err(-error),
        }
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &[u8]) -> Answer<Node> {
        let body = Words::default().name(name);
        Ok(entry(&self.ask(Ask::Lookup, parent, body)?))
    }

    /// Looks a path up, name by name.
    pub(super) fn walk(&mut self, path: &str) -> Answer<Node> {
        let mut found = self.getattr(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            found = self.lookup(found.id, name.as_bytes())?;
        }
        Ok(found)
    }

    pub(super) fn getattr(&mut self, id: u64) -> Answer<Node> {
        let body = Words::default().u32(0).u32(0).u64(0);
        let answer = self.ask(Ask::Getattr, id, body)?;
        Ok(node(&answer, id, 16, u64_at(&answer, 0)))
    }

    /// Sets what `valid` says: the mode (1), the owner (2), the group (4), or the size (8).
    pub(super) fn setattr(&mut self, id: u64, valid: u32, value: u32) -> Answer<Node> {
        let size = if valid == 8 { u64::from(value) } else { 0 };
        let body = Words::default().u32(valid).u32(0).u64(0).u64(size);
        let body = body.u64(0).u64(0).u64(0).u64(0);
        let body = body.u32(0).u32(0).u32(0).u32(value).u32(0).u32(value);
        let answer = self.ask(Ask::Setattr, id, body.u32(value).u32(0))?;
        Ok(node(&answer, id, 16, u64_at(&answer, 0)))
    }

    pub(super) fn mkdir(&mut self, parent: u64, name: &[u8]) -> Answer<Node> {
        let body = Words::default().u32(0o755).u32(0).name(name);
        Ok(entry(&self.ask(Ask::Mkdir, parent, body)?))
    }

    pub(super) fn mknod(
        &mut self,
        parent: u64,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Answer<Node> {
        let body = Words::default().u32(mode).u32(device).u32(0).u32(0);
        Ok(entry(&self.ask(Ask::Mknod, parent, body.name(name))?))
    }

    pub(super) fn symlink(&mut self, parent: u64, name: &[u8], target: &[u8]) -> Answer<Node> {
        let body = Words::default().name(name).name(target);
        Ok(entry(&self.ask(Ask::Symlink, parent, body)?))
    }

    pub(super) fn readlink(&mut self, id: u64) -> Answer<Vec<u8>> {
        self.ask(Ask::Readlink, id, Words::default())
    }

    pub(super) fn link(&mut self, id: u64, parent: u64, name: &[u8]) -> Answer<Node> {
        let body = Words::default().u64(id).name(name);
        Ok(entry(&self.ask(Ask::Link, parent, body)?))
    }

    pub(super) fn unlink(&mut self, parent: u64, name: &[u8]) -> Answer<()> {
        let body = Words::default().name(name);
        self.ask(Ask::Unlink, parent, body).map(drop)
    }

    pub(super) fn rmdir(&mut self, parent: u64, name: &[u8]) -> Answer<()> {
        let body = Words::default().name(name);
        self.ask(Ask::Rmdir, parent, body).map(drop)
    }

    pub(super) fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) -> Answer<()> {
        let body = Words::default().u64(to.0).name(from.1).name(to.1);
        self.ask(Ask::Rename, from.0, body).map(drop)
    }

    /// Makes a file and opens it for reading and writing; gives it and the handle.
    pub(super) fn create(&mut self, parent: u64, name: &[u8], mode: u32) -> Answer<(Node, u64)> {
        let flags = u32::try_from(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).unwrap();
        let body = Words::default()
            .u32(flags)
            .u32(mode)
            .u32(0)
            .u32(0)
            .name(name);
        let answer = self.ask(Ask::Create, parent, body)?;
        Ok((entry(&answer), u64_at(&answer, 128)))
    }

    pub(super) fn open(&mut self, id: u64, flags: i32) -> Answer<u64> {
        let body = Words::default().u32(u32::try_from(flags).unwrap()).u32(0);
        Ok(u64_at(&self.ask(Ask::Open, id, body)?, 0))
    }

    pub(super) fn opendir(&mut self, id: u64) -> Answer<u64> {
        let body = Words::default().u32(0).u32(0);
        Ok(u64_at(&self.ask(Ask::Opendir, id, body)?, 0))
    }

    pub(super) fn release(&mut self, id: u64, handle: u64) -> Answer<()> {
        let body = Words::default().u64(handle).u32(0).u32(0).u64(0);
        self.ask(Ask::Release, id, body).map(drop)
    }

    pub(super) fn read(&mut self, id: u64, handle: u64, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let body = Words::default().u64(handle).u64(offset).u32(size).u32(0);
        let body = body.u64(0).u32(0).u32(0);
        let request = self.request(Ask::Read as u32, id, &body.0);
        let room = ANSWERED + usize::try_from(size).unwrap();
        let answer = self.driver.ask(1, &request, room);
        self.understand(&answer)
    }

    /// Writes; with `flags` 4 the server takes set-user-id bits away (`FUSE_WRITE_KILL_SUIDGID`).
    pub(super) fn write(
        &mut self,
        (id, handle): (u64, u64),
        offset: u64,
        data: &[u8],
        flags: u32,
    ) -> Answer<u32> {
        let length = u32::try_from(data.len()).unwrap();
        let body = Words::default()
            .u64(handle)
            .u64(offset)
            .u32(length)
            .u32(flags);
        let body = body.u64(0).u32(0).u32(0).bytes(data);
        Ok(u32_at(&self.ask(Ask::Write, id, body)?, 0))
    }

    pub(super) fn setxattr(&mut self, id: u64, name: &[u8], value: &[u8]) -> Answer<()> {
        let length = u32::try_from(value.len()).unwrap();
        let body = Words::default().u32(length).u32(0).u32(0).u32(0);
        let body = body.name(name).bytes(value);
        self.ask(Ask::Setxattr, id, body).map(drop)
    }

    pub(super) fn getxattr(&mut self, id: u64, name: &[u8]) -> Answer<Vec<u8>> {
        let body = Words::default().u32(256).u32(0).name(name);
        self.ask(Ask::Getxattr, id, body)
    }

    /// The names in a directory, in their order.
    pub(super) fn list(&mut self, id: u64) -> Answer<Vec<String>> {
        let handle = self.opendir(id)?;
        let body = Words::default().u64(handle).u64(0).u32(65536).u32(0);
        let answer = self.ask(Ask::Readdir, id, body.u64(0).u32(0).u32(0))?;
        let mut names = Vec::new();
        let mut at = 0;
        while at + 24 <= answer.len() {
            let length = u32_at(&answer, at + 16) as usize;
            let name = &answer[at + 24..at + 24 + length];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            at += (24 + length).next_multiple_of(8);
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }
}
