//! Workspace documents whose root is an image: what the image says of its program counts where they say nothing.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use bulkhead::spec::Spec;

use super::builder::Layer;
use super::builder::Layout;
use crate::support::home::Home;

/// An image that knows the user that it names.
fn image() -> Layout {
    let passwd = "root:x:0:0::/:/bin/sh\nguest:x:1000:100::/tmp:/bin/sh\n";
    Layout::of(&[Layer::default().directory("etc").file("etc/passwd", passwd)])
}

/// A document beside a state root, with an image as its root.
fn document(home: &Home, image: &Path, rest: &str) -> PathBuf {
    let path = home.beside("web.toml");
    let text = format!("name = \"web\"\nrootfs = \"{}\"\n{rest}", image.display());
    fs::write(&path, text).unwrap();
    path
}

fn compiled(home: &Home, path: &Path) -> Spec {
    let said = home.bulkhead(["compile".as_ref(), path.as_os_str()]).ok();
    Spec::parse(said.as_bytes()).unwrap()
}

#[test]
fn a_document_takes_from_its_image_what_it_does_not_say() {
    let (home, image) = (Home::new(), image());
    let spec = compiled(&home, &document(&home, image.path(), ""));
    assert!(spec.root.path.join("etc/passwd").is_file());
    assert!(spec.root.path.starts_with(home.root()));
    assert_eq!(spec.process.args, ["/bin/sh", "-c", "echo hello"]);
    assert_eq!(spec.process.env, ["PATH=/bin", "FROM=image"]);
    assert_eq!(spec.process.cwd, PathBuf::from("/tmp"));
    assert_eq!((spec.process.user.uid, spec.process.user.gid), (1000, 100));
}

#[test]
fn a_document_that_says_more_wins_over_its_image() {
    let (home, image) = (Home::new(), image());
    let rest = "command = [\"/bin/true\"]\nuser = \"5:6\"\nenv = { FROM = \"document\" }\n";
    let spec = compiled(&home, &document(&home, image.path(), rest));
    assert_eq!(spec.process.args, ["/bin/true"]);
    assert_eq!(spec.process.env, ["PATH=/bin", "FROM=document"]);
    assert_eq!((spec.process.user.uid, spec.process.user.gid), (5, 6));
}

#[test]
fn check_looks_at_an_image_and_unpacks_nothing() {
    let (home, image) = (Home::new(), image());
    let path = document(&home, image.path(), "");
    home.bulkhead(["check".as_ref(), path.as_os_str()]).ok();
    assert!(!home.root().exists());
}

#[test]
fn check_tells_the_line_that_names_an_image_that_is_none() {
    let (home, image) = (Home::new(), image());
    fs::write(image.path().join("index.json"), "{}").unwrap();
    let path = document(&home, image.path(), "");
    let said = home.bulkhead(["check".as_ref(), path.as_os_str()]);
    let said = said.failed();
    let place = format!("bulkhead: {}:2: ", path.display());
    assert!(said.starts_with(&place), "{said}");
}
