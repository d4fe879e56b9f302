//! Changes that are put on and taken off again and again, to see what they do.

use super::{Begin, ChangeError, Engine, Now, Plan, StateDir, Until, now_of};
use std::time::Duration;

/// A change that is put on and taken off.
///
/// Whoever does so has [`super::start_guard`] take back what is left of it when its time is up.
#[derive(Debug)]
pub struct Switch {
    dir: StateDir,
    plan: Plan,
    /// While it is on: what the journal says of it.
    made: Option<Begin>,
    limit: Duration,
}

impl Switch {
    /// Off. Each time it is on, it is so for no longer than `limit`.
    #[must_use]
    pub const fn new(dir: StateDir, plan: Plan, limit: Duration) -> Self {
        Self { dir, plan, made: None, limit }
    }

    /// What it sets.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sets it, or takes it back, whatever it was before: what is measured then begins in both
    /// cases with something that was just set.
    ///
    /// # Errors
    /// As [`Engine::apply`] and [`Engine::undo`].
    pub fn set(&mut self, on: bool) -> Result<(), ChangeError> {
        if self.made.is_some() == on {
            self.turn(!on)?;
        }
        self.turn(on)
    }

    fn turn(&mut self, on: bool) -> Result<(), ChangeError> {
        if on { self.on() } else { self.off() }
    }

    fn on(&mut self) -> Result<(), ChangeError> {
        let (mut engine, _) = Engine::open(&self.dir)?;
        let change = engine.apply(&self.plan, Some(Until::after(self.limit)))?;
        let entry = engine.entries().iter().find(|e| e.begin.change == change);
        self.made = entry.map(|e| e.begin.clone());
        Ok(())
    }

    /// Takes it back, if it is on.
    ///
    /// # Errors
    /// As [`Engine::undo`].
    pub fn off(&mut self) -> Result<(), ChangeError> {
        if let Some(begin) = &self.made {
            Engine::open(&self.dir)?.0.undo(begin.change, "it was tried", false)?;
            self.made = None;
        }
        Ok(())
    }

    /// Whether it is as it was set: a measurement in which somebody else changed the value says nothing.
    ///
    /// # Errors
    /// [`ChangeError::Meanwhile`].
    pub fn check(&self) -> Result<(), ChangeError> {
        let (wanted, steps) =
            self.made.as_ref().map_or((Now::AsBefore, &self.plan.steps), |made| (Now::AsSet, &made.steps));
        steps.iter().try_for_each(|step| match now_of(step) {
            (now, _) if now == wanted => Ok(()),
            (_, now) => Err(ChangeError::Meanwhile { what: step.to_string(), now }),
        })
    }
}
