//! The first process of a virtual machine of `cargo xtask vm`: mounts what Linux has to offer, loads the modules, runs
//! the plan and switches the machine off. The kernel's log and this program's own complaints go to the first serial
//! port, results to the second.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nettrace_guest::{Job, MODULES, Mark, NETTRACE, Outcome, PLAN, SHELL};
use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, Signal, WaitOptions, kill_process_group, wait},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    system::{RebootCommand, finit_module, reboot, uname},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

const LOG: &str = "/dev/ttyS0";
const RESULTS: &str = "/dev/ttyS1";

/// Type, place.
const MOUNTS: [(&str, &str); 10] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("devpts", "/dev/pts"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/bin:/usr/sbin:/usr/bin"),
    ("HOME", "/root"),
    ("TERM", "vt100"),
    ("NETTRACE_BIN", NETTRACE),
    // Tests may do here what they must not do to a machine that somebody uses.
    ("NETTRACE_GUEST", "1"),
    // The way to the failure is in the log that the host prints.
    ("RUST_BACKTRACE", "0"),
];

fn main() {
    if let Err(error) = carry_out() {
        eprintln!("guest-init: {error:#}");
    }
    // Without this the kernel would panic when its first process ends, which the host could not tell from a real one.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("guest-init: cannot switch off: {error}");
    }
}

fn carry_out() -> Result<()> {
    for (kind, place) in MOUNTS {
        // What the archive has there, such as the programs of a repository below /tmp, would be hidden; and it is in
        // memory as well.
        if kind == "tmpfs" && Path::new(place).exists() {
            continue;
        }
        // Those below /dev come into being only now; what is there already is no error.
        let _ = fs::create_dir(place);
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {place}"))?;
    }
    let log = OpenOptions::new().read(true).write(true).open(LOG).context(LOG)?;
    dup2_stdin(&log).and(dup2_stdout(&log)).and(dup2_stderr(&log)).context("standard streams")?;
    let mut results = Results(OpenOptions::new().write(true).open(RESULTS).context(RESULTS)?);
    results.make_raw().context(RESULTS)?;
    load_modules(&mut results)?;
    // kallsyms hides its addresses otherwise, as it does from an administrator's tools on a real node only if told to.
    fs::write("/proc/sys/kernel/kptr_restrict", "0").context("kptr_restrict")?;
    run("/usr/sbin/ip", &["link", "set", "lo", "up"])?;
    results.mark(&Mark::Ready { release: uname().release().to_string_lossy().into_owned() })?;
    let plan = fs::read_to_string(PLAN).context(PLAN)?;
    for (number, line) in plan.lines().enumerate() {
        let job: Job = line.parse().context(PLAN)?;
        results.mark(&Mark::Begin { job: number })?;
        let start = Instant::now();
        let outcome = results.run(&job).with_context(|| job.program.clone())?;
        results.mark(&Mark::End { job: number, outcome, took: start.elapsed() })?;
    }
    if Path::new(SHELL).exists() {
        // `cttyhack` gives the shell a terminal of its own, so that Ctrl-C ends what runs in it and not the machine.
        run("/usr/bin/busybox", &["setsid", "busybox", "cttyhack", "sh", "-l"])?;
    }
    results.mark(&Mark::Done)
}

/// Runs a program to its end, on the first serial port.
fn run(program: &str, args: &[&str]) -> Result<()> {
    Command::new(program).args(args).env_clear().envs(ENVIRONMENT).status().context(program.to_owned())?;
    Ok(())
}

/// Loads the modules in the order given, which is that of their dependencies.
fn load_modules(results: &mut Results) -> Result<()> {
    let list = fs::read_to_string(MODULES).context(MODULES)?;
    for module in list.lines() {
        let loaded = File::open(module).and_then(|file| Ok(finit_module(file, c"", 0)?));
        match loaded {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                results.mark(&Mark::NoModule { module: module.to_owned(), reason: error.to_string() })?;
            }
        }
    }
    Ok(())
}

/// The second serial port.
struct Results(File);

impl Results {
    /// Keeps the line discipline from changing or echoing what passes.
    fn make_raw(&self) -> Result<()> {
        let mut modes = tcgetattr(&self.0)?;
        modes.make_raw();
        tcsetattr(&self.0, OptionalActions::Now, &modes)?;
        Ok(())
    }

    fn mark(&mut self, mark: &Mark) -> Result<()> {
        self.0.write_all(format!("{mark}\n").as_bytes()).context(RESULTS)
    }

    /// Runs a job to its end or the end of its time.
    fn run(&self, job: &Job) -> Result<Outcome> {
        let mut child = Command::new(&job.program)
            .args(&job.args)
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/tmp")
            .stdin(Stdio::null())
            .stdout(self.0.try_clone()?)
            .stderr(self.0.try_clone()?)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        let status = wait_for(&mut child, job.timeout)?;
        // What a failed test has started must not disturb the next. There may be nothing left, which is well.
        let _ = kill_process_group(group, Signal::KILL);
        if status.is_none() {
            child.wait()?;
        }
        // Orphans are the first process's children.
        while wait(WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some()) {}
        Ok(match status {
            Some(true) => Outcome::Passed,
            Some(false) => Outcome::Failed,
            None => Outcome::TimedOut,
        })
    }
}

/// Whether it ended well; none when it has not ended in time.
fn wait_for(child: &mut Child, timeout: Duration) -> io::Result<Option<bool>> {
    let start = Instant::now();
    while start.elapsed() < timeout {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(None)
}
