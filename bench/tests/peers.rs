//! The tests of the comparison with other generators, whose own program is no test program.

#[path = "../benches/peers/main.rs"]
#[expect(dead_code, reason = "what the tests do not call, the benchmark does")]
mod benchmark;

use benchmark::{
    table::{Row, Sample, Verdict},
    tools::Tool,
};

#[test]
fn what_the_tools_print_is_read() {
    let netperf = "THROUGHPUT=23260.12\n";
    assert_eq!(Tool::Netperf.parse(netperf), Some(Sample { per_second: 23260.12, p50_us: None }));
    let sockperf = "sockperf: [Total Run] RunTime=1.100 sec; Warm up time=400 msec; SentMessages=99; ReceivedMessages=98\n\
                    sockperf: [Valid Duration] RunTime=0.500 sec; SentMessages=80; ReceivedMessages=40\n\
                    sockperf: ---> percentile 50.000 =   17.246\n";
    assert_eq!(Tool::Sockperf.parse(sockperf), Some(Sample { per_second: 80.0, p50_us: Some(17.246) }));
    let iperf3 =
        r#"{"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8e9}}}"#;
    assert_eq!(Tool::Iperf3.parse(iperf3), Some(Sample { per_second: 1e9, p50_us: None }));
    for tool in Tool::ALL {
        assert_eq!(tool.parse("error: unable to connect"), None);
    }
}

#[test]
fn a_load_agrees_when_both_medians_do() {
    let sample = |per_second, p50_us| Sample { per_second, p50_us: Some(p50_us) };
    let mut row = Row::new("tcp_rr".to_owned(), true);
    assert!(!row.agrees(0.1), "what was never run does not agree");
    // One round that was disturbed is not the median.
    for ours in [sample(108.0, 1.05), sample(50.0, 9.0), sample(107.0, 1.02)] {
        row.add(ours, sample(100.0, 1.0));
    }
    assert!(row.agrees(0.1) && !row.agrees(0.06));
    assert_eq!(row.verdict(0.1), Verdict::Undecided, "three rounds tell nothing");
    for _ in 0..6 {
        row.add(sample(101.0, 1.01), sample(100.0, 1.0));
    }
    assert_eq!(row.verdict(0.1), Verdict::Agree);
    assert_eq!(row.verdict(0.001), Verdict::Apart);
    let mut slow = Row::new("tcp_rr".to_owned(), true);
    slow.add(sample(100.0, 1.2), sample(100.0, 1.0));
    assert!(!slow.agrees(0.1));
    let mut rate_alone = Row::new("tcp_crr".to_owned(), false);
    rate_alone.add(sample(100.0, 1.2), sample(100.0, 1.0));
    assert!(rate_alone.agrees(0.1));
}
