//! The frame: what is asked, what has been decided, what has been done. Resources, no logic.

use std::sync::{Arc, Mutex};

use bevy_ecs::prelude::Resource;
use formats::Bytes;
use formats::error::FormatError;
use formats::object_file::ObjectFile;
use hashbrown::{HashMap, HashSet};
use relink_formats as formats;

use crate::column::StoreError;
use crate::diagnostic::{Diagnostic, LinkError};
use crate::input::Input;
use crate::options::LinkOptions;
use crate::report::{Counters, GateReason, SetTime};
use crate::rows::{FileRow, InputRow};

/// The sets of a frame, in order. `relink-systems` orders them; nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "`LinkSet::text` says what each does")]
pub enum LinkSet {
    Ingest,
    Diff,
    Gate,
    Resolve,
    Place,
    Move,
    Relocate,
    Debug,
    BuildId,
    Commit,
}

impl LinkSet {
    /// All sets in frame order.
    pub const ALL: [LinkSet; 10] = [
        LinkSet::Ingest,
        LinkSet::Diff,
        LinkSet::Gate,
        LinkSet::Resolve,
        LinkSet::Place,
        LinkSet::Move,
        LinkSet::Relocate,
        LinkSet::Debug,
        LinkSet::BuildId,
        LinkSet::Commit,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            LinkSet::Ingest => "ingest",
            LinkSet::Diff => "diff",
            LinkSet::Gate => "gate",
            LinkSet::Resolve => "resolve",
            LinkSet::Place => "place",
            LinkSet::Move => "move",
            LinkSet::Relocate => "relocate",
            LinkSet::Debug => "debug",
            LinkSet::BuildId => "build_id",
            LinkSet::Commit => "commit",
        }
    }

    /// What it does.
    pub const fn text(self) -> &'static str {
        match self {
            LinkSet::Ingest => "parses changed inputs; makes atoms, symbols, relocations of them",
            LinkSet::Diff => "pairs new atoms with old ones; finds what changed",
            LinkSet::Gate => "decides before a byte is written: patch, or full link and why",
            LinkSet::Resolve => "names to definitions",
            LinkSet::Place => "slots",
            LinkSet::Move => "atoms that outgrew their slots; islands",
            LinkSet::Relocate => "derives and applies relocations",
            LinkSet::Debug => "debug contributions, unwind tables, symbol table",
            LinkSet::BuildId => "rehashes dirty pages",
            LinkSet::Commit => "publishes image and store, or throws the plan away",
        }
    }
}

/// Which driver of each verb runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameKind {
    /// Bulk, over whole columns.
    #[default]
    Cold,
    /// Over the entities of what changed.
    Warm,
}

/// Objects that sessions of a group have parsed in this frame, by where their bytes lie and how many there are.
///
/// The bytes stay alive in each object, so an address can't be used again while its entry is here.
#[derive(Clone, Debug, Default)]
pub struct SharedParses(Arc<Mutex<HashMap<(usize, usize), ObjectFile>>>);

impl SharedParses {
    /// The object in `bytes`: parsed before by another session, or now. Tells which.
    ///
    /// # Errors
    /// As [`ObjectFile::parse`].
    pub fn parse(&self, bytes: Bytes) -> Result<(ObjectFile, bool), FormatError> {
        let key = (bytes.as_ptr() as usize, bytes.len());
        if let Some(known) = self.lock().get(&key) {
            return Ok((known.clone(), true));
        }
        let parsed = ObjectFile::parse(bytes)?;
        self.lock().insert(key, parsed.clone());
        Ok((parsed, false))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, usize), ObjectFile>> {
        // A panic elsewhere leaves whole entries behind, never half of one.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a warm frame looks at beside the inputs that changed, as a frame that was dropped for it has found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Inputs that did not change: the edit refers to something in them that was dropped.
    pub neighbours: Vec<InputRow>,
    /// Archives' members that come, by file and ordinal.
    pub pulled: Vec<(FileRow, u32)>,
    /// Archives' members that go: nothing refers to them any more.
    pub dropped: Vec<InputRow>,
}

/// What a frame is asked to do.
#[derive(Debug, Default, Resource)]
pub struct Request {
    /// Options of the link.
    pub options: LinkOptions,
    /// Inputs in the order of the command line.
    pub inputs: Vec<Input>,
    /// Files (by their place) that may have changed, for a warm frame.
    pub changed: Vec<u32>,
    /// Inputs were added or removed since the last good frame.
    pub reshaped: bool,
    /// What a warm frame looks at beside what changed.
    pub beside: Beside,
    /// Sections that garbage collection must keep, as (input, name, ordinal): the verifier's, since a patched image
    /// keeps what its last reference has left.
    pub kept: HashSet<(u32, Vec<u8>, u32)>,
    /// What the group's sessions have parsed; none outside of a group.
    pub shared: Option<SharedParses>,
}

/// How far a frame has come.
#[derive(Debug, Default, Resource)]
pub struct Frame {
    /// Which drivers run.
    pub kind: FrameKind,
    /// Reasons against a patch. A warm frame with one of them changes nothing; a cold one follows.
    pub reasons: Vec<GateReason>,
    /// Differences that the frame has a plan for; the gate decides about them.
    pub planned: Vec<GateReason>,
    /// What would have to be looked at as well, for a reason to go away.
    pub wanted: Beside,
    /// Errors of the user's making. A frame with one of them changes nothing.
    pub errors: Vec<Diagnostic>,
    /// What would be an error if the options did not say otherwise.
    pub warnings: Vec<Diagnostic>,
    /// How many of the errors do not keep Resolve from looking for more.
    pub noted: usize,
    /// Work done.
    pub counters: Counters,
    /// Time of each set.
    pub timings: Vec<SetTime>,
    /// Names of inputs whose contents changed.
    pub changed_inputs: Vec<String>,
    /// Names of sections that were rewritten or moved.
    pub changed_atoms: Vec<String>,
    /// Set by Commit.
    pub committed: bool,
}

impl Frame {
    /// Whether bulk drivers have work.
    pub fn cold(&self) -> bool {
        self.kind == FrameKind::Cold && self.errors.is_empty()
    }

    /// Whether the verbs of Resolve have work: they go on after duplicate names, so that a user sees all errors.
    pub fn resolving(&self) -> bool {
        self.kind == FrameKind::Cold && self.errors.len() == self.noted
    }

    /// Whether drivers over entities have work.
    pub fn warm(&self) -> bool {
        self.kind == FrameKind::Warm && self.errors.is_empty() && self.reasons.is_empty()
    }

    /// Notes a reason against the patch.
    pub fn refuse(&mut self, reason: GateReason) {
        self.reasons.push(reason);
    }

    /// Notes a difference that the frame has a plan for.
    pub fn differ(&mut self, reason: GateReason) {
        self.planned.push(reason);
    }

    /// Damaged state is a reason, never an error.
    pub fn check<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(GateReason::StateUnusable { why: error.to_string() });
                None
            }
        }
    }

    /// The errors, cut at `limit` (0 is none).
    pub fn take_errors(&mut self, limit: usize) -> LinkError {
        let mut diagnostics = std::mem::take(&mut self.errors);
        let keep = if limit == 0 { diagnostics.len() } else { limit.min(diagnostics.len()) };
        let omitted = diagnostics.len() - keep;
        diagnostics.truncate(keep);
        LinkError { diagnostics, omitted }
    }
}

/// The image as published last, and what this frame changes of it.
#[derive(Debug, Default, Resource)]
pub struct Patch {
    /// Ranges of the file and their new bytes, in the order in which they were derived.
    pub writes: Vec<(u64, Vec<u8>)>,
}
