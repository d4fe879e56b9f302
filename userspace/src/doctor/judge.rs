//! What the facts mean for `nettrace run`. It reads nothing; whether a run would start is what preflight and the
//! loader said, and everything else is at most a note.

use super::{
    Area, Basis, Check, State, cni,
    facts::{Conntrack, Fact, Facts, Mount},
    files::FileError,
    signals::Signals,
};
use crate::{
    btf,
    preflight::{BTF_HINT, NO_MEMLOCK, Problem, Release},
    report::units,
    snapshot::ConntrackTable,
};
use caps::Capability;

/// From this kernel on TC programs are attached by tcx. Source: kernel commit e420bed02507.
const TCX: Release = Release { major: 6, minor: 6 };

/// Clock sources that are read without leaving the CPU, in tens of nanoseconds. Sources: arch/x86/kernel/tsc.c,
/// drivers/clocksource/arm_arch_timer.c, arch/x86/kernel/kvmclock.c, drivers/clocksource/hyperv_timer.c.
const CHEAP_CLOCKS: [&str; 4] = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"];

impl Check {
    fn new(area: Area, name: &str, value: impl Into<String>) -> Self {
        Self {
            area,
            name: name.to_owned(),
            state: State::Ok,
            value: value.into(),
            reason: None,
            hint: None,
            from: Vec::new(),
        }
    }

    /// Of something that was read; what could not be read is a note that says why.
    fn of<T>(area: Area, name: &str, fact: &Fact<T>, value: impl FnOnce(&T) -> String) -> Self {
        match &fact.value {
            Ok(known) => Self { from: fact.from.clone(), ..Self::new(area, name, value(known)) },
            Err(error) => Self::new(area, name, "not known").note(format!("cannot read {error}"), None),
        }
    }

    fn from(mut self, from: &str) -> Self {
        self.from.push(from.to_owned());
        self
    }

    /// A word on what is as it should be.
    fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    fn note(mut self, reason: impl Into<String>, hint: Option<&str>) -> Self {
        self.state = State::Note;
        self.reason = Some(reason.into());
        self.hint = hint.map(str::to_owned);
        self
    }

    /// Marks what preflight found; the first that `is` about this check.
    fn unless(mut self, problems: &[Problem], is: impl Fn(&Problem) -> bool) -> Self {
        if let Some(problem) = problems.iter().find(|p| is(p)) {
            self.state = State::Problem;
            self.reason = Some(problem.to_string());
            self.hint = Some(problem.hint());
        }
        self
    }

    fn is_known(&self) -> bool {
        !self.from.is_empty()
    }
}

/// All checks of the node, by area.
pub(super) fn node(facts: &Facts, problems: &[Problem], signals: &Signals) -> Vec<Check> {
    let mut checks = kernel(facts, problems, signals);
    checks.extend(bpf(facts, problems, signals.basis));
    checks.extend(mounts(&facts.mounts));
    checks.extend([conntrack(&facts.conntrack), plugins(&facts.cni)]);
    checks
}

/// The object does not load, or no program of it.
pub(super) fn nothing_to_measure(reason: String) -> Check {
    let mut check = Check::new(Area::Bpf, "kernel programs", "none can be loaded").because(reason);
    check.state = State::Problem;
    check.hint = Some("run `nettrace -vv doctor`, which shows what the verifier says".to_owned());
    check
}

fn kernel(facts: &Facts, problems: &[Problem], signals: &Signals) -> Vec<Check> {
    let version = Check::of(Area::Kernel, "version", &facts.release, |r| format!("{r} {}", facts.arch));
    let version = version.unless(problems, |p| {
        matches!(p, Problem::KernelTooOld(_) | Problem::KernelUnknown { .. } | Problem::Arch(_))
    });
    vec![
        version,
        types(facts, problems),
        members(facts, signals),
        tcx(&facts.release),
        kprobes(facts),
        fentry(facts),
        clock(&facts.clock, &facts.clocks),
    ]
}

/// Functions of modules are reached by these alone.
fn kprobes(facts: &Facts) -> Check {
    const USE: &str =
        "used for ct.clash and ct.full, and where fentry does not reach for nf.hook, ct.in and ct.confirm";
    used(Check::of(Area::Kernel, "kprobes", &facts.kprobes, |there| yes(*there)), USE)
}

/// What has a tracepoint since 6.3 is measured at its function before.
fn fentry(facts: &Facts) -> Check {
    const USE: &str = "used for ip.fragmenting, ip.defragmenting and nf.hook; before Linux 6.3 for rx.stack, rx.socket and \
                       rx.total too";
    let built_in = |there: &bool| if *there { "built in" } else { "no" }.to_owned();
    used(Check::of(Area::Kernel, "fentry", &facts.fentry, built_in), USE)
}

/// What is not there is worth a note, and so is what it is for; what is not known loses nothing.
fn used(check: Check, what_for: &str) -> Check {
    let state = if check.value == "no" { State::Note } else { State::Ok };
    let reason = check.reason.clone().map_or_else(|| what_for.to_owned(), |r| format!("{r}; {what_for}"));
    Check { state, ..check }.because(reason)
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

const WITHOUT_BTF: &str = "the kernel was built without CONFIG_DEBUG_INFO_BTF, or /sys is not the host's: what reads \
                           kernel structures is off";

fn types(facts: &Facts, problems: &[Problem]) -> Check {
    if facts.btf_bytes.value.as_ref().is_err_and(FileError::is_absent) {
        return Check::new(Area::Kernel, "BTF", "none").from(btf::VMLINUX).note(WITHOUT_BTF, Some(BTF_HINT));
    }
    let vmlinux = |bytes: &u64| format!("vmlinux {}", units::bytes(*bytes));
    let mut check = Check::of(Area::Kernel, "BTF", &facts.btf_bytes, vmlinux);
    if let (true, Some(modules)) = (check.is_known(), facts.btf_modules.known()) {
        check.value = format!("{}, modules with BTF: {modules}", check.value);
        check.from.extend_from_slice(&facts.btf_modules.from);
    }
    check.unless(problems, |p| matches!(p, Problem::Btf { .. }))
}

fn members(facts: &Facts, signals: &Signals) -> Check {
    let check = |value: String| Check::new(Area::Kernel, "structure members", value);
    if signals.basis == Basis::Nothing || facts.btf_bytes.known().is_none() {
        return check("not known".to_owned()).note("there is no BTF to look them up in", None);
    }
    if signals.missing.is_empty() {
        return check("all are there".to_owned()).from(btf::VMLINUX);
    }
    check(format!("{} missing", signals.missing.len())).from(btf::VMLINUX).note(
        format!("this kernel lacks {}: what is read from there is off or 0", signals.missing.join(", ")),
        Some("report it, with the kernel's version: nettrace has to learn where they went"),
    )
}

fn tcx(release: &Fact<String>) -> Check {
    let newer = |text: &String| Release::parse(text).is_some_and(|r| r >= TCX);
    let check = Check::of(Area::Kernel, "TC programs", release, |text| {
        if newer(text) { "by tcx" } else { "as filters of a clsact qdisc" }.to_owned()
    });
    if release.known().is_none_or(newer) {
        return check;
    }
    check.note(
        format!("tcx came with Linux {TCX}; before, `kill -9` leaves the filters"),
        Some("after a `kill -9`: tc qdisc del dev IFACE clsact"),
    )
}

fn clock(current: &Fact<String>, available: &Fact<String>) -> Check {
    let mut check = Check::of(Area::Kernel, "clock source", current, |current| {
        let others = available.known().map(|all| format!(", of {all}")).unwrap_or_default();
        format!("{current}{others}")
    });
    if check.is_known() && available.known().is_some() {
        check.from.extend_from_slice(&available.from);
    }
    let Some(current) = current.known().filter(|c| !CHEAP_CLOCKS.contains(&c.as_str())) else { return check };
    let better = available.known().and_then(|all| all.split_whitespace().find(|c| CHEAP_CLOCKS.contains(c)));
    let hint = better
        .map(|clock| format!("boot with clocksource={clock}, if the kernel log does not call it unstable"));
    check.note(
        format!("every clock reading is dearer with {current}, and each packet takes several"),
        Some(hint.as_deref().unwrap_or("none that is cheap is available; see why in the kernel log")),
    )
}

fn bpf(facts: &Facts, problems: &[Problem], basis: Basis) -> Vec<Check> {
    let mut checks = vec![capabilities(facts, problems)];
    let own = "0 0 4294967295";
    let namespace = |map: &String| {
        let map: Vec<_> = map.split_whitespace().collect();
        if map.join(" ") == own { "the first" } else { "another" }.to_owned()
    };
    checks.push(
        Check::of(Area::Bpf, "user namespace", &facts.uid_map, namespace)
            .unless(problems, |p| matches!(p, Problem::UserNamespace)),
    );
    checks.push(memlock(facts, problems));
    checks.extend([jit(&facts.jit), harden(&facts.jit_harden)]);
    checks.push(Check::of(Area::Bpf, "unprivileged BPF", &facts.unprivileged, |value| match value {
        0 => "allowed".to_owned(),
        1 => "forbidden until the next boot".to_owned(),
        _ => "forbidden".to_owned(),
    }));
    let paranoid = Check::of(Area::Bpf, "perf_event_paranoid", &facts.paranoid, ToString::to_string);
    checks.push(if paranoid.is_known() {
        paranoid.because("nettrace opens no perf events")
    } else {
        paranoid
    });
    checks.push(lockdown(&facts.lockdown, problems, basis));
    checks
}

/// Those that matter here, in the order of their names. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
const CAPABILITIES: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_RESOURCE,
];

fn capabilities(facts: &Facts, problems: &[Problem]) -> Check {
    let check = |value: String| Check::new(Area::Bpf, "capabilities", value).from("capget(2)");
    let have = match &facts.capabilities {
        Ok(have) => have,
        Err(_) => {
            return check("not known".to_owned())
                .unless(problems, |p| matches!(p, Problem::CapabilitiesUnknown(_)));
        }
    };
    let held: Vec<_> = CAPABILITIES.iter().filter(|c| have.contains(c)).map(ToString::to_string).collect();
    let check = check(if held.is_empty() { "none that matter".to_owned() } else { held.join(", ") });
    let check = if have.contains(&Capability::CAP_SYS_ADMIN) {
        check
    } else {
        let hint = "run nettrace with sudo, or grant cap_sys_admin too, if you need those";
        check.note("without CAP_SYS_ADMIN there are no --netns and no --lab", Some(hint))
    };
    check.unless(problems, |p| matches!(p, Problem::Capabilities { .. }))
}

fn memlock(facts: &Facts, problems: &[Problem]) -> Check {
    let check = Check::of(Area::Bpf, "locked memory", &facts.memlock_bytes, |limit| match limit {
        Some(bytes) => format!("at most {}", units::bytes(*bytes)),
        None => "no limit".to_owned(),
    });
    let release = facts.release.known().and_then(|text| Release::parse(text));
    if release.is_some_and(|r| r >= NO_MEMLOCK) {
        let reason = format!("does not matter: from Linux {NO_MEMLOCK} on maps count against the cgroup");
        return Check { state: State::Ok, ..check }.because(reason);
    }
    if !check.is_known() {
        return check.unless(problems, |p| matches!(p, Problem::Memlock { .. }));
    }
    let holds = facts.capabilities.as_ref().is_ok_and(|have| have.contains(&Capability::CAP_SYS_RESOURCE));
    let raised = if holds {
        "nettrace lifts its own"
    } else {
        "without CAP_SYS_RESOURCE nettrace raises its own to the hard limit only"
    };
    let check = check.because(format!("before Linux {NO_MEMLOCK} maps count against it; {raised}"));
    check.unless(problems, |p| matches!(p, Problem::Memlock { .. }))
}

/// Source: Documentation/admin-guide/sysctl/net.rst, bpf_jit_enable.
fn jit(fact: &Fact<u32>) -> Check {
    let check = Check::of(Area::Bpf, "JIT", fact, |value| match value {
        0 => "off".to_owned(),
        1 => "on".to_owned(),
        _ => "on, for debugging".to_owned(),
    });
    let hint = Some("sysctl net.core.bpf_jit_enable=1");
    match fact.known() {
        Some(0) => check.note("programs are interpreted, and cost several times as much", hint),
        Some(2..) => check.note("the kernel logs the code of each program", hint),
        _ => check,
    }
}

/// Source: Documentation/admin-guide/sysctl/net.rst, bpf_jit_harden.
fn harden(fact: &Fact<u32>) -> Check {
    let check = Check::of(Area::Bpf, "JIT hardening", fact, |value| match value {
        0 => "off".to_owned(),
        1 => "for unprivileged programs".to_owned(),
        _ => "for all programs".to_owned(),
    });
    match fact.known() {
        Some(2..) => check.note(
            "constants are blinded in nettrace's programs too, which then cost more",
            Some("sysctl net.core.bpf_jit_harden=1, if your policy allows"),
        ),
        _ => check,
    }
}

fn lockdown(fact: &Fact<String>, problems: &[Problem], basis: Basis) -> Check {
    let mode = |modes: &String| {
        let chosen = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        chosen.map_or_else(|| modes.clone(), |(mode, _)| mode.to_owned())
    };
    let check = Check::of(Area::Bpf, "lockdown", fact, mode);
    if check.is_known() {
        return check.unless(problems, |p| matches!(p, Problem::Lockdown));
    }
    let reason = check.reason.clone().unwrap_or_default();
    if basis == Basis::Verifier {
        return Check { state: State::Ok, ..check }
            .because(format!("{reason}; the programs load, so it does not forbid them"));
    }
    check.note(reason, Some("mount -t securityfs securityfs /sys/kernel/security"))
}

/// File systems that matter to BPF tools, and what for nettrace does without.
const FILE_SYSTEMS: [(&str, &str, &str); 3] = [
    ("bpffs", "bpf", "nettrace pins nothing"),
    ("tracefs", "tracefs", "nettrace finds its hooks by BTF"),
    ("debugfs", "debugfs", "nettrace reads nothing there"),
];

fn mounts(fact: &Fact<Vec<Mount>>) -> Vec<Check> {
    let targets = |mounts: &[Mount], kind: &str| {
        let of = mounts.iter().filter(|m| m.kind == kind).map(|m| m.target.clone());
        of.collect::<Vec<_>>()
    };
    let mut checks = Vec::new();
    for (name, kind, why) in FILE_SYSTEMS {
        let check = Check::of(Area::Mounts, name, fact, |mounts| {
            let targets = targets(mounts, kind);
            if targets.is_empty() { "not mounted".to_owned() } else { targets.join(", ") }
        });
        checks.push(if check.is_known() { check.because(format!("not needed: {why}")) } else { check });
    }
    checks.push(Check::of(Area::Mounts, "cgroup", fact, |mounts| {
        let (one, two) = (targets(mounts, "cgroup"), targets(mounts, "cgroup2"));
        match (one.len(), two.join(", ")) {
            (0, two) if two.is_empty() => "not mounted".to_owned(),
            (0, two) => format!("v2 at {two}"),
            (n, two) => {
                let two = if two.is_empty() { String::new() } else { format!(", v2 at {two}") };
                format!("v1, {}{two}", units::plural(n as u64, "hierarchy", "hierarchies"))
            }
        }
    }));
    checks
}

fn conntrack(fact: &Fact<Conntrack>) -> Check {
    if fact.value.as_ref().is_err_and(FileError::is_absent) {
        return Check { from: fact.from.clone(), ..Check::new(Area::Network, "conntrack", "not loaded") };
    }
    let check = Check::of(Area::Network, "conntrack", fact, |table| {
        let of = match table.max {
            0 => String::new(),
            max => format!(" of at most {}", units::count(max)),
        };
        format!("{}{of} connections, {} buckets", units::count(table.count), units::count(table.buckets))
    });
    let full =
        |t: &Conntrack| t.max != 0 && t.count as f64 >= t.max as f64 * ConntrackTable::NEARLY_FULL_SHARE;
    match fact.known() {
        Some(table) if full(table) => check.note(
            "the table is nearly full; when it is, packets of new connections are dropped",
            Some("raise net.netfilter.nf_conntrack_max, and nf_conntrack_buckets with it"),
        ),
        _ => check,
    }
}

fn plugins(clues: &cni::Clues) -> Check {
    let mut names: Vec<&str> = Vec::new();
    for clue in &clues.found {
        if !names.contains(&clue.plugin.as_str()) {
            names.push(&clue.plugin);
        }
    }
    let value = match (names.is_empty(), clues.unread.is_empty()) {
        (false, _) => names.join(", "),
        (true, true) => "none".to_owned(),
        (true, false) => "unknown".to_owned(),
    };
    let mut check = Check::new(Area::Network, "pod network (CNI)", value);
    if clues.found.is_empty() && clues.unread.is_empty() {
        return check
            .from(cni::CONFIG_DIR)
            .from(cni::INTERFACE_DIR)
            .because("no configuration, and no interface that bears a plugin's name");
    }
    check.from = clues.found.iter().map(|clue| clue.from.clone()).collect();
    if clues.unread.is_empty() {
        return check;
    }
    check.note(format!("cannot read {}", clues.unread.join("; ")), None)
}
