//! Sections whose names carry no meaning: constants that a compiler numbers in the order of their use, or names by a
//! hash of their content. One literal more in front, and each of the others has the name of its neighbour.
//!
//! They are paired by content, and what is left by size and order. Any pairing within a class is right: the names are
//! local, so only their own object refers to them, and of a changed object every atom and every reference is derived
//! anew; symbols that were in one atom and would be in another are refused where symbols are matched. A good pairing
//! only means that less is written and that sizes fit.

use formats::object_file::ObjectFile;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::image::Image;
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::rows::AtomRow;
use relink_engine::store::Store;
use relink_formats as formats;

/// The class of a nameless section: its name without number or hash. `None` if its name is one.
///
/// * rustc: `.rodata..Lanon.<hash of the unit's names>.<n>`, before 1.80 `..L__unnamed_<n>`, `..Lalloc_<hash of the content>`.
pub(crate) fn class_of(name: &[u8]) -> Option<&[u8]> {
    let at = name.windows(3).position(|window| window == b"..L")?;
    let (label, hex) = (&name[at + 3..], |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit));
    let digits = label.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let stem = &label[..label.len() - digits];
    if let Some(hash) = stem.strip_prefix(b"anon.").and_then(|rest| rest.strip_suffix(b".")) {
        return (digits > 0 && hash.len() == 32 && hex(hash)).then(|| &name[..at + 3 + b"anon.".len()]);
    }
    if stem == b"__unnamed_" {
        return (digits > 0).then(|| &name[..name.len() - digits]);
    }
    let hash = label.strip_prefix(b"alloc_")?;
    (hash.len() == 32 && hex(hash)).then(|| &name[..at + 3 + b"alloc_".len()])
}

/// What an atom is known by within its object: name and ordinal among those of its name; a nameless one by its class and
/// the section that it is in the object as last parsed, for its name in the state may be one that it had long ago.
pub(crate) fn key<'a>(
    name: &'a [u8],
    section: u32,
    ordinals: &mut HashMap<&'a [u8], u32>,
) -> (&'a [u8], u32) {
    if let Some(class) = class_of(name) {
        return (class, section);
    }
    let ordinal = ordinals.entry(name).or_default();
    *ordinal += 1;
    (name, *ordinal - 1)
}

/// An atom of a class that no section has been paired with.
type Known<'a> = (AtomRow, AtomRecord, &'a [u8]);

/// The atoms of a class, and the sections of the new object that are of it.
pub(super) type Members<'a> = (Vec<Known<'a>>, Vec<usize>);

/// Pairs the sections of one class with its atoms; what finds no partner on either side is left out.
pub(super) fn pair(
    store: &Store,
    image: &Image,
    object: &ObjectFile,
    known: Vec<Known<'_>>,
    sections: &[usize],
) -> Result<HashMap<usize, (AtomRow, AtomRecord)>, StoreError> {
    let mut known: Vec<Option<Known<'_>>> = known.into_iter().map(Some).collect();
    known.sort_by_key(|known| known.as_ref().map(|(_, record, _)| record.section));
    let mut pairs = HashMap::new();
    let size = |index: usize| object.sections[index].size;
    let mut take = |fits: &dyn Fn(&Known<'_>, usize) -> Result<bool, StoreError>| -> Result<(), StoreError> {
        let mut by_size: HashMap<u64, Vec<usize>> = HashMap::new();
        for (position, known) in known.iter().enumerate() {
            if let Some((_, record, _)) = known {
                by_size.entry(record.size).or_default().push(position);
            }
        }
        for &index in sections {
            if pairs.contains_key(&index) {
                continue;
            }
            for &position in by_size.get(&size(index)).map_or(&[][..], Vec::as_slice) {
                let Some(candidate) = known[position] else { continue };
                if fits(&candidate, index)? {
                    known[position] = None;
                    pairs.insert(index, (candidate.0, candidate.1));
                    break;
                }
            }
        }
        Ok(())
    };
    take(&|candidate, index| same_content(store, image, object, &candidate.1, index))?;
    take(&|candidate, index| Ok(candidate.2 == object.section_name(index)))?;
    take(&|_, _| Ok(true))?;
    // Other sizes: such as fit first; what is left then is reported as grown.
    for strict in [true, false] {
        for &index in sections {
            if pairs.contains_key(&index) {
                continue;
            }
            let align = u32::from(object.sections[index].align.exponent());
            let fits = |record: &AtomRecord| record.capacity >= size(index) && record.align >= align;
            let found = known
                .iter_mut()
                .find(|known| known.as_ref().is_some_and(|(_, record, _)| !strict || fits(record)));
            if let Some((row, record, _)) = found.and_then(Option::take) {
                pairs.insert(index, (row, record));
            }
        }
    }
    Ok(pairs)
}

/// Whether an atom has a section's bytes; fields that are relocated do not count.
fn same_content(
    store: &Store,
    image: &Image,
    object: &ObjectFile,
    known: &AtomRecord,
    index: usize,
) -> Result<bool, StoreError> {
    let whole = atom_flags::LIVE | atom_flags::ALLOC;
    if known.flags & (whole | atom_flags::NOBITS | atom_flags::MERGE) != whole {
        return Ok(false);
    }
    let new = object.section_bytes(index);
    let section = store.sections.get(known.output.0)?;
    let Some(old) = image.read(section.file_offset(known.address)?, new.len()) else { return Ok(false) };
    let relocs = object.relocations(index);
    if relocs.is_empty() {
        return Ok(*old == *new);
    }
    let (mut old, mut new) = (old.to_vec(), new.to_vec());
    for rela in relocs {
        let at = rela.r_offset.get(LittleEndian) as usize;
        // Constants hold addresses; a narrower field only makes two atoms look more alike than they are.
        for bytes in [&mut old, &mut new] {
            let end = at.saturating_add(8).min(bytes.len());
            if let Some(field) = bytes.get_mut(at..end) {
                field.fill(0);
            }
        }
    }
    Ok(old == new)
}

#[cfg(test)]
mod tests {
    use super::class_of;

    #[test]
    fn numbers_and_hashes_are_no_names() {
        let hash = "67614f7b29a931b9df9bfc94c2803d91";
        let class =
            |name: String| class_of(name.as_bytes()).map(|class| String::from_utf8(class.to_vec()).unwrap());
        assert_eq!(class(format!(".rodata..Lanon.{hash}.12")), Some(".rodata..Lanon.".to_owned()));
        assert_eq!(class(".rodata..L__unnamed_7".into()).as_deref(), Some(".rodata..L__unnamed_"));
        assert_eq!(class(format!(".rodata..Lalloc_{hash}")).as_deref(), Some(".rodata..Lalloc_"));
        for name in
            [".rodata.f", ".rodata..Lswitch.table.f", ".rodata..Lanon.12", ".text..L", ".rodata..Lanon.x.1"]
        {
            assert_eq!(class(name.into()), None, "{name}");
        }
    }
}
