//! Files, used in every way that programs do: what is found behind a wall is what this kernel finds.

use std::collections::BTreeMap;

use serde_json::json;

use super::all_capabilities;
use crate::files::DIRECTORY;
use crate::files::exercise;
use crate::files::guest;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::wall;

/// What is different in a mount below the root, and why; `runtime-spec/files.md` says the same.
const BELOW_THE_ROOT: [(&str, &str); 1] = [
    // The guest's kernel makes such a mount by itself, and keeps no lists there.
    (
        "access list",
        "Err(Os { code: 95, kind: Unsupported, message: \"Operation not supported\" }) \
         Err(Os { code: 95, kind: Unsupported, message: \"Operation not supported\" }) 100644",
    ),
];

#[test]
fn a_program_that_uses_files_in_every_way_finds_what_this_kernel_finds() {
    need!(root, cgroup2);
    let home = Home::new();
    let there = tempfile::tempdir_in("/var/tmp").unwrap();
    let here = tempfile::tempdir_in("/var/tmp").unwrap();
    let own = std::env::current_exe().unwrap();
    let bundle = Bundle::new(&[
        "/program",
        "--exact",
        "files::the_exerciser_agrees_with_this_kernel",
        "--test-threads=1",
    ])
    .with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/program", "source": own, "options": ["bind", "ro"]}));
        mounts.push(
            json!({"destination": "/there", "source": there.path(), "options": ["rbind", "rw"]}),
        );
        let mut capabilities = all_capabilities();
        for set in ["bounding", "effective", "permitted"] {
            let set = capabilities[set].as_array_mut().unwrap();
            set.extend(
                ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SETFCAP", "CAP_LEASE"].map(|name| json!(name)),
            );
        }
        config["process"]["capabilities"] = capabilities;
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.push(json!(format!("{DIRECTORY}=/there/files")));
    });
    std::fs::create_dir(there.path().join("files")).unwrap();
    let said = home.run(&bundle);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let found = std::fs::read(there.path().join("files.found")).unwrap();
    let found: BTreeMap<&str, String> = serde_json::from_slice(&found).unwrap();
    let mut expected = exercise::facts(here.path());
    let different = guest::DIFFERENT.iter().chain(&BELOW_THE_ROOT);
    for (name, answer) in different.filter(|_| wall::is_microvm()) {
        expected.insert(name, (*answer).to_owned());
    }
    assert_eq!(found, expected);
}
