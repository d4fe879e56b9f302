//! The dead man's switch: a process of its own that takes changes back when their time is up, whatever became of whoever made
//! them, of its terminal and of its connection.

use super::{ChangeError, Engine, Entry, Journal, Recovered, State, StateDir};
use rustix::process::setsid;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

/// What the process is told to do: see `nettrace guard` of the command line.
const COMMAND: &str = "guard";
/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";
/// What it says when it is ready.
const READY: &str = "ready";
/// How often it looks whether a change was kept or taken back.
const POLL: Duration = Duration::from_millis(200);
/// How long it stays while nothing has a time limit: `tune` puts changes on and takes them off.
const NO_CHANGE: Duration = Duration::from_secs(180);

/// Starts the process, and waits until it watches. To be called before the change: from its first moment on, somebody has to
/// take it back.
///
/// # Errors
/// When it cannot be started.
pub fn start(dir: &StateDir) -> Result<(), ChangeError> {
    let failed = |error| ChangeError::System {
        what: "start the process that takes the change back".to_owned(),
        error,
    };
    let mut child = Command::new(SELF)
        .arg0("nettrace")
        .args([COMMAND, "--state-dir"])
        .arg(dir.path())
        .current_dir("/")
        .env_remove(super::fault::VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    if line.trim() == READY {
        return Ok(());
    }
    let _ = child.wait();
    Err(failed(io::Error::other("it ended at once")))
}

/// What that process does: waits, and takes back what is due, until no change has a time limit any more.
///
/// # Errors
/// When the journal cannot be read.
pub fn watch(dir: &StateDir, mut said: impl FnMut(&Recovered)) -> Result<(), ChangeError> {
    // In a session of its own, no terminal's end reaches it. Whoever started it waits until then, and changes nothing before.
    setsid()
        .map_err(|errno| ChangeError::System { what: "begin a session".to_owned(), error: errno.into() })?;
    let ready = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
    ready.map_err(|error| ChangeError::System { what: "say that it is ready".to_owned(), error })?;
    let mut waited = Duration::ZERO;
    // What could not be taken back is told by the next command; trying it for ever brings nothing.
    let mut left = BTreeSet::new();
    let (mut seen, mut entries) = (None, Vec::new());
    while waited < NO_CHANGE {
        // What is past its time is told by the clock: the journal is read anew only where it has grown or was rewritten.
        let version = version(dir);
        if version.is_none() || version != seen {
            // What cannot be read now may be in the middle of being written.
            match Journal::look(dir) {
                Ok(read) => (seen, entries) = (version, read),
                Err(_) => seen = None,
            }
        }
        // One that is not finished is somebody's who is at work, or is taken back by whoever comes next.
        let limited = |e: &&Entry| e.state == State::Done && e.begin.until.is_some();
        let limited: Vec<_> =
            entries.iter().filter(limited).filter(|e| !left.contains(&e.begin.change)).collect();
        if limited.iter().any(|e| e.is_due()) {
            left.extend(not_taken_back(dir, &mut said));
        }
        let busy = !limited.is_empty() || entries.iter().any(|e| e.state == State::Unfinished);
        waited = if busy { Duration::ZERO } else { waited + POLL };
        thread::sleep(POLL);
    }
    Ok(())
}

/// Length and time of the journal; none where there is none.
fn version(dir: &StateDir) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(dir.journal()).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// Takes back what is due; the numbers of changes for which that failed.
fn not_taken_back(dir: &StateDir, said: &mut impl FnMut(&Recovered)) -> Vec<u64> {
    // Where another one is in the middle of a change, it is tried again.
    let Ok((_, recovered)) = Engine::open(dir) else { return Vec::new() };
    recovered.iter().for_each(said);
    recovered.iter().filter(|r| r.outcome.is_err()).map(|r| r.change).collect()
}
