//! The tests of the benchmark of overhead, whose own program is no test program.

#[path = "../benches/overhead/main.rs"]
#[expect(dead_code, reason = "what the tests do not call, the benchmark does")]
mod benchmark;

use benchmark::{
    overhead::{Arm, Plan, order},
    stats::Spread,
};
use std::time::Duration;

#[test]
fn the_median_is_the_middle_or_between_the_two_middle_ones() {
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
    assert_eq!(Spread::of([]), Spread::default());
    assert_eq!(Spread::of([1.0, f64::NAN]).median, 1.0);
}

#[test]
fn every_arm_has_every_place_of_a_round_once() {
    let plan = Plan {
        rounds: 5,
        cost_rounds: 1,
        time: Duration::ZERO,
        layouts: Vec::new(),
        loads: Vec::new(),
        signals: Vec::new(),
    };
    for arm in Arm::ALL {
        let mut places: Vec<_> = (0..5)
            .filter_map(|round| order(&plan, round).iter().position(|run| *run == (arm, false)))
            .collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4]);
    }
    assert_eq!(order(&plan, 0).len(), 8);
    assert_eq!(order(&plan, 1).len(), 5);
}
