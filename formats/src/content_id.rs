//! Content ids: equal for two atoms exactly if the link may treat them as the same input.
//!
//! An id is BLAKE2b-256 over a canonical stream. Nothing positional goes in: no symbol or section index, no
//! string table offset, no address, no path and no time. So an object that was compiled again, renamed, or
//! given another member order yields the same ids for the atoms that did not change.
//!
//! # The stream
//! Numbers are u64 little-endian; a byte string is its length and then its bytes. The personalisation string
//! names what is hashed, so an atom, a whole file and a piece never share an id.
//!
//! | Part | Contents |
//! |---|---|
//! | schema | [`SCHEMA`] |
//! | header | machine, type, flags without bookkeeping bits, alignment, entry size, size |
//! | each relocation, in file order | `'R'`, offset, kind, addend, bytes masked, target |
//! | end of relocations | `'E'`, their number |
//! | contents | byte string, relocation fields zeroed |
//!
//! A target begins with a tag of one byte, see [`TargetKey`]. File order is kept because composite
//! relocations depend on it.

use std::ops::Range;

use crate::build_id::Digest;

/// Version of the canonical stream. A change of the stream changes it, and with it every id.
pub const SCHEMA: u64 = 1;

const ATOM: &[u8; 16] = b"relink-atom-v1\0\0";
const BYTES: &[u8; 16] = b"relink-bytes-v1\0";
const OBJECT: &[u8; 16] = b"relink-object-v1";

/// Flags that say how a section is stored, not what it is: `SHF_INFO_LINK`, `SHF_LINK_ORDER`, `SHF_GROUP`.
/// What they refer to is part of the atom's key.
const BOOKKEEPING_FLAGS: u64 = 0x40 | 0x80 | 0x200;

/// Bytes collected before they go to the hash: most atoms need one call of it.
const PENDING_BYTES: usize = 4096;

/// What an atom is, apart from its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomHeader {
    /// `e_machine`.
    pub machine: u16,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`; bookkeeping bits do not matter.
    pub flags: u64,
    /// `sh_addralign`. Units: bytes.
    pub align: u64,
    /// `sh_entsize`. Units: bytes.
    pub entsize: u64,
    /// `sh_size`; more than the contents have for `SHT_NOBITS`. Units: bytes.
    pub size: u64,
}

/// One relocation of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomReloc<'a> {
    /// Where the field is. Units: bytes from the start of the atom.
    pub offset: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    /// The explicit addend.
    pub addend: i64,
    /// Bytes of the field, which count as zero. What lies outside of the atom is ignored.
    pub width: u64,
    /// What it refers to.
    pub target: TargetKey<'a>,
}

/// The target of a relocation by what it is, never by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKey<'a> {
    /// A symbol that other objects see. Tag `G`.
    Global {
        /// Name of the symbol.
        name: &'a [u8],
        /// Version suffix, mostly empty.
        version: &'a [u8],
    },
    /// A place in a section of the same object. Tag `L`.
    Local {
        /// Normalised name of the section.
        section: &'a [u8],
        /// Which one of the sections with that name.
        ordinal: u32,
        /// Units: bytes from the start of the section.
        offset: u64,
    },
    /// A place in a piece of a mergeable section. Tag `M`.
    Merge {
        /// The bytes of the piece.
        piece: &'a [u8],
        /// Units: bytes from the start of the piece.
        offset: u64,
    },
    /// A place in an atom whose name is positional, as `.L.str.3` or `.Lanon.<hash>.7`. Tag `A`.
    Anonymous {
        /// [`atom_bytes_id`] of the target: without its own relocations, which would make cycles.
        digest: &'a Digest,
        /// Units: bytes from the start of the atom.
        offset: u64,
    },
    /// A number, from an `SHN_ABS` symbol. Tag `N`.
    Absolute {
        /// `st_value`.
        value: u64,
    },
    /// No symbol (index 0). Tag `U`.
    Undefined,
}

/// Feeds a canonical stream to BLAKE2b-256. Reusable: [`ContentHasher::finish`] leaves nothing behind.
#[derive(Clone, Debug)]
pub struct ContentHasher {
    state: blake2b_simd::State,
    pending: Vec<u8>,
}

impl ContentHasher {
    /// A hasher for the domain named by `person`; the stream starts with [`SCHEMA`].
    pub fn new(person: &[u8; 16]) -> ContentHasher {
        let state = blake2b_simd::Params::new().hash_length(32).personal(person).to_state();
        let mut hasher = ContentHasher { state, pending: Vec::with_capacity(PENDING_BYTES) };
        hasher.number(SCHEMA);
        hasher
    }

    /// One byte that says what comes next.
    pub fn tag(&mut self, tag: u8) {
        self.pending.push(tag);
        self.flush_if_full();
    }

    /// A number, 8 bytes whatever its size.
    pub fn number(&mut self, number: u64) {
        self.pending.extend_from_slice(&number.to_le_bytes());
        self.flush_if_full();
    }

    /// A byte string with its length in front.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Bytes as they are; the caller has given their number.
    fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() < PENDING_BYTES {
            self.pending.extend_from_slice(bytes);
            self.flush_if_full();
        } else {
            self.flush();
            self.state.update(bytes);
        }
    }

    /// `contents` with `masks` zeroed. `masks` may overlap and be in any order.
    fn masked(&mut self, contents: &[u8], masks: &mut [Range<u64>]) {
        self.number(contents.len() as u64);
        if !masks.is_sorted_by_key(|mask| mask.start) {
            masks.sort_unstable_by_key(|mask| mask.start);
        }
        let clamp = |offset: u64| offset.min(contents.len() as u64) as usize;
        let mut done = 0;
        for mask in masks {
            let (start, end) = (clamp(mask.start).max(done), clamp(mask.end).max(done));
            self.raw(contents.get(done..start).unwrap_or_default());
            let mut left = end.saturating_sub(start);
            while left > 0 {
                let zeros = [0; 64];
                let some = zeros.get(..left).unwrap_or(&zeros);
                self.raw(some);
                left -= some.len();
            }
            done = end.max(start);
        }
        self.raw(contents.get(done..).unwrap_or_default());
    }

    fn header(&mut self, header: &AtomHeader) {
        let AtomHeader { machine, kind, flags, align, entsize, size } = *header;
        self.number(machine.into());
        self.number(kind.into());
        self.number(flags & !BOOKKEEPING_FLAGS);
        // ELF says that 0 and 1 both mean no constraint.
        self.number(align.max(1));
        self.number(entsize);
        self.number(size);
    }

    fn reloc(&mut self, reloc: &AtomReloc<'_>) {
        self.tag(b'R');
        self.number(reloc.offset);
        self.number(reloc.kind.into());
        self.number(reloc.addend as u64);
        self.number(reloc.width);
        match reloc.target {
            TargetKey::Global { name, version } => {
                self.tag(b'G');
                self.field(name);
                self.field(version);
            }
            TargetKey::Local { section, ordinal, offset } => {
                self.tag(b'L');
                self.field(section);
                self.number(ordinal.into());
                self.number(offset);
            }
            TargetKey::Merge { piece, offset } => {
                self.tag(b'M');
                self.field(piece);
                self.number(offset);
            }
            TargetKey::Anonymous { digest, offset } => {
                self.tag(b'A');
                self.field(digest);
                self.number(offset);
            }
            TargetKey::Absolute { value } => {
                self.tag(b'N');
                self.number(value);
            }
            TargetKey::Undefined => self.tag(b'U'),
        }
    }

    fn flush_if_full(&mut self) {
        if self.pending.len() >= PENDING_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.state.update(&self.pending);
        self.pending.clear();
    }

    /// The id of the stream.
    pub fn finish(mut self) -> Digest {
        self.flush();
        self.state.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// The content id of an atom: its header, its bytes with relocation fields zeroed, and its relocations by the
/// keys of their targets.
///
/// * `bytes`  contents as in the object file; empty for `SHT_NOBITS`.
/// * `relocs` in file order.
pub fn atom_content_id<'a>(
    header: &AtomHeader,
    bytes: &[u8],
    relocs: impl IntoIterator<Item = AtomReloc<'a>>,
) -> Digest {
    let mut hasher = ContentHasher::new(ATOM);
    hasher.header(header);
    let mut masks = Vec::new();
    for reloc in relocs {
        hasher.reloc(&reloc);
        masks.push(reloc.offset..reloc.offset.saturating_add(reloc.width));
    }
    hasher.tag(b'E');
    hasher.number(masks.len() as u64);
    hasher.masked(bytes, &mut masks);
    hasher.finish()
}

/// The id of an atom without its relocations, for [`TargetKey::Anonymous`].
///
/// * `masks` byte ranges of the relocation fields, which count as zero.
pub fn atom_bytes_id(
    header: &AtomHeader,
    bytes: &[u8],
    masks: impl IntoIterator<Item = Range<u64>>,
) -> Digest {
    let mut hasher = ContentHasher::new(BYTES);
    hasher.header(header);
    let mut masks: Vec<Range<u64>> = masks.into_iter().collect();
    hasher.masked(bytes, &mut masks);
    hasher.finish()
}

/// The content id of a whole file: equal ids mean equal bytes.
pub fn object_content_id(bytes: &[u8]) -> Digest {
    let mut hasher = ContentHasher::new(OBJECT);
    hasher.field(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use blake2::Blake2b256;
    use blake2::Digest as _;
    use blake2::digest::CustomizedInit;

    use super::*;

    const HEADER: AtomHeader = AtomHeader { machine: 62, kind: 1, flags: 6, align: 16, entsize: 0, size: 12 };

    fn call<'a>(offset: u64, target: TargetKey<'a>) -> AtomReloc<'a> {
        AtomReloc { offset, kind: 4, addend: -4, width: 4, target }
    }

    const PUTS: TargetKey<'static> = TargetKey::Global { name: b"puts", version: b"" };

    /// The stream of the module docs, built by hand and hashed by another implementation.
    fn reference(person: &str, parts: &[&[u8]]) -> Digest {
        let mut hasher = Blake2b256::new_customized(person.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    fn number(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    #[test]
    fn atom_id_is_the_documented_stream() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let masked = [1, 2, 0, 0, 0, 0, 7, 8, 9, 10, 11, 12];
        let header = [1, 62, 1, 6, 16, 0, 12].map(number).concat();
        let reloc = [&b"R"[..], &number(2), &number(4), &number(-4_i64 as u64), &number(4)].concat();
        let target = [&b"G"[..], &number(4), b"puts", &number(0)].concat();
        let end = [&b"E"[..], &number(1)].concat();
        let contents = [&number(12)[..], &masked].concat();
        let wanted = reference("relink-atom-v1", &[&header, &reloc, &target, &end, &contents]);
        assert_eq!(atom_content_id(&HEADER, &bytes, [call(2, PUTS)]), wanted);
        let bytes_id = reference("relink-bytes-v1", &[&header, &contents]);
        assert_eq!(atom_bytes_id(&HEADER, &bytes, std::iter::once(2..6)), bytes_id);
    }

    #[test]
    fn long_streams_equal_the_documented_stream() {
        for len in [0, 1, 4070, 4079, 4080, 4081, 4095, 4096, 4097, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let wanted = reference("relink-object-v1", &[&number(1), &number(len as u64), &bytes]);
            assert_eq!(object_content_id(&bytes), wanted, "{len}");
        }
    }

    #[test]
    fn relocation_fields_do_not_matter_and_other_bytes_do() {
        let bytes = [7; 12];
        let id = |bytes: &[u8]| atom_content_id(&HEADER, bytes, [call(2, PUTS), call(8, PUTS)]);
        for at in 0..12 {
            let mut other = bytes;
            other[at] = 9;
            let masked = (2..6).contains(&at) || at >= 8;
            assert_eq!(id(&bytes) == id(&other), masked, "byte {at}");
        }
    }

    #[test]
    fn masks_may_overlap_come_in_any_order_and_leave_the_atom() {
        let bytes: Vec<u8> = (1..=200).collect();
        let id = |masks: &[Range<u64>]| atom_bytes_id(&HEADER, &bytes, masks.iter().cloned());
        let wanted = {
            let mut masked = bytes.clone();
            masked[10..150].fill(0);
            masked[190..].fill(0);
            atom_bytes_id(&HEADER, &masked, [])
        };
        assert_eq!(id(&[10..150, 190..200]), wanted);
        assert_eq!(id(&[190..u64::MAX, 10..80, 20..30, 70..150]), wanted);
        let reversed = Range { start: 60, end: 50 };
        assert_eq!(id(&[10..150, reversed, 190..1 << 50, u64::MAX..u64::MAX]), wanted);
    }

    #[test]
    fn everything_that_matters_changes_the_id() {
        let bytes = [0; 12];
        let digest = [3; 32];
        let other_digest = [4; 32];
        let id = |header: AtomHeader, relocs: &[AtomReloc<'_>]| {
            atom_content_id(&header, &bytes, relocs.iter().copied())
        };
        let base = call(2, PUTS);
        let mut ids = vec![
            id(HEADER, &[]),
            id(HEADER, &[base]),
            id(HEADER, &[base, base]),
            id(AtomHeader { machine: 183, ..HEADER }, &[base]),
            id(AtomHeader { kind: 8, ..HEADER }, &[base]),
            id(AtomHeader { flags: 2, ..HEADER }, &[base]),
            id(AtomHeader { align: 32, ..HEADER }, &[base]),
            id(AtomHeader { entsize: 1, ..HEADER }, &[base]),
            id(AtomHeader { size: 13, ..HEADER }, &[base]),
            id(HEADER, &[AtomReloc { offset: 3, ..base }]),
            id(HEADER, &[AtomReloc { kind: 2, ..base }]),
            id(HEADER, &[AtomReloc { addend: 0, ..base }]),
            id(HEADER, &[AtomReloc { width: 8, ..base }]),
            id(HEADER, &[base, call(8, TargetKey::Undefined)]),
            id(HEADER, &[call(8, TargetKey::Undefined), base]),
        ];
        let targets = [
            TargetKey::Global { name: b"put", version: b"s" },
            TargetKey::Global { name: b"", version: b"puts" },
            TargetKey::Local { section: b"puts", ordinal: 0, offset: 0 },
            TargetKey::Local { section: b"puts", ordinal: 1, offset: 0 },
            TargetKey::Local { section: b"puts", ordinal: 0, offset: 1 },
            TargetKey::Merge { piece: b"puts", offset: 0 },
            TargetKey::Merge { piece: b"puts", offset: 1 },
            TargetKey::Anonymous { digest: &digest, offset: 0 },
            TargetKey::Anonymous { digest: &other_digest, offset: 0 },
            TargetKey::Anonymous { digest: &digest, offset: 1 },
            TargetKey::Absolute { value: 0 },
            TargetKey::Absolute { value: 1 },
            TargetKey::Undefined,
        ];
        ids.extend(targets.map(|target| id(HEADER, &[call(2, target)])));
        ids.push(atom_bytes_id(&HEADER, &bytes, std::iter::once(2..6)));
        ids.push(object_content_id(&bytes));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn bookkeeping_flags_do_not_matter() {
        let id = |flags| atom_content_id(&AtomHeader { flags, ..HEADER }, &[], []);
        assert_eq!(id(6), id(6 | 0x200 | 0x80 | 0x40));
        assert_ne!(id(6), id(6 | 0x400));
        let align = |align| atom_content_id(&AtomHeader { align, ..HEADER }, &[], []);
        assert_eq!(align(0), align(1));
    }
}
