//! Starts a lab, prints its id, and holds it until standard input ends: for the tests that kill it.

use nettrace::lab::{Lab, LabConfig};
use std::io::{Read, Write};

fn main() -> anyhow::Result<()> {
    let lab = Lab::start(LabConfig::default())?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", lab.id())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    lab.stop()?;
    Ok(())
}
