//! The image that was published last: owned, or a mapping with the pages that later frames rewrote on top.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut, Range};

use bevy_ecs::prelude::Resource;
use formats::Bytes;
use formats::build_id::PAGE_BYTES;
use hashbrown::HashMap;
use relink_formats as formats;

/// Memory that somebody else lends for an image: a mapped file, so that its bytes are where they belong once they are made.
pub trait ImageMemory: Debug + Send + Sync {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it, to write.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes a range of it ready to be written, if that is cheaper than page after page.
    fn prepare(&self, range: Range<usize>) {
        let _ = range;
    }
}

/// The bytes of an image in the making.
#[derive(Debug)]
pub enum ImageBytes {
    /// Our own memory.
    Owned(Vec<u8>),
    /// Lent memory.
    Lent(Box<dyn ImageMemory>),
}

impl Default for ImageBytes {
    fn default() -> ImageBytes {
        ImageBytes::Owned(Vec::new())
    }
}

impl Deref for ImageBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            ImageBytes::Owned(bytes) => bytes,
            ImageBytes::Lent(memory) => memory.bytes(),
        }
    }
}

impl DerefMut for ImageBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            ImageBytes::Owned(bytes) => bytes,
            ImageBytes::Lent(memory) => memory.bytes_mut(),
        }
    }
}

impl ImageBytes {
    /// The bytes in our own memory, whose length may change.
    pub fn into_owned(self) -> Vec<u8> {
        match self {
            ImageBytes::Owned(bytes) => bytes,
            ImageBytes::Lent(memory) => memory.bytes().to_vec(),
        }
    }
}

/// Lent memory that is only read from now on.
#[derive(Debug)]
struct Finished(Box<dyn ImageMemory>);

impl AsRef<[u8]> for Finished {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Bytes that are compared at once, before the first that differs is looked for.
const COMPARED_BYTES: usize = 256;

/// Bytes of the image as the store describes them.
#[derive(Debug, Default, Resource)]
pub struct Image {
    owned: Vec<u8>,
    mapped: Bytes,
    pages: HashMap<u64, Vec<u8>>,
}

impl Image {
    /// An image in memory.
    pub fn owned(bytes: Vec<u8>) -> Image {
        Image { owned: bytes, ..Image::default() }
    }

    /// An image that was just made. Later frames write to our own memory alone: what is lent may be a file that is in use
    /// by then.
    pub fn made(bytes: ImageBytes) -> Image {
        match bytes {
            ImageBytes::Owned(bytes) => Image::owned(bytes),
            ImageBytes::Lent(memory) => Image::mapped(Bytes::from_owner(Finished(memory))),
        }
    }

    /// An image of an earlier process; only pages that are written are copied.
    pub fn mapped(bytes: Bytes) -> Image {
        Image { mapped: bytes, ..Image::default() }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.owned.len().max(self.mapped.len()) as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a range; `None` if it is not inside.
    pub fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.pieces(offset, len).map(|_| len)?);
        self.pieces(offset, len)?.for_each(|piece| bytes.extend_from_slice(piece));
        Some(bytes)
    }

    /// The bytes of a range, in pieces that lie together; `None` if it is not inside.
    fn pieces(&self, offset: u64, len: usize) -> Option<impl Iterator<Item = &[u8]>> {
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.len())?;
        let all = if self.owned.is_empty() { &self.mapped[..] } else { &self.owned[..] };
        let mut at = offset;
        Some(std::iter::from_fn(move || {
            let start = at;
            if start == end {
                return None;
            }
            if self.pages.is_empty() {
                at = end;
                return all.get(start as usize..end as usize);
            }
            let page = start / PAGE_BYTES as u64;
            let first = page * PAGE_BYTES as u64;
            at = end.min(first + PAGE_BYTES as u64);
            match self.pages.get(&page) {
                Some(content) => content.get((start - first) as usize..(at - first) as usize),
                None => all.get(start as usize..at as usize),
            }
        }))
    }

    /// How many of these bytes stand at an offset, up to the first that differs or is outside. Copies nothing.
    pub fn common_prefix(&self, offset: u64, bytes: &[u8]) -> usize {
        let inside = self.len().saturating_sub(offset).min(bytes.len() as u64) as usize;
        let mut common = 0;
        for piece in self.pieces(offset, inside).into_iter().flatten() {
            let wanted = &bytes[common..common + piece.len()];
            for (piece, wanted) in piece.chunks(COMPARED_BYTES).zip(wanted.chunks(COMPARED_BYTES)) {
                if piece != wanted {
                    let differs = piece.iter().zip(wanted).position(|(a, b)| a != b);
                    return common + differs.unwrap_or(0);
                }
                common += piece.len();
            }
        }
        common
    }

    /// Whether these bytes stand at an offset. Copies nothing.
    pub fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        self.common_prefix(offset, bytes) == bytes.len()
    }

    /// A page; the last one may be short.
    pub fn page(&self, page: u64) -> Option<Vec<u8>> {
        let start = page.checked_mul(PAGE_BYTES as u64)?;
        let len = self.len().checked_sub(start)?.min(PAGE_BYTES as u64);
        self.read(start, len as usize)
    }

    /// Overwrites a range; what is outside is left out.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !self.owned.is_empty() {
            let start = offset as usize;
            if let Some(slot) = start.checked_add(bytes.len()).and_then(|end| self.owned.get_mut(start..end))
            {
                slot.copy_from_slice(bytes);
            }
            return;
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let page = at / PAGE_BYTES as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let count = rest.len().min(PAGE_BYTES - within);
            if !self.pages.contains_key(&page) {
                let Some(content) = self.page(page) else { return };
                self.pages.insert(page, content);
            }
            if let Some(slot) =
                self.pages.get_mut(&page).and_then(|content| content.get_mut(within..within + count))
            {
                slot.copy_from_slice(&rest[..count]);
            }
            at += count as u64;
            rest = &rest[count..];
        }
    }

    /// All bytes in one piece; copies only if pages of a mapping were rewritten.
    pub fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        if !self.owned.is_empty() {
            return (&self.owned[..]).into();
        }
        if self.pages.is_empty() {
            return (&self.mapped[..]).into();
        }
        self.read(0, self.len() as usize).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_to_a_mapped_image_touch_only_their_pages() {
        let mut image = Image::mapped(Bytes::from(vec![7; 3 * PAGE_BYTES + 5]));
        image.write(PAGE_BYTES as u64 - 2, &[1, 2, 3, 4]);
        assert_eq!(image.pages.len(), 2);
        assert_eq!(image.read(PAGE_BYTES as u64 - 3, 6), Some(vec![7, 1, 2, 3, 4, 7]));
        assert_eq!(image.page(3), Some(vec![7; 5]));
        assert_eq!(image.read(3 * PAGE_BYTES as u64, 6), None);
        assert_eq!(image.bytes()[PAGE_BYTES + 1], 4);
    }

    #[test]
    fn bytes_are_compared_across_pages_that_were_written_and_such_that_were_not() {
        let content: Vec<u8> = (0..3 * PAGE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let mut image = Image::mapped(Bytes::from(content.clone()));
        assert!(image.matches(0, &content) && image.matches(content.len() as u64, &[]));
        image.write(PAGE_BYTES as u64 + 1, &[0xff]);
        let mut wanted = content.clone();
        assert_eq!(image.common_prefix(3, &wanted[3..]), PAGE_BYTES - 2);
        wanted[PAGE_BYTES + 1] = 0xff;
        for offset in [0, 1, PAGE_BYTES, PAGE_BYTES + 2, wanted.len() - 1] {
            assert!(image.matches(offset as u64, &wanted[offset..]), "{offset}");
            let mut other = wanted[offset..].to_vec();
            *other.last_mut().unwrap() ^= 1;
            assert_eq!(image.common_prefix(offset as u64, &other), other.len() - 1);
            other.push(0);
            assert!(!image.matches(offset as u64, &other), "the end is no match");
        }
        let owned = Image::owned(wanted.clone());
        assert!(owned.matches(7, &wanted[7..]) && !owned.matches(8, &wanted[7..]));
        assert_eq!(owned.common_prefix(u64::MAX, &wanted), 0);
    }
}

/// What a frame would make of the image: whole pages, copied when first written.
///
/// Everything before Commit writes here; a frame that is dropped leaves the image as it was.
#[derive(Debug, Default, Resource)]
pub struct Draft {
    pages: HashMap<u64, Vec<u8>>,
}

impl Draft {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pages.clear();
    }

    /// Pages that were written, ascending.
    pub fn pages(&self) -> Vec<u64> {
        let mut pages: Vec<u64> = self.pages.keys().copied().collect();
        pages.sort_unstable();
        pages
    }

    /// A page as it would be.
    pub fn page(&self, base: &Image, page: u64) -> Option<Vec<u8>> {
        self.pages.get(&page).cloned().or_else(|| base.page(page))
    }

    /// Whether a page of a range was written.
    pub fn touches(&self, offset: u64, len: usize) -> bool {
        let pages = offset / PAGE_BYTES as u64..offset.saturating_add(len as u64).div_ceil(PAGE_BYTES as u64);
        self.pages.keys().any(|page| pages.contains(page))
    }

    /// Copies a range as it would be; `None` if it is not inside.
    pub fn read(&self, base: &Image, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = base.read(offset, len)?;
        self.overlay(offset, &mut bytes);
        Some(bytes)
    }

    /// The same of a length that is known: in tables, that of a field.
    pub fn read_array<const N: usize>(&self, base: &Image, offset: u64) -> Option<[u8; N]> {
        let (mut bytes, mut at) = ([0; N], 0);
        for piece in base.pieces(offset, N)? {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        self.overlay(offset, &mut bytes);
        Some(bytes)
    }

    /// Puts what was written over the image's bytes of a range.
    fn overlay(&self, offset: u64, bytes: &mut [u8]) {
        if self.pages.is_empty() || bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        for page in offset / PAGE_BYTES as u64..=(end - 1) / PAGE_BYTES as u64 {
            let Some(content) = self.pages.get(&page) else { continue };
            let start = page * PAGE_BYTES as u64;
            let (from, to) = (offset.max(start), end.min(start + content.len() as u64));
            bytes[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&content[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Writes a range; pages that would not change are not copied. `false` if it is not inside.
    #[must_use]
    pub fn write(&mut self, base: &Image, offset: u64, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > base.len()) {
            return false;
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let page = at / PAGE_BYTES as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let count = rest.len().min(PAGE_BYTES - within);
            let (now, later) = rest.split_at(count);
            if !self.pages.contains_key(&page) && !base.matches(at, now) {
                let Some(content) = base.page(page) else { return false };
                self.pages.insert(page, content);
            }
            if let Some(content) = self.pages.get_mut(&page) {
                content[within..within + count].copy_from_slice(now);
            }
            at += count as u64;
            rest = later;
        }
        true
    }

    /// The ranges that differ from the image, ascending; differences closer than 16 bytes are one range.
    pub fn patch(&self, base: &Image) -> Vec<(u64, Vec<u8>)> {
        let mut writes: Vec<(u64, Vec<u8>)> = Vec::new();
        for page in self.pages() {
            let new = &self.pages[&page];
            let start = page * PAGE_BYTES as u64;
            // One page is one piece.
            let old = base.pieces(start, new.len()).and_then(|mut pieces| pieces.next());
            let Some(old) = old else { continue };
            let mut at = first_difference(old, new, 0);
            while at < new.len() {
                let mut end = at + 1;
                while let Some(more) = last_difference(old, new, end) {
                    end += more;
                }
                writes.push((start + at as u64, new[at..end].to_vec()));
                at = first_difference(old, new, end);
            }
        }
        writes
    }
}

/// Bytes that are compared at once, and that have to be equal between two differences that are told apart.
const APART: usize = size_of::<u128>();

/// Which of the next bytes differ: bits of those that do are set, the first byte's are the lowest. `None` at the end.
fn difference(old: &[u8], new: &[u8], at: usize) -> Option<u128> {
    let word = |bytes: &[u8]| {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        Some(rest.first_chunk().map_or_else(
            || rest.iter().rev().fold(0, |word, &byte| word << 8 | u128::from(byte)),
            |word| u128::from_le_bytes(*word),
        ))
    };
    Some(word(old)? ^ word(new)?)
}

/// Where the first difference from an offset on is; the length if there is none.
fn first_difference(old: &[u8], new: &[u8], mut at: usize) -> usize {
    while let Some(difference) = difference(old, new, at) {
        if difference != 0 {
            return at + difference.trailing_zeros() as usize / 8;
        }
        at += APART;
    }
    new.len()
}

/// How far the last difference in the next [`APART`] bytes goes; `None` if there is none.
fn last_difference(old: &[u8], new: &[u8], at: usize) -> Option<usize> {
    let difference = difference(old, new, at).filter(|&difference| difference != 0)?;
    Some(APART - difference.leading_zeros() as usize / 8)
}

#[cfg(test)]
mod draft_tests {
    use super::*;

    #[test]
    fn patch_is_the_ranges_that_differ() {
        const LAST: usize = PAGE_BYTES + 36;
        const PAGE: usize = PAGE_BYTES;
        /// Places that are changed, and the ranges that come of them.
        type Case = (&'static [usize], &'static [(usize, usize)]);
        let cases: [Case; 7] = [
            (&[0], &[(0, 1)]),
            (&[LAST], &[(LAST, 1)]),
            (&[5, 21, 38], &[(5, 17), (38, 1)]),
            (&[15, 16, 31], &[(15, 17)]),
            (&[PAGE - 1, PAGE], &[(PAGE - 1, 1), (PAGE, 1)]),
            (&[LAST - 16, LAST], &[(LAST - 16, 17)]),
            (&[LAST - 17, LAST], &[(LAST - 17, 1), (LAST, 1)]),
        ];
        let len = LAST + 1;
        let old: Vec<u8> = (0..len).map(|at| (at % 7) as u8).collect();
        let base = Image::mapped(Bytes::from(old.clone()));
        for (changed, ranges) in cases {
            let mut draft = Draft::default();
            let mut new = old.clone();
            changed.iter().for_each(|&at| new[at] ^= 0x80);
            assert!(draft.write(&base, 0, &new));
            let wanted: Vec<(u64, Vec<u8>)> =
                ranges.iter().map(|&(at, len)| (at as u64, new[at..at + len].to_vec())).collect();
            assert_eq!(draft.patch(&base), wanted, "{changed:?}");
            assert_eq!(draft.read(&base, 0, len), Some(new.clone()));
            for at in [0, PAGE - 3, len - 8] {
                assert_eq!(
                    draft.read_array::<8>(&base, at as u64).as_ref().map(|word| &word[..]),
                    new.get(at..at + 8)
                );
            }
            assert_eq!(draft.read_array::<8>(&base, len as u64 - 7), None);
        }
    }
}
