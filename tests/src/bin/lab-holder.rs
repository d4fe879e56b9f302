//! Starts a lab, or a scenario in its second arm, prints its id, and holds it until standard input ends: for the tests that
//! kill it.

use nettrace::{
    bench::scenario::{Arm, find},
    lab::{Lab, LabConfig},
};
use std::{
    env,
    io::{self, Read, Write},
};

fn main() -> anyhow::Result<()> {
    match env::args().nth(1) {
        Some(scenario) => {
            let mut running = find(&scenario)?.start()?;
            running.set(Arm::B)?;
            hold(running.id())?;
        }
        None => {
            let lab = Lab::start(LabConfig::default())?;
            hold(lab.id())?;
            lab.stop()?;
        }
    }
    Ok(())
}

fn hold(id: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{id}")?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
