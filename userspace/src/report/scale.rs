//! A logarithmic axis for latencies, shared by the bars in text and the plots in HTML.
//!
//! Needs the smallest and largest latency (ns); yields positions from 0 to 1 and one tick per decade.

/// A logarithmic axis over whole decades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogScale {
    low: u32,
    high: u32,
}

impl LogScale {
    /// The axis over the decades that hold all of `values`, ns; from 1 us to 1 ms when there are none.
    pub(crate) fn over(values: impl Iterator<Item = u64>) -> Self {
        let (low, high) = values.fold((u64::MAX, 0), |(low, high), v| (low.min(v.max(1)), high.max(v)));
        if high == 0 {
            return Self { low: 3, high: 6 };
        }
        let low = low.ilog10();
        let exact = 10_u64.checked_pow(high.ilog10()) == Some(high);
        let high = high.ilog10() + u32::from(!exact);
        Self { low, high: high.max(low + 1) }
    }

    /// Where a latency lies: 0 at the left end, 1 at the right.
    pub(crate) fn position(self, ns: u64) -> f64 {
        let exponent = (ns.max(1) as f64).log10() - f64::from(self.low);
        (exponent / f64::from(self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Position and label of each decade.
    pub(crate) fn decades(self) -> impl Iterator<Item = (f64, String)> {
        (self.low..=self.high)
            .map(move |k| (f64::from(k - self.low) / f64::from(self.high - self.low), decade(k)))
    }
}

/// 10^k ns: `100 ns`, `1 us`, `10 s`.
fn decade(k: u32) -> String {
    let (unit, zeros) = match k {
        0..=2 => ("ns", k),
        3..=5 => ("us", k - 3),
        6..=8 => ("ms", k - 6),
        _ => ("s", k - 9),
    };
    format!("1{} {unit}", "0".repeat(zeros as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decades_hold_all_values() {
        let labels = |values: &[u64]| {
            LogScale::over(values.iter().copied()).decades().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(&[1_400, 1_000_000]), ["1 us", "10 us", "100 us", "1 ms"]);
        assert_eq!(labels(&[0]), ["1 us", "10 us", "100 us", "1 ms"]);
        assert_eq!(labels(&[900_000_001, 1]).last().map(String::as_str), Some("1 s"));
        assert_eq!(labels(&[100]), ["100 ns", "1 us"]);
    }

    proptest! {
        #[test]
        fn positions_are_shares(values in prop::collection::vec(any::<u64>(), 1..9), other: u64) {
            let scale = LogScale::over(values.iter().copied());
            for v in values.into_iter().chain([other]) {
                prop_assert!((0.0..=1.0).contains(&scale.position(v)));
            }
            prop_assert!(scale.decades().count() >= 2);
        }
    }
}
