//! Runs that were made on this machine: a local store, and how a metric went over them.
//!
//! Needs [`RunResult`]s and a directory. Keeps of each run what a trend needs: scenario, machine, and for each metric the middle
//! of its rounds with bounds; whole results stay in files of their own. One line for each run, with a CRC-32, appended and
//! synced: a line that was cut off, by a crash or a full disk, is found, told and left out, and no other is lost with it. Of
//! [`MOST_RUNS`] the oldest go first.

use crate::{
    atomic,
    compare::{Bounds, Metric},
    json::position,
    result::{Arm, Change, Round, RunResult, Scenario},
    stats::correction::confidence_of_each_bound,
};
use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Runs that are kept.
pub const MOST_RUNS: usize = 1000;
/// Room for more before the oldest are left out, so that not every run writes the whole file anew.
const SLACK: usize = 100;
/// Larger files are not this store's, bytes.
const MOST_BYTES: u64 = 1 << 28;
/// Confidence of a level's interval.
const CONFIDENCE: f64 = 0.95;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file or the directory.
    #[error("cannot {action} {path}: {error}")]
    File {
        /// What was done.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// More than any history.
    #[error("{0} is larger than {MOST_BYTES} bytes: not a history of nettrace bench")]
    TooLarge(PathBuf),
    /// A run that has no form in JSON.
    #[error("cannot write the run: {0}")]
    Json(#[from] serde_json::Error),
}

/// The middle of a run's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Level {
    /// Of latencies ns, of throughput per second, of errors per round; the middle of rounds (Hodges and Lehmann).
    pub middle: f64,
    /// At a confidence of 95 %; none where there are too few rounds.
    pub bounds: Option<Bounds>,
    /// Rounds that told.
    pub rounds: usize,
}

/// Levels by load and metric.
pub type Levels = BTreeMap<String, BTreeMap<Metric, Level>>;

/// What is kept of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its number in this store, from 1.
    pub number: u64,
    /// Version of nettrace that ran it.
    pub tool: String,
    /// When it began, ms since 1970 (UTC).
    pub started_unix_ms: u64,
    /// What was run.
    pub scenario: Scenario,
    /// What makes the machines that it ran on.
    pub machine: BTreeMap<String, String>,
    /// Changes in force; of an experiment, in arm B.
    pub changes: Vec<Change>,
    /// Why it is not whole.
    pub partial: Option<String>,
    /// Levels of the run, or of an experiment's arm A.
    pub levels: Levels,
    /// Levels of an experiment's arm B.
    pub levels_b: Levels,
    /// Where the whole result was written to.
    pub file: Option<PathBuf>,
}

impl Run {
    fn of(number: u64, result: &RunResult, file: Option<&Path>) -> Self {
        Self {
            number,
            tool: result.tool.clone(),
            started_unix_ms: result.started_unix_ms,
            scenario: result.scenario.clone(),
            machine: result.environment.machine.clone(),
            changes: result.changes.clone(),
            partial: result.partial.as_ref().map(|p| p.reason.clone()),
            levels: levels(result, Arm::A),
            levels_b: levels(result, Arm::B),
            file: file.map(Path::to_owned),
        }
    }

    /// Whether a trend may go on from one to the other.
    #[must_use]
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.scenario == other.scenario && self.machine == other.machine
    }
}

/// The levels of an arm; of one without rounds there are none.
#[must_use]
pub fn levels(result: &RunResult, arm: Arm) -> Levels {
    let rounds: Vec<&Round> = result.of_arm(arm).collect();
    let each = confidence_of_each_bound(CONFIDENCE, 1);
    let level = |load: &str, metric: Metric| {
        // That there were no errors is a level, too.
        if metric != Metric::Errors && metric.untold(&rounds, load).is_some() {
            return None;
        }
        let values: Vec<f64> = rounds.iter().filter_map(|round| metric.of(round, load)).collect();
        let (middle, bounds) = metric.level(&values, each)?;
        Some((metric, Level { middle, bounds, rounds: values.len() }))
    };
    let of_load = |load: &str| Metric::ALL.into_iter().filter_map(|metric| level(load, metric)).collect();
    if rounds.is_empty() {
        return Levels::new();
    }
    result.loads().into_iter().map(|load| (load.to_owned(), of_load(load))).collect()
}

/// Runs as they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Oldest first.
    pub runs: Vec<Run>,
    /// Lines that are left out, from 1, and why.
    pub damaged: Vec<(usize, String)>,
}

/// One run in a trend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrendPoint {
    /// The run's number.
    pub number: u64,
    /// When it began, ms since 1970 (UTC).
    pub started_unix_ms: u64,
    /// Its level.
    pub level: Level,
    /// Whether it ran the same, on the same machines, as the newest of the trend.
    pub comparable: bool,
    /// Whether it is whole.
    pub whole: bool,
}

impl Listed {
    /// How a metric of a load went over all runs of a scenario, oldest first.
    #[must_use]
    pub fn trend(&self, scenario: &str, load: &str, metric: Metric) -> Vec<TrendPoint> {
        let level = |run: &Run| Some(*run.levels.get(load)?.get(&metric)?);
        let told: Vec<(&Run, Level)> = self
            .runs
            .iter()
            .filter(|run| run.scenario.name == scenario)
            .filter_map(|run| Some((run, level(run)?)))
            .collect();
        let newest = told.last().map(|(run, _)| *run);
        told.iter()
            .map(|(run, level)| TrendPoint {
                number: run.number,
                started_unix_ms: run.started_unix_ms,
                level: *level,
                comparable: newest.is_some_and(|newest| run.is_comparable(newest)),
                whole: run.partial.is_none(),
            })
            .collect()
    }
}

/// A directory with runs in it.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    most: usize,
    slack: usize,
}

impl Store {
    /// In a directory, which is made when the first run is added.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), most: MOST_RUNS, slack: SLACK }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("runs.jsonl")
    }

    /// Adds a run, and yields its number. `file` is where its whole result is.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn add(&self, result: &RunResult, file: Option<&Path>) -> Result<u64, HistoryError> {
        fs::create_dir_all(&self.dir).map_err(|e| self.failed("make", &self.dir, e))?;
        let _lock = self.lock()?;
        let Listed { mut runs, damaged } = self.list()?;
        let number = runs.iter().map(|run| run.number).max().unwrap_or(0) + 1;
        let run = Run::of(number, result, file);
        let line = line(&run)?;
        if runs.len() + damaged.len() < self.most + self.slack {
            self.append(&line).map_err(|e| self.failed("write", &self.path(), e))?;
            return Ok(number);
        }
        runs.drain(..runs.len().saturating_sub(self.most - 1));
        let kept = runs.iter().map(self::line).collect::<Result<String, _>>()?;
        let all = kept + &line;
        atomic::replace(&self.path(), all.as_bytes()).map_err(|e| self.failed("write", &self.path(), e))?;
        Ok(number)
    }

    /// All runs that can be read; none where nothing was added yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Listed, HistoryError> {
        let path = self.path();
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)) {
            Ok(_) if bytes.len() as u64 > MOST_BYTES => Err(HistoryError::TooLarge(path)),
            Ok(_) => Ok(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Listed::default()),
            Err(error) => Err(self.failed("read", &path, error)),
        }
    }

    /// Held while a run is added, against others that add one.
    fn lock(&self) -> Result<File, HistoryError> {
        let path = self.dir.join("lock");
        let lock = || {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock().map_err(|e| self.failed("lock", &path, e))
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(self.path())?;
        let mut text = String::new();
        // What was cut off is not to take this line with it.
        if file.metadata()?.len() > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                text.push('\n');
            }
        }
        text.push_str(line);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    fn failed(&self, action: &'static str, path: &Path, error: io::Error) -> HistoryError {
        HistoryError::File { action, path: path.to_owned(), error }
    }
}

/// A sum over the rest, and the rest.
fn line(run: &Run) -> Result<String, HistoryError> {
    let json = serde_json::to_string(run)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

fn parse(bytes: &[u8]) -> Listed {
    let mut listed = Listed::default();
    let lines = bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    for (n, line) in lines {
        match parse_line(line) {
            Ok(run) => listed.runs.push(run),
            Err(why) => listed.damaged.push((n + 1, why)),
        }
    }
    listed
}

fn parse_line(line: &[u8]) -> Result<Run, String> {
    let (sum, json) = line.split_at_checked(9).ok_or("cut off")?;
    let sum =
        std::str::from_utf8(sum).ok().and_then(|sum| u32::from_str_radix(sum.strip_suffix(' ')?, 16).ok());
    if sum.ok_or("no checksum")? != crc32fast::hash(json) {
        return Err("cut off or damaged: it does not fit its checksum".to_owned());
    }
    serde_json::from_slice(json).map_err(|e| position(&e).2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;
    use std::thread;

    fn store(dir: &Path) -> Store {
        Store { dir: dir.join("history"), most: 6, slack: 2 }
    }

    #[test]
    fn what_is_added_is_listed_and_makes_a_trend() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert_eq!(store.list().unwrap(), Listed::default());
        let mut result = sample::run(7, 10, 1.0);
        assert_eq!(store.add(&result, Some(Path::new("/tmp/a.json"))).unwrap(), 1);
        let slower = sample::run(8, 10, 2.0);
        assert_eq!(store.add(&slower, None).unwrap(), 2);
        result.environment.machine.insert("kernel".to_owned(), "other".to_owned());
        result.scenario.name = "another".to_owned();
        store.add(&result, None).unwrap();
        let listed = store.list().unwrap();
        assert_eq!(listed.runs.len(), 3);
        assert_eq!(listed.runs[0].file.as_deref(), Some(Path::new("/tmp/a.json")));
        let trend = listed.trend(&slower.scenario.name, "tcp_rr", Metric::P50);
        assert_eq!(trend.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
        let ratio = trend[1].level.middle / trend[0].level.middle;
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        let bounds = trend[0].level.bounds.unwrap();
        assert!(bounds.low <= trend[0].level.middle && trend[0].level.middle <= bounds.high);
        assert!(trend.iter().all(|p| p.comparable && p.whole));
        assert_eq!(trend[0].level.rounds, 10);
        assert!(listed.trend("another", "tcp_rr", Metric::Errors)[0].level.middle.abs() < 1e-9);
        assert!(listed.trend("another", "no such load", Metric::P50).is_empty());
    }

    #[test]
    fn a_run_elsewhere_does_not_continue_a_trend() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut result = sample::run(7, 6, 1.0);
        store.add(&result, None).unwrap();
        result.environment.machine.insert("kernel".to_owned(), "other".to_owned());
        result.partial = Some(crate::result::Partial { reason: "stopped".to_owned(), planned_rounds: 9 });
        store.add(&result, None).unwrap();
        let trend = store.list().unwrap().trend(&result.scenario.name, "tcp_rr", Metric::P50);
        let told: Vec<_> = trend.iter().map(|p| (p.comparable, p.whole)).collect();
        assert_eq!(told, [(false, true), (true, false)]);
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let result = sample::run(7, 2, 1.0);
        store.add(&result, None).unwrap();
        let whole = fs::read(store.path()).unwrap();
        store.add(&result, None).unwrap();
        let two = fs::read(store.path()).unwrap();
        // As if it had crashed while it wrote: at the start, in the sum, in the middle, before the newline.
        for cut in [0, 4, 9, 100, two.len() - whole.len() - 2] {
            fs::write(store.path(), &two[..whole.len() + cut]).unwrap();
            let listed = store.list().unwrap();
            assert_eq!((listed.runs.len(), listed.damaged.len()), (1, usize::from(cut > 0)), "{cut}");
            assert_eq!(store.add(&result, None).unwrap(), 2);
            assert_eq!(store.list().unwrap().runs.len(), 2, "{cut}");
        }
        let mut flipped = two;
        flipped[20] ^= 1;
        fs::write(store.path(), flipped).unwrap();
        let listed = store.list().unwrap();
        assert_eq!((listed.runs.len(), listed.damaged[0].0), (1, 1), "{:?}", listed.damaged);
    }

    #[test]
    fn the_oldest_go_first_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let result = sample::run(7, 1, 1.0);
        for number in 1..=30 {
            assert_eq!(store.add(&result, None).unwrap(), number);
            assert!(store.list().unwrap().runs.len() <= 8);
        }
        let runs = store.list().unwrap().runs;
        assert_eq!(runs.last().unwrap().number, 30);
        assert!(runs.len() >= 6 && runs.windows(2).all(|w| w[0].number + 1 == w[1].number));
    }

    #[test]
    fn those_who_add_at_once_do_not_get_in_each_others_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { most: 100, ..store(dir.path()) };
        let result = sample::run(7, 1, 1.0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..10).for_each(|_| {
                        store.add(&result, None).unwrap();
                    });
                });
            }
        });
        let listed = store.list().unwrap();
        assert_eq!(listed.runs.iter().map(|r| r.number).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        assert!(listed.damaged.is_empty());
    }
}
