//! `nettrace top` in a terminal, and for scripts: what it shows, what keys do, and how the terminal is afterwards.

use crate::{run, stream::Agent};
use nettrace::{
    lab::{Lab, LabConfig},
    live::Frame,
};
use nettrace_tests::{
    program::{nettrace, stderr, stdout},
    pty::Terminal,
};
use rustix::process::Signal;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

fn top(args: &[&str]) -> Command {
    let mut command = nettrace().unwrap();
    command.arg("top").args(args);
    command
}

fn at(agent: &Agent, columns: u16, rows: u16) -> Terminal {
    let terminal = Terminal::run(top(&["--agent", &agent.url()]), columns, rows).unwrap();
    terminal
        .wait_for("the first frame", |text| text.contains("node-1") && text.contains("rx.total"))
        .unwrap();
    terminal
}

/// Without a terminal.
fn written(args: &[&str]) -> Output {
    top(args).stdin(Stdio::null()).output().unwrap()
}

/// The line of a screen that has all of these words.
fn line<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    text.lines().find(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn it_shows_sorts_filters_and_gives_the_terminal_back() {
    let agent = Agent::start(None, None);
    let mut terminal = at(&agent, 80, 24);
    assert!(terminal.is_raw().unwrap());
    let overview = terminal.wait_for("findings", |text| text.contains(" to apply, ")).unwrap();
    for words in
        [&["DNS", "timeouts"][..], &["TCP", "sent again"], &["drops", "NETFILTER_DROP"], &["cost", "CPU"]]
    {
        assert!(line(&overview, words).is_some(), "{words:?}: {overview}");
    }
    assert!(overview.lines().last().unwrap().contains("q quit"), "{overview}");
    // Windows come: the time in the head goes on.
    let head = overview.lines().next().unwrap().to_owned();
    terminal.wait_for("the next window", |text| text.lines().next().is_some_and(|now| now != head)).unwrap();

    terminal.press("2").unwrap();
    terminal.wait_for("the table of signals", |text| text.contains("Latency: ")).unwrap();
    // By the last column, backwards from none: the one with most latencies first.
    terminal.press("<").unwrap();
    let sorted = terminal.wait_for("the mark of the column", |text| text.contains("▼count")).unwrap();
    let first = sorted.lines().nth(4).unwrap();
    assert!(first.starts_with("rx.stack") && first.contains("84,210"), "{sorted}");
    terminal.press("r").unwrap();
    terminal.wait_for("the other way round", |text| text.contains("▲count")).unwrap();
    terminal.press("/eth0\r").unwrap();
    let filtered = terminal.wait_for("the filter", |text| text.contains("with `eth0`")).unwrap();
    assert!(line(&filtered, &["rx.stack", "eth0"]).is_some(), "{filtered}");
    assert!(line(&filtered, &["rx.stack", "all"]).is_none(), "{filtered}");

    terminal.press("7").unwrap();
    terminal.wait_for("the list of findings", |text| text.contains("because")).unwrap();
    terminal.press("\r").unwrap();
    let details = terminal.wait_for("the exact change", |text| text.contains("    undo ")).unwrap();
    assert!(details.contains("    do        in host: "), "{details}");
    terminal.press("\u{1b}").unwrap();
    terminal.wait_for("the list again", |text| text.contains("because")).unwrap();

    terminal.resize(60, 15).unwrap();
    terminal.press("1").unwrap();
    let small = terminal
        .wait_for("a smaller page", |text| {
            text.lines().count() == 15 && text.lines().last().is_some_and(|l| l.contains("q quit"))
        })
        .unwrap();
    assert!(line(&small, &["cost", "CPU"]).is_some(), "{small}");
    terminal.press(" ").unwrap();
    terminal.wait_for("pause", |text| text.contains("PAUSED")).unwrap();
    terminal.press("?").unwrap();
    terminal.wait_for("the help", |text| text.contains("Ctrl-C")).unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.ended().unwrap().code(), Some(0));
    // What was on the ordinary screen is there again, and nothing of ours.
    assert_eq!(terminal.text().trim(), "");
}

#[test]
fn however_it_ends_the_terminal_is_as_before() {
    let agent = Agent::start(None, None);
    let mut interrupted = at(&agent, 80, 24);
    interrupted.press("\u{3}").unwrap();
    assert_eq!(interrupted.ended().unwrap().code(), Some(0));

    let mut terminated = at(&agent, 80, 24);
    terminated.signal(Signal::TERM).unwrap();
    assert_eq!(terminated.ended().unwrap().code(), Some(0));

    let mut timed = Terminal::run(top(&["--agent", &agent.url(), "-d", "1s"]), 80, 24).unwrap();
    assert_eq!(timed.ended().unwrap().code(), Some(0));

    let mut command = top(&["--agent", &agent.url()]);
    command.env("NETTRACE_TOP_PANIC", "1").env("RUST_BACKTRACE", "0");
    let mut panicked = Terminal::run(command, 80, 24).unwrap();
    assert_eq!(panicked.ended().unwrap().code(), Some(101));
    let said = panicked.wait_for("the panic", |text| text.contains("a test asked for this panic")).unwrap();
    assert!(said.contains("panicked at"), "told on the ordinary screen: {said}");
}

#[test]
fn an_agent_that_goes_is_told_and_found_again() {
    let agent = Agent::start(None, None);
    let address = agent.address();
    let mut terminal = at(&agent, 100, 24);
    drop(agent);
    let lost = terminal.wait_for("the loss", |text| text.contains("LOST: ")).unwrap();
    assert!(lost.contains("rx.total"), "what was known is still shown: {lost}");
    terminal.wait_for("why", |text| text.contains("refused")).unwrap();
    let _again = Agent::start(Some(address), None);
    terminal
        .wait_for("the agent again", |text| !text.contains("LOST") && text.contains("window 2.00 s"))
        .unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.ended().unwrap().code(), Some(0));
}

/// From the agent's windows over its page to the screen, and what of it is lost with the agent.
#[test]
fn it_shows_what_an_agent_sees() {
    let (lab, dir) = (Lab::start(LabConfig::default()).unwrap(), tempfile::tempdir().unwrap());
    let mut agent = run::Agent::start(dir.path(), &run::config(&lab, dir.path(), ""));
    agent.wait_for("READY=1");
    let url = format!("http://{}", agent.address());
    let mut terminal = Terminal::run(top(&["--agent", &url]), 80, 24).unwrap();
    thread::scope(|scope| {
        let traffic = scope.spawn(|| lab.demo_traffic(Duration::from_secs(6)));
        // The agent looks at the node alone, which forwards what the pods say.
        terminal
            .wait_for("latencies", |text| text.contains("fwd.host") && text.contains("dns.latency"))
            .unwrap();
        traffic.join().unwrap().unwrap();
    });
    agent.end();
    terminal.wait_for("the loss", |text| text.contains("LOST: ")).unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.ended().unwrap().code(), Some(0));
}

/// The screen is that of this program's own capture, too, and the capture ends with it.
#[test]
fn it_measures_by_itself() {
    let mut terminal = Terminal::run(top(&["--lab", "--interval", "500ms"]), 80, 24).unwrap();
    terminal.wait_for("latencies", |text| text.contains("rx.total") && text.contains("dns.latency")).unwrap();
    terminal.press("3").unwrap();
    terminal.wait_for("names", |text| text.contains("Resolvers: ")).unwrap();
    terminal.press("q").unwrap();
    assert_eq!(terminal.ended().unwrap().code(), Some(0), "{}", terminal.text());
}

#[test]
fn scripts_get_text_or_json() {
    let agent = Agent::start(None, None);
    let url = agent.url();
    let once = written(&["--agent", &url, "--once"]);
    assert_eq!(once.status.code(), Some(0), "{}", stderr(&once));
    let text = stdout(&once);
    assert!(text.starts_with("nettrace top: node-1\n") && text.contains("rx.total"), "{text}");
    assert!(text.contains("FINDINGS") && text.contains("apply"), "{text}");
    assert!(text.is_ascii() || !text.contains('\u{1b}'), "{text}");

    let lines = written(&["--agent", &url, "--format", "json", "-d", "2s"]);
    assert_eq!(lines.status.code(), Some(0), "{}", stderr(&lines));
    let frames: Vec<Frame> = stdout(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(frames.len() >= 3, "{}", frames.len());
    assert!(frames.is_sorted_by(|a, b| a.at_unix_ms < b.at_unix_ms), "each once, in order");
    assert!(frames.iter().all(|frame| frame.hostname == "node-1"));
}

/// In one line, and nothing is measured or shown.
#[test]
fn what_cannot_be_shown_is_told() {
    let agent = Agent::start(None, Some("secret"));
    let url = agent.url();
    let refused = |args: &[&str], code: i32, word: &str| {
        let output = written(args);
        let said = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(word), "`{word}`: {said}");
    };
    refused(&["--agent", &url, "--once"], 1, "--token-file");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("top-token");
    fs::write(&file, "wrong\n").unwrap();
    let token = file.to_str().unwrap();
    refused(&["--agent", &url, "--token-file", token, "--once"], 1, "401");
    fs::write(&file, "secret\n").unwrap();
    assert!(written(&["--agent", &url, "--token-file", token, "--once"]).status.success());
    refused(&["--agent", "http://192.0.2.1", "--token-file", token, "--once"], 2, "in the clear");
    refused(&["--agent", "ftp://node", "--once"], 2, "neither http nor https");
    refused(&["--agent", "https://127.0.0.1:1", "--ca-file", "/nonexistent", "--once"], 2, "/nonexistent");
    refused(&["--interval", "1ms", "--once"], 2, "--interval");
    drop(agent);
    refused(&["--agent", &url, "--once"], 1, "refused");
}
