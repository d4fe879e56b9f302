use super::*;
use crate::result::sample::{Slower, experiment, run};

const SAME: Slower = Slower { all: 1.0, tail: 1.0 };

fn row(comparison: &Comparison, metric: Metric) -> &Row {
    comparison.rows.iter().find(|row| row.metric == metric).unwrap()
}

fn arms(seed: u64, pairs: u32, slower: Slower) -> Comparison {
    compare_arms(&experiment(seed, pairs, slower), &Options::default()).unwrap()
}

/// The most that a count may be without being shown to be of a larger share: three standard deviations.
fn most(share: f64, trials: u64) -> u64 {
    let trials = trials as f64;
    (share * trials + 3.0 * (share * (1.0 - share) * trials).sqrt()) as u64
}

/// 200 experiments in which nothing was changed, on a machine that drifts.
#[test]
fn nothing_is_found_where_nothing_was_changed() {
    const EXPERIMENTS: u64 = 200;
    let (mut wrong, mut missed) = (0, 0);
    for seed in 0..EXPERIMENTS {
        let comparison = arms(seed, 10, SAME);
        assert_eq!(comparison.rows.len(), 4, "600 latencies do not tell a p99.9, and there are no errors");
        wrong += u64::from(!matches!(comparison.overall, Overall::NoDifference | Overall::TooNoisy));
        let holds = |row: &Row| row.bounds.is_some_and(|b| b.low <= 1.0 && b.high >= 1.0);
        missed += u64::from(!comparison.rows.iter().all(holds));
    }
    println!("A/A: {wrong} false verdicts and {missed} intervals without 1 in {EXPERIMENTS} experiments");
    assert!(wrong <= most(0.05, EXPERIMENTS) && missed <= most(0.05, EXPERIMENTS), "{wrong} {missed}");
}

/// A known effect is found with its sign, and the intervals hold it.
#[test]
fn what_was_injected_is_found() {
    const EXPERIMENTS: u64 = 60;
    let only_tail = Slower { all: 1.0, tail: 1.5 };
    for (name, slower, pairs, metrics, truth) in [
        ("+5 %", Slower { all: 1.05, tail: 1.0 }, 24, vec![Metric::P50, Metric::P90], 1.05),
        ("+20 %", Slower { all: 1.2, tail: 1.0 }, 10, vec![Metric::P50, Metric::P90, Metric::P99], 1.2),
        ("only the tail", only_tail, 14, vec![Metric::P99], 1.5),
    ] {
        let (mut found, mut held, mut wrong, mut of) = (0, 0, 0, 0);
        for seed in 1000..1000 + EXPERIMENTS {
            let comparison = arms(seed, pairs, slower);
            for metric in &metrics {
                let row = row(&comparison, *metric);
                of += 1;
                found += u64::from(row.verdict == Verdict::Worse);
                held += u64::from(row.bounds.is_some_and(|b| b.low <= truth && truth <= b.high));
            }
            wrong += u64::from(comparison.rows.iter().any(|row| row.verdict == Verdict::Better));
            if slower.all > 1.0 {
                let throughput = row(&comparison, Metric::Throughput).effect;
                assert!(throughput < 1.0, "{name}: {throughput}");
            } else {
                // What lies below the tail is as it was.
                wrong += u64::from(row(&comparison, Metric::P50).verdict == Verdict::Worse);
            }
        }
        println!("{name}, {pairs} pairs: found {found} of {of}, intervals hold {held}, {wrong} wrong");
        assert!(found * 10 >= of * 7, "{name}: {found} of {of}");
        // p99 of 600 latencies is no exact multiple where only the tail moves: its truth is known to some per cent.
        assert!(of - held <= most(0.05, of), "{name}: {held} of {of}");
        assert!(wrong <= most(0.05, EXPERIMENTS), "{name}: {wrong}");
    }
}

#[test]
fn separate_runs_are_compared_by_their_rounds() {
    let comparison = compare(&run(1, 10, 1.0), &run(2, 12, 2.0), &Options::default()).unwrap();
    assert_eq!((comparison.method, comparison.rounds), (Method::Separate, [10, 12]));
    let p50 = row(&comparison, Metric::P50);
    let bounds = p50.bounds.unwrap();
    assert!(p50.verdict == Verdict::Worse && bounds.low < 2.0 && bounds.high > 2.0, "{p50:?}");
    assert_eq!(p50.rounds, [10, 12]);
    assert_eq!(row(&comparison, Metric::Throughput).verdict, Verdict::Worse);
    assert!(comparison.sentence.starts_with("Worse: tcp_rr p"), "{}", comparison.sentence);
    assert_eq!(comparison.overall, Overall::Worse);
    let back = compare(&run(2, 12, 2.0), &run(1, 10, 1.0), &Options::default()).unwrap();
    assert_eq!(back.overall, Overall::Better, "{}", back.sentence);
    let untold: Vec<_> = comparison.untold.iter().map(|u| (u.metric, u.because.as_str())).collect();
    assert_eq!(
        untold,
        [
            (Metric::P999, "600 latencies a round are fewer than the 5000 that tell it"),
            (Metric::Errors, "there were none")
        ]
    );
}

/// Why interleaved rounds are the better way: between two runs, drift is taken for an effect.
#[test]
fn drift_is_an_effect_of_two_runs_and_of_interleaved_rounds_none() {
    const EXPERIMENTS: u64 = 60;
    let (mut separate, mut paired) = (0, 0);
    let is_wrong =
        |c: &Comparison| u64::from(!matches!(c.overall, Overall::NoDifference | Overall::TooNoisy));
    for seed in 0..EXPERIMENTS {
        // The same machine all the time, its first twelve rounds and its next.
        let mut before = run(seed, 24, 1.0);
        let mut after = before.clone();
        after.rounds = before.rounds.split_off(12);
        let comparison = compare(&before, &after, &Options::default()).unwrap();
        assert!(comparison.warnings[0].contains("drift of the machine too; interleaved rounds"));
        separate += is_wrong(&comparison);
        paired += is_wrong(&arms(seed, 12, SAME));
    }
    println!("A/A with drift: {separate} of {EXPERIMENTS} wrong of two runs, {paired} of interleaved rounds");
    assert!(separate > 3 * most(0.05, EXPERIMENTS), "{separate}");
    assert!(paired <= most(0.05, EXPERIMENTS), "{paired}");
}

#[test]
fn strong_drift_within_a_run_is_told() {
    let still = run(3, 12, 1.0);
    let mut drifting = run(4, 12, 1.0);
    let slow = run(4, 12, 1.5);
    drifting.rounds.splice(6.., slow.rounds.into_iter().skip(6));
    let comparison = compare(&still, &drifting, &Options::default()).unwrap();
    assert_eq!(comparison.warnings.len(), 2, "{:?}", comparison.warnings);
    assert!(comparison.warnings[1].starts_with("the run after drifts: tcp_rr p50 of its second half is 1."));
    assert!(compare_arms(&experiment(5, 8, SAME), &Options::default()).unwrap().warnings.is_empty());
}

#[test]
fn few_rounds_say_how_many_are_needed() {
    let comparison = arms(3, 4, SAME);
    assert_eq!(comparison.overall, Overall::TooNoisy);
    let p50 = row(&comparison, Metric::P50);
    assert_eq!((p50.bounds, p50.detectable, p50.verdict), (None, None, Verdict::TooNoisy));
    let needed = p50.rounds_needed.unwrap();
    assert!((8..100).contains(&needed), "{needed}");
    let said = &comparison.sentence;
    assert!(said.contains("4 and 4 rounds cannot show anything; 8 of each arm are the least"), "{said}");
    assert!(cells(p50)[8].starts_with("too noisy: "), "{:?}", cells(p50));
}

#[test]
fn far_rounds_are_named_and_kept() {
    let mut result = experiment(5, 12, SAME);
    let victim = result.rounds.iter_mut().find(|r| r.block == 7 && r.arm == Arm::B).unwrap();
    for outcome in victim.loads.values_mut() {
        let mut latency = crate::result::Latencies::default();
        (0..600).for_each(|_| latency.record(50_000_000));
        outcome.latency = Some(latency);
    }
    let comparison = compare_arms(&result, &Options::default()).unwrap();
    let p50 = row(&comparison, Metric::P50);
    assert_eq!(p50.outliers, [Outlier { arm: None, block: 7 }]);
    assert_eq!(p50.rounds, [12, 12]);
    assert!((0.9..1.1).contains(&p50.effect), "one of twelve does not move the estimate: {}", p50.effect);
}

#[test]
fn a_round_without_answers_is_the_slowest() {
    let mut result = experiment(6, 10, SAME);
    for round in result.rounds.iter_mut().filter(|r| r.arm == Arm::B) {
        let outcome = round.loads.get_mut("tcp_rr").unwrap();
        outcome.latency = Some(crate::result::Latencies::default());
        outcome.count = 0;
        outcome.errors.insert("timeout".to_owned(), 40);
    }
    // Too few latencies after to tell any quantile: the rest tells.
    let comparison = compare_arms(&result, &Options::default()).unwrap();
    let errors = row(&comparison, Metric::Errors);
    assert_eq!((errors.verdict, errors.before, errors.after), (Verdict::Worse, Some(0.0), Some(400.0)));
    assert!((errors.effect - 40.0).abs() < 1e-9);
    assert_eq!(row(&comparison, Metric::Throughput).verdict, Verdict::Worse);
    assert_eq!(comparison.totals[0].errors, [0, 400]);

    let mut result = experiment(6, 10, SAME);
    let mut rounds = result.rounds.iter_mut().filter(|r| r.arm == Arm::B);
    let outcome = rounds.next().unwrap().loads.get_mut("tcp_rr").unwrap();
    outcome.latency = Some(crate::result::Latencies::default());
    let comparison = compare_arms(&result, &Options::default()).unwrap();
    let p50 = row(&comparison, Metric::P50);
    assert_eq!((p50.rounds, p50.outliers.len()), ([10, 10], 1), "it counts, and is named");
    assert!(p50.bounds.unwrap().high.is_finite());
}

#[test]
fn other_scenarios_and_machines_are_refused_and_listed() {
    let before = run(1, 8, 1.0);
    let mut after = run(2, 8, 1.0);
    after.scenario.spec.insert("topology".to_owned(), serde_json::json!({"kind": "direct", "delay_ms": 0}));
    after.environment.machine.insert("kernel".to_owned(), "6.19.0".to_owned());
    after.environment.settings.insert("net.core.rmem_max".to_owned(), "1".to_owned());
    for round in &mut after.rounds {
        round.loads.get_mut("tcp_rr").unwrap().server.pinned.cpus = vec![0];
    }
    let error = compare(&before, &after, &Options::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the results cannot be compared; --force does it all the same. They differ in:\n  \
         scenario topology.kind: \"bridge\" and \"direct\"\n  \
         machine kernel: 6.18.0 and 6.19.0\n  \
         placement tcp_rr: client 0, server 1 and client 0, server 0"
    );
    let forced = compare(&before, &after, &Options { force: true, ..Options::default() }).unwrap();
    assert!(forced.forced);
    assert_eq!(
        forced.differences.len(),
        4,
        "what differs in settings is listed, too: {:?}",
        forced.differences
    );

    let mut tuned = run(2, 8, 1.0);
    tuned.environment.settings.insert("net.ipv4.tcp_fastopen".to_owned(), "3".to_owned());
    let comparison = compare(&before, &tuned, &Options::default()).unwrap();
    assert!(!comparison.forced && comparison.differences.len() == 1, "settings do not hinder");
}

#[test]
fn what_is_no_comparison_is_an_error() {
    let (single, both) = (run(1, 4, 1.0), experiment(1, 4, SAME));
    let options = Options::default();
    let said = |result: Result<Comparison, CompareError>| result.unwrap_err().to_string();
    assert_eq!(
        said(compare_arms(&single, &options)),
        "the result holds one run: name a second one to compare it with"
    );
    assert_eq!(
        said(compare(&single, &both, &options)),
        "the result after holds an experiment of two arms: compare it alone"
    );
    let mut empty = run(1, 0, 1.0);
    empty.partial =
        Some(crate::result::Partial { reason: "the peer is unreachable".to_owned(), planned_rounds: 8 });
    assert_eq!(
        said(compare(&single, &empty, &options)),
        "the result after has no rounds of 8: the peer is unreachable"
    );
    let wrong = Options { confidence: 1.0, ..options };
    assert_eq!(said(compare_arms(&both, &wrong)), "confidence of 1 is not between 0 and 1");
    let wrong = Options { effect: f64::NAN, ..options };
    assert_eq!(said(compare_arms(&both, &wrong)), "effect of NaN is not between 0 and 1");
    let long = run(1, 201, 1.0);
    assert_eq!(
        said(compare(&long, &long, &options)),
        "201 rounds of an arm are more than the 200 that can be compared"
    );
}

#[test]
fn what_is_not_whole_is_compared_and_marked() {
    let mut result = experiment(9, 8, SAME);
    let last = result.rounds.pop().unwrap();
    result.partial =
        Some(crate::result::Partial { reason: "the client died".to_owned(), planned_rounds: 20 });
    result.rounds[3].loads.get_mut("tcp_rr").unwrap().partial = Some("connection reset".to_owned());
    let comparison = compare_arms(&result, &Options::default()).unwrap();
    assert_eq!(comparison.rounds, [7, 7]);
    assert_eq!(
        comparison.partial,
        [
            "the experiment has 15 rounds of 20: the client died",
            "the experiment has 1 round in which tcp_rr ended before its time: connection reset",
            "1 round has no partner and is left out"
        ]
    );
    assert!(comparison.rows.iter().all(|row| row.rounds == [7, 7]), "{last:?}");
}

#[test]
fn a_comparison_is_the_same_again() {
    let result = experiment(9, 10, SAME);
    let again = || compare_arms(&result, &Options::default()).unwrap();
    assert_eq!(again(), again());
    let json = serde_json::to_string(&again()).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), again());
}

fn state(text: &str, comparison: &Comparison) -> State {
    text.parse::<FailIf>().unwrap().check(comparison).unwrap().state
}

#[test]
fn conditions_hold_only_where_they_are_shown() {
    let slower = arms(4, 10, Slower { all: 1.5, tail: 1.0 });
    let bounds = row(&slower, Metric::P50).bounds.unwrap();
    let (inside, below) = (f64::midpoint(bounds.low, bounds.high), bounds.low - 0.001);
    assert_eq!(state(&format!("tcp_rr.p50 > {below}x"), &slower), State::Holds);
    assert_eq!(state(&format!("tcp_rr.p50 > {inside}x"), &slower), State::NotShown);
    assert_eq!(state("tcp_rr.p50>=1.1x", &slower), State::Holds);
    assert_eq!(state("tcp_rr.throughput < 0.9x", &slower), State::Holds);
    assert_eq!(state("tcp_rr.throughput < 0.3x", &slower), State::NotShown);
    assert_eq!(state("tcp_rr.p50 > 10us", &slower), State::Holds);
    assert_eq!(state("tcp_rr.p50 > 0.5ms", &slower), State::NotShown);
    assert_eq!(state("tcp_rr.p99 < 1s", &slower), State::Holds);
    assert_eq!(state("tcp_rr.errors > 0", &slower), State::NotShown);
    assert_eq!(state("tcp_rr.p50 > 1.01x", &arms(4, 4, SAME)), State::CannotTell);

    let mut failing = experiment(4, 8, SAME);
    let after = failing.rounds.iter_mut().find(|r| r.arm == Arm::B).unwrap();
    after.loads.get_mut("tcp_rr").unwrap().errors.insert("refused".to_owned(), 2);
    let comparison = compare_arms(&failing, &Options::default()).unwrap();
    assert_eq!(state("tcp_rr.errors > 0", &comparison), State::Holds);
    assert_eq!(state("tcp_rr.errors > 2", &comparison), State::NotShown);
}

#[test]
fn conditions_that_are_none_say_what_there_is() {
    let said = |text: &str| text.parse::<FailIf>().unwrap_err().to_string();
    assert_eq!(
        said("tcp_rr.p98 > 1.1x"),
        "`tcp_rr.p98 > 1.1x`: no metric `p98`; there are p50, p90, p99, p99.9, throughput, errors"
    );
    assert_eq!(
        said("tcp_rr.p99 > fast"),
        "`tcp_rr.p99 > fast`: `fast` is not a bound: a ratio to what it was, as in `1.1x`, or a time, as in `2ms`"
    );
    assert!(said("dns.errors > 1.1x").contains("`1.1x` is not a bound: a number of errors, as in `0`"));
    for text in ["", "p99", "tcp_rr.p99 = 1.1x", "p99 > 1.1x", ".p99 > 1x"] {
        assert!(said(text).contains("is not a condition: LOAD.METRIC > BOUND"), "{text}");
    }
    assert!(said("tcp_rr.p99 > -1x").contains("is not a bound"));
    assert!(said("tcp_rr.p99 > NaNx").contains("is not a bound"));
    for text in ["a.b.p99.9 > 1.1x", "a.b.p999 > 1.1x"] {
        let condition: FailIf = text.parse().unwrap();
        assert_eq!(condition.to_string(), text);
        let error = condition.check(&arms(4, 6, SAME)).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "a.b.p99.9 was not compared; there are tcp_rr.p50, tcp_rr.p90, tcp_rr.p99, tcp_rr.throughput, \
                 tcp_rr.errors"
            ),
            "{error}"
        );
    }
    let untold = "tcp_rr.p99.9 > 1x".parse::<FailIf>().unwrap().check(&arms(4, 6, SAME)).unwrap_err();
    assert!(untold.to_string().contains("was not compared (600 latencies a round are fewer"), "{untold}");
}

#[test]
fn cells_have_units() {
    let comparison = arms(4, 10, Slower { all: 1.2, tail: 1.0 });
    let cells = cells(row(&comparison, Metric::P50));
    assert_eq!(HEADER.len(), cells.len());
    assert!(cells[2].ends_with(" us") && cells[4].ends_with('x') && cells[8] == "worse", "{cells:?}");
    assert_eq!(value(Metric::P99, "ns", 2_500_000.0), "2.50 ms");
    assert_eq!(value(Metric::Throughput, "requests/s", 51_000.0), "51.00 krequests/s");
    assert_eq!((share(0.043), share(0.25)), ("4.3 %".to_owned(), "25 %".to_owned()));
}
