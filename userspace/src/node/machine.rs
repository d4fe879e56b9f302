//! What matters of the machine beside its kernel's settings: who else changes packet rules, how deep CPUs sleep, which CPUs
//! receive, and where names are asked for.
//!
//! Needs: procfs and sysfs of the host. Yields: a [`Machine`]. What CPUs received is counted since the kernel
//! started, and over the time of the measurement.

use crate::files::Files;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const IDLE: &str = "/sys/devices/system/cpu/cpu0/cpuidle";
const SOFTIRQS: &str = "/proc/softirqs";
const SOFTNET: &str = "/proc/net/softnet_stat";
const RESOLV: &str = "/etc/resolv.conf";
/// The process's name, as `/proc/PID/comm` has it.
const FIREWALLD: &str = "firewalld";

/// What matters of the machine beside its kernel's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Where the process of firewalld was seen; none where it does not run, or is not seen from here.
    pub firewalld: Option<String>,
    /// Idle states of the first CPU, from the lightest; none where the kernel governs none.
    pub idle_states: Vec<IdleState>,
    /// What each CPU received, since the kernel started.
    pub receive: Vec<CpuReceive>,
    /// The same, over the time of the measurement, of the CPUs of which it is known; none in older snapshots.
    #[serde(default)]
    pub received: Vec<CpuReceive>,
    /// Where the host asks for names.
    pub resolver: Option<Resolver>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// One way of a CPU to sleep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdleState {
    /// Its name: `C6`.
    pub name: String,
    /// The longest time to wake up from it, us.
    pub exit_latency_us: u64,
    /// Whether it is switched off.
    pub disabled: bool,
}

/// What a CPU received. The kernel counts in 32 bits, and begins anew at 0 when they are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CpuReceive {
    /// The CPU.
    pub cpu: u32,
    /// Receive softirqs that ran.
    pub net_rx: u64,
    /// Packets.
    pub packets: u64,
    /// Packets dropped: the backlog was full.
    pub dropped: u64,
    /// Receive softirqs that ended with packets left, for want of budget or time.
    pub squeezed: u64,
}

/// A resolver's configuration, resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resolver {
    /// Servers, as written.
    pub nameservers: Vec<String>,
    /// Domains that are tried behind a name.
    pub search: Vec<String>,
    /// Names with fewer dots are tried with the domains first; none where it is left at 1.
    pub ndots: Option<u32>,
    /// The other options, as written.
    pub options: Vec<String>,
}

impl Machine {
    /// Of the machine below a root.
    pub(super) fn read(files: &Files, before: &[CpuReceive]) -> Self {
        let mut machine = Self { firewalld: process(files, FIREWALLD), ..Self::default() };
        let unread = &mut machine.unread;
        machine.idle_states = idle_states(files, unread);
        machine.receive = receive(files, unread);
        machine.received = machine.receive.iter().filter_map(|cpu| cpu.since(before)).collect();
        match files.text(RESOLV) {
            Ok(text) => machine.resolver = Some(Resolver::parse(&text)),
            Err(error) => unread.push(error.to_string()),
        }
        machine
    }

    /// Of a machine of which nothing was read.
    pub(super) fn unread(error: &std::io::Error) -> Self {
        Self { unread: vec![error.to_string()], ..Self::default() }
    }

    /// The CPU that ran most receive softirqs while it was measured, and its share of all of that time, from 0 to 1; none of
    /// a machine with one CPU, and where it is not known.
    #[must_use]
    pub fn busiest_receiver(&self) -> Option<(CpuReceive, f64)> {
        self.busiest(|cpu| cpu.net_rx)
    }

    /// The CPU that handled most packets while it was measured, and its share of all of these, from 0 to 1; none as above.
    #[must_use]
    pub fn busiest_handler(&self) -> Option<(CpuReceive, f64)> {
        self.busiest(|cpu| cpu.packets)
    }

    fn busiest(&self, work: fn(&CpuReceive) -> u64) -> Option<(CpuReceive, f64)> {
        let most = self.received.iter().filter(|_| self.received.len() > 1).max_by_key(|cpu| work(cpu))?;
        let all: f64 = self.received.iter().map(|cpu| work(cpu) as f64).sum();
        (all > 0.0).then(|| (*most, work(most) as f64 / all))
    }
}

impl CpuReceive {
    /// What came since an earlier reading; none of a CPU that is not in it.
    fn since(&self, before: &[Self]) -> Option<Self> {
        let before = before.iter().find(|earlier| earlier.cpu == self.cpu)?;
        // `unsigned int` in the kernel: the lower half is all there is, and it wraps.
        let since = |now: u64, then: u64| u64::from((now as u32).wrapping_sub(then as u32));
        Some(Self {
            cpu: self.cpu,
            net_rx: since(self.net_rx, before.net_rx),
            packets: since(self.packets, before.packets),
            dropped: since(self.dropped, before.dropped),
            squeezed: since(self.squeezed, before.squeezed),
        })
    }
}

/// The file that says so, where a process of this name runs.
fn process(files: &Files, name: &str) -> Option<String> {
    let pids = files.names("/proc").ok()?;
    let is_pid = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    let mut comms = pids.into_iter().filter(is_pid).map(|pid| format!("/proc/{pid}/comm"));
    comms.find(|path| files.text(path).is_ok_and(|comm| comm == name))
}

/// Source: Documentation/ABI/testing/sysfs-devices-system-cpu, cpuidle.
fn idle_states(files: &Files, unread: &mut Vec<String>) -> Vec<IdleState> {
    let names = match files.names(IDLE) {
        Ok(names) => names,
        Err(error) => {
            if !error.is_absent() {
                unread.push(error.to_string());
            }
            return Vec::new();
        }
    };
    let state = |dir: &String| {
        let of = |what: &str| format!("{IDLE}/{dir}/{what}");
        Ok(IdleState {
            name: files.text(&of("name"))?,
            exit_latency_us: files.number(&of("latency"))?,
            // Not there before 3.10 and in some drivers: then it is on.
            disabled: files.number::<u32>(&of("disable")).is_ok_and(|value| value != 0),
        })
    };
    let states = names.iter().filter(|name| name.starts_with("state")).map(state);
    let mut known: Vec<_> = states
        .filter_map(|state: Result<_, crate::files::FileError>| {
            state.map_err(|error| unread.push(error.to_string())).ok()
        })
        .collect();
    known.sort_by_key(|state| state.exit_latency_us);
    known
}

/// Source: `show_softirqs` (fs/proc/softirqs.c) and `softnet_seq_show` (net/core/net-procfs.c).
pub(super) fn receive(files: &Files, unread: &mut Vec<String>) -> Vec<CpuReceive> {
    let mut text =
        |path| files.text(path).map_err(|error| unread.push(error.to_string())).unwrap_or_default();
    let (softirqs, softnet) = (text(SOFTIRQS), text(SOFTNET));
    let cpus = softirqs.lines().next().unwrap_or_default().split_whitespace();
    let counts = softirqs.lines().find_map(|line| line.trim_start().strip_prefix("NET_RX:"));
    let counts = counts.unwrap_or_default().split_whitespace();
    let of_cpu = |(cpu, count): (&str, &str)| {
        Some(CpuReceive {
            cpu: cpu.strip_prefix("CPU")?.parse().ok()?,
            net_rx: count.parse().ok()?,
            ..CpuReceive::default()
        })
    };
    let mut rows: Vec<_> = cpus.zip(counts).filter_map(of_cpu).collect();
    for (line, text) in softnet.lines().enumerate() {
        let words: Vec<_> = text.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok()).collect();
        let word = |n: usize| words.get(n).copied().flatten();
        // Lines are those of CPUs that are online; since 5.10 each names its own.
        let cpu = word(12).unwrap_or(line as u64);
        if let Some(row) = rows.iter_mut().find(|row| u64::from(row.cpu) == cpu) {
            row.packets = word(0).unwrap_or(0);
            row.dropped = word(1).unwrap_or(0);
            row.squeezed = word(2).unwrap_or(0);
        }
    }
    rows
}

impl Resolver {
    /// Of several `search` lines the last counts, options add up. `domain` is an older way to name one domain.
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            let words = words.take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
            match key {
                "nameserver" => resolver.nameservers.extend(words.take(1)),
                "search" | "domain" => resolver.search = words.collect(),
                "options" => resolver.options.extend(words),
                _ => {}
            }
        }
        let ndots = |option: &String| option.strip_prefix("ndots:").map(str::parse::<u32>);
        resolver.ndots = resolver.options.iter().rev().find_map(ndots).and_then(Result::ok);
        resolver.options.retain(|option| !option.starts_with("ndots:"));
        resolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn files(root: &Path, texts: &[(&str, &str)]) -> Files {
        for (path, text) in texts {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Files::new(root)
    }

    #[test]
    fn a_machine_tells_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        let idle = "sys/devices/system/cpu/cpu0/cpuidle";
        let texts = [
            ("proc/17/comm", "firewalld\n"),
            ("proc/self/comm", "cat\n"),
            (&format!("{idle}/state0/name"), "POLL\n"),
            (&format!("{idle}/state0/latency"), "0\n"),
            (&format!("{idle}/state1/name"), "C6\n"),
            (&format!("{idle}/state1/latency"), "133\n"),
            (&format!("{idle}/state1/disable"), "1\n"),
            (&format!("{idle}/state2/name"), "broken\n"),
            ("proc/softirqs", "          CPU0       CPU2\n  HI: 1 2\n NET_RX:  10  30\n"),
            (
                "proc/net/softnet_stat",
                "0000000a 0 0 0 0 0 0 0 0 0 0 0 00000000 0 0\n00000010 00000002 00000003 0 0 0 0 0 0 0 0 0 00000002 0 0\n",
            ),
            (
                "etc/resolv.conf",
                "# x\nnameserver 10.96.0.10\nsearch a.local b.local # c\noptions ndots:5 edns0\n",
            ),
        ];
        // As many softirqs before as make the counter begin anew.
        let before = [
            CpuReceive { cpu: 0, ..CpuReceive::default() },
            CpuReceive { cpu: 2, net_rx: u64::from(u32::MAX), packets: 6, ..CpuReceive::default() },
        ];
        let machine = Machine::read(&files(root.path(), &texts), &before);
        assert_eq!(machine.firewalld.as_deref(), Some("/proc/17/comm"));
        let states: Vec<_> = machine.idle_states.iter().map(|s| (s.exit_latency_us, s.disabled)).collect();
        assert_eq!(states, [(0, false), (133, true)]);
        let last = CpuReceive { cpu: 2, net_rx: 30, packets: 16, dropped: 2, squeezed: 3 };
        assert_eq!(machine.receive[1], last);
        let since = CpuReceive { net_rx: 31, packets: 10, ..last };
        assert_eq!(machine.busiest_receiver(), Some((since, 31.0 / 41.0)));
        assert_eq!(last.since(&before[..1]), None, "a CPU that was not there before");
        let resolver = machine.resolver.unwrap();
        assert_eq!((resolver.ndots, resolver.options.as_slice()), (Some(5), &["edns0".to_owned()][..]));
        assert_eq!(
            (resolver.nameservers, resolver.search),
            (vec!["10.96.0.10".to_owned()], vec!["a.local".to_owned(), "b.local".to_owned()])
        );
        assert_eq!(machine.unread.len(), 1, "{:?}", machine.unread);
    }

    #[test]
    fn a_machine_that_tells_nothing_says_so() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::read(&Files::new(root.path()), &[]);
        assert_eq!(machine.unread.len(), 3, "{:?}", machine.unread);
        assert!(machine.busiest_receiver().is_none());
        for text in ["", "search", "options ndots:x", "nameserver"] {
            assert_eq!(Resolver::parse(text).ndots, None, "{text}");
        }
    }
}
