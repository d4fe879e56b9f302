use super::*;
use crate::change::{JournalError, Now, Place, found::is_between, kinds, now_of};
use std::{fs, path::Path};

/// A change of files, which need no privilege.
fn plan(dir: &Path, values: &[(&str, &str)]) -> Plan {
    let place = Place::find("host").unwrap();
    let step = |(name, text): &(&str, &str)| {
        let key = dir.join(name).display().to_string();
        let before = (kinds::find("file").unwrap().read)(&key).unwrap();
        let (kind, after) = ("file".to_owned(), format!("text:{text}"));
        Step { place: place.clone(), kind, before, after, key, owners: Vec::new(), ifindex: None }
    };
    let steps = values.iter().map(step).collect();
    Plan::of("test", "a test", steps)
}

struct Setup {
    dir: tempfile::TempDir,
    state: StateDir,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(&dir.path().join("state")));
        fs::write(dir.path().join("a"), "old a").unwrap();
        Self { dir, state }
    }

    fn plan(&self, values: &[(&str, &str)]) -> Plan {
        plan(self.dir.path(), values)
    }

    fn engine(&self) -> Engine {
        let (engine, recovered) = Engine::open(&self.state).unwrap();
        assert!(recovered.is_empty(), "{recovered:?}");
        engine
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// What the files a and b say, `-` for one that is not there.
    fn texts(&self) -> [String; 2] {
        let text = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_else(|_| "-".to_owned());
        [text("a"), text("b")]
    }
}

#[test]
fn a_change_is_made_whole_and_taken_back_whole() {
    let s = Setup::new();
    let change = s.engine().apply(&s.plan(&[("a", "new a"), ("b", "new b")]), None).unwrap();
    assert_eq!(s.texts(), ["new a", "new b"]);
    let mut engine = s.engine();
    let undone = engine.undo(change, "asked for", false).unwrap();
    assert_eq!(undone.restored.len(), 2);
    assert_eq!(s.texts(), ["old a", "-"]);
    // Once more is nothing.
    assert_eq!(engine.undo(change, "asked for", false).unwrap(), Undone::default());
    assert!(matches!(engine.undo(7, "asked for", false), Err(ChangeError::NoChange(7))));
}

#[test]
fn a_step_that_fails_takes_the_others_back() {
    let s = Setup::new();
    let mut plan = s.plan(&[("a", "new a"), ("b", "new b")]);
    plan.steps[1].key = s.dir.path().join("no/such").display().to_string();
    let mut engine = s.engine();
    let failed = engine.apply(&plan, None);
    assert!(matches!(failed, Err(ChangeError::Refused { .. })), "{failed:?}");
    assert_eq!(s.texts(), ["old a", "-"]);
    assert!(matches!(engine.entries()[0].state, State::Undone { .. }));
}

#[test]
fn what_somebody_else_changed_is_left_alone() {
    let s = Setup::new();
    let change = s.engine().apply(&s.plan(&[("a", "new a"), ("b", "new b")]), None).unwrap();
    s.write("a", "theirs");
    let mut engine = s.engine();
    let conflict = engine.undo(change, "asked for", false);
    assert!(matches!(conflict, Err(ChangeError::Conflict { .. })), "{conflict:?}");
    assert_eq!(s.texts(), ["theirs", "new b"], "all or nothing");
    assert_eq!(engine.left_of(change).len(), 2);
    engine.undo(change, "asked for", true).unwrap();
    assert_eq!(s.texts(), ["old a", "-"]);
}

#[test]
fn later_changes_come_off_first() {
    let s = Setup::new();
    let mut engine = s.engine();
    let first = engine.apply(&s.plan(&[("a", "1")]), None).unwrap();
    let second = engine.apply(&s.plan(&[("a", "2")]), None).unwrap();
    let early = engine.undo(first, "asked for", false);
    assert!(matches!(early, Err(ChangeError::Later { later, .. }) if later == second), "{early:?}");
    assert!(matches!(engine.undo(first, "asked for", true), Err(ChangeError::Later { .. })));
    engine.undo(second, "asked for", false).unwrap();
    engine.undo(first, "asked for", false).unwrap();
    assert_eq!(s.texts(), ["old a", "-"]);
}

/// There and back by two changes: the first one's old value is there, and still the second comes off first.
#[test]
fn a_value_that_came_back_is_the_later_changes() {
    let s = Setup::new();
    let mut engine = s.engine();
    let first = engine.apply(&s.plan(&[("a", "1")]), None).unwrap();
    let second = engine.apply(&s.plan(&[("a", "old a")]), None).unwrap();
    assert!(matches!(engine.undo(first, "asked for", false), Err(ChangeError::Later { .. })));
    engine.undo(second, "asked for", false).unwrap();
    engine.undo(first, "asked for", false).unwrap();
    assert_eq!(s.texts(), ["old a", "-"]);
}

/// A list of numbers of which the kernel took the first ones only is known for what it is, where it was not finished.
#[test]
fn half_of_a_list_is_taken_back() {
    assert!(is_between("8192 200000 6291456", "4096 131072 6291456", "8192 200000 9999999999"));
    assert!(!is_between("8192 1 6291456", "4096 131072 6291456", "8192 200000 9999999999"));
    assert!(!is_between("5", "4", "6") && !is_between("4", "4", "6"), "one number is old or new");
}

#[test]
fn what_changed_in_the_meantime_is_looked_at_again() {
    let s = Setup::new();
    let plan = s.plan(&[("a", "new a")]);
    s.write("a", "theirs");
    let mut engine = s.engine();
    assert!(matches!(engine.apply(&plan, None), Err(ChangeError::Meanwhile { .. })));
    assert!(engine.entries().is_empty());
    assert_eq!(s.texts(), ["theirs", "-"]);
}

#[test]
fn what_was_not_finished_is_taken_back_by_the_next() {
    let s = Setup::new();
    let Plan { id, why, steps, .. } = s.plan(&[("a", "new a"), ("b", "new b")]);
    let mut engine = s.engine();
    let begin = Begin { change: 1, id, why, at_unix_ns: 0, boot: boot(), steps, until: None };
    engine.journal.begin(begin).unwrap();
    s.write("a", "new a");
    drop(engine);
    let (engine, recovered) = Engine::open(&s.state).unwrap();
    let undone = recovered[0].outcome.as_ref().unwrap();
    assert_eq!((undone.restored.len(), undone.already.len()), (1, 1));
    assert_eq!(s.texts(), ["old a", "-"]);
    assert!(!engine.entries()[0].is_active());
}

#[test]
fn a_time_limit_ends_a_change_unless_it_is_kept() {
    let s = Setup::new();
    s.engine().apply(&s.plan(&[("a", "1")]), Some(Until::after(Duration::ZERO))).unwrap();
    let (mut engine, recovered) = Engine::open(&s.state).unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(s.texts(), ["old a", "-"]);
    let minute = || Until::after(Duration::from_secs(60));
    let change = engine.apply(&s.plan(&[("a", "2")]), Some(minute())).unwrap();
    engine.keep(change).unwrap();
    drop(engine);
    assert_eq!(s.engine().entries()[1].begin.until, None);
    // In another boot its time is up.
    let until = Until { boot: "another".to_owned(), ..minute() };
    s.engine().apply(&s.plan(&[("a", "3")]), Some(until)).unwrap();
    assert_eq!(Engine::open(&s.state).unwrap().1.len(), 1);
    assert_eq!(s.texts(), ["2", "-"]);
}

#[test]
fn one_at_a_time() {
    let s = Setup::new();
    let engine = s.engine();
    let told = Lock::take(&s.state, Duration::from_millis(50)).err().unwrap().to_string();
    assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
    drop(engine);
    assert!(Lock::take(&s.state, Duration::ZERO).is_ok());
}

#[test]
fn a_damaged_journal_stops_everything() {
    let s = Setup::new();
    s.engine().apply(&s.plan(&[("a", "1")]), None).unwrap();
    let path = s.state.path().join("journal");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("old a", "old b")).unwrap();
    let error = Engine::open(&s.state).err().unwrap();
    assert!(matches!(error, ChangeError::Journal(JournalError::Damaged { line: 2, .. })), "{error}");
    assert_eq!(s.texts(), ["1", "-"]);
}

/// After a restart, files are taken back, and what the kernel was set to is gone with it, whatever it is now.
#[test]
fn another_boots_settings_are_gone_and_its_files_are_not() {
    let s = Setup::new();
    let Plan { id, why, mut steps, .. } = s.plan(&[("a", "new a")]);
    let own = Place::find("host").unwrap();
    let setting = |key: &str, after: &str| Step {
        place: own.clone(),
        kind: "sysctl".to_owned(),
        key: key.to_owned(),
        before: "1".to_owned(),
        after: after.to_owned(),
        owners: Vec::new(),
        ifindex: None,
    };
    let now = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().to_owned();
    steps.push(setting("net.core.somaxconn", &now));
    let mut engine = s.engine();
    let begin = Begin { change: 1, id, why, at_unix_ns: 0, boot: "another".to_owned(), steps, until: None };
    engine.journal.begin(begin.clone()).unwrap();
    engine.journal.done(1).unwrap();
    s.write("a", "new a");
    assert_eq!(engine.left_of(1).len(), 1, "{:?}", engine.left_of(1));
    let undone = engine.undo(1, "asked for", false).unwrap();
    assert_eq!((undone.restored.len(), undone.gone.len()), (1, 1), "{undone:?}");
    assert_eq!(s.texts(), ["old a", "-"]);
    assert_eq!(fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim(), now);
    // One that a file keeps over a restart is not over.
    let mut kept = begin;
    let file = kinds::kept_in("sysctl", "net.core.somaxconn", &now).unwrap();
    kept.steps[0].key = file.key;
    assert!(!kept.is_over(&kept.steps[1]) && kept.is_over(&setting("net.core.netdev_budget", "300")));
}

/// What a process that was killed left of a new file goes.
#[test]
fn half_of_a_new_file_goes() {
    let s = Setup::new();
    let Plan { id, why, steps, .. } = s.plan(&[("a", "new a")]);
    let mut engine = s.engine();
    let begin = Begin { change: 1, id, why, at_unix_ns: 0, boot: boot(), steps, until: None };
    engine.journal.begin(begin).unwrap();
    s.write("a.nettrace-new", "new");
    drop(engine);
    assert_eq!(Engine::open(&s.state).unwrap().1.len(), 1);
    assert!(!s.dir.path().join("a.nettrace-new").exists());
}

/// What cannot be read is not said to be somebody else's.
#[test]
fn what_cannot_be_read_is_not_known() {
    let s = Setup::new();
    let mut plan = s.plan(&[("a", "new a")]);
    plan.steps[0].key = s.dir.path().display().to_string();
    let (now, why) = now_of(&plan.steps[0]);
    assert!(now == Now::Unknown && why.contains("directory"), "{now:?} {why}");
}
