//! The matrix as it is shown: a row for each test, a column for each kernel.

use std::fmt;

/// What became of a test on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It took too long.
    TimedOut,
    /// It failed, as expected.
    Gap,
    /// It was expected to fail, and passed.
    GapClosed,
    /// The machine went down in it.
    Down,
    /// The machine's time was over in it.
    Hung,
    /// The machine did not come to it.
    NotRun,
}

impl Cell {
    /// Whether all is as it should be.
    pub(super) const fn is_good(self) -> bool {
        matches!(self, Self::Passed | Self::Gap)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "ok",
            Self::Failed => "FAIL",
            Self::TimedOut => "TIMEOUT",
            Self::Gap => "gap",
            Self::GapClosed => "CLOSED",
            Self::Down => "PANIC",
            Self::Hung => "HANG",
            Self::NotRun => "-",
        })
    }
}

/// The table's text.
pub(super) fn render(columns: &[&str], rows: &[(String, Vec<Cell>)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().max(4);
    let line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:<7}")).collect();
        format!("{}\n", format!("{name:<width$}{cells}").trim_end())
    };
    let mut text = line("test", columns.iter().map(ToString::to_string).collect());
    for (name, cells) in rows {
        text += &line(name, cells.iter().map(ToString::to_string).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_tests_and_columns_kernels() {
        let rows = [
            ("probes::rx".to_owned(), vec![Cell::Gap, Cell::Passed]),
            ("run".to_owned(), vec![Cell::Failed, Cell::NotRun]),
        ];
        let expected = "test        5.10     6.1\nprobes::rx  gap      ok\nrun         FAIL     -\n";
        assert_eq!(render(&["5.10", "6.1"], &rows), expected);
    }
}
