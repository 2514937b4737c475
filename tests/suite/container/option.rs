//! Mount options: each word that the specification lists does what it says, as `/proc/self/mountinfo` shows it.

use serde_json::json;

use super::add;
use super::at;
use super::elsewhere;
use super::inside;
use super::mounted;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// Words that are seen on the mount, and the one that they are seen as.
const ON_THE_MOUNT: [(&[&str], &str, bool); 20] = [
    (&["ro"], "ro", true),
    (&["ro", "rw"], "ro", false),
    (&["nosuid"], "nosuid", true),
    (&["nosuid", "suid"], "nosuid", false),
    (&["nodev"], "nodev", true),
    (&["nodev", "dev"], "nodev", false),
    (&["noexec"], "noexec", true),
    (&["noexec", "exec"], "noexec", false),
    (&["noatime"], "noatime", true),
    (&["noatime", "atime"], "noatime", false),
    (&["relatime"], "relatime", true),
    (&["strictatime"], "relatime", false),
    (&["strictatime", "nostrictatime"], "relatime", true),
    (&["nodiratime"], "nodiratime", true),
    (&["nodiratime", "diratime"], "nodiratime", false),
    (&["nosymfollow"], "nosymfollow", true),
    (&["nosymfollow", "symfollow"], "nosymfollow", false),
    (&["noexec", "defaults"], "noexec", true),
    (&["noatime", "relatime"], "noatime", false),
    (&["norelatime"], "ro", false),
];

/// Words that are seen on the file system.
const ON_THE_SYSTEM: [(&[&str], &str, bool); 6] = [
    (&["sync"], "sync", true),
    (&["sync", "async"], "sync", false),
    (&["dirsync"], "dirsync", true),
    (&["lazytime"], "lazytime", true),
    (&["lazytime", "nolazytime"], "lazytime", false),
    (&["size=1m"], "size=1024k", true),
];

/// Recursive words, on a tree whose mounts have nothing of the kind.
const BELOW: [(&str, &str, bool); 8] = [
    ("rro", "ro", true),
    ("rnosuid", "nosuid", true),
    ("rnodev", "nodev", true),
    ("rnoexec", "noexec", true),
    ("rnoatime", "noatime", true),
    ("rstrictatime", "relatime", false),
    ("rnodiratime", "nodiratime", true),
    ("rnosymfollow", "nosymfollow", true),
];

/// Recursive words that take back, on a tree that has it all.
const TAKEN_BACK: [(&str, &str, bool); 9] = [
    ("rrw", "ro", false),
    ("rsuid", "nosuid", false),
    ("rdev", "nodev", false),
    ("rexec", "noexec", false),
    ("ratime", "noatime", false),
    ("rrelatime", "relatime", true),
    ("rdiratime", "nodiratime", false),
    ("rsymfollow", "nosymfollow", false),
    ("rnostrictatime", "noatime", false),
];

#[test]
fn every_word_for_a_mount_is_seen_inside() {
    need!(root, cgroup2);
    let text = inside("grep ' /m/' /proc/self/mountinfo", |config| {
        for (index, (words, ..)) in ON_THE_MOUNT.iter().enumerate() {
            let place = format!("/m/{index}");
            add(
                config,
                "/mounts",
                json!({"destination": place, "type": "tmpfs", "source": "t", "options": words}),
            );
        }
    });
    let mounts = mounted(&text);
    for (index, (words, seen_as, there)) in ON_THE_MOUNT.iter().enumerate() {
        let mount = at(&mounts, &format!("/m/{index}"));
        let seen = mount.options.iter().any(|option| option == seen_as);
        assert_eq!(seen, *there, "{words:?}: {mount:?}");
    }
}

#[test]
fn every_word_for_a_file_system_is_seen_inside() {
    need!(root, cgroup2);
    let text = inside("grep ' /m/' /proc/self/mountinfo", |config| {
        for (index, (words, ..)) in ON_THE_SYSTEM.iter().enumerate() {
            let place = format!("/m/{index}");
            add(
                config,
                "/mounts",
                json!({"destination": place, "type": "tmpfs", "source": "t", "options": words}),
            );
        }
    });
    let mounts = mounted(&text);
    for (index, (words, seen_as, there)) in ON_THE_SYSTEM.iter().enumerate() {
        let mount = at(&mounts, &format!("/m/{index}"));
        let seen = mount.system.iter().any(|option| option == seen_as);
        assert_eq!(seen, *there, "{words:?}: {mount:?}");
    }
}

#[test]
fn words_without_effect_on_todays_kernels_are_taken() {
    need!(root, cgroup2);
    let words = [
        "mand",
        "nomand",
        "iversion",
        "noiversion",
        "loud",
        "silent",
        "acl",
        "noacl",
        "defaults",
        "norelatime",
    ];
    let text = inside("grep -c ' /m/' /proc/self/mountinfo", |config| {
        for word in words {
            let place = format!("/m/{word}");
            add(
                config,
                "/mounts",
                json!({"destination": place, "type": "tmpfs", "source": "t", "options": [word]}),
            );
        }
    });
    assert_eq!(text, words.len().to_string());
}

/// Binds a tree with a mount below it once for each word, and gives what is seen of the lower mount.
fn below(setup: &str, words: &[(&str, &str, bool)]) {
    let home = Home::new();
    let bundle = Bundle::shell("grep ' /m/' /proc/self/mountinfo").with(|config| {
        for (word, ..) in words {
            add(
                config,
                "/mounts",
                json!({"destination": format!("/m/{word}"), "source": "tree", "options": ["rbind", word]}),
            );
        }
    });
    let mut command = elsewhere(&home, &format!("{setup}\nexec $RUN run -b $BUNDLE $ID"));
    command.env("BUNDLE", bundle.path()).env("ID", home.id());
    let said: crate::support::home::Said = command.output().unwrap().into();
    let mounts = mounted(&said.ok());
    for (word, seen_as, there) in words {
        for place in [format!("/m/{word}"), format!("/m/{word}/sub")] {
            let mount = at(&mounts, &place);
            let seen = mount.options.iter().any(|option| option == seen_as);
            assert_eq!(seen, *there, "{word}: {mount:?}");
        }
    }
}

#[test]
fn recursive_words_reach_the_mounts_below() {
    need!(root, cgroup2);
    let setup =
        "cd $BUNDLE; mkdir tree; mount -t tmpfs t tree; mkdir tree/sub; mount -t tmpfs t tree/sub";
    below(setup, &BELOW);
}

#[test]
fn recursive_words_take_back_what_the_mounts_below_have() {
    need!(root, cgroup2);
    let all = "nosuid,nodev,noexec,noatime,nodiratime,nosymfollow";
    let setup = format!(
        "cd $BUNDLE; mkdir tree; mount -t tmpfs -o {all} t tree; mkdir tree/sub
         mount -t tmpfs -o {all} t tree/sub; mount -o remount,bind,ro,{all} tree/sub; mount -o remount,bind,ro,{all} tree"
    );
    below(&setup, &TAKEN_BACK);
}

#[test]
fn a_file_system_that_refuses_an_option_is_quoted() {
    need!(root, cgroup2);
    let words = super::refused(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["nonsense=1"]}),
        );
    });
    assert!(words.contains("mount tmpfs on /m: "), "{words}");
    assert!(words.contains("nonsense"), "{words}");
}

#[test]
fn a_root_filesystem_that_is_none_is_refused_by_its_field() {
    need!(root, cgroup2);
    for (path, why) in [
        ("/no/such/root", "no such file or directory"),
        ("/etc/passwd", "not a directory"),
    ] {
        let words = refused(|config| config["root"]["path"] = json!(path));
        let expected = format!(": root.path: cannot use {path:?} as the root filesystem: {why}");
        assert!(words.contains(&expected), "{words}");
    }
}
