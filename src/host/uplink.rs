//! How fast the way out of this host is, where its driver knows.

use std::path::Path;

/// Where the kernel says what goes where.
const ROUTES: &str = "/proc/net/route";

/// Bits per second of the interface that the default route leads to; none where there is no such, or it is of no wire.
#[must_use]
pub fn speed() -> Option<u64> {
    let routes = std::fs::read_to_string(ROUTES).ok()?;
    let interface = default_by(&routes)?;
    let path = Path::new("/sys/class/net").join(interface).join("speed");
    let mbit: i64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    // What has no speed says -1.
    let mbit = u64::try_from(mbit).ok().filter(|mbit| *mbit > 0)?;
    mbit.checked_mul(1_000_000)
}

/// The interface of the first route to everywhere.
fn default_by(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let interface = words.next()?;
        let everywhere = words.next()? == "00000000" && words.nth(5)? == "00000000";
        everywhere.then_some(interface)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_the_interface_of_the_route_to_everywhere() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                      lan0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\n\
                      wan0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\n";
        assert_eq!(default_by(routes), Some("wan0"));
        assert_eq!(default_by("Iface\n"), None);
    }
}
