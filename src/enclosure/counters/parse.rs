//! Reads the forms that the kernel writes counters in.

use std::collections::BTreeMap;

use crate::enclosure::counters::IoDevice;
use crate::enclosure::counters::Pressure;
use crate::enclosure::counters::Rdma;
use crate::enclosure::counters::Waited;

/// Lines of a name and a number, like `memory.stat`.
pub(super) fn pairs(lines: &str) -> BTreeMap<String, u64> {
    lines
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// A line like `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`; none for what is no device.
pub(super) fn io_device(line: &str) -> Option<IoDevice> {
    let (device, counts) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let mut found = IoDevice {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..IoDevice::default()
    };
    for (name, value) in keyed(counts) {
        let field = match name {
            "rbytes" => &mut found.read_bytes,
            "wbytes" => &mut found.written_bytes,
            "dbytes" => &mut found.discarded_bytes,
            "rios" => &mut found.reads,
            "wios" => &mut found.writes,
            "dios" => &mut found.discards,
            _ => continue,
        };
        *field = value.parse().unwrap_or_default();
    }
    Some(found)
}

/// Lines like `mlx5_0 hca_handle=2 hca_object=20`.
pub(super) fn rdma(lines: &str) -> Vec<Rdma> {
    lines
        .lines()
        .filter_map(|line| {
            let (device, counts) = line.split_once(' ')?;
            let of = |wanted: &str| {
                keyed(counts)
                    .find(|(name, _)| *name == wanted)
                    .and_then(|(_, value)| value.parse().ok())
                    .unwrap_or_default()
            };
            Some(Rdma {
                device: device.to_owned(),
                handles: of("hca_handle"),
                objects: of("hca_object"),
            })
        })
        .collect()
}

/// Lines like `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
pub(super) fn pressure(lines: &str) -> Pressure {
    let of = |wanted: &str| {
        lines
            .lines()
            .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(' '))
            .map(waited)
            .unwrap_or_default()
    };
    Pressure {
        some: of("some"),
        full: of("full"),
    }
}

fn waited(line: &str) -> Waited {
    let mut found = Waited::default();
    for (name, value) in keyed(line) {
        match name {
            "avg10" => found.avg10 = value.parse().unwrap_or_default(),
            "avg60" => found.avg60 = value.parse().unwrap_or_default(),
            "avg300" => found.avg300 = value.parse().unwrap_or_default(),
            "total" => found.total_us = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    found
}

fn keyed(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_whatever_else_stands_in_its_line() {
        let line = "259:1 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0 cost.usage=3";
        let expected = IoDevice {
            major: 259,
            minor: 1,
            read_bytes: 10,
            written_bytes: 20,
            reads: 1,
            writes: 2,
            ..IoDevice::default()
        };
        assert_eq!(io_device(line), Some(expected));
        assert_eq!(io_device("(unknown) rbytes=1"), None);
    }

    #[test]
    fn pressure_is_read_for_some_and_for_all() {
        let lines = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n\
                     full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let found = pressure(lines);
        assert_eq!((found.some.total_us, found.full.total_us), (77, 5));
        assert!((found.some.avg10 - 1.5).abs() < f64::EPSILON);
    }

    #[test]
    fn the_use_of_an_rdma_device_is_read() {
        let expected = Rdma {
            device: "mlx5_0".to_owned(),
            handles: 2,
            objects: 20,
        };
        assert_eq!(rdma("mlx5_0 hca_handle=2 hca_object=20\n"), [expected]);
    }
}
