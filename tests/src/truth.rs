//! What the tests compare with: the kernel's own counters, nftables' counters, other programs, packets made by hand.

mod counters;
mod nft;
mod packets;
mod queue;
mod race;

pub use counters::{Counters, counters, sum_counters, wait_for_listener};
pub use nft::{Nft, counted, masquerade, nft, nft_script, services};
pub use packets::{
    Fragment, RawSender, TcpInfo, allow_fast_open, connect_fast_open, favour_this_thread, fragments,
    reset_on_close, set_probing, set_send_buffer, stay_on_cpu, stay_on_this_cpu, stray_segment, tcp_info,
};
pub use queue::{HeldPacket, Queue};
pub use race::{Course, Races, SERVICE, SHARED};

use anyhow::{Context, Result, bail};
use nettrace::lab::Netns;
use std::process::{Child, Command, Stdio};

/// Runs a program in a namespace to its end and yields its output. It must end by itself.
///
/// # Errors
/// When it is not installed, or fails.
pub fn output(netns: &Netns, program: &str, package: &str, args: &[&str]) -> Result<String> {
    let output = netns
        .run(|| Command::new(program).args(args).output())?
        .with_context(|| format!("{program} cannot be run; install the package {package}"))?;
    if !output.status.success() {
        bail!("{program} {args:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A program that runs in a namespace until this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts it, with standard error piped.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(netns: &Netns, program: &str, package: &str, args: &[&str]) -> Result<Self> {
        let child = netns
            .run(|| Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn())?;
        Ok(Self(child.with_context(|| format!("{program} cannot be run; install the package {package}"))?))
    }

    /// The program.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Asks it to end as by Ctrl-C, and waits until it has.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn interrupt(&mut self) -> Result<()> {
        // SAFETY: a plain system call; the child has not been waited for, so that the number is still its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGINT) };
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
