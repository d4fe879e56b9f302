//! Writing a history: one process, one snapshot at a time, within its bounds and without ever harming what is there.
//!
//! Needs a [`HistoryConfig`] and snapshots; yields files and [`Stats`]. Each frame is written with one call at the end of the
//! newest segment and is on disk (`fdatasync`) before it counts; so are the names of new segments (`fsync` of the directory).
//! When writing fails, the file is cut back to its last whole frame, the error is returned once, and the next snapshot is
//! tried again.

use super::{
    HistoryConfig, HistoryError, Stamp, Step,
    clock::boot_id,
    format::{
        ENTRY, Entry, EntryHead, INDEX, SEGMENT_VERSION, SegmentHeader, Summary, Tail, end_bytes,
        segment_path,
    },
    read::Segment,
    segment_paths,
};
use crate::{
    capture::nanos,
    recording::{
        MAX_PAYLOAD_BYTES,
        format::{DEFLATED, encode_frame},
    },
    snapshot::Snapshot,
};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Segments are as large as this part of the whole, within these bounds, bytes: few files, and little that goes at once.
const PART: u64 = 32;
const LEAST_SEGMENT_BYTES: u64 = 32 << 10;
const MOST_SEGMENT_BYTES: u64 = 16 << 20;
/// Entries of a segment, so that its index stays small.
const MOST_ENTRIES: usize = 4096;
/// A segment is ended when its first entry is as old as this part of what is kept, so that age takes little at once.
const AGE_PART: u32 = 30;
/// After the clock was set nothing goes for its age for so long: a clock that is wrong for a while deletes nothing.
const STEADY_NS: u64 = 3_600_000_000_000;

/// What became of the snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Segments on disk.
    pub segments: u32,
    /// Snapshots on disk.
    pub frames: u64,
    /// Size on disk, bytes.
    pub size_bytes: u64,
    /// The earliest start of what is on disk, Unix time, ns; none when there is nothing.
    pub from_unix_ns: Option<u64>,
    /// The latest end of it.
    pub to_unix_ns: Option<u64>,
    /// Snapshots written since it was opened.
    pub written: u64,
    /// Snapshots that could not be written.
    pub failed: u64,
    /// Why the last one could not be; none when it was written.
    pub error: Option<String>,
    /// Segments that went since it was opened, for size or age.
    pub dropped_segments: u64,
    /// Snapshots in them.
    pub dropped_frames: u64,
    /// Places in the segments on disk where frames are damaged.
    pub damaged: u64,
    /// Bytes that were cut off when it was opened: a frame that a crash left unfinished.
    pub cut_bytes: u64,
    /// Times that the clock was seen to be set since it was opened.
    pub clock_steps: u64,
}

/// A segment that is ended, or whose writer was.
#[derive(Debug)]
struct Ended {
    path: PathBuf,
    bytes: u64,
    summary: Summary,
}

/// The segment that is written.
#[derive(Debug)]
struct Active {
    file: File,
    path: PathBuf,
    /// Where the last whole frame ends, bytes.
    end: u64,
    entries: Vec<Entry>,
    damaged: u32,
    /// Whether something unfinished may be behind it.
    dirty: bool,
}

/// A history that is written.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held as long as this lives.
    _lock: File,
    boot_id: [u8; 16],
    max_bytes: u64,
    segment_bytes: u64,
    keep_ns: u64,
    /// Oldest first.
    ended: VecDeque<Ended>,
    active: Option<Active>,
    next_sequence: u32,
    last: Option<Stamp>,
    /// Since when, in this boot, nobody set the clock, ns since boot.
    steady_from_ns: Option<u64>,
    /// Whether frames are to be on disk before they count: all but tests that write thousands.
    pub(super) sync: bool,
    stats: Stats,
    scratch: Vec<u8>,
}

impl Store {
    /// Opens the history in a directory, which is made when it is not there, for its owner alone: it names hosts and their
    /// traffic. What a crash left unfinished is cut off.
    ///
    /// # Errors
    /// When the configuration contradicts itself, another process writes there, or a file cannot be read or cut.
    pub fn open(config: &HistoryConfig) -> Result<Self, HistoryError> {
        config.check()?;
        let dir = &config.dir;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| HistoryError::file("make", dir, e))?;
        let mut store = Self {
            dir: dir.clone(),
            _lock: lock(dir)?,
            boot_id: boot_id(),
            max_bytes: config.max_size,
            segment_bytes: (config.max_size / PART).clamp(LEAST_SEGMENT_BYTES, MOST_SEGMENT_BYTES),
            keep_ns: nanos(config.keep),
            ended: VecDeque::new(),
            active: None,
            next_sequence: 1,
            last: None,
            steady_from_ns: None,
            sync: true,
            stats: Stats::default(),
            scratch: Vec::new(),
        };
        store.find()?;
        // A smaller bound than before holds at once.
        store.make_room(0)?;
        Ok(store)
    }

    /// Adds a snapshot. It is on disk when this returns.
    ///
    /// # Errors
    /// When it could not be written, see [`HistoryError::is_full`]; what was there before is as it was, and the next one is tried.
    pub fn append(&mut self, snapshot: &Snapshot) -> Result<(), HistoryError> {
        self.append_at(snapshot, Stamp::now(self.boot_id))
    }

    /// What became of the snapshots, and what is on disk.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let summaries = || {
            let active = self.active.as_ref().map(|a| Summary::of(&a.entries, a.damaged));
            self.ended.iter().map(|e| e.summary).chain(active)
        };
        let told = || summaries().filter(|s| s.entries > 0);
        Stats {
            segments: (self.ended.len() + usize::from(self.active.is_some())) as u32,
            frames: summaries().map(|s| u64::from(s.entries)).sum(),
            size_bytes: self.size_bytes(),
            from_unix_ns: told().map(|s| s.from_unix_ns).min(),
            to_unix_ns: told().map(|s| s.to_unix_ns).max(),
            damaged: summaries().map(|s| u64::from(s.damaged)).sum(),
            ..self.stats.clone()
        }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the newest segment, as if it were full.
    #[cfg(test)]
    pub(super) fn end_now(&mut self) {
        self.end();
    }

    /// The same at a time that a test chooses.
    pub(super) fn append_at(&mut self, snapshot: &Snapshot, now: Stamp) -> Result<(), HistoryError> {
        let mut frame = std::mem::take(&mut self.scratch);
        let result = self.try_append(snapshot, now, &mut frame);
        self.scratch = frame;
        match &result {
            Ok(()) => {
                self.stats.written += 1;
                self.stats.error = None;
            }
            Err(error) => {
                self.stats.failed += 1;
                self.stats.error = Some(error.to_string());
            }
        }
        result
    }

    fn try_append(
        &mut self,
        snapshot: &Snapshot,
        now: Stamp,
        frame: &mut Vec<u8>,
    ) -> Result<(), HistoryError> {
        let meta = &snapshot.meta;
        let head =
            EntryHead { start_unix_ns: meta.start_unix_ns, duration_ns: meta.duration_ns, written: now };
        let mut payload = head.encode().to_vec();
        serde_json::to_writer(&mut payload, snapshot)?;
        let limit = self.limit();
        let too_large = |bytes: usize| HistoryError::TooLarge { bytes: bytes as u64, limit };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(too_large(payload.len()));
        }
        encode_frame(ENTRY, DEFLATED, &payload, frame);
        if frame.len() as u64 > limit {
            return Err(too_large(frame.len()));
        }
        self.notice(now);
        self.expire(now)?;
        self.end_if_due(frame.len() as u64, now);
        self.make_room(frame.len() as u64)?;
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let written = active.put(frame, self.sync);
        if written.is_ok() {
            active.entries.push(Entry { offset: active.end, len: frame.len() as u32, head });
            active.end += frame.len() as u64;
        }
        self.active = Some(active);
        written
    }

    /// The largest frame: beside it a segment's own bytes have room.
    fn limit(&self) -> u64 {
        (self.max_bytes / 2).min(MAX_PAYLOAD_BYTES as u64)
    }

    /// Looks at what is there.
    fn find(&mut self) -> Result<(), HistoryError> {
        let paths = segment_paths(&self.dir)?;
        let newest = paths.last().map(|(sequence, _)| *sequence);
        self.next_sequence = newest.map_or(1, |sequence| sequence.saturating_add(1));
        for (sequence, path) in paths {
            let segment = Segment::open(&path)?;
            let resume = newest == Some(sequence) && segment.is_open() && segment.is_readable();
            if resume {
                self.resume(path, &segment)?;
            } else {
                self.ended.push_back(Ended { bytes: segment.size(), summary: segment.summary()?, path });
            }
        }
        self.remember_clock()
    }

    /// Goes on writing a segment whose writer was ended.
    fn resume(&mut self, path: PathBuf, segment: &Segment) -> Result<(), HistoryError> {
        let (size, scanned) = (segment.size(), segment.scanned()?);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| HistoryError::file("open", &path, e))?;
        if size > scanned.end {
            let cut = || file.set_len(scanned.end).and_then(|()| file.sync_all());
            cut().map_err(|e| HistoryError::file("cut", &path, e))?;
            self.stats.cut_bytes = size - scanned.end;
        }
        let (end, entries, damaged) = (scanned.end, scanned.entries, scanned.damaged);
        self.active = Some(Active { file, path, end, entries, damaged, dirty: false });
        Ok(())
    }

    /// Since when the clock was not set, as the newest segment tells.
    fn remember_clock(&mut self) -> Result<(), HistoryError> {
        let heads: Vec<EntryHead> = match (&self.active, self.ended.back()) {
            (Some(active), _) => active.entries.iter().map(|e| e.head).collect(),
            (None, Some(ended)) => Segment::open(&ended.path)?.entries()?.iter().map(|e| e.head).collect(),
            (None, None) => Vec::new(),
        };
        self.last = heads.last().map(|head| head.written);
        let mut later = match self.last {
            Some(last) if last.boot_id == self.boot_id => last,
            _ => return Ok(()),
        };
        for head in heads.iter().rev().map(|head| head.written) {
            if head.boot_id != later.boot_id || head.step_to(&later).is_some() {
                break;
            }
            later = head;
        }
        self.steady_from_ns = Some(later.boot_ns);
        Ok(())
    }

    /// Whether the clock was set since the last frame.
    fn notice(&mut self, now: Stamp) {
        let step: Option<Step> = self.last.and_then(|last| last.step_to(&now));
        if let Some(Step { by_ns, .. }) = step {
            tracing::warn!("the clock was set by {:.1} s", by_ns as f64 / 1e9);
            self.stats.clock_steps += 1;
        }
        let rebooted = self.last.is_some_and(|last| last.boot_id != now.boot_id);
        if step.is_some() || rebooted {
            self.steady_from_ns = None;
        }
        self.steady_from_ns.get_or_insert(now.boot_ns);
        self.last = Some(now);
    }

    /// Deletes what is older than is kept, while the clock is to be trusted.
    fn expire(&mut self, now: Stamp) -> Result<(), HistoryError> {
        let steady = self.steady_from_ns.is_some_and(|from| now.boot_ns.saturating_sub(from) >= STEADY_NS);
        if !steady {
            return Ok(());
        }
        let keep_ns = self.keep_ns;
        let too_old = |e: &Ended| e.summary.to_unix_ns.saturating_add(keep_ns) < now.unix_ns;
        while let Some(at) = self.ended.iter().position(too_old) {
            self.drop_segment(at)?;
        }
        Ok(())
    }

    /// Deletes the oldest until `bytes` more have room, and what ending the newest takes.
    fn make_room(&mut self, bytes: u64) -> Result<(), HistoryError> {
        let more = |store: &Self| {
            let entries = store.active.as_ref().map_or(0, |a| a.entries.len());
            let head = if store.active.is_none() { SegmentHeader::LEN as u64 } else { 0 };
            bytes + head + end_bytes(entries + 1)
        };
        while self.size_bytes() + more(self) > self.max_bytes {
            if self.ended.is_empty() {
                if self.active.is_none() {
                    break;
                }
                self.end();
            }
            self.drop_segment(0)?;
        }
        Ok(())
    }

    fn drop_segment(&mut self, at: usize) -> Result<(), HistoryError> {
        let Some(oldest) = self.ended.get(at) else { return Ok(()) };
        match fs::remove_file(&oldest.path) {
            // Someone else has deleted it already.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(HistoryError::file("delete", &oldest.path, e));
            }
            _ => {}
        }
        self.stats.dropped_segments += 1;
        self.stats.dropped_frames += u64::from(oldest.summary.entries);
        self.ended.remove(at);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.ended.iter().map(|e| e.bytes).sum::<u64>() + self.active.as_ref().map_or(0, |a| a.end)
    }

    /// Ends the newest segment when it is full, or old enough.
    fn end_if_due(&mut self, bytes: u64, now: Stamp) {
        let Some(active) = &self.active else { return };
        let Some(first) = active.entries.first() else { return };
        let full = active.end + bytes > self.segment_bytes || active.entries.len() >= MOST_ENTRIES;
        let age = now.unix_ns.abs_diff(first.head.start_unix_ns);
        if full || age > self.keep_ns / u64::from(AGE_PART) {
            self.end();
        }
    }

    /// Ends the newest segment with its index. Where that cannot be written the segment does without: it is read as a whole.
    fn end(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        let summary = Summary::of(&active.entries, active.damaged);
        let mut index = Vec::with_capacity(active.entries.len() * Entry::LEN);
        active.entries.iter().for_each(|entry| entry.encode(&mut index));
        let mut bytes = Vec::new();
        encode_frame(INDEX, DEFLATED, &index, &mut bytes);
        bytes.extend(Tail { index: active.end, summary }.encode());
        match active.put(&bytes, self.sync) {
            Ok(()) => active.end += bytes.len() as u64,
            Err(error) => tracing::debug!("a segment has no index: {error}"),
        }
        self.ended.push_back(Ended { path: active.path, bytes: active.end, summary });
    }

    /// Begins a segment.
    fn begin(&mut self) -> Result<Active, HistoryError> {
        let sequence = self.next_sequence;
        let path = segment_path(&self.dir, sequence);
        let header = SegmentHeader { version: SEGMENT_VERSION, sequence }.encode();
        let create = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&header)?;
            if self.sync {
                file.sync_all()?;
                File::open(&self.dir)?.sync_all()?;
            }
            Ok(file)
        };
        let file = create().map_err(|e: io::Error| {
            if e.kind() != io::ErrorKind::AlreadyExists {
                let _ = fs::remove_file(&path);
            }
            HistoryError::file("create", &path, e)
        })?;
        self.next_sequence = sequence.saturating_add(1);
        let end = header.len() as u64;
        Ok(Active { file, path, end, entries: Vec::new(), damaged: 0, dirty: false })
    }
}

impl Active {
    /// Writes at the end, whole or not at all.
    fn put(&mut self, bytes: &[u8], sync: bool) -> Result<(), HistoryError> {
        let failed = |path: &Path, e| HistoryError::file("write", path, e);
        if self.dirty {
            self.file.set_len(self.end).map_err(|e| failed(&self.path, e))?;
            self.dirty = false;
        }
        let write = || {
            self.file.write_all_at(bytes, self.end)?;
            if sync { self.file.sync_data() } else { Ok(()) }
        };
        write().map_err(|e| {
            self.dirty = self.file.set_len(self.end).is_err();
            failed(&self.path, e)
        })
    }
}

/// Held by the one process that writes.
fn lock(dir: &Path) -> Result<File, HistoryError> {
    let path = dir.join("lock");
    let failed = |e: io::Error| HistoryError::file("lock", &path, e);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Who it is, is told where it can be, no more.
            let _ = (&file).take(16).read_to_string(&mut text);
            return Err(HistoryError::Locked { dir: dir.to_owned(), holder: text.trim().parse().ok() });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    // On a full disk it is held all the same.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}
