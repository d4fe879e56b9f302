//! `nettrace-bench matrix`: the confusion matrix of the whole fault suite, from the outputs of its halves.

use anyhow::{Context as _, Result};
use nettrace_tests::matrix::Matrix;
use std::{fs, path::PathBuf};

/// Adds up the matrices in outputs of the suite and prints the sum. Yields whether precision and recall are 1.
pub(crate) fn run(outputs: &[PathBuf]) -> Result<bool> {
    let mut sum = Matrix::default();
    for path in outputs {
        // A virtual machine's console may say anything.
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
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
    Ok(sum.is_perfect())
}

#[cfg(test)]
mod tests {
    use nettrace::recommend::Verdict::{self, Apply, CannotTell, Consider, NotNeeded};
    use nettrace_tests::matrix::{Case, Counts, Matrix};

    #[test]
    fn a_case_is_what_was_said_against_what_was_to_be_said() {
        for (expected, said, case) in [
            (Some(Apply), Apply, Case::Found),
            (Some(Consider), Consider, Case::Found),
            (Some(Consider), Apply, Case::Other),
            (Some(Apply), Consider, Case::Other),
            (Some(Apply), NotNeeded, Case::Missed),
            (Some(Apply), CannotTell, Case::Missed),
            (Some(CannotTell), CannotTell, Case::Silent),
            (Some(CannotTell), NotNeeded, Case::Missed),
            (Some(CannotTell), Consider, Case::Wrong),
            (None, NotNeeded, Case::Silent),
            (None, CannotTell, Case::Silent),
            (None, Consider, Case::Wrong),
        ] {
            assert_eq!(Case::of(expected, said), case, "{expected:?}, {said:?}");
        }
    }

    fn matrix(cases: &[(&str, Case, Verdict)]) -> Matrix {
        let mut matrix = Matrix::default();
        cases.iter().for_each(|(rule, case, said)| matrix.count(rule, *case, *said));
        matrix
    }

    #[test]
    fn what_is_printed_can_be_read_and_added_up() {
        let here = matrix(&[
            ("tcp.loss", Case::Found, Consider),
            ("tcp.loss", Case::Missed, NotNeeded),
            ("dns.cache", Case::Silent, CannotTell),
        ]);
        let there = matrix(&[("tcp.loss", Case::Other, Apply), ("nic.rps", Case::Wrong, Consider)]);
        let text = format!("running 1 test\r\n{here}\nsome more\n");
        assert_eq!(Matrix::read(&text), Some(here.clone()), "{text}");
        let carriage_returns = text.replace('\n', "\r\n");
        assert_eq!(Matrix::read(&carriage_returns), Some(here.clone()));
        let mut both = here;
        both.add(&there);
        let of_loss = Counts { found: 1, wrong: 1, missed: 2, ..Counts::default() };
        assert_eq!(both.of("tcp.loss"), of_loss);
        assert_eq!(both.total(), Counts { wrong: 2, silent: 1, cannot_tell: 1, ..of_loss });
        assert_eq!((of_loss.precision(), of_loss.recall()), (Some(0.5), Some(1.0 / 3.0)));
        assert_eq!(both.never_called_for(), ["dns.cache", "nic.rps"]);
        assert!(!both.is_perfect() && Matrix::read("no table").is_none());
    }

    #[test]
    fn nothing_found_is_not_perfect() {
        assert!(!matrix(&[("tcp.loss", Case::Silent, NotNeeded)]).is_perfect());
        assert!(matrix(&[("tcp.loss", Case::Found, Consider)]).is_perfect());
    }
}
