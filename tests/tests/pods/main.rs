//! The image in a real container runtime: with the capabilities that the DaemonSet names, and no others, it measures what two
//! pods say to each other. And what is in `deploy/kubernetes` renders.

#![expect(clippy::print_stdout, reason = "figures, for who runs it with --nocapture")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod containerd;
mod cri;

use containerd::{Containerd, PAUSE};
use cri::{
    Capabilities, ContainerConfig, ContainerMetadata, ContainerSecurity, Cri, Image, LinuxContainer,
    LinuxPod, Mount, NODE, NamespaceOption, PodConfig, PodMetadata, PodSecurity, Profile,
};
use nettrace::{privilege::CAPABILITIES, snapshot::Snapshot};
use nettrace_common::Signal;
use nettrace_tests::{comes_about, count, http};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

const IMAGE: &str = "localhost/nettrace:test";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The capabilities of the DaemonSet, without their prefix.
fn of_the_daemonset() -> Vec<String> {
    let text = fs::read_to_string(deploy("kubernetes/base/daemonset.yaml")).unwrap();
    let list = text.lines().find_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']')).unwrap();
    list.split(", ").map(str::to_owned).collect()
}

fn pod(name: &str, containerd: &Containerd, network: i32) -> PodConfig {
    let uid = format!("{name}-{}", std::process::id());
    let namespaces = NamespaceOption { network, pid: network, ipc: 0 };
    let cgroup_parent = format!("/{}/kubepods/besteffort/pod{uid}", containerd.cgroup);
    PodConfig {
        metadata: Some(PodMetadata { name: name.to_owned(), uid, namespace: "test".to_owned() }),
        // The node's network comes with its name.
        hostname: if network == NODE { String::new() } else { name.to_owned() },
        log_directory: containerd.logs().display().to_string(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPod { cgroup_parent, security: Some(PodSecurity { namespaces: Some(namespaces) }) }),
    }
}

/// A container that may do nothing but what is named.
fn container(
    name: &str,
    args: &[&str],
    shared: &Path,
    capabilities: Vec<String>,
    network: i32,
) -> ContainerConfig {
    let security = ContainerSecurity {
        capabilities: Some(Capabilities { add: capabilities, drop: vec!["ALL".to_owned()] }),
        namespaces: Some(NamespaceOption { network, pid: network, ipc: 0 }),
        readonly_root: true,
        no_new_privs: true,
        seccomp: Some(Profile { kind: 0 }),
    };
    let host_path = shared.display().to_string();
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned() }),
        image: Some(Image { image: IMAGE.to_owned() }),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        mounts: vec![Mount { container_path: "/shared".to_owned(), host_path, readonly: false }],
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainer { security: Some(security) }),
    }
}

/// Pods that are removed in the end, however that comes.
struct Pods<'a> {
    cri: &'a Cri,
    ids: Vec<String>,
}

impl Pods<'_> {
    fn run(&mut self, config: &PodConfig) -> String {
        let id = self.cri.run_pod(config).unwrap();
        self.ids.push(id.clone());
        id
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        for id in &self.ids {
            if let Err(error) = self.cri.remove(id) {
                println!("pod {id} is still there: {error:#}");
            }
        }
    }
}

/// What a container said.
fn said(containerd: &Containerd, name: &str) -> String {
    fs::read_to_string(containerd.logs().join(format!("{name}.log"))).unwrap_or_default()
}

fn wait_for(done: impl FnMut() -> bool) -> bool {
    comes_about(Duration::from_secs(90), done)
}

/// Sets of capabilities of a container's processes, as `/proc/PID/status` shows them: its own bounding sets.
fn bounding_sets(container: &str) -> Vec<u64> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_its =
        |path: &PathBuf| fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(container));
    pids.filter(is_its)
        .filter_map(|path| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        })
        .collect()
}

#[test]
fn the_image_measures_pods_with_the_documented_capabilities_alone() {
    if let Some(missing) = containerd::missing() {
        println!("not tested: {missing}");
        return;
    }
    let scratch = Scratch::new();
    let dir = &scratch.0;
    let images = containerd::images(dir).unwrap();
    let containerd = Containerd::start(dir, &images, PAUSE).unwrap();
    let cri = Cri::connect(&containerd.socket()).unwrap();
    measure(&containerd, &cri, &dir.join("shared"));
}

/// A directory that goes with the test. Its name is short: a socket's path has room for 107 bytes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = env::temp_dir().join(format!("nettrace-cri-{}", std::process::id()));
        fs::create_dir_all(dir.join("shared")).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("{} is still there: {error}", self.0.display());
        }
    }
}

fn measure(containerd: &Containerd, cri: &Cri, shared: &Path) {
    fs::write(shared.join("token"), "between two pods\n").unwrap();
    fs::set_permissions(shared.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut pods = Pods { cri, ids: Vec::new() };
    let configs = ["server", "client"].map(|name| pod(name, containerd, 0));
    let [server, client] = configs.each_ref().map(|config| pods.run(config));
    let address = cri.address(&server).unwrap();
    let listen = format!("{address}:7432");
    let serve = ["bench", "server", "--listen", &listen, "--token-file", "/shared/token", "--no-pin"];
    cri.start(&server, &configs[0], container("server", &serve, shared, Vec::new(), 0)).unwrap();

    let agent = pod("agent", containerd, NODE);
    let agent_pod = pods.run(&agent);
    let capabilities = of_the_daemonset();
    let mask =
        capabilities.iter().map(|name| format!("CAP_{name}").parse::<caps::Capability>().unwrap().bitmask());
    let mask: u64 = mask.sum();
    let served = start_agent(containerd, cri, &agent_pod, &agent, shared);
    let run = ["run", "-d", "15s", "--quiet", "--format", "json", "-o", "/shared/run.json"];
    let config = container("run", &run, shared, capabilities, NODE);
    let measuring = cri.start(&agent_pod, &agent, config).unwrap();
    assert!(wait_for(|| !bounding_sets(&measuring).is_empty()), "{}", containerd.log());
    assert_eq!(bounding_sets(&measuring), [mask]);
    // While it attaches: what comes earlier is not measured.
    let attached = || {
        let show = Command::new("ip")
            .args(["-n", containerd.node.name(), "-o", "link", "show", "type", "veth"])
            .output();
        String::from_utf8(show.unwrap().stdout).unwrap().lines().count() == 2
    };
    assert!(wait_for(attached), "two pods, two ends of veth pairs");
    sleep(Duration::from_secs(6));

    let load = [
        "--kind",
        "tcp_rr",
        "--rounds",
        "1",
        "--no-pin",
        "--no-probes",
        "--no-history",
        "-o",
        "/shared/load.json",
    ];
    let bench = [&["bench", "run", "--peer", &listen, "--token-file", "/shared/token"], &load[..]].concat();
    let load = cri.start(&client, &configs[1], container("client", &bench, shared, Vec::new(), 0)).unwrap();
    let ended = |id: &str| cri.ended(id).unwrap();
    assert!(wait_for(|| ended(&load).is_some()), "the load does not end");
    assert_eq!(ended(&load), Some(0), "{}", said(containerd, "client"));
    assert!(wait_for(|| ended(&measuring).is_some()), "measuring does not end");
    assert_eq!(ended(&measuring), Some(0), "{}", said(containerd, "run"));

    let snapshot = Snapshot::from_json(&fs::read(shared.join("run.json")).unwrap()).unwrap();
    let veths = snapshot.interfaces.iter().filter(|row| row.name.starts_with("veth") && row.error.is_none());
    assert_eq!(veths.filter(|row| !row.attached.is_empty()).count(), 2, "{:?}", snapshot.interfaces);
    let forwarded = count(&snapshot, Signal::FwdHost);
    println!("{forwarded} packets from pod to pod, {} kernel programs ran", snapshot.overhead.programs.len());
    assert!(forwarded > 1000, "{forwarded}: {}", said(containerd, "client"));
    assert!(snapshot.tcp.connects > 0, "{:?}", snapshot.tcp);
    assert!(
        !snapshot.overhead.programs.is_empty(),
        "what run-time statistics need is among the capabilities"
    );
    let counted = || http::sum(&ask(containerd, "/metrics"), "nettrace_fwd_host_seconds_count") > 1000.0;
    assert!(wait_for(counted), "the agent counts no packets of pods: {}", said(containerd, "agent"));
    let kept = bounding_sets(&served);
    assert!(
        !kept.is_empty() && kept.iter().all(|set| set & !mask == 0 && *set != mask),
        "it gives up what it needs no more: {kept:x?}"
    );
    let history = fs::read_dir(shared.join("state/history")).unwrap().count();
    assert!(history > 0, "no history: {}", ask(containerd, "/api/status"));
}

/// What the agent answers, in the node's network.
fn ask(containerd: &Containerd, path: &str) -> String {
    let asked = containerd.node.run(|| http::ask("127.0.0.1:9464", "GET", path)).unwrap();
    asked.unwrap_or_else(|error| error.to_string())
}

/// The agent as the DaemonSet runs it: with its configuration and its capabilities. Yields its container, once it is ready.
fn start_agent(containerd: &Containerd, cri: &Cri, pod: &str, config: &PodConfig, shared: &Path) -> String {
    fs::copy(deploy("kubernetes/base/agent.toml"), shared.join("agent.toml")).unwrap();
    let state = shared.join("state");
    fs::create_dir_all(&state).unwrap();
    let args = ["agent", "--config", "/shared/agent.toml"];
    let mut agent = container("agent", &args, shared, of_the_daemonset(), NODE);
    let host_path = state.display().to_string();
    agent.mounts.push(Mount { container_path: "/var/lib/nettrace".to_owned(), host_path, readonly: false });
    let id = cri.start(pod, config, agent).unwrap();
    let is_ready = || ask(containerd, "/readyz").starts_with("HTTP/1.1 200");
    assert!(wait_for(is_ready), "the agent is not ready: {}", said(containerd, "agent"));
    id
}

/// What is documented is what the DaemonSet and the unit ask for.
#[test]
fn one_list_of_capabilities_is_everywhere() {
    let daemonset = of_the_daemonset();
    let unit = fs::read_to_string(deploy("systemd/nettrace-agent.service")).unwrap();
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let bounding: Vec<_> =
        bounding.split(' ').map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    assert_eq!(daemonset, bounding);
    let documented = fs::read_to_string(deploy("../docs/privileges.md")).unwrap();
    for name in &daemonset {
        assert!(documented.contains(&format!("CAP_{name}")), "{name}");
    }
    // What is kept is asked for, but for processes' namespaces, which are chosen by hand.
    for kept in CAPABILITIES.iter().filter(|kept| kept.when != nettrace::privilege::When::Processes) {
        assert!(
            daemonset.contains(&kept.capability.to_string().trim_start_matches("CAP_").to_owned()),
            "{kept:?}"
        );
    }
}

/// kubectl puts every variant together, and what it yields is what is meant.
#[test]
fn manifests_render() {
    let Ok(version) = Command::new("kubectl").args(["version", "--client"]).output() else {
        println!("not tested: there is no kubectl here");
        return;
    };
    assert!(version.status.success());
    // A variant of someone's own, with both components.
    let own = deploy("kubernetes").join(format!(".test-{}", std::process::id()));
    fs::create_dir_all(&own).unwrap();
    let text = "resources: [../base]\ncomponents: [../podmonitor, ../old-kernels]\n";
    fs::write(own.join("kustomization.yaml"), text).unwrap();
    let render = |dir: &Path| {
        let done = Command::new("kubectl").arg("kustomize").arg(dir).output().unwrap();
        (
            done.status.success(),
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        )
    };
    let rendered =
        [deploy("kubernetes/base"), deploy("kubernetes/kind"), own.clone()].map(|dir| render(&dir));
    fs::remove_dir_all(&own).unwrap();
    for (good, text, error) in &rendered {
        assert!(good, "{error}");
        for kind in ["Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"] {
            assert_eq!(
                text.lines().filter(|line| *line == format!("kind: {kind}")).count(),
                1,
                "{kind}: {text}"
            );
        }
        assert!(
            text.contains("readOnlyRootFilesystem: true") && text.contains("- operator: Exists"),
            "{text}"
        );
    }
    let [base, kind, own] = rendered.map(|(_, text, _)| text);
    assert!(
        base.contains("ghcr.io/nettrace/nettrace:")
            && !base.contains("SYS_RESOURCE")
            && !base.contains("PodMonitor")
    );
    assert!(kind.contains("image: localhost/nettrace:kind") && kind.contains("imagePullPolicy: Never"));
    assert!(
        own.contains("kind: PodMonitor")
            && own.contains("- SYS_RESOURCE")
            && own.contains("secretName: nettrace-token")
    );
    assert!(
        own.contains("listen = \"0.0.0.0:9464\"") && !own.contains("listen = \"127.0.0.1:9464\""),
        "{own}"
    );
}
