//! `.note.gnu.property`: what an object promises or demands of the processor.

use crate::cursor::Cursor;
use crate::error::FormatError;

const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const ONE_NEEDED: u32 = 0xb000_8000;
const FEATURE_1_AND: u32 = 0xc000_0002;
const FEATURE_2_NEEDED: u32 = 0xc000_8001;
const ISA_1_NEEDED: u32 = 0xc000_8002;
const FEATURE_2_USED: u32 = 0xc001_0001;
const ISA_1_USED: u32 = 0xc001_0002;

/// The properties of one object, or of a whole link after [`merge`](Property::merge).
///
/// `Default` is the object without a note: it promises nothing and demands nothing.
///
/// # Source
/// Linux Extensions to gABI, "Program Property"; AMD64 psABI, "Program Property", `GNU_PROPERTY_X86_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Property {
    /// There was a property note.
    pub present: bool,
    /// `X86_FEATURE_1_AND`: bit 0 IBT, bit 1 SHSTK. Holds for the image only if it holds for every object.
    pub feature_1_and: u32,
    /// `X86_ISA_1_NEEDED`: bits of the ISA levels that the code needs.
    pub isa_1_needed: u32,
    /// `X86_ISA_1_USED`: bits of the ISA levels that occur; meaningful with `isa_1_used_known`.
    pub isa_1_used: u32,
    /// Whether every object so far says what ISA levels it uses.
    pub isa_1_used_known: bool,
    /// `X86_FEATURE_2_NEEDED`.
    pub feature_2_needed: u32,
    /// `X86_FEATURE_2_USED`; meaningful with `feature_2_used_known`.
    pub feature_2_used: u32,
    /// Whether every object so far says what features it uses.
    pub feature_2_used_known: bool,
    /// `GNU_PROPERTY_1_NEEDED`: bit 0 is indirect access to external data.
    pub needed_1: u32,
}

impl Property {
    /// Whether all code is ready for indirect branch tracking (`GNU_PROPERTY_X86_FEATURE_1_IBT`).
    pub fn has_ibt(&self) -> bool {
        self.feature_1_and & 1 != 0
    }

    /// Reads the bytes of one `.note.gnu.property` section. Other notes and unknown properties are skipped.
    ///
    /// # Errors
    /// A note or property that runs past its end, or a known property whose data isn't 4 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Property, FormatError> {
        let mut property = Property::default();
        let mut notes = Cursor::new(bytes, 0, "property note");
        while !notes.rest().is_empty() {
            let (name_len, desc_len, kind) = (notes.u32()?, notes.u32()?, notes.u32()?);
            let name = notes.take(name_len as usize)?;
            skip_padding(&mut notes, 4);
            let desc_at = notes.pos();
            notes.take(desc_len as usize)?;
            let desc_end = notes.pos();
            skip_padding(&mut notes, 8);
            if name != b"GNU\0" || kind != NT_GNU_PROPERTY_TYPE_0 {
                continue;
            }
            property.present = true;
            let desc = bytes.get(..desc_end).unwrap_or_default();
            property.parse_desc(Cursor::new(desc, desc_at, "program property"))?;
        }
        Ok(property)
    }

    fn parse_desc(&mut self, mut desc: Cursor<'_>) -> Result<(), FormatError> {
        while !desc.rest().is_empty() {
            let (kind, len) = (desc.u32()?, desc.u32()?);
            let mut data = desc;
            desc.take(len as usize)?;
            skip_padding(&mut desc, 8);
            let field = match kind {
                ONE_NEEDED => &mut self.needed_1,
                FEATURE_1_AND => &mut self.feature_1_and,
                FEATURE_2_NEEDED => &mut self.feature_2_needed,
                ISA_1_NEEDED => &mut self.isa_1_needed,
                FEATURE_2_USED => {
                    self.feature_2_used_known = true;
                    &mut self.feature_2_used
                }
                ISA_1_USED => {
                    self.isa_1_used_known = true;
                    &mut self.isa_1_used
                }
                _ => continue,
            };
            if len != 4 {
                let offset = data.pos() as u64 - 4;
                return Err(FormatError::BadValue {
                    what: "program property size",
                    value: len.into(),
                    offset,
                });
            }
            *field |= data.u32()?;
        }
        Ok(())
    }

    /// Joins the promises and demands of `other` to these.
    ///
    /// * AND for `feature_1_and`: an object without the note clears it.
    /// * OR for `*_needed`.
    /// * OR-AND for `*_used`: OR while all objects have it, else it is dropped for good.
    ///
    /// There is no neutral element: begin with the first object, or use [`merge_all`](Property::merge_all).
    pub fn merge(&mut self, other: &Property) {
        self.present |= other.present;
        self.feature_1_and &= other.feature_1_and;
        self.isa_1_needed |= other.isa_1_needed;
        self.feature_2_needed |= other.feature_2_needed;
        self.needed_1 |= other.needed_1;
        self.isa_1_used_known &= other.isa_1_used_known;
        self.isa_1_used = if self.isa_1_used_known { self.isa_1_used | other.isa_1_used } else { 0 };
        self.feature_2_used_known &= other.feature_2_used_known;
        self.feature_2_used =
            if self.feature_2_used_known { self.feature_2_used | other.feature_2_used } else { 0 };
    }

    /// The properties of an image made of `objects`, which must include those without a note.
    pub fn merge_all<'a>(objects: impl IntoIterator<Item = &'a Property>) -> Property {
        let mut objects = objects.into_iter();
        let mut all = objects.next().copied().unwrap_or_default();
        objects.for_each(|object| all.merge(object));
        all
    }

    /// The bytes of the note, aligned 8; empty if there is nothing to say.
    pub fn encode(&self) -> Vec<u8> {
        // Ascending by type, as the specification demands.
        let properties = [
            (ONE_NEEDED, self.needed_1),
            (FEATURE_1_AND, self.feature_1_and),
            (FEATURE_2_NEEDED, self.feature_2_needed),
            (ISA_1_NEEDED, self.isa_1_needed),
            (FEATURE_2_USED, self.feature_2_used),
            (ISA_1_USED, self.isa_1_used),
        ];
        let desc: Vec<u8> = properties
            .iter()
            .filter(|(_, value)| *value != 0)
            .flat_map(|(kind, value)| [*kind, 4, *value, 0].into_iter().flat_map(u32::to_le_bytes))
            .collect();
        if desc.is_empty() {
            return desc;
        }
        let mut note: Vec<u8> =
            [4, desc.len() as u32, NT_GNU_PROPERTY_TYPE_0].into_iter().flat_map(u32::to_le_bytes).collect();
        note.extend_from_slice(b"GNU\0");
        note.extend_from_slice(&desc);
        note
    }
}

/// Moves to the next multiple of `align`, or to the end: the last padding may be left out.
fn skip_padding(cursor: &mut Cursor<'_>, align: usize) {
    let padding = cursor.pos().next_multiple_of(align) - cursor.pos();
    // Never fails: at most what is there.
    let _ = cursor.take(padding.min(cursor.rest().len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::every_damage;

    fn all() -> Property {
        Property {
            present: true,
            feature_1_and: 3,
            isa_1_needed: 1,
            isa_1_used: 7,
            isa_1_used_known: true,
            feature_2_needed: 1,
            feature_2_used: 9,
            feature_2_used_known: true,
            needed_1: 1,
        }
    }

    /// What `gcc -fcf-protection` emits.
    #[test]
    fn reads_the_note_of_gcc() {
        let note = b"\x04\0\0\0\x10\0\0\0\x05\0\0\0GNU\0\x02\0\0\xc0\x04\0\0\0\x03\0\0\0\0\0\0\0";
        let property = Property::parse(note).unwrap();
        assert_eq!(property, Property { present: true, feature_1_and: 3, ..Property::default() });
        assert_eq!(property.encode(), note);
    }

    #[test]
    fn encode_is_the_inverse_of_parse() {
        assert_eq!(Property::parse(&all().encode()), Ok(all()));
        assert_eq!(Property::default().encode(), b"");
    }

    #[test]
    fn other_notes_and_unknown_properties_are_skipped() {
        let mut bytes = b"\x04\0\0\0\x04\0\0\0\x01\0\0\0XYZ\0abcd\0\0\0\0".to_vec();
        bytes.extend_from_slice(b"\x04\0\0\0\x08\0\0\0\x05\0\0\0GNU\0\x02\0\0\0\0\0\0\0");
        let only_present = Property { present: true, ..Property::default() };
        assert_eq!(Property::parse(&bytes), Ok(only_present));
    }

    #[test]
    fn a_missing_note_clears_promises_and_keeps_demands() {
        let merged = Property::merge_all(&[all(), Property::default(), all()]);
        assert_eq!((merged.feature_1_and, merged.isa_1_used, merged.feature_2_used), (0, 0, 0));
        assert_eq!((merged.isa_1_needed, merged.feature_2_needed, merged.needed_1), (1, 1, 1));
    }

    #[test]
    fn used_is_joined_while_every_object_has_it() {
        let other = Property { isa_1_used: 8, feature_1_and: 1, ..all() };
        let merged = Property::merge_all(&[all(), other]);
        assert_eq!((merged.isa_1_used, merged.feature_1_and), (15, 1));
    }

    #[test]
    fn damage_never_panics() {
        every_damage(&all().encode(), |bytes| {
            let _ = Property::parse(bytes);
        });
    }
}
