//! `cargo xtask demo`: nettrace on its own lab network, with stable Rust and the kept kernel object.

use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::{privilege::Privilege, process, workspace};

/// Build nettrace and run it on its lab network
#[derive(clap::Args)]
pub(crate) struct Args {
    /// More arguments for `nettrace run --lab`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds as the user, then runs as root.
pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    process::run(process::cargo().args(["build", "--release", "--package=nettrace", "--bin=nettrace"]))?;
    println!("built nettrace in {:.1} s", start.elapsed().as_secs_f64());
    let nettrace = workspace::target_dir().join("release/nettrace");
    let mut cmd = Privilege::detect().command(&[], &nettrace.to_string_lossy()).map_err(|why| {
        anyhow!("the lab needs root ({why}); run `{} run --lab` as root", nettrace.display())
    })?;
    process::run(cmd.args(["run", "--lab"]).args(&args.rest))
}
