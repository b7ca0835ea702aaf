//! The image that was published last: owned, or a mapping with the pages that later frames rewrote on top.

use bevy_ecs::prelude::Resource;
use formats::Bytes;
use formats::build_id::PAGE_BYTES;
use hashbrown::HashMap;
use relink_formats as formats;

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
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.len())?;
        if !self.owned.is_empty() {
            return self.owned.get(offset as usize..end as usize).map(<[u8]>::to_vec);
        }
        let mut bytes = self.mapped.get(offset as usize..end as usize)?.to_vec();
        if !self.pages.is_empty() && len > 0 {
            for page in offset / PAGE_BYTES as u64..=(end - 1) / PAGE_BYTES as u64 {
                let Some(content) = self.pages.get(&page) else { continue };
                let start = page * PAGE_BYTES as u64;
                let from = offset.max(start);
                let to = end.min(start + content.len() as u64);
                bytes[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&content[(from - start) as usize..(to - start) as usize]);
            }
        }
        Some(bytes)
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

    /// Copies a range as it would be; `None` if it is not inside.
    pub fn read(&self, base: &Image, offset: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = base.read(offset, len)?;
        if self.pages.is_empty() || len == 0 {
            return Some(bytes);
        }
        let end = offset + len as u64;
        for page in offset / PAGE_BYTES as u64..=(end - 1) / PAGE_BYTES as u64 {
            let Some(content) = self.pages.get(&page) else { continue };
            let start = page * PAGE_BYTES as u64;
            let (from, to) = (offset.max(start), end.min(start + content.len() as u64));
            bytes[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&content[(from - start) as usize..(to - start) as usize]);
        }
        Some(bytes)
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
            if !self.pages.contains_key(&page) && base.read(at, count).as_deref() != Some(now) {
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
            let Some(old) = base.page(page) else { continue };
            let new = &self.pages[&page];
            let start = page * PAGE_BYTES as u64;
            let mut at = 0;
            while at < new.len() {
                if new[at] == old[at] {
                    at += 1;
                    continue;
                }
                let (mut end, mut next) = (at + 1, at + 1);
                while next < new.len() && next - end < 16 {
                    if new[next] != old[next] {
                        end = next + 1;
                    }
                    next += 1;
                }
                writes.push((start + at as u64, new[at..end].to_vec()));
                at = end;
            }
        }
        writes
    }
}
