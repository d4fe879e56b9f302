//! Verifies and attaches the programs that the selected probes need, by the table in [`crate::probes`], and keeps
//! the books on what is in use and why not better.
//!
//! Programs at interfaces (TC, XDP) are loaded here and attached by [`crate::iface`], as interfaces come and go.

use crate::{
    btf::Btf,
    conntrack,
    load::{Loaded, Types},
    probes::{Forced, Hook, PROBES, Probe, Program, Side, Source, Stay, WIRE_XDP, allowed, staying},
    snapshot,
};
use aya::programs::{
    BtfTracePoint, FEntry, FExit, KProbe, Program as AyaProgram, ProgramError, SchedClassifier, Xdp,
    fentry::FEntryLink, fexit::FExitLink, kprobe::KProbeLink, tp_btf::BtfTracePointLink,
};
use nettrace_common::config::state;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// What became of one program: attached (or ready for interfaces), or why not.
pub type Outcome = Result<(), String>;

/// What became of each program and probe.
#[derive(Default)]
pub struct Attached {
    /// By program name.
    pub programs: HashMap<&'static str, Outcome>,
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
        matches!(self.programs.get(program), Some(Ok(())))
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

/// Verifies what the probes need, so that attaching it is quick. A probe that cannot be had is noted, not an error.
pub fn programs_ready(loaded: &mut Loaded, types: &Types, wanted: Wanted<'_>) -> Attached {
    let mut attached = Attached::default();
    if wanted.xdp {
        for program in WIRE_XDP {
            let outcome = bring_up(loaded, types, program);
            attached.programs.insert(program.name, outcome);
            attached.needed.insert(program.name);
        }
    }
    for probe in PROBES {
        if !wanted.selected.iter().any(|s| s.name == probe.name) {
            attached.probes.push(off(probe, snapshot::Probe::NOT_SELECTED.to_owned()));
            continue;
        }
        let status = first_source(loaded, types, probe, wanted.forced, &mut attached);
        attached.probes.push(status);
    }
    // A source that did not work may have left programs that did.
    let Attached { programs, needed, .. } = &mut attached;
    programs.retain(|name, outcome| outcome.is_err() || needed.contains(name));
    attached
}

/// Attaches the tracepoint programs that are ready and stay. One that cannot be attached takes its probes with it.
pub fn attach(loaded: &mut Loaded, mut attached: Attached) -> Attached {
    let later: Vec<_> = [Stay::Share(Side::Begin), Stay::Share(Side::End), Stay::WithQueues]
        .into_iter()
        .flat_map(staying)
        .collect();
    for (name, outcome) in &mut attached.programs {
        if outcome.is_err() || later.contains(name) {
            continue;
        }
        let Some(program) = loaded.ebpf.program_mut(name) else { continue };
        if let Err(error) = attach_one(program) {
            let reason = format!("{name}: {}", one_line(&error));
            mark_off(&mut attached.probes, name, &reason);
            *outcome = Err(reason);
        }
    }
    loaded.queues.ready = staying(Stay::WithQueues).filter(|name| attached.ok(name)).collect();
    attach_needed(loaded);
    attached
}

/// Attaches a program at its place in the kernel; those of interfaces have none.
fn attach_one(program: &mut AyaProgram) -> Result<(), ProgramError> {
    match program {
        AyaProgram::BtfTracePoint(program) => program.attach().map(drop),
        AyaProgram::FEntry(program) => program.attach().map(drop),
        AyaProgram::FExit(program) => program.attach().map(drop),
        _ => Ok(()),
    }
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
        let Some(AyaProgram::BtfTracePoint(program)) = loaded.ebpf.program_mut(name) else { continue };
        if let Err(error) = program.attach() {
            failed(loaded, name, &error);
        } else if let Err(error) = loaded.tell(state::XMIT, true) {
            tracing::warn!("{name}: {error}");
        }
    }
}

/// A program that was ready could not be attached while the capture ran.
fn failed(loaded: &mut Loaded, name: &'static str, error: &ProgramError) {
    let reason = format!("{name}: {}", one_line(error));
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
        |name: &str| {
            PROBES.iter().filter(|p| p.name == name).flat_map(|p| p.sources).any(
                |s| matches!(s, Source::Programs(_, programs) if programs.iter().any(|p| p.name == program)),
            )
        };
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
    /// At the entry of a function.
    FEntry(FEntryLink),
    /// At the return of a function.
    FExit(FExitLink),
    /// At either, by kprobe.
    KProbe(KProbeLink),
}

/// Attaches one program for as long as what this yields is kept.
pub fn hold(loaded: &mut Loaded, name: &'static str) -> Option<Held> {
    let place = PROBES.iter().flat_map(|p| p.sources).find_map(|s| s.place_of(name))?;
    let held = match loaded.ebpf.program_mut(name)? {
        AyaProgram::BtfTracePoint(program) => {
            program.attach().and_then(|id| program.take_link(id)).map(Held::TracePoint)
        }
        AyaProgram::FEntry(program) => {
            program.attach().and_then(|id| program.take_link(id)).map(Held::FEntry)
        }
        AyaProgram::FExit(program) => program.attach().and_then(|id| program.take_link(id)).map(Held::FExit),
        AyaProgram::KProbe(program) => {
            program.attach(place, 0).and_then(|id| program.take_link(id)).map(Held::KProbe)
        }
        _ => return None,
    };
    held.map_err(|error| failed(loaded, name, &error)).ok()
}

/// Detaches the programs that are not at interfaces.
pub fn detach(loaded: &mut Loaded) {
    for (name, program) in loaded.ebpf.programs_mut() {
        let result = match program {
            AyaProgram::BtfTracePoint(program) => program.unload(),
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

fn off(probe: &Probe, reason: String) -> snapshot::Probe {
    snapshot::Probe {
        name: probe.name.to_owned(),
        source: None,
        yields: vec![probe.name.to_owned()],
        reason: Some(reason),
    }
}

/// Takes the first source of a probe that works.
fn first_source(
    loaded: &mut Loaded,
    types: &Types,
    probe: &Probe,
    forced: &[Forced],
    attached: &mut Attached,
) -> snapshot::Probe {
    let mut reasons = Vec::new();
    for source in allowed(probe, forced) {
        match try_source(loaded, types, source, attached) {
            Ok(name) => {
                reasons.extend(probe.note.map(str::to_owned));
                return snapshot::Probe {
                    name: probe.name.to_owned(),
                    source: Some(name),
                    yields: vec![probe.name.to_owned()],
                    reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
                };
            }
            Err(reason) => reasons.push(reason),
        }
    }
    off(probe, reasons.join("; "))
}

fn try_source(
    loaded: &mut Loaded,
    types: &Types,
    source: &Source,
    attached: &mut Attached,
) -> Result<String, String> {
    let Source::Programs(_, programs) = source else {
        return counters_there(Path::new("/"), source).map(|()| source.to_string());
    };
    for program in *programs {
        if !attached.programs.contains_key(program.name) {
            let outcome = bring_up(loaded, types, program);
            attached.programs.insert(program.name, outcome);
        }
        if let Some(Err(reason)) = attached.programs.get(program.name) {
            return Err(reason.clone());
        }
    }
    for program in *programs {
        attached.needed.insert(program.name);
        attached.wire |= program.hook.place().is_none();
    }
    Ok(source.to_string())
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

/// Whether the kernel has a hook, by its BTF and its sysfs below a root directory; if not, says so.
///
/// # Errors
/// The reason, when it has not.
pub fn hook_there(root: &Path, btf: &Btf, hook: Hook) -> Outcome {
    match hook {
        Hook::TpBtf(name) if btf.tracepoint_args(name).is_none() => Err(match hook.since() {
            Some(release) => format!("this kernel has no tracepoint {name} (Linux {release})"),
            None => format!("this kernel has no tracepoint {name}"),
        }),
        Hook::FEntry(name) | Hook::FExit(name) if !btf.has_function(name) => {
            Err(format!("the kernel proper has no function {name}"))
        }
        Hook::KProbe(_) | Hook::KRetProbe(_) if !root.join(KPROBES).exists() => {
            Err("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned())
        }
        Hook::KProbe(name) | Hook::KRetProbe(name) if !btf.has_function(name) => match hook.module() {
            Some(module) if !root.join("sys/module").join(module).exists() => {
                Err(format!("{name} is in the module {module}, which is not loaded"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Has the kernel verify one program.
fn bring_up(loaded: &mut Loaded, types: &Types, program: &Program) -> Outcome {
    hook_there(Path::new("/"), &types.btf, program.hook)?;
    let Some(found) = loaded.ebpf.program_mut(program.name) else {
        return Err(format!("program {} is not in the object", program.name));
    };
    verify(found, program, &types.aya).map_err(|e| format!("{}: {}", program.name, one_line(&e)))
}

fn verify(found: &mut AyaProgram, program: &Program, btf: &aya::Btf) -> Result<(), ProgramError> {
    match program.hook {
        Hook::TpBtf(hook) => {
            let tracepoint: &mut BtfTracePoint = found.try_into()?;
            tracepoint.load(hook, btf)?;
        }
        Hook::FEntry(function) => {
            let entry: &mut FEntry = found.try_into()?;
            entry.load(function, btf)?;
        }
        Hook::FExit(function) => {
            let exit: &mut FExit = found.try_into()?;
            exit.load(function, btf)?;
        }
        Hook::KProbe(_) | Hook::KRetProbe(_) => {
            let probe: &mut KProbe = found.try_into()?;
            probe.load()?;
        }
        Hook::TcIngress | Hook::TcEgress => {
            let classifier: &mut SchedClassifier = found.try_into()?;
            classifier.load()?;
        }
        Hook::Xdp => {
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
        other => other.to_string(),
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
