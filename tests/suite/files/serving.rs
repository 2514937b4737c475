//! What a guest does to its files is done to the directory, and the other way round.

use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use super::client::ROOT;
use super::place::Place;
use super::place::Served;
use super::place::tree;
use super::place::with;
use crate::need;
use bulkhead::plan::share::Share;
use bulkhead::plan::share::Source;
use bulkhead::plan::step::Idmap;
use bulkhead::plan::step::Overlay;

/// The directory that is served, as the guest knows it.
fn root(served: &mut Served) -> u64 {
    served.client.lookup(ROOT, b"root").unwrap().id
}

#[test]
fn the_room_holds_the_shares_and_nothing_else() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve(&[place.share(), tree("1", &place.beside("secret"))]);
    let names = vec!["1".to_owned(), "root".to_owned()];
    assert_eq!(served.client.list(ROOT), Ok(names));
    assert_eq!(served.client.mkdir(ROOT, b"new"), Err(libc::EROFS));
}

#[test]
fn what_a_guest_writes_is_in_the_directory_when_it_is_answered() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let (file, handle) = client.create(root, b"file", 0o640).unwrap();
    assert_eq!(client.write((file.id, handle), 0, b"hello", 0), Ok(5));
    let metadata = place.shared("file").metadata().unwrap();
    assert_eq!(std::fs::read(place.shared("file")).unwrap(), b"hello");
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert_eq!(metadata.ino(), file.inode);
}

#[test]
fn what_the_host_writes_is_read_by_the_guest_and_may_be_believed_for_a_second() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.shared("file"), "before").unwrap();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let file = client.lookup(root, b"file").unwrap();
    let handle = client.open(file.id, libc::O_RDONLY).unwrap();
    std::fs::write(place.shared("file"), "and after").unwrap();
    assert_eq!(client.read(file.id, handle, 0, 64).unwrap(), b"and after");
    assert_eq!((client.getattr(file.id).unwrap().size, file.valid), (9, 1));
}

#[test]
fn names_move_and_links_count_as_on_the_host() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let directory = client.mkdir(root, b"directory").unwrap().id;
    let (file, handle) = client.create(root, b"file", 0o644).unwrap();
    client.write((file.id, handle), 0, b"content", 0).unwrap();
    assert_eq!(client.link(file.id, directory, b"second").unwrap().links, 2);
    client
        .rename((root, b"file"), (directory, b"third"))
        .unwrap();
    client.symlink(root, b"link", b"directory/third").unwrap();
    client.unlink(directory, b"second").unwrap();
    assert_eq!(std::fs::read(place.shared("link")).unwrap(), b"content");
    assert_eq!(
        place.shared("directory/third").metadata().unwrap().nlink(),
        1
    );
    let link = client.lookup(root, b"link").unwrap().id;
    assert_eq!(client.readlink(link).unwrap(), b"directory/third");
    assert_eq!(client.rmdir(root, b"directory"), Err(libc::ENOTEMPTY));
    let names = vec!["directory".to_owned(), "link".to_owned()];
    assert_eq!(client.list(root), Ok(names));
}

#[test]
fn a_file_that_is_renamed_over_or_removed_stays_for_those_who_have_it_open() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let (old, old_handle) = client.create(root, b"old", 0o644).unwrap();
    client.write((old.id, old_handle), 0, b"old", 0).unwrap();
    let (new, new_handle) = client.create(root, b"new", 0o644).unwrap();
    client.write((new.id, new_handle), 0, b"new", 0).unwrap();
    client.rename((root, b"new"), (root, b"old")).unwrap();
    client.unlink(root, b"old").unwrap();
    assert_eq!(client.read(old.id, old_handle, 0, 64).unwrap(), b"old");
    assert_eq!(client.read(new.id, new_handle, 0, 64).unwrap(), b"new");
    assert_eq!(client.getattr(new.id).unwrap().links, 0);
    client.release(new.id, new_handle).unwrap();
}

#[test]
fn files_belong_to_the_user_who_makes_them() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    client.setattr(root, 1, 0o1777).unwrap();
    (client.uid, client.gid) = (1234, 4321);
    let (file, _) = client.create(root, b"file", 0o600).unwrap();
    client.mkdir(root, b"directory").unwrap();
    let owner = |name: &str| {
        let metadata = place.shared(name).metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!([owner("file"), owner("directory")], [(1234, 4321); 2]);
    (client.uid, client.gid) = (0, 0);
    client.setattr(file.id, 2, 99).unwrap();
    assert_eq!(owner("file"), (99, 4321));
}

#[test]
fn attributes_of_users_and_access_lists_are_kept() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let (file, _) = client.create(root, b"file", 0o600).unwrap();
    client.setxattr(file.id, b"user.colour", b"blue").unwrap();
    assert_eq!(client.getxattr(file.id, b"user.colour").unwrap(), b"blue");
    let listed = rustix::fs::getxattr(place.shared("file"), "user.colour", &mut [0; 16]);
    assert_eq!(listed, Ok(4));
    let none = client.getxattr(file.id, b"system.posix_acl_access");
    assert_eq!(none, Err(libc::ENODATA));
}

#[test]
fn a_sparse_file_stays_sparse() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let (file, handle) = client.create(root, b"sparse", 0o600).unwrap();
    client.write((file.id, handle), 1 << 30, b"end", 0).unwrap();
    let metadata = place.shared("sparse").metadata().unwrap();
    assert_eq!(metadata.size(), (1 << 30) + 3);
    assert!(metadata.blocks() < 1024);
    let zeros = client.read(file.id, handle, 1 << 20, 4096).unwrap();
    assert_eq!(zeros, [0; 4096]);
}

#[test]
fn pipes_sockets_and_devices_are_made_but_never_opened_by_the_server() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let pipe = client
        .mknod(root, b"pipe", libc::S_IFIFO | 0o600, 0)
        .unwrap();
    let null = client
        .mknod(root, b"null", libc::S_IFCHR | 0o600, 0x103)
        .unwrap();
    let kind = place.shared("null").metadata().unwrap();
    assert!(kind.file_type().is_char_device());
    assert_eq!(client.open(pipe.id, libc::O_RDWR), Err(libc::EBADF));
    assert_eq!(client.open(null.id, libc::O_RDWR), Err(libc::EBADF));
    client.setxattr(pipe.id, b"trusted.no", b"1").unwrap_err();
}

#[test]
fn writing_takes_the_right_of_another_user_away_where_the_kernel_would() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.shared("tool"), "code").unwrap();
    let mode = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(place.shared("tool"), mode).unwrap();
    let mut served = place.serve_root();
    let root = root(&mut served);
    let client = &mut served.client;
    let tool = client.lookup(root, b"tool").unwrap();
    let handle = client.open(tool.id, libc::O_RDWR).unwrap();
    client.write((tool.id, handle), 0, b"c", 0).unwrap();
    assert_eq!(client.getattr(tool.id).unwrap().mode & 0o7777, 0o4755);
    client.write((tool.id, handle), 0, b"c", 4).unwrap();
    assert_eq!(client.getattr(tool.id).unwrap().mode & 0o7777, 0o755);
}

#[test]
fn a_single_file_is_a_share() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.beside("one"), "1").unwrap();
    let mut served = place.serve(&[place.share(), tree("7", &place.beside("one"))]);
    let client = &mut served.client;
    let file = client.lookup(ROOT, b"7").unwrap();
    let handle = client.open(file.id, libc::O_RDWR).unwrap();
    client.write((file.id, handle), 0, b"2", 0).unwrap();
    assert_eq!(std::fs::read(place.beside("one")).unwrap(), b"2");
    assert_eq!(client.unlink(ROOT, b"7"), Err(libc::EROFS));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a directory of the test's own")]
fn mounts_below_a_share_are_served_when_asked_for() {
    need!(root);
    let place = Place::new();
    std::fs::create_dir(place.shared("inner")).unwrap();
    rustix::mount::mount(
        "inner",
        place.shared("inner"),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    std::fs::write(place.shared("inner/file"), "below").unwrap();
    let flat = with("1", &place.shared(""), |bind| bind.recursive = false);
    let mut served = place.serve(&[place.share(), flat]);
    rustix::mount::unmount(place.shared("inner"), rustix::mount::UnmountFlags::DETACH).unwrap();
    let client = &mut served.client;
    assert_eq!(client.walk("root/inner/file").map(|node| node.size), Ok(5));
    assert_eq!(client.walk("1/inner/file"), Err(libc::ENOENT));
}

#[test]
fn owners_are_shown_through_the_mapping_of_a_share() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.shared("theirs"), "").unwrap();
    std::os::unix::fs::chown(place.shared("theirs"), Some(100_007), Some(100_008)).unwrap();
    let mapped = with("root", &place.shared(""), |bind| {
        bind.idmap = Some(Idmap {
            users: "100000 0 65536\n".to_owned(),
            groups: "100000 0 65536\n".to_owned(),
            recursive: true,
        });
    });
    let mut served = place.serve(&[mapped]);
    let client = &mut served.client;
    let theirs = client.walk("root/theirs").unwrap();
    assert_eq!((theirs.uid, theirs.gid), (7, 8));
    let root = client.lookup(ROOT, b"root").unwrap().id;
    client.mkdir(root, b"made").unwrap_err();
}

#[test]
fn a_layer_takes_what_is_written_and_the_shared_directory_nothing() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.shared("file"), "below").unwrap();
    for name in ["upper", "work"] {
        std::fs::create_dir(place.beside(name)).unwrap();
    }
    let layers = Source::Layers(Box::new(Overlay {
        lower: place.shared(""),
        upper: place.beside("upper"),
        work: place.beside("work"),
        ..Overlay::default()
    }));
    let mut served = place.serve(&[Share {
        name: "root".to_owned(),
        source: layers,
    }]);
    let client = &mut served.client;
    let file = client.walk("root/file").unwrap();
    let handle = client.open(file.id, libc::O_RDWR).unwrap();
    client.write((file.id, handle), 0, b"above", 0).unwrap();
    assert_eq!(std::fs::read(place.shared("file")).unwrap(), b"below");
    assert_eq!(std::fs::read(place.beside("upper/file")).unwrap(), b"above");
}

#[test]
fn a_driver_that_lets_go_and_comes_back_finds_its_files() {
    need!(root);
    let place = Place::new();
    std::fs::write(place.shared("file"), "content").unwrap();
    let mut served = place.serve_root();
    let before = served.client.walk("root/file").unwrap();
    served.client.driver.reset();
    served.client.driver.set_up();
    assert_eq!(served.client.driver.status(), 15);
    served.client.mount();
    let after = served.client.walk("root/file").unwrap();
    assert_eq!(before.inode, after.inode);
    let handle = served.client.open(after.id, libc::O_RDONLY).unwrap();
    let read = served.client.read(after.id, handle, 0, 64);
    assert_eq!(read.unwrap(), b"content");
}

#[test]
fn what_is_far_into_a_large_file_is_found_there() {
    need!(root);
    let place = Place::new();
    let far = std::fs::File::create(place.shared("large")).unwrap();
    far.write_all_at(b"far", 5 << 32).unwrap();
    let mut served = place.serve_root();
    let client = &mut served.client;
    let large = client.walk("root/large").unwrap();
    let handle = client.open(large.id, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(large.id, handle, 5 << 32, 8).unwrap(), b"far");
}
