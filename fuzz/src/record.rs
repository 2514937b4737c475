//! What is kept of a workspace: any bytes are refused or are a record, which reads back as what it was written.

use bulkhead::spec::id::ContainerId;
use bulkhead::workspace::record::Record;

/// Reads these bytes as the state file of the workspace `fuzz`.
pub fn run(bytes: &[u8]) {
    let id: ContainerId = "fuzz".parse().unwrap();
    let Ok(record) = Record::parse(bytes, &id) else {
        return;
    };
    assert_eq!(record.id, id);
    let written = record.to_bytes().unwrap();
    let again = Record::parse(&written, &id).unwrap();
    assert_eq!(again.to_bytes().unwrap(), written);
}
