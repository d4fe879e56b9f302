//! What each signal would be measured from: by having the kernel verify every program where it may, and by the
//! kernel's BTF alone where not. Nothing is attached, and what was loaded is gone when this returns.

use super::{Basis, Row, State};
use crate::{
    attach::{Wanted, counters_there, first_source, hook_there, programs_ready},
    btf::Btf,
    load::{self, LoadError, ProgramOptions},
    offsets,
    probes::{self, PROBES, Probe, Source},
    snapshot,
};
use std::path::Path;

/// What is known of all signals.
#[derive(Debug)]
pub(super) struct Signals {
    /// How it is known.
    pub(super) basis: Basis,
    /// Why not better.
    pub(super) why: Option<String>,
    /// By probe, in the table's order.
    pub(super) rows: Vec<Row>,
    /// Members of kernel structures that this kernel does not have.
    pub(super) missing: Vec<&'static str>,
    /// Why nothing could be measured, although the object loads.
    pub(super) none: Option<String>,
}

/// Has the kernel verify all programs, as a capture with `options` would.
///
/// # Errors
/// When the object cannot be loaded.
pub(super) fn by_loading(options: &ProgramOptions) -> Result<Signals, LoadError> {
    let (mut loaded, types) = load::load(options)?;
    let ready = programs_ready(
        &mut loaded,
        &types,
        Wanted { selected: &probes::select(&[]), forced: &[], xdp: false },
    );
    let none = ready.any().err();
    let rows = ready.probes.into_iter().map(|probe| row(probe, &types.missing)).collect();
    Ok(Signals { basis: Basis::Verifier, why: None, rows, missing: types.missing, none })
}

/// One probe as the loader left it.
pub(super) fn row(probe: snapshot::Probe, missing: &[&str]) -> Row {
    let state = if probe.source.is_some() { State::Ok } else { State::Note };
    let refused = probe.reason.as_deref().is_some_and(|r| r.contains("refused"));
    let mut reason = probe.reason;
    // A load at the offset of a member that is not there is what the verifier refuses.
    if let Some(reason) = reason.as_mut().filter(|_| refused && !missing.is_empty()) {
        reason.push_str(&format!("; this kernel lacks {}", missing.join(", ")));
    }
    Row { name: probe.name, state, source: probe.source, reason }
}

/// By the kernel's BTF below `root`, because of `why`.
#[must_use]
pub(super) fn by_btf(root: &Path, why: String) -> Signals {
    let types = root.join("sys/kernel/btf");
    match Btf::open(&types.join("vmlinux")) {
        Ok(btf) => Signals {
            basis: Basis::Btf,
            why: Some(why),
            rows: PROBES.iter().map(|probe| expected(root, &btf, probe)).collect(),
            missing: offsets::resolve(Some(&btf), &types).missing,
            none: None,
        },
        Err(error) => Signals {
            basis: Basis::Nothing,
            why: Some(format!("{why}; {error}")),
            rows: PROBES.iter().map(unknown).collect(),
            missing: Vec::new(),
            none: None,
        },
    }
}

/// The first source whose hooks the kernel has.
fn expected(root: &Path, btf: &Btf, probe: &Probe) -> Row {
    let there = |source: &Source| {
        counters_there(root, source)?;
        source.programs().iter().try_for_each(|program| hook_there(root, Some(btf), program.hook))
    };
    row(first_source(probe, probe.sources.iter(), there), &[])
}

fn unknown(probe: &Probe) -> Row {
    Row { name: probe.name.to_owned(), state: State::Note, source: None, reason: None }
}
