//! What `cargo xtask vm` and the first process of its virtual machines tell each other.
//!
//! The host writes a plan, one [`Job`] a line, into the machine's file system. The guest answers on its second serial
//! port: what the jobs print, and between it lines of its own, each a [`Mark`].

use std::{fmt, str::FromStr, time::Duration};

/// Where the guest finds its plan.
pub const PLAN: &str = "/plan";
/// Where the guest finds the list of modules to load, in order, one path a line.
pub const MODULES: &str = "/modules";
/// The file whose presence makes the guest start a shell after the plan.
pub const SHELL: &str = "/shell";
/// Where the guest finds the `nettrace` program.
pub const NETTRACE: &str = "/usr/bin/nettrace";

/// Begins the guest's own lines; no program prints it.
const PREFIX: char = '\u{1e}';

/// A line that is neither a mark nor a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot make out `{}`", self.0.escape_debug())
    }
}

impl std::error::Error for Malformed {}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// It is killed after this time by the guest's clock.
    pub timeout: Duration,
    /// The program, with an absolute path.
    pub program: String,
    /// Its arguments, none of which contains a tab or an end of line.
    pub args: Vec<String>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.timeout.as_millis(), self.program)?;
        self.args.iter().try_for_each(|arg| write!(f, "\t{arg}"))
    }
}

impl FromStr for Job {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Self, Malformed> {
        let mut words = line.split('\t');
        let timeout = words.next().and_then(|word| word.parse().ok()).map(Duration::from_millis);
        match (timeout, words.next()) {
            (Some(timeout), Some(program)) => {
                Ok(Self { timeout, program: program.to_owned(), args: words.map(str::to_owned).collect() })
            }
            _ => Err(Malformed(line.to_owned())),
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0.
    Passed,
    /// Otherwise.
    Failed,
    /// It was killed because its time was over.
    TimedOut,
}

/// What the guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A module could not be loaded.
    NoModule {
        /// Its path.
        module: String,
        /// Why.
        reason: String,
    },
    /// Everything is mounted and loaded.
    Ready {
        /// The kernel's release.
        release: String,
    },
    /// A job starts.
    Begin {
        /// Its place in the plan.
        job: usize,
    },
    /// A job has ended.
    End {
        /// Its place in the plan.
        job: usize,
        /// How.
        outcome: Outcome,
        /// How long it took, by the guest's clock.
        took: Duration,
    },
    /// The plan has been carried out; the machine goes off.
    Done,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}")?;
        match self {
            Self::NoModule { module, reason } => write!(f, "no-module\t{module}\t{reason}"),
            Self::Ready { release } => write!(f, "ready\t{release}"),
            Self::Begin { job } => write!(f, "begin\t{job}"),
            Self::End { job, outcome, took } => {
                let outcome = match outcome {
                    Outcome::Passed => "passed",
                    Outcome::Failed => "failed",
                    Outcome::TimedOut => "timed-out",
                };
                write!(f, "end\t{job}\t{outcome}\t{}", took.as_millis())
            }
            Self::Done => write!(f, "done"),
        }
    }
}

impl Mark {
    /// The mark in a line of the serial port, with what a program printed before it without ending its line. None for
    /// a line that a program printed.
    ///
    /// # Errors
    /// When a line is marked and says nothing known, as of a guest of another version, or garbled.
    pub fn find(line: &str) -> Result<Option<(&str, Self)>, Malformed> {
        let Some((before, mark)) = line.split_once(PREFIX) else { return Ok(None) };
        Self::parse(mark).map(|mark| Some((before, mark))).ok_or_else(|| Malformed(line.to_owned()))
    }

    fn parse(mark: &str) -> Option<Self> {
        let words: Vec<_> = mark.split('\t').collect();
        Some(match words[..] {
            ["no-module", module, reason] => {
                Self::NoModule { module: module.to_owned(), reason: reason.to_owned() }
            }
            ["ready", release] => Self::Ready { release: release.to_owned() },
            ["begin", job] => Self::Begin { job: job.parse().ok()? },
            ["end", job, outcome, took] => Self::End {
                job: job.parse().ok()?,
                outcome: match outcome {
                    "passed" => Outcome::Passed,
                    "failed" => Outcome::Failed,
                    "timed-out" => Outcome::TimedOut,
                    _ => return None,
                },
                took: Duration::from_millis(took.parse().ok()?),
            },
            ["done"] => Self::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let marks = [
            Mark::NoModule { module: "/m/x.ko".into(), reason: "no such file".into() },
            Mark::Ready { release: "6.1.0-40-cloud-amd64".into() },
            Mark::Begin { job: 0 },
            Mark::End { job: 7, outcome: Outcome::Passed, took: Duration::from_millis(1234) },
            Mark::End { job: 8, outcome: Outcome::Failed, took: Duration::ZERO },
            Mark::End { job: 9, outcome: Outcome::TimedOut, took: Duration::from_secs(60) },
            Mark::Done,
        ];
        for mark in marks {
            assert_eq!(Mark::find(&format!("test x ... {mark}")), Ok(Some(("test x ... ", mark))));
        }
    }

    #[test]
    fn what_programs_print_is_no_mark_and_garbled_marks_are_errors() {
        assert_eq!(Mark::find("end\t1\tpassed\t5"), Ok(None));
        for line in ["\u{1e}", "\u{1e}end\t1", "\u{1e}end\t1\twell\t5", "\u{1e}begin\tone", "\u{1e}done\t1"] {
            assert!(Mark::find(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn jobs_are_read_as_they_are_written() {
        let job = Job {
            timeout: Duration::from_secs(60),
            program: "/t/run".into(),
            args: vec!["--exact".into(), "a b".into()],
        };
        assert_eq!(job.to_string().parse(), Ok(job));
        assert!("60".parse::<Job>().is_err() && "x\t/t".parse::<Job>().is_err());
    }
}
