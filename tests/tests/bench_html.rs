//! Opens the HTML reports of benches in headless Chromium: they must draw their figures, log nothing, ask the network for nothing,
//! and fit a phone in both themes.
//!
//! Needs `chromium`, as `report_html` does.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use nettrace::{
    bench::report::{Measured, Setting, Subject, Which, history, render, sample, suite},
    report::{Format, Options},
};
use nettrace_bench::{
    compare::{self, Comparison, compare_arms},
    history::Store,
    result::{Arm, RunResult},
};
use nettrace_tests::browser::{self, Visit, assert_quiet};
use std::{fs, path::Path};

/// Opens a page; `None` when browser tests are switched off.
fn visit(name: &str, page: &str) -> Option<Visit> {
    browser::visit(Path::new(env!("CARGO_TARGET_TMPDIR")), name, page)
}

fn arms(result: &RunResult) -> Comparison {
    compare_arms(result, &compare::Options::default()).unwrap()
}

fn page(result: &RunResult) -> String {
    let comparison = arms(result);
    render(&Subject::experiment(result, &comparison), Format::Html, &Options::default()).unwrap()
}

fn trends(name: &str) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-store"));
    let _ = fs::remove_dir_all(&dir);
    let store = Store::new(&dir);
    let listed = sample::kept(|result| {
        store.add(result, None)?;
        store.list()
    });
    let which = Which { scenario: "bufferbloat", load: None, metric: None };
    history(&listed.unwrap(), &which, Format::Html, &Options::default()).unwrap()
}

fn settings() -> String {
    let comparison = arms(&sample::experiment());
    let tried = |scenario, advice, answers| Setting {
        scenario,
        advice,
        measured: Measured::Compared { comparison: &comparison, answers },
    };
    let all = [
        tried("bufferbloat", "fair queueing at a slow link", &["tcp_rr.p50", "tcp_rr.p99"]),
        tried("dns-cache", "cache DNS answers on the node", &["dns.p50"]),
        Setting {
            scenario: "conntrack-full",
            advice: "raise nf_conntrack_max",
            measured: Measured::Not("the host's table cannot be filled from a namespace"),
        },
    ];
    suite(&all, Format::Html, &Options::default()).unwrap()
}

fn single() -> String {
    render(&Subject::run(&sample::run(Arm::A)), Format::Html, &Options::default()).unwrap()
}

#[test]
fn an_experiment_is_drawn() {
    let result = sample::experiment();
    let Some(visit) = visit("bench-experiment", &page(&result)) else { return };
    assert_quiet(&visit);
    let comparison = arms(&result);
    let ratios = comparison.rows.iter().filter(|row| row.metric.is_ratio()).count();
    assert_eq!(visit.dom.matches("<circle class=\"effect\"").count(), ratios, "effects");
    assert_eq!(visit.dom.matches("<path class=\"curve ").count(), 4, "curves of two loads, before and after");
    assert_eq!(visit.dom.matches("class=\"range\"").count(), 8, "four signals, before and after");
    let rounds: usize = comparison.rows.iter().map(|row| row.rounds.iter().sum::<usize>()).sum();
    let points = |arm: &str| visit.dom.matches(&format!("<circle class=\"point {arm}\"")).count();
    // Each kind is in the legend, too.
    assert_eq!((points("before"), points("after")), (rounds / 2 + 1, rounds / 2 + 1));
    assert_eq!(visit.dom.matches("class=\"ring\"").count(), 5, "a pair of two metrics, and the legend");
    assert!(visit.dom.contains("<p class=\"verdict warn\">Mixed: "));
    for text in ["qdisc:eth0=fq_codel", "is a closed loop", "fq_codel", "too noisy", "timed out"] {
        assert!(visit.dom.contains(text), "{text} is missing");
    }
}

#[test]
fn a_run_a_history_and_a_suite_are_drawn() {
    for (name, page, has) in [
        ("bench-run", single(), "<path class=\"curve "),
        ("bench-history", trends("bench-history"), "<line class=\"whisker after\""),
        ("bench-suite", settings(), "<circle class=\"effect\""),
    ] {
        let Some(visit) = visit(name, &page) else { return };
        assert_quiet(&visit);
        assert!(visit.dom.contains(has), "{name}");
    }
}

#[test]
fn hostile_names_stay_text() {
    let Some(visit) = visit("bench-hostile", &page(&sample::hostile())) else { return };
    assert_quiet(&visit);
    assert!(!visit.dom.contains("<img"));
    assert_eq!(visit.dom.matches("<script").count(), 1);
    assert!(visit.dom.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

/// The pages in a frame as wide as a phone, in each theme.
#[test]
fn pages_fit_a_phone_in_both_themes() {
    const DRIVER: &str = r##"<script>
        const seen = [];
        const frame = document.querySelector("iframe");
        frame.addEventListener("load", () => {
            const page = frame.contentDocument;
            const { scrollWidth, clientWidth } = page.documentElement;
            seen.push(frame.contentWindow.innerWidth, scrollWidth - clientWidth);
            const paper = () => frame.contentWindow.getComputedStyle(page.body).backgroundColor;
            for (const theme of ["light", "dark"]) {
                page.getElementById("theme").click();
                seen.push(page.documentElement.dataset.theme, paper());
            }
            document.title = seen.join(" ");
        });
        frame.srcdoc = document.querySelector("textarea").value;
    </script>"##;
    for (name, page) in [
        ("phone-experiment", page(&sample::experiment())),
        ("phone-hostile", page(&sample::hostile())),
        ("phone-history", trends("phone-history")),
        ("phone-suite", settings()),
    ] {
        let inside = page.replace('&', "&amp;").replace('<', "&lt;");
        // The frame gets its page when somebody listens for it.
        let outer = format!(
            "<!doctype html><html lang=\"en\" class=\"js\"><title></title><textarea hidden>{inside}</textarea>\
             <iframe width=\"360\" height=\"800\" style=\"border: 0\"></iframe>{DRIVER}"
        );
        let Some(visit) = visit(name, &outer) else { return };
        assert_quiet(&visit);
        let title = visit.dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        assert_eq!(title, Some("360 0 light rgb(246, 247, 249) dark rgb(16, 21, 28)"), "{name}");
    }
}
