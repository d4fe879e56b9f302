//! The command line as people meet it.

use super::*;
use clap::{CommandFactory as _, error::ErrorKind};
use tempfile::TempDir;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("nettrace").chain(line.split_whitespace()))
}

fn error(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8));
    error.to_string()
}

/// All commands, and commands of commands, as they are typed.
fn all() -> Vec<(String, clap::Command)> {
    let mut left = vec![(String::new(), Cli::command())];
    let mut all = Vec::new();
    while let Some((name, command)) = left.pop() {
        let named = |c: &clap::Command| (format!("{name} {}", c.get_name()).trim().to_owned(), c.clone());
        left.extend(command.get_subcommands().map(named));
        all.push((name, command));
    }
    all
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_ends_with_exit_codes_and_examples() {
    let all = all();
    assert_eq!(all.len(), 1 + 19 + 9);
    for (name, _) in all {
        let line = format!("{name} --help");
        let help = parse(&line).unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        let help = help.to_string();
        let (_, end) = help.split_once("Exit codes:\n  0  success\n").expect(&line);
        let (_, examples) = end.split_once("\nExamples:\n").expect(&line);
        assert!(examples.lines().all(|l| l.is_empty() || l.starts_with("  ")), "{line}: {examples}");
    }
}

/// Every command in the examples can be parsed, so that no example goes stale.
#[test]
fn the_examples_work() {
    let mut examples = 0;
    for (_, command) in all() {
        let help = command.get_after_help().unwrap().to_string();
        let lines = help
            .lines()
            .map(str::trim)
            .filter_map(|l| l.strip_prefix("sudo nettrace ").or_else(|| l.strip_prefix("nettrace ")));
        for line in lines {
            // The shell's quotes, of which the examples use only the simple kind; between them, what goes elsewhere ends it.
            let mut words = Vec::new();
            for (i, part) in line.split('\'').enumerate() {
                if i % 2 == 1 {
                    words.push(part.to_owned());
                    continue;
                }
                let ours = part.split(['|', '>']).next().unwrap();
                words.extend(ours.split_whitespace().map(str::to_owned));
                if ours.len() < part.len() {
                    break;
                }
            }
            let cli = Cli::try_parse_from(std::iter::once("nettrace".to_owned()).chain(words)).expect(line);
            crate::config::resolve(cli, 4096).expect(line);
            examples += 1;
        }
    }
    assert!(examples > 12);
}

#[test]
fn options_may_be_repeated_where_that_makes_sense() {
    let Command::Run(args) = parse("run -i a -i b --exclude c --netns d --netns e").unwrap().command else {
        panic!()
    };
    assert_eq!((args.capture.iface.len(), args.capture.exclude.len(), args.capture.netns.len()), (2, 1, 2));
    assert_eq!(parse("-vv run").unwrap().verbose, 2);
    assert_eq!(parse("run -v").unwrap().verbose, 1);
}

#[test]
fn errors_name_the_option_and_what_was_expected() {
    for (line, expected) in [
        ("run -d 10", "invalid value '10' for '--duration <TIME>': a time needs a unit: 10s?"),
        ("run --exemplar rx=1ms", "unknown signal `rx`: one of rx.stack, "),
        ("run --ring-size lots", "expected a size like 65536"),
        ("run --format pdf", "[possible values: text, markdown, json, html]"),
        ("run --topology routed", "--lab"),
        ("run --lab --topology star", "[possible values: bridge, routed]"),
        ("run --dns-port 0", "0 is not in 1..=65535"),
        ("run --top 0", "0 is not in 1.."),
        ("run -i [", "not a pattern"),
        ("run --filtre tcp", "a similar argument exists: '--filter'"),
        ("record", "<FILE>"),
        ("report", "<FILE>"),
        ("completions tcsh", "[possible values: bash, zsh, fish]"),
    ] {
        let text = error(line);
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_recording_has_no_report_options() {
    assert!(parse("record x --format json").is_err());
    assert!(parse("report x --duration 1s").is_err());
}

#[test]
fn completions_know_the_commands_and_hide_what_is_hidden() {
    for shell in [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish] {
        let mut script = Vec::new();
        completions(shell, &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("nettrace") && script.contains("record") && script.contains("rotate-size"));
    }
}

#[test]
fn there_is_a_manual_page_for_every_command_that_is_shown() {
    let dir = TempDir::new().unwrap();
    let paths = man_pages(&dir.path().join("man1")).unwrap();
    let mut names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "nettrace-agent.1",
            "nettrace-apply.1",
            "nettrace-bench-ab.1",
            "nettrace-bench-client.1",
            "nettrace-bench-compare.1",
            "nettrace-bench-history.1",
            "nettrace-bench-run.1",
            "nettrace-bench-scenarios.1",
            "nettrace-bench-server.1",
            "nettrace-bench-suite.1",
            "nettrace-bench.1",
            "nettrace-changes.1",
            "nettrace-completions.1",
            "nettrace-config-check.1",
            "nettrace-config.1",
            "nettrace-doctor.1",
            "nettrace-history.1",
            "nettrace-keep.1",
            "nettrace-lab.1",
            "nettrace-recommend.1",
            "nettrace-record.1",
            "nettrace-report.1",
            "nettrace-rollback.1",
            "nettrace-run.1",
            "nettrace-status.1",
            "nettrace-top.1",
            "nettrace-tune.1",
            "nettrace.1"
        ]
    );
    let mut page = Vec::new();
    man_page(&mut page).unwrap();
    assert!(String::from_utf8(page).unwrap().contains("Exit codes"));
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let codes = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Damaged].map(|e| e as u8);
    assert_eq!(codes, [0, 1, 2, 3]);
}
