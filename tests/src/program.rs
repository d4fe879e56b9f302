//! The `nettrace` program, for tests of the whole.

use anyhow::{Context, Result, ensure};
use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
};

/// A command that runs the program: `NETTRACE_BIN`, or one built now, from the same sources and profile as the test.
///
/// # Errors
/// When it cannot be built.
pub fn nettrace() -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(Command::new(path)),
        Err(error) => anyhow::bail!("{error}"),
    }
}

fn build() -> Result<PathBuf> {
    if let Some(path) = env::var_os("NETTRACE_BIN") {
        return Ok(path.into());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package=nettrace", "--bin=nettrace"])
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "cargo could not build nettrace");
    // The test runs from target/debug/deps.
    let test = env::current_exe()?;
    let dir = test.ancestors().nth(2).context("the test is not in a target directory")?;
    Ok(dir.join("nettrace"))
}

/// What the program wrote to standard error.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the program wrote to standard output.
#[must_use]
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
