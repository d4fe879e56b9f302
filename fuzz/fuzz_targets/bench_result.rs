//! Any bytes as the result of a run: what is taken for one is read back the same, and compared with itself without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace_bench::{
    compare::{Options, compare, compare_arms},
    result::RunResult,
};

fuzz_target!(|data: &[u8]| {
    let Ok(result) = RunResult::from_json(data) else { return };
    let json = result.to_json().expect("a result has a JSON form");
    assert!(RunResult::from_json(json.as_bytes()).expect("its own JSON") == result);
    let options = Options::default();
    let _ = if result.is_experiment() {
        compare_arms(&result, &options)
    } else {
        compare(&result, &result, &options)
    };
});
