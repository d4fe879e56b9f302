//! `nettrace apply`: from findings, or settings that were typed, to changes of this node; with a look before, and a question.

use super::{
    Exit,
    commands::{Failure, print, say},
    input::{self, Input},
    run, undo,
};
use crate::{
    change::{ChangeError, Engine, Plan, Request, StateDir, Step, Until, nearest, plan, start_guard},
    config::{Apply, Capture, Wanted},
    recommend::{self, Finding, Risk, Verdict},
    report::units,
    snapshot::{SignalData, Snapshot},
};
use anyhow::{Context as _, anyhow};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Plans, shows, asks and applies.
pub(super) fn apply(capture: &Capture, apply: &Apply) -> Result<Exit, Failure> {
    let dir = StateDir::new(apply.state_dir.as_deref());
    check(apply)?;
    if !apply.dry_run {
        undo::recover(&dir)?;
    }
    let asked = plans(capture, apply)?;
    if asked.is_empty() {
        say("nothing is to be changed");
        return Ok(Exit::Ok);
    }
    print(|out| asked.iter().try_for_each(|plan| show(out, plan)))?;
    if apply.dry_run {
        say("nothing was changed (--dry-run)");
        return Ok(Exit::Ok);
    }
    if !agreed(apply)? {
        say("nothing was changed");
        return Ok(Exit::Ok);
    }
    make(&dir, &asked, apply)
}

/// Measures, applies what is safe, and measures again: the second measurement, or the first where nothing was changed.
pub(super) fn measure_apply_measure(capture: &Capture, apply: &Apply) -> Result<Snapshot, Failure> {
    let dir = StateDir::new(apply.state_dir.as_deref());
    undo::recover(&dir)?;
    let before = run::measure(capture, None)?.snapshot;
    let findings = recommend::advise(&before, apply.profile);
    let plans = planned(&findings, apply)?;
    if plans.is_empty() {
        say("no finding says apply and risks nothing; nothing was changed");
        return Ok(before);
    }
    plans.iter().try_for_each(|plan| show(&mut io::stderr(), plan)).context("cannot show the changes")?;
    if !agreed(apply)? {
        say("nothing was changed");
        return Ok(before);
    }
    make(&dir, &plans, apply)?;
    let after = run::measure(capture, None)?.snapshot;
    for row in after.signals.iter().filter(|row| row.scope == ALL) {
        let same = before.signals.iter().find(|r| r.signal == row.signal && r.scope == ALL);
        let Some(then) = same else { continue };
        let quantile = |data: &SignalData, q| units::duration(data.hist.quantile_ns(q));
        say(&format!(
            "{}: p50 {} -> {}, p99 {} -> {}",
            row.signal,
            quantile(then, 0.5),
            quantile(row, 0.5),
            quantile(then, 0.99),
            quantile(row, 0.99)
        ));
    }
    Ok(after)
}

/// The scope of a signal's distribution over all.
const ALL: &str = "all";

/// A typing error is better known before the measurement than after it.
pub(super) fn check(apply: &Apply) -> Result<(), Failure> {
    match &apply.wanted {
        Wanted::Findings(ids) => ids.iter().try_for_each(|id| check_id(id)),
        _ => Ok(()),
    }
}

/// What is to be tried, each by itself.
pub(super) fn each(capture: &Capture, apply: &Apply) -> Result<Vec<Plan>, Failure> {
    let Wanted::Settings { settings, netns } = &apply.wanted else { return plans(capture, apply) };
    let one = |setting: &String| typed(std::slice::from_ref(setting), netns, false);
    let plans = settings.iter().map(one).collect::<Result<Vec<_>, Failure>>()?;
    Ok(plans.into_iter().flatten().collect())
}

/// One change after the other: what was made before one fails stays, and is told.
fn make(dir: &StateDir, plans: &[Plan], apply: &Apply) -> Result<Exit, Failure> {
    if apply.until.is_some() {
        // Before anything is changed, so that somebody takes it back even if this process ends in the middle.
        dir.create()?;
        start_guard(dir)?;
    }
    let (mut engine, recovered) = Engine::open(dir)?;
    undo::tell(&recovered)?;
    let until = apply.until.map(Until::after);
    for plan in plans {
        let change = engine.apply(plan, until.clone())?;
        let limit = apply.until.map(|time| {
            format!("; it is taken back in {time:?} unless `nettrace keep {change}` is run before")
        });
        say(&format!(
            "change {change}, {}: done; `nettrace rollback {change}` takes it back{}",
            plan.id,
            limit.unwrap_or_default()
        ));
    }
    Ok(Exit::Ok)
}

/// What is to be done, nothing twice, and nothing that is so already.
fn plans(capture: &Capture, apply: &Apply) -> Result<Vec<Plan>, Failure> {
    match &apply.wanted {
        Wanted::Settings { settings, netns } => {
            Ok(typed(settings, netns, apply.persist)?.into_iter().collect())
        }
        _ => planned(&findings(capture, apply)?, apply),
    }
}

/// One change of settings as they were typed; none where all is so already.
fn typed(settings: &[String], netns: &str, persist: bool) -> Result<Option<Plan>, Failure> {
    let request = |setting: &String| Request { netns: netns.to_owned(), setting: setting.clone() };
    let requests: Vec<_> = settings.iter().map(request).collect();
    Ok(told(plan(&settings.join(" "), "asked for", &requests, persist)?))
}

/// What findings call for, nothing twice.
fn planned(findings: &[Finding], apply: &Apply) -> Result<Vec<Plan>, Failure> {
    let mut plans: Vec<Plan> = Vec::new();
    for finding in chosen(findings, apply)? {
        let requests = requests(finding);
        if requests.is_empty() {
            by_hand(finding);
            continue;
        }
        let mut plan = plan(&finding.id, &finding.because, &requests, apply.persist)?;
        let earlier = |step: &Step| plans.iter().flat_map(|p| &p.steps).any(|s| s.is_of(step));
        plan.steps.retain(|step| !earlier(step));
        plans.extend(told(plan));
    }
    Ok(plans)
}

/// Says what is so already, and yields what there is to be done, if anything.
fn told(plan: Plan) -> Option<Plan> {
    plan.already.iter().for_each(|what| say(&format!("{what} is so already")));
    Some(plan).filter(|plan| !plan.steps.is_empty())
}

/// Of a measurement made now, or before on this node.
fn findings(capture: &Capture, apply: &Apply) -> Result<Vec<Finding>, Failure> {
    let input = match &apply.from {
        Some(path) => input::read(path)?,
        None => Input { snapshot: run::measure(capture, None)?.snapshot, damaged: false },
    };
    let (there, here) = (&input.snapshot.meta.hostname, crate::capture::hostname());
    if apply.from.is_some() && *there != here {
        return Err(Failure::usage(anyhow!(
            "the measurement is of {there}, and this is {here}: what one needs says nothing of the other; nothing was changed"
        )));
    }
    Ok(recommend::advise(&input.snapshot, apply.profile))
}

fn chosen<'a>(findings: &'a [Finding], apply: &Apply) -> Result<Vec<&'a Finding>, Failure> {
    let Wanted::Findings(ids) = &apply.wanted else {
        let safe = |f: &&Finding| f.verdict == Verdict::Apply && f.risk == Risk::Low;
        let proposed = |f: &&Finding| f.verdict.is_urgent() && f.changes.iter().any(|c| c.setting.is_some());
        let all = matches!(apply.wanted, Wanted::Proposed);
        return Ok(findings.iter().filter(|f| if all { proposed(f) } else { safe(f) }).collect());
    };
    let mut chosen = Vec::new();
    for id in ids {
        let finding = findings.iter().find(|f| f.id == *id).ok_or_else(|| unknown(id))?;
        if !finding.verdict.is_urgent() {
            let tell = finding.to_tell.as_ref().map(|run| format!(" (to tell: {run})")).unwrap_or_default();
            return Err(Failure::usage(anyhow!(
                "{id}: {}, because {}{tell}; nothing was changed. --set makes a change that no finding asks for",
                finding.verdict.name(),
                finding.because
            )));
        }
        chosen.push(finding);
    }
    Ok(chosen)
}

fn requests(finding: &Finding) -> Vec<Request> {
    let of = |change: &recommend::Change| {
        change.setting.clone().map(|setting| Request { netns: change.scope.clone(), setting })
    };
    finding.changes.iter().filter_map(of).collect()
}

/// What nettrace cannot do for people.
fn by_hand(finding: &Finding) {
    for change in &finding.changes {
        say(&format!("{}: to be done by hand, in {}: {}", finding.id, change.scope, change.apply));
    }
    if finding.changes.is_empty() {
        say(&format!("{}: there is no setting to be changed: {}", finding.id, finding.because));
    }
}

fn check_id(id: &str) -> Result<(), Failure> {
    if recommend::ids().any(|known| known == id) { Ok(()) } else { Err(unknown(id)) }
}

fn unknown(id: &str) -> Failure {
    let near =
        nearest(id, recommend::ids()).map(|near| format!("; the nearest is {near}")).unwrap_or_default();
    Failure::usage(anyhow!(
        "there is no finding {id}{near}; `nettrace recommend --all` lists them. Nothing was changed"
    ))
}

pub(super) fn show(out: &mut dyn io::Write, plan: &Plan) -> io::Result<()> {
    writeln!(out, "{}: {}", plan.id, plan.why)?;
    for step in &plan.steps {
        writeln!(out, "  {step}")?;
        writeln!(out, "    - {}", step.show(&step.before))?;
        writeln!(out, "    + {}", step.show(&step.after))?;
        for owner in &step.owners {
            writeln!(out, "    ! {owner}")?;
        }
    }
    Ok(())
}

/// Asks, unless that is not wanted; without a terminal there is nobody to be asked.
pub(super) fn agreed(apply: &Apply) -> Result<bool, Failure> {
    if apply.yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!(
            "there is no terminal to ask at; --yes for scripts, --dry-run to only look. Nothing was changed"
        )));
    }
    let _ = write!(io::stderr(), "Change this? [y/N] ").and_then(|()| io::stderr().flush());
    let mut line = String::new();
    let _ = io::stdin().lock().read_line(&mut line);
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        if error.is_usage() { Self::usage(error) } else { anyhow::Error::new(error).into() }
    }
}
