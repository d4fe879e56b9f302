//! Reading a recording: whatever is intact, in order, and an error for everything that is not.
//!
//! Needs a path (or, for one file, any reader); yields frames and [`ReadError`]s. It trusts nothing: memory is
//! bounded by [`MAX_PAYLOAD_BYTES`] and by what the file really holds, and no payload is delivered whose checksum is
//! wrong. When only a payload is damaged, reading goes on with the next frame; when a frame's header is, its length
//! cannot be trusted, and reading goes on with the next file.

use super::format::{
    COMPRESSED, COPY, DEFLATED, FORMAT_VERSION, FileHeader, FileKind, FrameHeader, Kind, MAGIC,
    MAX_PAYLOAD_BYTES, sniff_bytes, sums_agree,
};
use super::{rotated_path, rotated_paths};
use bytes::Bytes;
use nettrace_common::WIRE_VERSION;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// One frame, as it was handed to the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Bytes,
}

/// What rotation deleted before the first frame that is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Files.
    pub files: u32,
    /// Frames.
    pub frames: u64,
    /// Bytes of those files.
    pub bytes: u64,
}

/// Why a recording, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file could not be opened or read.
    #[error("cannot read {} at byte {offset}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How far reading had come, bytes.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Another kind of file.
    #[error("{} is not a recording{}", path.display(), match found {
        FileKind::Empty => ": it is empty",
        FileKind::Snapshot => ", but perhaps a JSON snapshot",
        FileKind::Recording => ": it is cut off within its first 8 bytes",
        FileKind::Unknown => "",
    })]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: FileKind,
    },
    /// Written by a nettrace with another file layout.
    #[error("{} has recording format {found}; this nettrace reads format {FORMAT_VERSION}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// Written by a nettrace with other ring records.
    #[error("{} has wire version {found}; this nettrace reads version {WIRE_VERSION}", path.display())]
    Wire {
        /// The file.
        path: PathBuf,
        /// Its wire version.
        found: u32,
    },
    /// Something is damaged or missing; what comes after this error is intact again.
    #[error("{} is damaged at byte {offset}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins, bytes.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
}

/// What is wrong with a part of a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends within its header.
    #[error("cut off within the file header, after {have} of {} bytes", FileHeader::LEN)]
    FileHeaderCutOff {
        /// Bytes that are there.
        have: usize,
    },
    /// The file header's checksum is wrong; the file is skipped.
    #[error("the file header's checksum is wrong; the file is skipped")]
    FileHeaderChecksum,
    /// The file ends within a frame header.
    #[error("cut off within a frame header, after {have} of {} bytes", FrameHeader::LEN)]
    HeaderCutOff {
        /// Bytes that are there.
        have: usize,
    },
    /// The file ends within a payload.
    #[error("cut off within a frame, after {have} of {want} payload bytes")]
    PayloadCutOff {
        /// Bytes that are there.
        have: u64,
        /// Bytes that the header names.
        want: u64,
    },
    /// A frame header's own check is wrong, so its length cannot be trusted; the rest of the file is skipped.
    #[error("a frame header's checksum is wrong; the rest of the file is skipped")]
    HeaderChecksum,
    /// A frame's checksum is wrong; the frame is skipped.
    #[error("a frame's checksum is wrong; its {len} payload bytes are skipped")]
    Checksum {
        /// Bytes of the payload as stored.
        len: u32,
    },
    /// A frame is larger than any that is written; it is skipped.
    #[error("a frame of {raw_len} bytes is above the limit of {MAX_PAYLOAD_BYTES}; it is skipped")]
    TooLarge {
        /// Bytes of the payload.
        raw_len: u32,
    },
    /// A frame's two lengths contradict each other; it is skipped.
    #[error("a frame of {raw_len} bytes cannot be stored in {len}; it is skipped")]
    Length {
        /// Bytes of the payload as stored.
        len: u32,
        /// Bytes of the payload.
        raw_len: u32,
    },
    /// A frame of a kind or with flags that this version does not have; it is skipped.
    #[error("a frame of unknown kind {kind}, flags {flags:#04x}; it is skipped")]
    UnknownKind {
        /// Its kind.
        kind: u8,
        /// Its flags.
        flags: u8,
    },
    /// A frame that cannot be decompressed; it is skipped.
    #[error("a frame cannot be decompressed to {raw_len} bytes; it is skipped")]
    Unpack {
        /// Bytes of the payload.
        raw_len: u32,
    },
    /// Rotated files that should be there are not.
    #[error("file {first} to {last} of this recording are missing")]
    MissingFiles {
        /// The first that is missing.
        first: u32,
        /// The last that is missing.
        last: u32,
    },
    /// A file ends between two frames, but before its last one.
    #[error("{frames} frames are missing at the end")]
    MissingFrames {
        /// How many.
        frames: u64,
    },
    /// The recording stops without its End frame: its writer was killed or its disk was full.
    #[error("the recording stops here, without its end")]
    NoEnd,
}

impl ReadError {
    /// Whether it concerns a part only, so that a report of the rest makes sense.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// Reads the frames of one file, copies of Start included.
pub struct FrameReader<R> {
    path: PathBuf,
    input: R,
    header: FileHeader,
    /// Bytes read and understood or skipped.
    offset: u64,
    /// Frames passed, damaged ones included, copies excluded.
    frames: u64,
    /// Whether anything was wrong.
    damaged: bool,
    /// Whether nothing more will come.
    done: bool,
    /// Whether that is for an error, which says already that the rest is lost.
    lost: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads the file header from `input`; `path` is its name in errors.
    ///
    /// # Errors
    /// When it is not a recording of this version.
    pub fn new(path: &Path, mut input: R) -> Result<Self, ReadError> {
        let path = path.to_owned();
        let mut bytes = [0; FileHeader::LEN];
        let have = match read_full(&mut input, &mut bytes) {
            Ok(have) => have,
            Err(source) => return Err(ReadError::Io { path, offset: 0, source }),
        };
        let head = &bytes[..have];
        if !head.starts_with(&MAGIC) {
            let cut_off = have > 0 && MAGIC.starts_with(head);
            let found = if cut_off { FileKind::Recording } else { sniff_bytes(head) };
            return Err(ReadError::NotARecording { path, found });
        }
        let damaged = |path, damage| Err(ReadError::Damaged { path, offset: 0, damage });
        let (header, intact) = FileHeader::decode(&bytes);
        // The version comes first: another one may have another header.
        if have >= 12 && header.format != FORMAT_VERSION {
            return Err(ReadError::Format { path, found: header.format });
        }
        if have < FileHeader::LEN {
            return damaged(path, Damage::FileHeaderCutOff { have });
        }
        if !intact {
            return damaged(path, Damage::FileHeaderChecksum);
        }
        if header.wire != WIRE_VERSION {
            return Err(ReadError::Wire { path, found: header.wire });
        }
        Ok(Self {
            path,
            input,
            header,
            offset: FileHeader::LEN as u64,
            frames: 0,
            damaged: false,
            done: false,
            lost: false,
        })
    }

    /// The next frame and whether it is a copy; none at the end of the file.
    fn next_frame(&mut self) -> Option<Result<(Frame, bool), ReadError>> {
        if self.done {
            return None;
        }
        let begin = self.offset;
        let mut bytes = [0; FrameHeader::LEN];
        match read_full(&mut self.input, &mut bytes) {
            Ok(0) => {
                self.done = true;
                return None;
            }
            Ok(FrameHeader::LEN) => {}
            Ok(have) => return Some(self.stop(begin, Damage::HeaderCutOff { have })),
            Err(e) => return Some(self.broken(e)),
        }
        let Some((header, crc)) = FrameHeader::decode(&bytes) else {
            return Some(self.stop(begin, Damage::HeaderChecksum));
        };
        self.offset += FrameHeader::LEN as u64;
        self.frames += u64::from(header.flags & COPY == 0);
        Some(match plausible(header) {
            Ok(kind) => self.payload(begin, header, crc, kind),
            Err(damage) => self.skip(begin, header.len, damage),
        })
    }

    /// Reads, checks and decompresses the payload that follows.
    fn payload(
        &mut self,
        begin: u64,
        header: FrameHeader,
        crc: u32,
        kind: Kind,
    ) -> Result<(Frame, bool), ReadError> {
        let mut stored = Vec::new();
        let want = u64::from(header.len);
        // The buffer grows with what is really there, so that a forged length costs nothing.
        if let Err(e) = self.input.by_ref().take(want).read_to_end(&mut stored) {
            return self.broken(e);
        }
        let have = stored.len() as u64;
        if have < want {
            return self.stop(begin, Damage::PayloadCutOff { have, want });
        }
        self.offset += want;
        if !sums_agree(header.crc32(&stored), crc) {
            return self.damage(begin, Damage::Checksum { len: header.len });
        }
        let Some(payload) = header.unpack(stored) else {
            return self.damage(begin, Damage::Unpack { raw_len: header.raw_len });
        };
        Ok((Frame { kind, payload: payload.into() }, header.flags & COPY != 0))
    }

    /// Passes over a payload without keeping it.
    fn skip<T>(&mut self, begin: u64, len: u32, damage: Damage) -> Result<T, ReadError> {
        match io::copy(&mut self.input.by_ref().take(u64::from(len)), &mut io::sink()) {
            Ok(skipped) => self.offset += skipped,
            Err(e) => return self.broken(e),
        }
        self.damage(begin, damage)
    }

    fn damage<T>(&mut self, offset: u64, damage: Damage) -> Result<T, ReadError> {
        self.damaged = true;
        Err(ReadError::Damaged { path: self.path.clone(), offset, damage })
    }

    /// Damage after which nothing in this file can be trusted.
    fn stop<T>(&mut self, offset: u64, damage: Damage) -> Result<T, ReadError> {
        self.done = true;
        self.lost = true;
        self.damage(offset, damage)
    }

    fn broken<T>(&mut self, source: io::Error) -> Result<T, ReadError> {
        self.done = true;
        self.lost = true;
        self.damaged = true;
        Err(ReadError::Io { path: self.path.clone(), offset: self.offset, source })
    }
}

impl<R: Read> Iterator for FrameReader<R> {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_frame().map(|r| r.map(|(frame, _)| frame))
    }
}

/// One file of a recording that waits to be read.
struct Waiting {
    header: FileHeader,
    path: PathBuf,
}

/// Reads a recording, rotated files included.
pub struct Reader {
    waiting: VecDeque<Waiting>,
    current: Option<FrameReader<BufReader<File>>>,
    /// Errors that come before the next frame.
    errors: VecDeque<ReadError>,
    dropped: Dropped,
    seen_start: bool,
    seen_end: bool,
}

impl Reader {
    /// Opens the recording at `path` and finds its rotated files. A rotated file that is named itself, `FILE.3`, is
    /// read alone.
    ///
    /// # Errors
    /// When the file cannot be read or is not a recording of this version. What is wrong with its predecessors comes
    /// out of the iterator instead.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), offset: 0, source };
        let path = fs::canonicalize(path).map_err(failed)?;
        let newest = open_file(&path)?.header;
        let mut reader = Self {
            waiting: VecDeque::new(),
            current: None,
            errors: VecDeque::new(),
            dropped: Dropped::default(),
            seen_start: false,
            seen_end: false,
        };
        if !is_rotated(&path, newest.sequence) {
            reader.find_predecessors(&path, newest);
        }
        reader.waiting.push_back(Waiting { header: newest, path });
        if let Some(Waiting { header, .. }) = reader.waiting.front() {
            reader.dropped = Dropped {
                files: header.sequence.saturating_sub(1),
                frames: header.frames_before,
                bytes: header.bytes_before,
            };
        }
        Ok(reader)
    }

    /// What is no longer there of the recording's beginning.
    #[must_use]
    pub const fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn find_predecessors(&mut self, path: &Path, newest: FileHeader) {
        let candidates = match rotated_paths(path) {
            Ok(candidates) => candidates,
            Err(source) => {
                self.errors.push_back(ReadError::Io { path: path.to_owned(), offset: 0, source });
                return;
            }
        };
        let mut expected = newest.oldest;
        for (sequence, path) in candidates {
            if sequence < expected || sequence >= newest.sequence {
                continue;
            }
            match open_file(&path) {
                Ok(file) if file.header.id == newest.id && file.header.sequence == sequence => {
                    self.report_gap(&path, expected, sequence);
                    expected = sequence + 1;
                    self.waiting.push_back(Waiting { header: file.header, path });
                }
                // Another recording's, or no recording: then it leaves a gap.
                Ok(_) => {}
                Err(error) => {
                    self.report_gap(&path, expected, sequence);
                    expected = sequence + 1;
                    self.errors.push_back(error);
                }
            }
        }
        self.report_gap(path, expected, newest.sequence);
    }

    /// Reports the files from `expected` up to, but not with, `found`.
    fn report_gap(&mut self, path: &Path, expected: u32, found: u32) {
        if expected < found {
            let damage = Damage::MissingFiles { first: expected, last: found - 1 };
            self.errors.push_back(ReadError::Damaged { path: path.to_owned(), offset: 0, damage });
        }
    }

    /// Opens the next file; false when there is none.
    fn next_file(&mut self) -> bool {
        let Some(Waiting { path, .. }) = self.waiting.pop_front() else { return false };
        match open_file(&path) {
            Ok(file) => self.current = Some(file),
            Err(error) => self.errors.push_back(error),
        }
        true
    }

    /// What is missing after the last frame of a file.
    fn at_file_end(&mut self, file: &FrameReader<BufReader<File>>) {
        let damage = match self.waiting.front() {
            // The next file says how many frames come before it, unless one between them is missing.
            Some(next) if next.header.sequence == file.header.sequence.saturating_add(1) => {
                let passed = file.header.frames_before.saturating_add(file.frames);
                let missing = next.header.frames_before.saturating_sub(passed);
                (missing > 0 && !file.damaged).then_some(Damage::MissingFrames { frames: missing })
            }
            Some(_) => None,
            None => (!self.seen_end && !file.lost).then_some(Damage::NoEnd),
        };
        if let Some(damage) = damage {
            self.errors.push_back(ReadError::Damaged {
                path: file.path.clone(),
                offset: file.offset,
                damage,
            });
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(error) = self.errors.pop_front() {
                return Some(Err(error));
            }
            let Some(mut file) = self.current.take() else {
                if self.next_file() {
                    continue;
                }
                return None;
            };
            let Some(result) = file.next_frame() else {
                self.at_file_end(&file);
                continue;
            };
            self.current = Some(file);
            match result {
                // The first Start counts, copy or not; later copies say nothing new.
                Ok((_, true)) if self.seen_start => {}
                Ok((frame, _)) => {
                    self.seen_start |= frame.kind == Kind::Start;
                    self.seen_end |= frame.kind == Kind::End;
                    return Some(Ok(frame));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The kind of a frame whose header makes sense.
fn plausible(header: FrameHeader) -> Result<Kind, Damage> {
    let FrameHeader { len, kind, flags, raw_len } = header;
    let both = COMPRESSED | DEFLATED;
    let known = Kind::from_u8(kind).filter(|_| flags & !(both | COPY) == 0 && flags & both != both);
    let Some(known) = known else { return Err(Damage::UnknownKind { kind, flags }) };
    if raw_len as usize > MAX_PAYLOAD_BYTES {
        return Err(Damage::TooLarge { raw_len });
    }
    if header.lengths_fit() { Ok(known) } else { Err(Damage::Length { len, raw_len }) }
}

fn open_file(path: &Path) -> Result<FrameReader<BufReader<File>>, ReadError> {
    let file =
        File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), offset: 0, source })?;
    FrameReader::new(path, BufReader::with_capacity(256 << 10, file))
}

/// Whether a file bears the name that rotation gave it.
fn is_rotated(path: &Path, sequence: u32) -> bool {
    path.extension().is_some() && rotated_path(&path.with_extension(""), sequence) == path
}

/// Fills `buf` as far as the input reaches.
fn read_full(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match input.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
