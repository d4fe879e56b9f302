//! Starts the agent as systemd starts a service of `Type=notify`, and waits for what it says.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::root::Root;
use crate::process;

/// For so long each message is waited for: the kernel verifies every program before the first.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it is told its watchdog is; it has to say that it is alive twice as often.
const WATCHDOG: Duration = Duration::from_secs(4);
const SOCKET: &str = "/run/notify";

/// Ready, alive, reloaded, alive again, and down.
pub(super) fn check(root: &Root, unit: &str) -> Result<()> {
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let text = fs::read_to_string(root.inside(unit))?;
    let start =
        text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("the unit has no ExecStart")?;
    for dir in ["/run/nettrace", "/var/lib/nettrace"] {
        fs::create_dir_all(root.inside(dir))?;
    }
    let socket = UnixDatagram::bind(root.inside(SOCKET))?;
    let words: Vec<_> = start.split_whitespace().collect();
    let mut cmd = root.command(&words);
    cmd.env("NOTIFY_SOCKET", SOCKET).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    // chroot(8) becomes the program, so that its number is the agent's. A group of its own: Ctrl-C is for us.
    let mut agent = Agent { child: cmd.process_group(0).spawn()?, socket };
    agent.says("READY=1")?;
    agent.says("WATCHDOG=1")?;
    agent.signal("-HUP")?;
    agent.says("WATCHDOG=1")?;
    agent.signal("-TERM")?;
    agent.says("STOPPING=1")?;
    let status = agent.child.wait()?;
    ensure!(status.success(), "the agent ends with {status}");
    println!(
        "dist: the agent says READY=1, WATCHDOG=1, lives through SIGHUP, says STOPPING=1, and ends well"
    );
    Ok(())
}

struct Agent {
    child: Child,
    socket: UnixDatagram,
}

impl Agent {
    /// Waits for a message that has this line.
    fn says(&mut self, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        while begun.elapsed() < PATIENCE {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text =
                        String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
                    if text.lines().any(|line| line == wanted) {
                        return Ok(());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ends with {status} before it says {wanted}");
            }
        }
        bail!("the agent does not say {wanted} within {} s", PATIENCE.as_secs())
    }

    fn signal(&self, signal: &str) -> Result<()> {
        process::run(Command::new("kill").arg(signal).arg(self.child.id().to_string()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
