//! The agent as a process: it starts, reads its configuration anew, tells its service manager, and leaves nothing behind.

use nettrace::lab::{Lab, LabConfig};
use nettrace_tests::{http, program::nettrace};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

/// An agent that ends with this.
pub(super) struct Agent {
    child: Child,
    told: UnixDatagram,
    log: PathBuf,
}

impl Agent {
    /// With a configuration, below a service manager that watches it.
    pub(super) fn start(dir: &Path, config: &str) -> Self {
        fs::write(dir.join("agent.toml"), config).unwrap();
        let socket = dir.join("notify");
        let _ = fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let child = nettrace()
            .unwrap()
            .args(["agent", "--config"])
            .arg(dir.join("agent.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "2000000")
            // A file, because nobody reads a pipe while it runs.
            .stderr(File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, told, log: dir.join("log") }
    }

    /// Waits until the service manager is told something.
    pub(super) fn wait_for(&mut self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            let Ok(len) = self.told.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if text.contains(what) {
                return text;
            }
        }
        panic!("the service manager was not told {what}")
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        let log = self.log();
        let said = log.split("listening at ").nth(1).unwrap();
        said.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
    }

    /// What it answers to a request for a path.
    pub(super) fn get(&self, path: &str) -> String {
        self.ask("GET", path)
    }

    pub(super) fn ask(&self, method: &str, path: &str) -> String {
        http::ask(&self.address(), method, path).unwrap()
    }

    /// What it said so far.
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as a lack of memory would.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it, and yields what it said.
    pub(super) fn end(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of an agent that measures a lab's node, keeps its files below a directory and listens where the kernel says.
pub(super) fn config(lab: &Lab, dir: &Path, more: &str) -> String {
    let (node, dir) = (lab.node().netns.name(), dir.display());
    format!(
        "[agent]\ninterval = '1s'\nfindings = '2s'\n[capture]\nnetns = ['{node}']\n{more}\n[log]\nformat = 'json'\n\
         [web]\nlisten = '127.0.0.1:0'\n[history]\ndir = '{dir}/history'\ninterval = '2s'\n[flight]\ndir = '{dir}/flight'\nmemory = '4MiB'\n"
    )
}

#[test]
fn it_starts_reads_its_configuration_anew_and_ends() {
    let (lab, dir) = (Lab::start(LabConfig::default()).unwrap(), tempfile::tempdir().unwrap());
    let mut agent = Agent::start(dir.path(), &config(&lab, dir.path(), ""));
    let ready = agent.wait_for("READY=1");
    assert!(ready.contains("STATUS=") && ready.contains("probes"), "{ready}");
    agent.wait_for("WATCHDOG=1");
    // One that is wrong: the one before stays, and the agent runs on.
    fs::write(dir.path().join("agent.toml"), "[capture]\nring_size = 'huge'").unwrap();
    agent.signal(Signal::HUP);
    agent.wait_for("RELOADING=1");
    agent.wait_for("READY=1");
    agent.wait_for("STATUS=");
    // One that measures something else.
    fs::write(dir.path().join("agent.toml"), config(&lab, dir.path(), "signals = ['dns.latency']")).unwrap();
    agent.signal(Signal::HUP);
    agent.wait_for("RELOADING=1");
    agent.wait_for("READY=1");
    let status = agent.wait_for("probes");
    assert!(status.contains("STATUS=1 probes"), "{status}");
    let log = agent.end();
    let wrong = log.lines().find(|line| line.contains("agent.toml:2:13")).unwrap_or_default();
    assert!(wrong.contains("ERROR") && wrong.contains("expected a size"), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

/// An agent that may load no more programs goes on measuring what it measures.
#[test]
fn what_cannot_be_measured_any_more_is_refused_and_the_rest_goes_on() {
    let (lab, dir) = (Lab::start(LabConfig::default()).unwrap(), tempfile::tempdir().unwrap());
    let with = |more| config(&lab, dir.path(), more) + "[privilege]\nloading = false\n";
    let mut agent = Agent::start(dir.path(), &with("signals = ['dns.latency']"));
    agent.wait_for("READY=1");
    fs::write(dir.path().join("agent.toml"), with("signals = ['net.rtt']")).unwrap();
    agent.signal(Signal::HUP);
    agent.wait_for("RELOADING=1");
    agent.wait_for("READY=1");
    let status = agent.wait_for("probes");
    assert!(status.contains("STATUS=1 probes"), "{status}");
    assert!(agent.get("/api/status").contains("loading is false"), "{}", agent.get("/api/status"));
    agent.end();
}

#[test]
fn a_wrong_configuration_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    for (text, said) in [
        ("[agent]\ninterval = '1ms'", "agent.toml:2:1: interval is 1ms: expected 1s to 600s"),
        ("[capture]\niface = 7\nsignal = 'rx'", "agent.toml:3:10: [capture] has no `signal`"),
    ] {
        fs::write(&file, text).unwrap();
        for command in [&["agent", "--config"][..], &["config", "check"]] {
            let output = nettrace().unwrap().args(command).arg(&file).output().unwrap();
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{log}");
            assert!(log.contains(said), "{log}");
        }
    }
    fs::write(&file, "").unwrap();
    assert!(nettrace().unwrap().args(["config", "check"]).arg(&file).output().unwrap().status.success());
}
