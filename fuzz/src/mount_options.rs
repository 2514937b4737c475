//! Options of a mount: any words are bits of the mount or data of the file system, and reading loses none of them.

use bulkhead::spec::mount_options;
use bulkhead::spec::mount_options::MountOptions;

/// Reads these bytes as options with commas between them.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split(',').collect();
    let read = MountOptions::read(&words);
    assert!(read.data.len() <= words.len());
    // What is no word of the runtime's own goes to the file system as it stands.
    let known: Vec<&str> = mount_options::known_words().collect();
    for option in &read.data {
        let whole = match &option.value {
            Some(value) => format!("{}={value}", option.key),
            None => option.key.clone(),
        };
        assert!(
            words.contains(&whole.as_str()),
            "{whole:?} was not asked for"
        );
        assert!(
            !known.contains(&whole.as_str()),
            "{whole:?} is a word for us"
        );
    }
    let again = MountOptions::read(&words);
    assert_eq!(format!("{read:?}"), format!("{again:?}"));
}
