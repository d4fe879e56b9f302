//! The programs that packet filters, queues and addresses are usually set by.

use super::ScenarioError;
use crate::lab::Netns;
use std::{
    env, io,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

/// A program of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Rules of nftables.
    Nft,
    /// Rules of iptables, many at once; legacy or of nftables, as the system has it.
    IptablesRestore,
    /// Links, addresses, routes.
    Ip,
    /// Queues.
    Tc,
    /// A caching name server.
    Dnsmasq,
}

impl Program {
    /// As it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesRestore => "iptables-restore",
            Self::Ip => "ip",
            Self::Tc => "tc",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Where it comes from, on Debian.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::IptablesRestore => "iptables",
            Self::Ip | Self::Tc => "iproute2",
            Self::Dnsmasq => "dnsmasq-base",
        }
    }

    /// Whether it can be found.
    pub(super) fn is_there(self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|dir| dir.join(self.name()).is_file())
    }
}

/// What a program is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Who reads it.
    pub program: Program,
    /// How it is told to read it from standard input.
    pub args: &'static [&'static str],
    /// What.
    pub text: String,
}

impl Script {
    /// For `nft`.
    pub(super) fn nft(text: impl Into<String>) -> Self {
        Self { program: Program::Nft, args: &["-f", "-"], text: text.into() }
    }

    /// For `tc`, a line for each of its calls.
    pub(super) fn tc(text: String) -> Self {
        Self { program: Program::Tc, args: &["-batch", "-"], text }
    }

    /// For `iptables-restore`: whole tables, which replace what is there.
    pub(super) fn tables(text: String) -> Self {
        Self { program: Program::IptablesRestore, args: &[], text }
    }

    /// For `iptables-restore`: what it does not name stays. That takes much longer than whole tables do.
    pub(super) fn rules(text: String) -> Self {
        Self { program: Program::IptablesRestore, args: &["--noflush"], text }
    }

    /// Runs it in a namespace, to its end.
    pub(super) fn run(&self, netns: &Netns) -> Result<(), ScenarioError> {
        let first: Vec<_> = self.text.lines().take(3).collect();
        run(netns, self.program, self.args, &self.text, || format!("({})", first.join(" ")))
    }
}

/// Runs a program in a namespace, to its end.
pub(super) fn run_with(netns: &Netns, program: Program, args: &[&str]) -> Result<(), ScenarioError> {
    run(netns, program, args, "", || args.join(" "))
}

fn run(
    netns: &Netns,
    program: Program,
    args: &[&str],
    input: &str,
    told: impl FnOnce() -> String,
) -> Result<(), ScenarioError> {
    let output = netns.run(|| {
        let mut child = Command::new(program.name())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let pipe = child.stdin.take();
        // A program that does not read all of it has something to say, and must not wait until somebody hears it.
        thread::scope(|scope| {
            scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
            child.wait_with_output()
        })
    })?;
    let output = output.map_err(|source: io::Error| ScenarioError::Program { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(ScenarioError::Refused { program, told: told(), said })
}
