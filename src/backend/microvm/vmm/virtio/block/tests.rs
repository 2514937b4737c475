//! What is written to a disk is on it, where it was written and nowhere else.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use std::time::Instant;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::block::Block;
use crate::backend::microvm::vmm::virtio::block::BlockOptions;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;

/// The size of the disk of most tests.
const SECTORS: u64 = 2048;
/// Where heads, data and statuses are put.
const HEAD: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = GAP_END;

fn image() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512).unwrap();
    file
}

/// Both ways in which a disk works, and the file that it is on.
fn disks(options: &BlockOptions) -> Vec<(Guest, File)> {
    let both = [false, true].map(|direct| {
        let file = image();
        let options = BlockOptions {
            direct,
            ..options.clone()
        };
        let disk = Block::new(file.try_clone().unwrap(), &options).unwrap();
        assert!(!direct || !disk.is_asynchronous());
        (Guest::ready(disk), file)
    });
    both.into()
}

fn head(guest: &Guest, kind: u32, sector: u64) -> (u64, usize) {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    guest.put(HEAD, &bytes);
    guest.put(STATUS, &[0xaa]);
    (HEAD, 16)
}

fn status(guest: &Guest) -> u8 {
    guest.get(STATUS, 1)[0]
}

fn write(guest: &mut Guest, sector: u64, pieces: &[(u64, usize)]) -> u8 {
    let mut given = vec![head(guest, 1, sector)];
    given.extend(pieces);
    assert_eq!(guest.ask(0, &given, &[(STATUS, 1)]), 1);
    status(guest)
}

fn read(guest: &mut Guest, sector: u64, pieces: &[(u64, usize)]) -> u8 {
    let head = head(guest, 0, sector);
    let mut room = pieces.to_vec();
    room.push((STATUS, 1));
    guest.ask(0, &[head], &room);
    status(guest)
}

/// A request with nothing but a head and more to be given.
fn order(guest: &mut Guest, kind: u32, given: &[u8]) -> u8 {
    let head = head(guest, kind, 0);
    guest.put(DATA, given);
    let all = [head, (DATA, given.len())];
    let all = if given.is_empty() { &all[..1] } else { &all };
    guest.ask(0, all, &[(STATUS, 1)]);
    status(guest)
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap() ^ seed)
        .collect()
}

fn on_disk(file: &mut File, sector: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.seek(std::io::SeekFrom::Start(sector * 512)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_in_pieces_is_on_the_disk_and_is_read_back() {
    for (mut guest, mut file) in disks(&BlockOptions::default()) {
        let bytes = pattern(8192, 7);
        guest.put(DATA, &bytes);
        let pieces = [
            (DATA, 100),
            (DATA + 100, 3996),
            (DATA + 4096, 4095),
            (DATA + 8191, 1),
        ];
        assert_eq!(write(&mut guest, 5, &pieces), 0);
        assert_eq!(on_disk(&mut file, 5, 8192), bytes);
        assert_eq!(on_disk(&mut file, 4, 512), [0; 512]);
        assert_eq!(on_disk(&mut file, 21, 512), [0; 512]);
        let room = [(DATA + 0x8000, 1), (DATA + 0x8001, 8191)];
        assert_eq!(read(&mut guest, 5, &room), 0);
        assert_eq!(guest.get(DATA + 0x8000, 8192), bytes);
    }
}

#[test]
fn the_last_sector_is_the_last() {
    for (mut guest, _) in disks(&BlockOptions::default()) {
        let last = SECTORS - 1;
        assert_eq!(write(&mut guest, last, &[(DATA, 512)]), 0);
        assert_eq!(write(&mut guest, last, &[(DATA, 1024)]), 1);
        for beyond in [SECTORS, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1] {
            assert_eq!(write(&mut guest, beyond, &[(DATA, 512)]), 1, "{beyond}");
            assert_eq!(read(&mut guest, beyond, &[(DATA, 512)]), 1, "{beyond}");
        }
        assert_eq!(write(&mut guest, 0, &[(DATA, 511)]), 1);
        assert_eq!(write(&mut guest, 0, &[]), 1);
        assert_eq!(read(&mut guest, 0, &[(DATA, 513)]), 1);
    }
}

#[test]
fn a_disk_never_grows() {
    for (mut guest, file) in disks(&BlockOptions::default()) {
        for sector in [SECTORS - 1, SECTORS, SECTORS + 8] {
            write(&mut guest, sector, &[(DATA, 4096)]);
        }
        let mut parts = SECTORS.to_le_bytes().to_vec();
        parts.extend([8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(order(&mut guest, 13, &parts), 1);
        assert_eq!(file.metadata().unwrap().len(), SECTORS * 512);
    }
}

#[test]
fn a_read_only_disk_is_not_written_whatever_is_asked() {
    let options = BlockOptions {
        read_only: true,
        ..BlockOptions::default()
    };
    for (mut guest, file) in disks(&options) {
        file.write_all_at(b"as it was", 0).unwrap();
        assert_eq!(write(&mut guest, 0, &[(DATA, 512)]), 1);
        let part = [0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(order(&mut guest, 11, &part), 1);
        assert_eq!(order(&mut guest, 13, &part), 1);
        assert_eq!(read(&mut guest, 0, &[(DATA, 512)]), 0);
        assert_eq!(guest.get(DATA, 9), b"as it was");
        assert_ne!(guest.offered() & (1 << 5), 0);
    }
}

#[test]
fn an_image_that_looks_like_another_format_is_the_bytes_that_it_is() {
    for (mut guest, file) in disks(&BlockOptions::default()) {
        file.write_all_at(b"QFI\xfb\x00\x00\x00\x03/etc/shadow", 0)
            .unwrap();
        assert_eq!(read(&mut guest, 0, &[(DATA, 512)]), 0);
        assert_eq!(guest.get(DATA, 19), b"QFI\xfb\x00\x00\x00\x03/etc/shadow");
    }
}

#[test]
fn parts_that_are_discarded_or_zeroed_read_as_zeroes() {
    for (mut guest, mut file) in disks(&BlockOptions::default()) {
        guest.put(DATA, &pattern(0x1_0000, 3));
        for (kind, flags) in [(11, 0), (13, 0), (13, 1)] {
            guest.put(DATA, &pattern(0x4000, 3));
            assert_eq!(write(&mut guest, 0, &[(DATA, 0x4000)]), 0);
            let mut part = 8_u64.to_le_bytes().to_vec();
            part.extend(8_u32.to_le_bytes());
            part.extend(u32::to_le_bytes(flags));
            assert_eq!(order(&mut guest, kind, &part), 0, "{kind} {flags}");
            let bytes = on_disk(&mut file, 0, 0x4000);
            assert_eq!(bytes[..4096], pattern(0x4000, 3)[..4096]);
            assert_eq!(bytes[4096..8192], [0; 4096]);
            assert_eq!(bytes[8192..], pattern(0x4000, 3)[8192..]);
        }
    }
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let part = |sector: u64, count: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes
    };
    for (mut guest, _) in disks(&BlockOptions::default()) {
        for bytes in [
            part(SECTORS, 1, 0),
            part(0, u32::MAX, 0),
            part(u64::MAX, 8, 0),
            part(0, 8, 0)[..15].to_vec(),
            part(0, 8, 0).repeat(33),
            Vec::new(),
        ] {
            assert_eq!(order(&mut guest, 11, &bytes), 1, "{bytes:?}");
            assert_eq!(order(&mut guest, 13, &bytes), 1, "{bytes:?}");
        }
        for flags in [1, 2, u32::MAX] {
            assert_eq!(order(&mut guest, 11, &part(0, 8, flags)), 2);
        }
        assert_eq!(order(&mut guest, 13, &part(0, 8, 2)), 2);
    }
}

#[test]
fn a_disk_has_a_name_and_answers_a_flush_and_nothing_strange() {
    let options = BlockOptions {
        name: "a name that is too long for it".to_owned(),
        ..BlockOptions::default()
    };
    for (mut guest, _) in disks(&options) {
        let head = head(&guest, 8, 0);
        guest.put(DATA, &[b'-'; 32]);
        assert_eq!(guest.ask(0, &[head], &[(DATA, 24), (STATUS, 1)]), 25);
        assert_eq!(guest.get(DATA, 24), b"a name that is too l----");
        assert_eq!(order(&mut guest, 4, &[]), 0);
        for kind in [2, 3, 14, 0x8000_0000, u32::MAX] {
            assert_eq!(order(&mut guest, kind, &[0; 512]), 2, "{kind}");
        }
    }
}

#[test]
fn the_configuration_says_how_large_the_disk_is() {
    let file = image();
    file.set_len(SECTORS * 512 + 511).unwrap();
    let mut guest = Guest::new(Block::new(file, &BlockOptions::default()).unwrap());
    assert_eq!(guest.config(0, 8), SECTORS.to_le_bytes());
    assert_eq!(guest.config(12, 4), 254_u32.to_le_bytes());
    assert_eq!(guest.config(20, 4), 512_u32.to_le_bytes());
    assert_eq!(guest.config(56, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    for (mut guest, mut file) in disks(&BlockOptions::default()) {
        for index in 0..5_u8 {
            let place = u64::from(index) * 0x1000;
            let mut bytes = 1_u32.to_le_bytes().to_vec();
            bytes.extend([0; 4]);
            bytes.extend((u64::from(index) * 8).to_le_bytes());
            guest.put(HEAD + 0x200 + 16 * u64::from(index), &bytes);
            guest.put(DATA + place, &pattern(4096, index));
            let head = (HEAD + 0x200 + 16 * u64::from(index), 16);
            guest.offer(0, &[head, (DATA + place, 4096)], &[(STATUS, 1)]);
        }
        guest.kick(0);
        let mut heads: Vec<u16> = (0..5).map(|_| guest.answer(0).0).collect();
        heads.sort_unstable();
        assert_eq!(heads, [0, 3, 6, 9, 12]);
        for index in 0..5_u8 {
            let bytes = on_disk(&mut file, u64::from(index) * 8, 4096);
            assert_eq!(bytes, pattern(4096, index));
        }
    }
}

#[test]
fn a_request_without_a_head_or_a_status_stops_the_disk() {
    for (mut guest, _) in disks(&BlockOptions::default()) {
        for (given, room) in [
            (vec![(HEAD, 15)], vec![(STATUS, 1)]),
            (vec![], vec![(STATUS, 1)]),
            (vec![(HEAD, 16), (DATA, 512)], vec![]),
        ] {
            guest.set_up(u64::MAX);
            guest.offer(0, &given, &room);
            guest.kick(0);
            guest.needs_reset();
        }
    }
}

#[test]
fn a_limit_holds_and_the_disk_goes_on_by_itself() {
    let options = BlockOptions {
        limit: Some(Limit {
            bytes_per_second: Some(1 << 20),
            operations_per_second: None,
        }),
        ..BlockOptions::default()
    };
    for (mut guest, _) in disks(&options) {
        let start = Instant::now();
        // A second's worth passes at once, and as much debt as one request makes.
        for _ in 0..9 {
            assert_eq!(write(&mut guest, 0, &[(DATA, 0x2_0000)]), 0);
        }
        assert_eq!(write(&mut guest, 0, &[(DATA, 0x2_0000)]), 0);
        let took = start.elapsed();
        assert!(took > Duration::from_millis(100), "{took:?}");
    }
}

#[test]
fn a_reset_waits_for_what_is_under_way() {
    for (mut guest, _) in disks(&BlockOptions::default()) {
        for _ in 0..50 {
            let head = head(&guest, 0, 0);
            guest.offer(0, &[head], &[(DATA, 0x8_0000), (STATUS, 1)]);
            guest.kick(0);
            guest.status(0);
            guest.put(DATA, b"mine again");
            assert_eq!(guest.get(DATA, 10), b"mine again");
            guest.set_up(u64::MAX);
        }
        assert_eq!(read(&mut guest, 0, &[(DATA, 512)]), 0);
    }
}

#[test]
fn a_request_that_is_under_way_is_not_taken_a_second_time() {
    for (mut guest, _) in disks(&BlockOptions::default()) {
        let head = head(&guest, 0, 0);
        let first = guest.offer(0, &[head], &[(DATA, 0x8_0000), (STATUS, 1)]);
        guest.offer_head(0, first);
        guest.kick(0);
        let mut answers = 0;
        guest.wait("refusal, or a second answer after the first", |guest| {
            answers += usize::from(guest.try_answer(0).is_some());
            let refused = guest.register(0x70) == 0x4f;
            (refused || answers == 2).then_some(())
        });
        let told = guest.troubles();
        let expected = format!("queue 0: request {first} is");
        assert!(
            told.iter().all(|one| one.starts_with(&expected)),
            "{told:?}"
        );
        guest.set_up(u64::MAX);
        assert_eq!(read(&mut guest, 0, &[(DATA, 512)]), 0);
    }
}

#[test]
fn a_file_that_shrinks_is_a_failed_request_and_nothing_worse() {
    for (mut guest, file) in disks(&BlockOptions::default()) {
        file.set_len(512).unwrap();
        assert_eq!(read(&mut guest, 0, &[(DATA, 512)]), 0);
        assert_eq!(read(&mut guest, 0, &[(DATA, 1024)]), 1);
        assert_eq!(read(&mut guest, 100, &[(DATA, 512)]), 1);
    }
}

#[test]
fn this_host_has_a_ring_or_is_told_that_it_may_not_use_one() {
    let disk = Block::new(image(), &BlockOptions::default()).unwrap();
    let forbidden = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let forbidden = forbidden.is_ok_and(|text| text.trim() == "2");
    assert_eq!(disk.is_asynchronous(), !forbidden);
}

#[test]
fn no_driver_confuses_a_disk() {
    for direct in [false, true] {
        let options = BlockOptions {
            direct,
            ..BlockOptions::default()
        };
        hostile::survives(|| Block::new(image(), &options).unwrap(), &[0]);
    }
}

#[test]
fn a_mad_driver_does_not_break_a_disk_for_its_successor() {
    random::survives(|| Block::new(image(), &BlockOptions::default()).unwrap());
}
