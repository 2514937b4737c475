//! Refuses names that are more than one name, before they reach the kernel of the host.
//!
//! A guest's kernel sends single components of paths. One that has been taken over may send `../../etc`, and the calls
//! below, `mkdirat(2)` and its like, would go there: no further than the room, but out of the directory that was named.
//! The names are looked at here, in the server's own copy, where the guest can no longer change them.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use virtiofsd::filesystem::Context;
use virtiofsd::filesystem::Entry;
use virtiofsd::filesystem::Extensions;
use virtiofsd::filesystem::FileSystem;
use virtiofsd::filesystem::GetxattrReply;
use virtiofsd::filesystem::ListxattrReply;
use virtiofsd::filesystem::OpenOptions;
use virtiofsd::filesystem::SetattrValid;
use virtiofsd::filesystem::SetxattrFlags;
use virtiofsd::filesystem::ZeroCopyReader;
use virtiofsd::filesystem::ZeroCopyWriter;
use virtiofsd::fuse::ATTR_SUBMOUNT;
use virtiofsd::fuse::Attr;
use virtiofsd::fuse::FsOptions;
use virtiofsd::fuse::ROOT_ID;
use virtiofsd::fuse::SetattrIn;
use virtiofsd::passthrough::PassthroughFs;

use crate::plan::share;

type Inode = <PassthroughFs as FileSystem>::Inode;
type Handle = <PassthroughFs as FileSystem>::Handle;
type Opened = (Option<Handle>, OpenOptions);

/// The files, by single names.
pub(super) struct Named(pub(super) PassthroughFs);

/// Whether a name is one component of a path that can be made, removed or renamed.
fn single(name: &CStr) -> io::Result<()> {
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}

/// Requests that hold names: each is checked, then passed on.
macro_rules! checked {
    ($(fn $call:ident[$($name:ident),+]($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(
            fn $call(&self, context: Context, $($argument: $kind),*) -> io::Result<$answer> {
                $(single($name)?;)+
                self.0.$call(context, $($argument),*)
            }
        )*
    };
}

/// Requests about files that were found by their names before.
macro_rules! passed {
    ($(fn $call:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(
            fn $call(&self, context: Context, $($argument: $kind),*) -> io::Result<$answer> {
                self.0.$call(context, $($argument),*)
            }
        )*
    };
}

impl FileSystem for Named {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = <PassthroughFs as FileSystem>::DirIter;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.0.init(capable)
    }

    fn destroy(&self) {
        self.0.destroy();
    }

    /// The guest's kernel makes a mount of its own of each share, so that the numbers of files in two of them are not
    /// mixed up; but not of the root, because it keeps access lists only in what it was told to mount.
    fn lookup(&self, context: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        single(name)?;
        let mut entry = self.0.lookup(context, parent, name)?;
        if parent == ROOT_ID && name.to_bytes() == share::ROOT.as_bytes() {
            entry.attr.flags &= !ATTR_SUBMOUNT;
        }
        Ok(entry)
    }

    checked! {
        fn symlink[name](
            target: &CStr, parent: Inode, name: &CStr, extensions: Extensions
        ) -> Entry;
        fn mknod[name](
            parent: Inode, name: &CStr, mode: u32, device: u32, umask: u32, extensions: Extensions
        ) -> Entry;
        fn mkdir[name](
            parent: Inode, name: &CStr, mode: u32, umask: u32, extensions: Extensions
        ) -> Entry;
        fn unlink[name](parent: Inode, name: &CStr) -> ();
        fn rmdir[name](parent: Inode, name: &CStr) -> ();
        fn rename[name, new_name](
            parent: Inode, name: &CStr, new_parent: Inode, new_name: &CStr, flags: u32
        ) -> ();
        fn link[name](inode: Inode, parent: Inode, name: &CStr) -> Entry;
        fn create[name](
            parent: Inode, name: &CStr, mode: u32, lower: bool, flags: u32, umask: u32,
            extensions: Extensions
        ) -> (Entry, Option<Handle>, OpenOptions);
    }

    passed! {
        fn getattr(inode: Inode, handle: Option<Handle>) -> (Attr, Duration);
        fn setattr(
            inode: Inode, attributes: SetattrIn, handle: Option<Handle>, valid: SetattrValid
        ) -> (Attr, Duration);
        fn readlink(inode: Inode) -> Vec<u8>;
        fn open(inode: Inode, lower: bool, flags: u32) -> Opened;
        fn flush(inode: Inode, handle: Handle, owner: u64) -> ();
        fn fsync(inode: Inode, data: bool, handle: Handle) -> ();
        fn fallocate(inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64) -> ();
        fn release(
            inode: Inode, flags: u32, handle: Handle, flush: bool, unlock: bool, owner: Option<u64>
        ) -> ();
        fn statfs(inode: Inode) -> libc::statvfs64;
        fn setxattr(
            inode: Inode, name: &CStr, value: &[u8], flags: u32, extra: SetxattrFlags
        ) -> ();
        fn getxattr(inode: Inode, name: &CStr, size: u32) -> GetxattrReply;
        fn listxattr(inode: Inode, size: u32) -> ListxattrReply;
        fn removexattr(inode: Inode, name: &CStr) -> ();
        fn opendir(inode: Inode, flags: u32) -> Opened;
        fn readdir(inode: Inode, handle: Handle, size: u32, offset: u64) -> Self::DirIter;
        fn fsyncdir(inode: Inode, data: bool, handle: Handle) -> ();
        fn releasedir(inode: Inode, flags: u32, handle: Handle) -> ();
        fn access(inode: Inode, mask: u32) -> ();
        fn lseek(inode: Inode, handle: Handle, offset: u64, whence: u32) -> u64;
        fn copyfilerange(
            from: Inode, from_handle: Handle, from_offset: u64, to: Inode, to_handle: Handle,
            to_offset: u64, length: u64, flags: u64
        ) -> usize;
        fn syncfs(inode: Inode) -> ();
    }

    fn forget(&self, context: Context, inode: Inode, count: u64) {
        self.0.forget(context, inode, count);
    }

    fn batch_forget(&self, context: Context, requests: Vec<(Inode, u64)>) {
        self.0.batch_forget(context, requests);
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        to: W,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.0
            .read(context, inode, handle, to, size, offset, owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        from: R,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        delayed: bool,
        lower: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let files = &self.0;
        files.write(
            context, inode, handle, from, size, offset, owner, delayed, lower, flags,
        )
    }
}
