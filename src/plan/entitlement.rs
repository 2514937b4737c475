//! What each of several workspaces gets when all of them want everything, and the weights that bring this about.
//!
//! A reservation is a floor, not an addition: water is filled into vessels whose bottoms are at different heights.
//! Everybody stands at the common level (in proportion to the share), and whoever was promised more stands higher.
//! All sums are of whole numbers, so the same workspaces give the same weights in whatever order they are listed.

/// The least weight of a group (`cgroup-v2.rst`, `cpu.weight`).
pub const LEAST: u64 = 1;
/// The greatest.
pub const GREATEST: u64 = 10_000;
/// What a group weighs, and what a workspace has as its share, when nobody says anything.
pub const USUAL: u64 = 100;

/// One who takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member {
    /// What it was promised, in the unit of the capacity.
    pub reserve: u64,
    /// Its part of what is left, relative to that of others.
    pub share: u64,
}

/// How high the water stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// `left` is divided by `shares` among those who are promised no more than that.
    Common { left: u128, shares: u128 },
    /// More is promised than there is: it is divided in proportion to the promises.
    Short { promised: u128 },
}

/// What each member gets of `capacity`, in the order in which they are listed.
///
/// The sum is the capacity, less at most one unit for each member; each gets at least what it was promised, unless more
/// is promised than there is.
#[must_use]
pub fn entitlements(capacity: u64, members: &[Member]) -> Vec<u64> {
    let level = level(capacity, members);
    let of = |member: &Member| match level {
        Level::Short { promised } => {
            u128::from(capacity) * u128::from(member.reserve) / promised.max(1)
        }
        Level::Common { left, shares } if stands_higher(*member, left, shares) => {
            member.reserve.into()
        }
        Level::Common { left, shares } => left * u128::from(member.share) / shares.max(1),
    };
    members
        .iter()
        .map(|member| u64::try_from(of(member)).unwrap_or(u64::MAX))
        .collect()
}

/// The weight of each member, from 1 to 10000, in the order in which they are listed.
///
/// As long as nobody is promised more than the common level, a weight is the share itself. Otherwise weights are scaled
/// so that rounding takes less than one part in a hundred from anybody, as far as the range allows; whoever has a
/// reservation is rounded up.
#[must_use]
pub fn weights(capacity: u64, members: &[Member]) -> Vec<u64> {
    weights_up_to(GREATEST, capacity, members)
}

/// The same, where the greatest weight is another.
#[must_use]
pub fn weights_up_to(greatest: u64, capacity: u64, members: &[Member]) -> Vec<u64> {
    let level = level(capacity, members);
    let heights: Vec<(u128, bool)> = members.iter().map(|one| height(*one, level)).collect();
    let most = heights.iter().map(|(height, _)| *height).max();
    let least = heights.iter().map(|(height, _)| *height).min();
    let (most, least) = (most.unwrap_or_default(), least.unwrap_or_default());
    let one = match level {
        Level::Common { left, .. } => left,
        Level::Short { .. } => 0,
    };
    let raised = heights.iter().any(|(_, raised)| *raised);
    let (times, by) = scale(greatest, (one, raised), (least, most));
    heights
        .into_iter()
        .map(|(height, raised)| {
            let exact = height * u128::from(times);
            let rounded = match raised {
                true => exact.div_ceil(by.max(1)),
                false => exact / by.max(1),
            };
            let weight = u64::try_from(rounded).unwrap_or(greatest);
            weight.clamp(LEAST, greatest)
        })
        .collect()
}

/// The weight of a group that shall get `entitled` while its neighbours together, who weigh `beside`, get `rest`.
#[must_use]
pub fn against(beside: u64, entitled: u64, rest: u64) -> u64 {
    let exact = u128::from(beside) * u128::from(entitled);
    let weight = exact.div_ceil(u128::from(rest).max(1));
    u64::try_from(weight)
        .unwrap_or(GREATEST)
        .clamp(LEAST, GREATEST)
}

/// Finds the level: whoever stands higher than the water is taken out, and it sinks, until nobody does.
fn level(capacity: u64, members: &[Member]) -> Level {
    let promised: u128 = members.iter().map(|one| u128::from(one.reserve)).sum();
    if promised > u128::from(capacity) {
        return Level::Short { promised };
    }
    let mut below: Vec<Member> = members.to_vec();
    let mut left = u128::from(capacity);
    loop {
        let shares: u128 = below.iter().map(|one| u128::from(one.share)).sum();
        let (higher, rest): (Vec<Member>, Vec<Member>) = below
            .into_iter()
            .partition(|one| stands_higher(*one, left, shares));
        if higher.is_empty() {
            return Level::Common { left, shares };
        }
        left -= higher
            .iter()
            .map(|one| u128::from(one.reserve))
            .sum::<u128>();
        below = rest;
    }
}

fn stands_higher(member: Member, left: u128, shares: u128) -> bool {
    u128::from(member.reserve) * shares > left * u128::from(member.share)
}

/// How high a member stands, in a unit that all have in common, and whether that is above the water.
fn height(member: Member, level: Level) -> (u128, bool) {
    match level {
        Level::Short { .. } => (member.reserve.into(), true),
        Level::Common { left, shares } if stands_higher(member, left, shares) => {
            (u128::from(member.reserve) * shares.max(1), true)
        }
        Level::Common { left, .. } => (u128::from(member.share) * left, false),
    }
}

/// What heights are multiplied with and divided by: `one` is the height of a share of one.
fn scale(greatest: u64, (one, raised): (u128, bool), (least, most): (u128, u128)) -> (u64, u128) {
    let wide = least * u128::from(greatest / USUAL) < most;
    if one == 0 || most > one * u128::from(greatest) || (raised && wide) {
        (greatest, most)
    } else if raised && least < one * u128::from(USUAL) {
        (USUAL, least)
    } else {
        (1, one)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A CPU in the unit that the tests count in.
    const CPU: u64 = 1_000_000_000;

    fn member(reserve: u64, share: u64) -> Member {
        Member { reserve, share }
    }

    #[test]
    fn weights_stay_in_a_smaller_range_and_in_their_ratio() {
        let members = [member(500, 100), member(0, 100), member(0, 50)];
        let weighed = weights_up_to(1000, 1000, &members);
        assert!(weighed.iter().all(|weight| (1..=1000).contains(weight)));
        assert!(
            (part(weighed[0], &weighed) - 0.5).abs() < 0.01,
            "{weighed:?}"
        );
        let even = weights_up_to(1000, 1000, &[member(999, 100), member(0, 100)]);
        assert_eq!(even, [1000, 1]);
    }

    #[test]
    fn without_reservations_everybody_weighs_their_share() {
        let members = [member(0, 100), member(0, 300), member(0, 1)];
        assert_eq!(weights(2 * CPU, &members), [100, 300, 1]);
        assert_eq!(
            entitlements(404, &members),
            [100, 302, 1],
            "a unit is lost for rounding at most"
        );
    }

    #[test]
    fn a_quarter_of_the_machine_beside_seven_others_is_a_quarter() {
        let mut members = vec![member(CPU / 2, 100)];
        members.resize(8, member(0, 100));
        let all = entitlements(2 * CPU, &members);
        assert_eq!(all[0], CPU / 2);
        assert_eq!(all[7], 3 * CPU / 2 / 7);
        assert_eq!(weights(2 * CPU, &members)[..2], [234, 100]);
    }

    #[test]
    fn a_reservation_below_the_common_level_changes_nothing() {
        let members = [member(CPU / 10, 100), member(0, 100)];
        assert_eq!(entitlements(2 * CPU, &members), [CPU, CPU]);
        assert_eq!(weights(2 * CPU, &members), [100, 100]);
    }

    #[test]
    fn when_all_is_promised_the_others_have_the_least_weight() {
        let members = [member(CPU, 100), member(CPU, 100), member(0, 100)];
        assert_eq!(weights(2 * CPU, &members), [10_000, 10_000, 1]);
    }

    #[test]
    fn when_more_is_promised_than_there_is_it_is_divided_by_the_promises() {
        let members = [member(3 * CPU, 100), member(CPU, 100)];
        assert_eq!(entitlements(2 * CPU, &members), [3 * CPU / 2, CPU / 2]);
        assert_eq!(weights(2 * CPU, &members), [10_000, 3334]);
    }

    #[test]
    fn the_hosts_part_is_kept_by_the_weight_against_the_neighbours() {
        assert_eq!(against(100, 1900, 100), 1900);
        assert_eq!(against(400, 19_000, 1), 10_000);
        assert_eq!(against(100, 1900, 0), 10_000);
        assert_eq!(against(100, 0, 100), 1);
    }

    #[test]
    fn nobody_is_no_trouble() {
        assert_eq!(weights(CPU, &[]), Vec::<u64>::new());
        assert_eq!(weights(0, &[member(0, 100)]), [1]);
    }

    /// Up to twelve members who are together promised no more than there is.
    fn crowds() -> impl Strategy<Value = (u64, Vec<Member>)> {
        let one = (0..CPU, 1u64..=10_000, any::<bool>());
        (CPU..64 * CPU, prop::collection::vec(one, 1..12)).prop_map(|(capacity, all)| {
            let members = all.into_iter().map(|(reserve, share, promised)| {
                let reserve = reserve.min(capacity / 12) * u64::from(promised);
                Member { reserve, share }
            });
            (capacity, members.collect())
        })
    }

    fn part(of: u64, all: &[u64]) -> f64 {
        let sum: u64 = all.iter().sum();
        f64::from(u32::try_from(of * 1_000_000 / sum.max(1)).unwrap()) / 1e6
    }

    proptest! {
        #[test]
        fn what_everybody_gets_is_all_there_is((capacity, members) in crowds()) {
            let sum: u64 = entitlements(capacity, &members).iter().sum();
            let count = u64::try_from(members.len()).unwrap();
            prop_assert!(sum <= capacity && sum + count >= capacity, "{sum} of {capacity}");
        }

        #[test]
        fn everybody_gets_at_least_what_was_promised((capacity, members) in crowds()) {
            for (entitled, member) in entitlements(capacity, &members).iter().zip(&members) {
                prop_assert!(*entitled >= member.reserve);
            }
        }

        #[test]
        fn who_is_promised_more_gets_no_less((capacity, members) in crowds(), more in 0..CPU) {
            let mut raised = members.clone();
            raised[0].reserve = (raised[0].reserve + more).min(capacity / 12);
            let (before, after) = (entitlements(capacity, &members), entitlements(capacity, &raised));
            prop_assert!(after[0] >= before[0]);
            for (before, after) in before.iter().zip(&after).skip(1) {
                prop_assert!(after <= before, "a promise to one took nothing from the others");
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter((capacity, members) in crowds(), by in 0usize..12) {
            let by = by % members.len();
            let mut turned = members.clone();
            turned.rotate_left(by);
            let (mut all, mut weighed) = (entitlements(capacity, &members), weights(capacity, &members));
            all.rotate_left(by);
            weighed.rotate_left(by);
            prop_assert_eq!(entitlements(capacity, &turned), all);
            prop_assert_eq!(weights(capacity, &turned), weighed);
        }

        #[test]
        fn weights_are_in_range_and_give_the_entitlements((capacity, members) in crowds()) {
            let (all, weighed) = (entitlements(capacity, &members), weights(capacity, &members));
            for (index, weight) in weighed.iter().enumerate() {
                prop_assert!((LEAST..=GREATEST).contains(weight));
                let (got, due) = (part(*weight, &weighed), part(all[index], &all));
                prop_assert!((got - due).abs() < 0.005, "{got} instead of {due}: {weighed:?} for {all:?}");
                if members[index].reserve > 0 {
                    let promised = part(members[index].reserve, &all);
                    prop_assert!(got >= promised * 0.98, "{got} of {promised}: {weighed:?}");
                }
            }
        }
    }
}
