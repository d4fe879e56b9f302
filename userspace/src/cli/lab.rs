//! The lab, for `nettrace lab` and for `run --lab`.
//!
//! A capture has its lab in a child process: what the traffic costs is then not in the capture's own books, and when
//! either dies, the other cleans up. The child says what there is on its standard output, begins when told so on its
//! standard input, and ends when that is closed.

use super::{
    Exit,
    commands::{Failure, print, say},
    run,
};
use crate::{
    iface::Namespace,
    lab::{Lab, LabConfig, Topology, remove_leftovers},
};
use anyhow::{Context as _, bail};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Traffic runs in rounds of this length where no end is set, so that Ctrl-C is heard in between.
const ROUND: Duration = Duration::from_secs(5);

/// `nettrace lab`: sets it up, lets its traffic run, takes it down.
pub(super) fn hold(topology: Topology, duration: Option<Duration>) -> Result<Exit, Failure> {
    let interrupted = run::interrupt()?;
    let lab = Lab::start(LabConfig { topology, ..LabConfig::default() })?;
    print(|out| {
        writeln!(
            out,
            "The lab {} is up. Its namespaces, for `ip netns exec` and `nettrace run --netns`:",
            lab.id()
        )?;
        writeln!(out, "  {:<8} {}", "node", lab.node().netns.name())?;
        for pod in lab.pods() {
            writeln!(out, "  {:<8} {}  {}", pod.role.name(), pod.netns.name(), pod.ipv4)?;
        }
        writeln!(out, "Its traffic runs in rounds of {} s; Ctrl-C takes it down.", ROUND.as_secs())
    })?;
    let started = Instant::now();
    while !interrupted.load(Ordering::Relaxed) {
        let left = duration.map_or(ROUND, |d| d.saturating_sub(started.elapsed()).min(ROUND));
        if left.is_zero() {
            break;
        }
        lab.demo_traffic(left)?;
    }
    lab.stop()?;
    Ok(Exit::Ok)
}

/// The child's side.
pub(super) fn serve(topology: Topology) -> Result<Exit, Failure> {
    let lab = Lab::start(LabConfig { topology, ..LabConfig::default() })?;
    let there = serde_json::to_string(&lab.namespaces()).context("cannot describe the lab")?;
    print(|out| writeln!(out, "{there}"))?;
    let (told, lines) = std::sync::mpsc::channel();
    let reading = move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { break };
            if told.send(line).is_err() {
                break;
            }
        }
        // The capture is gone or wants no more, perhaps in the middle of a round: it removes what this leaves.
        std::process::exit(Exit::Ok as i32);
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(reading).context("cannot start a thread")?;
    for line in lines {
        let millis: u64 =
            line.trim().parse().with_context(|| format!("not a number of milliseconds: {line}"))?;
        let outcome = lab.demo_traffic(Duration::from_millis(millis));
        print(|out| match &outcome {
            Ok(_) => writeln!(out, "done"),
            Err(error) => writeln!(out, "{error}"),
        })?;
    }
    Ok(Exit::Ok)
}

/// The capture's side: a lab in a child process.
pub(super) struct ChildLab {
    child: Child,
    control: Option<ChildStdin>,
    namespaces: Vec<Namespace>,
    answers: std::sync::mpsc::Receiver<String>,
}

impl ChildLab {
    /// Starts it; its namespaces are there then.
    pub(super) fn start(topology: Topology) -> Result<Self, Failure> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let topology = match topology {
            Topology::Bridge => "bridge",
            Topology::Routed => "routed",
        };
        let mut child = Command::new(program)
            .args(["lab", "--serve", "--topology", topology])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C is for the capture, which then ends the lab in order.
            .process_group(0)
            .spawn()
            .context("cannot start the lab")?;
        let mut out = BufReader::new(child.stdout.take().context("the lab has no output")?);
        let mut first = String::new();
        out.read_line(&mut first).context("cannot read what the lab says")?;
        let Ok(namespaces) = serde_json::from_str(&first) else {
            return Err(refused(child));
        };
        let (answer, answers) = std::sync::mpsc::channel();
        let reading = move || out.lines().map_while(Result::ok).try_for_each(|l| answer.send(l));
        std::thread::Builder::new().name("lab".to_owned()).spawn(reading).context("cannot start a thread")?;
        let control = child.stdin.take();
        Ok(Self { child, control, namespaces, answers })
    }

    /// What a capture is to look at.
    pub(super) fn namespaces(&self) -> Vec<Namespace> {
        self.namespaces.clone()
    }

    /// Tells it to run traffic for so long.
    pub(super) fn run(&mut self, duration: Duration) -> Result<(), Failure> {
        let control = self.control.as_mut().context("the lab has ended")?;
        writeln!(control, "{}", duration.as_millis()).context("the lab has ended")?;
        Ok(())
    }

    /// Waits until what was begun is finished.
    pub(super) fn wait(&self) {
        match self.answers.recv() {
            Ok(answer) if answer == "done" => {}
            Ok(answer) => say(&format!("the lab's traffic: {answer}")),
            Err(_) => say("the lab ended before its traffic did"),
        }
    }
}

/// The child's own complaint and exit code are ours.
fn refused(mut child: Child) -> Failure {
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read is not shown; the exit code still is.
        let _ = stderr.read_to_string(&mut complaint);
    }
    let code = child.wait().ok().and_then(|status| status.code());
    let complaint = complaint.trim().trim_start_matches("nettrace: ");
    let error = if complaint.is_empty() {
        anyhow::anyhow!("the lab could not be started")
    } else {
        anyhow::anyhow!("{complaint}")
    };
    if code == Some(Exit::Usage as i32) { Failure::usage(error) } else { error.into() }
}

impl Drop for ChildLab {
    fn drop(&mut self) {
        drop(self.control.take());
        let outcome: anyhow::Result<()> = (|| {
            self.child.wait().context("cannot wait for the lab")?;
            if let Err(error) = remove_leftovers() {
                bail!("{error}");
            }
            Ok(())
        })();
        if let Err(error) = outcome {
            say(&format!("the lab could not be taken down, the next start will: {error:#}"));
        }
    }
}
