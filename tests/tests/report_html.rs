//! Opens the HTML report in headless Chromium: it must draw its plots, log nothing and ask the network for nothing.
//!
//! Needs `chromium` (Debian package `chromium`); `NETTRACE_SKIP_BROWSER=1` skips these tests and says so.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use nettrace::{
    report::{Format, Options, render},
    snapshot::{Snapshot, sample},
};
use nettrace_tests::browser::{self, Visit, assert_quiet};
use std::path::Path;

/// Opens a page; `None` when browser tests are switched off.
fn visit(name: &str, page: &str) -> Option<Visit> {
    browser::visit(Path::new(env!("CARGO_TARGET_TMPDIR")), name, page)
}

fn page(snapshot: &Snapshot) -> String {
    render(snapshot, Format::Html, &Options::default()).expect("renders")
}

#[test]
fn every_signal_is_drawn() {
    let snapshot = sample::rich();
    let Some(visit) = visit("rich", &page(&snapshot)) else { return };
    assert_quiet(&visit);
    let signals = snapshot.signals.iter().filter(|s| s.scope == "all").count();
    assert_eq!(visit.dom.matches("<path class=\"curve ").count(), signals, "curves");
    assert_eq!(visit.dom.matches("class=\"range\"").count(), signals, "waterfall bars");
    assert_eq!(visit.dom.matches("class=\"dot ").count(), signals, "the script reads the curves off");
    for text in ["node-1", "Where time goes", "rx.socket", "1.20 ms", "postgres.prod.svc.cluster.local"] {
        assert!(visit.dom.contains(text), "{text} is missing");
    }
    assert!(visit.dom.matches("<button type=\"button\">").count() > 20, "tables can be sorted");
}

#[test]
fn an_empty_report_is_not_blank() {
    let Some(visit) = visit("empty", &page(&sample::empty())) else { return };
    assert_quiet(&visit);
    assert_eq!(visit.dom.matches("<path").count(), 0);
    for text in ["No latency was measured", "No DNS seen.", "Nothing was lost."] {
        assert!(visit.dom.contains(text), "{text} is missing");
    }
}

#[test]
fn hostile_names_stay_text() {
    let Some(visit) = visit("hostile", &page(&sample::hostile())) else { return };
    assert_quiet(&visit);
    assert!(!visit.dom.contains("<img"));
    assert_eq!(visit.dom.matches("<script").count(), 1);
    assert!(visit.dom.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

/// The page's own script, driven by another one; the policy is taken away for that.
#[test]
fn tables_sort_and_plots_are_read_by_keyboard() {
    const DRIVER: &str = r##"<script>
        const seen = [];
        const first = () => document.querySelector("#time tbody td").textContent;
        const counts = [...document.querySelectorAll("#time th button")].find((b) => b.textContent === "count");
        counts.click();
        seen.push(first(), counts.parentElement.getAttribute("aria-sort"));
        counts.click();
        seen.push(first(), counts.parentElement.getAttribute("aria-sort"));
        const stop = () => document.getElementById("stop").textContent;
        const press = (key) => document.getElementById("curves").dispatchEvent(new KeyboardEvent("keydown", { key }));
        press("End");
        seen.push(stop());
        press("Home");
        seen.push(stop());
        document.querySelector(".legend button").click();
        seen.push(document.querySelectorAll(".curve.off").length);
        document.getElementById("toggle-all").click();
        seen.push(document.querySelectorAll(".curve.off").length);
        document.getElementById("theme").click();
        seen.push(document.documentElement.dataset.theme);
        document.title = seen.join(" | ");
    </script>"##;
    let page = page(&sample::rich())
        .replace("<meta http-equiv=\"Content-Security-Policy\"", "<meta name=\"none\"")
        .replace("</body>", &format!("{DRIVER}</body>"));
    let Some(visit) = visit("driven", &page) else { return };
    assert_quiet(&visit);
    let title = visit.dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let curves = sample::rich().signals.iter().filter(|signal| signal.scope == "all").count();
    let expected =
        format!("rx.stack | descending | ip.reassembly | ascending | 99.99 % | 0 % | 1 | {curves} | light");
    assert_eq!(title, Some(expected.as_str()));
}

/// The checks above are worth something only if they see what they look for.
#[test]
fn errors_and_requests_are_noticed() {
    let page =
        "<!doctype html><img src=\"http://report.invalid/x.png\"><script>throw Error(\"seen\")</script>";
    let Some(visit) = visit("noisy", page) else { return };
    assert!(visit.console.iter().any(|line| line.contains("seen")), "{:#?}", visit.console);
    assert!(visit.requests.iter().any(|url| url.contains("report.invalid")), "{:#?}", visit.requests);
}

/// The policy itself stops what would slip through the template.
#[test]
fn the_policy_blocks_foreign_script_and_images() {
    let evil = "<script>document.title = 'taken'</script><img src=\"http://report.invalid/x.png\">";
    let page = page(&sample::rich()).replace("<footer", &format!("{evil}<footer"));
    let Some(visit) = visit("policy", &page) else { return };
    assert!(visit.dom.contains("<title>nettrace report: node-1</title>"));
    assert!(visit.requests.is_empty(), "{:#?}", visit.requests);
    assert_eq!(visit.console.len(), 2, "{:#?}", visit.console);
}
