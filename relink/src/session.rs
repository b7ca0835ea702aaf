//! The session that embedders use.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::time::Instant;

use bevy_ecs::prelude::World;
use relink_engine::diagnostic::LinkError;
use relink_engine::frame::{Beside, Frame, FrameKind, Patch, Request, SharedParses};
use relink_engine::image::Image;
use relink_engine::input::Input;
use relink_engine::options::{BuildId, GateKind, LinkOptions, OutputKind};
use relink_engine::program::Program;
use relink_engine::report::{FrameReport, GateReason, Outcome};
use relink_engine::store::{StateLayout, Store};
use relink_formats::Bytes;
use relink_systems as systems;
use relink_systems::Lend;

use crate::uses::{self, NameUse};

/// Names an input of a session for as long as the session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputId(u32);

/// One range of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchBytes {
    /// Bytes from the start of the image.
    pub offset: u64,
    /// What stands there from now on.
    pub bytes: Vec<u8>,
}

/// Where an image goes.
pub trait ImageSink {
    /// Takes the whole image.
    fn write_image(&mut self, image: &[u8]) -> io::Result<()>;

    /// Takes only what changed since the image that this sink holds; `Ok(false)` asks for the whole image instead.
    fn apply_patch(&mut self, patch: &[PatchBytes], image_len: u64) -> io::Result<bool> {
        let _ = (patch, image_len);
        Ok(false)
    }
}

/// Something that [`LinkSession::verify`] found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant in ARCHITECTURE.md.
    pub invariant: u8,
    /// What is wrong, where.
    pub what: String,
}

/// One program being linked, again and again.
///
/// A full link is the cold case of the same calls. A session does no IO of its own.
pub struct LinkSession {
    options: LinkOptions,
    /// Names of the world's inputs, ascending.
    ids: Vec<InputId>,
    /// Places of inputs that the last good frame has not seen as they are. No frame looks through all of them.
    changed: Vec<u32>,
    next_id: u32,
    /// Inputs were added, removed or replaced since the last frame.
    dirty: bool,
    /// The set or order of inputs differs from the store's.
    reshaped: Option<GateReason>,
    /// Why prior state could not be used.
    unusable: Option<GateReason>,
    world: World,
    frames: systems::Frames,
    report: Option<FrameReport>,
    patch: Option<Vec<PatchBytes>>,
}

impl fmt::Debug for LinkSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSession").field("inputs", &self.ids.len()).finish_non_exhaustive()
    }
}

/// State of another build of relink is never used: its rules may differ where its schema does not.
fn build_hash() -> u64 {
    hash_of(&(env!("CARGO_PKG_VERSION"), relink_engine::store::SCHEMA))
}

/// A stable hash: the same in each process.
fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = StableHasher(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Unchanged inputs that a patch takes in because an edit refers to what was dropped of them. Beyond a few, a full link is as quick.
const NEIGHBOURS_MAX: usize = 32;
/// Members of archives that a patch pulls, or drops: each round of pulls looks at all of them again.
const MEMBERS_MAX: usize = 64;

/// Adds what is new, in order; tells whether anything was.
fn join<T: Ord>(known: &mut Vec<T>, more: Vec<T>) -> bool {
    let before = known.len();
    known.extend(more);
    known.sort_unstable();
    known.dedup();
    known.len() > before
}

/// FNV-1a; `DefaultHasher`'s algorithm may change between compilers.
struct StableHasher(u64);

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl LinkSession {
    /// A session without inputs.
    ///
    /// # Errors
    /// If options contradict each other.
    pub fn new(mut options: LinkOptions) -> Result<LinkSession, LinkError> {
        if !options.max_page_size.is_power_of_two() || options.max_page_size < 4096 {
            let size = options.max_page_size;
            return Err(LinkError::other(format!(
                "-z max-page-size={size}: not a power of two of at least 4096"
            )));
        }
        let relocatable = options.output_kind == OutputKind::Relocatable;
        let unusable = options.incremental.take_if(|_| relocatable).map(|_| GateReason::RelocatableOutput);
        let frames = systems::Frames::new(options.schedule_kind);
        Ok(LinkSession {
            options,
            ids: Vec::new(),
            changed: Vec::new(),
            next_id: 0,
            dirty: true,
            reshaped: None,
            unusable,
            world: systems::world(),
            frames,
            report: None,
            patch: None,
        })
    }

    /// What the session links by.
    pub fn options(&self) -> &LinkOptions {
        &self.options
    }

    /// Adds an input behind the ones that are there; the order is the order of the command line.
    pub fn add_input(&mut self, input: Input) -> InputId {
        let id = InputId(self.next_id);
        self.next_id += 1;
        if self.report.is_some() {
            self.reshaped = Some(GateReason::InputSetChanged { input: input.name.clone() });
        }
        self.changed.push(self.ids.len() as u32);
        self.ids.push(id);
        self.world.resource_mut::<Request>().inputs.push(input);
        self.dirty = true;
        id
    }

    /// Gives an input new contents (and identity).
    ///
    /// # Errors
    /// If there is no such input.
    pub fn replace_input(&mut self, id: InputId, input: Input) -> Result<(), LinkError> {
        let position = self.ids.binary_search(&id).map_err(|_| no_such_input())?;
        self.world.resource_mut::<Request>().inputs[position] = input;
        self.changed.push(position as u32);
        self.dirty = true;
        Ok(())
    }

    /// Takes an input away.
    ///
    /// # Errors
    /// If there is no such input.
    pub fn remove_input(&mut self, id: InputId) -> Result<(), LinkError> {
        let position = self.ids.binary_search(&id).map_err(|_| no_such_input())?;
        self.ids.remove(position);
        let removed = self.world.resource_mut::<Request>().inputs.remove(position);
        self.changed.retain(|&row| row != position as u32);
        for row in self.changed.iter_mut().filter(|row| **row > position as u32) {
            *row -= 1;
        }
        self.reshaped = Some(GateReason::InputSetChanged { input: removed.name });
        self.dirty = true;
        Ok(())
    }

    /// Starts from the bytes that [`LinkSession::serialize_state`] wrote (state and image in one).
    ///
    /// State that can't be used is no error: the next frame is a full link, and its report says why.
    pub fn set_prior_state(&mut self, state: Bytes) {
        self.open_state(state, None, &[]);
    }

    /// Starts from state columns and the image kept apart; what [`host`](crate::host) does, which maps both.
    pub fn set_prior_parts(&mut self, state: Bytes, image: Bytes) {
        self.open_state(state, Some(image), &[]);
    }

    /// The same for an image that lacks ranges of the last patches: they are laid over its bytes, the later ones over
    /// the earlier ones.
    pub fn set_prior_patched(&mut self, state: Bytes, image: Bytes, overlay: &[PatchBytes]) {
        self.open_state(state, Some(image), overlay);
    }

    fn open_state(&mut self, state: Bytes, image: Option<Bytes>, overlay: &[PatchBytes]) {
        if self.options.incremental.is_none() {
            return;
        }
        self.unusable = None;
        let options_hash = hash_of(&self.options_key());
        if Store::options_hash(&state).is_some_and(|known| known != options_hash) {
            // The header may be damaged as well; then `open` below says so first.
            self.unusable = Some(GateReason::OptionsChanged);
        }
        match Store::open(state, options_hash, build_hash()) {
            Ok((store, inner)) => {
                let image = image.unwrap_or(inner);
                let expected = store.image_record().map(|record| record.len);
                if expected.as_ref() != Ok(&(image.len() as u64)) {
                    let why = format!("it has {} bytes; the state describes another image", image.len());
                    self.unusable = Some(GateReason::ImageTampered { why });
                    return;
                }
                self.world.insert_resource(store);
                let mut image = Image::mapped(image);
                overlay.iter().for_each(|range| image.write(range.offset, &range.bytes));
                self.world.insert_resource(image);
                self.dirty = true;
            }
            Err(error) => {
                let why = error.to_string();
                if !why.contains("options-changed") {
                    self.unusable = Some(GateReason::StateUnusable { why });
                }
            }
        }
    }

    /// Options as far as they shape the image: threads and executor do not.
    fn options_key(&self) -> LinkOptions {
        let mut options = LinkOptions { threads: 0, error_limit: 0, ..self.options.clone() };
        options.schedule_kind = Default::default();
        if let BuildId::Uuid(bytes) = &mut options.build_id {
            *bytes = [0; 16]; // A new one for each link is what was asked for.
        }
        options
    }

    /// Links: decides patch or full by itself; a second call without a change in between does nothing.
    ///
    /// # Errors
    /// The user's errors, all of them up to the limit. The image and the state of the last good frame stay.
    pub fn resolve(&mut self) -> Result<Outcome, LinkError> {
        self.resolve_into(&mut |_| None)
    }

    /// The same, into memory that the caller lends if it is to be a full link: `lend` is asked once for each, with the
    /// length of the image, and gives as many zeros. The memory belongs to the session until its next full link, an
    /// error of this one, or [`LinkSession::release_image`]; frames after this one do not write to it.
    ///
    /// # Errors
    /// As [`LinkSession::resolve`].
    pub fn resolve_into(&mut self, lend: Lend<'_>) -> Result<Outcome, LinkError> {
        if let (false, Some(report)) = (self.dirty, &self.report) {
            return Ok(report.outcome);
        }
        let start = Instant::now();
        let mut reasons = match self.patch_from(start) {
            Ok(outcome) => return Ok(outcome),
            Err(reasons) => reasons,
        };
        let outcome = self.full_outcome(&reasons);
        self.derive_full(None, lend)?;
        self.publish();
        self.finished(outcome, &mut reasons, start)
            .ok_or_else(|| LinkError::other("a full link was derived but could not be published"))
    }

    /// Links as [`LinkSession::resolve`] does if a patch is possible. If not, nothing is changed, and what speaks against it
    /// is the error: no reasons if there is no state to patch.
    ///
    /// # Errors
    /// The reasons.
    pub fn try_patch(&mut self) -> Result<Outcome, Vec<GateReason>> {
        match (self.dirty, &self.report) {
            (false, Some(report)) => Ok(report.outcome),
            _ => self.patch_from(Instant::now()),
        }
    }

    fn patch_from(&mut self, start: Instant) -> Result<Outcome, Vec<GateReason>> {
        let mut reasons = self.prior_reasons();
        if self.may_patch(&reasons) {
            match self.derive_patch(None) {
                Ok(()) => {
                    self.publish();
                    if let Some(outcome) = self.finished(Outcome::Patched, &mut reasons, start) {
                        return Ok(outcome);
                    }
                }
                Err(refused) => reasons.extend(refused),
            }
        }
        Err(reasons)
    }

    /// What speaks against a patch before anything was looked at.
    pub(crate) fn prior_reasons(&mut self) -> Vec<GateReason> {
        let mut reasons: Vec<GateReason> = self.unusable.clone().into_iter().collect();
        if self.world.contains_resource::<Store>() {
            let gate = self.options.incremental.as_ref().map(|options| options.gate_kind);
            reasons.extend(self.reshaped.clone().filter(|_| gate != Some(GateKind::Wide)));
            reasons.extend((gate == Some(GateKind::Closed)).then_some(GateReason::GateClosed));
        }
        reasons
    }

    pub(crate) fn may_patch(&self, reasons: &[GateReason]) -> bool {
        self.world.contains_resource::<Store>() && reasons.is_empty()
    }

    pub(crate) fn full_outcome(&self, reasons: &[GateReason]) -> Outcome {
        let prior = self.world.contains_resource::<Store>() || !reasons.is_empty();
        if prior { Outcome::FellBackFull } else { Outcome::Full }
    }

    /// Derives a patch; nothing is changed by it. The reasons against it are the error.
    pub(crate) fn derive_patch(&mut self, shared: Option<&SharedParses>) -> Result<(), Vec<GateReason>> {
        let wide = self.options.incremental.as_ref().map(|options| options.gate_kind) == Some(GateKind::Wide);
        self.world.resource_mut::<Request>().beside = Beside::default();
        loop {
            self.derive(FrameKind::Warm, shared, &mut |_| None);
            let frame = &mut *self.world.resource_mut::<Frame>();
            if frame.reasons.is_empty() && frame.errors.is_empty() {
                return Ok(());
            }
            let reasons = std::mem::take(&mut frame.reasons);
            let wanted = std::mem::take(&mut frame.wanted);
            systems::abandon(&mut self.world);
            let hopeful = |reason: &GateReason| {
                matches!(
                    reason,
                    GateReason::DeadAtomReferenced { .. }
                        | GateReason::RemovedGlobal { .. }
                        | GateReason::ComdatChanged { .. }
                        | GateReason::ArchiveMemberPulled { .. }
                        | GateReason::ArchiveMemberDropped { .. }
                )
            };
            if !wide || !reasons.iter().all(hopeful) || !self.look_beside(wanted) {
                return Err(reasons);
            }
        }
    }

    /// Takes into the frame what the edit needs more of; `false` if nothing is new, or it is too much.
    fn look_beside(&mut self, wanted: Beside) -> bool {
        let beside = &mut self.world.resource_mut::<Request>().beside;
        let more = [
            join(&mut beside.neighbours, wanted.neighbours),
            join(&mut beside.pulled, wanted.pulled),
            join(&mut beside.dropped, wanted.dropped),
        ];
        let few = beside.neighbours.len() <= NEIGHBOURS_MAX
            && beside.pulled.len().max(beside.dropped.len()) <= MEMBERS_MAX;
        more.contains(&true) && few
    }

    /// Derives a full link; nothing is changed by it.
    pub(crate) fn derive_full(
        &mut self,
        shared: Option<&SharedParses>,
        lend: Lend<'_>,
    ) -> Result<(), LinkError> {
        self.derive(FrameKind::Cold, shared, lend);
        let limit = self.options.error_limit;
        let frame = &mut *self.world.resource_mut::<Frame>();
        if frame.errors.is_empty() {
            return Ok(());
        }
        let error = frame.take_errors(limit);
        systems::abandon(&mut self.world);
        Err(error)
    }

    fn derive(&mut self, kind: FrameKind, shared: Option<&SharedParses>, lend: Lend<'_>) {
        let mut request = self.world.resource_mut::<Request>();
        request.options.clone_from(&self.options);
        self.changed.sort_unstable();
        self.changed.dedup();
        request.changed.clone_from(&self.changed);
        request.reshaped = self.reshaped.is_some();
        request.shared = shared.cloned();
        self.world.insert_resource(Frame { kind, ..Frame::default() });
        self.world.insert_resource(Patch::default());
        // What compression leaves is shorter than what is laid out.
        let lends = self.options.compress_debug.is_none();
        let mut lend = |len| if lends { lend(len) } else { None };
        self.frames.derive(&mut self.world, self.options.threads, &mut lend);
    }

    pub(crate) fn publish(&mut self) {
        self.frames.publish(&mut self.world);
    }

    /// Forgets what was derived.
    pub(crate) fn abandon(&mut self) {
        systems::abandon(&mut self.world);
    }

    /// Whether inputs have changed since the last good frame.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty || self.report.is_none()
    }

    /// Closes a frame that was published; `None` if damage of the state was met on the way, with the reason added.
    pub(crate) fn finished(
        &mut self,
        outcome: Outcome,
        reasons: &mut Vec<GateReason>,
        start: Instant,
    ) -> Option<Outcome> {
        let frame = &mut *self.world.resource_mut::<Frame>();
        if !frame.committed {
            reasons.append(&mut frame.reasons);
            return None;
        }
        Some(self.finish(outcome, std::mem::take(reasons), start))
    }

    fn finish(&mut self, outcome: Outcome, reasons: Vec<GateReason>, start: Instant) -> Outcome {
        self.changed.clear();
        self.dirty = false;
        self.reshaped = None;
        self.unusable = None;
        let patch = std::mem::take(&mut *self.world.resource_mut::<Patch>());
        let patched = outcome == Outcome::Patched;
        let ranges = patch.writes.into_iter().map(|(offset, bytes)| PatchBytes { offset, bytes });
        self.patch = patched.then(|| ranges.collect());
        let frame = std::mem::take(&mut *self.world.resource_mut::<Frame>());
        self.report = Some(FrameReport {
            outcome,
            reasons,
            counters: frame.counters,
            timings_ns: frame.timings,
            total_ns: start.elapsed().as_nanos() as u64,
            changed_inputs: frame.changed_inputs,
            changed_atoms: frame.changed_atoms,
            warnings: frame.warnings.iter().map(|warning| warning.render(&str::to_owned)).collect(),
        });
        outcome
    }

    /// The image of the last frame. Borrowed, unless a frame patched an image that another process had made.
    pub fn image(&self) -> Cow<'_, [u8]> {
        self.world.get_resource::<Image>().map(Image::bytes).unwrap_or_default()
    }

    /// Gives lent memory back: from now on the image is in `bytes`, which must be the same.
    pub fn release_image(&mut self, bytes: Bytes) {
        self.world.insert_resource(Image::mapped(bytes));
    }

    /// What the last frame changed in the image; `None` if it was a full link.
    pub fn patch(&self) -> Option<&[PatchBytes]> {
        self.patch.as_deref()
    }

    /// Hands image or patch to a sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn emit(&mut self, sink: &mut dyn ImageSink) -> io::Result<()> {
        if let Some(patch) = &self.patch
            && sink.apply_patch(patch, self.world.resource::<Image>().len())?
        {
            return Ok(());
        }
        sink.write_image(&self.image())
    }

    /// State and image as one stream for [`LinkSession::set_prior_state`].
    ///
    /// # Errors
    /// The writer's; also if the session is not incremental or has not linked yet.
    pub fn serialize_state(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        self.write_state(&self.image(), writer)
    }

    /// The state's columns alone, for [`LinkSession::set_prior_parts`].
    ///
    /// # Errors
    /// As [`LinkSession::serialize_state`].
    pub fn serialize_columns(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        self.write_state(&[], writer)
    }

    fn write_state(&self, image: &[u8], writer: &mut dyn io::Write) -> io::Result<()> {
        let store = self.world.get_resource::<Store>();
        let store =
            store.ok_or_else(|| io::Error::other("this session keeps no state: it is not incremental"))?;
        store.write(hash_of(&self.options_key()), build_hash(), image, writer)
    }

    /// What the frames since the last call changed of the state: bytes to append to what
    /// [`LinkSession::serialize_columns`] wrote. `None` if the session is not incremental.
    pub fn take_state_log(&mut self) -> Option<Vec<u8>> {
        self.world.get_resource_mut::<Store>().map(|mut store| store.take_journal())
    }

    /// The last outcome; `None` before the first `resolve`.
    pub fn outcome(&self) -> Option<Outcome> {
        self.report.as_ref().map(|report| report.outcome)
    }

    /// The report of the last frame.
    pub fn report(&self) -> Option<&FrameReport> {
        self.report.as_ref()
    }

    /// The oracle: a full link of the present inputs in memory, compared with the image modulo placement.
    ///
    /// # Errors
    /// If the present inputs do not link at all.
    pub fn verify(&mut self) -> Result<Vec<Violation>, LinkError> {
        let (Some(store), Some(image)) =
            (self.world.get_resource::<Store>(), self.world.get_resource::<Image>())
        else {
            return Err(LinkError::other("there is nothing to verify: no incremental link has been made"));
        };
        let inputs = self.world.resource::<Request>().inputs.clone();
        let request = Request { options: self.options.clone(), inputs, ..Request::default() };
        let findings = systems::verify::verify(request, store, image)?;
        Ok(findings
            .into_iter()
            .map(|found| Violation { invariant: found.invariant, what: found.what })
            .collect())
    }

    /// A digest of each loadable segment's pages, in the order of the program headers: what a build-id is made of,
    /// segment by segment. Empty if the session is not incremental.
    pub fn segment_digests(&self) -> Vec<[u8; 32]> {
        match (self.world.get_resource::<Store>(), self.world.get_resource::<Image>()) {
            (Some(store), Some(image)) => systems::segment_digests(store, image),
            _ => Vec::new(),
        }
    }

    /// Names of the objects and archive members that were loaded, in link order (`--trace`).
    pub fn loaded_inputs(&self) -> Vec<String> {
        match self.world.get_resource::<Store>() {
            Some(store) => systems::map::loaded_inputs(store),
            None => {
                self.world.resource::<Program>().objects.iter().map(|object| object.name.clone()).collect()
            }
        }
    }

    /// Sections that `--gc-sections` dropped, as `a.o:(.text.f)` (`--print-gc-sections`).
    pub fn dropped_sections(&self) -> Vec<String> {
        if let Some(store) = self.world.get_resource::<Store>() {
            return systems::map::dropped_sections(store);
        }
        let program = self.world.resource::<Program>();
        let name = |&(object, section): &(u32, u32)| {
            let object = program.objects.get(object as usize)?;
            let section = String::from_utf8_lossy(object.parsed.section_name(section as usize));
            Some(format!("{}:({section})", object.name))
        };
        program.dropped.iter().filter_map(name).collect()
    }

    /// Calls `visit` with object, name and use for each global name of each loaded object, in link order
    /// (`--trace-symbol`, `--cref`). Shared libraries are no objects.
    pub fn visit_names(&self, visit: impl FnMut(&str, &str, NameUse)) {
        match self.world.get_resource::<Store>() {
            Some(store) => uses::of_store(store, visit),
            None => uses::of_program(self.world.resource::<Program>(), visit),
        }
    }

    /// Writes the `-Map` text. O(program): the one of a patched image is made of the whole store.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_map(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        match self.world.get_resource::<Store>() {
            Some(store) => systems::map::write_store(store, writer),
            None => systems::map::write(self.world.resource::<Program>(), writer),
        }
    }
}

/// What takes how much of the bytes that [`LinkSession::serialize_columns`] or [`LinkSession::serialize_state`] wrote, and of
/// the log behind them.
///
/// # Errors
/// What is wrong with them, in words.
pub fn state_layout(state: &[u8]) -> Result<StateLayout, String> {
    Store::layout(state, build_hash()).map_err(|error| error.to_string())
}

fn no_such_input() -> LinkError {
    LinkError::other("this session has no such input")
}
