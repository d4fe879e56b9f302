//! The agent as a whole: traffic of known counts goes by, and the page, the metrics, the history and the flight recorder agree.

use super::run::{Agent, config};
use aya::programs::{SchedClassifier, tc::TcAttachType};
use nettrace::lab::{
    Family, Lab, LabConfig, Role,
    dns::{self, DnsServer},
    traffic::udp::{self, RequestResponse},
};
use nettrace_tests::{
    comes_about,
    http::sum,
    program::{nettrace, stdout},
};
use serde_json::Value;
use std::{path::Path, thread::sleep, time::Duration};

/// The body of an answer that went well.
fn body(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1
}

fn metrics(agent: &Agent) -> String {
    let answer = agent.get("/metrics");
    // Sent in pieces, or whole.
    body(&answer).to_owned()
}

fn wait_until(what: &str, so: impl FnMut() -> bool) {
    assert!(comes_about(Duration::from_secs(30), so), "not within 30 s: {what}");
}

/// `nettrace history` of all that is in a directory.
fn history(dir: &Path) -> Value {
    let output = nettrace()
        .unwrap()
        .args(["history", "--last", "1h", "--format", "json", "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn page_metrics_history_and_flight_recorder_agree() {
    let (lab, dir) = (Lab::start(LabConfig::default()).unwrap(), tempfile::tempdir().unwrap());
    let _server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
    let mut agent = Agent::start(dir.path(), &config(&lab, dir.path(), "dns_timeout = '1s'"));
    agent.wait_for("READY=1");
    let mixed = dns::mix(&lab, 2).unwrap().observed;
    let path = lab.path(Role::Client, Role::Server, Family::V4).unwrap();
    udp::request_response(&path, &RequestResponse { requests: 500, ..Default::default() }).unwrap();
    let expected = mixed.transactions as f64;
    let transactions = || sum(&metrics(&agent), "nettrace_dns_transactions_total");
    wait_until("all transactions are in the metrics", || transactions() >= expected);
    assert!((transactions() - expected).abs() < 0.5, "{} of {expected}", transactions());
    let text = metrics(&agent);
    assert!((sum(&text, "nettrace_dns_timeouts_total") - mixed.timeouts as f64).abs() < 0.5);
    assert!(
        sum(&text, "nettrace_ready") > 0.5 && sum(&text, "nettrace_measurements_lost_total") < 1.0,
        "{text}"
    );
    // A latency of each packet that was forwarded.
    assert!(sum(&text, "nettrace_fwd_host_seconds_count") >= 1000.0, "{text}");

    let status: Value = serde_json::from_str(body(&agent.get("/api/status"))).unwrap();
    assert_eq!(status["ready"], true, "{status}");
    assert!(
        status["privileges"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains("seccomp: "))
    );
    let frames: Value = serde_json::from_str(body(&agent.get("/api/frames"))).unwrap();
    let frames = frames.as_array().or_else(|| frames["frames"].as_array()).unwrap().clone();
    let of_frames: u64 = frames.iter().map(|f| f["dns"]["transactions"].as_u64().unwrap()).sum();
    assert_eq!(of_frames, mixed.transactions);
    assert!(body(&agent.get("/")).contains("<title>"));

    // The flight recorder, asked for over HTTP.
    assert!(agent.ask("POST", "/api/flight").starts_with("HTTP/1.1 20"), "{}", agent.get("/api/status"));
    let last = || {
        let status: Value = serde_json::from_str(body(&agent.get("/api/status"))).unwrap();
        status["flight"]["last"].as_str().map(str::to_owned)
    };
    wait_until("a file of the flight recorder", || last().is_some());
    let report =
        nettrace().unwrap().args(["report", "--format", "json"]).arg(last().unwrap()).output().unwrap();
    let report: Value = serde_json::from_str(&stdout(&report)).unwrap();
    assert_eq!(report["dns"]["transactions"], mixed.transactions, "the last 30 s have all of it");

    // A second agent, and a port that is taken.
    let taken = agent.address();
    let other = tempfile::tempdir().unwrap();
    let second = config(&lab, other.path(), "").replace("127.0.0.1:0", &taken);
    std::fs::write(other.path().join("agent.toml"), second).unwrap();
    let file = other.path().join("agent.toml");
    let output = nettrace().unwrap().args(["agent", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("another process"), "{said}");

    agent.end();
    let kept = history(&dir.path().join("history"));
    assert_eq!(kept["dns"]["transactions"], mixed.transactions);
    assert_eq!(kept["dns"]["timeouts"], mixed.timeouts);
}

/// TC programs at the interfaces of a lab's node.
fn attached(lab: &Lab) -> usize {
    let names: Vec<_> = lab.pods().iter().map(|pod| pod.veth.name.clone()).collect();
    let query = || {
        let of = |name: &String, direction| {
            SchedClassifier::query_tcx(name, direction).map_or(0, |(_, programs)| programs.len())
        };
        names.iter().map(|n| of(n, TcAttachType::Ingress) + of(n, TcAttachType::Egress)).sum()
    };
    lab.node().netns.run(query).unwrap()
}

/// However it ends: what was kept can be read, and nothing stays attached.
#[test]
fn killed_at_random_it_leaves_a_history_and_no_program() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut frames = 0;
    for n in 0..6_u64 {
        let mut agent =
            Agent::start(dir.path(), &config(&lab, dir.path(), "signals = ['dns.latency', 'net.rtt']"));
        agent.wait_for("READY=1");
        assert!(attached(&lab) > 0, "it is attached while it runs");
        // Times that have nothing to do with windows: multiples of the golden ratio.
        sleep(Duration::from_millis((n * 1618 + 700) % 4000));
        agent.kill();
        wait_until("nothing is attached", || attached(&lab) == 0);
        let mut listing = nettrace().unwrap();
        listing.args(["history", "--list", "--format", "json", "--dir"]).arg(dir.path().join("history"));
        let output = listing.output().unwrap();
        let listed: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let now = listed["frames"].as_u64().unwrap();
        assert!(now >= frames && listed["damaged"].as_u64().unwrap_or(0) == 0, "{listed}");
        frames = now;
    }
    assert!(frames > 2, "{frames} frames");
    history(&dir.path().join("history"));
}
