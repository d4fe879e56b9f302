//! `nettrace bench` as a person or a script meets it: here and between two nodes, with good input and bad.

use nettrace::lab::{Netns, Pair};
use nettrace_bench::result::{Arm, RunResult};
use nettrace_tests::program::{nettrace, stderr, stdout};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

pub(super) const ADDRESS_PORT: u16 = 7432;

pub(super) fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("nettrace-bench-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = nettrace().unwrap();
    command.arg("bench").args(args).current_dir(dir).env("NETTRACE_STATE_DIR", dir).stdin(Stdio::null());
    command
}

fn bench(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// It failed with this code, and in one line says all of this.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

const QUICK: [&str; 6] = ["--seconds", "0.1", "--warm-up-seconds", "0.02", "--settle", "0"];

fn quick<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &QUICK].concat()
}

/// Before, after, and what is said of them; and what is kept.
#[test]
fn runs_are_kept_and_compared() {
    let dir = directory("compare");
    for (file, think) in [("before.json", "200"), ("after.json", "400"), ("other.json", "200")] {
        let kind = if file == "other.json" { "udp_rr" } else { "tcp_rr" };
        let args =
            quick(&["run", "--kind", kind, "--think-us", think, "--rounds", "8", "-o", file, "--no-probes"]);
        let output = bench(&dir, &args);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let result = RunResult::read(&dir.join("before.json")).unwrap();
    assert_eq!((result.rounds.len(), result.partial.is_none()), (8, true));
    assert!(result.environment.settings.len() > 100, "{:?}", result.environment);
    // What the server does is a part of the load: runs of two loads differ in more than a setting.
    let differ = bench(&dir, &["compare", "before.json", "after.json"]);
    refused(&differ, 2, &["cannot be compared", "--force"]);
    let fails = ["compare", "before.json", "after.json", "--force", "--fail-if", "tcp_rr.p50 > 1.1x"];
    let output = bench(&dir, &fails);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("is shown"), "{}", stderr(&output));
    assert!(stdout(&output).contains("tcp_rr"), "{}", stdout(&output));
    let holds = ["compare", "before.json", "before.json", "--fail-if", "tcp_rr.p50 > 1.1x"];
    assert_eq!(bench(&dir, &holds).status.code(), Some(0));
    refused(&bench(&dir, &["compare", "before.json", "other.json"]), 2, &["cannot be compared"]);
    refused(&bench(&dir, &["compare", "before.json"]), 2, &["one run"]);
    let history = stdout(&bench(&dir, &["history"]));
    assert_eq!(history.lines().count(), 3, "{history}");
    assert!(stdout(&bench(&dir, &["history", "tcp_rr", "--metric", "p50"])).contains("p50"));
    refused(&bench(&dir, &["history", "no_such"]), 2, &["no run of `no_such`"]);
    fs::remove_dir_all(dir).unwrap();
}

/// Both arms in turn, with the change made and taken back each time by the engine that `apply` has.
#[test]
fn a_change_is_tried_in_turn_and_taken_back() {
    let dir = directory("ab");
    let change =
        ["ab", "--kind", "tcp_rr", "--change", "qdisc:eth0=pfifo 500", "--rounds", "2", "-o", "ab.json"];
    let output = bench(&dir, &quick(&change));
    assert!(output.status.success(), "{}", stderr(&output));
    let result = RunResult::read(&dir.join("ab.json")).unwrap();
    let arms: Vec<_> = result.rounds.iter().map(|round| round.arm).collect();
    assert!(
        arms.len() == 4 && arms.chunks(2).all(|pair| pair.contains(&Arm::A) && pair.contains(&Arm::B)),
        "{arms:?}"
    );
    assert!(result.changes[0].what.contains("pfifo 500"), "{:?}", result.changes);
    let queue = |environment: &nettrace_bench::result::Environment| {
        environment.settings.get("client: queue of eth0").cloned().unwrap()
    };
    assert!(queue(result.environment_b.as_ref().unwrap()).contains("pfifo"));
    assert!(!queue(&result.environment).contains("pfifo "));
    // The probes saw both arms.
    let both = |segment: &nettrace_bench::result::Segment| segment.latency.iter().all(|l| l.count() > 0);
    assert!(result.segments.iter().any(|segment| segment.signal == "rx.stack" && both(segment)));
    let journal = nettrace::change::Journal::look(&nettrace::change::StateDir::new(Some(&dir))).unwrap();
    assert!(journal.len() >= 2 && journal.iter().all(|entry| !entry.is_active()), "{journal:?}");
    let same = bench(&dir, &quick(&["ab", "--kind", "tcp_rr", "--change", "mtu:eth0=1500"]));
    refused(&same, 2, &["is so already"]);
    refused(&bench(&dir, &["ab", "--scenario", "accept-queu"]), 2, &["`accept-queue`?"]);
    let foreign = ["ab", "--scenario", "accept-queue", "--connections", "7"];
    refused(&bench(&dir, &foreign), 2, &["a scenario has loads of its own"]);
    fs::remove_dir_all(dir).unwrap();
}

/// Stopped by hand, what there is is kept, and marked.
#[test]
fn what_was_stopped_is_kept_and_marked() {
    let dir = directory("stopped");
    let args = quick(&["run", "--kind", "tcp_rr", "--rounds", "200", "-o", "run.json", "--no-probes"]);
    let mut child = command(&dir, &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success());
    let result = RunResult::read(&dir.join("run.json")).unwrap();
    let partial = result.partial.unwrap();
    assert!((1..200).contains(&result.rounds.len()) && partial.planned_rounds == 200, "{partial:?}");
    assert!(partial.reason.contains("stopped"), "{partial:?}");
    fs::remove_dir_all(dir).unwrap();
}

/// The program in a namespace: another node, as far as it can tell.
pub(super) fn on(netns: &Netns, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    let program = nettrace().unwrap().get_program().to_owned();
    command.args(["netns", "exec", netns.name()]).arg(program).args(args);
    command.current_dir(dir).env("NETTRACE_STATE_DIR", dir).stdin(Stdio::null());
    command
}

/// The server of a benchmark, which ends with this.
pub(super) struct Server {
    child: Child,
}

impl Server {
    pub(super) fn start(netns: &Netns, dir: &Path, listen: &str) -> Self {
        let args = ["bench", "server", "--listen", listen, "--token-file", "token"];
        let mut child = on(netns, dir, &args).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for clients")));
        thread::spawn(move || lines.for_each(drop));
        Self { child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Client and server on two nodes: with the token they share a load, and everything that may go wrong says so.
#[test]
fn two_nodes_share_a_load_and_a_token() {
    let dir = directory("peers");
    let pair = Pair::start().unwrap();
    let (client, server) = (&pair.client().netns, &pair.server().netns);
    let address = SocketAddr::from((pair.server().ipv4, ADDRESS_PORT)).to_string();
    let run = |args: &[&str]| on(client, &dir, &quick_client(args)).output().unwrap();
    fs::write(dir.join("wrong"), "another token that is long enough\n").unwrap();
    let gone = run(&["--peer", &address, "--token-file", "wrong"]);
    refused(&gone, 2, &[&address]);
    let running = Server::start(server, &dir, &address);
    let output = run(&["--peer", &address, "--token-file", "token", "-o", "run.json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = RunResult::read(&dir.join("run.json")).unwrap();
    let outcome = &result.rounds[0].loads["tcp_rr"];
    assert!(outcome.count > 10 && outcome.error_count() == 0, "{outcome:?}");
    refused(&run(&["--peer", &address, "--token-file", "wrong"]), 2, &["token"]);
    refused(&run(&["--peer", &address, "--token-file", "missing"]), 2, &["missing"]);
    refused(&run(&["--peer", &address]), 2, &["--token-file"]);
    // A change is tried under load of its own.
    let tune = [
        "tune",
        "--set",
        "sysctl:net.ipv4.tcp_keepalive_time=1000",
        "--objective",
        "p50 of net.rtt",
        "--yes",
    ];
    let load = ["--json", "--bench", "tcp_rr", "--peer", &address, "--token-file", "token", "--rounds", "5"];
    let tuned = on(client, &dir, &[&tune[..], &load, &["--window", "200ms"]].concat()).output().unwrap();
    assert!(tuned.status.success(), "{}", stderr(&tuned));
    let trials: serde_json::Value = serde_json::from_str(&stdout(&tuned)).unwrap();
    let effect = &trials["trials"][0]["effects"][0];
    assert_eq!(effect["rounds"], 5, "{trials}");
    // The port is taken.
    let second = on(server, &dir, &["bench", "server", "--listen", &address, "--token-file", "token"])
        .output()
        .unwrap();
    refused(&second, 2, &[&address]);
    drop(running);
    // Somebody else listens there.
    let other = server.run(|| TcpListener::bind((pair.server().ipv4, ADDRESS_PORT))).unwrap().unwrap();
    let answers = thread::spawn(move || other.accept().map(drop));
    let stranger = run(&["--peer", &address, "--token-file", "token"]);
    assert_eq!(stranger.status.code(), Some(2), "{}", stderr(&stranger));
    answers.join().unwrap().unwrap();
    fs::remove_dir_all(dir).unwrap();
}

fn quick_client<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "client", "--kind", "tcp_rr", "--seconds", "0.2", "--warm-up-seconds", "0.02"], args].concat()
}
