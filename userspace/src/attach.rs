//! Verifies and attaches the programs that the selected probes need, by the table in [`crate::probes`], and keeps
//! the books on what is in use and why not better.
//!
//! Programs at interfaces (TC, XDP) are loaded here and attached by [`crate::iface`], as interfaces come and go.

use crate::{
    btf::{self, Btf},
    conntrack,
    load::{Loaded, Types},
    probes::{
        Forced, Hook, PROBES, Probe, Program, Source, Stay, WIRE_XDP, allowed, hook_of, is_forced, staying,
        together,
    },
    snapshot,
};
use aya::programs::{
    BtfTracePoint, FEntry, FExit, KProbe, Program as AyaProgram, ProgramError, RawTracePoint,
    SchedClassifier, Xdp, fentry::FEntryLink, fexit::FExitLink, kprobe::KProbeLink,
    raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink,
};
use nettrace_common::config::state;
use std::{
    collections::{HashMap, HashSet},
    error::Error as _,
    path::Path,
};

/// What became of one program: attached (or ready for interfaces), or why not.
pub type Outcome = Result<(), String>;

/// What became of each program and probe.
#[derive(Default)]
pub struct Attached {
    /// By program name; also of programs that work and are not needed.
    programs: HashMap<&'static str, Outcome>,
    /// By probe, in the table's order.
    pub probes: Vec<snapshot::Probe>,
    /// Whether interfaces need programs.
    pub wire: bool,
    /// Programs of the sources that are in use.
    needed: HashSet<&'static str>,
}

impl Attached {
    /// Whether a program is in use.
    #[must_use]
    pub fn ok(&self, program: &str) -> bool {
        self.needed.contains(program) && matches!(self.programs.get(program), Some(Ok(())))
    }

    /// Whether any probe is in use; if not, why not.
    ///
    /// # Errors
    /// The reasons, when none is.
    pub fn any(&self) -> Result<(), String> {
        let kernel = |p: &&snapshot::Probe| {
            p.source.as_ref().is_some_and(|s| !s.starts_with("procfs") && !s.starts_with("netlink"))
        };
        if self.probes.iter().any(|p| kernel(&p)) {
            return Ok(());
        }
        Err(self
            .probes
            .iter()
            .filter_map(|p| p.reason.clone())
            .find(|reason| reason != snapshot::Probe::NOT_SELECTED)
            .unwrap_or_else(|| "none is selected".to_owned()))
    }
}

/// What is to be measured, and from where.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// These probes; of the others it is told that they are not selected.
    pub selected: &'a [&'static Probe],
    /// Rungs that were asked for.
    pub forced: &'a [Forced],
    /// Whether XDP programs are wanted beside those of TC.
    pub xdp: bool,
}

impl Attached {
    /// Takes for each probe the first source that works. `verify` is asked once for each program, also when the choice is
    /// made again.
    fn choose(&mut self, wanted: Wanted<'_>, mut verify: impl FnMut(&Program) -> Outcome) {
        self.needed.clear();
        self.probes.clear();
        self.wire = false;
        if wanted.xdp {
            for program in WIRE_XDP {
                self.programs.entry(program.name).or_insert_with(|| verify(program));
                self.needed.insert(program.name);
            }
        }
        // Those that have no choice come first, so that the others can do as they do.
        let (forced, free): (Vec<&Probe>, Vec<_>) =
            PROBES.iter().partition(|probe| is_forced(probe, wanted.forced));
        for probe in forced.into_iter().chain(free) {
            let row = if wanted.selected.iter().any(|s| s.name == probe.name) {
                first_source(probe, allowed(probe, wanted.forced), |s| self.take(s, &mut verify))
            } else {
                off(probe, snapshot::Probe::NOT_SELECTED.to_owned())
            };
            self.probes.push(row);
        }
        self.probes.sort_by_key(|row| PROBES.iter().position(|probe| probe.name == row.name));
    }

    /// Takes a source, if its programs work.
    fn take(&mut self, source: &Source, verify: &mut impl FnMut(&Program) -> Outcome) -> Outcome {
        counters_there(Path::new("/"), source)?;
        for program in source.programs() {
            if let Some(Err(reason)) = self.programs.get(program.name) {
                return Err(reason.clone());
            }
            if let Some(rival) = self.needed.iter().find(|name| rivals(program, name)) {
                let place = program.hook.place().unwrap_or_default();
                return Err(format!("what passes {place} is counted by {rival} already"));
            }
            self.programs.entry(program.name).or_insert_with(|| verify(program)).clone()?;
        }
        for program in source.programs() {
            self.needed.insert(program.name);
            self.wire |= program.hook.place().is_none();
        }
        Ok(())
    }
}

/// Whether two programs are the same on different rungs: attached both, they would count everything twice. Two programs at
/// one hook count different things.
fn rivals(program: &Program, other: &str) -> bool {
    let place = |name| hook_of(name).and_then(Hook::place);
    program.hook.place().is_some()
        && Some(program.hook) != hook_of(other)
        && program.hook.place() == place(other)
        && !together(program.name, other)
}

/// The first source of a probe that `works`, and why not the ones before it.
pub fn first_source<'a>(
    probe: &Probe,
    sources: impl Iterator<Item = &'a Source>,
    mut works: impl FnMut(&Source) -> Outcome,
) -> snapshot::Probe {
    let mut reasons: Vec<String> = Vec::new();
    for source in sources {
        match works(source) {
            Ok(()) => {
                reasons.extend(probe.note.map(str::to_owned));
                return snapshot::Probe {
                    name: probe.name.to_owned(),
                    source: Some(source.to_string()),
                    yields: vec![probe.name.to_owned()],
                    reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
                };
            }
            // Sources may lack the same.
            Err(reason) if reasons.contains(&reason) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    off(probe, reasons.join("; "))
}

fn off(probe: &Probe, reason: String) -> snapshot::Probe {
    snapshot::Probe {
        name: probe.name.to_owned(),
        source: None,
        yields: vec![probe.name.to_owned()],
        reason: Some(reason),
    }
}

/// Verifies what the probes need, so that attaching it is quick. A probe that cannot be had is noted, not an error.
pub fn programs_ready(loaded: &mut Loaded, types: &Types, wanted: Wanted<'_>) -> Attached {
    let mut attached = Attached::default();
    attached.choose(wanted, |program| bring_up(loaded, types, program));
    attached
}

/// Attaches the programs that are ready and stay.
pub fn attach(loaded: &mut Loaded, types: &Types, wanted: Wanted<'_>, attached: &mut Attached) {
    let at_once = |name: &&str| hook_of(name).and_then(Hook::place).is_some();
    loop {
        let mut failed = Failed::default();
        for name in staying(Stay::Always).filter(at_once) {
            if attached.ok(name)
                && !loaded.kept.contains_key(name)
                && let Err(reason) = keep(loaded, name)
            {
                failed.insert(name, reason);
            }
        }
        if failed.is_empty() {
            break;
        }
        step_down(loaded, types, wanted, attached, failed);
    }
    // Called again after a step down, and some may be attached by then.
    let waits = |name: &&str| attached.ok(name) && !loaded.kept.contains_key(name);
    loaded.queues.ready = staying(Stay::WithQueues).filter(waits).collect();
    attach_needed(loaded);
}

/// Programs that could not be attached, and why.
pub type Failed = HashMap<&'static str, String>;

/// Has the probes of programs that were ready, and could not be attached, measured from the next source that works. It
/// remains to attach that.
pub fn step_down(
    loaded: &mut Loaded,
    types: &Types,
    wanted: Wanted<'_>,
    attached: &mut Attached,
    failed: Failed,
) {
    attached.programs.extend(failed.into_iter().map(|(name, reason)| (name, Err(reason))));
    attached.choose(wanted, |program| bring_up(loaded, types, program));
    loaded.kept.retain(|name, _| attached.ok(name));
}

/// What is attached once a device with a queue is seen.
#[derive(Debug, Default)]
pub struct Queues {
    /// Whether one was seen.
    seen: bool,
    /// Programs that wait for it; they are verified.
    ready: Vec<&'static str>,
}

impl Queues {
    /// Whether programs wait to be needed.
    #[must_use]
    pub fn waited_for(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// A device has a queue: attaches what measures the way through it, at once or, before [`attach`], then. It stays.
pub fn need(loaded: &mut Loaded) {
    loaded.queues.seen = true;
    attach_needed(loaded);
}

fn attach_needed(loaded: &mut Loaded) {
    if !loaded.queues.seen {
        return;
    }
    for name in std::mem::take(&mut loaded.queues.ready) {
        if let Err(reason) = keep(loaded, name) {
            failed(loaded, name, reason);
        } else if let Err(error) = loaded.tell(state::XMIT, true) {
            tracing::warn!("{name}: {error}");
        }
    }
}

/// A program that was ready could not be attached while the capture ran.
pub fn failed(loaded: &mut Loaded, name: &'static str, reason: String) {
    tracing::warn!("{reason}");
    loaded.failed.insert(name, reason);
}

/// Marks the probes off whose programs could not be attached while the capture ran.
pub fn mark_failed(loaded: &Loaded, probes: &mut [snapshot::Probe]) {
    for (program, reason) in &loaded.failed {
        mark_off(probes, program, reason);
    }
}

fn mark_off(probes: &mut [snapshot::Probe], program: &str, reason: &str) {
    let uses =
        |name: &str| PROBES.iter().filter(|p| p.name == name).flat_map(|p| p.sources).any(|s| s.has(program));
    for probe in probes.iter_mut().filter(|p| uses(&p.name)) {
        probe.source = None;
        probe.reason = Some(reason.to_owned());
    }
}

/// A program at its hook, until this is dropped.
#[derive(Debug)]
pub enum Held {
    /// At a tracepoint.
    TracePoint(BtfTracePointLink),
    /// At a tracepoint, without types.
    RawTracePoint(RawTracePointLink),
    /// At the entry of a function.
    FEntry(FEntryLink),
    /// At the return of a function.
    FExit(FExitLink),
    /// At either, by kprobe.
    KProbe(KProbeLink),
}

/// Attaches one program until all are detached.
fn keep(loaded: &mut Loaded, name: &'static str) -> Outcome {
    let held = hold(loaded, name)?;
    loaded.kept.insert(name, held);
    Ok(())
}

/// Attaches one program at its place in the kernel for as long as what this yields is kept.
///
/// # Errors
/// Why it cannot be.
pub fn hold(loaded: &mut Loaded, name: &str) -> Result<Held, String> {
    let nowhere = || format!("{name}: it has no place in the kernel");
    let place = hook_of(name).and_then(Hook::place).ok_or_else(nowhere)?;
    let held = match loaded.ebpf.program_mut(name).ok_or_else(|| not_there(name))? {
        AyaProgram::BtfTracePoint(program) => {
            program.attach().and_then(|id| program.take_link(id)).map(Held::TracePoint)
        }
        AyaProgram::RawTracePoint(program) => {
            program.attach(place).and_then(|id| program.take_link(id)).map(Held::RawTracePoint)
        }
        AyaProgram::FEntry(program) => {
            program.attach().and_then(|id| program.take_link(id)).map(Held::FEntry)
        }
        AyaProgram::FExit(program) => program.attach().and_then(|id| program.take_link(id)).map(Held::FExit),
        AyaProgram::KProbe(program) => {
            program.attach(place, 0).and_then(|id| program.take_link(id)).map(Held::KProbe)
        }
        _ => return Err(nowhere()),
    };
    held.map_err(|error| format!("{name}: {}", one_line(&error)))
}

fn not_there(program: &str) -> String {
    format!("program {program} is not in the object")
}

/// Detaches the programs that are not at interfaces.
pub fn detach(loaded: &mut Loaded) {
    loaded.kept.clear();
    for (name, program) in loaded.ebpf.programs_mut() {
        let result = match program {
            AyaProgram::BtfTracePoint(program) => program.unload(),
            AyaProgram::RawTracePoint(program) => program.unload(),
            AyaProgram::FEntry(program) => program.unload(),
            AyaProgram::FExit(program) => program.unload(),
            AyaProgram::KProbe(program) => program.unload(),
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!("{name}: {error}");
        }
    }
}

/// Whether the kernel has counters that a source without programs reads, below a root directory; if not, says so.
///
/// # Errors
/// The reason, when it has not.
pub fn counters_there(root: &Path, source: &Source) -> Outcome {
    match source {
        Source::Programs(..) => Ok(()),
        Source::Netlink("IPCTNL_MSG_CT_GET_STATS_CPU") => conntrack::netlink_there(root),
        Source::Procfs("/proc/net/stat/nf_conntrack") => conntrack::procfs_there(root),
        // Of each namespace, and there in all kernels.
        Source::Netlink(_) | Source::Procfs(_) => Ok(()),
    }
}

/// How a kernel that has kprobes offers them.
const KPROBES: &str = "sys/bus/event_source/devices/kprobe";

/// Whether the kernel has a hook, by its BTF and its sysfs below a root directory; if not, says so. Where there is no BTF
/// to name them, attaching tells whether tracepoints and functions are there.
///
/// # Errors
/// The reason, when it has not.
pub fn hook_there(root: &Path, btf: Option<&Btf>, hook: Hook) -> Outcome {
    match (hook, btf) {
        (Hook::TpBtf(_) | Hook::FEntry(_) | Hook::FExit(_), None) => Err(btf::NONE.to_owned()),
        (Hook::TpBtf(name) | Hook::RawTp(name), Some(btf)) if btf.tracepoint_args(name).is_none() => {
            Err(match hook.since() {
                Some(release) => format!("this kernel has no tracepoint {name} (Linux {release})"),
                None => format!("this kernel has no tracepoint {name}"),
            })
        }
        (Hook::FEntry(name) | Hook::FExit(name), Some(btf)) if !btf.has_function(name) => {
            Err(format!("the kernel proper has no function {name}"))
        }
        (Hook::KProbe(_) | Hook::KRetProbe(_), _) if !root.join(KPROBES).exists() => {
            Err("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned())
        }
        (Hook::KProbe(name) | Hook::KRetProbe(name), Some(btf)) if !btf.has_function(name) => {
            match hook.module() {
                Some(module) if !root.join("sys/module").join(module).exists() => {
                    Err(format!("{name} is in the module {module}, which is not loaded"))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Has the kernel verify one program.
fn bring_up(loaded: &mut Loaded, types: &Types, program: &Program) -> Outcome {
    hook_there(Path::new("/"), types.btf.as_ref(), program.hook)?;
    if let Some(reason) = types.unusable.get(program.name) {
        return Err(reason.clone());
    }
    let found = loaded.ebpf.program_mut(program.name).ok_or_else(|| not_there(program.name))?;
    verify(found, program, types.aya.as_ref()).map_err(|e| format!("{}: {}", program.name, one_line(&e)))
}

fn verify(found: &mut AyaProgram, program: &Program, btf: Option<&aya::Btf>) -> Result<(), ProgramError> {
    match (program.hook, btf) {
        (Hook::TpBtf(hook), Some(btf)) => {
            let tracepoint: &mut BtfTracePoint = found.try_into()?;
            tracepoint.load(hook, btf)?;
        }
        (Hook::RawTp(_), _) => {
            let tracepoint: &mut RawTracePoint = found.try_into()?;
            tracepoint.load()?;
        }
        (Hook::FEntry(function), Some(btf)) => {
            let entry: &mut FEntry = found.try_into()?;
            entry.load(function, btf)?;
        }
        (Hook::FExit(function), Some(btf)) => {
            let exit: &mut FExit = found.try_into()?;
            exit.load(function, btf)?;
        }
        // `hook_there` has said so already.
        (Hook::TpBtf(_) | Hook::FEntry(_) | Hook::FExit(_), None) => {
            return Err(ProgramError::UnexpectedProgramType);
        }
        (Hook::KProbe(_) | Hook::KRetProbe(_), _) => {
            let probe: &mut KProbe = found.try_into()?;
            probe.load()?;
        }
        (Hook::TcIngress | Hook::TcEgress, _) => {
            let classifier: &mut SchedClassifier = found.try_into()?;
            classifier.load()?;
        }
        (Hook::Xdp, _) => {
            let xdp: &mut Xdp = found.try_into()?;
            xdp.load()?;
        }
    }
    Ok(())
}

/// The cause; with `--verbose`, followed by what the verifier said last. All that it said goes to the debug log.
fn one_line(error: &ProgramError) -> String {
    tracing::debug!("{error:?}");
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let mut line = format!("the kernel refused the program: {io_error}");
            if tracing::enabled!(tracing::Level::INFO) {
                line.extend(last_words(&verifier_log.to_string()));
            }
            line
        }
        other => {
            // Of a system call that failed, its source tells why.
            let causes = std::iter::successors(other.source(), |error| (**error).source());
            causes.fold(other.to_string(), |line, cause| {
                let cause = cause.to_string();
                if line.contains(&cause) { line } else { format!("{line}: {cause}") }
            })
        }
    }
}

/// The last lines of a verifier's log, those of its statistics left out; none when it said nothing.
fn last_words(log: &str) -> Option<String> {
    const LINES: usize = 3;
    const STATISTICS: [&str; 3] = ["processed ", "verification time", "stack depth"];
    let told = |line: &&str| !line.is_empty() && STATISTICS.iter().all(|s| !line.starts_with(s));
    let lines: Vec<_> = log.lines().map(str::trim).filter(told).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    (!last.is_empty()).then(|| format!("; its verifier: {}", last.join(" | ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::select;
    use aya::sys::SyscallError;

    /// What a probe is measured from, and why not from better.
    fn row(attached: &Attached, name: &str) -> (Option<String>, Option<String>) {
        let row = attached.probes.iter().find(|row| row.name == name).unwrap();
        (row.source.clone(), row.reason.clone())
    }

    fn wanted(forced: &[Forced]) -> (Vec<&'static Probe>, Wanted<'_>) {
        (select(&[]), Wanted { selected: &[], forced, xdp: false })
    }

    #[test]
    fn what_cannot_be_attached_is_measured_from_the_next_source() {
        let (selected, wanted) = wanted(&[]);
        let wanted = Wanted { selected: &selected, ..wanted };
        let mut attached = Attached::default();
        let mut verified = Vec::new();
        attached.choose(wanted, |program| {
            verified.push(program.name);
            Ok(())
        });
        assert_eq!(row(&attached, "tcp.accept"), (Some("tp_btf inet_sock_set_state".to_owned()), None));
        assert!(attached.ok("tcp_state") && !attached.ok("tcp_state_raw"));
        attached.programs.insert("tcp_state", Err("tcp_state: no".to_owned()));
        attached.programs.insert("nf_hook_end", Err("nf_hook_end: no".to_owned()));
        attached.choose(wanted, |program| {
            assert!(!verified.contains(&program.name), "{} is verified twice", program.name);
            verified.push(program.name);
            if program.name == "nf_hook_end_kprobe" { Err("nor this".to_owned()) } else { Ok(()) }
        });
        for name in ["tcp.connect", "tcp.accept"] {
            let raw = Some("raw_tp inet_sock_set_state".to_owned());
            assert_eq!(row(&attached, name), (raw, Some("tcp_state: no".to_owned())));
        }
        assert_eq!(row(&attached, "nf.hook"), (None, Some("nf_hook_end: no; nor this".to_owned())));
        assert!(attached.ok("tcp_state_raw") && !attached.ok("tcp_state"));
        assert!(!attached.ok("nf_hook_begin"), "of no use without its end");
        let names: Vec<_> = attached.probes.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, PROBES.iter().map(|p| p.name).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_counted_from_two_rungs() {
        for (name, other) in [("tcp.connect", "tcp.accept"), ("tcp.accept", "tcp.connect")] {
            let forced = [Forced { probe: name.to_owned(), rung: "raw_tp".to_owned() }];
            let (selected, wanted) = wanted(&forced);
            let mut attached = Attached::default();
            attached.choose(Wanted { selected: &selected, ..wanted }, |_| Ok(()));
            let raw = Some("raw_tp inet_sock_set_state".to_owned());
            assert_eq!(row(&attached, name), (raw.clone(), None));
            let why = "what passes inet_sock_set_state is counted by tcp_state_raw already";
            assert_eq!(row(&attached, other), (raw, Some(why.to_owned())));
            assert!(!attached.ok("tcp_state"));
        }
    }

    #[test]
    fn why_a_system_call_failed_is_told() {
        let io_error = std::io::Error::from_raw_os_error(16);
        let error = ProgramError::SyscallError(SyscallError { call: "bpf_link_create", io_error });
        let told = "`bpf_link_create` failed: Device or resource busy (os error 16)";
        assert_eq!(one_line(&error), told);
    }

    #[test]
    fn two_programs_at_one_hook_are_no_rivals() {
        for (forced, full, drop) in [
            (None, "kretprobe early_drop, tp_btf kfree_skb", "tp_btf kfree_skb"),
            (Some("raw_tp"), "kretprobe early_drop, raw_tp kfree_skb", "raw_tp kfree_skb"),
        ] {
            let forced = forced.map(|rung| Forced { probe: "drop".to_owned(), rung: rung.to_owned() });
            let (selected, wanted) = wanted(forced.as_slice());
            let mut attached = Attached::default();
            attached.choose(Wanted { selected: &selected, ..wanted }, |_| Ok(()));
            for (name, source) in [("ct.full", full), ("drop", drop)] {
                assert_eq!(row(&attached, name).0.as_deref(), Some(source));
            }
        }
    }

    #[test]
    fn the_verifiers_last_words_are_those_before_its_statistics() {
        let log = "0: R1=ctx()\n; let x = load(sk)\n1: (79) r0 = *(u64 *)(r1 +8)\n\n\
                   access beyond struct sock at off 2000 size 8\n\
                   verification time 80 usec\nstack depth 0\nprocessed 2 insns (limit 1000000)\n";
        let told = "; its verifier: ; let x = load(sk) | 1: (79) r0 = *(u64 *)(r1 +8) | \
                    access beyond struct sock at off 2000 size 8";
        assert_eq!(last_words(log).as_deref(), Some(told));
        assert_eq!(last_words("\nprocessed 0 insns\n"), None);
    }
}
