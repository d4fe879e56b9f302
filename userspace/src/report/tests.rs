//! Golden reports of the samples, and what must hold for any snapshot.

use super::*;
use crate::snapshot::{Hist, Probe, Rotated, SignalData, sample};
use proptest::prelude::*;

fn report(snapshot: &Snapshot, format: Format) -> String {
    render(snapshot, format, &Options::default()).expect("renders")
}

#[test]
fn text_of_the_samples() {
    insta::assert_snapshot!("rich_text", report(&sample::rich(), Format::Text));
    insta::assert_snapshot!("empty_text", report(&sample::empty(), Format::Text));
    insta::assert_snapshot!("hostile_text", report(&sample::hostile(), Format::Text));
}

#[test]
fn markdown_of_the_samples() {
    insta::assert_snapshot!("rich_markdown", report(&sample::rich(), Format::Markdown));
    insta::assert_snapshot!("hostile_markdown", report(&sample::hostile(), Format::Markdown));
}

/// Style and script are files of their own; the golden page leaves them out.
pub(crate) fn without_inline(page: &str) -> String {
    let mut page = page.to_owned();
    for tag in ["style", "script"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        if let (Some(from), Some(to)) = (page.find(&open), page.rfind(&close)) {
            page.replace_range(from + open.len()..to, "");
        }
    }
    let hash = page.find("style-src").zip(page.find("; img-src"));
    if let Some((from, to)) = hash {
        page.replace_range(from..to, "style-src [hash]; script-src [hash]");
    }
    page
}

#[test]
fn html_of_the_samples() {
    insta::assert_snapshot!("rich_html", without_inline(&report(&sample::rich(), Format::Html)));
    insta::assert_snapshot!("empty_html", without_inline(&report(&sample::empty(), Format::Html)));
}

#[test]
fn text_is_as_wide_as_asked() {
    for width in [60, 80, 100, 200] {
        let options = Options { width, ..Options::default() };
        for snapshot in [sample::rich(), sample::empty()] {
            let text = render(&snapshot, Format::Text, &options).expect("renders");
            for line in text.lines() {
                let columns = unicode_width::UnicodeWidthStr::width(line);
                // A table of numbers alone cannot give way.
                assert!(columns <= width.max(100), "{columns}: {line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let plain = report(&sample::rich(), Format::Text);
    let options = Options { color: true, ..Options::default() };
    let colored = render(&sample::rich(), Format::Text, &options).expect("renders");
    assert!(colored.contains("\u{1b}[31m"));
    let mut stripped = colored;
    for code in ["0", "1", "2", "31", "32", "33", "36"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, plain);
}

#[test]
fn what_was_not_looked_at_is_not_said_to_be_absent() {
    let mut snapshot = sample::rich();
    snapshot.drops.clear();
    snapshot.drop_flows.clear();
    assert!(report(&snapshot, Format::Text).contains("No drops seen.\n"));
    for probe in snapshot.probes.iter_mut().filter(|p| p.name == "drop") {
        probe.source = None;
        probe.reason = Some("needs Linux 5.17".to_owned());
    }
    let expected = "No drops seen, but not everything was looked at; off: drop (needs Linux 5.17).\n";
    assert!(report(&snapshot, Format::Text).contains(expected));
}

/// By the names that probes really have.
#[test]
fn a_run_of_nothing_says_in_each_section_that_nobody_looked() {
    let mut snapshot = sample::empty();
    let off = |name: &str| Probe {
        name: name.to_owned(),
        source: None,
        yields: vec![name.to_owned()],
        reason: Some(Probe::NOT_SELECTED.to_owned()),
    };
    snapshot.probes = crate::probes::PROBES.iter().map(|p| off(p.name)).collect();
    let view = view::build(&snapshot, 10);
    for id in ["dns", "tcp", "fragments", "drops"] {
        let section = view.sections.iter().find(|s| s.id == id).expect("is there");
        assert!(section.lines[0].contains("not everything was looked at"), "{id}: {:?}", section.lines);
    }
}

#[test]
fn learnt_path_mtus_are_shown_without_any_message_about_them() {
    let learnt = sample::rich().ip.learnt;
    let mut snapshot = sample::empty();
    (snapshot.ip.learnt, snapshot.ip.learnt_paths) = (learnt, 250);
    let text = report(&snapshot, Format::Text);
    assert!(text.contains("Path MTUs that the kernel learnt:\nnetns"), "{text}");
    assert!(text.contains("The kernel learnt the MTU of 250 paths; kept are the narrowest 2.\n"), "{text}");
    assert!(!text.contains("No fragments"), "{text}");
}

#[test]
fn what_was_not_selected_takes_one_line() {
    let mut snapshot = sample::rich();
    snapshot.drops.clear();
    snapshot.drop_flows.clear();
    for probe in snapshot.probes.iter_mut().filter(|p| ["softirq", "drop"].contains(&p.name.as_str())) {
        probe.source = None;
        probe.reason = Some(Probe::NOT_SELECTED.to_owned());
    }
    let text = report(&snapshot, Format::Text);
    assert!(text.contains("PROBES\nNot selected: softirq, drop.\n\nprobe "), "{text}");
    assert!(
        text.contains("No drops seen, but not everything was looked at; not selected: drop.\n"),
        "{text}"
    );
    // What was not asked for is not missed.
    assert!(text.contains("\n• 1 of 4 probes off: conntrack.\n"), "{text}");
}

#[test]
fn retransmissions_are_a_share_of_what_was_sent() {
    let says = |retransmits, segments_sent| {
        let mut snapshot = sample::rich();
        (snapshot.tcp.retransmits, snapshot.tcp.segments_sent) = (retransmits, segments_sent);
        let text = report(&snapshot, Format::Text);
        text.lines().find(|l| l.contains("sent again (")).unwrap_or_default().to_owned()
    };
    assert_eq!(says(214, Some(79_144)), "• TCP: 214 segments were sent again (0.27 % of those sent).");
    assert_eq!(says(1, Some(99)), "! TCP: 1 segment was sent again (1.00 % of those sent).");
    assert_eq!(says(2, Some(0)), "! TCP: 2 segments were sent again (100 % of those sent).");
    // Where it is not known how many were sent, more than one a second is much.
    assert_eq!(says(30, None), "• TCP: 30 segments were sent again (1.00/s; of how many is not known).");
    assert_eq!(says(31, None), "! TCP: 31 segments were sent again (1.03/s; of how many is not known).");
    assert_eq!(says(0, Some(9)), "");
}

#[test]
fn send_buffers_are_a_warning_from_a_tenth_of_the_busy_time() {
    let says = |busy_us, sndbuf_limited_us| {
        let mut snapshot = sample::rich();
        let limited = &mut snapshot.tcp.limited;
        (limited.busy_us, limited.sndbuf_limited_us) = (busy_us, sndbuf_limited_us);
        report(&snapshot, Format::Text).contains("net.ipv4.tcp_wmem")
    };
    assert!(says(1_000_000, 100_000));
    assert!(!says(1_010_000, 100_000), "less than a tenth");
    assert!(!says(990_000, 99_000), "less than 100 ms");
    assert!(!says(0, 0));
}

#[test]
fn packets_that_a_table_with_room_dropped_are_not_said_to_have_found_none() {
    let says = |entries, early_drop, by_packet| {
        let mut snapshot = sample::rich();
        snapshot.conntrack_trouble.table_full = by_packet;
        for table in &mut snapshot.conntrack {
            (table.entries, table.max) = (Some(entries), Some(100));
            table.cpus.iter_mut().for_each(|c| (c.drop, c.early_drop) = (Some(9), Some(early_drop)));
        }
        report(&snapshot, Format::Text).contains("dropped because the table was full")
    };
    assert!(says(10, 1, 0) && says(95, 0, 0) && says(10, 0, 1));
    assert!(!says(10, 0, 0));
}

#[test]
fn events_of_tcp_that_nobody_looked_for_are_not_0() {
    let mut snapshot = sample::rich();
    (snapshot.tcp.accepts, snapshot.tcp.retransmits) = (0, 0);
    let off = snapshot.probes.last().expect("the sample has probes").clone();
    for name in ["tcp.accept", "tcp.retransmit", "tcp.reset"] {
        snapshot.probes.push(Probe { name: name.to_owned(), ..off.clone() });
    }
    let text = report(&snapshot, Format::Text);
    let row = |what: &str| text.lines().find(|l| l.starts_with(what)).unwrap_or_default().to_owned();
    assert!(row("connections accepted by local servers").ends_with("not measured       -"), "{text}");
    assert!(!text.contains("segments sent were sent again"), "{text}");
    assert!(row("resets sent").contains(" 12 "), "what was counted all the same is told: {text}");
}

#[test]
fn a_start_that_was_rotated_away_is_told() {
    let mut snapshot = sample::rich();
    snapshot.meta.rotated = Some(Rotated { files: 3, size_bytes: 12 << 20 });
    snapshot.ring.received -= 23;
    let text = report(&snapshot, Format::Text);
    for expected in [
        "\nRecording      without its start: 3 files (12.0 MiB) rotated away\nFilter ",
        "\n• The recording's start was rotated away: ",
        ": 18,423 records emitted, 18,400 received, 0 lost, 23 no longer in the\nrecording.\n",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("incomplete:"), "{text}");
}

#[test]
fn drops_that_are_usual_are_no_warning() {
    let mut snapshot = sample::rich();
    snapshot.drops.retain(|d| d.reason == "NO_SOCKET");
    snapshot.drop_flows.clear();
    let text = report(&snapshot, Format::Text);
    assert!(text.contains("\n• 6 packets were dropped, all as is usual: NO_SOCKET 6.\n"), "{text}");
}

#[test]
fn top_bounds_each_table() {
    let options = Options { top: 1, ..Options::default() };
    let text = render(&sample::rich(), Format::Text, &options).expect("renders");
    assert!(text.contains("and 2 more rows (raise --top)"), "{text}");
    assert!(!text.contains("nft_do_chain"), "{text}");
    assert!(text.contains("dns.latency"), "signals are not cut: {text}");
}

#[test]
fn hostile_strings_have_no_effect_in_any_format() {
    for format in [Format::Text, Format::Markdown, Format::Html] {
        let text = report(&sample::hostile(), format);
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(bad), "{format:?} lets a control character through");
        if format != Format::Text {
            assert!(!text.contains("<script>alert"), "{format:?} lets markup through");
            assert!(!text.contains("<img"), "{format:?} lets markup through");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_histogram_renders(
        values in prop::collection::vec((any::<u64>(), 1..1_000_000_u64), 0..20),
        signal in 0..20_u8,
        sum_ns: u64,
        max_ns: u64,
        duration_ns: u64,
        width in 0..200_usize,
        top in 0..5_usize,
        name in ".{0,40}",
    ) {
        let mut hist = Hist::new();
        values.iter().for_each(|(ns, n)| hist.record_n(*ns, *n));
        let known = nettrace_common::Signal::from_u8(signal);
        let mut snapshot = sample::rich();
        snapshot.meta.duration_ns = duration_ns;
        snapshot.dns.names[0].name.clone_from(&name);
        snapshot.dns.servers[0].hist = hist.clone();
        snapshot.signals = vec![SignalData {
            signal: known.map_or(name, |s| s.name().to_owned()),
            definition: String::new(),
            scope: "all".to_owned(),
            hist,
            sum_ns,
            max_ns,
        }];
        for format in [Format::Text, Format::Markdown, Format::Json, Format::Html] {
            render(&snapshot, format, &Options { top, color: false, width }).expect("renders");
        }
    }
}
