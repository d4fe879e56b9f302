//! Made-up nodes: what is said of each as a whole, and of every single thing that may be amiss.

use super::*;
use crate::{btf::tests::Builder, probes::PROBES, report::Options};
use caps::{Capability, CapsHashSet};
use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write as _, path::Path};
use tempfile::TempDir;

/// A node that is in order until a test breaks it.
struct Node {
    dir: TempDir,
    caps: Vec<Capability>,
}

const ORDERLY: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.9-amd64\n"),
    ("proc/self/uid_map", "         0          0 4294967295\n"),
    (
        "proc/self/limits",
        "Limit      Soft Limit  Hard Limit  Units\nMax locked memory  8388608  8388608  bytes\n",
    ),
    (
        "proc/self/mounts",
        "bpf /sys/fs/bpf bpf rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n\
      debugfs /sys/kernel/debug debugfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    ),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("proc/sys/net/core/bpf_jit_harden", "0\n"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
    ("proc/sys/kernel/perf_event_paranoid", "-1\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "1234\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/sys/net/netfilter/nf_conntrack_buckets", "65536\n"),
    ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
    ("sys/kernel/btf/nf_conntrack", ""),
    ("sys/bus/event_source/devices/kprobe/type", "6\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm \n"),
    ("boot/config-6.12.9-amd64", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y\n"),
    ("sys/class/net/eth0/ifindex", "2\n"),
    ("sys/class/net/cali12ab/ifindex", "9\n"),
    ("etc/cni/net.d/10-calico.conflist", r#"{"name": "k8s-pod-network", "plugins": [{"type": "calico"}]}"#),
];

impl Node {
    fn orderly() -> Self {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
        let caps = vec![CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_RESOURCE];
        let node = Self { dir: TempDir::new().unwrap(), caps };
        ORDERLY.iter().for_each(|(path, text)| node.write(path, text.as_bytes()));
        let hooks = ["sk_data_ready", "sock_recv_length"];
        node.write("sys/kernel/btf/vmlinux", &types(&hooks));
        node
    }

    /// Older than what some signals need.
    fn old() -> Self {
        let node = Self::orderly().with("proc/sys/kernel/osrelease", "5.10.0-30-amd64");
        node.write("sys/kernel/btf/vmlinux", &types(&[]));
        node.without("proc/sys/net/netfilter").without("etc/cni")
    }

    /// Where nothing works.
    fn hopeless() -> Self {
        let node = Self::orderly()
            .without("sys/kernel/btf")
            .with("sys/kernel/security/lockdown", "none integrity [confidentiality]")
            .with("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
            .with("proc/sys/net/core/bpf_jit_enable", "0")
            .with("etc/cni/net.d/05-broken.conf", "{");
        Self { caps: vec![Capability::CAP_NET_ADMIN], ..node }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn with(self, path: &str, text: &str) -> Self {
        self.write(path, text.as_bytes());
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.dir.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    /// As on the node itself: without the way to it.
    fn diagnosis(&self, signals: impl FnOnce(String) -> Signals) -> Diagnosis {
        let problems = preflight::check(self, Needs { namespaces: false, map_bytes: 8 << 20 }).err();
        let problems = problems.map(|e| e.problems).unwrap_or_default();
        let signals = signals("the problems below forbid to load the programs".to_owned());
        let diagnosis = Diagnosis::new(&facts::gather(self), &problems, None, signals);
        let json = json(&diagnosis).unwrap().replace(&*self.dir.path().to_string_lossy(), "");
        serde_json::from_str(&json).unwrap()
    }

    /// By its types alone.
    fn by_btf(&self) -> Diagnosis {
        self.diagnosis(|why| Signals { missing: Vec::new(), ..signals::by_btf(self.dir.path(), why) })
    }

    /// As if the kernel had verified all programs.
    fn verified(&self) -> Diagnosis {
        self.diagnosis(|why| Signals {
            basis: Basis::Verifier,
            why: None,
            missing: Vec::new(),
            ..signals::by_btf(self.dir.path(), why)
        })
    }

    fn check(&self, name: &str) -> Check {
        find(&self.verified(), name)
    }
}

impl Machine for Node {
    fn root(&self) -> &Path {
        self.dir.path()
    }
    fn arch(&self) -> &str {
        "x86_64"
    }
    fn capabilities(&self) -> Result<CapsHashSet, caps::errors::CapsError> {
        Ok(self.caps.iter().copied().collect())
    }
    fn raise_memlock(&self) -> Option<u64> {
        None
    }
}

/// Types of a kernel that has these tracepoints, and all that came before 5.10.
fn types(newer: &[&str]) -> Vec<u8> {
    builder(newer).build()
}

fn builder(newer: &[&str]) -> Builder {
    let mut builder = Builder::new();
    let of = |program: &crate::probes::Program| match program.hook {
        crate::probes::Hook::TpBtf(name) if program.hook.since().is_none() => Some(name),
        _ => None,
    };
    let programs = PROBES.iter().flat_map(|p| p.sources).filter_map(|s| match s {
        crate::probes::Source::Programs(_, programs) => Some(*programs),
        crate::probes::Source::Netlink(_) | crate::probes::Source::Procfs(_) => None,
    });
    programs.flatten().filter_map(of).for_each(|name| builder.tracepoint(name));
    newer.iter().for_each(|name| builder.tracepoint(name));
    builder
}

fn find(diagnosis: &Diagnosis, name: &str) -> Check {
    diagnosis.checks.iter().find(|c| c.name == name).cloned().unwrap()
}

fn shown(diagnosis: &Diagnosis) -> String {
    text(diagnosis, &Options::default())
}

#[test]
fn golden_answers() {
    insta::assert_snapshot!("orderly_text", shown(&Node::orderly().verified()));
    insta::assert_snapshot!("old_text", shown(&Node::old().by_btf()));
    insta::assert_snapshot!("hopeless_text", shown(&Node::hopeless().by_btf()));
    insta::assert_snapshot!("old_json", json(&Node::old().by_btf()).unwrap());
}

#[test]
fn the_answer_is_that_of_preflight() {
    assert!(Node::orderly().verified().ready);
    assert!(Node::old().verified().ready, "signals that are off are no problem");
    assert!(!Node::hopeless().by_btf().ready);
    let nothing = |why| Signals { none: Some("refused".to_owned()), ..signals::by_btf(Path::new("/"), why) };
    let diagnosis = Node::orderly().diagnosis(nothing);
    assert!(!diagnosis.ready);
    assert_eq!(find(&diagnosis, "kernel programs").reason.as_deref(), Some("refused"));
}

#[test]
fn every_answer_fits_the_schema() {
    let validator = jsonschema::validator_for(schema().as_value()).unwrap();
    for diagnosis in [Node::orderly().verified(), Node::old().by_btf(), Node::hopeless().by_btf()] {
        let value = serde_json::from_str(&json(&diagnosis).unwrap()).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    assert!(!validator.is_valid(&serde_json::json!({"schema": 1})));
}

#[test]
fn colours_change_nothing_but_colours() {
    let diagnosis = Node::hopeless().by_btf();
    let colored = text(&diagnosis, &Options { color: true, ..Options::default() });
    assert!(colored.contains("\u{1b}[31m✗\u{1b}[0m"));
    let plain: String = colored
        .split('\u{1b}')
        .map(|part| part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, rest)| rest))
        .collect();
    assert_eq!(plain, shown(&diagnosis));
    assert!(shown(&diagnosis).lines().all(|line| line == line.trim_end()));
}

#[test]
fn an_older_kernel_lacks_signals_and_says_which_kernel_brought_them() {
    let diagnosis = Node::old().by_btf();
    let row = |name: &str| diagnosis.signals.iter().find(|row| row.name == name).unwrap().clone();
    assert_eq!(diagnosis.signals.len(), PROBES.len());
    let stack = row("rx.stack");
    assert_eq!((stack.state, stack.source), (State::Note, None));
    assert_eq!(
        stack.reason.as_deref(),
        Some(
            "this kernel has no tracepoint sk_data_ready (Linux 6.3); \
             the kernel proper has no function sock_def_readable"
        )
    );
    assert_eq!(row("tx.stack").source.as_deref(), Some("tp_btf net_dev_queue"));
    assert_eq!(row("dns.latency").source.as_deref(), Some("tc"));
}

#[test]
fn what_has_no_tracepoint_yet_is_measured_at_the_function() {
    let mut builder = builder(&[]);
    builder.function("sock_def_readable");
    let node = Node::old();
    node.write("sys/kernel/btf/vmlinux", &builder.build());
    let diagnosis = node.by_btf();
    let row = |name: &str| diagnosis.signals.iter().find(|row| row.name == name).unwrap().clone();
    let stack = row("rx.stack");
    assert_eq!(stack.state, State::Ok);
    assert_eq!(stack.source.as_deref(), Some("tp_btf netif_receive_skb, fentry sock_def_readable"));
    assert_eq!(stack.reason.as_deref(), Some("this kernel has no tracepoint sk_data_ready (Linux 6.3)"));
    assert_eq!(row("rx.total").source, None, "it lacks the function that reads");
}

#[test]
fn members_that_are_missing_are_named() {
    let node = Node::orderly();
    let missing = |why| Signals { missing: vec!["sk_buff.tstamp"], ..signals::by_btf(node.dir.path(), why) };
    let check = find(&node.diagnosis(missing), "structure members");
    assert_eq!((check.state, check.value.as_str()), (State::Note, "1 missing"));
    assert!(check.reason.unwrap().contains("lacks sk_buff.tstamp:"));
}

#[test]
fn a_program_that_is_refused_names_the_members_that_are_missing() {
    let probe = |reason: &str| crate::snapshot::Probe {
        name: "tx.stack".to_owned(),
        source: None,
        yields: Vec::new(),
        reason: Some(reason.to_owned()),
    };
    let reason = |said: &str, missing: &[&str]| signals::row(probe(said), missing).reason.unwrap();
    let refused = "tx_queue: the kernel refused the program: Permission denied";
    assert_eq!(reason(refused, &[]), refused);
    assert_eq!(
        reason(refused, &["sk_buff.dev", "sock.sk_err"]),
        format!("{refused}; this kernel lacks sk_buff.dev, sock.sk_err")
    );
    let absent = "this kernel has no tracepoint net_dev_queue";
    assert_eq!(
        reason(absent, &["sk_buff.dev"]),
        absent,
        "a hook that is not there has nothing to do with members"
    );
}

/// Each with a node where it is so: file, content, check, state, and what the check says.
#[test]
fn single_things_that_may_be_amiss() {
    const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0";
    let clock = format!("{CLOCKS}/current_clocksource");
    let jit = "proc/sys/net/core/bpf_jit_enable";
    let harden = "proc/sys/net/core/bpf_jit_harden";
    let memlock = "Max locked memory  unlimited  unlimited  bytes";
    for (path, content, name, state, said) in [
        (jit, "0", "JIT", State::Note, "interpreted"),
        (jit, "2", "JIT", State::Note, "logs the code"),
        (jit, "x", "JIT", State::Note, "/bpf_jit_enable: `x` is not a number"),
        (harden, "1", "JIT hardening", State::Ok, "for unprivileged"),
        (harden, "2", "JIT hardening", State::Note, "blinded"),
        ("proc/sys/kernel/unprivileged_bpf_disabled", "0", "unprivileged BPF", State::Ok, "allowed"),
        (&clock, "kvm-clock", "clock source", State::Ok, "kvm-clock, of tsc"),
        (&clock, "hpet", "clock source", State::Note, "boot with clocksource=tsc"),
        ("proc/self/limits", memlock, "locked memory", State::Ok, "no limit"),
        ("proc/self/limits", "", "locked memory", State::Ok, "does not matter"),
        ("proc/self/uid_map", "0 100000 65536", "user namespace", State::Problem, "not rootless"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "260000", "conntrack", State::Note, "nearly full"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "0", "conntrack", State::Ok, "1,234 connections"),
        ("proc/sys/kernel/osrelease", "5.4.0", "version", State::Problem, "too old"),
        ("proc/sys/kernel/osrelease", "6.1.0", "TC programs", State::Note, "Linux 6.6"),
        ("proc/self/mounts", "cgroup /c cgroup rw 0 0", "cgroup", State::Ok, "v1, 1 hierarchy"),
        ("proc/self/mounts", "", "bpffs", State::Ok, "not mounted"),
    ] {
        let check = Node::orderly().with(path, content).check(name);
        let text = format!("{check:?}");
        assert_eq!(check.state, state, "{path} {content}: {text}");
        assert!(text.contains(said), "{path} {content}: {text}");
    }
}

#[test]
fn a_kernel_without_btf_is_told_so_and_works() {
    let node = Node::orderly().without("sys/kernel/btf");
    let diagnosis = node.verified();
    assert!(diagnosis.ready, "{diagnosis:?}");
    let check = find(&diagnosis, "BTF");
    assert_eq!((check.state, check.value.as_str()), (State::Note, "none"));
    assert!(check.hint.unwrap().contains("CONFIG_DEBUG_INFO_BTF=y"));
    assert_eq!(find(&diagnosis, "structure members").value, "not known");
}

#[test]
fn what_cannot_be_read_says_so() {
    for (path, name, state) in [
        ("proc/sys/net/core/bpf_jit_enable", "JIT", State::Note),
        ("sys/devices/system/clocksource", "clock source", State::Note),
        ("proc/self/mounts", "tracefs", State::Note),
        ("sys/kernel/security", "lockdown", State::Ok),
        ("boot", "fentry", State::Ok),
    ] {
        let check = Node::orderly().without(path).check(name);
        assert_eq!((check.state, check.value.as_str()), (state, "not known"), "{path}");
        assert!(check.from.is_empty() && check.reason.unwrap().starts_with("cannot read /"), "{path}");
    }
    let check = Node::orderly().without("proc/sys/net/netfilter").check("conntrack");
    assert_eq!((check.state, check.value.as_str()), (State::Ok, "not loaded"));
    let check = Node::orderly().without("sys/kernel/btf/nf_conntrack").check("BTF");
    assert!(check.value.ends_with("modules with BTF: 0"), "{check:?}");
}

#[test]
fn kprobes_are_told_by_what_there_is() {
    let bare = || Node::orderly().without("sys/bus");
    let node = Node::orderly().without("sys/bus/event_source/devices/kprobe");
    assert_eq!(node.check("kprobes").value, "no");
    let node = bare().with("sys/kernel/tracing/kprobe_events", "");
    assert_eq!(node.check("kprobes").from, ["/sys/kernel/tracing/kprobe_events"]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(b"# CONFIG_KPROBES is not set\nCONFIG_KPROBE_EVENTS=y\n").unwrap();
    let node = bare();
    node.write("proc/config.gz", &packed.finish().unwrap());
    let check = node.check("kprobes");
    assert_eq!((check.value.as_str(), check.from), ("yes", vec!["/proc/config.gz".to_owned()]));
    assert_eq!(node.check("fentry").value, "no");
}

#[test]
fn capabilities_are_listed_and_what_is_missing_is_the_runs_problem() {
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON};
    let with = |caps: &[Capability]| Node { caps: caps.to_vec(), ..Node::orderly() }.check("capabilities");
    assert_eq!(Node::orderly().check("capabilities").state, State::Ok);
    let check = with(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN]);
    assert_eq!((check.state, check.value.as_str()), (State::Note, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"));
    let check = with(&[CAP_NET_ADMIN]);
    assert_eq!(check.reason.as_deref(), Some("missing CAP_BPF and CAP_PERFMON"));
    assert!(check.state == State::Problem && check.hint.unwrap().contains("sudo"));
}

#[test]
fn pod_networks_are_guessed_from_configurations_and_interfaces() {
    let guess = |config: Option<(&str, &str)>, interface: &str| {
        let node = Node::orderly().without("etc/cni").without("sys/class/net");
        let node = node.with(&format!("sys/class/net/{interface}/ifindex"), "3");
        let node = match config {
            Some((name, text)) => node.with(&format!("etc/cni/net.d/{name}"), text),
            None => node,
        };
        node.check("pod network (CNI)")
    };
    for (interface, value) in [
        ("eth0", "none"),
        ("cali1", "Calico"),
        ("cilium_host", "Cilium"),
        ("lxc0a1b", "Cilium or LXC"),
        ("flannel.1", "Flannel"),
        ("cni0", "bridge plugin"),
        ("cni01", "none"),
        ("kube-ipvs0", "kube-proxy (IPVS)"),
    ] {
        let check = guess(None, interface);
        assert_eq!((check.state, check.value.as_str()), (State::Ok, value), "{interface}");
    }
    for (name, text, value) in [
        ("10-kindnet.conflist", r#"{"name": "kindnet", "plugins": [{"type": "ptp"}]}"#, "kindnet"),
        ("05-cilium.conflist", r#"{"plugins": [{"type": "cilium-cni"}]}"#, "Cilium"),
        ("10-new.conf", r#"{"type": "brand-new"}"#, "brand-new"),
        ("10-calico.conflist.bak", r#"{"plugins": [{"type": "calico"}]}"#, "none"),
    ] {
        assert_eq!(guess(Some((name, text)), "eth0").value, value, "{name}");
    }
    for text in ["{", "[]", r#"{"plugins": 3}"#] {
        let check = guess(Some(("10-x.conf", text)), "eth0");
        assert_eq!((check.state, check.value.as_str()), (State::Note, "unknown"), "{text}");
        assert!(check.reason.unwrap().contains("/etc/cni/net.d/10-x.conf"), "{text}");
    }
}

/// Names that come from outside do not reach a terminal as they are.
#[test]
fn a_hostile_name_is_spelled_out() {
    let hostile = r#"{"type": "\u001b[2Jgone\n"}"#;
    let diagnosis = Node::orderly().with("etc/cni/net.d/00-a.conf", hostile).verified();
    let text = shown(&diagnosis);
    assert!(!text.contains('\u{1b}') && text.contains("gone"), "{text}");
}
