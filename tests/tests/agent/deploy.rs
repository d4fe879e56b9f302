//! Rules and dashboards in `deploy/`: they are valid, they do what they say, and they ask for metrics that there are.

use crate::prometheus::{is_off, promtool};
use nettrace::export::{Kind, METRICS};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};

const RULES: [&str; 2] = ["recording.rules.yml", "alerts.rules.yml"];
/// Metrics of others that rules and dashboards join with ours: of kube-state-metrics, CoreDNS, node_exporter, and any process.
const OTHERS: [&str; 4] = [
    "kube_node_status_condition",
    "process_cpu_seconds_total",
    "coredns_dns_request_duration_seconds_bucket",
    "node_nf_conntrack_entries",
];

fn place(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn dashboards() -> Vec<(String, Value)> {
    let mut files: Vec<_> =
        fs::read_dir(place("deploy/grafana")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "json"));
    files.sort();
    let read = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let value = serde_json::from_str(&fs::read_to_string(file).unwrap())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, value)
    };
    files.iter().map(read).collect()
}

/// Values of lines `KEY: VALUE`, also those that go on over indented lines.
fn values(yaml: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = yaml.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(value) = line.trim_start().trim_start_matches("- ").strip_prefix(&format!("{key}: ")) else {
            continue;
        };
        let mut value = value.to_owned();
        if value == ">" {
            let depth = line.len() - line.trim_start().len();
            while let Some(next) = lines.next_if(|next| next.len() - next.trim_start().len() > depth) {
                value += next;
            }
        }
        found.push(value);
    }
    found
}

/// Names of metrics and recorded series in an expression: what braces hold is left out.
fn names(expr: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut braced = false;
    for c in expr.chars() {
        braced = c == '{' || braced && c != '}';
        plain.push(if braced { ' ' } else { c });
    }
    let words = plain.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let is_metric =
        |word: &&str| word.contains("nettrace_") || word.contains(':') || word.matches('_').count() >= 2;
    let function = |word: &&str| !["histogram_quantile", "group_left", "count_values"].contains(word);
    words.filter(is_metric).filter(function).filter(|w| !w.starts_with("__")).map(str::to_owned).collect()
}

fn recorded() -> Vec<String> {
    values(&read("deploy/prometheus/recording.rules.yml"), "record")
}

/// Every name that is ours is in the table, or recorded by a rule.
fn assert_there(what: &str, expr: &str) {
    let recorded = recorded();
    for name in names(expr) {
        let ours = METRICS.iter().any(|metric| {
            let full = metric.full_name();
            let suffix = name.strip_prefix(&full);
            let parts = ["_bucket", "_count", "_sum"];
            suffix.is_some_and(|s| s.is_empty() || metric.kind == Kind::Histogram && parts.contains(&s))
        });
        let known = ours || recorded.contains(&name) || OTHERS.contains(&name.as_str());
        assert!(known, "{what}: `{name}` is no metric: {expr}");
    }
}

#[test]
fn rules_are_valid_and_do_what_they_say() {
    if is_off("rules_are_valid_and_do_what_they_say") {
        return;
    }
    let path = |file: &str| place(&format!("deploy/prometheus/{file}")).to_str().unwrap().to_owned();
    let mut arguments = vec!["check".to_owned(), "rules".to_owned()];
    arguments.extend(RULES.map(path));
    for arguments in [
        arguments,
        ["test", "rules"].map(str::to_owned).into_iter().chain([path("rules.test.yml")]).collect(),
    ] {
        let output = promtool(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn rules_ask_for_metrics_that_there_are() {
    for file in RULES {
        let exprs = values(&read(&format!("deploy/prometheus/{file}")), "expr");
        assert!(exprs.len() >= 12, "{file}: {}", exprs.len());
        exprs.iter().for_each(|expr| assert_there(file, expr));
    }
    // What is recorded and nobody looks at costs memory for nothing.
    let alerts = read("deploy/prometheus/alerts.rules.yml");
    let all: String = dashboards().iter().map(|(_, d)| d.to_string()).collect::<String>() + &alerts;
    let unused: Vec<_> = recorded().into_iter().filter(|name| !all.contains(name.as_str())).collect();
    assert_eq!(unused, Vec::<String>::new());
}

#[test]
fn every_alert_has_a_runbook_that_is_there_and_most_have_a_test() {
    let alerts = read("deploy/prometheus/alerts.rules.yml");
    let names = values(&alerts, "alert");
    let links = values(&alerts, "runbook_url");
    assert_eq!(names.len(), links.len());
    for (name, link) in names.iter().zip(&links) {
        let page = link
            .strip_prefix("https://github.com/nettrace/nettrace/blob/main/")
            .unwrap_or_else(|| panic!("{name}"));
        let (page, anchor) = page.split_once('#').unwrap_or_else(|| panic!("{name}: {link}"));
        // That of advice is the rule's own, whichever it is.
        if anchor.starts_with("{{") {
            assert_eq!(page, "docs/rules.md");
            continue;
        }
        let text = read(page);
        let mut anchors = text.lines().filter_map(|line| line.strip_prefix("## ")).map(slug);
        assert!(anchors.any(|there| there == anchor), "{name}: {page} has no #{anchor}");
    }
    let tests = read("deploy/prometheus/rules.test.yml");
    let tested = names.iter().filter(|name| tests.contains(&format!("alertname: {name}\n"))).count();
    assert!(tested * 2 >= names.len(), "{tested} of {} alerts are tested", names.len());
}

/// As GitHub makes anchors of headings.
fn slug(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn dashboards_are_whole_and_ask_for_metrics_that_there_are() {
    let dashboards = dashboards();
    let names: Vec<_> = dashboards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conntrack", "dns", "node", "pod-to-pod", "tuning"]);
    let mut uids = BTreeSet::new();
    for (name, dashboard) in &dashboards {
        let text = |field: &str| dashboard[field].as_str().unwrap_or_else(|| panic!("{name} has no {field}"));
        assert!(uids.insert(text("uid")) && text("uid").len() <= 40, "{name}: uid");
        assert!(text("title").starts_with("nettrace / ") && !text("description").is_empty(), "{name}: title");
        let mut ids = BTreeSet::new();
        let mut exprs = 0;
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title} has the id of another panel");
            let (x, w) = (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["w"].as_u64().unwrap());
            assert!(x + w <= 24, "{name}: {title} is too wide");
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_there(&format!("{name}: {title}"), target["expr"].as_str().unwrap());
                exprs += 1;
            }
        }
        assert!(exprs >= 10, "{name}: {exprs} expressions");
        let annotation = &dashboard["annotations"]["list"][0];
        assert_there(name, annotation["expr"].as_str().unwrap());
        assert_eq!(annotation["useValueForTime"], true, "{name}: changes are shown when they were made");
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                assert_there(name, query);
            }
        }
    }
}

#[test]
fn names_are_found_in_expressions() {
    let expr = "histogram_quantile(0.99, sum by (le) (rate(nettrace_x_seconds_bucket{a_b_c=\"nettrace_no\"}[5m]))) / on (node) group_left () a:b:c > kube_a_b";
    let found: Vec<_> = names(expr).into_iter().collect();
    assert_eq!(found, ["a:b:c", "kube_a_b", "nettrace_x_seconds_bucket"]);
}
