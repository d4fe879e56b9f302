use super::*;
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Whether a change of a file is in force is seen in the file; values are those of a made-up load.
struct Fake<'a> {
    file: &'a Path,
    value: Box<dyn FnMut(bool) -> Vec<Option<f64>> + 'a>,
    seen: Rc<RefCell<Vec<bool>>>,
}

impl Meter for Fake<'_> {
    fn window(&mut self, _: Duration) -> Result<Reading, MeterError> {
        let on = fs::read_to_string(self.file).is_ok_and(|text| text == "new");
        self.seen.borrow_mut().push(on);
        Ok(Reading { values: (self.value)(on) })
    }
}

fn options(rounds: u32) -> Options {
    Options {
        objective: "p99 of tcp.srtt".parse().unwrap(),
        guards: vec![Objective::Throughput],
        rounds,
        window: Duration::ZERO,
        settle: Duration::ZERO,
        confidence: 0.95,
        least_effect: 0.02,
        tolerance: 0.05,
        seed: 7,
    }
}

/// Numbers between 0 and 1.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = Rng::new(seed);
    move || rng.uniform()
}

/// A file that is to be changed, and a journal.
struct Setup {
    dir: tempfile::TempDir,
    file: PathBuf,
    state: StateDir,
    plan: Plan,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "old").unwrap();
        let state = StateDir::new(Some(&dir.path().join("state")));
        let plan = crate::change::test_plan(&file, "new");
        Self { dir, file, state, plan }
    }
}

struct Outcome {
    trial: Trial,
    seen: Vec<bool>,
    text: String,
    active: usize,
}

/// One change of a file under a made-up load.
fn run(options: &Options, value: impl FnMut(bool) -> Vec<Option<f64>>) -> Outcome {
    let Setup { dir: _dir, file, state, plan } = Setup::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut meter = Fake { file: &file, value: Box::new(value), seen: seen.clone() };
    let mut trials = tune(&state, &[plan], options, &mut meter, &|| false, |_| {}).unwrap();
    drop(meter);
    let active = crate::change::Journal::look(&state).unwrap().iter().filter(|e| e.is_active()).count();
    let text = fs::read_to_string(&file).unwrap();
    Outcome { trial: trials.remove(0), seen: seen.take(), text, active }
}

#[test]
fn what_helps_is_kept() {
    let mut noise = noise(3);
    let load = |on| vec![Some(if on { 0.8 } else { 1.0 } * 1e6 * (1.0 + 0.1 * noise())), Some(1e9)];
    let o = run(&options(10), load);
    assert_eq!((o.trial.verdict, o.text.as_str(), o.active), (Verdict::Kept, "new", 1));
    let ratio = o.trial.effects[0].ratio.unwrap();
    assert!((0.76..0.84).contains(&ratio) && o.trial.effects[0].high.unwrap() < 1.0, "{:?}", o.trial);
    // Each round has both, and not always in the same order.
    let rounds: Vec<_> = o.seen.chunks(2).collect();
    assert!(rounds.iter().all(|r| r[0] != r[1]));
    assert!(rounds.iter().any(|r| r[0]) && rounds.iter().any(|r| r[1]));
}

#[test]
fn what_helps_at_the_cost_of_a_guard_is_not_kept() {
    let o = run(&options(10), |on| if on { vec![Some(5e5), Some(8e8)] } else { vec![Some(1e6), Some(1e9)] });
    assert_eq!((o.trial.verdict, o.text.as_str(), o.active), (Verdict::Reverted, "old", 0));
    assert!(o.trial.because.contains("throughput got worse"), "{}", o.trial.because);
}

#[test]
fn what_does_harm_or_nothing_is_taken_back() {
    let worse = run(&options(10), |on| vec![Some(if on { 1.2e6 } else { 1e6 }), Some(1e9)]);
    assert_eq!((worse.trial.verdict, worse.text.as_str()), (Verdict::Reverted, "old"));
    let nothing = run(&options(10), |_| vec![Some(1e6), Some(1e9)]);
    assert_eq!(
        (nothing.trial.verdict, nothing.trial.because.as_str()),
        (Verdict::Reverted, "it brings no 2 %")
    );
    let little = run(&options(10), |on| vec![Some(if on { 0.99e6 } else { 1e6 }), Some(1e9)]);
    assert_eq!(little.trial.verdict, Verdict::Reverted);
    let mut noise = noise(5);
    let unclear = run(&options(10), |_| vec![Some(1e6 * (1.0 + noise())), Some(1e9)]);
    assert_eq!(unclear.trial.verdict, Verdict::Undecided);
    let silent = run(&options(10), |_| vec![None, Some(1e9)]);
    assert!(silent.trial.because.contains("0 of 10 rounds had enough traffic"), "{}", silent.trial.because);
    // Four rounds prove nothing, however clear they are.
    let few = run(&options(4), |on| vec![Some(if on { 1e3 } else { 1e6 }), Some(1e9)]);
    assert_eq!(few.trial.verdict, Verdict::Undecided);
}

/// A load that gets heavier all the time counts for neither: with nothing to be found, no more is kept than was allowed for.
#[test]
fn what_drifts_is_not_taken_for_an_effect() {
    const TRIALS: u64 = 2000;
    let options = Options { least_effect: 0.0, ..options(8) };
    let mut kept = 0;
    for seed in 1..=TRIALS {
        let (mut noise, mut coin) = (noise(seed * 0x9e37_79b9), Rng::new(seed * 0x1234_5678_9abc));
        let mut n = 0.0;
        let mut window = || {
            n += 1.0;
            Reading { values: vec![Some(1e6 * (1.0 + 0.05 * n) * (1.0 + 0.1 * noise())), Some(1e9)] }
        };
        let rounds: Vec<Round> = (0..options.rounds)
            .map(|_| {
                let (first, second) = (window(), window());
                if coin.toss() { [second, first] } else { [first, second] }
            })
            .collect();
        kept += u64::from(judge("placebo", &rounds, &options, 1).verdict == Verdict::Kept);
    }
    let share = kept as f64 / TRIALS as f64;
    // Of 5 % allowed for; 6.5 % would come about in one of 1,000 such tests.
    assert!(share < 0.065, "{kept} of {TRIALS} placebos were kept");
    assert!(share > 0.005, "{kept} of {TRIALS}: the test does not test");
}

#[test]
fn an_end_in_the_middle_leaves_nothing() {
    let Setup { dir: _dir, file, state, plan } = Setup::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut meter = Fake { file: &file, value: Box::new(|_| vec![Some(1.0), None]), seen: seen.clone() };
    let stop = || seen.borrow().len() >= 5;
    let trials = tune(&state, &[plan], &options(10), &mut meter, &stop, |_| {}).unwrap();
    assert!(trials.is_empty());
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

/// A change that somebody takes back in the middle of its window proves nothing.
#[test]
fn a_window_in_which_somebody_else_changed_it_is_void() {
    let Setup { dir: _dir, file, state, plan } = Setup::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let value = |on: bool| {
        if on {
            fs::write(&file, "old").unwrap();
        }
        vec![Some(if on { 1e5 } else { 1e6 }), Some(1e9)]
    };
    let mut meter = Fake { file: &file, value: Box::new(value), seen: seen.clone() };
    let trials = tune(&state, &[plan], &options(10), &mut meter, &|| false, |_| {}).unwrap();
    assert_eq!(trials[0].verdict, Verdict::Failed);
    assert!(trials[0].because.contains("in the meantime"), "{}", trials[0].because);
    assert!(seen.borrow().len() <= 2);
}

/// A change that ends the traffic is not judged by the rounds in which it did not.
#[test]
fn traffic_that_stops_with_a_change_counts_against_it() {
    let mut n = 0;
    let o = run(&options(10), |on| {
        n += u32::from(on);
        let value = if on { 8e5 } else { 1e6 };
        vec![Some(value).filter(|_| !on || n % 3 != 0), Some(1e9)]
    });
    assert_ne!(o.trial.verdict, Verdict::Kept, "{:?}", o.trial);
    assert_eq!((o.trial.effects[0].rounds, o.trial.effects[0].lost), (7, 3));
    assert!(text(&[o.trial]).contains("7 rounds, and 3 without traffic with it"));
    let always = run(&options(10), |on| vec![Some(1e6).filter(|_| !on), Some(1e9)]);
    assert_eq!(always.trial.verdict, Verdict::Reverted, "{:?}", always.trial);
}

/// Windows of both kinds begin with something that was just set.
#[test]
fn every_window_begins_with_a_switch() {
    let Setup { dir: _dir, file, state, plan } = Setup::new();
    let mut switch = Switch::new(state.clone(), plan, Duration::from_secs(60));
    for (window, on) in [false, true, true, false, false].into_iter().enumerate() {
        let before = crate::change::Journal::look(&state).unwrap();
        switch.set(on).unwrap();
        switch.check().unwrap();
        assert_ne!(before, crate::change::Journal::look(&state).unwrap(), "window {window}");
        assert_eq!(fs::read_to_string(&file).unwrap() == "new", on);
    }
}

#[test]
fn so_many_rounds_can_prove_something() {
    assert_eq!([least_rounds(0.95, 1), least_rounds(0.95, 4), least_rounds(0.999, 1)], [5, 7, 10]);
    // Five all to one side are as rare as asked for, four are not.
    let proves = |n: usize| Estimate::of_pairs(&vec![-1.0; n], 0.95).unwrap().high < 0.0;
    assert!(proves(5) && !proves(4));
}

#[test]
fn the_table_has_intervals() {
    let mut noise = noise(3);
    let o = run(&options(10), |on| {
        vec![Some(if on { 0.8 } else { 1.0 } * 1e6 * (1.0 + 0.1 * noise())), Some(1e9)]
    });
    let table = text(std::slice::from_ref(&o.trial));
    assert!(table.starts_with("kept       test  p99 of tcp.srtt got better (change"), "{table}");
    assert!(table.contains("ratio 0.") && table.contains("at 95.0 %, 10 rounds"), "{table}");
    assert!(json(&[o.trial]).unwrap().contains("\"verdict\": \"kept\""));
}
