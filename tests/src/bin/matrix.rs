//! The confusion matrix of the whole fault suite, from the outputs of its halves: `matrix FILE...`. Fails where precision or
//! recall is below 1.
#![expect(clippy::print_stdout, reason = "the matrix goes to standard output")]

use anyhow::{Context as _, Result, ensure};
use nettrace_tests::matrix::Matrix;
use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> Result<ExitCode> {
    let outputs: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(
        !outputs.is_empty(),
        "usage: matrix FILE...: what the fault suite printed on the host, in a virtual machine"
    );
    let mut sum = Matrix::default();
    for path in outputs {
        // A virtual machine's console may say anything.
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let matrix = Matrix::read(&String::from_utf8_lossy(&bytes));
        sum.add(&matrix.with_context(|| {
            format!(
                "{} has no matrix: it is no output of the fault suite, or of one that stopped",
                path.display()
            )
        })?);
    }
    println!("{sum}\n");
    println!("Rules that no scenario calls for: {}", sum.never_called_for().join(", "));
    Ok(if sum.is_perfect() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
