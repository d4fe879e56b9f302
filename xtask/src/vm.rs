//! `cargo xtask vm`: the end-to-end tests on the kernels of several Debian releases, in virtual machines.
//!
//! The machines' processors are emulated, so that no hardware support is needed and, where it matters, time in the
//! guest depends on the guest alone.

mod apt;
mod archive;
mod guest;
mod kernels;
mod machine;
mod modules;
mod results;
mod selection;
mod table;
mod unpack;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nettrace_guest::Outcome;

use self::{
    guest::{Programs, Test},
    kernels::{Kernel, SERIES, Series},
    machine::{Clock, End, Machine, QEMU},
    results::{JobResult, Results},
    selection::Selection,
    table::Cell,
};
use crate::{process, setup, workspace};

/// Machines that run at the same time. Each takes one processor of this machine, and 1 GB of memory.
const AT_ONCE: usize = 2;
/// Of a test of the matrix, by the guest's clock.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of one that is left out because of the time that it takes.
const TIMEOUT_OF_ALL: Duration = Duration::from_secs(400);
/// Lines of a failed test's output that are shown.
const LAST_LINES: usize = 30;

/// Run the end-to-end tests on several kernels, in virtual machines
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel; may be given several times
    #[arg(long = "kernel", value_name = "SERIES", value_parser = series)]
    kernels: Vec<&'static Series>,
    /// Only tests whose name contains this
    #[arg(long = "test", value_name = "FILTER")]
    filter: Option<String>,
    /// Also tests that `tests/vm.toml` leaves out because of the time that they take
    #[arg(long)]
    all: bool,
    /// A shell in the machine, after the tests that `--test` names
    #[arg(long)]
    shell: bool,
    /// Look for newer kernels instead of taking those that were fetched before
    #[arg(long)]
    refresh: bool,
    /// Debian's archive, where this machine is not set to one
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Do not look for, and do not install, what the matrix needs
    #[arg(long)]
    no_setup: bool,
    /// A line for each test that ends
    #[arg(long, short)]
    verbose: bool,
}

fn series(name: &str) -> Result<&'static Series, String> {
    let known = || SERIES.map(|series| series.name).join(", ");
    SERIES.iter().find(|series| series.name == name).ok_or_else(|| format!("the kernels are {}", known()))
}

/// Runs the matrix, and fails when anything is not as the data expect it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels are for x86_64, and so have to be the programs that are built here");
    }
    if !args.no_setup {
        setup::vm_tools()?;
    }
    if process::find(QEMU).is_none() {
        bail!("no {QEMU}; `cargo xtask setup --vm` installs it");
    }
    let wanted = if args.kernels.is_empty() { SERIES.iter().collect() } else { args.kernels.clone() };
    let kernels = kernels::get(&wanted, args.refresh, args.mirror.as_deref())?;
    let programs = Programs::build()?;
    let tests = programs.list()?;
    let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
    let selection = Selection::read(&workspace::root().join("tests/vm.toml"), &names)?;
    let is_wanted = |test: &&Test| {
        let runs = if args.all { selection.is_possible(&test.name) } else { selection.is_inside(&test.name) };
        runs && args.filter.as_ref().map_or(!args.shell, |filter| test.name.contains(filter))
    };
    let tests: Vec<_> = tests.iter().filter(is_wanted).cloned().collect();
    let matrix = Matrix {
        verbose: args.verbose,
        all: args.all,
        dir: workspace::target_dir().join("vm"),
        kernels,
        tests,
        selection,
    };
    matrix.prepare(&programs)?;
    if args.shell {
        return matrix.shell();
    }
    if matrix.tests.is_empty() {
        bail!("no test in the machines has such a name");
    }
    println!("vm: ready after {:.0} s", start.elapsed().as_secs_f64());
    let verdict = matrix.run();
    println!("vm: {:.0} s in all", start.elapsed().as_secs_f64());
    verdict
}

/// Tests on kernels.
struct Matrix {
    verbose: bool,
    all: bool,
    dir: PathBuf,
    kernels: Vec<Kernel>,
    tests: Vec<Test>,
    selection: Selection,
}

/// One machine's share of the matrix.
struct Share<'a> {
    kernel: &'a Kernel,
    clock: Clock,
    tests: Vec<&'a Test>,
}

/// By the kernel's series and the test's name.
type Cells<'a> = BTreeMap<(&'a str, &'a str), Cell>;

impl Matrix {
    fn base(&self) -> PathBuf {
        self.dir.join("base.cpio")
    }

    const fn timeout(&self) -> Duration {
        if self.all { TIMEOUT_OF_ALL } else { TIMEOUT }
    }

    fn modules(&self, kernel: &Kernel) -> PathBuf {
        self.dir.join(format!("modules-{}.cpio", kernel.series.name))
    }

    /// Writes the parts of the machines' file systems.
    fn prepare(&self, programs: &Programs) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        guest::base(&self.base(), programs, &self.tests)?;
        for kernel in &self.kernels {
            guest::modules(&self.modules(kernel), kernel)
                .with_context(|| format!("modules of {}", kernel.release))?;
        }
        Ok(())
    }

    /// What is to be done, the longest first: most tests need no time of their own.
    fn shares(&self) -> Vec<Share<'_>> {
        let share = |kernel, clock| {
            let is_its = |test: &&Test| self.selection.clock(&test.name) == clock;
            Share { kernel, clock, tests: self.tests.iter().filter(is_its).collect() }
        };
        let mut shares: Vec<_> = [Clock::Host, Clock::Own]
            .into_iter()
            .flat_map(|c| self.kernels.iter().rev().map(move |k| share(k, c)))
            .collect();
        shares.retain(|share| !share.tests.is_empty());
        shares
    }

    /// Runs everything and shows what came of it.
    fn run(&self) -> Result<()> {
        let queue = Mutex::new(self.shares().into_iter());
        let cells = Mutex::new(Cells::new());
        let troubles = Mutex::new(Vec::new());
        let work = || {
            loop {
                let next = lock(&queue).next();
                let Some(share) = next else { return };
                match self.run_share(&share) {
                    Ok(found) => lock(&cells).extend(found),
                    Err(e) => lock(&troubles).push(format!("{}: {e:#}", share.kernel.series.name)),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        let cells = cells.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut troubles = troubles.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("\n{}", self.table(&cells));
        for kernel in &self.kernels {
            let of = |good| {
                cells.iter().filter(|((s, _), c)| *s == kernel.series.name && c.is_good() == good).count()
            };
            let (name, bad) = (kernel.series.name, of(false));
            println!("{name}: {}, {} as expected, {bad} not", kernel.release, of(true));
            if bad > 0 {
                troubles.push(format!("{name}: {bad} tests"));
            }
        }
        if troubles.is_empty() {
            return Ok(());
        }
        bail!("not as expected:\n  {}", troubles.join("\n  "));
    }

    fn table(&self, cells: &Cells<'_>) -> String {
        let columns: Vec<_> = self.kernels.iter().map(|kernel| kernel.series.name).collect();
        let row = |test: &Test| {
            let cell =
                |series: &&str| cells.get(&(*series, test.name.as_str())).copied().unwrap_or(Cell::NotRun);
            (test.name.clone(), columns.iter().map(cell).collect())
        };
        table::render(&columns, &self.tests.iter().map(row).collect::<Vec<_>>())
    }

    /// Runs one machine.
    fn run_share<'a>(&'a self, share: &Share<'a>) -> Result<Cells<'a>> {
        let start = Instant::now();
        let series = share.kernel.series.name;
        let logs = self.dir.join(format!("{series}-{}.log", share.clock.name()));
        let initrd = logs.with_extension("cpio");
        let jobs: Vec<_> = share.tests.iter().map(|test| test.job(self.timeout())).collect();
        guest::whole(&initrd, [&self.base(), &self.modules(share.kernel)], &jobs, false)?;
        let mut results = Results::new(jobs.len());
        let mut last = start;
        let machine = Machine { image: &share.kernel.image, initrd: &initrd, clock: share.clock, logs };
        let end = machine.run(&mut results, |results, job| {
            if let (true, Some((outcome, took))) = (self.verbose, results.jobs[job].end) {
                let (guest, host) = (took.as_secs_f64(), last.elapsed().as_secs_f64());
                println!("{series}: {outcome:?} {} in {guest:.2} s, {host:.1} s here", share.tests[job].name);
            }
            last = Instant::now();
        })?;
        fs::remove_file(&initrd)?;
        self.judge(share, &results, &end, start.elapsed())
    }

    /// Makes cells of results, and shows what is not as expected.
    fn judge<'a>(
        &'a self,
        share: &Share<'a>,
        results: &Results,
        end: &End,
        took: Duration,
    ) -> Result<Cells<'a>> {
        let series = share.kernel.series.name;
        if let Some(release) = results.release.as_ref().filter(|release| **release != share.kernel.release) {
            bail!("the machine runs {release}, not {}", share.kernel.release);
        }
        let (what, log) = match end {
            End::Done => ("finished", ""),
            End::Down(log) => ("WENT DOWN", log.as_str()),
            End::Hung(log) => ("HANGS", log.as_str()),
        };
        let clock = share.clock.name();
        let mut text = format!("{series}, {clock}: {what} after {:.0} s\n", took.as_secs_f64());
        for missing in &results.missing {
            text += &format!("{series}: cannot load {missing}\n");
        }
        let mut cells = Cells::new();
        for (number, (test, result)) in share.tests.iter().zip(&results.jobs).enumerate() {
            let gap = self.selection.gap(series, &test.name);
            let cell = cell(result, gap.is_some(), (results.current == Some(number)).then_some(end));
            cells.insert((series, &test.name), cell);
            if !cell.is_good() && cell != Cell::NotRun {
                text += &format!("{series}: {cell} {}\n", test.name);
                text += &gap.map(|reason| format!("    expected gap: {reason}\n")).unwrap_or_default();
                let lines = &result.output[result.output.len().saturating_sub(LAST_LINES)..];
                text.extend(lines.iter().map(|line| format!("    {line}\n")));
            }
        }
        text.extend(log.lines().map(|line| format!("    kernel: {line}\n")));
        print!("{text}");
        if results.release.is_none() {
            bail!("the machine did not come up");
        }
        Ok(cells)
    }

    /// Lets someone look around.
    fn shell(&self) -> Result<()> {
        let [kernel] = self.kernels.as_slice() else {
            bail!("a shell is in one machine; name its kernel with --kernel");
        };
        let jobs: Vec<_> = self.tests.iter().map(|test| test.job(self.timeout())).collect();
        let logs = self.dir.join("shell.log");
        let initrd = logs.with_extension("cpio");
        guest::whole(&initrd, [&self.base(), &self.modules(kernel)], &jobs, true)?;
        println!(
            "vm: `exit` or Ctrl-A X ends the machine; tests write to {}",
            shown(&logs.with_extension("results"))
        );
        Machine { image: &kernel.image, initrd: &initrd, clock: Clock::Host, logs }.interact()
    }
}

/// What became of a test. `ended` is how the machine ended, if the test was running then.
fn cell(result: &JobResult, is_gap: bool, ended: Option<&End>) -> Cell {
    match (result.end, ended, is_gap) {
        (Some((Outcome::Passed, _)), _, false) => Cell::Passed,
        (Some((Outcome::Passed, _)), _, true) => Cell::GapClosed,
        (Some((Outcome::Failed, _)), _, true) => Cell::Gap,
        (Some((Outcome::Failed, _)), _, false) => Cell::Failed,
        (Some((Outcome::TimedOut, _)), _, _) => Cell::TimedOut,
        (None, Some(End::Down(_)), _) => Cell::Down,
        (None, Some(End::Hung(_)), _) => Cell::Hung,
        (None, _, _) => Cell::NotRun,
    }
}

/// A thread that panics while it holds one of these locks leaves whole entries behind.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome) -> JobResult {
        JobResult { end: Some((outcome, Duration::ZERO)), output: Vec::new() }
    }

    #[test]
    fn a_gap_is_expected_to_fail_and_nothing_else() {
        assert_eq!(cell(&ended(Outcome::Passed), false, None), Cell::Passed);
        assert_eq!(cell(&ended(Outcome::Failed), false, None), Cell::Failed);
        assert_eq!(cell(&ended(Outcome::Failed), true, None), Cell::Gap);
        assert_eq!(cell(&ended(Outcome::Passed), true, None), Cell::GapClosed);
        assert_eq!(cell(&ended(Outcome::TimedOut), true, None), Cell::TimedOut);
        assert!(!Cell::GapClosed.is_good() && !Cell::TimedOut.is_good() && Cell::Gap.is_good());
    }

    #[test]
    fn a_machine_that_does_not_finish_has_a_culprit() {
        let (running, down, hung) =
            (JobResult::default(), End::Down(String::new()), End::Hung(String::new()));
        assert_eq!(cell(&running, true, Some(&down)), Cell::Down);
        assert_eq!(cell(&running, false, Some(&hung)), Cell::Hung);
        assert_eq!(cell(&running, false, None), Cell::NotRun);
        assert!(!Cell::Down.is_good() && !Cell::NotRun.is_good());
    }

    #[test]
    fn kernels_are_chosen_by_series() {
        assert_eq!(series("6.1").map(|series| series.name), Ok("6.1"));
        assert_eq!(series("6.2"), Err("the kernels are 5.10, 6.1, 6.12, 7.x".to_owned()));
    }
}
