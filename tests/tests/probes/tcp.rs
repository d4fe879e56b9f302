//! `tcp`: connections, accepts and failures are counted exactly.

use nettrace::lab::{Family, LabConfig, Role};
use nettrace_common::Signal;
use nettrace_tests::captured;

/// C connections give C connects and C accepts, each with its time.
#[test]
fn connections_are_counted_on_both_sides() {
    const CONNECTIONS: u32 = 40;
    let (finished, _) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            Ok(nettrace::lab::traffic::tcp::http_gets(&path, CONNECTIONS)?)
        },
    )
    .unwrap();
    let tcp = &finished.snapshot.tcp;
    assert_eq!((tcp.connects, tcp.accepts, tcp.connect_failures), (40, 40, 0));
    for signal in [Signal::TcpConnect, Signal::TcpAccept] {
        assert_eq!(finished.snapshot.signal(signal).unwrap().hist.count(), 40, "{}", signal.name());
    }
}
