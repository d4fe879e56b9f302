//! The agent in a process of its own, looked at from outside.

use super::http::{self, Scrape, sum};
use anyhow::{Context as _, Result, bail};
use nettrace::lab::Pair;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// Length of its windows: the default.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// An agent that ends with this.
pub(crate) struct Agent {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// What it used.
pub(crate) struct Usage {
    pub(crate) own_cpu_share: f64,
    pub(crate) kernel_cpu_share: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) budget_step: f64,
    cpu_seconds: f64,
    kernel_seconds: f64,
}

/// What it counted.
pub(crate) struct Counts {
    pub(crate) packets: f64,
    pub(crate) events: f64,
}

impl Agent {
    pub(crate) fn start(pair: &Pair) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let netns = [pair.client(), pair.server()].map(|end| end.netns.name().to_owned());
        let config = format!(
            "[capture]\nnetns = {netns:?}\npacket_budget = 25000\n[web]\nlisten = '{address}'\n[history]\ndir = '{0}/history'\n\
             [flight]\ndir = '{0}/flight'\n",
            dir.path().display()
        );
        let file = dir.path().join("agent.toml");
        fs::write(&file, config)?;
        let child = Command::new(std::env::current_exe()?).args(["agent", "--config"]).arg(&file).spawn()?;
        let mut agent = Self { child, address, _dir: dir };
        let began = Instant::now();
        while http::scrape(address).is_err() {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended: {status}");
            }
            if began.elapsed() > START {
                bail!("the agent does not answer at {address}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        // What starting took is not what running takes.
        thread::sleep(2 * INTERVAL);
        Ok(agent)
    }

    pub(crate) fn scrape(&self) -> Result<Scrape> {
        http::scrape(self.address)
    }

    /// So far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let proc = format!("/proc/{}", self.child.id());
        let stat = fs::read_to_string(format!("{proc}/stat"))?;
        let after_name = stat.rsplit_once(") ").context("no name in stat")?.1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        // utime and stime, fields 14 and 15 of proc_pid_stat(5).
        let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).context("no times in stat");
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let pages: u64 = {
            let statm = fs::read_to_string(format!("{proc}/statm"))?;
            statm.split(' ').nth(1).and_then(|f| f.parse().ok()).context("no resident set in statm")?
        };
        let text = self.scrape()?.text;
        Ok(Usage {
            own_cpu_share: 0.0,
            kernel_cpu_share: 0.0,
            rss_bytes: pages * rustix::param::page_size() as u64,
            budget_step: sum(&text, "nettrace_budget_step"),
            cpu_seconds: (ticks(11)? + ticks(12)?) / per_second,
            kernel_seconds: sum(&text, "nettrace_cpu_seconds_total{mode=\"kernel_programs\"}"),
        })
    }

    pub(crate) fn counts(&self) -> Result<Counts> {
        let text = self.scrape()?.text;
        Ok(Counts {
            packets: sum(&text, "nettrace_packets_total"),
            events: sum(&text, "nettrace_ring_records_total{result=\"received\"}"),
        })
    }

    pub(crate) fn end(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("the agent ended with {status}") }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// What it used in between, over so long.
    pub(crate) fn since(self, before: &Self, seconds: f64) -> Self {
        Self {
            own_cpu_share: (self.cpu_seconds - before.cpu_seconds) / seconds,
            kernel_cpu_share: (self.kernel_seconds - before.kernel_seconds) / seconds,
            ..self
        }
    }
}
