//! Of what the flight recorder wrote: why, and how the windows around it looked.

use super::{super::units, Cell, Fact, Kind, Section, Table, clean};
use crate::{
    flight::amount,
    snapshot::{Flight, FlightWindow, Snapshot},
};

/// The cause, for the head of the report.
pub(super) fn fact(snapshot: &Snapshot) -> Option<Fact> {
    let Flight { cause, .. } = snapshot.meta.flight.as_ref()?;
    Some(Fact {
        name: "Cause",
        value: format!("{}, at {}", clean(&cause.to_string()), units::utc(cause.at_unix_ns)),
    })
}

/// The windows around it; none where the flight recorder did not write this.
pub(super) fn section(snapshot: &Snapshot) -> Option<Section> {
    let Flight { cause, windows } = snapshot.meta.flight.as_ref()?;
    let mut section = Section::new("flight", "Around the cause");
    section.line(format!("Written by the flight recorder: {}.", clean(&cause.to_string())));
    for also in &cause.also {
        section.line(format!("In the same window: {}.", clean(also)));
    }
    let columns = [
        ("window", Kind::Text),
        ("length", Kind::Number),
        ("looked at", Kind::Number),
        ("DNS timeouts", Kind::Number),
        ("retransmits", Kind::Number),
        ("drops", Kind::Number),
    ];
    let value = |window: &FlightWindow| match window.value {
        Some(value) => Cell { text: amount(cause.unit, value), sort: Some(value) },
        None => Cell::unknown("-"),
    };
    section.table(Table::of("", &columns, windows, usize::MAX, |w| {
        vec![
            Cell { text: units::utc(w.start_unix_ns), sort: Some(w.start_unix_ns as f64) },
            Cell::duration(w.duration_ns),
            value(w),
            Cell::count(w.dns_timeouts),
            Cell::count(w.retransmits),
            Cell::count(w.drops),
        ]
    }));
    Some(section)
}
