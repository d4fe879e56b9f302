//! The confusion matrix of the fault suite: what is printed is read, added up and judged. Needs no root.

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
