//! What is said of the whole machine: SELinux, firewalld, clock source, how CPUs are governed and sleep, tuned, and
//! settings that do not reach pods.

use super::{Confidence, Judgement, Profile, Risk, Rule, Seen, by_hand};
use crate::{
    node::{CLOCK, GOVERNOR, SELINUX, Setting, Settings, TUNED},
    report::units,
};
use std::collections::BTreeSet;

/// A CPU that sleeps so deep takes as long as a round trip within a rack to wake up, us.
const DEEP_US: u64 = 50;
/// Namespaces that are named.
const NAMED: usize = 3;
/// Profiles of tuned that keep latency low.
const QUICK: &[&str] = &["network-latency", "latency-performance", "realtime", "cpu-partitioning"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "host.selinux",
        advice: "switch SELinux off",
        looks_at: "Whether it is on. It is never advised to switch it off.",
        risk: Risk::High,
        when_not: "Ever, for latency: what it costs a connection today does not show.",
        source: "https://docs.redhat.com/en/documentation/red_hat_enterprise_linux/9/html/using_selinux/index",
        needs: &[],
        judge: selinux,
    },
    Rule {
        id: "host.governor",
        advice: "set the CPU governor to performance",
        looks_at: "How the first CPU's frequency is governed.",
        risk: Risk::Low,
        when_not: "Power or heat matters more, or the machine is virtual: its host decides.",
        source: "https://docs.kernel.org/admin-guide/pm/cpufreq.html",
        needs: &[],
        judge: governor,
    },
    Rule {
        id: "host.clock-source",
        advice: "use the TSC as clock source",
        looks_at: "The clock source in use.",
        risk: Risk::Medium,
        when_not: "The kernel found the TSC unstable: then it is wrong.",
        source: "https://docs.kernel.org/virt/kvm/x86/timekeeping.html",
        needs: &[],
        judge: clock,
    },
    Rule {
        id: "host.firewalld",
        advice: "switch firewalld off",
        looks_at: "Whether it runs. It is never advised to switch it off.",
        risk: Risk::High,
        when_not: "Ever, for latency. That a reload removes rules of others is a matter of correctness: let it leave the \
                   pods' interfaces alone, or reload in quiet times.",
        source: "https://firewalld.org/documentation/",
        needs: &[],
        judge: firewalld,
    },
    Rule {
        id: "host.tuned",
        advice: "set tuned's profile to network-latency",
        looks_at: "The profile that is set. It sets what other rules look at one by one: governor, idle states, busy polling.",
        risk: Risk::Medium,
        when_not: "Power matters more, or the machine is virtual: most of what it sets is up to its host.",
        source: "https://tuned-project.org/docs/manual/",
        needs: &[],
        judge: tuned,
    },
    Rule {
        id: "host.cstates",
        advice: "keep CPUs from deep idle states",
        looks_at: "Under the latency profile alone: the longest time to wake up from an idle state that is on, 50 us (consider).",
        risk: Risk::Low,
        when_not: "Power or heat matters, or the CPUs are hardly ever idle.",
        source: "https://docs.kernel.org/admin-guide/pm/cpuidle.html",
        needs: &[],
        judge: cstates,
    },
    Rule {
        id: "host.pod-sysctls",
        advice: "set sysctls on the host for pods",
        looks_at: "Which settings differ between the namespaces that were measured: most are a namespace's own, and those of \
                   the host do not reach pods.",
        risk: Risk::Low,
        when_not: "Ever: a change goes where the sockets are. Each finding names the namespace.",
        source: "https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/",
        needs: &[],
        judge: pod_sysctls,
    },
];

/// Where nothing of the host is known, as of a snapshot that an older nettrace wrote.
fn not_read(seen: &Seen<'_>, what: &str) -> Option<Judgement> {
    let why = || Judgement::cannot_tell(format!("the measurement does not say {what}"), "nettrace recommend");
    seen.node.host.is_empty().then(why)
}

fn selinux(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = not_read(seen, "whether SELinux is on") {
        return cannot;
    }
    match seen.node.of_host(SELINUX) {
        None => Judgement::not_needed("SELinux is not on"),
        Some(value) => Judgement::not_needed("SELinux does not make packets late")
            .with("enforcing", if value == "1" { "yes" } else { "no" }.to_owned()),
    }
}

fn governor(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = not_read(seen, "how CPUs are governed") {
        return cannot;
    }
    match seen.node.of_host(GOVERNOR) {
        None => Judgement::not_needed("the kernel does not govern this machine's CPUs"),
        Some("performance") => Judgement::not_needed("it is set"),
        Some(governor) => Judgement::cannot_tell(
            "what a CPU takes to run fast after a pause was not measured: 0 to 50 us of a packet, on hardware",
            "cpupower frequency-set -g performance, and measure again under the same load",
        )
        .with("governor", governor.to_owned()),
    }
}

fn clock(seen: &Seen<'_>) -> Judgement {
    match seen.node.of_host(CLOCK) {
        None => Judgement::cannot_tell("the clock source could not be read", "nettrace doctor"),
        Some(source @ ("hpet" | "acpi_pm")) => {
            Judgement::consider("reading this clock takes a microsecond, and each packet is stamped")
                .sure(Confidence::Medium)
                .with("clock source", source.to_owned())
                .brings("about 1 us a reading")
                .change(by_hand("host", "find in the kernel's log why the TSC is not used", "as before"))
        }
        Some(source @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page")) => {
            Judgement::not_needed("reading the clock is cheap").with("clock source", source.to_owned())
        }
        Some(source) => {
            Judgement::cannot_tell("what reading this clock takes is not known", "nettrace doctor")
                .with("clock source", source.to_owned())
        }
    }
}

fn firewalld(seen: &Seen<'_>) -> Judgement {
    let Some(machine) = &seen.node.machine else {
        return Judgement::cannot_tell(
            "the measurement does not say whether it runs",
            "systemctl is-active firewalld",
        );
    };
    let by_table =
        seen.node.rules().any(|(_, rules)| rules.tables.iter().any(|t| t.table.ends_with(" firewalld")));
    match &machine.firewalld {
        Some(from) => {
            Judgement::not_needed("firewalld does not make packets late; its rules count as all others do")
                .with("it runs", from.clone())
        }
        None if by_table => Judgement::not_needed("its rules count as all others do")
            .with("it runs, or did", "nftables table firewalld".to_owned()),
        None => Judgement::not_needed("firewalld is not seen to run"),
    }
}

fn tuned(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = not_read(seen, "which profile tuned has set") {
        return cannot;
    }
    match seen.node.of_host(TUNED) {
        None | Some("") => {
            Judgement::not_needed("tuned sets nothing here: what it would set has rules of its own")
        }
        Some(profile) if QUICK.contains(&profile) => {
            Judgement::not_needed("its profile keeps latency low").with("profile", profile.to_owned())
        }
        Some(profile) => Judgement::cannot_tell(
            "what another profile would bring was not measured",
            "tuned-adm profile network-latency, and measure again under the same load",
        )
        .with("profile", profile.to_owned()),
    }
}

fn cstates(seen: &Seen<'_>) -> Judgement {
    let Some(machine) = &seen.node.machine else {
        return Judgement::cannot_tell(
            "the measurement does not say how deep CPUs sleep",
            "cpupower idle-info",
        );
    };
    let Some(deepest) = machine.idle_states.iter().rfind(|state| !state.disabled) else {
        return Judgement::not_needed("the kernel does not choose how deep this machine's CPUs sleep");
    };
    let us = deepest.exit_latency_us;
    let judgement = if us < DEEP_US {
        Judgement::not_needed("CPUs wake up soon from their deepest sleep")
    } else if seen.profile != Profile::Latency {
        Judgement::not_needed("it saves power; with --profile latency it is looked into")
    } else {
        Judgement::consider("CPUs may sleep deep, and take long to wake up when a packet comes")
            .sure(Confidence::Low)
            .brings(format!("up to {us} us less for a packet that comes to an idle CPU"))
            .change(by_hand(
                "host",
                &format!("cpupower idle-set -D {}, which ends with a restart", DEEP_US - 1),
                "cpupower idle-set -E",
            ))
    };
    judgement.seen(
        &format!("time to wake up from {}, at most", deepest.name),
        format!("{us} us"),
        Some(format!("{DEEP_US} us")),
    )
}

/// What differs is told of all of which settings could be read; that they are the same is known only if all could.
fn pod_sysctls(seen: &Seen<'_>) -> Judgement {
    let namespaces = &seen.node.namespaces;
    let is_read = |s: &&Settings| s.values.iter().any(|v| v.name.starts_with("net.") && v.value.is_some());
    let (read, unread): (Vec<&Settings>, Vec<_>) = namespaces.iter().partition(is_read);
    let Some((first, others)) = read.split_first() else {
        return Judgement::cannot_tell(
            "no namespace's settings are known",
            "sysctl -a, in the host and in a pod",
        );
    };
    if namespaces.len() == 1 {
        return Judgement::cannot_tell(
            format!("{} alone was measured", first.netns),
            "nettrace run --netns 1 --netns PID, of a process in the pod",
        );
    }
    let differs = |s: &&Setting| {
        s.value.is_some() && first.value(&s.name).is_some_and(|v| s.value.as_deref() != Some(v))
    };
    let values = others.iter().flat_map(|s| s.values.iter()).filter(|s| s.name.starts_with("net."));
    let names: BTreeSet<_> = values.filter(differs).map(|s| s.name.as_str()).collect();
    let judgement = if !unread.is_empty() {
        let of = unread.iter().take(NAMED).map(|s| s.netns.as_str()).collect::<Vec<_>>().join(", ");
        Judgement::cannot_tell(
            format!("the settings of {of} could not be read"),
            format!("sysctl -a, in {of}"),
        )
        .with("namespaces that could not be read", units::count(unread.len() as u64))
    } else if names.is_empty() {
        Judgement::not_needed("the namespaces that were measured have the same settings")
    } else {
        Judgement::not_needed(
            "namespaces have values of their own: what is set in one does not reach the others",
        )
    };
    let judgement = judgement.with("settings that differ", units::count(names.len() as u64));
    names.into_iter().take(5).fold(judgement, |judgement, name| {
        let values = seen.node.of_each(name).take(5).map(|(netns, value)| format!("{value} in {netns}"));
        judgement.with(name, values.collect::<Vec<_>>().join(", "))
    })
}
