//! What is written comes back; what is damaged never does.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

type Item = Result<Frame, ReadError>;

const LARGE: WriterOptions = WriterOptions { max_bytes_total: 1 << 30, max_file_bytes: 1 << 30 };

fn start() -> Vec<u8> {
    br#"{"hostname":"node-1"}"#.to_vec()
}

fn frames_of(payloads: &[(Kind, Vec<u8>)]) -> Vec<Frame> {
    payloads.iter().map(|(kind, p)| Frame { kind: *kind, payload: Bytes::from(p.clone()) }).collect()
}

/// Payloads that do not compress, that do, and that are empty.
fn small() -> Vec<(Kind, Vec<u8>)> {
    vec![
        (Kind::Start, start()),
        (Kind::Batch, (0..60).collect()),
        (Kind::Batch, vec![7; 500]),
        (Kind::Tick, Vec::new()),
        (Kind::Snapshot, b"{\"schema\":1,\"schema\":1,\"schema\":1,\"schema\":1}".to_vec()),
        (Kind::End, b"{}".to_vec()),
    ]
}

fn write(path: &Path, options: WriterOptions, payloads: &[(Kind, Vec<u8>)]) -> Stats {
    let mut writer = Writer::create(path, options).unwrap();
    for (kind, payload) in payloads {
        writer.frame(*kind, payload).unwrap();
    }
    writer.finish().unwrap()
}

fn small_file(dir: &TempDir) -> (PathBuf, Vec<u8>) {
    let path = dir.path().join("rec");
    write(&path, LARGE, &small());
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

fn split(items: impl Iterator<Item = Item>) -> (Vec<Frame>, Vec<ReadError>) {
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(frame) => frames.push(frame),
            Err(error) => errors.push(error),
        }
    }
    (frames, errors)
}

fn read(path: &Path) -> (Vec<Frame>, Vec<ReadError>) {
    split(Reader::open(path).unwrap())
}

fn damages(errors: &[ReadError]) -> Vec<Damage> {
    errors
        .iter()
        .map(|e| match e {
            ReadError::Damaged { damage, .. } => damage.clone(),
            other => panic!("{other}"),
        })
        .collect()
}

/// Whether `part` is `whole` with some frames left out.
fn is_subsequence(part: &[Frame], whole: &[Frame]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|frame| rest.any(|other| other == frame))
}

#[test]
fn frames_come_back_as_they_were() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = small_file(&dir);
    let (frames, errors) = read(&path);
    assert_eq!(frames, frames_of(&small()));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(bytes.len() < 350, "the 500 equal bytes are compressed: {}", bytes.len());
    assert_eq!(sniff(&path).unwrap(), FileKind::Recording);
}

#[test]
fn nobody_else_may_read_a_recording() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let (path, _) = small_file(&dir);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_cut_off_anywhere_yields_its_intact_part_and_one_error() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = small_file(&dir);
    let whole = frames_of(&small());
    let cut = dir.path().join("cut");
    for len in 0..bytes.len() {
        fs::write(&cut, &bytes[..len]).unwrap();
        let reader = match Reader::open(&cut) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(len < 52, "{len}: {error}");
                continue;
            }
        };
        let (frames, errors) = split(reader);
        assert_eq!(frames, whole[..frames.len()], "{len}");
        assert!(frames.len() < whole.len());
        let errors = damages(&errors);
        assert!(
            matches!(
                errors[..],
                [Damage::HeaderCutOff { .. }] | [Damage::PayloadCutOff { .. }] | [Damage::NoEnd]
            ),
            "{len}: {errors:?}"
        );
    }
    let (frames, _) = read(&path);
    assert_eq!(frames, whole, "and the whole one is whole");
}

#[test]
fn a_cut_names_its_place() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = small_file(&dir);
    fs::write(&path, &bytes[..80]).unwrap();
    let (_, errors) = read(&path);
    let text = errors[0].to_string();
    assert!(
        text.ends_with("is damaged at byte 52: cut off within a frame, after 12 of 21 payload bytes"),
        "{text}"
    );
    assert!(errors[0].is_damage());
}

#[test]
fn a_damaged_payload_costs_one_frame_and_a_damaged_header_the_rest() {
    let dir = TempDir::new().unwrap();
    let (path, mut bytes) = small_file(&dir);
    let whole = frames_of(&small());
    bytes[52 + 16] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (frames, errors) = read(&path);
    assert_eq!(frames, whole[1..]);
    assert_eq!(damages(&errors), [Damage::Checksum { len: 21 }]);
    bytes[52 + 16] ^= 1;
    bytes[52 + 16 + 21] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (frames, errors) = read(&path);
    assert_eq!(frames, whole[..1]);
    assert_eq!(damages(&errors), [Damage::HeaderChecksum]);
}

#[test]
fn forged_frames_are_refused_without_taking_memory() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = small_file(&dir);
    let forge = |len, kind, flags, raw_len, payload: &[u8]| {
        let mut forged = bytes[..52].to_vec();
        forged.extend_from_slice(&format::forged_frame(len, kind, flags, raw_len, payload));
        fs::write(&path, &forged).unwrap();
        let (frames, errors) = read(&path);
        assert!(frames.is_empty());
        damages(&errors).remove(0)
    };
    let above = MAX_PAYLOAD_BYTES as u32 + 1;
    assert_eq!(forge(above, 2, 0, above, b""), Damage::TooLarge { raw_len: above });
    assert_eq!(forge(4, 2, 1, u32::MAX, b"abcd"), Damage::TooLarge { raw_len: u32::MAX });
    assert_eq!(forge(u32::MAX, 2, 0, 9, b"abcd"), Damage::Length { len: u32::MAX, raw_len: 9 });
    assert_eq!(forge(4, 2, 1, 4, b"abcd"), Damage::Length { len: 4, raw_len: 4 });
    assert_eq!(forge(4, 9, 0, 4, b"abcd"), Damage::UnknownKind { kind: 9, flags: 0 });
    assert_eq!(forge(4, 2, 8, 4, b"abcd"), Damage::UnknownKind { kind: 2, flags: 8 });
    assert_eq!(forge(4, 2, 5, 9, b"abcd"), Damage::UnknownKind { kind: 2, flags: 5 }, "one or the other");
    assert_eq!(forge(4, 2, 1, 4000, b"abcd"), Damage::Unpack { raw_len: 4000 });
    assert_eq!(forge(4, 5, 4, 4000, b"abcd"), Damage::Unpack { raw_len: 4000 });
    assert_eq!(forge(1 << 20, 2, 0, 1 << 20, b"abcd"), Damage::PayloadCutOff { have: 4, want: 1 << 20 });
}

#[test]
fn another_file_or_version_is_named() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = small_file(&dir);
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Reader::open(&path).err().unwrap().to_string()
    };
    assert!(open(b"").ends_with("is not a recording: it is empty"));
    assert!(open(b" {\"schema\":1}").ends_with("is not a recording, but perhaps a JSON snapshot"));
    assert!(open(&[0x7F; 100]).ends_with("is not a recording"));
    assert!(open(&bytes[..5]).ends_with("is not a recording: it is cut off within its first 8 bytes"));
    let mut other = bytes.clone();
    other[8] = 9;
    assert!(open(&other).ends_with("has recording format 9; this nettrace reads format 1"));
    let mut other = bytes.clone();
    other[12] = 9;
    assert!(open(&other).ends_with("the file header's checksum is wrong; the file is skipped"));
    let header = format::FileHeader { wire: 77, ..format::FileHeader::new(1) };
    assert!(open(&header.encode()).contains("has wire version 77; this nettrace reads version"));
    assert!(matches!(Reader::open(&dir.path().join("none")), Err(ReadError::Io { .. })));
}

#[test]
fn kinds_of_files_are_told_apart() {
    assert_eq!(sniff_bytes(b""), FileKind::Empty);
    assert_eq!(sniff_bytes(b"\n\t {\"schema\""), FileKind::Snapshot);
    assert_eq!(sniff_bytes(b"\xEF\xBB\xBF{}"), FileKind::Snapshot);
    assert_eq!(sniff_bytes(b"[1]"), FileKind::Unknown);
    assert_eq!(sniff_bytes(b"\x89NTREC\n"), FileKind::Unknown, "line ends changed by a transfer as text");
}

#[test]
fn numbers_of_rotated_files_are_exact() {
    assert_eq!(sequence_of(b"rec", b"rec.12"), Some(12));
    for other in ["rec", "rec.", "rec.0", "rec.01", "rec.1x", "rec.+1", "rec1", "x.1", "rec.99999999999"] {
        assert_eq!(sequence_of(b"rec", other.as_bytes()), None, "{other}");
    }
}

/// Bytes that neither compress nor repeat (xorshift64).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    })
    .take(len)
    .collect()
}

fn batches(n: u64) -> Vec<(Kind, Vec<u8>)> {
    let mut payloads = vec![(Kind::Start, start())];
    payloads.extend((0..n).map(|i| (Kind::Batch, noise(i, 300))));
    payloads.push((Kind::End, b"{}".to_vec()));
    payloads
}

/// Bytes of all files of the recording in `dir`, by name.
fn sizes(dir: &TempDir) -> Vec<(String, u64)> {
    let mut sizes: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())
        })
        .collect();
    sizes.sort();
    sizes
}

const TIGHT: WriterOptions = WriterOptions { max_bytes_total: 5_000, max_file_bytes: 1_200 };

#[test]
fn rotation_keeps_within_its_bounds_and_says_what_it_dropped() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rec");
    let payloads = batches(100);
    let mut writer = Writer::create(&path, TIGHT).unwrap();
    for (kind, payload) in &payloads {
        writer.frame(*kind, payload).unwrap();
        let sizes = sizes(&dir);
        assert!(sizes.iter().all(|(_, n)| *n <= TIGHT.max_file_bytes), "{sizes:?}");
        assert!(sizes.iter().map(|(_, n)| n).sum::<u64>() <= TIGHT.max_bytes_total, "{sizes:?}");
    }
    let stats = writer.finish().unwrap();
    assert_eq!(stats.frames, 102);
    let sizes = sizes(&dir);
    assert_eq!(sizes.len() as u32, stats.files - stats.dropped_files);
    assert_eq!(sizes.iter().map(|(_, n)| n).sum::<u64>(), stats.file_bytes - stats.dropped_bytes);

    let reader = Reader::open(&path).unwrap();
    let dropped = reader.dropped();
    assert_eq!(dropped.files, stats.dropped_files);
    assert_eq!(dropped.frames, stats.dropped_frames);
    assert_eq!(dropped.bytes, stats.dropped_bytes);
    let (frames, errors) = split(reader);
    assert!(errors.is_empty(), "{errors:?}");
    let whole = frames_of(&payloads);
    // Start is dropped with its file; its copy comes first and once.
    assert_eq!(frames[0], whole[0]);
    assert_eq!(frames[1..], whole[stats.dropped_frames as usize..]);
    assert!(frames.len() > 8);
}

#[test]
fn every_rotated_file_can_be_read_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rec");
    write(&path, TIGHT, &batches(100));
    let whole = frames_of(&batches(100));
    for (sequence, rotated) in rotated_paths(&path).unwrap() {
        let (frames, errors) = read(&rotated);
        assert_eq!(frames[0], whole[0], "{sequence}");
        assert_eq!(frames.len(), 4);
        assert!(is_subsequence(&frames, &whole));
        assert_eq!(damages(&errors), [Damage::NoEnd]);
    }
}

#[test]
fn missing_and_damaged_rotated_files_are_reported_in_place() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rec");
    let stats = write(&path, TIGHT, &batches(100));
    let oldest = stats.dropped_files + 1;
    let newest = stats.files;
    let all = read(&path).0.len();
    // A whole frame gone from the end of the oldest leaves no broken frame behind.
    let first = rotated_path(&path, oldest);
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 316]).unwrap();
    let (frames, errors) = read(&path);
    assert_eq!(damages(&errors), [Damage::MissingFrames { frames: 1 }]);
    assert_eq!(frames.len(), all - 1);
    fs::remove_file(&first).unwrap();
    fs::write(rotated_path(&path, oldest + 1), b"something else").unwrap();
    let (frames, errors) = read(&path);
    let missing = Damage::MissingFiles { first: oldest, last: oldest };
    assert_eq!(errors.len(), 2);
    assert_eq!(damages(&errors[..1]), [missing]);
    assert!(matches!(errors[1], ReadError::NotARecording { .. }));
    assert_eq!(frames.len(), all - 6);
    // Only the newest left.
    for (_, rotated) in rotated_paths(&path).unwrap() {
        fs::remove_file(rotated).unwrap();
    }
    let (frames, errors) = read(&path);
    assert_eq!(damages(&errors), [Damage::MissingFiles { first: oldest, last: newest - 1 }]);
    assert_eq!(frames.last().unwrap().kind, Kind::End);
}

#[test]
fn a_new_recording_takes_the_place_of_an_older_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rec");
    write(&path, TIGHT, &batches(100));
    fs::write(dir.path().join("rec.77"), b"not ours").unwrap();
    write(&path, LARGE, &small());
    let names: Vec<_> = sizes(&dir).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["rec", "rec.77"]);
    assert_eq!(read(&path).0, frames_of(&small()));
}

#[test]
fn a_link_stays_a_link() {
    let dir = TempDir::new().unwrap();
    let (path, link) = (dir.path().join("rec"), dir.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    write(&link, TIGHT, &batches(100));
    assert!(link.is_symlink() && path.is_file() && !path.is_symlink());
    let (frames, errors) = read(&link);
    assert!(frames.len() > 8 && errors.is_empty());
}

fn kind_strategy() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Batch), Just(Kind::Tick), Just(Kind::Snapshot)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_come_back_through_any_rotation(
        payloads in prop::collection::vec((kind_strategy(), prop::collection::vec(any::<u8>(), 0..2_000)), 0..40),
        max_file_bytes in 256_u64..4_000,
    ) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("rec");
        let mut payloads = payloads;
        payloads.insert(0, (Kind::Start, start()));
        payloads.push((Kind::End, Vec::new()));
        write(&path, WriterOptions { max_bytes_total: 1 << 20, max_file_bytes }, &payloads);
        let (frames, errors) = read(&path);
        prop_assert_eq!(frames, frames_of(&payloads));
        prop_assert!(errors.is_empty());
    }

    #[test]
    fn flipped_bits_are_noticed_and_never_delivered(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..5),
    ) {
        let dir = TempDir::new().unwrap();
        let (path, original) = small_file(&dir);
        let mut bytes = original.clone();
        for (at, bit) in flips {
            bytes[at.index(original.len())] ^= 1 << bit;
        }
        prop_assume!(bytes != original);
        fs::write(&path, &bytes).unwrap();
        if let Ok(reader) = Reader::open(&path) {
            let (frames, errors) = split(reader);
            prop_assert!(is_subsequence(&frames, &frames_of(&small())));
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut file = format::FileHeader::new(1).encode().to_vec();
        file.extend(bytes);
        let items = FrameReader::new(Path::new("x"), &file[..]).unwrap().count();
        prop_assert!(items <= file.len() / 16 + 1);
    }
}
