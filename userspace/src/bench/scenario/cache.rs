//! dnsmasq in a namespace, as long as it is wanted.

use super::{Cache, Program, ScenarioError, program};
use crate::lab::{LabError, Netns};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long it may take to listen.
const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);
const PORT: u16 = 53;

/// A running name server, which ends when this is dropped, or its process.
#[derive(Debug)]
pub(super) struct Running {
    process: OwnedFd,
    /// Waits for it to end; yields what it said.
    thread: Option<JoinHandle<Result<String, LabError>>>,
}

impl Running {
    /// Gives its namespace the address, starts it there, and waits until it listens.
    pub(super) fn start(cache: &Cache, netns: &Netns) -> Result<Self, ScenarioError> {
        let cidr = format!("{}/32", cache.address);
        program::run_with(netns, Program::Ip, &["address", "replace", &cidr, "dev", "lo"])?;
        let mut command = command(cache);
        let (tell, told) = mpsc::channel();
        // Its end is tied to that of the thread that starts it, which so waits until it has ended.
        let thread = netns.spawn(move || match start(&mut command) {
            Ok((mut child, process)) => {
                // Who asked has gone: then it is ended as soon as it has begun.
                let heard = tell.send(Ok(process)).is_ok();
                if !heard {
                    let _ = child.kill();
                }
                end_of(&mut child)
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                String::new()
            }
        })?;
        let started = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let process =
            started.map_err(|source| ScenarioError::Program { program: Program::Dnsmasq, source })?;
        let mut running = Self { process, thread: Some(thread) };
        running.wait_until_it_listens(cache, netns)?;
        Ok(running)
    }

    fn wait_until_it_listens(&mut self, cache: &Cache, netns: &Netns) -> Result<(), ScenarioError> {
        let address = SocketAddrV4::new(cache.address, PORT);
        let begin = Instant::now();
        while !netns.run(|| listens(address))? {
            let failed = |said| ScenarioError::Cache { address, said };
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                return Err(failed(self.join()));
            }
            if begin.elapsed() > LIMIT {
                return Err(failed(format!("it does not listen after {} ms", LIMIT.as_millis())));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn join(&mut self) -> String {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(said))) => said,
            Some(Ok(Err(error))) => error.to_string(),
            _ => String::new(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself is not there to be told.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        self.join();
    }
}

/// Takes the address away again; the server has ended.
pub(super) fn remove_address(address: Ipv4Addr, netns: &Netns) -> Result<(), ScenarioError> {
    program::run_with(netns, Program::Ip, &["address", "delete", &format!("{address}/32"), "dev", "lo"])
}

fn command(cache: &Cache) -> Command {
    let mut command = Command::new(Program::Dnsmasq.name());
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll"])
        .args(["--pid-file=", "--bind-interfaces", "--log-facility=/dev/null"])
        // A change of its user or group would untie its end from ours (commit_creds).
        .args(["--user=root", "--group=root"])
        .args(["--cache-size=10000", "--dns-forward-max=10000"])
        .arg(format!("--listen-address={}", cache.address))
        .arg(format!("--server={}", cache.upstream))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn start(command: &mut Command) -> io::Result<(Child, OwnedFd)> {
    let tied =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call, and touches no memory that another thread may hold.
    unsafe { command.pre_exec(tied) };
    let mut child = command.spawn()?;
    let process =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound.into());
    // The child is not waited for yet, so that the number is its own.
    match process.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)) {
        Ok(process) => Ok((child, process)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Waits for a program to end. What it said.
fn end_of(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(pipe) = &mut child.stderr
        && let Err(error) = pipe.read_to_string(&mut said)
    {
        said = error.to_string();
    }
    match child.wait() {
        Ok(status) if said.is_empty() => status.to_string(),
        _ => said.trim().to_owned(),
    }
}

/// Whether a UDP socket of the calling thread's namespace has this address.
fn listens(address: SocketAddrV4) -> bool {
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
}
