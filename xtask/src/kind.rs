//! `cargo xtask kind`: the agent in a cluster of containers, with traffic of pods in it. What it measures is checked, and a
//! load between nodes is compared before and after it came.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{image, process, workspace};

/// Name of the cluster, and tag of the image in it.
const CLUSTER: &str = "nettrace";
const TAG: &str = "kind";
/// For so long each part of the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(180);
const BENCH: &[&str] = &["--kind", "tcp_rr", "--rounds", "5", "--no-pin", "--no-probes", "--no-history"];

/// Run the agent in a kind cluster: build, load, deploy, traffic, check, bench
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the cluster there afterwards
    #[arg(long)]
    keep: bool,
    /// Only say what is missing
    #[arg(long)]
    preflight: bool,
    /// Where metrics, findings, results and reports go
    #[arg(long, value_name = "DIR", default_value = "target/kind")]
    output: PathBuf,
}

/// A program that is needed, what to ask it, and what to do where it does not answer.
const NEEDED: &[(&str, &[&str], &str)] = &[
    ("docker", &["info"], "install docker and start its daemon"),
    ("kind", &["version"], "go install sigs.k8s.io/kind@latest, or https://kind.sigs.k8s.io"),
    ("kubectl", &["version", "--client"], "https://kubernetes.io/docs/tasks/tools"),
];

/// What is missing, with what to do; empty when it can be done.
fn missing() -> Vec<String> {
    NEEDED
        .iter()
        .filter(|(program, check, _)| {
            process::find(program).is_none()
                || !process::output(Command::new(program).args(*check)).is_ok_and(|out| out.status.success())
        })
        .map(|(program, check, hint)| format!("`{program} {}` does not work: {hint}", check.join(" ")))
        .collect()
}

/// From an empty machine to the reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let missing = missing();
    if !missing.is_empty() {
        bail!("this machine lacks what a cluster takes:\n  {}", missing.join("\n  "));
    }
    if args.preflight {
        println!("kind: everything is there");
        return Ok(());
    }
    let output = workspace::root().join(&args.output);
    fs::create_dir_all(&output)?;
    let archive = image::of_this_machine(TAG)?;
    let cluster = Cluster::create(&output, args.keep)?;
    process::run(Command::new("kind").args(["load", "image-archive", "--name", CLUSTER]).arg(&archive))?;
    let outcome = cluster.everything(&output);
    if outcome.is_err() {
        cluster.tell(&output);
    }
    outcome
}

/// A cluster, deleted in the end.
struct Cluster {
    config: PathBuf,
    keep: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            println!("kind: the cluster stays; `kind delete cluster --name {CLUSTER}` deletes it");
            return;
        }
        if let Err(error) = process::run(Command::new("kind").args(["delete", "cluster", "--name", CLUSTER]))
        {
            println!("kind: the cluster is still there: {error:#}");
        }
    }
}

impl Cluster {
    fn create(output: &Path, keep: bool) -> Result<Self> {
        let config = output.join("kubeconfig");
        let mut cmd = Command::new("kind");
        cmd.args(["create", "cluster", "--name", CLUSTER, "--wait", "180s", "--config"])
            .arg(manifest("cluster.yaml"));
        // From here on, so that one that comes up by half is deleted, too.
        let cluster = Self { config, keep };
        process::run(cmd.arg("--kubeconfig").arg(&cluster.config))?;
        Ok(cluster)
    }

    fn kubectl(&self, words: &[&str]) -> Command {
        let mut cmd = Command::new("kubectl");
        cmd.arg("--kubeconfig").arg(&self.config).args(words);
        cmd
    }

    fn everything(&self, output: &Path) -> Result<()> {
        self.deploy_bench()?;
        let before = self.bench(output, "before")?;
        process::run(self.kubectl(&["apply", "-k"]).arg(workspace::root().join("deploy/kubernetes/kind")))?;
        process::run(self.kubectl(&["apply", "-f"]).arg(manifest("traffic.yaml")))?;
        let wait = format!("--timeout={}s", PATIENCE.as_secs());
        for (namespace, name) in
            [("nettrace", "nettrace-agent"), ("traffic", "server"), ("traffic", "client")]
        {
            let name = format!("daemonset/{name}");
            process::run(&mut self.kubectl(&["-n", namespace, "rollout", "status", &name, &wait]))?;
        }
        let agents = self.pods("nettrace")?;
        ensure!(agents.len() == 2, "an agent on each node: {agents:?}");
        for agent in &agents {
            self.check(agent, output)?;
        }
        let after = self.bench(output, "after")?;
        self.compare(output, &before, &after)?;
        let page = self.get(&agents[0], "api/history", &output.join("report.html"))?;
        ensure!(page.contains("<html") || page.contains("<!doctype html"), "the history is no page");
        println!("kind: all is well; {} has what was measured", output.display());
        Ok(())
    }

    /// Names of a namespace's pods.
    fn pods(&self, namespace: &str) -> Result<Vec<String>> {
        let names = ["-n", namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
        Ok(process::stdout(&mut self.kubectl(&names))?.split_whitespace().map(str::to_owned).collect())
    }

    /// Asks an agent, by way of the API server, and keeps the answer.
    fn get(&self, agent: &str, path: &str, keep: &Path) -> Result<String> {
        let url = format!("/api/v1/namespaces/nettrace/pods/{agent}:9464/proxy/{path}");
        let answer = process::stdout(&mut self.kubectl(&["get", "--raw", &url]))?;
        fs::write(keep, &answer)?;
        Ok(answer)
    }

    /// Until an agent has seen the pods' traffic, and what it says of that.
    fn check(&self, agent: &str, output: &Path) -> Result<()> {
        let metrics = output.join(format!("{agent}.metrics"));
        let begun = Instant::now();
        loop {
            let text = self.get(agent, "metrics", &metrics)?;
            let unseen: Vec<_> = SEEN.iter().filter(|name| total(&text, name) == 0.0).collect();
            if unseen.is_empty() {
                break;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{agent} has not seen {unseen:?}; {} has the rest",
                metrics.display()
            );
            sleep(Duration::from_secs(5));
        }
        let findings = self.get(agent, "api/findings", &output.join(format!("{agent}.findings.json")))?;
        let findings: serde_json::Value = serde_json::from_str(&findings).context("findings")?;
        ensure!(findings.is_array() || findings.is_object(), "{agent}: findings are {findings}");
        println!("kind: {agent} sees packets and names of pods");
        Ok(())
    }

    fn deploy_bench(&self) -> Result<()> {
        process::run(&mut self.kubectl(&["create", "namespace", "bench"]))?;
        let token = format!("--from-literal=token=kind-{}", std::process::id());
        process::run(&mut self.kubectl(&[
            "-n",
            "bench",
            "create",
            "secret",
            "generic",
            "bench-token",
            &token,
        ]))?;
        process::run(self.kubectl(&["apply", "-f"]).arg(manifest("bench.yaml")))?;
        let wait = format!("--timeout={}s", PATIENCE.as_secs());
        process::run(&mut self.kubectl(&[
            "-n",
            "bench",
            "wait",
            "--for=condition=Ready",
            "pods",
            "--all",
            &wait,
        ]))
    }

    /// A load between the two nodes, started in the client's pod. An image without a shell has no tar to copy a file with, so
    /// the result comes by standard output.
    fn bench(&self, output: &Path, name: &str) -> Result<PathBuf> {
        let address = ["-n", "bench", "get", "pod", "server", "-o", "jsonpath={.status.podIP}"];
        let peer = format!("{}:7432", process::stdout(&mut self.kubectl(&address))?.trim());
        let mut cmd = self.kubectl(&[
            "-n",
            "bench",
            "exec",
            "client",
            "--",
            "/usr/bin/nettrace",
            "bench",
            "run",
            "--peer",
        ]);
        cmd.args([&peer, "--token-file", "/shared/token"]).args(BENCH).args(["-o", "/dev/stdout"]);
        let path = output.join(format!("{name}.json"));
        process::run(cmd.stdout(Stdio::from(File::create(&path)?)))?;
        println!("kind: {} has the load {name} the agent came", path.display());
        Ok(path)
    }

    /// Compared on this machine, by the program of the image.
    fn compare(&self, output: &Path, before: &Path, after: &Path) -> Result<()> {
        let program = workspace::target_dir().join("dist").join(crate::release::Arch::host()?.target());
        let mut cmd = Command::new(program.join("release/nettrace"));
        cmd.args(["bench", "compare"]).args([before, after]).arg("--report").arg(output.join("bench.html"));
        process::run(&mut cmd)
    }

    /// What there is to see when something went wrong.
    fn tell(&self, output: &Path) {
        let asked: [(&str, &[&str]); 3] = [
            ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
            ("agents.txt", &["-n", "nettrace", "describe", "pods"]),
            (
                "agents.log",
                &["-n", "nettrace", "logs", "-l", "app.kubernetes.io/name=nettrace", "--prefix", "--tail=-1"],
            ),
        ];
        for (file, words) in asked {
            let told = process::output(&mut self.kubectl(words)).map(|out| [out.stdout, out.stderr].concat());
            if told.and_then(|told| Ok(fs::write(output.join(file), told)?)).is_err() {
                println!("kind: no {file}");
            }
        }
    }
}

/// Counters and histograms that the traffic moves.
const SEEN: &[&str] = &["nettrace_fwd_host_seconds_count", "nettrace_dns_transactions_total"];

/// The sum of a metric's series.
fn total(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    lines.filter_map(|line| line.split('#').next()?.split_whitespace().last()?.parse::<f64>().ok()).sum()
}

fn manifest(name: &str) -> PathBuf {
    workspace::root().join("deploy/kubernetes/kind").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_name() {
        let text = "# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2 3\"} 3.5 # {} 7\na_total_other 9\nb_count 4\n";
        assert_eq!(total(text, "a_total"), 5.5);
        assert_eq!(total(text, "b_count"), 4.0);
        assert_eq!(total(text, "c"), 0.0);
    }

    #[test]
    fn what_is_missing_says_what_to_do() {
        for line in missing() {
            assert!(
                NEEDED.iter().any(|(program, _, hint)| line.contains(program) && line.ends_with(hint)),
                "{line}"
            );
        }
    }
}
