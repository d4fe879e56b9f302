//! Golden reports of the samples, and what must hold for any result.

use super::*;
use crate::report::tests::without_inline;
use nettrace_bench::{
    compare::{self, CompareError, Metric, compare_arms},
    history::{Listed, Store},
    load::Mode,
    result::{Change, Latencies, Outcome, Partial, Segment, Unit},
};
use proptest::prelude::*;

const FORMATS: [Format; 4] = [Format::Text, Format::Markdown, Format::Json, Format::Html];

fn arms(result: &RunResult) -> Comparison {
    compare_arms(result, &compare::Options::default()).expect("can be compared")
}

fn experiment(format: Format) -> String {
    let result = sample::experiment();
    let comparison = arms(&result);
    render(&Subject::experiment(&result, &comparison), format, &Options::default()).expect("renders")
}

fn single(format: Format) -> String {
    render(&Subject::run(&sample::run(Arm::A)), format, &Options::default()).expect("renders")
}

fn runs(format: Format) -> String {
    let (before, after) = (sample::run(Arm::A), sample::run(Arm::B));
    let comparison =
        compare::compare(&before, &after, &compare::Options::default()).expect("can be compared");
    render(&Subject::runs(&before, &after, &comparison), format, &Options::default()).expect("renders")
}

/// As a store keeps them.
fn kept() -> Listed {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::new(dir.path());
    sample::kept(|result| {
        store.add(result, None)?;
        store.list()
    })
    .expect("can be kept")
}

fn trends(format: Format, metric: Option<Metric>) -> String {
    let which = Which { scenario: "bufferbloat", load: metric.map(|_| "tcp_rr"), metric };
    history(&kept(), &which, format, &Options::default()).expect("renders")
}

fn settings(format: Format) -> String {
    let (helps, placebo) = (sample::experiment(), {
        let mut placebo = sample::experiment();
        placebo.rounds.truncate(8);
        placebo
    });
    let (helps, placebo) = (arms(&helps), arms(&placebo));
    let all = [
        Setting {
            scenario: "bufferbloat",
            advice: "fair queueing at a slow link",
            measured: Measured::Compared {
                comparison: &helps,
                answers: &["tcp_rr.p50", "tcp_rr.p99", "tcp_stream.throughput"],
            },
        },
        Setting {
            scenario: "dns-cache",
            advice: "cache DNS answers on the node",
            measured: Measured::Compared { comparison: &placebo, answers: &["dns.p50"] },
        },
        Setting {
            scenario: "conntrack-full",
            advice: "raise nf_conntrack_max",
            measured: Measured::Not("the host's table cannot be filled from a namespace"),
        },
    ];
    suite(&all, format, &Options::default()).expect("renders")
}

#[test]
fn an_experiment() {
    insta::assert_snapshot!("experiment_text", experiment(Format::Text));
    insta::assert_snapshot!("experiment_markdown", experiment(Format::Markdown));
    insta::assert_snapshot!("experiment_json", experiment(Format::Json));
    insta::assert_snapshot!("experiment_html", without_inline(&experiment(Format::Html)));
}

#[test]
fn a_run_and_two_runs() {
    insta::assert_snapshot!("run_text", single(Format::Text));
    insta::assert_snapshot!("run_html", without_inline(&single(Format::Html)));
    insta::assert_snapshot!("runs_text", runs(Format::Text));
    insta::assert_snapshot!("runs_markdown", runs(Format::Markdown));
}

#[test]
fn a_history() {
    insta::assert_snapshot!("history_text", trends(Format::Text, None));
    insta::assert_snapshot!("history_one_text", trends(Format::Text, Some(Metric::P99)));
    insta::assert_snapshot!("history_markdown", trends(Format::Markdown, Some(Metric::P99)));
    insta::assert_snapshot!("history_html", without_inline(&trends(Format::Html, Some(Metric::P99))));
}

#[test]
fn a_suite() {
    insta::assert_snapshot!("suite_text", settings(Format::Text));
    insta::assert_snapshot!("suite_markdown", settings(Format::Markdown));
    insta::assert_snapshot!("suite_html", without_inline(&settings(Format::Html)));
}

#[test]
fn hostile_names_have_no_effect_in_any_format() {
    let result = sample::hostile();
    let comparison = arms(&result);
    let subject = Subject::experiment(&result, &comparison);
    insta::assert_snapshot!(
        "hostile_text",
        render(&subject, Format::Text, &Options::default()).expect("renders")
    );
    for format in [Format::Text, Format::Markdown, Format::Html] {
        let text = render(&subject, format, &Options::default()).expect("renders");
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(bad), "{format:?} lets a control character through");
        if format != Format::Text {
            assert!(!text.contains("<script>alert"), "{format:?} lets markup through");
            assert!(!text.contains("<img"), "{format:?} lets markup through");
        }
    }
}

#[test]
fn text_is_as_wide_as_asked_and_colour_changes_nothing() {
    let result = sample::experiment();
    let comparison = arms(&result);
    let subject = Subject::experiment(&result, &comparison);
    for width in [80, 100, 160] {
        let options = Options { width, ..Options::default() };
        let text = render(&subject, Format::Text, &options).expect("renders");
        for line in text.lines() {
            let columns = unicode_width::UnicodeWidthStr::width(line);
            // A table of numbers alone cannot give way.
            assert!(columns <= width.max(100), "{columns}: {line}");
            assert_eq!(line, line.trim_end());
        }
    }
    let options = Options { color: true, ..Options::default() };
    let mut colored = render(&subject, Format::Text, &options).expect("renders");
    assert!(colored.contains("\u{1b}["));
    for code in ["0", "1", "2", "31", "32", "33", "36"] {
        colored = colored.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(colored, experiment(Format::Text));
}

/// Whatever is concluded is said, and in the same words, in every format.
#[test]
fn the_verdict_is_at_the_top_of_every_format() {
    let sentence = arms(&sample::experiment()).sentence;
    assert!(sentence.starts_with("Mixed: "), "{sentence}");
    let plain = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('\\', "");
    for format in FORMATS {
        let text = plain(experiment(format));
        let at = text.find(&sentence).unwrap_or_else(|| panic!("{format:?} does not say `{sentence}`"));
        let before = &text[..at];
        let first = ["metric", "nettrace bench"].map(|other| before.matches(other).count());
        assert!(format == Format::Json || format == Format::Html || first == [0, 1], "{format:?}: {before}");
    }
}

#[test]
fn what_makes_a_comparison_less_sure_is_told() {
    let mut result = sample::experiment();
    let text = experiment(Format::Text);
    assert!(text.contains("dns is a closed loop: the next request waits"), "{text}");
    assert!(text.contains("counted like them: pair 8 (tcp_rr p99)"), "{text}");
    assert!(!text.contains("tcp_rr is a closed loop") && !text.contains("placebo"), "{text}");
    result.rounds.truncate(21);
    result.partial = Some(Partial { reason: "the peer went away".to_owned(), planned_rounds: 24 });
    result.changes.clear();
    let comparison = arms(&result);
    let text = render(&Subject::experiment(&result, &comparison), Format::Text, &Options::default()).unwrap();
    assert!(text.contains("! The experiment has 21 rounds of 24: the peer went away."), "{text}");
    assert!(text.contains("! 1 round has no partner and is left out."), "{text}");
    assert!(text.contains("None: a placebo."), "{text}");
    let two = runs(Format::Text);
    assert!(two.contains("! Two runs: all that changed between them is in the effects"), "{two}");
    let (before, mut after) = (sample::run(Arm::A), sample::run(Arm::B));
    after.environment.machine.insert("kernel".to_owned(), "6.12.0-amd64".to_owned());
    let options = compare::Options { force: true, ..compare::Options::default() };
    let comparison = compare::compare(&before, &after, &options).unwrap();
    let text =
        render(&Subject::runs(&before, &after, &comparison), Format::Text, &Options::default()).unwrap();
    assert!(text.contains("✗ Compared although they differ in more"), "{text}");
    assert!(text.contains("machine  kernel"), "{text}");
}

#[test]
fn an_experiment_without_a_conclusion_shows_both_arms() {
    let mut result = sample::experiment();
    result.rounds.retain(|round| (round.arm == Arm::A) == (round.block < 6));
    let compared = compare_arms(&result, &compare::Options::default());
    assert!(matches!(compared, Err(CompareError::NoRounds(..))));
    let text = render(&Subject::run(&result), Format::Text, &Options::default()).unwrap();
    assert!(text.contains("Nothing is concluded") && text.contains("\nafter   tcp_rr"), "{text}");
}

#[test]
fn json_is_what_the_schema_says() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).expect("is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is valid");
    for text in [experiment(Format::Json), single(Format::Json), runs(Format::Json), settings(Format::Json)]
        .into_iter()
        .chain([trends(Format::Json, None)])
    {
        let value: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    assert!(!validator.is_valid(&serde_json::json!({"kind": "bench-report"})));
}

#[test]
fn a_history_without_runs_says_so() {
    let which = Which { scenario: "no such", load: None, metric: None };
    for format in FORMATS {
        history(&kept(), &which, format, &Options::default()).expect("renders");
        suite(&[], format, &Options::default()).expect("renders");
    }
    let text = history(&Listed::default(), &which, Format::Text, &Options::default()).unwrap();
    assert!(text.contains("No run that is kept tells such a figure."), "{text}");
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let latency = prop::collection::vec((1..=u64::MAX, 1..9_usize), 0..6);
    let errors = prop::collection::btree_map(".{0,9}", any::<u64>(), 0..3);
    let schedule = any::<bool>();
    let unit = prop::sample::select(vec![Unit::Requests, Unit::Datagrams, Unit::Bytes]);
    (prop::option::of(latency), errors, schedule, unit, any::<u64>(), 1..=u64::MAX).prop_map(
        |(latency, errors, open, unit, count, elapsed_ns)| Outcome {
            mode: if open { Mode::OpenPoisson } else { Mode::Closed },
            unit,
            count,
            elapsed_ns,
            errors,
            latency: latency.map(|all| {
                let mut latencies = Latencies::default();
                all.iter().for_each(|(ns, n)| (0..*n * 9).for_each(|_| latencies.record(*ns)));
                latencies
            }),
            ..sample::run(Arm::A).rounds[0].loads["dns"].clone()
        },
    )
}

prop_compose! {
    fn any_result()(
        rounds in prop::collection::vec(
            (0..9_u32, any::<bool>(), any::<u64>(), prop::collection::btree_map(".{0,5}", any_outcome(), 0..3)),
            0..7,
        ),
        (name, signal, tool) in (".{0,40}", ".{0,9}", ".{0,9}"),
        settings in prop::collection::btree_map(".{0,12}", ".{0,400}", 0..4),
        (started_unix_ms, elapsed_ms, planned_rounds) in (any::<u64>(), any::<u64>(), any::<u32>()),
        partial in any::<bool>(),
    ) -> RunResult {
        let mut result = sample::run(Arm::A);
        let mut seen = std::collections::BTreeSet::new();
        result.rounds = rounds.into_iter().filter_map(|(block, is_b, started_ms, loads)| {
            let arm = if is_b { Arm::B } else { Arm::A };
            seen.insert((block, arm)).then_some(Round { block, arm, started_ms, loads })
        }).collect();
        result.segments.truncate(1);
        result.segments.push(Segment { signal, latency: [Latencies::default(), Latencies::default()] });
        result.changes = vec![Change { id: name.clone(), what: tool.clone() }];
        result.partial = partial.then(|| Partial { reason: name.clone(), planned_rounds });
        (result.scenario.name, result.tool, result.environment.settings) = (name, tool, settings);
        (result.started_unix_ms, result.elapsed_ms) = (started_unix_ms, elapsed_ms);
        result
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_result_makes_a_report_of_each_kind(
        (before, after) in (any_result(), any_result()),
        (width, top) in (0..200_usize, 0..5_usize),
    ) {
        let options = Options { top, color: false, width };
        let forced = compare::Options { force: true, ..compare::Options::default() };
        let of_arms = compare_arms(&before, &forced);
        let of_runs = compare::compare(&before, &after, &forced);
        let mut subjects = vec![Subject::run(&before), Subject::run(&after)];
        subjects.extend(of_arms.as_ref().ok().map(|comparison| Subject::experiment(&before, comparison)));
        subjects.extend(of_runs.as_ref().ok().map(|comparison| Subject::runs(&before, &after, comparison)));
        let comparison = of_arms.as_ref().or(of_runs.as_ref()).ok();
        let settings: Vec<_> = comparison
            .map(|comparison| Setting {
                scenario: &before.scenario.name,
                advice: &before.tool,
                measured: Measured::Compared { comparison, answers: &[] },
            })
            .into_iter()
            .collect();
        for format in FORMATS {
            for subject in &subjects {
                render(subject, format, &options)?;
            }
            suite(&settings, format, &options)?;
        }
    }
}
