//! Ten workspaces at once, as a batch system has them: brought up together, looked into, and gone at the end of their lease.

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;

/// Little of everything: in a machine it is the guest's kernel that needs more.
const SMALL: &str = "[memory]\nlimit = \"32M\"\n[lease]\nttl = \"1h\"\non_expiry = \"stop\"\n";

#[test]
fn ten_at_once_have_output_and_shells_and_end_with_their_lease() {
    need!(root, limits);
    let home = Home::new();
    let documents: Vec<Document> = (0..10)
        .map(|number| {
            Document::new(
                &home,
                &format!("echo word {number}; exec sleep 1000"),
                SMALL,
            )
        })
        .collect();
    let mut up = residue::quiet(&home, &documents[0].id, ["up", "-d"]);
    up.args(documents.iter().map(Document::file));
    assert!(up.status().unwrap().success());
    for (number, document) in documents.iter().enumerate() {
        let id = document.id.as_str();
        eventually("its output", || {
            home.bulkhead(["logs", id]).ok() == format!("word {number}\n")
        });
        let inside = home.bulkhead(["shell", id, "--", "echo", "inside"]).ok();
        assert_eq!(inside, "inside\n");
    }
    let (ended, others) = documents.split_at(5);
    for document in ended {
        home.bulkhead(["lease", "--set", "1s", &document.id]).ok();
    }
    for document in ended {
        eventually("the end of its lease", || {
            home.status(&document.id) == "stopped"
        });
    }
    for document in others {
        assert_eq!(home.status(&document.id), "running");
    }
    let all = documents.iter().map(|document| document.id.as_str());
    home.bulkhead(["down", "--time", "0"].into_iter().chain(all))
        .ok();
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}
