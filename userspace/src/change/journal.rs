//! The journal: what is about to be changed, on disk before it is.
//!
//! A file of lines, each a CRC-32 and a record in JSON, appended and synced one by one. A line that has no end was never
//! relied on: whoever wrote it was stopped before it was synced. Any other line that does not fit its sum means that the file
//! was damaged, and nothing is guessed from it.

use super::{
    Begin, Entry, State, StateDir, atomic, fault,
    record::{Record, now_unix_ns},
};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// First line: what this is, and in which version.
const HEAD: &str = "nettrace journal 1\n";
/// Room that is set aside behind each record for those that end a change, beside that for its values: a full disk does not keep
/// it from being undone, bytes.
const RESERVE_BYTES: u64 = 16 << 10;
/// From here on the changes that are long over are left out when the journal is opened, bytes.
const COMPACT_BYTES: u64 = 1 << 20;
/// Of these so many stay, as far as they fit in half of that.
const KEPT_ENDED: usize = 100;
/// Longer ones are not nettrace's, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file or its directory.
    #[error("cannot {action} {path}: {error}")]
    File {
        /// What was done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It does not say what it did when it was written.
    #[error(
        "{path}, line {line}: {why}. Nothing is guessed from it, and nothing was changed{}",
        proven(entries)
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        why: String,
        /// What the lines before prove.
        entries: Vec<Entry>,
    },
}

/// What the lines before a damage prove to have been set, one line for each value.
fn proven(entries: &[Entry]) -> String {
    let active = entries.iter().filter(|e| e.is_active());
    let steps: String = active
        .flat_map(|e| e.begin.steps.iter().map(move |s| (e.begin.change, s)))
        .map(|(n, s)| format!("\n  change {n}: {s} was `{}`, and was to be `{}`", s.before, s.after))
        .collect();
    if steps.is_empty() {
        return ". Up to that line, nothing is changed that was not undone".to_owned();
    }
    format!(". Up to that line, this was changed and not undone:{steps}")
}

/// The journal, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next record goes, bytes.
    end: u64,
    /// Room to be kept behind it while a change is made, bytes.
    reserve: u64,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens it, or begins it. The lock must be held.
    pub(super) fn open(dir: &StateDir) -> Result<Self, JournalError> {
        let path = dir.journal();
        let failed = |action, error| JournalError::File { action, path: dir.journal(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(|e| failed("open", e))?;
        let bytes = whole(&mut file).map_err(|e| failed("read", e))?;
        let read = parse(&bytes);
        let (entries, end) = match read {
            Ok(read) => read,
            Err((line, why, entries)) => return Err(JournalError::Damaged { path, line, why, entries }),
        };
        let mut journal = Self { path, file, end: end as u64, reserve: RESERVE_BYTES, entries };
        if journal.end == 0 {
            journal.append(HEAD.as_bytes())?;
            atomic::sync_dir(dir.path()).map_err(|e| failed("sync the directory of", e))?;
        } else if journal.end > COMPACT_BYTES {
            journal.compact()?;
        }
        Ok(journal)
    }

    /// Reads it as it is now, without the lock; nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn look(dir: &StateDir) -> Result<Vec<Entry>, JournalError> {
        let path = dir.journal();
        let bytes = match File::open(&path).and_then(|mut file| whole(&mut file)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(JournalError::File { action: "read", path, error }),
        };
        let read = parse(&bytes).map(|(entries, _)| entries);
        read.map_err(|(line, why, entries)| JournalError::Damaged { path, line, why, entries })
    }

    /// All changes, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.entries.iter().map(|e| e.begin.change).max().unwrap_or(0) + 1
    }

    pub(super) fn begin(&mut self, begin: Begin) -> Result<(), JournalError> {
        // What the kernel makes of each value may be noted, and the end.
        let values: usize = begin.steps.iter().map(|s| s.before.len() + s.after.len()).sum();
        self.reserve = RESERVE_BYTES + 2 * values as u64;
        self.write(&Record::Begin(begin))?;
        self.set_aside().map_err(|error| {
            // Nothing was changed yet: without room for its end it is not begun.
            let change = self.next() - 1;
            let _ = self.undone(change, "there was no room for its end");
            JournalError::File { action: "set room aside in", path: self.path.clone(), error }
        })
    }

    /// Keeps room on the disk behind what is written. File systems that cannot do it have no promise to break: a change whose
    /// end cannot be written is undone at the next start.
    fn set_aside(&self) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, self.reserve) {
            Err(Errno::NOTSUP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn found(&mut self, change: u64, step: usize, value: String) -> Result<(), JournalError> {
        self.write(&Record::Found { change, step, value })
    }

    pub(super) fn done(&mut self, change: u64) -> Result<(), JournalError> {
        self.write(&Record::Done { change })
    }

    pub(super) fn kept(&mut self, change: u64) -> Result<(), JournalError> {
        self.write(&Record::Kept { change })
    }

    pub(super) fn undone(&mut self, change: u64, why: &str) -> Result<(), JournalError> {
        self.write(&Record::Undone { change, why: why.to_owned(), at_unix_ns: now_unix_ns() })
    }

    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        self.append(line(record).as_bytes())?;
        // It was made here, and fits.
        let _ = take(&mut self.entries, record.clone());
        Ok(())
    }

    /// Writes and syncs. What cannot be written whole is not there.
    fn append(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        fault::point();
        let write = |file: &mut File, end: u64| {
            file.seek(SeekFrom::Start(end))?;
            if fault::is_due() {
                let _ = file.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default());
                fault::kill();
            }
            file.write_all(bytes)?;
            // What is behind the end is what a process that was killed left of a record.
            file.set_len(end + bytes.len() as u64)?;
            fault::point();
            file.sync_all()
        };
        if let Err(error) = write(&mut self.file, self.end) {
            let _ = self.file.set_len(self.end);
            return Err(JournalError::File { action: "write to", path: self.path.clone(), error });
        }
        self.end += bytes.len() as u64;
        fault::point();
        Ok(())
    }

    /// Leaves out what is long over.
    fn compact(&mut self) -> Result<(), JournalError> {
        let (mut kept, mut room) = (KEPT_ENDED, COMPACT_BYTES as usize / 2);
        let mut texts = vec![HEAD.to_owned()];
        // The newest first.
        let mut stays: Vec<_> = self.entries.drain(..).rev().collect();
        stays.retain(|entry| {
            let text = lines(entry);
            let stays = entry.is_active() || kept > 0 && text.len() <= room;
            if stays && !entry.is_active() {
                (kept, room) = (kept - 1, room - text.len());
            }
            stays
        });
        stays.reverse();
        self.entries = stays;
        texts.extend(self.entries.iter().map(lines));
        let text = texts.concat();
        let failed = |error| JournalError::File { action: "rewrite", path: self.path.clone(), error };
        atomic::replace(&self.path, text.as_bytes(), 0o600).map_err(failed)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        self.end = text.len() as u64;
        Ok(())
    }
}

/// All of a journal that is not longer than nettrace writes it.
fn whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {} MiB, and not of nettrace",
            MAX_BYTES >> 20
        )));
    }
    Ok(bytes)
}

/// What a change comes to, in as few records as there can be.
fn lines(entry: &Entry) -> String {
    let change = entry.begin.change;
    let mut text = line(&Record::Begin(entry.begin.clone()));
    match &entry.state {
        State::Unfinished => {}
        State::Done => text += &line(&Record::Done { change }),
        State::Undone { why, at_unix_ns } => {
            text += &line(&Record::Undone { change, why: why.clone(), at_unix_ns: *at_unix_ns });
        }
    }
    text
}

fn line(record: &Record) -> String {
    // Of these types nothing can fail to be written as JSON.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// Line, what is wrong with it, and what the lines before it say.
type Damage = (usize, String, Vec<Entry>);

/// The changes of a journal, and where its last whole line ends.
fn parse(bytes: &[u8]) -> Result<(Vec<Entry>, usize), Damage> {
    let mut entries = Vec::new();
    let mut end = 0;
    for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let record = if n == 0 { head(line).map(|()| None) } else { checked(text).map(Some) };
        let taken = record.and_then(|record| record.map_or(Ok(()), |record| take(&mut entries, record)));
        if let Err(why) = taken {
            // A disk that lost its power may have the end of what was written, and nothing of its beginning.
            let is_last = end + line.len() == bytes.len();
            if n > 0 && is_last && text.contains(&0) {
                break;
            }
            return Err((n + 1, why, entries));
        }
        end += line.len();
    }
    // Of a first line, even its beginning is known.
    if end == 0 && !HEAD.as_bytes().starts_with(bytes) && bytes.iter().any(|b| *b != 0) {
        return Err((1, "this is no journal of nettrace".to_owned(), entries));
    }
    Ok((entries, end))
}

fn head(line: &[u8]) -> Result<(), String> {
    let ok = line == HEAD.as_bytes();
    ok.then_some(()).ok_or_else(|| "this is no journal of this version of nettrace".to_owned())
}

fn checked(line: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no text".to_owned())?;
    let (sum, json) = text.split_once(' ').ok_or("there is no record")?;
    let known = u32::from_str_radix(sum, 16).map_err(|_| "there is no sum".to_owned())?;
    if known != crc32fast::hash(json.as_bytes()) {
        return Err("the record does not fit its sum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("the record cannot be understood: {error}"))
}

/// Adds a record to what is known.
fn take(entries: &mut Vec<Entry>, record: Record) -> Result<(), String> {
    fn of(entries: &mut [Entry], change: u64) -> Result<&mut Entry, String> {
        let found = entries.iter_mut().find(|e| e.begin.change == change);
        found.ok_or_else(|| format!("change {change} was never begun"))
    }
    match record {
        Record::Begin(begin) if of(entries, begin.change).is_ok() => {
            return Err(format!("change {} is begun twice", begin.change));
        }
        Record::Begin(begin) => entries.push(Entry { begin, state: State::Unfinished }),
        Record::Found { change, step, value } => {
            let steps = &mut of(entries, change)?.begin.steps;
            steps.get_mut(step).ok_or_else(|| format!("change {change} has no step {step}"))?.after = value;
        }
        Record::Done { change } => of(entries, change)?.state = State::Done,
        Record::Kept { change } => of(entries, change)?.begin.until = None,
        Record::Undone { change, why, at_unix_ns } => {
            of(entries, change)?.state = State::Undone { why, at_unix_ns };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
