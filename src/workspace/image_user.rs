//! Who an image's program runs as, in numbers: images name users by the names of their own files.

use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::plan::accounts;
use crate::spec::image::ImageDefaults;
use crate::sys::path;

/// The longest user database that is read.
const LONGEST: usize = 1 << 20;

/// The same values with the user as `UID:GID`, where the files of the root filesystem at `rootfs` know the name; else as
/// the image has it.
pub(super) fn in_numbers(image: ImageDefaults, rootfs: &Path) -> ImageDefaults {
    let known = image.user.as_deref().and_then(|text| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // host path: the root itself, which was unpacked by us or named by the caller.
        let root = rustix::fs::open(rootfs, flags, Mode::empty()).ok()?;
        let read =
            |name: &str| path::read_small(&root, Path::new(name), LONGEST).unwrap_or_default();
        accounts::numbers(text, &read("/etc/passwd"), &read("/etc/group"))
    });
    let user = known
        .map(|(uid, gid)| format!("{uid}:{gid}"))
        .or(image.user);
    ImageDefaults { user, ..image }
}

#[cfg(test)]
mod tests {
    use super::*;

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
