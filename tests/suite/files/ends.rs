//! However a server or its guest ends: the other one notices, and nothing is left.

use std::os::fd::AsFd;
use std::time::Duration;
use std::time::Instant;

use bulkhead::sys::process;

use super::place::Place;
use super::place::tree;
use crate::need;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_server_that_is_killed_is_noticed_by_the_device() {
    need!(root);
    let place = Place::new();
    let mut served = place.serve_root();
    process::signal(served.server.process.as_fd(), libc::SIGKILL).unwrap();
    assert!(served.client.driver.is_lost());
    // DEVICE_NEEDS_RESET, which is set once that was told.
    let begun = Instant::now();
    while served.client.driver.status() & 64 == 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn a_server_ends_when_nobody_holds_its_connection() {
    need!(root);
    let place = Place::new();
    let server = place.launch(&[place.share()]);
    server.ready().unwrap();
    let (watched, connection) = (server.process.try_clone().unwrap(), server.socket);
    drop(connection);
    assert!(process::ended_within(&watched, Some(PATIENCE)).unwrap());
    assert_eq!(process::wait(watched.as_fd()).unwrap().code(), 0);
}

#[test]
fn a_share_that_is_not_there_is_named_and_nothing_is_left() {
    need!(root);
    let place = Place::new();
    let server = place.launch(&[tree("3", &place.beside("nowhere"))]);
    let words = server.ready().unwrap_err().to_string();
    assert!(words.contains("cannot open share \"3\""), "{words}");
    assert!(process::ended_within(&server.process, Some(PATIENCE)).unwrap());
    assert_eq!(process::wait(server.process.as_fd()).unwrap().code(), 1);
    let left: Vec<_> = std::fs::read_dir(place.beside("")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_share_whose_name_is_a_path_is_refused() {
    need!(root);
    let place = Place::new();
    for name in ["", ".", "..", "a/b", "/", "a\0b"] {
        let server = place.launch(&[tree(name, &place.shared(""))]);
        let words = server.ready().unwrap_err().to_string();
        assert!(words.contains("cannot place share"), "{name:?}: {words}");
        process::end(server.process.as_fd());
    }
}
