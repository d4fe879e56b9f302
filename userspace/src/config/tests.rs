//! From words to meaning.

use super::*;
use crate::iface::Link;
use clap::Parser as _;

fn config(line: &str) -> Result<Config, UsageError> {
    let words = std::iter::once("nettrace").chain(line.split_whitespace());
    resolve(Cli::try_parse_from(words).unwrap(), 4096)
}

fn run(line: &str) -> Result<(Capture, Output), UsageError> {
    match config(&format!("run {line}"))?.action {
        Action::Run { capture, output, .. } => Ok((capture, output)),
        other => panic!("{other:?}"),
    }
}

fn captured(line: &str) -> Capture {
    run(line).unwrap().0
}

fn wants(capture: &Capture, name: &str) -> bool {
    let link = Link { ifindex: 1, name: name.to_owned(), up: true, kind: None, ethernet: true, queue: false };
    capture.selection.wants(&link)
}

fn error(line: &str) -> String {
    config(line).unwrap_err().to_string()
}

#[test]
fn nothing_typed_means_the_defaults() {
    let (capture, output) = run("").unwrap();
    assert_eq!(capture.duration, Some(Duration::from_secs(10)));
    assert!(wants(&capture, "eth0") && !capture.selection.is_explicit());
    assert!(capture.netns.is_empty() && capture.filter.is_empty() && capture.filter_text.is_none());
    assert_eq!(capture.lab, None);
    assert_eq!(capture.exemplar_ns, [1_000_000; Signal::COUNT]);
    assert_eq!((capture.sample_every, capture.ring_bytes), (0, 4 << 20));
    assert_eq!(capture.packet_budget, None);
    assert_eq!((capture.dns_ports, capture.dns_timeout), ([53, 0, 0, 0], Duration::from_secs(5)));
    assert!(!capture.selection.xdp && !capture.selection.clsact && capture.progress);
    assert_eq!(output, Output { format: Format::Text, path: None, top: 10 });
}

#[test]
fn a_budget_of_packets_may_be_none_at_all() {
    assert_eq!(captured("--packet-budget 0").packet_budget, Some(0));
    assert_eq!(captured("--packet-budget 100000").packet_budget, Some(100_000));
}

#[test]
fn zero_is_until_ctrl_c() {
    assert_eq!(captured("-d 0").duration, None);
    assert_eq!(captured("-d 2m").duration, Some(Duration::from_secs(120)));
}

#[test]
fn interfaces_are_included_and_excluded_by_pattern() {
    let capture = captured("-i eth* -i cali* --exclude eth1");
    assert!(capture.selection.is_explicit());
    for (name, wanted) in [("eth0", true), ("eth1", false), ("cali7", true), ("lo", false)] {
        assert_eq!(wants(&capture, name), wanted, "{name}");
    }
    let capture = captured("--exclude lo --xdp");
    assert!(wants(&capture, "eth0") && !wants(&capture, "lo") && capture.selection.xdp);
}

#[test]
fn namespaces_have_names_paths_and_processes() {
    let netns = captured("--netns blue --netns 4711 --netns /proc/1/ns/net --netns blue").netns;
    let paths: Vec<_> = netns.iter().map(NetnsRef::path).collect();
    assert_eq!(
        paths,
        [Path::new("/run/netns/blue"), Path::new("/proc/4711/ns/net"), Path::new("/proc/1/ns/net")]
    );
    for bad in ["..", "0", "99999999999"] {
        assert!(error(&format!("run --netns {bad}")).contains(bad));
    }
}

#[test]
fn a_threshold_for_a_signal_holds_wherever_it_stands() {
    for line in ["--exemplar rx.total=500us --exemplar off", "--exemplar off --exemplar rx.total=500us"] {
        let ns = captured(line).exemplar_ns;
        assert_eq!(ns[Signal::RxTotal as usize], 500_000, "{line}");
        assert_eq!(ns[Signal::TxQdisc as usize], u64::MAX, "{line}");
    }
    let ns = captured("--exemplar fwd.host=off --exemplar 2ms --exemplar 3ms").exemplar_ns;
    assert_eq!(ns[Signal::FwdHost as usize], u64::MAX);
    assert_eq!(ns[Signal::RxTotal as usize], 3_000_000);
}

#[test]
fn the_ring_has_a_size_that_the_kernel_takes() {
    assert_eq!(captured("--ring-size 4096").ring_bytes, 4096);
    assert_eq!(captured("--ring-size 1GiB").ring_bytes, 1 << 30);
    assert!(error("run --ring-size 9MiB").ends_with("the nearest is 16777216"));
    assert!(error("run --ring-size 2048").ends_with("the nearest is 4096"));
    assert!(error("run --ring-size 2GiB").ends_with("the nearest is 1073741824"));
}

#[test]
fn dns_options_are_checked() {
    let ports = captured("--dns-port 5353 --dns-port 53 --dns-port 53").dns_ports;
    assert_eq!(ports, [5353, 53, 0, 0]);
    let five = "run --dns-port 1 --dns-port 2 --dns-port 3 --dns-port 4 --dns-port 5";
    assert_eq!(error(five), "--dns-port: 5 ports are given, and at most 4 can be");
    assert!(error("run --dns-timeout 0").starts_with("--dns-timeout 0"));
}

#[test]
fn the_filter_is_compiled_and_kept_as_typed() {
    let capture = captured("--filter tcp");
    assert_eq!((capture.filter.protocol, capture.filter_text.as_deref()), (6, Some("tcp")));
    assert!(error("run --filter tpc").starts_with("--filter: expected `host`"));
}

#[test]
fn the_lab_has_a_topology() {
    assert_eq!(captured("--lab").lab, Some(Topology::Bridge));
    assert_eq!(captured("--lab --topology routed").lab, Some(Topology::Routed));
    let Action::Lab { topology, duration, .. } = config("lab").unwrap().action else { panic!() };
    assert_eq!((topology, duration), (Topology::Bridge, None));
}

#[test]
fn the_extension_gives_the_format_unless_it_is_given() {
    for (line, format) in [
        ("-o a.html", Format::Html),
        ("-o a.HTM", Format::Html),
        ("-o a.json", Format::Json),
        ("-o a.md", Format::Markdown),
        ("-o a.txt", Format::Text),
        ("-o a.MARKDOWN", Format::Markdown),
        ("-o a", Format::Text),
        ("-o .a", Format::Text),
        ("-o /dev/stderr", Format::Text),
        ("-o a.html --format json", Format::Json),
        ("-o a.log --format text", Format::Text),
        ("--format md", Format::Markdown),
    ] {
        assert_eq!(run(line).unwrap().1.format, format, "{line}");
    }
    assert_eq!(run("-o -").unwrap().1.path, None);
}

#[test]
fn an_extension_that_is_no_format_is_an_error() {
    let expected = "--output d/a.htlm: no format goes by the extension `.htlm`; there are .txt, .json, .html, .htm, \
                    .md, .markdown, or give --format";
    assert_eq!(error("run -o d/a.htlm"), expected);
    assert!(error("report x.rec -o a.log").contains("`.log`"));
    assert!(error("report x.rec -o a.").contains("`.`"));
}

#[test]
fn a_recording_has_limits_that_fit_each_other() {
    let limits = |line: &str| match config(&format!("record x.rec {line}")).unwrap().action {
        Action::Record { limits, .. } => (limits.max_bytes_total, limits.max_file_bytes),
        other => panic!("{other:?}"),
    };
    assert_eq!(limits(""), (1 << 30, 1 << 27));
    assert_eq!(limits("--max-size 2MiB"), (2 << 20, 1 << 20));
    assert_eq!(limits("--max-size 10MiB --rotate-size 5MiB"), (10 << 20, 5 << 20));
    assert!(error("record x --max-size 10MiB --rotate-size 6MiB").contains("half of --max-size"));
    assert!(error("record x --rotate-size 1k").contains("from 1048576 bytes"));
    assert!(error("record x --max-size 1MiB").contains("at least 2097152"));
}
