//! Publication of a patch in O(change): two images take turns, one is the output, the other is kept.
//!
//! The kept one lacks the last patch, or the last two by now. It gets their ranges and changes places with the
//! output at once; what was the output is kept then. So no byte of a file is ever written while it is the output.
//!
//! The file that was the output may have more users than we know of, so it takes part only if
//! - it is the very file that was published last, and nobody wrote to it: not an output that was made anew, stripped
//!   or patched by others;
//! - it has no other name, when it leaves its place and again before it is written to: a hard link that somebody
//!   holds (cargo's `target/debug/x`) keeps its bytes;
//! - it can be opened to write, which the kernel refuses while the program runs, and nobody else has it open or
//!   mapped: a debugger, say, or a copy that is being made;
//! - it is a program: a shared library may be mapped by many, so that it is a new file each time, whatever the kernel
//!   says of its users.
//!
//! If the kept image can't be written to, a copy of it is the next one. If the output can't be kept, or there is none
//! (cargo removes it before each link), a copy of the kept image takes its place by rename. Either copy is O(image),
//! unless the file system shares blocks.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use relink_engine::image::Image;
use relink_formats::build_id::PAGE_BYTES;
use rustix::io::Errno;

use super::change::Change;
use super::error::HostError;
use super::io::{Dir, FileKind, Io, Open, Stat};
use super::publish::{self, Slot, Temporary};
use super::state::{Current, Part, Prior, Seen, StateFolder, generation_name};
use crate::PatchBytes;

/// The name of an output that is made in the folder.
pub(super) const OUTPUT: &str = "output";

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// To files that hold an image.
    pub(super) image: u64,
    /// To the other files of the folder.
    pub(super) state: u64,
}

/// A publication in the making.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) io: &'a dyn Io,
    pub(super) folder: &'a StateFolder,
    pub(super) prior: &'a Prior,
    pub(super) slot: &'a Slot,
    /// Number of this link.
    pub(super) generation: u64,
    /// Whether a file that was the output may be written to.
    pub(super) program: bool,
    pub(super) written: Written,
    /// The new output, when it was finished.
    pub(super) output: Option<Seen>,
}

/// What is kept once the output is published.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) image: Part,
    pub(super) image_seen: Seen,
    pub(super) patch: Option<Part>,
    /// The output, when it was finished.
    pub(super) output: Option<Seen>,
}

/// The image that has its turn: the kept file, or a copy of it.
struct Next<'a> {
    generation: u64,
    name: OsString,
    file: File,
    /// Removes the copy again if nothing comes of it.
    copy: Option<Temporary<'a>>,
}

/// The output as it is now.
pub(super) fn output_stat(io: &dyn Io, slot: &Slot) -> Option<Stat> {
    io.stat_at(&slot.dir, &slot.name).ok()
}

/// Gives a file that is or will be the output the time of now, down to the nanosecond: the kernel's own time of a later
/// write is another, also within the step of its clock. What the file is then; none if its file system rounds times,
/// where a write may go unnoticed.
pub(super) fn date(io: &dyn Io, dir: &Dir, name: &OsStr, slot: &Slot) -> Result<Option<Seen>, HostError> {
    let now = io.now_ns();
    io.set_modified(dir, name, now).map_err(HostError::io("write output", &slot.shown))?;
    let stat = io.stat_at(dir, name).ok();
    Ok(stat.filter(|stat| stat.identity.mtime_ns == now).map(|stat| Seen::of(&stat)))
}

/// What one call writes over, though it need not: a call takes as long as a few hundred bytes.
const JOINED_GAP_BYTES: u64 = 256;

/// The bytes of an image in these ranges, ascending; ranges that overlap, nearly touch or end and begin in one page are
/// one: a page is dear, its bytes are not.
fn joined<'p>(image: &Image, ranges: impl Iterator<Item = &'p PatchBytes>) -> Vec<PatchBytes> {
    let mut ranges: Vec<(u64, u64)> =
        ranges.map(|range| (range.offset, range.offset.saturating_add(range.bytes.len() as u64))).collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let page = |offset: u64| offset / PAGE_BYTES as u64;
        let near = next.0 <= last.1.saturating_add(JOINED_GAP_BYTES)
            || page(next.0) == page(last.1.saturating_sub(1));
        if near {
            last.1 = last.1.max(next.1);
        }
        near
    });
    let read = |(start, end): (u64, u64)| {
        Some(PatchBytes { offset: start, bytes: image.read(start, usize::try_from(end - start).ok()?)? })
    };
    // All of them are inside: the patch was recorded, the overlay laid over this very image.
    ranges.into_iter().filter_map(read).collect()
}

/// Whether an error means that the file system can't do what was asked, as opposed to failing at it.
fn unsupported(error: &io::Error) -> bool {
    let numbers = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

impl<'a> Turn<'a> {
    /// Publishes. An error means that the output is the old one.
    pub(super) fn publish(&mut self, patch: &[PatchBytes]) -> Result<Kept, HostError> {
        let keepable = self.output_is_ours();
        if patch.is_empty() && keepable {
            // Nothing to write, but who builds by times wants a new one.
            let output = date(self.io, &self.slot.dir, &self.slot.name, self.slot)?;
            let Current { image, image_seen, patch, .. } = self.prior.current.clone();
            return Ok(Kept { image, image_seen, patch, output });
        }
        let mut image = self.prior.whole_image();
        let patch_part = self.keep_patch(&image, patch)?;
        let next = self.next_image().map_err(|error| self.failed(error))?;
        patch.iter().for_each(|range| image.write(range.offset, &range.bytes));
        for range in &joined(&image, self.prior.overlay.iter().chain(patch)) {
            self.io.write_at(&next.file, range.offset, &range.bytes).map_err(|error| self.failed(error))?;
            self.written.image += range.bytes.len() as u64;
        }
        let (image, was_output) = match keepable && self.program {
            true => self.take_turns(next)?,
            false => self.replace_by_copy(next)?,
        };
        // Published: what fails from here on makes the next link a full one, no more.
        let name = generation_name("image", image.generation);
        let seen = self.io.stat_at(&self.folder.dir, &name).map(|stat| Seen::of(&stat)).unwrap_or_default();
        // Somebody may have put another file in the place of the output just before it left it.
        let ours = !was_output || self.prior.current.output.is_some_and(|output| output.same_file(&seen));
        let image_seen = if ours { seen } else { Seen::default() };
        Ok(Kept { image, image_seen, patch: Some(patch_part), output: self.output })
    }

    fn failed(&self, error: io::Error) -> HostError {
        HostError::io("write", self.folder.dir.path())(error)
    }

    /// Whether the output is the file that the last link left, and ours alone.
    fn output_is_ours(&self) -> bool {
        output_stat(self.io, self.slot).is_some_and(|stat| {
            stat.kind == FileKind::Regular
                && stat.links == 1
                && stat.owner == rustix::process::geteuid().as_raw()
                && self.prior.current.output.is_some_and(|seen| seen.is_still(&Seen::of(&stat)))
        })
    }

    /// Writes what changes, and what stood there. From here on the kept image may be written to.
    fn keep_patch(&mut self, image: &Image, patch: &[PatchBytes]) -> Result<Part, HostError> {
        let change = Change::of(image, self.prior.current.generation, self.generation, patch);
        let outside = || self.failed(io::Error::other("the patch does not fit the image"));
        let bytes = change.ok_or_else(outside)?.encode();
        let written = self.folder.write_patch(self.io, self.prior, self.generation, &bytes);
        written.map_err(|error| self.failed(error))?;
        self.written.state += bytes.len() as u64;
        Ok(Part { generation: self.generation, bytes: bytes.len() as u64 })
    }

    /// Opens the kept image, or makes a copy of it if somebody else may be using it.
    fn next_image(&mut self) -> io::Result<Next<'a>> {
        let (io, folder) = (self.io, self.folder);
        let kept = &self.prior.current.image;
        let name = generation_name("image", kept.generation);
        if self.prior.image_free
            && let Ok(file) = io.open_at(&folder.dir, &name, Open::Extend)
            && io.stat_file(&file)?.links == 1
        {
            return Ok(Next { generation: kept.generation, name, file, copy: None });
        }
        let name = generation_name("image", self.generation);
        let mut copy = Temporary::named(io, &folder.dir, name.clone(), false)?;
        self.written.image += io.copy(&self.prior.image_file, copy.file()?, kept.bytes)?;
        let file = copy.take_file()?;
        Ok(Next { generation: self.generation, name, file, copy: Some(copy) })
    }

    /// Output and next image change places. What is kept, and whether it was the output.
    fn take_turns(&mut self, next: Next<'a>) -> Result<(Part, bool), HostError> {
        let Next { generation, name, file, copy } = next;
        let (io, dir, slot) = (self.io, &self.folder.dir, self.slot);
        publish::dress(io, &file, slot, true)?;
        drop(file); // A program can't run while a writer has it open.
        self.output = date(io, dir, &name, slot)?;
        match io.exchange(dir, &name, &slot.dir, &slot.name) {
            Ok(()) => {
                drop(copy.and_then(Temporary::keep));
                Ok((Part { generation, ..self.prior.current.image }, true))
            }
            Err(error) if unsupported(&error) => self.take_turns_by_links(generation, &name, copy),
            Err(error) => Err(HostError::io("replace output", &slot.shown)(error)),
        }
    }

    /// The same for file systems that can't exchange names. At each moment the output is the old one or the new one,
    /// and the name of the kept image leads to one that can be made whole.
    fn take_turns_by_links(
        &mut self,
        generation: u64,
        name: &OsStr,
        copy: Option<Temporary<'a>>,
    ) -> Result<(Part, bool), HostError> {
        let (io, dir, slot) = (self.io, &self.folder.dir, self.slot);
        let kept = self.generation.saturating_add(1);
        let kept_name = generation_name("image", kept);
        let linked = io.link(&slot.dir, &slot.name, dir, &kept_name);
        let linked = linked.and_then(|()| io.link(dir, name, dir, OsStr::new(OUTPUT)));
        if linked.is_err() {
            let _ = io.remove(dir, &kept_name);
            let file = io.open_at(dir, name, Open::Read).map_err(|error| self.failed(error))?;
            return self.replace_by_copy(Next { generation, name: name.to_owned(), file, copy });
        }
        if let Err(error) = io.rename(dir, OsStr::new(OUTPUT), &slot.dir, &slot.name) {
            let _ = io.remove(dir, OsStr::new(OUTPUT));
            let _ = io.remove(dir, &kept_name);
            return Err(HostError::io("replace output", &slot.shown)(error));
        }
        // The new output loses its name in the folder with the old marker, a copy at once.
        Ok((Part { generation: kept, ..self.prior.current.image }, true))
    }

    /// A copy of the next image takes the place of the output.
    fn replace_by_copy(&mut self, next: Next<'a>) -> Result<(Part, bool), HostError> {
        let (io, dir) = (self.io, &self.folder.dir);
        let length = self.prior.current.image.bytes;
        // It is made in the folder too: what a kill leaves of it, the next link sweeps.
        let output = Temporary::named(io, dir, OUTPUT, false).map_err(|error| self.failed(error))?;
        let copied = output.file().and_then(|output| io.copy(&next.file, output, length));
        self.written.image += copied.map_err(|error| self.failed(error))?;
        drop(next.file);
        self.output = date(io, dir, output.name(), self.slot)?;
        publish::replace(io, output, self.slot, true)?;
        drop(next.copy.and_then(Temporary::keep));
        Ok((Part { generation: next.generation, bytes: length }, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_nearly_touch_are_written_in_one_call() {
        let mut image = Image::owned((0..3 * PAGE_BYTES).map(|at| (at % 251) as u8).collect());
        let range = |offset: u64, bytes: &[u8]| PatchBytes { offset, bytes: bytes.to_vec() };
        // Three in the first page, two beside each other, one at the end of the third, far from all.
        let page = PAGE_BYTES as u64;
        let (overlay, patch) = (
            [range(1500, b"old"), range(10, b"old"), range(3 * page - 3, b"old")],
            [range(12, b"new"), range(page - 2, b"n"), range(page + JOINED_GAP_BYTES - 1, b"n")],
        );
        overlay.iter().chain(&patch).for_each(|range| image.write(range.offset, &range.bytes));
        let whole = image.bytes().into_owned();
        let joined = joined(&image, overlay.iter().chain(&patch));
        let ends = joined.iter().map(|range| (range.offset, range.bytes.len())).collect::<Vec<_>>();
        assert_eq!(ends, [(10, PAGE_BYTES + JOINED_GAP_BYTES as usize - 10), (3 * page - 3, 3)]);
        assert_eq!(&joined[0].bytes[..5], b"olnew");
        assert!(joined.iter().all(|range| whole[range.offset as usize..].starts_with(&range.bytes)));
    }
}
