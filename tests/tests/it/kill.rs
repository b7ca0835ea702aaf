//! A bounded sample of the kills and errors at system calls; `cargo run -p relink-tests --bin kill` tries all points.

use relink_tests::kill::{Scene, run};

/// One point in so many.
const EVERY: usize = 40;

#[test]
fn links_that_are_killed_or_fail_leave_the_old_image_or_the_new_one() {
    for (first, scene) in Scene::ALL.into_iter().enumerate() {
        let tally = run(scene, EVERY, first * 7, 2).unwrap_or_else(|failures| panic!("{failures}"));
        assert!(tally.points > 10 && tally.old > 0 && tally.new > 0, "{scene:?}: {tally}");
    }
}
