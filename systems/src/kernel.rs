//! The one rule that turns a relocation of an object into an operation on bytes. Both drivers use it: bulk over
//! a whole program, and the warm frame over a changed object.

use formats::elf;
use formats::object_file::Rela;
use formats::reloc::{self, Facts, Plan, RelocError, Values};
use object::LittleEndian;
use relink_engine::program::{Object, Program, SectionUse};
use relink_engine::records::{atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, NONE, SymbolRow, Target, TargetKind};
use relink_formats as formats;

/// What a relocation must know of a symbol.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SymbolView {
    pub address: u64,
    pub size: u64,
    /// 1 + GOT slot.
    pub got: u32,
    /// The record's `atom`: a row, or a [`place`].
    pub atom: AtomRow,
    pub flags: u16,
}

/// Constants of the image that relocations use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bases {
    pub position_independent: bool,
    pub tp: u64,
    pub tls_start: u64,
    pub got_base: u64,
    pub got_address: u64,
}

/// Where symbols and atoms are: the present placement.
pub(crate) trait Places {
    fn symbol(&self, row: SymbolRow) -> SymbolView;
    /// Address and [`atom_flags`].
    fn atom(&self, row: AtomRow) -> (u64, u32);
    /// The atom of a pool.
    fn pool(&self, pool: u32) -> Option<AtomRow>;
    fn bases(&self) -> Bases;
}

/// A relocation, lowered: what to do, and to what it refers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub plan: Plan,
    pub target: Target,
    /// Addend to the target's address, as the store keeps it.
    pub addend: i64,
    /// Address of the target.
    pub s: u64,
    pub got: u32,
    pub size: u64,
    /// The target moves with the image: a field of 64 bits needs a RELATIVE relocation in a PIE.
    pub relative: bool,
    pub ifunc: bool,
}

/// Why a relocation can't be lowered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SiteError {
    Undefined(SymbolRow),
    /// The target was dropped: with its group, or by garbage collection.
    Dropped,
    Reloc(RelocError),
}

/// Lowers relocation `index` of a section. `bytes` are the section's pristine ones.
#[inline]
pub(crate) fn lower<P: Places>(
    places: &P,
    object: &Object,
    section_flags: u32,
    bytes: &[u8],
    relocs: &[Rela],
    index: usize,
) -> Result<Site, SiteError> {
    let rela = &relocs[index];
    let offset = rela.r_offset.get(LittleEndian);
    let kind = rela.r_type(LittleEndian, false).0;
    let addend = rela.r_addend.get(LittleEndian);
    let symbol_index = rela.r_sym(LittleEndian, false) as usize;
    let mut site = Site {
        plan: Plan { op: reloc::Op::None, offset, addend, rewrite: reloc::Rewrite::None, skip_next: false },
        target: object.targets.get(symbol_index).copied().unwrap_or_default(),
        addend,
        s: 0,
        got: 0,
        size: 0,
        relative: false,
        ifunc: false,
    };
    let alloc = section_flags & atom_flags::ALLOC != 0;
    let bases = places.bases();
    let mut relaxable = true;
    let mut merged = None;
    match site.target.kind() {
        TargetKind::None if symbol_index == 0 => relaxable = false,
        TargetKind::None => return Err(SiteError::Dropped),
        TargetKind::Symbol(row) => {
            let view = places.symbol(row);
            site.s = view.address;
            site.got = view.got;
            site.size = view.size;
            site.ifunc = view.flags & symbol_flags::IFUNC != 0;
            if place::is_atom(view.atom) {
                if places.atom(view.atom).1 & atom_flags::LIVE == 0 {
                    return Err(SiteError::Dropped);
                }
                relaxable = !site.ifunc;
                site.relative = true;
            } else if view.atom == place::ABSOLUTE {
                relaxable = false;
            } else {
                let weak = object
                    .parsed
                    .symbols()
                    .get(symbol_index)
                    .is_some_and(|symbol| symbol.st_bind().0 == elf::STB_WEAK);
                if !weak && alloc {
                    return Err(SiteError::Undefined(row));
                }
                site.s = 0;
                relaxable = !bases.position_independent;
            }
        }
        TargetKind::Atom(row) => {
            let symbol = &object.parsed.symbols()[symbol_index];
            let section = match object.parsed.symbol_place(symbol_index) {
                formats::object_file::SymbolPlace::Section(section) => section as usize,
                _ => usize::MAX,
            };
            let value = symbol.st_value.get(LittleEndian);
            let (address, flags) = places.atom(row);
            site.relative = true;
            if let Some(SectionUse::Merge(_, merge)) = object.uses.get(section)
                && let Some(input) = object.merges.get(*merge as usize)
                && input.pool != NONE
            {
                // The addend of a section symbol chooses the piece: it is no distance to be kept. A label chooses
                // it by its value, and its addend is a distance.
                let pool = places.pool(input.pool);
                let mapped = if symbol.st_type().0 == elf::STT_SECTION {
                    input.map(value.wrapping_add_signed(addend))
                } else {
                    input.map(value).map(|mapped| mapped.wrapping_add_signed(addend))
                };
                let (Some(pool), Some(mapped)) = (pool, mapped) else {
                    return Err(SiteError::Dropped);
                };
                site.target = Target::atom(pool);
                site.s = places.atom(pool).0;
                merged = Some(mapped as i64);
            } else if flags & atom_flags::LIVE == 0 {
                return Err(SiteError::Dropped);
            } else {
                site.s = address.wrapping_add(value);
                site.addend = addend.wrapping_add_unsigned(value);
            }
        }
    }
    let facts = Facts {
        position_independent: bases.position_independent,
        relaxable,
        code: section_flags & atom_flags::CODE != 0,
        alloc,
    };
    let next = relocs
        .get(index + 1)
        .map(|next| (next.r_type(LittleEndian, false).0, next.r_offset.get(LittleEndian)));
    let original = site.addend;
    site.plan = reloc::plan(kind, bytes, offset, addend, next, facts).map_err(SiteError::Reloc)?;
    // What the plan changed of the addend holds for the addend that the store keeps as well.
    site.addend = original.wrapping_add(site.plan.addend.wrapping_sub(addend));
    if let Some(mapped) = merged {
        site.addend = site.addend.wrapping_sub(addend).wrapping_add(mapped);
        site.plan.addend = site.addend;
    }
    Ok(site)
}

/// Whether [`lower`] would make a plain distance of a relocation: no slot, no entry, no error. In code most are so (19
/// of 20 in the generated program), and the scan need not look at their instructions; a debug build compares the answers.
#[inline]
pub(crate) fn is_plain<P: Places>(places: &P, object: &Object, len: usize, rela: &Rela) -> bool {
    let kind = rela.r_type(LittleEndian, false).0;
    let end = rela.r_offset.get(LittleEndian).saturating_add(4);
    if !matches!(kind, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32) || end > len as u64 {
        return false;
    }
    let target = object.targets.get(rela.r_sym(LittleEndian, false) as usize).copied().unwrap_or_default();
    let (atom, ifunc) = match target.kind() {
        TargetKind::Symbol(row) => {
            let view = places.symbol(row);
            (view.atom, view.flags & symbol_flags::IFUNC != 0)
        }
        TargetKind::Atom(row) => (row, false),
        TargetKind::None => return false,
    };
    !ifunc
        && place::is_atom(atom)
        && places.atom(atom).1 & (atom_flags::LIVE | atom_flags::MERGE) == atom_flags::LIVE
}

/// The operands of a site's operation.
#[inline]
pub(crate) fn values(bases: &Bases, site: &Site, address: u64) -> Values {
    Values {
        s: site.s,
        a: site.plan.addend,
        p: address.wrapping_add(site.plan.offset),
        got_slot: bases.got_address.wrapping_add(8 * u64::from(site.got.wrapping_sub(1))),
        got_base: bases.got_base,
        tp: bases.tp,
        tls_start: bases.tls_start,
        size: site.size,
    }
}

/// Stores a site's value, opcode bytes included. `bytes` is the section's copy in the image, at `address`.
#[inline]
pub(crate) fn store(bases: &Bases, site: &Site, bytes: &mut [u8], address: u64) -> Result<(), RelocError> {
    reloc::rewrite(&site.plan, bytes)?;
    let width = site.plan.op.width();
    if width == 0 {
        return Ok(());
    }
    let start = usize::try_from(site.plan.offset).unwrap_or(usize::MAX);
    let field = start.checked_add(width).and_then(|end| bytes.get_mut(start..end));
    let Some(field) = field else {
        return Err(RelocError::FieldOutside {
            offset: site.plan.offset,
            width: width as u64,
            len: bytes.len() as u64,
        });
    };
    reloc::apply(site.plan.op, field, &values(bases, site, address))
}

/// The width of a relocation's own field, for tombstones.
pub(crate) fn field_width(kind: u32) -> usize {
    match kind {
        elf::R_X86_64_64 | elf::R_X86_64_PC64 | elf::R_X86_64_DTPOFF64 | elf::R_X86_64_TPOFF64 => 8,
        elf::R_X86_64_16 | elf::R_X86_64_PC16 => 2,
        elf::R_X86_64_8 | elf::R_X86_64_PC8 => 1,
        elf::R_X86_64_NONE => 0,
        _ => 4,
    }
}

impl Places for Program {
    #[inline]
    fn symbol(&self, row: SymbolRow) -> SymbolView {
        let record = &self.symbols[row.index()];
        SymbolView {
            address: self.addresses.get(row.index()).copied().unwrap_or(0),
            size: record.size,
            got: record.got,
            atom: record.atom,
            flags: record.flags,
        }
    }

    #[inline]
    fn atom(&self, row: AtomRow) -> (u64, u32) {
        let atom = &self.atoms[row.index()];
        (atom.address, atom.flags)
    }

    fn pool(&self, pool: u32) -> Option<AtomRow> {
        self.pools.get(pool as usize).map(|pool| pool.atom)
    }

    #[inline]
    fn bases(&self) -> Bases {
        Bases {
            position_independent: self.position_independent,
            tp: self.tp,
            tls_start: self.tls_start,
            got_base: self.got_base,
            got_address: self.got_address,
        }
    }
}
