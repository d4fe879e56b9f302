//! Bars and graphs of characters.
//!
//! Needs latencies in ns, and times in ms; yields strings as wide as asked.

use super::theme::Theme;
use crate::{live::SignalFrame, report::scale::LogScale};

/// Graphs show at most so much of what was, ms.
pub(super) const SPAN_MS: u64 = 300_000;
/// Graphs span at least this ratio from bottom to top, so that noise does not look like a mountain.
const LEAST_RATIO: f64 = 10.0;

/// The range from the median to the maximum on a logarithmic axis.
pub(super) fn bar(signal: &SignalFrame, scale: LogScale, width: usize, theme: Theme) -> String {
    if width == 0 {
        return String::new();
    }
    // A percentile is a bucket's upper end, and may lie above the exact maximum.
    let cell = |ns: u64| ((scale.position(ns.min(signal.max_ns)) * width as f64) as usize).min(width - 1);
    let [p50, p90, p99, max] = [signal.p50_ns, signal.p90_ns, signal.p99_ns, signal.max_ns].map(cell);
    let [to_p90, to_p99, to_max] = theme.bars();
    (0..=max.max(p99))
        .map(|i| match i {
            i if i < p50 => ' ',
            i if i <= p90 => to_p90,
            i if i <= p99 => to_p99,
            _ => to_max,
        })
        .collect()
}

/// What came at which time, ms, oldest first; none where nothing was measured.
pub(super) type Series = Vec<(u64, Option<u64>)>;

/// How long a graph of `width` characters reaches back, ms: each window has a character until there are more of them, then
/// several share one, until they are [`SPAN_MS`] old.
pub(super) fn span_ms(series: &Series, window_ms: u64, width: usize) -> u64 {
    let narrow = window_ms.max(1).saturating_mul(width as u64);
    let there = match (series.first(), series.last()) {
        (Some((first, _)), Some((last, _))) => last.saturating_sub(*first).saturating_add(window_ms),
        _ => 0,
    };
    there.min(SPAN_MS).max(narrow)
}

/// The largest value of each part of the time, on a logarithmic axis of eight heights; the latest is rightmost.
pub(super) fn spark(series: &Series, window_ms: u64, width: usize, theme: Theme) -> String {
    let Some((end, _)) = series.last() else { return " ".repeat(width) };
    let span = span_ms(series, window_ms, width);
    let mut cells: Vec<Option<u64>> = vec![None; width];
    for (at, value) in series {
        let back = end.saturating_sub(*at);
        let place = (u128::from(back) * width as u128 / u128::from(span.max(1))) as usize;
        if let (Some(cell), Some(value)) = (cells.iter_mut().rev().nth(place), value) {
            *cell = Some(cell.map_or(*value, |most| most.max(*value)));
        }
    }
    let there = || cells.iter().flatten().map(|ns| (*ns).max(1) as f64);
    let (low, high) = (there().fold(f64::INFINITY, f64::min), there().fold(1.0, f64::max));
    let range = (high / low).max(LEAST_RATIO).ln();
    let height = |ns: u64| (((ns.max(1) as f64 / low).ln() / range * 7.0).round().max(0.0)) as usize;
    cells.iter().map(|cell| cell.map_or(' ', |ns| theme.level(height(ns)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UTF8: Theme = Theme { utf8: true, color: false };

    fn series(values: &[Option<u64>]) -> Series {
        values.iter().zip(1..).map(|(v, n)| (n * 2_000, *v)).collect()
    }

    #[test]
    fn each_window_has_a_character_until_they_are_more() {
        let values = [Some(1_000), None, Some(10_000), Some(1_000_000)];
        assert_eq!(spark(&series(&values), 2_000, 6, UTF8), "  ▁ ▃█");
        assert_eq!(span_ms(&series(&values), 2_000, 6), 12_000);
        // Twice as many as characters: each shows the worse of two.
        let ramp: Vec<_> = (0..8).map(|n| Some(10_u64.pow(n))).collect();
        assert_eq!(spark(&series(&ramp), 2_000, 4, UTF8), "▁▃▆█");
        // What is older than the span is gone.
        let long: Vec<_> = (0..400).map(|n| (n < 200).then_some(1_000_000)).collect();
        assert_eq!(spark(&series(&long), 2_000, 10, UTF8).trim(), "");
    }

    #[test]
    fn noise_is_no_mountain() {
        assert_eq!(spark(&series(&[Some(1_000), Some(1_100), Some(1_000)]), 2_000, 3, UTF8), "▁▁▁");
        assert_eq!(spark(&Vec::new(), 2_000, 3, UTF8), "   ");
    }

    #[test]
    fn bars_are_the_reports() {
        let signal = SignalFrame {
            p50_ns: 10_000,
            p90_ns: 100_000,
            p99_ns: 1_000_000,
            max_ns: 9_000_000,
            ..SignalFrame::default()
        };
        let scale = LogScale::over([1_000, 10_000_000].into_iter());
        assert_eq!(bar(&signal, scale, 8, UTF8), "  ███▓▓░");
        assert_eq!(bar(&signal, scale, 8, Theme { utf8: false, ..UTF8 }), "  ###==-");
        assert_eq!(bar(&signal, scale, 0, UTF8), "");
    }

    proptest! {
        #[test]
        fn any_series_has_a_graph(
            values in prop::collection::vec((any::<u64>(), any::<Option<u64>>()), 0..50),
            window_ms: u64,
            width in 0..80_usize,
        ) {
            prop_assert_eq!(spark(&values, window_ms, width, UTF8).chars().count(), width);
        }
    }
}
