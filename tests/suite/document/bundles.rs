//! What a document compiles to is a plain bundle: it runs as it is under runc, crun and ours.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::elsewhere::own_mounts;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;

/// A document in a bundle's directory, compiled into that bundle.
fn compiled(home: &Home, bundle: &Bundle, name: &str, rest: &str) {
    let text = format!("name = \"{name}\"\nrootfs = \"rootfs\"\n{rest}");
    let document = bundle.path().join("workspace.toml");
    fs::write(&document, text).unwrap();
    let config = home
        .bulkhead(["compile".as_ref(), document.as_os_str()])
        .ok();
    fs::write(bundle.path().join("config.json"), config).unwrap();
}

/// Runs a bundle under another runtime, which is shown the cgroup2 tree alone, as on any host of today.
fn run_by(runtime: &str, home: &Home, bundle: &Bundle, name: &str) -> Said {
    const SCRIPT: &str = "if [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then \
                              mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup || exit 99; \
                          fi; exec \"$@\"";
    let state: PathBuf = home.beside(runtime);
    let mut command = own_mounts(SCRIPT);
    command.args(["sh", runtime, "--root"]).arg(state);
    command
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(name);
    command.stdin(Stdio::null()).output().unwrap().into()
}

const PLAIN: &str = "command = [\"/bin/sh\", \"-c\", \"id -u; hostname; echo $GREETING; cat /src/file; pwd; \
                     touch /src/new 2>/dev/null || echo sealed\"]\n\
                     env = { GREETING = \"good day\" }\ncwd = \"/tmp\"\nuser = \"1000:1000\"\n\
                     [[mount]]\nsource = \"./src\"\ntarget = \"/src\"\nmode = \"ro\"\n";

/// A bundle with a directory to be mounted.
fn with_source() -> Bundle {
    let bundle = Bundle::new(&["/bin/true"]);
    let source = bundle.path().join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "shared\n").unwrap();
    bundle
}

fn said_by_plain(name: &str) -> String {
    format!("1000\n{name}\ngood day\nshared\n/tmp\nsealed\n")
}

#[test]
fn a_compiled_bundle_runs_as_the_document_says() {
    need!(root, cgroup2);
    let home = Home::new();
    let (bundle, name) = (with_source(), home.id());
    compiled(&home, &bundle, &name, PLAIN);
    let run = [
        "run".as_ref(),
        "-b".as_ref(),
        bundle.path().as_os_str(),
        name.as_ref(),
    ];
    assert_eq!(home.bulkhead(run).ok(), said_by_plain(&name));
}

#[test]
fn a_compiled_bundle_runs_the_same_under_runc() {
    need!(root, cgroup2, runc);
    let home = Home::new();
    let (bundle, name) = (with_source(), home.id());
    compiled(&home, &bundle, &name, PLAIN);
    let said = run_by("runc", &home, &bundle, &name).ok();
    assert_eq!(said, said_by_plain(&name));
}

#[test]
fn a_compiled_bundle_runs_the_same_under_crun() {
    need!(root, cgroup2, crun);
    let home = Home::new();
    let (bundle, name) = (with_source(), home.id());
    compiled(&home, &bundle, &name, PLAIN);
    let said = run_by("crun", &home, &bundle, &name).ok();
    assert_eq!(said, said_by_plain(&name));
}

const LIMITED: &str = "command = [\"/bin/sh\", \"-c\", \"cd /sys/fs/cgroup; \
                       cat cpu.max memory.low memory.high memory.max memory.swap.max memory.oom.group pids.max\"]\n\
                       pids = 64\n\
                       [cpu]\nreserve = 0.25\nshare = 100\nlimit = 1.5\n\
                       [memory]\nreserve = \"16M\"\nhigh = \"48M\"\nlimit = \"64M\"\n\
                       [lease]\nttl = \"1h\"\n";

const LIMITS: &str = "150000 100000\n16777216\n50331648\n67108864\n0\n1\n64\n";

#[test]
fn the_limits_of_a_document_hold_under_every_runtime() {
    need!(root, limits, runc, crun);
    let home = Home::new();
    let (bundle, name) = (Bundle::new(&["/bin/true"]), home.id());
    compiled(&home, &bundle, &name, LIMITED);
    let run = [
        "run".as_ref(),
        "-b".as_ref(),
        bundle.path().as_os_str(),
        name.as_ref(),
    ];
    assert_eq!(home.bulkhead(run).ok(), LIMITS);
    for runtime in ["runc", "crun"] {
        let (bundle, name) = (Bundle::new(&["/bin/true"]), home.id());
        compiled(&home, &bundle, &name, LIMITED);
        let said = run_by(runtime, &home, &bundle, &name).ok();
        assert_eq!(said, LIMITS, "{runtime}");
    }
}

#[test]
fn examples_name_a_root_beside_them_that_is_no_part_of_the_project() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(home.join(".gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "/examples/rootfs"));
    for path in super::documents("examples") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"./rootfs\""), "{}", path.display());
    }
}

/// An example with a root beside it, as `make demo` gives it one, in a bundle that it is compiled into.
fn example(home: &Home, name: &str) -> Bundle {
    let bundle = Bundle::new(&["/bin/true"]);
    let document = bundle.path().join(name);
    fs::copy(super::folder("examples").join(name), &document).unwrap();
    let config = home
        .bulkhead(["compile".as_ref(), document.as_os_str()])
        .ok();
    fs::write(bundle.path().join("config.json"), config).unwrap();
    bundle
}

/// What a web server on this host says.
fn page(port: u16) -> Option<String> {
    let mut to = TcpStream::connect(("127.0.0.1", port)).ok()?;
    to.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut said = String::new();
    to.read_to_string(&mut said).ok()?;
    said.rsplit("\r\n\r\n").next().map(str::to_owned)
}

#[test]
fn hello_serves_its_page_on_the_port_of_the_host() {
    need!(root, cgroup2);
    let (home, name) = (Home::new(), Home::new().id());
    let bundle = example(&home, "hello.toml");
    home.start(&bundle, &name);
    eventually("the page", || {
        page(8080).is_some_and(|page| page == "hello from a workspace\n")
    });
    home.bulkhead(["delete", "--force", &name]).ok();
    assert_eq!(page(8080), None);
}

#[test]
fn guaranteed_runs_with_what_it_was_promised() {
    need!(root, limits);
    let (home, name) = (Home::new(), Home::new().id());
    let bundle = example(&home, "guaranteed.toml");
    home.start(&bundle, &name);
    assert_eq!(home.status(&name), "running");
    let group = Path::new("/sys/fs/cgroup/bulkhead/guaranteed");
    let limit = |file: &str| fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(limit("cpu.max"), "150000 100000\n");
    assert_eq!(limit("memory.max"), format!("{}\n", 256 << 20));
    assert_eq!(limit("pids.max"), "256\n");
    home.bulkhead(["delete", "--force", &name]).ok();
    assert!(!group.exists());
}
