//! A virtual machine: started, listened to, and ended when its time is over.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::results::Results;
use crate::process;

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// Of the host's clock, for everything that a machine does.
const TIMEOUT: Duration = Duration::from_secs(480);
const MEGABYTES: &str = "1024";
/// Lines of the kernel's log that are shown of a machine that did not finish.
const LAST_LINES: usize = 25;

/// What to start.
pub(super) struct Machine<'a> {
    /// The kernel.
    pub(super) image: &'a Path,
    /// Its file system.
    pub(super) initrd: &'a Path,
    /// What its time is.
    pub(super) clock: Clock,
    /// Where its two logs go: this with other extensions.
    pub(super) logs: PathBuf,
}

/// What a machine's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// The instructions that it has carried out, and what it waits for in no time: what is timed there does not depend on
    /// what else the host does. Takes half as long again.
    Own,
    /// The host's.
    Host,
}

impl Clock {
    /// As files are named.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own-time",
            Self::Host => "host-time",
        }
    }
}

/// How a machine ended.
pub(super) enum End {
    /// It carried out its plan.
    Done,
    /// It went down before; with the last lines of the kernel's log.
    Down(String),
    /// It was ended because its time was over; with the last lines of the kernel's log.
    Hung(String),
}

impl Machine<'_> {
    /// Runs it to its end. `each` sees the results after each job that ends, with the job's number.
    pub(super) fn run(&self, results: &mut Results, mut each: impl FnMut(&Results, usize)) -> Result<End> {
        let console = self.logs.with_extension("console");
        let mut log = File::create(self.logs.with_extension("results"))?;
        let mut cmd = self.command(1);
        cmd.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        if self.clock == Clock::Own {
            // One instruction takes two nanoseconds of the guest's time, and waiting none of the host's.
            cmd.args(["-icount", "shift=1,sleep=off"]);
        }
        let started = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut qemu = Running(started.with_context(|| format!("cannot start `{}`", process::shown(&cmd)))?);
        let lines = lines_of(&mut qemu.0)?;
        let end = Instant::now() + TIMEOUT;
        let is_over = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    if let Some(job) = results.take(&line)? {
                        each(results, job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        drop(qemu);
        Ok(match (results.is_done, is_over) {
            (true, _) => End::Done,
            (false, true) => End::Hung(tail(&console)),
            (false, false) => End::Down(tail(&console)),
        })
    }

    /// Runs it with its first serial port on this terminal, in the host's time and with two processors.
    pub(super) fn interact(&self) -> Result<()> {
        let mut cmd = self.command(2);
        // Ctrl-C goes to the guest; Ctrl-A X ends the machine.
        cmd.args(["-serial", "mon:stdio", "-serial"]);
        process::run(cmd.arg(format!("file:{}", self.logs.with_extension("results").display())))
    }

    fn command(&self, processors: u8) -> Command {
        let mut cmd = Command::new(QEMU);
        let processors = processors.to_string();
        cmd.args(["-accel", "tcg", "-smp", &processors, "-m", MEGABYTES, "-nodefaults", "-display", "none"]);
        cmd.args(["-monitor", "none", "-no-reboot", "-kernel"])
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initrd);
        // An interface whose driver has rings, on a wire that leads nowhere.
        cmd.args(["-netdev", "user,id=wire,restrict=on", "-device", "virtio-net-pci,netdev=wire,romfile="]);
        // A panic ends the machine at once, and so does an oops. Mitigations of hardware that is not there cost time.
        cmd.args([
            "-append",
            "console=ttyS0 loglevel=5 panic=-1 oops=panic tsc=reliable mitigations=off random.trust_cpu=on",
        ]);
        cmd
    }
}

/// A machine that ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a program's standard output, as they come.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let stdout = child.stdout.take().context("no standard output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("console");
        let text: String = (0..40).map(|i| format!("line {i}\r\n\r\n")).collect();
        fs::write(&log, text).expect("writable");
        let shown = tail(&log);
        assert!(shown.starts_with("line 15\nline 16\n") && shown.ends_with("\nline 39"), "{shown}");
        assert_eq!(tail(Path::new("/nonexistent")), "");
    }
}
