//! `nettrace recommend`: a measurement, made now or before, and what it calls for.

use super::{
    Exit,
    commands::{Failure, colorful, print, say},
    run,
};
use crate::{
    capture::replay,
    config::{Advice, Capture},
    recommend::{self, Finding, Format, RULES},
    recording::{self, FileKind},
    report,
    snapshot::{ReadError, Snapshot},
};
use anyhow::Context as _;
use std::{fs, path::Path};

/// What was measured, or why nothing can be told of it.
enum Measured {
    Snapshot(Box<Snapshot>),
    Newer(String),
}

/// Measures or reads, judges and writes.
pub(super) fn advise(capture: &Capture, advice: &Advice) -> Result<Exit, Failure> {
    if let Some(id) = &advice.explain {
        check_id(id)?;
    }
    let measured = match &advice.from {
        Some(path) => read(path)?,
        None => Measured::Snapshot(Box::new(run::measure(capture, None)?.snapshot)),
    };
    let (node, findings) = match &measured {
        Measured::Snapshot(snapshot) => {
            (snapshot.meta.hostname.as_str(), recommend::advise(snapshot, advice.profile))
        }
        Measured::Newer(why) => ("unknown", recommend::unknown(why)),
    };
    let text = written(node, &findings, advice)?;
    print(|out| out.write_all(text.as_bytes()))?;
    let failed = advice.fail_on.is_some_and(|verdict| findings.iter().any(|f| f.verdict <= verdict));
    Ok(if failed { Exit::Advised } else { Exit::Ok })
}

fn written(node: &str, findings: &[Finding], advice: &Advice) -> Result<String, Failure> {
    let options = report::Options { color: colorful(), ..report::Options::default() };
    if let Some(id) = &advice.explain {
        return Ok(findings
            .iter()
            .filter(|f| f.id == *id)
            .map(|f| recommend::explain(f, &options))
            .collect());
    }
    Ok(match advice.format {
        Format::Text => recommend::text(node, findings, advice.all, &options),
        Format::Markdown => recommend::markdown(node, findings, advice.all),
        Format::Json => recommend::json(&recommend::Advice::new(node, findings.to_vec()))
            .context("cannot write the advice as JSON")?,
    })
}

fn check_id(id: &str) -> Result<(), Failure> {
    let ids: Vec<_> = RULES.iter().copied().flatten().map(|rule| rule.id).collect();
    if ids.contains(&id) {
        return Ok(());
    }
    Err(Failure::usage(anyhow::anyhow!(
        "--explain {id}: there is no such rule; the rules are {}",
        ids.join(", ")
    )))
}

/// A recording or a snapshot.
fn read(path: &Path) -> Result<Measured, Failure> {
    let context = || format!("cannot read {}", path.display());
    match recording::sniff(path).with_context(context).map_err(Failure::usage)? {
        FileKind::Recording => {
            let replayed = replay(path).with_context(context)?;
            replayed.damage.iter().for_each(|d| say(d));
            Ok(Measured::Snapshot(Box::new(replayed.finished.snapshot)))
        }
        FileKind::Snapshot => match Snapshot::from_json(&fs::read(path).with_context(context)?) {
            Ok(snapshot) => Ok(Measured::Snapshot(Box::new(snapshot))),
            Err(error @ ReadError::TooNew { .. }) => Ok(Measured::Newer(error.to_string())),
            Err(error) => Err(Failure::usage(anyhow::Error::new(error).context(context()))),
        },
        FileKind::Empty => Err(Failure::usage(anyhow::anyhow!("{} is empty", path.display()))),
        FileKind::Unknown => {
            let what = "is neither a recording nor a JSON snapshot of nettrace";
            Err(Failure::usage(anyhow::anyhow!("{} {what}", path.display())))
        }
    }
}
