//! What is claimed of two windows, and how often wrongly.

use super::{
    super::tests::{MINUTE, S, T0, after, minute, open, with_latencies},
    *,
};
use crate::{
    history::HistoryConfig,
    report::{Format, Options},
};
use nettrace_bench::stats::rng::Rng;
use nettrace_common::Signal;
use tempfile::TempDir;

/// About normally distributed, of mean 0 and standard deviation 1 (Irwin and Hall).
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.uniform()).sum::<f64>() - 6.0
}

/// Latencies of a minute that is so many times slower than others.
fn latencies(rng: &mut Rng, slower: f64) -> Vec<u64> {
    (0..600).map(|_| (20_000.0 * slower * (0.3 * normal(rng)).exp()) as u64).collect()
}

/// A window of which each minute is as slow as this says.
fn side(rng: &mut Rng, slower: &[f64]) -> Side {
    let asked = Range { from_unix_ns: T0, to_unix_ns: T0 + slower.len() as u64 * MINUTE };
    let mut side = Side::new(asked, slower.len().min(MOST_ROUNDS));
    for (n, slower) in slower.iter().enumerate() {
        let snapshot =
            with_latencies(minute(T0 + n as u64 * MINUTE, 10), Signal::RxTotal, &latencies(rng, *slower));
        let round = n * side.rounds.len() / side.asked_minutes();
        side.add(round, &snapshot);
        side.found.frames += 1;
        side.found.covered_ns += MINUTE;
    }
    side
}

impl Side {
    fn asked_minutes(&self) -> usize {
        ((self.asked.to_unix_ns - self.asked.from_unix_ns) / MINUTE) as usize
    }
}

/// Minutes whose levels hang together by so much from one to the next (a first-order autoregression).
fn levels(rng: &mut Rng, minutes: usize, serial: f64, slower: f64) -> Vec<f64> {
    let mut level = normal(rng);
    let step = (1.0 - serial * serial).sqrt();
    (0..minutes)
        .map(|_| {
            level = serial * level + step * normal(rng);
            slower * (0.05 * level).exp()
        })
        .collect()
}

fn verdicts(compared: &Compared) -> Vec<Verdict> {
    compared.rows.iter().map(|row| row.verdict).collect()
}

#[test]
fn a_window_that_is_slower_is_shown_to_be() {
    let (before, after) = ([1.0; 30], [1.5; 30]);
    let (mut longer, mut silent) = (0, 0);
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let compared = judge(&side(&mut rng, &before), &side(&mut rng, &after));
        for row in &compared.rows {
            assert_eq!((row.signal, row.rounds), ("rx.total", [MOST_ROUNDS; 2]));
            let [low, high] = row.bounds.unwrap();
            assert!(low < 1.5 && 1.5 < high && (row.ratio - 1.5).abs() < 0.05, "{row:?}");
            assert!((row.after_ns as f64 / row.before_ns as f64 - 1.5).abs() < 0.1, "{row:?}");
            match row.verdict {
                Verdict::Longer => longer += 1,
                // By chance rounds look as if they hung together, in some of a hundred.
                Verdict::HangTogether => silent += 1,
                _ => panic!("{row:?}"),
            }
        }
        let counts = compared.counts.iter().find(|c| c.name == "dns.transactions").unwrap();
        assert_eq!((counts.before, counts.after_per_s), (Some(300), Some(300.0 / 1800.0)));
        // The other way round.
        let compared = judge(&side(&mut rng, &after), &side(&mut rng, &before));
        assert!(!verdicts(&compared).contains(&Verdict::Longer));
        assert!(compared.sentence.contains(" got shorter, most of all rx.total p"), "{}", compared.sentence);
    }
    println!("of what differs by half: {longer} shown, {silent} not for rounds that seem to hang together");
    assert!(longer >= 24, "{longer} of 30");
}

#[test]
fn few_rounds_show_nothing_however_far_apart() {
    let mut rng = Rng::new(5);
    let compared = judge(&side(&mut rng, &[1.0; 3]), &side(&mut rng, &[9.0; 3]));
    assert_eq!(verdicts(&compared), [Verdict::TooFew; 3]);
    assert!(compared.sentence.starts_with("No difference is shown"), "{}", compared.sentence);
}

#[test]
fn what_one_window_has_not_is_not_compared() {
    let mut rng = Rng::new(5);
    let nothing = Side::new(Range { from_unix_ns: T0, to_unix_ns: T0 + MINUTE }, 1);
    let compared = judge(&side(&mut rng, &[1.0; 20]), &nothing);
    assert_eq!(compared.untold, [("rx.total", "not measured in the second window".to_owned())]);
    assert_eq!(compared.sentence, "Nothing was kept of the second window.");
    assert!(compared.rows.is_empty());
}

/// Of windows that differ in nothing but chance, how often something is claimed: where minutes are independent, and where they
/// hang together as they do on real nodes.
#[test]
fn nothing_is_claimed_where_nothing_differs() {
    const TRIALS: u32 = 200;
    let mut rng = Rng::new(17);
    for (serial, most) in [(0.0, 0.05), (0.3, 0.08), (0.6, 0.08), (0.9, 0.05)] {
        let mut claimed = 0;
        for _ in 0..TRIALS {
            let sides = [(); 2].map(|()| {
                let levels = levels(&mut rng, 20, serial, 1.0);
                let values: Vec<f64> = levels.iter().map(|level| level.ln()).collect();
                let mut side = Side::new(Range::ALL, 0);
                side.rounds = values.iter().map(|v| single((20_000.0 * v.exp()) as u64)).collect();
                side.whole = single(20_000);
                side.found.frames = 20;
                side
            });
            let compared = judge(&sides[0], &sides[1]);
            let claims = |row: &Row| matches!(row.verdict, Verdict::Longer | Verdict::Shorter);
            claimed += u32::from(compared.rows.iter().any(claims));
        }
        let share = f64::from(claimed) / f64::from(TRIALS);
        println!("serial correlation {serial}: something is claimed in {share:.3} of windows that are alike");
        assert!(share <= most, "{serial}: {share}");
    }
}

/// A round of one signal whose latencies are all the same.
fn single(ns: u64) -> BTreeMap<&'static str, Hist> {
    let mut hist = Hist::new();
    hist.record_n(ns, 1000);
    BTreeMap::from([("rx.total", hist)])
}

#[test]
fn rounds_that_follow_each_other_prove_nothing() {
    let mut rng = Rng::new(3);
    // A slow rise in each window, and another level.
    let rise = |from: f64| -> Vec<f64> { (0..20).map(|n| from * 1.02_f64.powi(n)).collect() };
    let compared = judge(&side(&mut rng, &rise(1.0)), &side(&mut rng, &rise(1.6)));
    assert_eq!(compared.rows[0].verdict, Verdict::HangTogether, "{:?}", compared.rows[0]);
    assert!(compared.rows[0].serial > 0.5);
}

#[test]
fn windows_of_a_history_are_read_and_written_in_every_format() {
    let dir = TempDir::new().unwrap();
    let config = HistoryConfig { dir: dir.path().to_owned(), ..HistoryConfig::default() };
    let mut store = open(&config);
    let mut rng = Rng::new(9);
    for n in 0..60 {
        let start = T0 + n * MINUTE;
        let slower = if n < 30 { 1.0 } else { 2.0 };
        let snapshot = with_latencies(minute(start, n), Signal::RxTotal, &latencies(&mut rng, slower));
        store.append_at(&snapshot, after(start)).unwrap();
    }
    let half = |n: u64| Range { from_unix_ns: T0 + n * 1800 * S, to_unix_ns: T0 + (n + 1) * 1800 * S };
    let compared = compare(dir.path(), half(0), half(1)).unwrap();
    assert!(verdicts(&compared).contains(&Verdict::Longer), "{:?}", compared.rows);
    assert_eq!((compared.before.frames, compared.after.rounds), (30, MOST_ROUNDS));
    for format in [Format::Text, Format::Markdown, Format::Html, Format::Json] {
        let text = render(&compared, format, &Options::default()).unwrap();
        assert!(text.contains("rx.total") && text.contains("node-1"), "{text}");
    }
    let text = render(&compared, Format::Text, &Options::default()).unwrap();
    assert!(text.contains("longer") && text.contains("2.0"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&render(&compared, Format::Json, &Options::default()).unwrap()).unwrap();
    assert_eq!(json["kind"], "history-comparison");
    assert_eq!(json["rows"][0]["verdict"], "longer");
}
