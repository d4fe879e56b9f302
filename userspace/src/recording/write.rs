//! Writing a recording: buffered, within its size limits, and never in the way of the measurement.
//!
//! Needs a path and [`WriterOptions`]; yields files and [`Stats`]. The first failure (disk full, say) is returned
//! once with its cause, closes the writer, and what is handed over afterwards is counted as unwritten.

use super::format::{COPY, DEFLATED, FileHeader, FileKind, Kind, MAX_PAYLOAD_BYTES, encode_frame, sniff};
use super::{rotated_path, rotated_paths};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Bytes gathered before the kernel is called.
const BUFFER_BYTES: usize = 256 << 10;

/// How large a recording may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// All files together, bytes. Never exceeded.
    pub max_bytes_total: u64,
    /// One file, bytes; exceeded only by a single frame that is larger.
    pub max_file_bytes: u64,
}

/// What became of the frames handed to a [`Writer`]. Frames do not include the copies of Start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames written, those dropped later included.
    pub frames: u64,
    /// Their payloads, bytes.
    pub payload_bytes: u64,
    /// Bytes written to files, headers and copies included.
    pub file_bytes: u64,
    /// Files written.
    pub files: u32,
    /// Files deleted by rotation.
    pub dropped_files: u32,
    /// Frames deleted by rotation.
    pub dropped_frames: u64,
    /// Bytes of files deleted by rotation.
    pub dropped_bytes: u64,
    /// Frames that came after the writer was closed by an error, or that caused it.
    pub unwritten_frames: u64,
    /// Their payloads, bytes.
    pub unwritten_bytes: u64,
}

/// Why a recording could not be begun or a frame not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file could not be created.
    #[error("cannot create recording {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written. The writer is closed.
    #[error("cannot write recording {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A full file could not be renamed, or an old one not be deleted. The writer is closed.
    #[error("cannot rotate recording {}: {source}", path.display())]
    Rotate {
        /// The file to be renamed or deleted.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The limits contradict each other.
    #[error(
        "a recording of {} bytes cannot have files of {} bytes (at least {least})",
        options.max_bytes_total, options.max_file_bytes
    )]
    Limits {
        /// The limits.
        options: WriterOptions,
        /// The smallest file, bytes.
        least: u64,
    },
    /// A frame is too large for this recording. It is not written; the writer stays open.
    #[error("frame of {bytes} bytes is above the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of the payload, or of the stored frame when the limit is the recording's.
        bytes: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// Start is not the first frame, or comes again. It is not written; the writer stays open.
    #[error("frame {0:?} out of order: a recording has one Start, and it is the first frame")]
    Order(Kind),
    /// An earlier error closed the writer; the frame is counted as unwritten.
    #[error("the recording was closed by an earlier error")]
    Closed,
}

/// A file that is full.
struct Full {
    sequence: u32,
    bytes: u64,
    frames: u64,
}

/// Writes a recording.
pub struct Writer {
    path: PathBuf,
    options: WriterOptions,
    /// None once closed.
    file: Option<BufWriter<File>>,
    /// A device or pipe has no size and no predecessors.
    regular: bool,
    header: FileHeader,
    /// Bytes of the current file.
    file_bytes: u64,
    /// Frames in the current file, without copies.
    file_frames: u64,
    /// Earlier files that still exist, oldest first.
    full: VecDeque<Full>,
    /// The Start frame as it is repeated in later files; empty until Start was written.
    start: Vec<u8>,
    scratch: Vec<u8>,
    stats: Stats,
}

impl Writer {
    /// The smallest [`WriterOptions::max_file_bytes`].
    pub const LEAST_FILE_BYTES: u64 = 256;

    /// Begins a recording in place of an older one at the same path, whose rotated files are deleted. Only its owner
    /// may read it. A device or pipe takes everything and is never rotated.
    ///
    /// # Errors
    /// When the limits contradict each other or the file cannot be created or written.
    pub fn create(path: &Path, options: WriterOptions) -> Result<Self, WriteError> {
        let least = Self::LEAST_FILE_BYTES;
        if options.max_file_bytes < least || options.max_file_bytes > options.max_bytes_total {
            return Err(WriteError::Limits { options, least });
        }
        let failed = |source| WriteError::Create { path: path.to_owned(), source };
        let file = open(path).map_err(failed)?;
        let regular = file.metadata().map_err(failed)?.is_file();
        // Rotation renames: were the path a link, the link would move and not the file.
        let path = fs::canonicalize(path).map_err(failed)?;
        if regular {
            delete_predecessors(&path)?;
        }
        let mut writer = Self {
            path,
            options,
            file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)),
            regular,
            header: FileHeader::new(random_id()),
            file_bytes: 0,
            file_frames: 0,
            full: VecDeque::new(),
            start: Vec::new(),
            scratch: Vec::new(),
            stats: Stats::default(),
        };
        writer.begin_file()?;
        // A path that takes nothing at all is better known before the measurement than after it.
        writer.flush()?;
        Ok(writer)
    }

    /// Writes one frame. [`Kind::Tick`] also hands all that is buffered to the kernel, so that a killed process
    /// loses no more than what came after the last one.
    ///
    /// # Errors
    /// [`WriteError::Order`] and [`WriteError::TooLarge`] refuse this frame only; every other error closes the
    /// writer, and is [`WriteError::Closed`] from then on.
    pub fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        let result = self.try_frame(kind, payload);
        match result {
            Ok(()) => {
                self.stats.frames += 1;
                self.stats.payload_bytes += payload.len() as u64;
            }
            Err(_) => {
                self.stats.unwritten_frames += 1;
                self.stats.unwritten_bytes += payload.len() as u64;
            }
        }
        result
    }

    /// Hands everything to the disk and ends the recording. The caller has written [`Kind::End`].
    ///
    /// # Errors
    /// When the disk did not take it, or an earlier error closed the writer.
    pub fn finish(mut self) -> Result<Stats, WriteError> {
        self.flush()?;
        let file = self.file.take().ok_or(WriteError::Closed)?;
        match file.get_ref().sync_all() {
            // A device or pipe cannot be synced.
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => self.closed(e),
            _ => Ok(self.stats),
        }
    }

    /// Whether frames are still being written.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// What became of the frames so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn try_frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        if self.file.is_none() {
            return Err(WriteError::Closed);
        }
        if (kind == Kind::Start) != self.start.is_empty() {
            return Err(WriteError::Order(kind));
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(WriteError::TooLarge {
                bytes: payload.len() as u64,
                limit: MAX_PAYLOAD_BYTES as u64,
            });
        }
        let mut frame = std::mem::take(&mut self.scratch);
        let packing = if kind == Kind::Snapshot { DEFLATED } else { 0 };
        encode_frame(kind as u8, packing, payload, &mut frame);
        let written = self.make_room(frame.len() as u64).and_then(|()| self.put(&frame));
        self.scratch = frame;
        written?;
        self.file_frames += 1;
        match kind {
            Kind::Start => encode_frame(kind as u8, COPY, payload, &mut self.start),
            Kind::Tick => self.flush()?,
            Kind::Batch | Kind::End | Kind::Snapshot => {}
        }
        Ok(())
    }

    /// Rotates when the current file has no room for `bytes` more.
    fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        if !self.regular || self.file_bytes + bytes <= self.options.max_file_bytes {
            return Ok(());
        }
        let head = FileHeader::LEN as u64 + self.start.len() as u64;
        if head + bytes > self.options.max_bytes_total {
            return Err(WriteError::TooLarge { bytes: head + bytes, limit: self.options.max_bytes_total });
        }
        if self.start.is_empty() {
            // Nothing is there yet that could be rotated: Start alone is larger than a file should be.
            return Ok(());
        }
        self.rotate(self.options.max_file_bytes.max(head + bytes))
    }

    /// Puts the current file aside and begins the next one, deleting the oldest until `reserve` bytes are free.
    fn rotate(&mut self, reserve: u64) -> Result<(), WriteError> {
        self.flush()?;
        self.file = None;
        let aside = rotated_path(&self.path, self.header.sequence);
        fs::rename(&self.path, &aside)
            .map_err(|source| WriteError::Rotate { path: self.path.clone(), source })?;
        self.full.push_back(Full {
            sequence: self.header.sequence,
            bytes: self.file_bytes,
            frames: self.file_frames,
        });
        let mut total: u64 = self.full.iter().map(|f| f.bytes).sum();
        while total + reserve > self.options.max_bytes_total {
            let Some(oldest) = self.full.pop_front() else { break };
            let path = rotated_path(&self.path, oldest.sequence);
            match fs::remove_file(&path) {
                // Someone else has deleted it already.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(WriteError::Rotate { path, source }),
                Ok(()) => {}
            }
            total -= oldest.bytes;
            self.stats.dropped_files += 1;
            self.stats.dropped_frames += oldest.frames;
            self.stats.dropped_bytes += oldest.bytes;
        }
        self.header.sequence += 1;
        self.header.oldest = self.full.front().map_or(self.header.sequence, |f| f.sequence);
        self.header.frames_before += self.file_frames;
        self.header.bytes_before += self.file_bytes;
        self.file_bytes = 0;
        self.file_frames = 0;
        let file =
            open(&self.path).map_err(|source| WriteError::Create { path: self.path.clone(), source })?;
        self.file = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        self.begin_file()?;
        // A process that is killed now leaves an empty file otherwise, by which nobody finds the full ones.
        self.flush()
    }

    /// Writes what every file begins with.
    fn begin_file(&mut self) -> Result<(), WriteError> {
        self.stats.files += 1;
        self.put(&self.header.encode())?;
        let start = std::mem::take(&mut self.start);
        let written = self.put(&start);
        self.start = start;
        written
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let file = self.file.as_mut().ok_or(WriteError::Closed)?;
        match file.write_all(bytes) {
            Ok(()) => {
                self.file_bytes += bytes.len() as u64;
                self.stats.file_bytes += bytes.len() as u64;
                Ok(())
            }
            Err(e) => self.closed(e),
        }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        match self.file.as_mut().ok_or(WriteError::Closed)?.flush() {
            Ok(()) => Ok(()),
            Err(e) => self.closed(e),
        }
    }

    /// Closes the file without another attempt at what is still in its buffer.
    fn closed<T>(&mut self, source: io::Error) -> Result<T, WriteError> {
        if let Some(file) = self.file.take() {
            let (_file, _unwritten) = file.into_parts();
        }
        Err(WriteError::Write { path: self.path.clone(), source })
    }
}

/// Creates or empties a file. A recording names hosts and their traffic: only its owner may read it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Deletes the rotated files of an older recording at `path`, and nothing that is not a recording.
fn delete_predecessors(path: &Path) -> Result<(), WriteError> {
    let failed = |path: &Path, source| WriteError::Rotate { path: path.to_owned(), source };
    for (_, old) in rotated_paths(path).map_err(|e| failed(path, e))? {
        if sniff(&old).is_ok_and(|kind| kind == FileKind::Recording) {
            fs::remove_file(&old).map_err(|e| failed(&old, e))?;
        }
    }
    Ok(())
}

/// A number that no other recording has: the standard library seeds its hashers from the kernel's random numbers.
fn random_id() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    const OPTIONS: WriterOptions = WriterOptions { max_bytes_total: 10_000, max_file_bytes: 10_000 };

    fn full_device() -> BufWriter<File> {
        BufWriter::new(OpenOptions::new().write(true).open("/dev/full").unwrap())
    }

    #[test]
    fn a_full_disk_is_known_at_once() {
        let error = Writer::create(Path::new("/dev/full"), OPTIONS).err().unwrap();
        assert!(
            matches!(&error, WriteError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
    }

    #[test]
    fn a_disk_that_becomes_full_is_told_once_and_the_rest_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&dir.path().join("rec"), OPTIONS).unwrap();
        writer.frame(Kind::Start, b"{}").unwrap();
        writer.file = Some(full_device());
        let first = writer.frame(Kind::Tick, b"12345");
        assert!(matches!(first, Err(WriteError::Write { .. })), "{first:?}");
        assert!(!writer.is_open());
        assert!(matches!(writer.frame(Kind::Batch, b"123"), Err(WriteError::Closed)));
        let stats = writer.stats();
        assert_eq!((stats.frames, stats.unwritten_frames, stats.unwritten_bytes), (1, 2, 8));
        assert!(matches!(writer.finish(), Err(WriteError::Closed)));
    }

    #[test]
    fn what_only_the_last_flush_finds_out_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&dir.path().join("rec"), OPTIONS).unwrap();
        writer.file = Some(full_device());
        writer.frame(Kind::Start, b"{}").unwrap();
        assert!(matches!(writer.finish(), Err(WriteError::Write { .. })));
    }

    #[test]
    fn a_device_takes_everything_and_is_not_rotated() {
        let mut writer = Writer::create(Path::new("/dev/null"), OPTIONS).unwrap();
        writer.frame(Kind::Start, b"{}").unwrap();
        for i in 0..100 {
            writer.frame(Kind::Batch, &noise(i, 500)).unwrap();
        }
        let stats = writer.finish().unwrap();
        assert!(stats.file_bytes > 2 * OPTIONS.max_bytes_total && stats.files == 1);
    }

    #[test]
    fn what_does_not_belong_is_refused_and_the_writer_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&dir.path().join("rec"), OPTIONS).unwrap();
        assert!(matches!(writer.frame(Kind::Batch, b"x"), Err(WriteError::Order(Kind::Batch))));
        writer.frame(Kind::Start, b"{}").unwrap();
        assert!(matches!(writer.frame(Kind::Start, b"{}"), Err(WriteError::Order(Kind::Start))));
        let large = vec![0; MAX_PAYLOAD_BYTES + 1];
        assert!(matches!(writer.frame(Kind::Batch, &large), Err(WriteError::TooLarge { .. })));
        assert!(matches!(
            writer.frame(Kind::Batch, &noise(0, 10_000)),
            Err(WriteError::TooLarge { limit: 10_000, .. })
        ));
        writer.frame(Kind::End, b"{}").unwrap();
        assert_eq!(writer.finish().unwrap().unwritten_frames, 4);
    }

    #[test]
    fn a_writer_that_is_killed_leaves_files_that_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rec");
        let options = WriterOptions { max_file_bytes: 1_000, ..OPTIONS };
        let mut writer = Writer::create(&path, options).unwrap();
        writer.frame(Kind::Start, b"{}").unwrap();
        for i in 0..5 {
            writer.frame(Kind::Batch, &noise(i, 700)).unwrap();
            assert_eq!(sniff(&path).unwrap(), FileKind::Recording, "after {i} frames");
        }
        assert!(writer.stats().files > 1);
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (total, file) in [(100, 100), (1_000, 2_000)] {
            let options = WriterOptions { max_bytes_total: total, max_file_bytes: file };
            let result = Writer::create(Path::new("/dev/null"), options);
            assert!(matches!(result, Err(WriteError::Limits { .. })));
        }
    }
}
