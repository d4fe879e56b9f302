//! What a virtual machine says, line by line, made into one result for each of its jobs.

use std::time::Duration;

use anyhow::{Context, Result};
use nettrace_guest::{Mark, Outcome};

/// What is known of a machine's run.
#[derive(Debug)]
pub(super) struct Results {
    /// The kernel's release, once the machine is up.
    pub(super) release: Option<String>,
    /// Modules that could not be loaded, with the reason.
    pub(super) missing: Vec<String>,
    /// By job.
    pub(super) jobs: Vec<JobResult>,
    /// The job that runs.
    pub(super) current: Option<usize>,
    /// Whether the machine has carried out its plan.
    pub(super) is_done: bool,
}

/// What is known of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct JobResult {
    /// How it ended and how long it took, once it has.
    pub(super) end: Option<(Outcome, Duration)>,
    /// What it printed.
    pub(super) output: Vec<String>,
}

impl Results {
    /// Of a plan of so many jobs, none of which has begun.
    pub(super) fn new(jobs: usize) -> Self {
        let jobs = vec![JobResult::default(); jobs];
        Self { release: None, missing: Vec::new(), jobs, current: None, is_done: false }
    }

    /// Takes in a line. Yields the number of the job that it ends, if it does.
    pub(super) fn take(&mut self, line: &str) -> Result<Option<usize>> {
        let Some((before, mark)) = Mark::find(line)? else {
            self.print(line);
            return Ok(None);
        };
        if !before.is_empty() {
            self.print(before);
        }
        match mark {
            Mark::NoModule { module, reason } => self.missing.push(format!("{module}: {reason}")),
            Mark::Ready { release } => self.release = Some(release),
            Mark::Begin { job } => self.current = Some(job),
            Mark::End { job, outcome, took } => {
                let result = self.jobs.get_mut(job).with_context(|| format!("job {job} was not planned"))?;
                result.end = Some((outcome, took));
                self.current = None;
                return Ok(Some(job));
            }
            Mark::Done => self.is_done = true,
        }
        Ok(None)
    }

    fn print(&mut self, line: &str) {
        if let Some(job) = self.current.and_then(|job| self.jobs.get_mut(job)) {
            job.output.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(marks: &[(&str, Mark)], jobs: usize) -> Result<Results> {
        let mut results = Results::new(jobs);
        for (before, mark) in marks {
            results.take(&format!("{before}{mark}"))?;
        }
        Ok(results)
    }

    const END: Mark = Mark::End { job: 0, outcome: Outcome::Passed, took: Duration::from_millis(5) };

    #[test]
    fn each_job_has_its_end_and_what_it_printed() {
        let mut results = Results::new(2);
        let ready = Mark::Ready { release: "6.1".into() }.to_string();
        let lines =
            [ready.as_str(), &Mark::Begin { job: 0 }.to_string(), "running 1 test", &format!("half{END}")];
        let ended: Vec<_> = lines.iter().map(|line| results.take(line).expect("well formed")).collect();
        assert_eq!(ended, [None, None, None, Some(0)]);
        assert_eq!(results.release.as_deref(), Some("6.1"));
        assert_eq!(results.jobs[0].end, Some((Outcome::Passed, Duration::from_millis(5))));
        assert_eq!(results.jobs[0].output, ["running 1 test", "half"]);
        assert_eq!((results.jobs[1].end, results.current, results.is_done), (None, None, false));
    }

    #[test]
    fn a_machine_that_falls_silent_leaves_its_job_without_an_end() {
        let results = taken(&[("", Mark::Begin { job: 0 }), ("", END), ("", Mark::Begin { job: 1 })], 2);
        let results = results.expect("well formed");
        assert_eq!((results.current, results.is_done), (Some(1), false));
        assert!(taken(&[("", Mark::Done)], 0).expect("well formed").is_done);
    }

    #[test]
    fn a_job_that_was_not_planned_is_an_error() {
        assert!(taken(&[("", END)], 0).is_err());
        assert!(Results::new(1).take("\u{1e}nonsense").is_err());
    }
}
