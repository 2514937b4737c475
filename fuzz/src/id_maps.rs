//! Ranges of users: those that are accepted give each id one counterpart, and are written so that they read back the same.

use bulkhead::plan::namespaces;
use bulkhead::spec::Spec;
use bulkhead::spec::linux::IdMapping;

use super::source::Source;

/// Takes these bytes as ranges of a user namespace.
pub fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut ranges = Vec::new();
    while let (Some(inside), Some(outside), Some(size)) = (
        number(&mut source),
        number(&mut source),
        number(&mut source),
    ) {
        ranges.push(IdMapping {
            container_id: inside,
            host_id: outside,
            size,
        });
    }
    let mut spec = Spec::starter();
    spec.linux
        .namespaces
        .push(bulkhead::spec::linux::Namespace {
            kind: bulkhead::spec::linux::NamespaceKind::User,
            path: Default::default(),
        });
    spec.linux.uid_mappings.clone_from(&ranges);
    spec.linux.gid_mappings.clone_from(&ranges);
    if spec.validate().is_ok() {
        accepted(&ranges);
    }
}

/// Small numbers mostly, and some at the end of what there is.
fn number(source: &mut Source<'_>) -> Option<u32> {
    Some(match source.byte()? {
        0..=99 => u32::from(source.byte()?),
        100..=199 => u32::from(source.short()?),
        200..=239 => source.word()?,
        rest => u32::MAX - u32::from(rest - 240),
    })
}

fn accepted(ranges: &[IdMapping]) {
    assert!(ranges.len() <= 340);
    for side in [
        |range: &IdMapping| range.container_id,
        |range: &IdMapping| range.host_id,
    ] {
        let ends = |range: &IdMapping| {
            (
                u64::from(side(range)),
                u64::from(side(range)) + u64::from(range.size),
            )
        };
        let mut all: Vec<(u64, u64)> = ranges.iter().map(ends).collect();
        all.sort_unstable();
        assert!(
            all.iter()
                .all(|(first, end)| first < end && *end <= u64::from(u32::MAX))
        );
        assert!(
            all.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "an id has two counterparts"
        );
    }
    let lines = namespaces::lines(ranges);
    let read: Vec<Vec<u32>> = lines
        .lines()
        .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect())
        .collect();
    let meant: Vec<Vec<u32>> = ranges
        .iter()
        .map(|range| vec![range.container_id, range.host_id, range.size])
        .collect();
    assert_eq!(read, meant);
}
