//! Verifies and attaches the programs that the selected probes need, by the table in [`crate::probes`], and keeps
//! the books on what is in use and why not better.
//!
//! Programs at interfaces (TC, XDP) are loaded here and attached by [`crate::iface`], as interfaces come and go.

use crate::{
    load::Loaded,
    probes::{Hook, Probe, Program, Source},
    snapshot,
};
use aya::programs::{BtfTracePoint, Program as AyaProgram, ProgramError, SchedClassifier, Xdp};
use std::collections::HashMap;

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
}

/// Attaches what the probes need. A probe that cannot be had is noted, not an error.
pub fn attach(loaded: &mut Loaded, selected: &[&'static Probe], all: &[Probe]) -> Attached {
    let mut attached = Attached::default();
    for probe in all {
        if !selected.iter().any(|s| s.name == probe.name) {
            attached.probes.push(off(probe, "not selected".to_owned()));
            continue;
        }
        let status = first_source(loaded, probe, &mut attached);
        attached.probes.push(status);
    }
    attached
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
fn first_source(loaded: &mut Loaded, probe: &Probe, attached: &mut Attached) -> snapshot::Probe {
    let mut reasons = Vec::new();
    for source in probe.sources {
        match try_source(loaded, source, attached) {
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

fn try_source(loaded: &mut Loaded, source: &Source, attached: &mut Attached) -> Result<String, String> {
    let (name, programs) = match source {
        Source::Procfs(path) => return Ok(format!("procfs {path}")),
        Source::Programs(name, programs) => (name, programs),
    };
    for program in *programs {
        if !attached.programs.contains_key(program.name) {
            let outcome = bring_up(loaded, program);
            attached.programs.insert(program.name, outcome);
        }
        if let Some(Err(reason)) = attached.programs.get(program.name) {
            return Err(reason.clone());
        }
        attached.wire |= !matches!(program.hook, Hook::TpBtf(_));
    }
    let hooks: Vec<&str> = programs.iter().filter_map(|p| if let Hook::TpBtf(h) = p.hook { Some(h) } else { None }).collect();
    Ok(format!("{name} {}", hooks.join(" ")).trim_end().to_owned())
}

/// Verifies one program, and attaches it unless interfaces do.
fn bring_up(loaded: &mut Loaded, program: &Program) -> Outcome {
    if let Hook::TpBtf(hook) = program.hook {
        if loaded.btf.tracepoint_args(hook).is_none() {
            return Err(format!("this kernel has no tracepoint {hook}"));
        }
    }
    let Loaded { ebpf, aya_btf, .. } = loaded;
    let Some(found) = ebpf.program_mut(program.name) else {
        return Err(format!("program {} is not in the object", program.name));
    };
    verify(found, program, aya_btf).map_err(|e| format!("{}: {}", program.name, one_line(&e)))
}

fn verify(found: &mut AyaProgram, program: &Program, btf: &aya::Btf) -> Result<(), ProgramError> {
    match program.hook {
        Hook::TpBtf(hook) => {
            let tracepoint: &mut BtfTracePoint = found.try_into()?;
            tracepoint.load(hook, btf)?;
            tracepoint.attach()?;
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

/// The cause without the verifier's log, which goes to the debug log.
fn one_line(error: &ProgramError) -> String {
    tracing::debug!("{error:?}");
    match error {
        ProgramError::LoadError { io_error, .. } => format!("the kernel refused the program: {io_error}"),
        other => other.to_string(),
    }
}
