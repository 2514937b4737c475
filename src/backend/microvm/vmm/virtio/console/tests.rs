//! What a guest says is heard up to a limit, and it never waits for a listener.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::sync::atomic::Ordering;

use crate::backend::microvm::vmm::virtio::console::Console;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;

fn say(guest: &mut Guest, words: &[u8]) {
    guest.put(BUFFERS, words);
    guest.ask(1, &[(BUFFERS, words.len())], &[]);
}

fn heard(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn words_are_kept_in_their_order() {
    let mut file = tempfile::tempfile().unwrap();
    let mut guest = Guest::ready(Console::new(Some(file.try_clone().unwrap()), 1000));
    for words in ["one ", "two ", "three\n"] {
        say(&mut guest, words.as_bytes());
    }
    assert_eq!(heard(&mut file), "one two three\n");
}

#[test]
fn a_flood_ends_at_the_limit_and_is_counted_from_there() {
    let mut file = tempfile::tempfile().unwrap();
    let console = Console::new(Some(file.try_clone().unwrap()), 10_000);
    let dropped = console.dropped();
    let mut guest = Guest::ready(console);
    for _ in 0..100 {
        say(&mut guest, &[b'x'; 1000]);
    }
    let text = heard(&mut file);
    assert_eq!(
        text.trim_end_matches("\n[the limit of this log]\n").len(),
        10_000
    );
    assert_eq!(dropped.load(Ordering::Relaxed), 90_000);
}

#[test]
fn a_pipe_that_nobody_reads_does_not_stop_the_guest() {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let console = Console::new(Some(File::from(writer)), 1 << 30);
    let dropped = console.dropped();
    let mut guest = Guest::ready(console);
    for _ in 0..100 {
        say(&mut guest, &[b'x'; 4096]);
    }
    assert!(dropped.load(Ordering::Relaxed) > 200_000);
}

#[test]
fn a_pipe_without_a_reader_does_not_end_the_machine() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let console = Console::new(Some(File::from(writer)), 1 << 20);
    let dropped = console.dropped();
    let mut guest = Guest::ready(console);
    say(&mut guest, b"anybody?");
    assert_eq!(dropped.load(Ordering::Relaxed), 8);
}

#[test]
fn one_request_is_never_listened_to_for_long() {
    let console = Console::new(None, 0);
    let dropped = console.dropped();
    let mut guest = Guest::ready(console);
    let long: Vec<_> = (0..8).map(|_| (BUFFERS, 0x4_0000)).collect();
    guest.ask(1, &long, &[]);
    assert_eq!(dropped.load(Ordering::Relaxed), 8 * 0x4_0000);
}

#[test]
fn no_driver_confuses_it() {
    hostile::survives(|| Console::new(None, 0), &[1]);
}

#[test]
fn a_mad_driver_does_not_break_it_for_its_successor() {
    random::survives(|| Console::new(None, 1 << 20));
}
