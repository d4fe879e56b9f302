//! `nettrace doctor`: what a plain `nettrace run` would find here.

use super::{
    Exit,
    commands::{Failure, colorful, print},
    run::MAP_BYTES,
};
use crate::{
    doctor,
    load::ProgramOptions,
    preflight::{Host, Needs},
    report,
};
use anyhow::Context as _;

/// Looks at the node and says what it found; exit code 0 when `run` would work, 2 when not.
pub(super) fn examine(json: bool) -> Result<Exit, Failure> {
    let options = ProgramOptions::default();
    let needs = Needs { namespaces: false, map_bytes: u64::from(options.ring_bytes) + MAP_BYTES };
    let diagnosis = doctor::examine(&Host, needs, &options);
    let text = if json {
        doctor::json(&diagnosis).context("cannot write the diagnosis as JSON")?
    } else {
        let color = colorful();
        doctor::text(&diagnosis, &report::Options { color, ..report::Options::default() })
    };
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(if diagnosis.ready { Exit::Ok } else { Exit::Usage })
}
