//! What is said of the whole machine: SELinux, clock source, how CPUs are governed.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand};
use crate::node::{CLOCK, GOVERNOR, SELINUX};

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
