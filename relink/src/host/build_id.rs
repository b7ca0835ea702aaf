//! Recomputes the build-id of a finished file from the file alone.

use std::ops::Range;

use relink_formats::build_id;

/// The note's type and owner (`NT_GNU_BUILD_ID`, "GNU").
const NOTE_TYPE: u32 = 3;
const NOTE_OWNER: &[u8] = b"GNU\0";
const PROGRAM_HEADER_NOTE: u32 = 4;
const SECTION_NOTE: u32 = 7;

/// The recorded and the recomputed build-id of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildIdCheck {
    /// Bytes of the note.
    pub recorded: Vec<u8>,
    /// The whole digest of the file with the note's bytes zeroed.
    pub digest: Vec<u8>,
}

impl BuildIdCheck {
    /// Whether the note holds the first bytes of the digest.
    pub fn matches(&self) -> bool {
        !self.recorded.is_empty() && self.digest.starts_with(&self.recorded)
    }
}

/// Reads the build-id note of an ELF64 file and recomputes it; `None` if the file has none.
pub fn check_build_id(file: &[u8]) -> Option<BuildIdCheck> {
    let range = find_note(file)?;
    let recorded = file.get(range.clone())?.to_vec();
    let digest = build_id::of_image(file, Some(range.start as u64..range.end as u64)).to_vec();
    Some(BuildIdCheck { recorded, digest })
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn offset_at(file: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}

/// Where in the file the descriptor of the build-id note is: by program headers, which an image always has, else by
/// section headers, which an object has.
fn find_note(file: &[u8]) -> Option<Range<usize>> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // Position of the table, size and number of its entries; then type, offset, size and alignment in an entry.
    let tables =
        [(32, 54, 56, PROGRAM_HEADER_NOTE, [0, 8, 32, 48]), (40, 58, 60, SECTION_NOTE, [4, 24, 32, 48])];
    tables.into_iter().find_map(|(table, size, count, kind, fields)| {
        let (table, size) = (offset_at(file, table)?, usize::from(u16_at(file, size)?));
        (0..usize::from(u16_at(file, count)?)).find_map(|index| {
            let entry = table.checked_add(size.checked_mul(index)?)?;
            let field = |at: usize| entry.checked_add(fields[at]);
            if u32_at(file, field(0)?)? != kind {
                return None;
            }
            let start = offset_at(file, field(1)?)?;
            let end = start.checked_add(offset_at(file, field(2)?)?)?;
            let align = if offset_at(file, field(3)?)? == 8 { 8 } else { 4 };
            build_id_in(file, start..end.min(file.len()), align)
        })
    })
}

/// Looks through the notes of one range.
fn build_id_in(file: &[u8], notes: Range<usize>, align: usize) -> Option<Range<usize>> {
    let mut at = notes.start;
    while at < notes.end {
        let (name_size, size) = (u32_at(file, at)? as usize, u32_at(file, at.checked_add(4)?)? as usize);
        let name = at.checked_add(12)?;
        let descriptor = name.checked_add(name_size)?.checked_next_multiple_of(align)?;
        let end = descriptor.checked_add(size)?;
        if u32_at(file, at.checked_add(8)?)? == NOTE_TYPE
            && file.get(name..)?.starts_with(NOTE_OWNER)
            && name_size == 4
        {
            return (end <= notes.end).then_some(descriptor..end);
        }
        at = end.checked_next_multiple_of(align)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one note segment that holds a property note, then a build-id of `id`.
    fn image(id: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        for (kind, descriptor) in [(5_u32, &[1_u8, 2, 3, 4, 5][..]), (NOTE_TYPE, id)] {
            file.extend(4_u32.to_le_bytes());
            file.extend((descriptor.len() as u32).to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend(NOTE_OWNER);
            file.extend(descriptor);
            file.resize(file.len().next_multiple_of(4), 0);
        }
        let notes = file.len() as u64 - 120;
        file[64..68].copy_from_slice(&PROGRAM_HEADER_NOTE.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&notes.to_le_bytes());
        file[112..120].copy_from_slice(&4_u64.to_le_bytes());
        file
    }

    #[test]
    fn recorded_id_is_recomputed_from_the_file() {
        let mut file = image(&[0; 20]);
        let digest = check_build_id(&file).unwrap().digest;
        let at = file.len() - 20;
        file[at..].copy_from_slice(&digest[..20]);
        assert!(check_build_id(&file).unwrap().matches());
        file[100] ^= 1; // A high byte of the segment's size: changed, but still parsed.
        file[20] ^= 1;
        file[100] ^= 1;
        assert!(!check_build_id(&file).unwrap().matches());
    }

    #[test]
    fn damaged_files_have_no_id_and_do_not_panic() {
        let file = image(&[7; 20]);
        for length in 0..file.len() {
            check_build_id(&file[..length]);
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[length] ^= 1 << bit;
                check_build_id(&damaged);
            }
        }
        assert_eq!(check_build_id(b"text"), None);
    }
}
