//! One output, from inputs to the published file: state folder, session, publication, log.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use relink_engine::diagnostic::LinkError;
use relink_engine::image::ImageMemory;
use relink_engine::input::Input;
use relink_engine::options::{LinkOptions, OutputKind};
use relink_engine::report::{Counters, FrameReport, GateReason, Outcome, SetTime};
use relink_formats::Bytes;

use super::error::HostError;
use super::io::Io;
use super::keep::Passing;
use super::log::{Command, LogEntry, never_linked, slot_of};
use super::publish::{self, Slot, Target, Temporary};
use super::search::ResolvedInputs;
use super::state::{Current, Part, Prior, Seen, StateFolder, StateTrust};
use super::turns::{self, Kept, Turn, Written};
use crate::{Lend, LinkSession, PatchBytes, Violation};

/// What publication needs of a session; a trait so that its tests need no linker.
pub trait Session {
    /// See [`LinkSession::add_input`].
    fn add_input(&mut self, input: Input);
    /// See [`LinkSession::set_prior_patched`].
    fn set_prior_patched(&mut self, state: Bytes, image: Bytes, overlay: &[PatchBytes]);
    /// Whether the image is a program, which the kernel protects while it runs. Others protect nothing.
    fn makes_program(&self) -> bool;
    /// Whether a later link can start from this one. An object made of objects is no place to start from.
    fn keeps_state(&self) -> bool;
    /// See [`LinkSession::resolve_into`].
    fn resolve_into(&mut self, lend: Lend<'_>) -> Result<Outcome, LinkError>;
    /// See [`LinkSession::release_image`].
    fn release_image(&mut self, bytes: Bytes);
    /// See [`LinkSession::try_patch`].
    fn try_patch(&mut self) -> Result<Outcome, Vec<GateReason>>;
    /// See [`LinkSession::image`].
    fn image(&self) -> Cow<'_, [u8]>;
    /// See [`LinkSession::patch`].
    fn patch(&self) -> Option<&[PatchBytes]>;
    /// See [`LinkSession::serialize_columns`].
    fn serialize_columns(&self, writer: &mut dyn Write) -> io::Result<()>;
    /// See [`LinkSession::take_state_log`].
    fn take_state_log(&mut self) -> Option<Vec<u8>>;
    /// See [`LinkSession::report`].
    fn report(&self) -> Option<&FrameReport>;
    /// See [`LinkSession::verify`].
    fn verify(&mut self) -> Result<Vec<Violation>, LinkError>;
}

impl Session for LinkSession {
    fn add_input(&mut self, input: Input) {
        LinkSession::add_input(self, input);
    }
    fn set_prior_patched(&mut self, state: Bytes, image: Bytes, overlay: &[PatchBytes]) {
        LinkSession::set_prior_patched(self, state, image, overlay);
    }
    fn makes_program(&self) -> bool {
        !matches!(self.options().output_kind, OutputKind::SharedLibrary | OutputKind::Relocatable)
    }
    fn keeps_state(&self) -> bool {
        self.options().output_kind != OutputKind::Relocatable
    }
    fn resolve_into(&mut self, lend: Lend<'_>) -> Result<Outcome, LinkError> {
        LinkSession::resolve_into(self, lend)
    }
    fn release_image(&mut self, bytes: Bytes) {
        LinkSession::release_image(self, bytes);
    }
    fn try_patch(&mut self) -> Result<Outcome, Vec<GateReason>> {
        LinkSession::try_patch(self)
    }
    fn image(&self) -> Cow<'_, [u8]> {
        LinkSession::image(self)
    }
    fn patch(&self) -> Option<&[PatchBytes]> {
        LinkSession::patch(self)
    }
    fn serialize_columns(&self, writer: &mut dyn Write) -> io::Result<()> {
        LinkSession::serialize_columns(self, writer)
    }
    fn take_state_log(&mut self) -> Option<Vec<u8>> {
        LinkSession::take_state_log(self)
    }
    fn report(&self) -> Option<&FrameReport> {
        LinkSession::report(self)
    }
    fn verify(&mut self) -> Result<Vec<Violation>, LinkError> {
        LinkSession::verify(self)
    }
}

/// A link to be made. The session has the options.
#[derive(Debug)]
pub struct HostRequest {
    /// `-o`.
    pub output: PathBuf,
    /// What to link; its errors must have been dealt with.
    pub inputs: ResolvedInputs,
    /// Whether the next link may be told what changed: the list of files is kept up for it.
    pub names_changes: bool,
    /// Keep state beside the output and use what is there.
    pub incremental: bool,
    /// Compare the image with a full link before it is published.
    pub verify: bool,
    /// Whose state is used.
    pub trust: StateTrust,
    /// Command line to keep for `relink verify`.
    pub command: Option<Command>,
}

/// What a link that succeeded tells.
#[derive(Clone, Debug)]
pub struct HostResult {
    /// The session's report; its times also hold those of opening and publishing.
    pub report: FrameReport,
    /// What the user should know: the link is good, but something about it was not as asked.
    pub warnings: Vec<String>,
    /// What goes to the log.
    pub notes: Vec<String>,
}

/// Links with a new session.
pub fn link(options: LinkOptions, request: HostRequest, io: &dyn Io) -> Result<HostResult, HostError> {
    link_with(&mut LinkSession::new(options)?, request, io)
}

/// Links with a session that has options and nothing else, and leaves it open for questions.
///
/// # Errors
/// The old output, and the state of the link that made it, are then as they were.
pub fn link_with<S: Session + ?Sized>(
    session: &mut S,
    request: HostRequest,
    io: &dyn Io,
) -> Result<HostResult, HostError> {
    let done = run(session, request, io, false)?;
    done.ok_or_else(|| LinkError::other("a link ended without an image").into())
}

/// The same if a patch is possible; `None`, and nothing is changed, if a full link has to be made. For inputs that
/// [`resolve_claimed`](super::resolve_claimed) found: a full link takes none but those of
/// [`resolve_inputs`](super::resolve_inputs), and another session.
///
/// # Errors
/// As [`link_with`].
pub fn patch_with<S: Session + ?Sized>(
    session: &mut S,
    request: HostRequest,
    io: &dyn Io,
) -> Result<Option<HostResult>, HostError> {
    run(session, request, io, true)
}

fn run<S: Session + ?Sized>(
    session: &mut S,
    request: HostRequest,
    io: &dyn Io,
    only_patch: bool,
) -> Result<Option<HostResult>, HostError> {
    let mut job = Job {
        io,
        started: Instant::now(),
        warnings: Vec::new(),
        notes: Vec::new(),
        written: Written::default(),
    };
    let HostRequest { output, inputs, names_changes, incremental, verify, trust, command } = request;
    let target = publish::locate(io, &output)?;
    let folder = if incremental { job.open_folder(&target, &output, trust) } else { None };
    let passing = Passing::of(&inputs);
    let stateful = folder.as_ref().filter(|_| session.keeps_state());
    let made = job.make(session, &inputs, &target, stateful, verify, only_patch);
    let made = match made {
        Ok(None) => return Ok(None),
        Ok(Some(report)) => Ok(report),
        Err(error) => Err(error),
    };
    if let Some(folder) = &folder {
        if let Ok(report) = &made
            && session.keeps_state()
            && !inputs.partial
            && (names_changes || report.outcome != Outcome::Patched)
            && let Err(error) = folder.keep_resolved(io, &inputs, report.outcome != Outcome::Patched)
        {
            job.notes.push(format!("the list of files was not written: {error}"));
        }
        job.record(folder, made.as_ref(), &passing, command.as_ref());
    }
    let report = made?;
    Ok(Some(HostResult { report, warnings: job.warnings, notes: job.notes }))
}

/// How often a link is begun while its inputs change under it.
const ATTEMPTS_MAX: u32 = 3;
/// Time for a compiler to be done with an object; twice as much before the last attempt.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(30);

/// Begins a link again, a few times, if an input was written to while it was read. `attempt` has to find its inputs anew
/// and to have a session of its own each time.
///
/// # Errors
/// Those of the last attempt.
pub fn while_inputs_change<T>(mut attempt: impl FnMut() -> Result<T, HostError>) -> Result<T, HostError> {
    for number in 1..ATTEMPTS_MAX {
        match attempt() {
            Err(HostError::InputChanged { .. }) => std::thread::sleep(PAUSE * number),
            done => return done,
        }
    }
    attempt()
}

/// One call of [`link_with`].
struct Job<'a> {
    io: &'a dyn Io,
    started: Instant,
    warnings: Vec<String>,
    notes: Vec<String>,
    written: Written,
}

/// A file in which a full link makes its image, and the memory for that; none where there can be none.
fn lend<'f>(
    io: &'f dyn Io,
    target: &'f Target,
    length: u64,
) -> Option<(Temporary<'f>, Box<dyn ImageMemory>)> {
    let Target::File(slot) = target else { return None };
    let length = usize::try_from(length).ok().filter(|&length| length > 0)?;
    // What fails here will fail again, and be told, when the bytes are written.
    let file = Temporary::beside(io, slot).ok()?;
    let memory = io.map_new(file.file().ok()?, length).ok()?;
    Some((file, memory))
}

/// `Instant` in the unit of the report.
fn nanoseconds_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Job<'_> {
    fn open_folder(&mut self, target: &Target, output: &Path, trust: StateTrust) -> Option<StateFolder> {
        let Target::File(slot) = target else {
            self.notes
                .push(format!("{} is no plain file: nothing is kept for the next link", output.display()));
            return None;
        };
        match StateFolder::open(self.io, &slot.dir, &slot.name, trust, true) {
            Ok(folder) => Some(folder),
            Err(error) => {
                self.warnings.push(format!("not incremental: {error}"));
                None
            }
        }
    }

    /// Links and publishes.
    fn make<S: Session + ?Sized>(
        &mut self,
        session: &mut S,
        inputs: &ResolvedInputs,
        target: &Target,
        folder: Option<&StateFolder>,
        verify: bool,
        only_patch: bool,
    ) -> Result<Option<FrameReport>, HostError> {
        let prior = folder.and_then(|folder| self.open_prior(folder));
        for input in &inputs.inputs {
            session.add_input(input.clone());
        }
        if let Some(prior) = &prior {
            session.set_prior_patched(prior.state.clone(), prior.image.clone(), &prior.overlay);
        }
        let open_ns = nanoseconds_since(self.started);
        let mut lent = None;
        let resolved = match only_patch {
            true => match session.try_patch() {
                Ok(outcome) => Ok(outcome),
                Err(_) => return Ok(None),
            },
            false => session.resolve_into(&mut |length| {
                // An image that later links start from is written in the order of `state.rs`, by calls that tell of errors.
                if folder.is_some() {
                    return None;
                }
                let (file, memory) = lend(self.io, target, length)?;
                lent = Some(file);
                Some(memory)
            }),
        };
        // First of all: an input that is being written makes no sense, and that is not its author's error.
        for file in &inputs.files {
            file.check_unchanged()?;
        }
        let outcome = resolved?;
        if verify {
            let violations = session.verify()?;
            if !violations.is_empty() {
                // Whatever is wrong, a full link starts without it.
                if let Some(folder) = folder {
                    folder.forget(self.io);
                }
                return Err(HostError::Violations(violations));
            }
        }
        let publishing = Instant::now();
        self.publish(session, target, folder, prior.as_ref(), lent)?;
        let mut report = session.report().cloned().unwrap_or_else(|| empty_report(outcome));
        self.warnings.append(&mut report.warnings);
        report.warnings.clone_from(&self.warnings);
        report.timings_ns.insert(0, SetTime { set: "open", ns: open_ns });
        report.counters.image_file_bytes = self.written.image;
        report.counters.state_file_bytes = self.written.state;
        report.timings_ns.push(SetTime { set: "publish", ns: nanoseconds_since(publishing) });
        report.total_ns = nanoseconds_since(self.started);
        Ok(Some(report))
    }

    fn open_prior(&mut self, folder: &StateFolder) -> Option<Prior> {
        let prior = folder.prior(self.io).unwrap_or_else(|why| {
            self.notes.push(format!("the earlier state can't be used: {why}"));
            None
        });
        folder.sweep(self.io, prior.as_ref());
        prior
    }

    fn publish<S: Session + ?Sized>(
        &mut self,
        session: &mut S,
        target: &Target,
        folder: Option<&StateFolder>,
        prior: Option<&Prior>,
        lent: Option<Temporary<'_>>,
    ) -> Result<(), HostError> {
        if let (Some(folder), Target::File(slot)) = (folder, target) {
            match self.publish_with_state(session, slot, folder, prior) {
                Ok(()) => return Ok(()),
                // A full disk, say. The program is worth more than the state: what was written of it is removed by
                // now, and without it there may be room. The earlier pair stays and is good for the next link.
                Err(error) => self.warnings.push(format!("nothing kept for the next link: {error}")),
            }
        }
        if let (Some(file), Target::File(slot)) = (lent, target) {
            self.finish_lent(session, &file).map_err(HostError::io("write output", &slot.shown))?;
            return publish::replace(self.io, file, slot, true);
        }
        let image = session.image();
        self.written.image += image.len() as u64;
        publish::write(self.io, target, &image, true)
    }

    /// Makes a file of what the session wrote to its memory: nothing may write to a program that is to run.
    fn finish_lent<S: Session + ?Sized>(&mut self, session: &mut S, file: &Temporary<'_>) -> io::Result<u64> {
        let length = session.image().len();
        let bytes = self.io.map(file.file()?, length)?;
        session.release_image(bytes);
        self.written.image += length as u64;
        Ok(length as u64)
    }

    /// The order of `state.rs`. An error means that the output is the old one.
    fn publish_with_state<S: Session + ?Sized>(
        &mut self,
        session: &mut S,
        slot: &Slot,
        folder: &StateFolder,
        prior: Option<&Prior>,
    ) -> Result<(), HostError> {
        let io = self.io;
        let generation = prior.map_or(1, Prior::next_generation);
        let earlier = prior.map(|prior| &prior.current);
        let (state_file, state) = self.keep_state(session, folder, earlier, generation)?;
        let (image_file, kept) = match (session.patch(), prior) {
            (Some(patch), Some(prior)) => {
                let (program, written) = (session.makes_program(), self.written);
                let mut turn = Turn { io, folder, prior, slot, generation, program, written, output: None };
                let kept = turn.publish(patch);
                self.written = turn.written;
                (None, kept?)
            }
            _ => {
                let image = folder.next_part(io, "image", generation)?;
                let kept = self.publish_whole(session, slot, folder, generation, &image)?;
                (Some(image), kept)
            }
        };
        let extended = earlier.filter(|earlier| earlier.state.generation == state.generation);
        // Without an exchange the new output has a second name still, which goes with the earlier marker.
        let two_names = kept.image.generation > generation;
        let output = turns::output_stat(io, slot).map(|stat| Seen::of(&stat));
        // What another linker put there in the meantime is not ours.
        let output = output.filter(|seen| kept.output.is_some_and(|finished| finished.same_file(seen)));
        let current = Current {
            generation,
            state_base: extended.map_or(state.bytes, |earlier| earlier.state_base),
            replayed: extended.map_or(0, Current::replayed_by_next),
            state,
            image: kept.image,
            image_seen: kept.image_seen,
            patch: kept.patch,
            output: output.map(|seen| if two_names { seen.about_to_change() } else { seen }),
        };
        match folder.commit(io, &current) {
            Ok(bytes) => {
                self.written.state += bytes;
                drop(state_file.and_then(Temporary::keep));
                drop(image_file.and_then(Temporary::keep));
                if let Some(prior) = prior {
                    folder.retire(io, prior, &current);
                }
            }
            // The output is published; the earlier files are what the next link starts from.
            Err(error) => self.warnings.push(format!("nothing kept for the next link: {error}")),
        }
        Ok(())
    }

    /// Puts the session's state where the next link finds it: behind the earlier one what changed, or all of it anew.
    ///
    /// Bytes behind those that the marker counts belong to nobody, so appending needs no copy: a kill in the middle
    /// leaves the earlier state as it was.
    fn keep_state<'f, S: Session + ?Sized>(
        &mut self,
        session: &mut S,
        folder: &'f StateFolder,
        earlier: Option<&Current>,
        generation: u64,
    ) -> Result<(Option<Temporary<'f>>, Part), HostError>
    where
        Self: 'f,
    {
        let io = self.io;
        let failed = |error| HostError::io("write", folder.dir.path())(error);
        let log = session.patch().is_some().then(|| session.take_state_log()).flatten();
        if let (Some(log), Some(earlier)) = (log, earlier) {
            let bytes = earlier.state.bytes.saturating_add(log.len() as u64);
            if log.is_empty() {
                return Ok((None, earlier.state.clone()));
            }
            let base = earlier.state_base;
            if bytes - base <= log_bytes_max(base)
                && earlier.replayed_by_next() <= replayed_bytes_max(base)
                && folder.append_state(io, &earlier.state, &log).map_err(failed)?
            {
                self.written.state += log.len() as u64;
                return Ok((None, Part { bytes, ..earlier.state }));
            }
        }
        let state = folder.next_part(io, "state", generation)?;
        let write = || {
            let mut writer =
                BufWriter::with_capacity(1 << 20, IoWriter { io, file: state.file()?, written: 0 });
            session.serialize_columns(&mut writer)?;
            Ok(writer.into_inner().map_err(io::IntoInnerError::into_error)?.written)
        };
        let bytes = write().map_err(failed)?;
        self.written.state += bytes;
        Ok((Some(state), Part { generation, bytes }))
    }

    /// Writes the image to a file that is kept, and renames a copy of it over the output.
    fn publish_whole<S: Session + ?Sized>(
        &mut self,
        session: &S,
        slot: &Slot,
        folder: &StateFolder,
        generation: u64,
        image: &Temporary<'_>,
    ) -> Result<Kept, HostError> {
        let io = self.io;
        let failed = |error| HostError::io("write", folder.dir.path())(error);
        let bytes = session.image();
        let length = bytes.len() as u64;
        image.file().and_then(|file| io.write_all(file, &bytes)).map_err(failed)?;
        self.written.image += length;
        let image_seen = image.file().and_then(|file| io.stat_file(file)).map(|stat| Seen::of(&stat));
        // In the folder too: what a kill leaves of it, the next link sweeps.
        let output = Temporary::named(io, &folder.dir, turns::OUTPUT, false).map_err(failed)?;
        let copy = || io.copy(image.file()?, output.file()?, length);
        self.written.image += copy().map_err(failed)?;
        let seen = turns::date(io, &folder.dir, output.name(), slot)?;
        publish::replace(io, output, slot, true)?;
        let image_seen = image_seen.unwrap_or_default();
        Ok(Kept { image: Part { generation, bytes: length }, image_seen, patch: None, output: seen })
    }

    /// Log line and command line. A link does not fail for the sake of its history.
    fn record(
        &mut self,
        folder: &StateFolder,
        made: Result<&FrameReport, &HostError>,
        passing: &[Passing<'_>],
        command: Option<&Command>,
    ) {
        if let (Ok(report), Some(command)) = (made, command) {
            let changed = report.outcome != Outcome::Patched || !report.changed_inputs.is_empty();
            if let Err(error) = folder.keep_command(self.io, command, passing, changed) {
                self.notes.push(error.to_string());
            }
        }
        let notes: Vec<String> = self.warnings.iter().chain(&self.notes).cloned().collect();
        let report = made.ok();
        let entry = LogEntry {
            time_ms: self.io.now_ns() / 1_000_000,
            outcome: report.map_or("failed".to_owned(), |report| report.outcome.to_string()),
            total_ns: nanoseconds_since(self.started),
            reasons: report.map_or(&[], |report| &report.reasons),
            counters: report.map(|report| &report.counters),
            timings_ns: report.map_or(&[], |report| &report.timings_ns),
            changed_inputs: report.map_or(&[], |report| &report.changed_inputs),
            changed_atoms: report.map_or(&[], |report| &report.changed_atoms),
            notes: &notes,
            error: made.err().map(ToString::to_string),
        };
        if let Err(error) = folder.append_log(self.io, &entry) {
            self.notes.push(format!("the log was not written: {error}"));
        }
    }
}

fn empty_report(outcome: Outcome) -> FrameReport {
    FrameReport {
        outcome,
        reasons: Vec::new(),
        counters: Counters::default(),
        timings_ns: Vec::new(),
        total_ns: 0,
        changed_inputs: Vec::new(),
        changed_atoms: Vec::new(),
        warnings: Vec::new(),
    }
}

/// A writer that goes through [`Io`].
pub(super) struct IoWriter<'a> {
    pub(super) io: &'a dyn Io,
    pub(super) file: &'a std::fs::File,
    /// Bytes so far.
    pub(super) written: u64,
}

impl Write for IoWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.io.write_all(self.file, bytes)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long the log of a state may be, whatever it saves: a share of what is on the disk anyway.
fn log_bytes_max(base: u64) -> u64 {
    (base / 4).clamp(64 << 10, 64 << 20)
}

/// How much log may have been replayed in all before the state is written anew.
///
/// Each link replays the whole log, about 1 ns a byte, and writing the state takes about 2 ns a byte. Who pays rent until it
/// has cost as much as buying never pays more than twice the best that there is, however large patches are: a program with
/// 268 MB of state whose patches have 1 KB writes it after 1,000 of them, with a log of 1 MB. Less than a MiB of state is no
/// cheaper to write, for a file has to be made and another removed.
fn replayed_bytes_max(base: u64) -> u64 {
    2 * base.max(1 << 20)
}

/// The state of an output, held locked, to be checked.
#[derive(Debug)]
pub struct StoredLink {
    /// The session's columns.
    pub state: Bytes,
    /// Our own copy of the image.
    pub image: Bytes,
    /// The command line, if the link had one.
    pub command: Option<Command>,
    /// Why the output's bytes are not those of the image; `None` if they are.
    pub output_differs: Option<String>,
    _folder: StateFolder,
}

/// Opens what the last incremental link of an output left.
pub fn open_stored(io: &dyn Io, output: &Path, trust: StateTrust) -> Result<StoredLink, HostError> {
    let none = |why| HostError::io("use the state of", output)(io::Error::other(why));
    let slot = slot_of(io, output)?;
    let folder = StateFolder::open(io, &slot.dir, &slot.name, trust, false);
    let folder = folder.map_err(|error| never_linked(output, error))?;
    let prior = folder.prior(io).map_err(none)?;
    let prior = prior.ok_or_else(|| none("there is none; link with --incremental".to_owned()))?;
    let image = match prior.overlay.is_empty() {
        true => prior.image,
        false => Bytes::from(prior.whole_image().bytes().into_owned()),
    };
    let output_differs = difference(io, output, &image);
    let command = folder.command(io);
    Ok(StoredLink { state: prior.state, image, command, output_differs, _folder: folder })
}

fn difference(io: &dyn Io, output: &Path, image: &Bytes) -> Option<String> {
    let bytes = match read_file(io, output) {
        Ok(bytes) => bytes,
        Err(error) => return Some(error.to_string()),
    };
    if bytes.len() != image.len() {
        return Some(format!(
            "{} has {} bytes, the kept image {}",
            output.display(),
            bytes.len(),
            image.len()
        ));
    }
    if bytes == image {
        return None;
    }
    let mut differing = bytes.iter().zip(image.iter()).enumerate().filter(|(_, (a, b))| a != b);
    let (at, (theirs, ours)) = differing.next()?;
    Some(format!(
        "{} differs from the kept image at offset {at:#x} ({theirs:#04x}, kept {ours:#04x}) and in {} bytes more",
        output.display(),
        differing.count()
    ))
}

/// A file's bytes, mapped if it is large.
pub fn read_file(io: &dyn Io, path: &Path) -> Result<Bytes, HostError> {
    let read = || -> io::Result<Bytes> {
        let file = io.open_read(path)?;
        let stat = io.stat_file(&file)?;
        match stat.kind {
            super::io::FileKind::Directory => Err(io::ErrorKind::IsADirectory.into()),
            super::io::FileKind::Regular if stat.identity.size > 1 << 20 => {
                io.map(&file, usize::try_from(stat.identity.size).map_err(|_| io::ErrorKind::FileTooLarge)?)
            }
            _ => Ok(Bytes::from(io.read_to_end(&file)?)),
        }
    };
    read().map_err(HostError::io("open", path))
}

#[cfg(test)]
mod tests;
