use super::*;
use crate::change::{Place, Step};
use std::fs;

fn begin(change: u64) -> Begin {
    let place = Place { netns: "host".to_owned(), path: None, inode: 1, cookie: None };
    let step = Step {
        place,
        kind: "sysctl".to_owned(),
        key: "net.core.somaxconn".to_owned(),
        before: "128".to_owned(),
        after: "4096".to_owned(),
        owners: Vec::new(),
        ifindex: None,
    };
    Begin {
        change,
        id: format!("c{change}"),
        why: "a test".to_owned(),
        at_unix_ns: 1,
        boot: "b".to_owned(),
        steps: vec![step],
        until: None,
    }
}

/// A journal with one change of each state.
fn written() -> (tempfile::TempDir, StateDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(Some(dir.path()));
    let mut journal = Journal::open(&state).unwrap();
    for change in 1..=3 {
        assert_eq!(journal.next(), change);
        journal.begin(begin(change)).unwrap();
    }
    journal.done(1).unwrap();
    journal.found(1, 0, "4097".to_owned()).unwrap();
    journal.undone(2, "asked for").unwrap();
    let bytes = fs::read(state.journal()).unwrap();
    (dir, state, bytes)
}

fn states(entries: &[Entry]) -> Vec<(u64, &'static str)> {
    let state = |e: &Entry| match e.state {
        State::Unfinished => "unfinished",
        State::Done => "done",
        State::Undone { .. } => "undone",
    };
    entries.iter().map(|e| (e.begin.change, state(e))).collect()
}

#[test]
fn what_was_written_is_read_again() {
    let (_dir, state, _) = written();
    let journal = Journal::open(&state).unwrap();
    assert_eq!(states(journal.entries()), [(1, "done"), (2, "undone"), (3, "unfinished")]);
    assert_eq!(journal.entries()[0].begin.steps[0].after, "4097");
    assert_eq!(journal.entries(), Journal::look(&state).unwrap());
}

/// Cut off anywhere, it says what its whole lines say, and goes on from there.
#[test]
fn a_record_that_was_cut_off_was_never_written() {
    let (_dir, state, bytes) = written();
    for length in (0..bytes.len()).step_by(5) {
        fs::write(state.journal(), &bytes[..length]).unwrap();
        let whole = bytes[..length].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut journal = Journal::open(&state).unwrap();
        let before = journal.entries().to_vec();
        assert_eq!(before, parse(&bytes[..whole]).unwrap().0);
        journal.begin(begin(9)).unwrap();
        let again = Journal::look(&state).unwrap();
        assert_eq!(again[..before.len()], before);
        assert_eq!(states(&again).last(), Some(&(9, "unfinished")));
    }
}

/// Zeros behind the end are what a file system may leave after a power failure.
#[test]
fn zeros_behind_the_end_are_nothing() {
    let (_dir, state, bytes) = written();
    for head in [&bytes[..], &bytes[..0]] {
        fs::write(state.journal(), [head, &[0; 4096]].concat()).unwrap();
        let entries = Journal::open(&state).unwrap().entries().to_vec();
        assert_eq!(entries.len(), if head.is_empty() { 0 } else { 3 });
    }
}

/// Any byte that is another one is found out, and nothing is guessed.
#[test]
fn damage_is_found_out() {
    let (_dir, state, bytes) = written();
    for at in 0..bytes.len() - 1 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(state.journal(), &damaged).unwrap();
        let error = Journal::open(&state).expect_err("damage");
        let JournalError::Damaged { line, ref entries, .. } = error else { panic!("{error}") };
        let before = bytes[..at].iter().filter(|b| **b == b'\n').count();
        assert!(line == before + 1 || bytes[at] == b'\n', "byte {at}: line {line}, not {}", before + 1);
        assert!(entries.len() <= 3);
        assert_eq!(fs::read(state.journal()).unwrap(), damaged, "it is left as it is");
    }
    let mut damaged = bytes.clone();
    let last = bytes.len() - 3;
    damaged[last] = b'x';
    fs::write(state.journal(), &damaged).unwrap();
    let text = Journal::open(&state).expect_err("damage").to_string();
    assert!(text.contains("change 1: sysctl net.core.somaxconn in host was `128`"), "{text}");
    assert!(text.contains("Nothing is guessed"), "{text}");
}

#[test]
fn what_is_no_journal_is_refused() {
    let (_dir, state, _) = written();
    for text in ["something else\n", "nettrace journal 2\n", "something else"] {
        fs::write(state.journal(), text).unwrap();
        assert!(matches!(Journal::open(&state), Err(JournalError::Damaged { line: 1, .. })), "{text}");
    }
}

#[test]
fn what_is_long_over_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(Some(dir.path()));
    let mut text = HEAD.to_owned();
    let mut change = 0;
    while text.len() as u64 <= COMPACT_BYTES {
        change += 1;
        text += &line(&Record::Begin(begin(change)));
        if change % 500 != 0 {
            text += &line(&Record::Undone { change, why: "asked for".to_owned(), at_unix_ns: 2 });
        }
    }
    fs::write(state.journal(), &text).unwrap();
    let active = change / 500;
    let mut journal = Journal::open(&state).unwrap();
    let unfinished = journal.entries().iter().filter(|e| e.is_active()).count() as u64;
    assert_eq!(unfinished, active);
    assert_eq!(journal.entries().len() as u64, active + KEPT_ENDED as u64);
    assert_eq!(journal.next(), change + 1);
    journal.begin(begin(change + 1)).unwrap();
    assert_eq!(Journal::look(&state).unwrap(), journal.entries());
    assert!(fs::metadata(state.journal()).unwrap().len() < COMPACT_BYTES / 2);
}

/// Of a last line that was being written when the power went, the beginning may be missing, too.
#[test]
fn a_last_line_with_zeros_was_never_written() {
    let (_dir, state, bytes) = written();
    let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let mut torn = bytes.clone();
    torn[last..last + 20].fill(0);
    fs::write(state.journal(), &torn).unwrap();
    assert_eq!(states(Journal::open(&state).unwrap().entries())[1], (2, "unfinished"));
    // Zeros before it are damage.
    let mut damaged = bytes;
    damaged[last - 20..last - 10].fill(0);
    fs::write(state.journal(), &damaged).unwrap();
    assert!(matches!(Journal::open(&state), Err(JournalError::Damaged { .. })));
}

#[test]
fn what_is_longer_than_it_can_be_is_refused() {
    let (_dir, state, _) = written();
    OpenOptions::new().write(true).open(state.journal()).unwrap().set_len(MAX_BYTES + 1).unwrap();
    for error in [Journal::open(&state).err(), Journal::look(&state).err()] {
        let text = error.expect("it is too long").to_string();
        assert!(text.contains("longer than 64 MiB"), "{text}");
    }
}

/// What is over is left out by its length, too.
#[test]
fn long_records_that_are_over_are_left_out_first() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(Some(dir.path()));
    let mut text = HEAD.to_owned();
    for change in 1..=40 {
        let mut begin = begin(change);
        begin.steps[0].before = "1 ".repeat(50_000);
        text += &line(&Record::Begin(begin));
        text += &line(&Record::Undone { change, why: "asked for".to_owned(), at_unix_ns: 2 });
    }
    fs::write(state.journal(), &text).unwrap();
    let journal = Journal::open(&state).unwrap();
    assert_eq!(journal.entries().iter().map(|e| e.begin.change).collect::<Vec<_>>(), [36, 37, 38, 39, 40]);
    assert!(fs::metadata(state.journal()).unwrap().len() < COMPACT_BYTES);
}
