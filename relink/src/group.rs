//! Sessions that share inputs.

use std::time::Instant;

use relink_engine::diagnostic::LinkError;
use relink_engine::frame::SharedParses;
use relink_engine::report::{GateReason, Outcome};

use crate::session::LinkSession;

/// Several sessions whose shared inputs change together: all of their images are patched, or all of them are linked
/// anew, or, after an error, all stay as they are.
#[derive(Debug, Default)]
pub struct LinkGroup {
    sessions: Vec<LinkSession>,
}

impl LinkGroup {
    /// A group without sessions.
    pub fn new() -> LinkGroup {
        LinkGroup::default()
    }

    /// Adds a session and returns its number.
    pub fn add(&mut self, session: LinkSession) -> usize {
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// The sessions, in the order in which they were added.
    pub fn sessions(&self) -> &[LinkSession] {
        &self.sessions
    }

    /// A session.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn session(&self, number: usize) -> &LinkSession {
        &self.sessions[number]
    }

    /// A session, to replace its inputs. Give all sessions the same bytes of a shared input, so that it is parsed
    /// once for all.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn session_mut(&mut self, number: usize) -> &mut LinkSession {
        &mut self.sessions[number]
    }

    /// Links all sessions that have changed, in one transaction. Every image is derived before one is published.
    ///
    /// # Errors
    /// The errors of all sessions; no image and no state has changed then.
    pub fn resolve(&mut self) -> Result<Vec<Outcome>, LinkError> {
        let start = Instant::now();
        let shared = SharedParses::default();
        let dirty: Vec<usize> =
            (0..self.sessions.len()).filter(|&number| self.sessions[number].is_dirty()).collect();
        let mut reasons: Vec<Vec<GateReason>> = Vec::with_capacity(dirty.len());
        let mut patched = true;
        for &number in &dirty {
            let session = &mut self.sessions[number];
            let mut own = session.prior_reasons();
            let refused = match session.may_patch(&own) {
                true => session.derive_patch(Some(&shared)).err(),
                false => Some(Vec::new()),
            };
            patched &= refused.is_none();
            own.extend(refused.unwrap_or_default());
            reasons.push(own);
        }
        if !patched {
            self.derive_all(&dirty, &shared)?;
            share_reasons(&mut reasons);
        }
        for (&number, mut own) in dirty.iter().zip(reasons) {
            let session = &mut self.sessions[number];
            let outcome = if patched { Outcome::Patched } else { session.full_outcome(&own) };
            session.publish();
            if session.finished(outcome, &mut own, start).is_none() {
                // Damage of the state that only Commit met: this image is linked anew, the others are good.
                let outcome = session.full_outcome(&own);
                session.derive_full(None, &mut |_| None)?;
                session.publish();
                session.finished(outcome, &mut own, start);
            }
        }
        Ok(self.sessions.iter().filter_map(LinkSession::outcome).collect())
    }

    /// Derives full links of all; with an error in one of them, all are forgotten.
    fn derive_all(&mut self, dirty: &[usize], shared: &SharedParses) -> Result<(), LinkError> {
        let mut errors = LinkError::default();
        for &number in dirty {
            self.sessions[number].abandon();
            if let Err(error) = self.sessions[number].derive_full(Some(shared), &mut |_| None) {
                errors.diagnostics.extend(error.diagnostics);
                errors.omitted += error.omitted;
            }
        }
        if errors.diagnostics.is_empty() {
            return Ok(());
        }
        for &number in dirty {
            self.sessions[number].abandon();
        }
        Err(errors)
    }
}

/// A session that could have been patched falls back for another one's reasons.
fn share_reasons(reasons: &mut [Vec<GateReason>]) {
    let Some(shared) = reasons.iter().find(|own| !own.is_empty()).cloned() else { return };
    for own in reasons.iter_mut().filter(|own| own.is_empty()) {
        own.clone_from(&shared);
    }
}
