//! Experiments on real traffic: nothing is found where nothing differs, and what differs by a known amount is found, with the
//! right sign and size.

use nettrace::{
    bench::{
        BenchError,
        experiment::{self, Options},
        site::{Arms, PairSite, Ran, Site},
    },
    iface::Namespace,
    lab::Pair,
};
use nettrace_bench::{
    compare::{self, Comparison, Metric, Row, compare_arms},
    load::{
        Profile, Service, Stop,
        args::{KindName, LoadArgs},
    },
    result::{Arm, Change, Environment, Scenario},
    stats::Verdict,
};
use std::time::Duration;

/// What the server takes for each request: the load is busy with that, and not with what else the machine does.
const THINK: Duration = Duration::from_micros(150);

/// Long enough for some hundred requests.
const SHORT: Duration = Duration::from_millis(60);
/// Ten and more of them are slower than 99 in a hundred.
const LONG: Duration = Duration::from_secs(1);

/// The same load in both arms, but for what the server does besides answering.
struct Injected {
    site: PairSite,
    services: [Service; 2],
    measure: Duration,
}

fn profile(service: Service, measure: Duration) -> Profile {
    let args = LoadArgs {
        seconds: Some(measure.as_secs_f64()),
        warm_up_seconds: Some(0.01),
        limit_seconds: Some(0.5),
        ..LoadArgs::of(KindName::TcpRr)
    };
    let mut profile = args.resolve().unwrap();
    profile.parts[0].service = service;
    profile
}

fn thinking(extra_share: f64) -> Service {
    Service { think: THINK.mul_f64(1.0 + extra_share), ..Service::default() }
}

impl Injected {
    /// Rounds of such a length.
    fn new(services: [Service; 2], measure: Duration) -> Self {
        let profile = profile(services[0], measure);
        let site = PairSite::new(Pair::start().unwrap(), profile, Arms::Placebo, true);
        Self { site, services, measure }
    }
}

impl Site for Injected {
    fn scenario(&self) -> Scenario {
        self.site.scenario()
    }

    fn changes(&self) -> Vec<Change> {
        Vec::new()
    }

    fn set(&mut self, arm: Arm) -> Result<(), BenchError> {
        let service = self.services[usize::from(arm == Arm::B)];
        self.site.load_is(profile(service, self.measure));
        Ok(())
    }

    fn round(&mut self, seed: u64, stop: &Stop) -> Result<Ran, BenchError> {
        self.site.round(seed, stop)
    }

    fn namespaces(&self) -> Vec<Namespace> {
        self.site.namespaces()
    }

    fn environment(&self) -> Environment {
        Environment::default()
    }
}

fn compared(site: &mut Injected, rounds: u32, seed: u64) -> Comparison {
    let options =
        Options { rounds, both: true, settle: Duration::ZERO, seed, probes: false, stop: Stop::default() };
    let result = experiment::run(site, &options, &mut |_, _, _| {}).unwrap();
    assert_eq!((result.rounds.len(), &result.partial), (2 * rounds as usize, &None));
    compare_arms(&result, &compare::Options::default()).unwrap()
}

/// The row of a metric, of an experiment that tells it. A machine that does much else meanwhile makes one say that it was too
/// noisy, which is right, and no answer: it is tried again then.
#[expect(clippy::print_stdout, reason = "why it takes longer, for who runs it with --nocapture")]
fn told(services: [Service; 2], measure: Duration, rounds: u32, metric: Metric) -> (Comparison, Row) {
    const TRIES: u64 = 4;
    let mut site = Injected::new(services, measure);
    for seed in 1..=TRIES {
        let comparison = compared(&mut site, rounds, seed);
        let row = row(&comparison, metric).clone();
        if row.verdict != Verdict::TooNoisy || seed == TRIES {
            return (comparison, row);
        }
        println!("too noisy: {:?} at {:?}", row.effect, row.bounds);
    }
    panic!("it is tried at least once")
}

fn row(comparison: &Comparison, metric: Metric) -> &Row {
    comparison.rows.iter().find(|row| row.metric == metric).unwrap()
}

/// 200 pairs of rounds, in 20 experiments, of which one may be wrong at 95 %. Six would be so in one of 3,000 such tests.
#[test]
fn where_nothing_differs_nothing_is_found() {
    const EXPERIMENTS: u64 = 20;
    let mut site = Injected::new([thinking(0.0); 2], SHORT);
    let mut wrong = Vec::new();
    for seed in 0..EXPERIMENTS {
        let comparison = compared(&mut site, 10, seed);
        let found = |row: &Row| matches!(row.verdict, Verdict::Better | Verdict::Worse);
        if comparison.rows.iter().any(found) {
            wrong.push(comparison.sentence);
        }
    }
    println!("{} of {EXPERIMENTS} experiments found what is not there: {wrong:?}", wrong.len());
    assert!(wrong.len() <= 5, "{wrong:?}");
}

/// What the server takes longer is found in the median, and the interval has the true ratio in it.
#[test]
fn what_takes_longer_is_found_with_its_size() {
    for (share, rounds) in [(0.2, 12), (0.05, 16)] {
        let services = [thinking(0.0), thinking(share)];
        let (comparison, p50) = told(services, SHORT, rounds, Metric::P50);
        let bounds = p50.bounds.unwrap();
        // The way there and back does not take longer.
        let before_ns = p50.before.unwrap();
        let truth = 1.0 + THINK.as_nanos() as f64 * share / before_ns;
        println!("+{share}: {:.4} in [{:.4}, {:.4}], true {truth:.4}", p50.effect, bounds.low, bounds.high);
        assert_eq!(p50.verdict, Verdict::Worse, "{comparison:#?}");
        assert!(bounds.low > 1.0 && bounds.low - 0.01 <= truth && truth <= bounds.high + 0.01, "{p50:?}");
    }
}

/// Of one request in fifty the server takes much longer: the tail tells, and the median does not.
#[test]
fn what_only_the_tail_has_is_found_in_the_tail() {
    let slow = Service { slow_share: 0.02, slow: Duration::from_millis(20), ..thinking(0.0) };
    let (comparison, p99) = told([thinking(0.0), slow], LONG, 8, Metric::P99);
    let p50 = row(&comparison, Metric::P50);
    println!("p50 {:.3}, p99 {:.3} {:?}", p50.effect, p99.effect, p99.bounds);
    assert_eq!(p99.verdict, Verdict::Worse, "{p99:?}");
    assert_ne!(p50.verdict, Verdict::Better, "{p50:?}");
    assert!(p50.effect < 1.03, "{p50:?}");
}
