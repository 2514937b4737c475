//! An unpack that is killed at any moment: nothing of it is used, and nothing is left after the next or `gc`.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::builder::Layer;
use super::builder::Layout;
use super::builder::Packing;
use crate::support::home::Home;

/// Files enough to be met in the middle of.
const FILES: usize = 600;

fn many() -> Layer {
    (0..FILES).fold(Layer::default().directory("many"), |layer, number| {
        layer.file(&format!("many/{number}"), &"words ".repeat(200))
    })
}

/// Names of what is being made or removed.
fn unfinished(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.root().join("@data/images"));
    let names = entries.into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn what_a_killed_unpack_left_is_removed_and_never_used() {
    let home = Home::new();
    fs::create_dir_all(home.beside("")).unwrap();
    let layout = Layout::packed(&[many()], Packing::Gzip);
    let file = home.beside("document.toml");
    let text = format!(
        "name = \"killed\"\nrootfs = \"{}\"\ncommand = [\"/bin/true\"]\nuser = \"0:0\"\n",
        layout.path().display()
    );
    fs::write(&file, text).unwrap();
    let compile = || {
        let mut command = home.command();
        command.arg("compile").arg(&file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    home.bulkhead([std::ffi::OsStr::new("compile"), file.as_os_str()])
        .ok();
    fs::remove_dir_all(home.root().join("@data/images")).unwrap();
    let begun = std::time::Instant::now();
    assert!(compile().status().unwrap().success());
    let whole = begun.elapsed();
    let mut met = 0;
    for part in 1..=12_u32 {
        home.bulkhead(["images", "gc"]).ok();
        fs::remove_dir_all(home.root().join("@data/images")).unwrap();
        let mut killed = compile().spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(
            u64::try_from(whole.as_micros()).unwrap() * u64::from(part) / 12,
        ));
        killed.kill().unwrap();
        killed.wait().unwrap();
        met += usize::from(!unfinished(&home).is_empty());
        home.bulkhead(["images", "gc"]).ok();
        assert_eq!(unfinished(&home), Vec::<String>::new());
        assert!(compile().status().unwrap().success());
        let listed = home.bulkhead(["images", "ls", "--format", "json"]).ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let tree = listed[0]["rootfs"].as_str().unwrap();
        let count = fs::read_dir(format!("{tree}/many")).unwrap().count();
        assert_eq!(count, FILES);
    }
    assert!(met > 0, "no unpack was met midway");
}
