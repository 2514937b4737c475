//! Several documents at once.

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::residue;

fn up(home: &Home, words: &[&str], documents: &[&Document]) -> Said {
    let mut command = residue::marked(home.command(), &documents[0].id);
    command.arg("up").args(words);
    command.args(documents.iter().map(|document| document.file()));
    // The monitors of workspaces that stay must not hold the ends of these pipes.
    command.output().unwrap().into()
}

/// Three documents, of which the last was changed so that it fails.
fn three(home: &Home, change: impl Fn(&str) -> String) -> [Document; 3] {
    let documents = [(); 3].map(|()| Document::sleeper(home, ""));
    let text = std::fs::read_to_string(documents[2].file()).unwrap();
    std::fs::write(documents[2].file(), change(&text)).unwrap();
    documents
}

#[track_caller]
fn nothing_comes_up(home: &Home, documents: &[Document; 3], why: &str) {
    let [a, b, c] = documents;
    let error = up(home, &["--all-or-nothing"], &[a, b, c]).failed();
    assert!(error.contains("nothing was brought up"), "{error}");
    assert!(error.contains(why), "{error}");
    for document in documents {
        assert_eq!(document.left(home), Vec::<String>::new());
    }
}

#[test]
fn all_come_up_together() {
    need!(root);
    let home = Home::new();
    let documents = three(&home, str::to_owned);
    let [a, b, c] = &documents;
    let told = up(&home, &["--all-or-nothing"], &[a, b, c]).ok();
    let lines: Vec<String> = documents
        .iter()
        .map(|document| format!("{}: running", document.id))
        .collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), lines);
    home.bulkhead(["down", "--time", "0", &a.id, &b.id, &c.id])
        .ok();
    documents
        .iter()
        .for_each(|document| document.vanishes(&home));
}

/// What a document says of a network, a port of the host that leads to it, and a lease.
fn wired(port: u16) -> String {
    format!(
        "[lease]\nttl = \"1h\"\n[network]\nbridge = \"group\"\npublish = [\"127.0.0.1:{port}:80\"]\n"
    )
}

#[test]
fn a_group_with_a_network_ports_and_leases_comes_up_and_goes_whole() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let documents = [18091, 18092].map(|port| Document::sleeper(&home, &wired(port)));
    let [a, b] = &documents;
    up(&home, &["--all-or-nothing"], &[a, b]).ok();
    for document in &documents {
        let row = document.row(&home);
        assert!(row["lease"].is_object(), "{row}");
    }
    let network = home.bulkhead(["net", "inspect", "group"]).ok();
    assert!(
        network.contains("18091") && network.contains("18092"),
        "{network}"
    );
    home.bulkhead(["down", "--time", "0", &a.id, &b.id]).ok();
    documents
        .iter()
        .for_each(|document| document.vanishes(&home));
    home.bulkhead(["net", "inspect", "group"]).failed();
}

#[test]
fn nothing_of_a_group_stays_on_a_network_when_two_ask_for_one_port() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let documents = [(); 2].map(|()| Document::sleeper(&home, &wired(18093)));
    let [a, b] = &documents;
    let error = up(&home, &["--all-or-nothing"], &[a, b]).failed();
    assert!(error.contains("nothing was brought up"), "{error}");
    assert!(error.contains("18093"), "{error}");
    for document in &documents {
        assert_eq!(document.left(&home), Vec::<String>::new());
    }
    home.bulkhead(["net", "inspect", "group"]).failed();
    assert!(!home.root().join("@networks/group").exists());
}

#[test]
fn nothing_is_left_when_the_last_is_wrong() {
    need!(root);
    let home = Home::new();
    let documents = three(&home, |text| text.replace("rootfs", "rotfs"));
    let [a, b, c] = &documents;
    let error = up(&home, &["--all-or-nothing"], &[a, b, c]).failed();
    assert!(error.contains("rootfs"), "{error}");
    for document in &documents {
        assert_eq!(document.left(&home), Vec::<String>::new());
    }
}

#[test]
fn nothing_is_left_when_the_last_cannot_be_made() {
    need!(root);
    let home = Home::new();
    // A directory cannot be mounted over a file.
    let mount = "[[mount]]\nsource = \"/etc\"\ntarget = \"/bin/busybox\"\n";
    let documents = three(&home, |text| format!("{text}{mount}"));
    nothing_comes_up(&home, &documents, "busybox");
}

#[test]
fn nothing_is_left_when_the_last_cannot_be_started() {
    need!(root);
    let home = Home::new();
    let documents = three(&home, |text| text.replace("/bin/sh", "/etc/passwd.sh"));
    // It is there, may be executed, and is no program: that shows only when it is started.
    let broken = documents[2].bundle.rootfs("/etc/passwd.sh");
    std::fs::write(&broken, [0x7f, b'E', b'L', b'F', 0, 0, 0, 0]).unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut std::fs::metadata(&broken).unwrap().permissions(),
        0o755,
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&broken, mode).unwrap();
    nothing_comes_up(&home, &documents, "exec");
}

#[test]
fn without_the_option_each_stands_for_itself() {
    need!(root);
    let home = Home::new();
    let documents = three(&home, |text| text.replace("/bin/sh", "/bin/no"));
    let [a, b, c] = &documents;
    let said = up(&home, &[], &[c, a, b]);
    assert_eq!(said.status, 1);
    assert_eq!(said.out, format!("{}: running\n{}: running\n", a.id, b.id));
    assert!(said.err.contains("1 of 3 did not come up"), "{}", said.err);
    assert!(said.err.contains(&c.id), "{}", said.err);
    home.bulkhead(["down", "--time", "0", &a.id, &b.id]).ok();
    documents
        .iter()
        .for_each(|document| document.vanishes(&home));
}
