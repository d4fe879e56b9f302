//! From what is asked for to what is to be done, value by value.

use super::{ChangeError, Place, Step, found, kinds, owner};

/// What is asked for: one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Network namespace: a name, `host`, or a path.
    pub netns: String,
    /// As it is typed, `KIND:KEY=VALUE`.
    pub setting: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// A finding's id, or what was typed.
    pub id: String,
    /// Why.
    pub why: String,
    /// Values that are to be set, in this order.
    pub steps: Vec<Step>,
    /// What is so already.
    pub already: Vec<String>,
    /// What was asked for.
    requests: Vec<Request>,
    /// Whether kernel settings are also written to where the system sets them at the next start.
    persist: bool,
}

/// Looks at what is there, and says what is to be done; changes nothing. With `persist`, kernel settings are also written to
/// where the system sets them at the next start.
///
/// # Errors
/// When a setting is not there, cannot be restored exactly afterwards, or the value makes no sense.
pub fn plan(id: &str, why: &str, requests: &[Request], persist: bool) -> Result<Plan, ChangeError> {
    let mut plan = Plan { requests: requests.to_vec(), persist, ..Plan::of(id, why, Vec::new()) };
    for Request { netns, setting } in requests {
        let parsed = kinds::parse(setting)?;
        let place = Place::find(netns)?;
        if parsed.kind.of_machine && !place.is_own() {
            return Err(ChangeError::Value {
                what: format!("{} of {netns}", parsed.kind.name),
                value: parsed.value,
                why: "it is the machine's, and not a network namespace's".to_owned(),
            });
        }
        let kept = kinds::kept_in(parsed.kind.name, &parsed.key, &parsed.value)
            .filter(|_| persist && place.is_own());
        if persist && kept.is_none() {
            return Err(ChangeError::Value {
                what: format!("{}:{}", parsed.kind.name, parsed.key),
                value: parsed.value,
                why: "with --persist, only kernel settings of the host itself: who sets the others at the next start is not known"
                    .to_owned(),
            });
        }
        add(&mut plan, place.clone(), parsed)?;
        if let Some(file) = kept {
            add(&mut plan, place, file)?;
        }
    }
    Ok(plan)
}

fn add(plan: &mut Plan, place: Place, setting: kinds::Setting) -> Result<(), ChangeError> {
    let kinds::Setting { kind, key, value } = setting;
    let (before, after, ifindex) = kind.within(&place, || {
        let before = (kind.read)(&key)?;
        let after = (kind.plan)(&key, &value, &before)?;
        let link = (kind.link)(&key).map(|name| kinds::link(&name)).transpose()?;
        Ok((before, after, link.map(|link| link.index)))
    })?;
    let owners = owner::of(kind.name, &key, &place);
    let step = Step { place, kind: kind.name.to_owned(), key, before, after, owners, ifindex };
    if let Some(other) = plan.steps.iter().find(|other| other.is_of(&step)) {
        return Err(ChangeError::Value {
            what: step.to_string(),
            value,
            why: format!("{other} is of the same value: one after the other, in changes of their own"),
        });
    }
    if kind.is_same(&step.before, &step.after) {
        plan.already.push(step.to_string());
    } else {
        plan.steps.push(step);
    }
    Ok(())
}

impl Plan {
    /// Of steps that are known.
    pub(super) fn of(id: &str, why: &str, steps: Vec<Step>) -> Self {
        let (id, why) = (id.to_owned(), why.to_owned());
        Self { id, why, steps, already: Vec::new(), requests: Vec::new(), persist: false }
    }

    /// The same, of what is there now: what was changed meanwhile may be what it builds on.
    ///
    /// # Errors
    /// As [`plan()`].
    pub fn anew(&self) -> Result<Self, ChangeError> {
        if self.requests.is_empty() {
            return Ok(self.clone());
        }
        plan(&self.id, &self.why, &self.requests, self.persist)
    }

    /// Whether it is as it was when it was planned, so that it may be made.
    ///
    /// # Errors
    /// [`ChangeError::Meanwhile`] when not.
    pub(super) fn check(&self) -> Result<(), ChangeError> {
        self.steps.iter().try_for_each(|step| {
            let now = found::read(step)?;
            let same = kinds::find(&step.kind)?.is_same(&step.before, &now);
            if same { Ok(()) } else { Err(ChangeError::Meanwhile { what: step.to_string(), now }) }
        })
    }
}
