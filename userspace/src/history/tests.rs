//! What was kept is found again, whatever happened to the files, the disk and the clock.

use super::{format::SegmentHeader, read::Segment, *};
use crate::{
    recording::format::FrameHeader,
    snapshot::{Hist, Snapshot, sample},
};
use nettrace_common::Signal;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

pub(super) const S: u64 = 1_000_000_000;
pub(super) const MINUTE: u64 = 60 * S;
pub(super) const T0: u64 = 1_767_225_600 * S;
pub(super) const HOUR: u64 = 60 * MINUTE;

fn config(dir: &TempDir) -> HistoryConfig {
    HistoryConfig { dir: dir.path().join("history"), ..HistoryConfig::default() }
}

/// A minute's snapshot, told from others by its number of DNS transactions.
pub(super) fn minute(start_unix_ns: u64, transactions: u64) -> Snapshot {
    let mut snapshot = sample::empty();
    snapshot.meta.start_unix_ns = start_unix_ns;
    snapshot.meta.duration_ns = MINUTE;
    snapshot.dns.transactions = transactions;
    snapshot
}

/// When a minute that began then is written, in a boot that began an hour before [`T0`].
pub(super) fn after(start_unix_ns: u64) -> Stamp {
    let unix_ns = start_unix_ns + MINUTE;
    Stamp { unix_ns, boot_ns: unix_ns - T0 + HOUR, boot_id: [1; 16] }
}

/// A store whose frames need not be on disk at once: tests write thousands.
pub(super) fn open(config: &HistoryConfig) -> Store {
    let mut store = Store::open(config).unwrap();
    store.sync = false;
    store
}

/// Minutes one after another from [`T0`] on, numbered.
pub(super) fn fill(store: &mut Store, minutes: std::ops::Range<u64>) {
    for n in minutes {
        let start = T0 + n * MINUTE;
        store.append_at(&minute(start, n), after(start)).unwrap();
    }
}

/// The numbers of the minutes that a window finds.
fn numbers(dir: &Path, range: Range) -> Vec<u64> {
    let mut numbers = Vec::new();
    each(dir, range, |_, snapshot| numbers.push(snapshot.dns.transactions)).unwrap();
    numbers
}

fn window(from: u64, to: u64) -> Range {
    Range { from_unix_ns: T0 + from * MINUTE, to_unix_ns: T0 + to * MINUTE }
}

/// The one segment there is.
fn only_segment(config: &HistoryConfig) -> PathBuf {
    let mut paths = segment_paths(&config.dir).unwrap();
    assert_eq!(paths.len(), 1);
    paths.remove(0).1
}

#[test]
fn what_was_written_is_found_and_merged() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    let mut rich = sample::rich();
    for n in 0..3 {
        (rich.meta.start_unix_ns, rich.meta.duration_ns) = (T0 + n * MINUTE, MINUTE);
        store.append_at(&rich, after(rich.meta.start_unix_ns)).unwrap();
    }
    let found = read(&config.dir, window(1, 3)).unwrap();
    assert_eq!((found.frames, found.damaged, found.covered_ns), (2, 0, 2 * MINUTE));
    assert_eq!((found.from_unix_ns, found.to_unix_ns), (T0 + MINUTE, T0 + 3 * MINUTE));
    assert!(found.gaps.is_empty() && found.steps.is_empty());
    let (merged, count) =
        (found.snapshot.unwrap(), |s: &Snapshot| s.signal(Signal::RxTotal).unwrap().hist.count());
    assert_eq!(count(&merged), 2 * count(&rich));
    assert_eq!(merged.dns.transactions, 2 * rich.dns.transactions);
    // One alone is what it was.
    let found = read(&config.dir, window(2, 3)).unwrap();
    assert_eq!(found.snapshot, Some(rich));
    assert_eq!(read(&config.dir, window(3, 9)).unwrap().snapshot, None);
}

#[test]
fn frames_that_a_window_touches_are_in_it_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    fill(&mut open(&config), 0..10);
    let second = |from: u64, to: u64| Range { from_unix_ns: T0 + from * S, to_unix_ns: T0 + to * S };
    assert_eq!(numbers(&config.dir, second(59, 61)), [0, 1]);
    assert_eq!(numbers(&config.dir, second(60, 120)), [1]);
    assert_eq!(numbers(&config.dir, Range::ALL), (0..10).collect::<Vec<_>>());
    assert_eq!(heads(&config.dir, second(60, 120)).unwrap().len(), 1);
}

#[test]
fn it_goes_on_where_it_ended() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    for n in 0..4 {
        fill(&mut open(&config), 5 * n..5 * n + 5);
    }
    assert_eq!(numbers(&config.dir, Range::ALL), (0..20).collect::<Vec<_>>());
    assert_eq!(only_segment(&config).file_name().unwrap(), "0000000001.seg");
    let stats = open(&config).stats();
    assert_eq!((stats.frames, stats.cut_bytes, stats.damaged, stats.written), (20, 0, 0, 0));
    assert_eq!((stats.from_unix_ns, stats.to_unix_ns), (Some(T0), Some(T0 + 20 * MINUTE)));
}

#[test]
fn nobody_else_may_read_it_and_one_process_writes() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    fill(&mut store, 0..1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&config.dir), mode(&only_segment(&config))), (0o700, 0o600));
    let error = Store::open(&config).err().unwrap();
    let us = Some(std::process::id());
    assert!(matches!(&error, HistoryError::Locked { holder, .. } if *holder == us), "{error}");
    // Reading is beside it.
    assert_eq!(numbers(&config.dir, Range::ALL), [0]);
    drop(store);
    Store::open(&config).unwrap();
}

#[test]
fn a_frame_torn_at_any_byte_is_cut_and_nothing_before_it_is_lost() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    fill(&mut open(&config), 0..4);
    let path = only_segment(&config);
    let whole = fs::read(&path).unwrap();
    let last = {
        let entries = Segment::open(&path).unwrap().entries().unwrap();
        entries.last().unwrap().offset as usize
    };
    for len in last..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(numbers(&config.dir, Range::ALL), [0, 1, 2], "a reader beside it, {len}");
        let mut store = open(&config);
        let stats = store.stats();
        assert_eq!((stats.frames, stats.damaged), (3, 0), "{len}");
        assert_eq!(stats.cut_bytes, (len - last) as u64);
        assert_eq!(fs::metadata(&path).unwrap().len(), last as u64);
        fill(&mut store, 3..4);
        assert_eq!(fs::read(&path).unwrap(), whole, "{len}");
    }
    // What a lost sector leaves: the length is there, the bytes are not.
    let mut zeroed = whole.clone();
    zeroed[last + 20..].fill(0);
    fs::write(&path, &zeroed).unwrap();
    assert_eq!(open(&config).stats().frames, 3);
    assert_eq!(fs::metadata(&path).unwrap().len(), last as u64);
}

#[test]
fn a_segment_of_which_hardly_anything_was_written_is_no_obstacle() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    fill(&mut open(&config), 0..2);
    for (n, len) in (2..).zip([0, 1, SegmentHeader::LEN - 1, SegmentHeader::LEN]) {
        let sequence = segment_paths(&config.dir).unwrap().last().unwrap().0 + 1;
        let header = SegmentHeader { version: 1, sequence }.encode();
        fs::write(format::segment_path(&config.dir, sequence), &header[..len]).unwrap();
        let mut store = open(&config);
        assert_eq!(store.stats().damaged, 0);
        fill(&mut store, n..n + 1);
        assert_eq!(numbers(&config.dir, Range::ALL), (0..=n).collect::<Vec<_>>());
    }
}

#[test]
fn a_damaged_frame_is_passed_over_and_counted() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    fill(&mut open(&config), 0..6);
    let path = only_segment(&config);
    let whole = fs::read(&path).unwrap();
    let entries = Segment::open(&path).unwrap().entries().unwrap();
    let third = entries[2];
    for at in (0..third.len as usize).step_by(7).chain(0..FrameHeader::LEN) {
        let mut bytes = whole.clone();
        bytes[third.offset as usize + at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(numbers(&config.dir, Range::ALL), [0, 1, 3, 4, 5], "byte {at}");
        assert_eq!(read(&config.dir, Range::ALL).unwrap().damaged, 1, "byte {at}");
        let stats = open(&config).stats();
        assert_eq!((stats.frames, stats.damaged, stats.cut_bytes), (5, 1, 0), "byte {at}");
    }
    // One that was ended in order has its index, and what is damaged after that is noticed when it is read.
    let mut store = open(&config);
    fs::write(&path, &whole).unwrap();
    drop(store);
    store = open(&config);
    store.end_now();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    bytes[third.offset as usize + 40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(numbers(&config.dir, Range::ALL), [0, 1, 3, 4, 5]);
    assert_eq!(read(&config.dir, Range::ALL).unwrap().damaged, 1);
}

#[test]
fn a_damaged_index_costs_nothing() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    fill(&mut store, 0..6);
    store.end_now();
    drop(store);
    let path = only_segment(&config);
    let whole = fs::read(&path).unwrap();
    let end = Segment::open(&path).unwrap().contents().unwrap().end as usize;
    assert!(end < whole.len(), "it has an index");
    for at in end..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(numbers(&config.dir, Range::ALL), [0, 1, 2, 3, 4, 5], "byte {at}");
    }
    // The next process goes on behind the last frame.
    fill(&mut open(&config), 6..8);
    assert_eq!(numbers(&config.dir, Range::ALL), (0..8).collect::<Vec<_>>());
}

#[test]
fn segments_of_another_version_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    fill(&mut open(&config), 0..2);
    let other = format::segment_path(&config.dir, 7);
    let mut bytes = SegmentHeader { version: 9, sequence: 7 }.encode().to_vec();
    bytes.extend([1; 500]);
    fs::write(&other, &bytes).unwrap();
    let mut store = open(&config);
    fill(&mut store, 2..200);
    assert_eq!(fs::read(&other).unwrap(), bytes);
    assert_eq!(numbers(&config.dir, Range::ALL), (0..200).collect::<Vec<_>>());
    assert_eq!(store.stats().damaged, 1);
}

/// A minute whose frame has so many bytes that do not compress.
fn large(n: u64, bytes: usize) -> Snapshot {
    let mut snapshot = minute(T0 + n * MINUTE, n);
    let noise = crate::recording::noise(n, bytes);
    snapshot.meta.filter = Some(noise.iter().map(|b| char::from(b'!' + b % 64)).collect());
    snapshot
}

#[test]
fn it_never_grows_beyond_its_size_and_the_oldest_go_first() {
    let dir = TempDir::new().unwrap();
    let config = HistoryConfig { max_size: 1 << 20, ..config(&dir) };
    let mut store = open(&config);
    for n in 0..400 {
        let snapshot = large(n, 9_000 + (n as usize * 37) % 3_000);
        store.append_at(&snapshot, after(snapshot.meta.start_unix_ns)).unwrap();
        let on_disk: u64 =
            segment_paths(&config.dir).unwrap().iter().map(|(_, p)| fs::metadata(p).unwrap().len()).sum();
        assert_eq!(on_disk, store.stats().size_bytes);
        assert!(on_disk <= config.max_size, "{n}: {on_disk}");
    }
    let stats = store.stats();
    assert!(stats.dropped_segments > 10 && stats.size_bytes > config.max_size * 8 / 10, "{stats:?}");
    assert_eq!(stats.frames + stats.dropped_frames, 400);
    let first = 400 - stats.frames;
    assert_eq!(numbers(&config.dir, Range::ALL), (first..400).collect::<Vec<_>>());
    // A smaller bound holds at once.
    drop(store);
    fs::write(config.dir.join("notes.txt"), "not ours").unwrap();
    let larger = HistoryConfig { max_size: 8 << 20, ..config.clone() };
    assert_eq!(open(&larger).stats().dropped_segments, 0);
    let stats = open(&config).stats();
    assert!(stats.size_bytes <= config.max_size);
    assert!(config.dir.join("notes.txt").exists());
}

#[test]
fn one_that_is_too_large_is_refused_and_the_next_one_is_not() {
    let dir = TempDir::new().unwrap();
    let config = HistoryConfig { max_size: 1 << 20, ..config(&dir) };
    let mut store = open(&config);
    fill(&mut store, 0..3);
    let error = store.append_at(&large(3, 900_000), after(T0 + 3 * MINUTE)).unwrap_err();
    assert!(matches!(error, HistoryError::TooLarge { limit: 524_288, .. }), "{error}");
    assert_eq!(store.stats().error, Some(error.to_string()));
    fill(&mut store, 4..5);
    assert_eq!((store.stats().written, store.stats().failed, store.stats().error), (4, 1, None));
    assert_eq!(numbers(&config.dir, Range::ALL), [0, 1, 2, 4]);
}

#[test]
fn what_is_older_than_is_kept_goes() {
    let dir = TempDir::new().unwrap();
    let config = HistoryConfig { keep: Duration::from_secs(10 * 3600), ..config(&dir) };
    let mut store = open(&config);
    fill(&mut store, 0..3 * 24 * 60);
    let kept = numbers(&config.dir, Range::ALL);
    assert_eq!(*kept.last().unwrap(), 3 * 24 * 60 - 1);
    // Whole segments go, of which each is a thirtieth of what is kept.
    assert!((600..=600 + 2 * 21).contains(&kept.len()), "{}", kept.len());
    assert!(store.stats().dropped_segments > 100);
}

#[test]
fn a_clock_that_is_wrong_for_a_while_deletes_nothing() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    fill(&mut store, 0..100);
    store.end_now();
    // Ten years ahead for half an hour, then back.
    let ahead = 10 * 365 * 24 * HOUR;
    let at = |n: u64, by: u64| {
        let (start, stamp) = (T0 + n * MINUTE, after(T0 + n * MINUTE));
        (minute(start + by, n), Stamp { unix_ns: stamp.unix_ns + by, ..stamp })
    };
    for n in 100..160 {
        let (snapshot, stamp) = at(n, if n < 130 { ahead } else { 0 });
        store.append_at(&snapshot, stamp).unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.dropped_segments, stats.clock_steps), (0, 2));
    assert_eq!(numbers(&config.dir, window(0, 500)), (0..100).chain(130..160).collect::<Vec<_>>());
    let found = read(&config.dir, window(0, 500)).unwrap();
    // The frames that are found know of none between them, but of a gap.
    assert_eq!((found.steps.len(), found.gaps.len()), (0, 1));
    let found = read(&config.dir, Range::ALL).unwrap();
    assert_eq!(found.steps.iter().map(|s| s.by_ns).collect::<Vec<_>>(), [ahead as i64, -(ahead as i64)]);
    // One that stays so is believed in the end.
    for n in 160..230 {
        let (snapshot, stamp) = at(n, ahead);
        store.append_at(&snapshot, stamp).unwrap();
    }
    assert!(store.stats().dropped_segments > 0);
}

#[test]
fn a_window_on_a_clock_that_was_set_back_has_both_times_and_says_so() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    fill(&mut store, 0..10);
    // Five minutes back: minutes 5 to 9 come again.
    for n in 10..15 {
        let start = T0 + (n - 5) * MINUTE;
        let stamp = Stamp { boot_ns: after(T0 + n * MINUTE).boot_ns, ..after(start) };
        store.append_at(&minute(start, n), stamp).unwrap();
    }
    let found = read(&config.dir, window(5, 10)).unwrap();
    assert_eq!(numbers(&config.dir, window(5, 10)), (5..15).collect::<Vec<_>>());
    assert_eq!((found.frames, found.steps.len()), (10, 1));
    assert_eq!(found.steps[0].by_ns, -(5 * MINUTE as i64));
    assert_eq!(found.covered_ns, 10 * MINUTE);
    let listing = list(&config.dir).unwrap();
    assert_eq!(listing.runs.iter().map(|r| r.frames).collect::<Vec<_>>(), [10, 5]);
    assert_eq!(listing.runs[1].step, Some(found.steps[0]));
}

#[test]
fn gaps_are_told() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = open(&config);
    fill(&mut store, 0..5);
    fill(&mut store, 20..25);
    let found = read(&config.dir, window(0, 60)).unwrap();
    assert_eq!(found.gaps, [Gap { from_unix_ns: T0 + 5 * MINUTE, to_unix_ns: T0 + 20 * MINUTE }]);
    assert_eq!(list(&config.dir).unwrap().runs.len(), 2);
}

#[test]
fn a_month_of_minutes_is_opened_by_its_tails() {
    const MONTH: u64 = 43_200;
    let dir = TempDir::new().unwrap();
    let config = HistoryConfig { keep: Duration::from_secs(31 * 86_400), ..config(&dir) };
    let mut store = open(&config);
    fill(&mut store, 0..MONTH);
    let segments = u64::from(store.stats().segments);
    drop(store);
    let started = std::time::Instant::now();
    let store = Store::open(&config).unwrap();
    let opened = started.elapsed();
    let stats = store.stats();
    assert_eq!(stats.frames, MONTH);
    // What is in memory of it: a line for each segment, and the entries of one.
    assert!(segments < 100, "{segments}");
    let started = std::time::Instant::now();
    assert_eq!(numbers(&config.dir, window(20_000, 20_003)), [20_000, 20_001, 20_002]);
    let found = started.elapsed();
    println!(
        "{MONTH} frames, {} bytes in {segments} segments: opened in {opened:?}, three found in {found:?}",
        stats.size_bytes
    );
    // All but the newest have their index.
    let open = |p: &PathBuf| Segment::open(p).unwrap().is_open();
    let paths = segment_paths(&config.dir).unwrap();
    assert_eq!(paths.iter().filter(|(_, path)| open(path)).count(), 1);
}

#[test]
fn a_full_disk_is_an_error_of_its_own_and_later_ones_are_written() {
    let Some(disk) = small_disk(256 << 10) else { return };
    let config = HistoryConfig { dir: disk.path.join("history"), ..HistoryConfig::default() };
    let mut store = Store::open(&config).unwrap();
    let mut n = 0;
    let error = loop {
        let snapshot = large(n, 20_000);
        match store.append_at(&snapshot, after(snapshot.meta.start_unix_ns)) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && n > 5, "after {n}: {error}");
    assert_eq!(numbers(&config.dir, Range::ALL), (0..n).collect::<Vec<_>>());
    let before = fs::read(only_segment(&config)).unwrap();
    // Again and again, and nothing is harmed.
    for _ in 0..3 {
        assert!(store.append_at(&large(n, 60_000), after(T0 + n * MINUTE)).unwrap_err().is_full());
    }
    assert_eq!(fs::read(only_segment(&config)).unwrap(), before);
    // Somebody else fills what is left, and makes room.
    disk.resize(2 << 20);
    fill(&mut store, n..n + 3);
    assert_eq!(numbers(&config.dir, Range::ALL), (0..n + 3).collect::<Vec<_>>());
    let stats = store.stats();
    assert_eq!((stats.failed, stats.error), (4, None));
    drop(store);
    assert_eq!(Store::open(&config).unwrap().stats().frames, n + 3);
}

/// A file system of its own, of so many bytes.
struct Disk {
    path: PathBuf,
    _dir: TempDir,
}

/// None, with a printed reason, where this process may not mount.
fn small_disk(bytes: u64) -> Option<Disk> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    fs::create_dir(&path).unwrap();
    let mounted = rustix::mount::mount(
        "none",
        &path,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        size(bytes).as_c_str(),
    );
    if let Err(error) = mounted {
        println!("skipped: no file system of its own can be mounted: {error}");
        return None;
    }
    Some(Disk { path, _dir: dir })
}

fn size(bytes: u64) -> std::ffi::CString {
    std::ffi::CString::new(format!("size={bytes}")).unwrap()
}

impl Disk {
    fn resize(&self, bytes: u64) {
        let text = size(bytes);
        rustix::mount::mount_remount(&self.path, rustix::mount::MountFlags::empty(), text.as_c_str())
            .unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn what_is_written_is_on_disk_when_append_returns() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir);
    let mut store = Store::open(&config).unwrap();
    store.append(&minute(T0, 1)).unwrap();
    // A process that is killed now closes nothing: what a new one finds is what is in the file.
    std::mem::forget(store);
    assert_eq!(numbers(&config.dir, Range::ALL), [1]);
}

#[test]
fn configurations_that_contradict_themselves_are_refused() {
    let dir = TempDir::new().unwrap();
    let parse = |text: &str| toml::from_str::<HistoryConfig>(text);
    let config = parse("dir = '/x'\ninterval = '30s'\nmax_size = '2MiB'\nkeep = '7d'").unwrap();
    assert_eq!((config.max_size, config.keep.as_secs()), (2 << 20, 7 * 86_400));
    assert_eq!(parse("").unwrap(), HistoryConfig::default());
    assert!(parse("intervall = '30s'").unwrap_err().to_string().contains("intervall"));
    for (text, expected) in
        [("max_size = '1KiB'", "max_size"), ("interval = '10ms'", "interval"), ("keep = '30s'", "keep")]
    {
        let config = HistoryConfig { dir: dir.path().join("no"), ..parse(text).unwrap() };
        let error = Store::open(&config).err().unwrap();
        assert!(error.to_string().contains(expected) && error.is_usage(), "{error}");
        assert!(!config.dir.exists(), "nothing is made");
    }
    let error = read(&dir.path().join("no"), Range::ALL).unwrap_err();
    assert!(matches!(error, HistoryError::None { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_cost_the_frames_that_they_hit(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
        ended: bool,
    ) {
        let dir = TempDir::new().unwrap();
        let config = config(&dir);
        let mut store = open(&config);
        fill(&mut store, 0..12);
        if ended {
            store.end_now();
        }
        drop(store);
        let path = only_segment(&config);
        let entries = Segment::open(&path).unwrap().entries().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let original = bytes.clone();
        for (at, bit) in flips {
            // The header of the segment is another matter.
            let at = SegmentHeader::LEN + at.index(bytes.len() - SegmentHeader::LEN);
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, &bytes).unwrap();
        let hit = |n: usize| {
            let range = entries[n].offset as usize..entries[n].offset as usize + entries[n].len as usize;
            bytes[range.clone()] != original[range]
        };
        let whole: Vec<u64> = (0..12_u64).filter(|n| !hit(*n as usize)).collect();
        prop_assert_eq!(numbers(&config.dir, Range::ALL), whole.clone());
        // With its index, what is damaged after that is noticed when it is read.
        if !ended {
            prop_assert_eq!(open(&config).stats().damaged == 0, tail_only(&whole));
        }
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let dir = TempDir::new().unwrap();
        let config = config(&dir);
        fs::create_dir_all(&config.dir).unwrap();
        let mut file = SegmentHeader { version: 1, sequence: 1 }.encode().to_vec();
        file.extend(bytes);
        fs::write(format::segment_path(&config.dir, 1), file).unwrap();
        prop_assert!(numbers(&config.dir, Range::ALL).is_empty());
        let mut store = open(&config);
        fill(&mut store, 0..1);
        prop_assert_eq!(numbers(&config.dir, Range::ALL), [0]);
    }
}

/// Whether only the last ones are missing: those were cut off as never finished.
fn tail_only(whole: &[u64]) -> bool {
    whole.iter().copied().eq(0..whole.len() as u64)
}

/// Latencies of one signal in a minute's snapshot.
pub(super) fn with_latencies(mut snapshot: Snapshot, signal: Signal, latencies_ns: &[u64]) -> Snapshot {
    let mut hist = Hist::new();
    latencies_ns.iter().for_each(|ns| hist.record(*ns));
    snapshot.signals.push(crate::snapshot::SignalData {
        signal: signal.name().to_owned(),
        definition: String::new(),
        scope: "all".to_owned(),
        sum_ns: latencies_ns.iter().sum(),
        max_ns: latencies_ns.iter().copied().max().unwrap_or(0),
        hist,
    });
    snapshot
}
