//! Names, users and annotations: what is accepted is what the grammar says, and nothing else is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bulkhead::spec::asked::Asked;
use bulkhead::spec::id::ContainerId;
use bulkhead::spec::user::UserWord;
use serde_json::json;

use super::tries;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::sentinel::Sentinel;

/// Letters that a word of chance is made of: those that are allowed, those that are nearly, and those that never are.
const LETTERS: [&str; 32] = [
    "a",
    "b",
    "z",
    "A",
    "Z",
    "0",
    "1",
    "2",
    "9",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "_",
    "+",
    "-",
    ".",
    "..",
    "/",
    "../",
    ":",
    " ",
    "\t",
    "\n",
    "\0",
    "\\",
    "%",
    "@",
    "ä",
    "\u{661}",
    "0x",
    "1e3",
    "root",
];

/// Numbers that look like chance, the same in every run.
fn chance(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

fn word(state: &mut u64) -> String {
    let length = chance(state) % 6;
    (0..length)
        .map(|_| LETTERS[chance(state) % LETTERS.len()])
        .collect()
}

/// The grammar of a name, said in another way than the product says it.
fn is_name(word: &str) -> bool {
    let letters: Vec<char> = word.chars().collect();
    let plain =
        |letter: &char| matches!(letter, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '+' | '-');
    let fit = !letters.is_empty() && letters.len() <= 240;
    fit && plain(&letters[0]) && letters.iter().all(|letter| plain(letter) || *letter == '.')
}

/// The number that digits mean, if they are one that a user can have.
fn number(digits: &str) -> Option<u32> {
    let mut value: u128 = 0;
    for digit in digits.chars() {
        let digit = u128::from(digit.to_digit(10)?);
        value = value.saturating_mul(10).saturating_add(digit);
    }
    let there = !digits.is_empty() && value < u128::from(u32::MAX);
    u32::try_from(value).ok().filter(|_| there)
}

#[test]
fn of_a_million_words_those_are_names_and_users_that_the_grammar_says() {
    let mut state = 1;
    for _ in 0..tries() * 500 {
        let word = word(&mut state);
        let name: Result<ContainerId, _> = word.parse();
        assert_eq!(name.is_ok(), is_name(&word), "{word:?}");
        let user = word.parse::<UserWord>().ok();
        let expected = match word.split_once(':') {
            Some((uid, gid)) => number(uid)
                .zip(number(gid))
                .map(|(uid, gid)| (uid, Some(gid))),
            None => number(&word).map(|uid| (uid, None)),
        };
        assert_eq!(user.map(|user| (user.uid, user.gid)), expected, "{word:?}");
    }
}

#[test]
fn annotations_of_chance_are_read_or_refused() {
    let mut state = 2;
    let keys = [
        "isolation",
        "lease",
        "cpu.guarantee",
        "memory.guarantee",
        "network",
        "ports",
        "rootfs.upper",
        "vm.memory",
    ];
    for _ in 0..tries() * 5 {
        let key = keys[chance(&mut state) % keys.len()];
        let (name, value) = (format!("dev.bulkhead.{key}"), word(&mut state));
        // Whatever it is, an answer comes: a panic fails the test.
        drop(Asked::of(&std::iter::once((name, value)).collect()));
    }
}

#[test]
fn names_that_are_no_words_are_refused_before_anything_is_made() {
    let home = Home::new();
    let long = "x".repeat(1024);
    let names = [
        "../x", "a/b", ".", "..", ".hidden", "", "ä", "a b", "a\nb", "/", "a\\b", "@x", &long,
    ];
    for name in names {
        for command in ["create", "run"] {
            let refused = home
                .bulkhead([command, "--bundle", "/nowhere", "--", name])
                .failed();
            let words = [
                "invalid container ID format",
                "invalid value",
                "a value is required",
            ];
            assert!(
                words.iter().any(|text| refused.contains(text)),
                "{name:?}: {refused}"
            );
        }
    }
    assert!(!home.root().exists());
    let beside = fs::read_dir(home.beside("")).unwrap().count();
    assert_eq!(beside, 0);
}

#[test]
fn the_user_of_an_exec_is_the_one_that_was_said_or_nobody() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    for (word, uid) in [
        ("1", "1"),
        ("1:1", "1"),
        ("0012", "12"),
        ("4294967294", "4294967294"),
        ("0", "0"),
    ] {
        let seen = home
            .bulkhead(["exec", "--user", word, &id, "id", "-u"])
            .ok();
        assert_eq!(seen.trim_end(), uid, "{word}");
    }
    for word in [
        "4294967295",
        "4294967296",
        "18446744073709551617",
        "-1",
        "",
        "0x0",
        "root",
        "guest",
        "1:",
        ":1",
        " 1",
        "+1",
        "1e3",
        "\u{661}",
    ] {
        let said = home.bulkhead(["exec", &format!("--user={word}"), &id, "id", "-u"]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{word:?}");
    }
}

#[test]
fn a_group_of_cgroups_that_leads_elsewhere_is_refused() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    for path in ["/../x", "../../x", "/a/../../x", "a/..", "/", ".."] {
        let bundle = Bundle::shell("echo it ran")
            .with(|config| config["linux"]["cgroupsPath"] = json!(path));
        let said = home.run(&bundle);
        assert_eq!(said.out, "", "{path}");
        said.failed();
    }
    sentinel.untouched();
}

#[test]
fn annotations_and_the_environment_choose_no_program_of_the_host() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    let mark = home.beside("mark");
    let program = home.beside("program");
    fs::write(&program, format!("#!/bin/sh\n: >{}\n", mark.display())).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let path = program.to_str().unwrap().to_owned();
    let bundle = Bundle::shell("echo it ran").with(|config| {
        config["annotations"] = json!({
            "run.oci.handler": "krun",
            "run.oci.hooks.stdout": path,
            "io.katacontainers.config.hypervisor.path": path,
            "io.katacontainers.config.hypervisor.virtio_fs_daemon": path,
            "io.katacontainers.config_path": path,
            "org.opencontainers.image.logger": format!("binary://{path}"),
            "org.systemd.property.ExecStopPost": format!("['{path}']"),
        });
    });
    // What a shell, a launcher or a helper of the host would be called is in the bundle, and first in the path.
    for name in ["sh", "passt", "virtiofsd", "criu", "nft", "ip"] {
        fs::copy(&program, bundle.path().join(name)).unwrap();
    }
    let mut command = home.command();
    command
        .env("PATH", bundle.path())
        .args(["run", "-b"])
        .arg(bundle.path());
    command.arg(home.id()).output().unwrap();
    assert!(
        !mark.exists(),
        "a program of the bundle's choice ran on the host"
    );
    sentinel.untouched();
}
