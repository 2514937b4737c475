//! Readers of single words and whole documents, given what nobody would write.

use std::path::Component;
use std::path::Path;

use bulkhead::spec::Spec;
use bulkhead::spec::id::ContainerId;
use bulkhead::spec::list;
use bulkhead::spec::mount_options::MountOptions;
use bulkhead::spec::mount_options::known_words;
use bulkhead::spec::sysctl;
use bulkhead::spec::user::UserWord;
use proptest::prelude::any;
use proptest::prop_assert;
use proptest::prop_assert_eq;
use proptest::proptest;
use proptest::sample::Index;
use proptest::strategy::Just;
use proptest::strategy::Strategy;
use serde_json::Value;

const EVERY_PROPERTY: &str = include_str!("../../../runtime-spec/examples/every-property.json");

/// Whether a path is made of ordinary names alone.
fn stays_below(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
}

/// All values inside a document, itself first.
fn nodes(value: &mut Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter_mut().map(nodes).sum(),
        Value::Object(map) => map.values_mut().map(nodes).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Puts another value in the place of the one that comes at `index`; says how many more are to be passed.
fn replace(value: &mut Value, index: usize, other: &Value) -> Result<(), usize> {
    let Some(mut left) = index.checked_sub(1) else {
        *value = other.clone();
        return Ok(());
    };
    let children: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for child in children {
        match replace(child, left, other) {
            Ok(()) => return Ok(()),
            Err(rest) => left = rest,
        }
    }
    Err(left)
}

fn odd_value() -> impl Strategy<Value = Value> {
    const TEXTS: [&str; 7] = ["", "/", "..", "a\0b", "-1", "\u{fffd}", "/proc/self/fd/7"];
    proptest::prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::Array(vec![Value::Null, Value::Null])),
        Just(serde_json::json!({"": null, "type": "x", "path": 7})),
    ]
}

#[test]
fn a_character_that_no_text_of_the_kernel_holds_is_refused_where_it_stands() {
    for (text, path) in [
        (r#""a\u0000b""#, "the document"),
        (r#"{"ociVersion": "1.0.2\u0000"}"#, "ociVersion"),
        (
            r#"{"process": {"args": ["a", "\u0000"]}}"#,
            "process.args[1]",
        ),
    ] {
        let error = Spec::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, format!("{path}: has a NUL character in it"));
    }
}

proptest! {
    #[test]
    fn an_id_names_one_entry_of_a_directory(word in "\\PC{0,8}|[a-z./+-]{1,6}") {
        if let Ok(id) = word.parse::<ContainerId>() {
            prop_assert!(stays_below(Path::new(id.as_str())));
            prop_assert_eq!(Path::new(id.as_str()).components().count(), 1);
        }
    }

    #[test]
    fn a_kernel_parameter_stays_below_proc_sys(key in "[a-z./]{0,12}|\\PC{0,12}") {
        if let Some(path) = sysctl::path(&key) {
            prop_assert!(stays_below(Path::new(&path)));
        }
    }

    #[test]
    fn a_user_is_the_number_that_was_written(uid in any::<u64>(), gid in any::<u64>()) {
        let word: Result<UserWord, _> = format!("{uid}:{gid}").parse();
        let fits = uid.max(gid) < u64::from(u32::MAX);
        prop_assert_eq!(word.is_ok(), fits);
        if let Ok(word) = word {
            prop_assert_eq!((u64::from(word.uid), word.gid.map(u64::from)), (uid, Some(gid)));
        }
    }

    #[test]
    fn a_list_of_ranges_is_read_back_as_it_was_written(
        ranges in proptest::collection::vec((0..1000_u32, 0..1000_u32), 0..6)
    ) {
        let ranges: Vec<_> = ranges.iter().map(|(first, more)| *first..=first + more).collect();
        let words = ranges.iter().map(|range| format!("{}-{}", range.start(), range.end()));
        let text = words.collect::<Vec<_>>().join(",");
        prop_assert_eq!(list::ranges(&text), Ok(ranges));
    }

    #[test]
    fn an_option_is_either_understood_or_left_to_the_filesystem(word in "[a-z]{1,12}(=[a-z,:/]{0,6})?") {
        let left = MountOptions::read(&[&word]).data;
        let known = known_words().any(|known| known == word);
        prop_assert_eq!(left.len(), usize::from(!known));
    }

    #[test]
    fn a_spoilt_document_is_refused_by_path_or_accepted(at in any::<Index>(), odd in odd_value()) {
        let mut document: Value = serde_json::from_str(EVERY_PROPERTY).unwrap();
        let place = at.index(nodes(&mut document));
        prop_assert_eq!(replace(&mut document, place, &odd), Ok(()));
        let text = document.to_string();
        let verdict = Spec::parse(text.as_bytes()).and_then(|spec| spec.validate());
        if let Err(error) = verdict {
            let message = error.to_string();
            let path = message.split(": ").next().unwrap();
            let top = path.split(['.', '[']).next().unwrap();
            let whole = ["the document", "ociVersion", "root.path"].contains(&path);
            prop_assert!(whole || document.get(top).is_some(), "{}", message);
        }
    }
}
