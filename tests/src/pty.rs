//! A program in a pseudo-terminal: what it shows, keys for it, and what it leaves of the terminal.

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A screen that a test waits for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A terminal with a program in it.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Kept open, so that its settings can be looked at when the program is gone.
    line: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    before: String,
}

impl Terminal {
    /// Runs a program in a terminal of so many columns and rows, whose settings are the kernel's default.
    ///
    /// # Errors
    /// When there is no terminal to be had, or the program cannot be started.
    pub fn run(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let line = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&line, size(columns, rows))?;
        let before = settings(&line)?;
        command.stdin(line.try_clone()?).stdout(line.try_clone()?).stderr(line.try_clone()?);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        // SAFETY: between fork and exec only system calls are made, on descriptors that are this child's own.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().context("cannot start the program")?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let theirs = screen.clone();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone()?;
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO, when nobody has the other end open.
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                lock(&theirs).process(&bytes[..n]);
            }
        });
        Ok(Self { child, keyboard, line, screen, before })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Makes the window smaller or larger; the program is told by the kernel.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        lock(&self.screen).screen_mut().set_size(rows, columns);
        Ok(tcsetwinsize(&self.line, size(columns, rows))?)
    }

    /// What is seen.
    #[must_use]
    pub fn text(&self) -> String {
        lock(&self.screen).screen().contents()
    }

    /// Waits until something is seen; yields all that is.
    ///
    /// # Errors
    /// When it is not seen for too long; with what is.
    pub fn wait_for(&self, what: &str, is_seen: impl Fn(&str) -> bool) -> Result<String> {
        let started = Instant::now();
        loop {
            let text = self.text();
            if is_seen(&text) {
                return Ok(text);
            }
            if started.elapsed() > PATIENCE {
                bail!("{what} never came; there is:\n{text}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has a number")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for the program's end, and checks that the terminal is as it was: its settings, the ordinary screen, a cursor.
    ///
    /// # Errors
    /// When it does not end, or leaves the terminal otherwise.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if started.elapsed() > PATIENCE => bail!("it never ended; there is:\n{}", self.text()),
                None => thread::sleep(LOOK),
            }
        };
        self.wait_for("the ordinary screen", |_| !lock(&self.screen).screen().alternate_screen())?;
        let hidden = lock(&self.screen).screen().hide_cursor();
        if hidden {
            bail!("the cursor is still hidden");
        }
        let after = settings(&self.line)?;
        if after != self.before {
            bail!("the terminal was left otherwise.\nbefore: {}\nafter:  {after}", self.before);
        }
        Ok(status)
    }

    /// Whether the terminal's settings are other ones than at first: raw mode.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn is_raw(&self) -> Result<bool> {
        Ok(settings(&self.line)? != self.before)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves nothing running; one that ended well has nothing to kill.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn lock(screen: &Mutex<vt100::Parser>) -> MutexGuard<'_, vt100::Parser> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(line: &OwnedFd) -> Result<String> {
    Ok(format!("{:?}", tcgetattr(line)?))
}

const fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
