//! Axes of plots of a bench, shared by bars in text and figures in HTML.
//!
//! Needs the values that are to lie on them; yields positions from 0 to 1.

/// An axis that fits its values, with room at both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    is_log: bool,
    /// Of the ends, on the axis' own scale.
    low: f64,
    high: f64,
}

/// Share of the axis that is left free at each end.
const ROOM: f64 = 0.06;
/// Logarithms are kept within this.
const FARTHEST: f64 = 60.0;

impl Axis {
    /// Logarithmic, for what is compared by ratios.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        Self::over(true, values)
    }

    /// From 0, for counts.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        Self::over(false, values.chain([0.0]))
    }

    fn over(is_log: bool, values: impl Iterator<Item = f64>) -> Self {
        let scaled = values.filter(|v| v.is_finite()).map(|v| scaled(is_log, v));
        let (low, high) = scaled.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (0.0, 0.0) } else { (low, high) };
        // All the same lie in the middle.
        let room = match (high - low) * ROOM {
            room if room > 0.0 => room,
            _ if is_log => ROOM,
            _ => (high.abs() * ROOM).max(ROOM),
        };
        Self { is_log, low: low - room, high: high + room }
    }

    /// What lies at the low and at the high end; nothing is below 0.
    pub(super) fn ends(self) -> [f64; 2] {
        [self.low, self.high].map(|end| if self.is_log { end.exp() } else { end.max(0.0) })
    }

    /// Where a value lies: 0 at the low end, 1 at the high end, and there, too, what is infinite.
    pub(super) fn position(self, v: f64) -> f64 {
        if v == f64::INFINITY {
            return 1.0;
        }
        let position = (scaled(self.is_log, v) - self.low) / (self.high - self.low);
        if position.is_finite() { position.clamp(0.0, 1.0) } else { 0.5 }
    }
}

fn scaled(is_log: bool, v: f64) -> f64 {
    if is_log { v.max(0.0).ln().clamp(-FARTHEST, FARTHEST) } else { v }
}

/// An axis of ratios, with 1 on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratios(Axis);

/// Ratios that are marked where there is room.
const MARKS: [f64; 23] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0,
    20.0, 50.0, 100.0, 1000.0,
];
/// Marks are no nearer to each other than this, as a share of the axis.
const APART: f64 = 0.11;
/// Effects beyond this, and below its reverse, lie at the ends.
const LARGEST: f64 = 1000.0;

impl Ratios {
    /// Over these, 1, and the effect that matters (as a share) to both sides.
    pub(super) fn over(values: impl Iterator<Item = f64>, effect: f64) -> Self {
        let matters = [1.0 + effect, 1.0 / (1.0 + effect)];
        Self(Axis::log(values.chain(matters).map(|v| v.clamp(1.0 / LARGEST, LARGEST))))
    }

    /// Where a ratio lies.
    pub(super) fn position(self, ratio: f64) -> f64 {
        self.0.position(ratio)
    }

    /// Ratios to mark, ascending; 1 is always among them.
    pub(super) fn marks(self) -> Vec<f64> {
        let mut marks = vec![1.0];
        let is_free = |marks: &[f64], v: f64| {
            marks.iter().all(|other| (self.position(v) - self.position(*other)).abs() >= APART)
        };
        for v in MARKS {
            let inside = (0.02..=0.98).contains(&self.position(v));
            if inside && is_free(&marks, v) {
                marks.push(v);
            }
        }
        marks.sort_by(f64::total_cmp);
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_lie_between_the_ends() {
        let axis = Axis::log([10.0, 1000.0].into_iter());
        assert!((axis.position(100.0) - 0.5).abs() < 1e-9);
        assert!(axis.position(10.0) > 0.04 && axis.position(1000.0) < 0.96);
        assert!((axis.position(f64::INFINITY) - 1.0).abs() < 1e-9);
        assert_eq!(Axis::from_zero([100.0].into_iter()).ends(), [0.0, 106.0]);
        let same = Axis::log([7.0, 7.0].into_iter());
        assert!((same.position(7.0) - 0.5).abs() < 1e-9);
        let counts = Axis::from_zero([10.0].into_iter());
        assert!(counts.position(0.0) < 0.1 && counts.position(10.0) > 0.9);
        assert!((Axis::log(std::iter::empty()).position(1.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn one_is_marked_and_others_where_there_is_room() {
        assert_eq!(Ratios::over([0.8, 1.25].into_iter(), 0.05).marks(), [0.8, 0.9, 1.0, 1.1, 1.25]);
        assert!(Ratios::over(std::iter::empty(), 0.05).marks().contains(&1.0));
        let far = Ratios::over([1e-9, 1e9].into_iter(), 0.05);
        assert!((far.position(1.0) - 0.5).abs() < 0.01 && far.position(1e9) > 0.9);
    }

    proptest! {
        #[test]
        fn positions_are_shares(values in prop::collection::vec(any::<f64>(), 0..9), other: f64) {
            let every = || values.iter().copied().chain([other]);
            for axis in [Axis::log(values.iter().copied()), Axis::from_zero(values.iter().copied())] {
                for v in every() {
                    prop_assert!((0.0..=1.0).contains(&axis.position(v)), "{axis:?} {v}");
                }
            }
            let ratios = Ratios::over(values.iter().copied(), 0.05);
            prop_assert!(every().all(|v| (0.0..=1.0).contains(&ratios.position(v))));
            prop_assert!(ratios.marks().len() < 12);
        }
    }
}
