//! Which image of a layout is meant, and that nothing damaged is used.

use std::fs;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use super::builder::Layer;
use super::builder::Layout;
use super::builder::Packing;
use super::builder::Unpacked;
use bulkhead::image;
use bulkhead::image::Chosen;
use bulkhead::image::Limits;
use bulkhead::image::Source;

const NAME: &str = "org.opencontainers.image.ref.name";

fn chosen(layout: &Layout, reference: Option<&str>) -> Result<Chosen, String> {
    let source = Source::open(layout.path()).map_err(|error| error.to_string())?;
    image::choose(&source, reference).map_err(|error| error.to_string())
}

fn layer(content: &str) -> Layer {
    Layer::default().file("file", content)
}

fn named(layout: &Layout, content: &str, name: &str) -> Value {
    let mut entry = layout.manifest(&[layer(content)], Packing::Plain, "amd64");
    entry["annotations"] = json!({ NAME: name });
    entry
}

fn platform(mut entry: Value, os: &str, architecture: &str) -> Value {
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    entry
}

fn index(layout: &Layout, entries: &[Value]) -> Value {
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    layout.store(
        "application/vnd.oci.image.index.v1+json",
        index.to_string().as_bytes(),
    )
}

#[test]
fn an_image_is_found_by_its_name_or_digest() {
    let mut layout = Layout::empty();
    let one = named(&layout, "1", "1.0");
    let two = named(&layout, "2", "docker.io/library/x:2.0");
    for entry in [&one, &two] {
        layout.add(entry.clone());
    }
    let digest = |reference| chosen(&layout, Some(reference)).unwrap().manifest;
    assert_eq!(digest("1.0"), one["digest"]);
    assert_eq!(digest("2.0"), two["digest"]);
    assert_eq!(digest("docker.io/library/x:2.0"), two["digest"]);
    assert_eq!(digest(two["digest"].as_str().unwrap()), two["digest"]);
    let said = chosen(&layout, Some("3.0")).unwrap_err();
    assert!(
        said.contains("\"3.0\" for linux/amd64 is not among what it holds: :1.0"),
        "{said}"
    );
    let said = chosen(&layout, None).unwrap_err();
    assert!(
        said.contains("several images") && said.contains(":1.0, :docker.io"),
        "{said}"
    );
}

#[test]
fn of_a_list_for_several_machines_the_one_for_this_machine_is_taken() {
    let mut layout = Layout::empty();
    let manifest = |content: &str, machine: &str| {
        let made = layout.manifest(&[layer(content)], Packing::Plain, machine);
        platform(made, "linux", machine)
    };
    let entries = [
        manifest("1", "arm64"),
        manifest("2", "amd64"),
        manifest("3", "s390x"),
    ];
    let provenance = platform(named(&layout, "4", "x"), "unknown", "unknown");
    let inner = index(
        &layout,
        &[
            entries[0].clone(),
            provenance,
            entries[1].clone(),
            entries[2].clone(),
        ],
    );
    let mut outer = index(&layout, &[inner]);
    outer["annotations"] = json!({ NAME: "list" });
    layout.add(outer);
    assert_eq!(
        chosen(&layout, None).unwrap().manifest,
        entries[1]["digest"]
    );
    assert_eq!(
        chosen(&layout, Some("list")).unwrap().manifest,
        entries[1]["digest"]
    );
    let other = entries[0]["digest"].as_str().unwrap();
    chosen(&layout, Some(other)).unwrap_err();
}

#[test]
fn an_image_for_another_machine_is_refused_by_its_configuration_too() {
    let mut layout = Layout::empty();
    let entry = layout.manifest(&[layer("1")], Packing::Plain, "arm64");
    layout.add(entry);
    let said = chosen(&layout, None).unwrap_err();
    assert!(
        said.contains("it is for linux/arm64, and this is linux/amd64"),
        "{said}"
    );
}

#[test]
fn what_the_image_says_about_its_program_is_read() {
    let defaults = chosen(&Layout::of(&[layer("1")]), None).unwrap().defaults;
    assert_eq!(defaults.command, ["/bin/sh", "-c", "echo hello"]);
    assert_eq!(defaults.env, ["PATH=/bin", "FROM=image"]);
    assert_eq!(defaults.cwd.as_deref(), Some("/tmp"));
    assert_eq!(defaults.user.as_deref(), Some("guest"));
}

#[test]
fn a_layout_without_images_says_so() {
    let said = chosen(&Layout::empty(), None).unwrap_err();
    assert!(said.contains("it holds no image at all"), "{said}");
}

/// Changes the last byte of a file, or makes it longer or shorter.
fn spoil(path: &Path, how: &str) {
    let mut bytes = fs::read(path).unwrap();
    match how {
        "changed" => *bytes.last_mut().unwrap() ^= 1,
        "longer" => bytes.push(b' '),
        _ => drop(bytes.pop()),
    }
    fs::write(path, bytes).unwrap();
}

/// The parts of an image: manifest, configuration, layer.
fn parts(layout: &Layout) -> [String; 3] {
    let manifest = chosen(layout, None).unwrap().manifest;
    let text = fs::read(layout.blob(&manifest)).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    let digest = |part: &Value| part["digest"].as_str().unwrap().to_owned();
    let (config, layer) = (digest(&document["config"]), digest(&document["layers"][0]));
    [manifest, config, layer]
}

#[test]
fn a_damaged_part_is_found_and_named() {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        for how in ["changed", "longer", "shorter"] {
            for part in 0..3 {
                let layout = Layout::packed(&[layer("1")], packing);
                let digest = parts(&layout)[part].clone();
                spoil(&layout.blob(&digest), how);
                let made = Unpacked::from(&layout, Limits::default());
                let said = made.done.unwrap_err();
                assert!(said.contains(&digest), "{packing:?} {how} {part}: {said}");
            }
        }
    }
}

#[test]
fn a_layer_that_unpacks_to_something_else_than_the_configuration_says_is_refused() {
    let mut layout = Layout::empty();
    let entry = layout.manifest(&[layer("1")], Packing::Gzip, "amd64");
    let other = layout.manifest(&[layer("2")], Packing::Gzip, "amd64");
    let read = |entry: &Value| -> Value {
        let digest = entry["digest"].as_str().unwrap();
        serde_json::from_slice(&fs::read(layout.blob(digest)).unwrap()).unwrap()
    };
    let (mut mixed, other) = (read(&entry), read(&other));
    mixed["config"] = other["config"].clone();
    let kind = entry["mediaType"].as_str().unwrap();
    let mixed = layout.store(kind, mixed.to_string().as_bytes());
    layout.add(mixed);
    let said = Unpacked::from(&layout, Limits::default()).done.unwrap_err();
    assert!(said.contains("unpacked it is sha256:"), "{said}");
}

#[test]
fn a_size_that_the_index_states_wrongly_is_refused() {
    let mut layout = Layout::of(&[layer("1")]);
    layout.change(|entry| entry["size"] = json!(7));
    let said = chosen(&layout, None).unwrap_err();
    assert!(said.contains("and should have 7"), "{said}");
}

#[test]
fn a_digest_that_cannot_be_verified_or_leads_elsewhere_is_refused() {
    for digest in ["md5:abc", "sha256:../../index.json", "sha256:ab", "nothing"] {
        let mut layout = Layout::of(&[layer("1")]);
        layout.change(|entry| entry["digest"] = json!(digest));
        chosen(&layout, None).unwrap_err();
    }
}

#[test]
fn what_is_no_image_is_refused_with_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "no archive at all").unwrap();
    let said = Source::open(&file).unwrap_err().to_string();
    assert!(said.contains("tar archive"), "{said}");
    let said = Source::open(home.path()).unwrap_err().to_string();
    assert!(said.contains("oci-layout"), "{said}");
}
