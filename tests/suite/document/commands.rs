//! `compile`, `check` and `schema` as they are called.

use std::fs;

use bulkhead::spec::Spec;
use bulkhead::spec::workspace;

use crate::support::home::Home;

const RIGHT: &str = "name = \"web\"\nrootfs = \".\"\ncommand = [\"/bin/true\"]\n";

/// A document beside the state root of a home.
fn written(home: &Home, name: &str, text: &str) -> String {
    let path = home.beside(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_says_ok_of_each_document_that_is_right() {
    let home = Home::new();
    let one = written(&home, "one.toml", RIGHT);
    let two = written(
        &home,
        "two.json",
        "{\"name\": \"two\", \"rootfs\": \".\", \"command\": [\"a\"]}",
    );
    let said = home.bulkhead(["check", &one, &two]).ok();
    assert_eq!(said, format!("{one}: ok\n{two}: ok\n"));
    assert!(!home.root().exists());
}

#[test]
fn check_tells_what_is_wrong_and_goes_on_to_the_others() {
    let home = Home::new();
    let wrong = written(&home, "wrong.toml", &format!("{RIGHT}pidz = 1\n"));
    let right = written(&home, "right.toml", RIGHT);
    let said = home.bulkhead(["check", &wrong, &right]);
    assert_eq!(said.status, 1);
    assert_eq!(said.out, format!("{right}: ok\n"));
    assert_eq!(
        said.err,
        format!("bulkhead: {wrong}:4: pidz: unknown key; did you mean pids?\n")
    );
}

#[test]
fn check_tells_of_a_root_that_is_not_there() {
    let home = Home::new();
    let gone = RIGHT.replace("\".\"", "\"./gone\"");
    let path = written(&home, "gone.toml", &gone);
    let said = home.bulkhead(["check", &path]).failed();
    assert!(
        said.starts_with(&format!("bulkhead: {path}:2: rootfs: ")),
        "{said}"
    );
    assert!(said.ends_with("no such file or directory\n"), "{said}");
}

#[test]
fn check_tells_of_a_mount_from_nowhere() {
    let home = Home::new();
    let mount = "[[mount]]\nsource = \"gone\"\ntarget = \"/src\"\n";
    let path = written(&home, "mount.toml", &format!("{RIGHT}{mount}"));
    let said = home.bulkhead(["check", &path]).failed();
    assert!(
        said.starts_with(&format!("bulkhead: {path}:5: mount[0].source: ")),
        "{said}"
    );
}

#[test]
fn check_tells_of_a_file_that_is_not_there_or_no_text() {
    let home = Home::new();
    let said = home.bulkhead(["check", "/nowhere/a.toml"]).failed();
    let expected = "bulkhead: /nowhere/a.toml: cannot be read: no such file or directory\n";
    assert_eq!(said, expected);
    let path = home.beside("binary.toml");
    fs::write(&path, b"name = \"\xff\"").unwrap();
    let said = home.bulkhead(["check".as_ref(), path.as_os_str()]).failed();
    assert!(said.contains("cannot be read"), "{said}");
}

#[test]
fn a_file_that_is_no_document_by_its_size_is_not_read_whole() {
    let home = Home::new();
    let said = home.bulkhead(["check", "/dev/zero"]).failed();
    assert!(said.contains("larger than 1048576 bytes"), "{said}");
}

#[test]
fn compile_reads_standard_input_and_takes_paths_from_where_it_stands() {
    let home = Home::new();
    let here = home.beside("here");
    fs::create_dir_all(here.join("rootfs")).unwrap();
    let document = home.beside("document");
    fs::write(&document, RIGHT.replace("\".\"", "\"rootfs\"")).unwrap();
    let mut command = home.command();
    command.current_dir(&here).args(["compile", "-"]);
    let output = command.stdin(fs::File::open(&document).unwrap()).output();
    let said = crate::support::home::Said::from(output.unwrap()).ok();
    let spec = Spec::parse(said.as_bytes()).unwrap();
    assert_eq!(spec.root.path, here.canonicalize().unwrap().join("rootfs"));
    assert_eq!(spec.linux.cgroups_path, "/bulkhead/web");
}

#[test]
fn compile_prints_the_same_bytes_each_time() {
    let home = Home::new();
    let text = format!("{RIGHT}env = {{ B = \"2\", A = \"1\", C = \"3\" }}\n");
    let path = written(&home, "same.toml", &text);
    let first = home.bulkhead(["compile", &path]).ok();
    assert!(first.starts_with("{\n  \"ociVersion\": "), "{first}");
    assert_eq!(home.bulkhead(["compile", &path]).ok(), first);
}

#[test]
fn the_wall_on_the_command_line_wins_over_the_document() {
    let home = Home::new();
    let path = written(
        &home,
        "wall.toml",
        &format!("{RIGHT}isolation = \"container\"\n"),
    );
    let isolation = |args: &[&str]| {
        let said = home.bulkhead(args).ok();
        let spec = Spec::parse(said.as_bytes()).unwrap();
        spec.annotations["dev.bulkhead.isolation"].clone()
    };
    assert_eq!(isolation(&["compile", &path]), "container");
    assert_eq!(
        isolation(&["compile", "--isolation", "microvm", &path]),
        "microvm"
    );
    let said = home.bulkhead(["compile", "--isolation", "jail", &path]);
    assert!(said.failed().contains("is not container or microvm"));
}

#[test]
fn schema_prints_the_schema_of_the_types() {
    let said = Home::new().bulkhead(["schema"]).ok();
    assert_eq!(said, workspace::schema().unwrap());
}
