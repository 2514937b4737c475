//! The profiles that engines ship mean the same to us as to runc.

use bulkhead::spec::seccomp::Seccomp;

use super::compare;
use super::engine;
use super::oracle;

/// Nothing is treated otherwise than by libseccomp, around every value that the profile compares with.
fn assert_same(profile: &Seccomp) {
    let theirs = oracle::compile(profile).expect("libseccomp takes the profile");
    let (numbers, arguments) = (compare::numbers(), compare::arguments(profile));
    assert_eq!(
        compare::difference(profile, &theirs, &numbers, &arguments),
        None
    );
}

#[test]
fn dockers_default_profile_means_the_same() {
    assert_same(&engine::docker());
}

#[test]
fn podmans_default_profile_means_the_same() {
    assert_same(&engine::podman());
}
