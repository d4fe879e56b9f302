//! Any bytes as a snapshot: what is taken for one can be reported in every format, and is read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace::report::{Format, Options, render};
use nettrace::snapshot::Snapshot;

fuzz_target!(|data: &[u8]| {
    let Ok(snapshot) = Snapshot::from_json(data) else { return };
    for format in [Format::Text, Format::Markdown, Format::Html] {
        assert!(render(&snapshot, format, &Options::default()).is_ok());
    }
    let json = render(&snapshot, Format::Json, &Options::default()).expect("a snapshot has a JSON form");
    assert!(Snapshot::from_json(json.as_bytes()).expect("its own JSON") == snapshot);
});
