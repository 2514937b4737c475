//! Who an image's program runs as, in numbers: images name users by the names of their own files.

use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::spec::image::ImageDefaults;
use crate::spec::user;
use crate::sys::path;

/// The longest user database that is read.
const LONGEST: usize = 1 << 20;

/// The same values with the user as `UID:GID`, where the files of the root filesystem at `rootfs` know the name; else as
/// the image has it.
pub(super) fn in_numbers(image: ImageDefaults, rootfs: &Path) -> ImageDefaults {
    let known = image.user.as_deref().and_then(|text| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(rootfs, flags, Mode::empty()).ok()?;
        let read = |name: &str| {
            let bytes = path::read_small(&root, Path::new(name), LONGEST);
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        numbers(text, &read("/etc/passwd"), &read("/etc/group"))
    });
    let user = known
        .map(|(uid, gid)| format!("{uid}:{gid}"))
        .or(image.user);
    ImageDefaults { user, ..image }
}

/// What `USER[:GROUP]` means by `passwd(5)` and `group(5)`. A number needs no entry; a group that is not given is the one
/// that the user's entry names, or 0.
fn numbers(text: &str, passwd: &str, groups: &str) -> Option<(u32, u32)> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let number = user::id(name);
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (user::id(fields.get(2)?)?, user::id(fields.get(3)?)?);
        (number == Some(uid) || (number.is_none() && fields[0] == name)).then_some((uid, gid))
    });
    let uid = number.or(entry.map(|(uid, _)| uid))?;
    let gid = match group {
        None => entry.map_or(0, |(_, gid)| gid),
        Some(group) => user::id(group).or_else(|| group_called(group, groups))?,
    };
    Some((uid, gid))
}

fn group_called(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next() == Some(name);
        user::id(fields.nth(1)?).filter(|_| matches)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken:x\nweb:x:101:33::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nstaff:x:50:web\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        for (text, found) in [
            ("web", Some((101, 33))),
            ("101", Some((101, 33))),
            ("web:staff", Some((101, 50))),
            ("web:7", Some((101, 7))),
            ("1000", Some((1000, 0))),
            ("1000:50", Some((1000, 50))),
            ("root", Some((0, 0))),
        ] {
            assert_eq!(numbers(text, PASSWD, GROUPS), found, "{text}");
        }
    }

    #[test]
    fn whoever_the_image_does_not_know_is_nobody() {
        for text in [
            "",
            ":",
            "nobody",
            "web:nobody",
            "-1",
            "4294967295",
            "broken",
            "web:",
        ] {
            assert_eq!(numbers(text, PASSWD, GROUPS), None, "{text}");
        }
    }

    #[test]
    fn the_files_of_the_root_decide_and_not_those_of_the_host() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "web:x:7:8::/:/bin/sh\n").unwrap();
        let image = |user: &str| ImageDefaults {
            user: Some(user.to_owned()),
            ..ImageDefaults::default()
        };
        assert_eq!(in_numbers(image("web"), root.path()), image("7:8"));
        assert_eq!(in_numbers(image("daemon"), root.path()), image("daemon"));
    }
}
