//! The one rule that turns a relocation of an object into an operation on bytes. Both drivers use it: bulk over
//! a whole program, and the warm frame over a changed object.

use formats::elf;
use formats::object_file::Rela;
use formats::reloc::{self, Facts, Op, Plan, RelocError, Values};
use object::LittleEndian;
use relink_engine::program::{MergeInput, Object, Program, SectionUse};
use relink_engine::records::{SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, SymbolRow, Target, TargetKind};
use relink_formats as formats;

/// What a relocation must know of a symbol.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SymbolView {
    pub address: u64,
    pub size: u64,
    /// 1 + GOT slot.
    pub got: u32,
    /// 1 + GOT pair of module and offset.
    pub tls_pair: u32,
    /// 1 + TLS descriptor.
    pub tls_descriptor: u32,
    /// 1 + PLT entry.
    pub plt: u32,
    /// The record's `atom`: a row, or a [`place`].
    pub atom: AtomRow,
    /// Offset in the atom.
    pub value: u64,
    pub flags: u16,
}

impl SymbolView {
    /// A record, and the address that its reader computed.
    #[inline]
    pub(crate) fn of(record: &SymbolRecord, address: u64) -> SymbolView {
        SymbolView {
            address,
            size: record.size,
            got: record.got,
            tls_pair: record.tls_pair,
            tls_descriptor: record.tls_descriptor,
            plt: record.plt,
            atom: record.atom,
            value: record.value,
            flags: record.flags,
        }
    }
}

/// Constants of the image that relocations use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bases {
    pub position_independent: bool,
    /// A shared library.
    pub shared: bool,
    /// What nothing defines is left to the loader.
    pub undefined_allowed: bool,
    /// A loader binds names.
    pub dynamic: bool,
    /// `-z notext`.
    pub text_relocations: bool,
    pub tp: u64,
    pub tls_start: u64,
    pub got_base: u64,
    pub got_address: u64,
    pub tls_pairs: u64,
    pub tls_descriptors: u64,
    pub tls_module: u64,
}

/// What a site needs beside its own bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Demand {
    #[default]
    None,
    /// A GOT slot.
    GotSlot,
    /// A GOT pair of module and offset.
    TlsPair,
    /// A TLS descriptor.
    TlsDescriptor,
    /// The GOT pair of this module.
    TlsModule,
    /// A PLT entry.
    Plt,
    /// An address in this image for what a shared library defines: a copy of a datum, a PLT entry for a function.
    Address,
}

/// The dynamic relocation that goes with a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dynamic {
    #[default]
    None,
    /// RELATIVE: the image's load address is added.
    Relative,
    /// `R_X86_64_64`: the loader looks the symbol up.
    Symbolic,
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
    pub tls_pair: u32,
    pub tls_descriptor: u32,
    pub size: u64,
    /// The target's address is known but for the image's own: defined here, for good.
    pub relative: bool,
    /// Nothing here defines the target, and the object would do without it.
    pub weak: bool,
    pub demand: Demand,
    pub dynamic: Dynamic,
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
        plan: Plan { op: Op::None, offset, addend, rewrite: reloc::Rewrite::None, skip_next: false },
        target: object.targets.get(symbol_index).copied().unwrap_or_default(),
        addend,
        s: 0,
        got: 0,
        tls_pair: 0,
        tls_descriptor: 0,
        size: 0,
        relative: false,
        weak: false,
        demand: Demand::None,
        dynamic: Dynamic::None,
    };
    let alloc = section_flags & atom_flags::ALLOC != 0;
    let bases = places.bases();
    let mut relaxable = true;
    let mut merged = None;
    let mut traits = TargetTraits::default();
    let mut undefined_entry = None;
    match site.target.kind() {
        TargetKind::None if symbol_index == 0 => relaxable = false,
        TargetKind::None => return Err(SiteError::Dropped),
        TargetKind::Symbol(row) => {
            let view = places.symbol(row);
            site.s = view.address;
            (site.got, site.tls_pair, site.tls_descriptor) = (view.got, view.tls_pair, view.tls_descriptor);
            site.size = view.size;
            traits.preemptible = view.flags & symbol_flags::PREEMPTIBLE != 0;
            traits.ifunc = view.flags & symbol_flags::IFUNC != 0 && !traits.preemptible;
            traits.imported = view.atom == place::SHARED;
            traits.canonical = view.flags & symbol_flags::CANONICAL_PLT != 0;
            if place::is_atom(view.atom) {
                if places.atom(view.atom).1 & atom_flags::LIVE == 0 {
                    return Err(SiteError::Dropped);
                }
                if !alloc {
                    // Debug information speaks of the code itself, not of its PLT entry.
                    site.s = places.atom(view.atom).0.wrapping_add(view.value);
                }
                relaxable = !traits.ifunc && !traits.preemptible;
                site.relative = !traits.preemptible;
            } else if view.atom == place::ABSOLUTE {
                relaxable = false;
            } else if traits.imported {
                site.weak = is_weak(object, symbol_index);
                relaxable = false;
            } else {
                site.weak = is_weak(object, symbol_index);
                // Where a loader binds names, it must see this one; where none does, it is zero.
                let allowed = bases.undefined_allowed && (traits.preemptible || !bases.dynamic);
                if !site.weak && alloc && !allowed {
                    return Err(SiteError::Undefined(row));
                }
                // Zero, also where calls of it go through the PLT: a test for it must not find that entry.
                site.s = 0;
                undefined_entry = (view.plt != 0).then_some(view.address);
                relaxable = !bases.position_independent && !traits.preemptible;
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
            if flags & atom_flags::LIVE == 0 {
                return Err(SiteError::Dropped);
            } else if let Some(SectionUse::Merge(_, merge)) = object.uses.get(section)
                && let Some(input) = object.merges.get(*merge as usize)
            {
                // The addend of a section symbol chooses the piece: it is no distance to be kept. A label chooses
                // it by its value, and its addend is a distance.
                let pool = places.pool(input.pool).ok_or(SiteError::Dropped)?;
                let by_addend = symbol.st_type().0 == elf::STT_SECTION;
                let (offset, distance) =
                    if by_addend { (value.wrapping_add_signed(addend), 0) } else { (value, addend) };
                let mapped = match input.map(offset) {
                    Some(mapped) => mapped.wrapping_add_signed(distance),
                    None if kind == elf::R_X86_64_NONE => 0,
                    None => {
                        let (offset, len) = (offset as i64, input.size);
                        return Err(SiteError::Reloc(RelocError::TargetOutside { offset, len }));
                    }
                };
                site.target = Target::atom(pool);
                site.s = places.atom(pool).0;
                merged = Some(mapped as i64);
            } else {
                site.s = address.wrapping_add(value);
                site.addend = addend.wrapping_add_unsigned(value);
            }
        }
    }
    let facts = Facts {
        position_independent: bases.position_independent,
        shared: bases.shared,
        preemptible: traits.preemptible,
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
    if alloc {
        classify(&mut site, kind, section_flags, &bases, traits)?;
        if let (Demand::Plt, Some(entry)) = (site.demand, undefined_entry) {
            site.s = entry;
        }
    }
    Ok(site)
}

fn is_weak(object: &Object, symbol: usize) -> bool {
    object.parsed.symbols().get(symbol).is_some_and(|symbol| symbol.st_bind().0 == elf::STB_WEAK)
}

/// What decides how a site reaches its target.
#[derive(Clone, Copy, Debug, Default)]
struct TargetTraits {
    preemptible: bool,
    /// A shared library defines it.
    imported: bool,
    /// Its PLT entry is its address.
    canonical: bool,
    /// Not preemptible.
    ifunc: bool,
}

/// Fills in what a site of a loaded section needs.
#[inline]
fn classify(
    site: &mut Site,
    kind: u32,
    section_flags: u32,
    bases: &Bases,
    target: TargetTraits,
) -> Result<(), SiteError> {
    let writable = section_flags & atom_flags::WRITE != 0 || bases.text_relocations;
    let refused = Err(SiteError::Reloc(RelocError::NotPositionIndependent { kind }));
    match site.plan.op {
        Op::None | Op::Size32 | Op::Size64 | Op::GotBasePc32 | Op::GotBasePc64 => {}
        op if op.needs_got_slot() => site.demand = Demand::GotSlot,
        Op::TlsPairPc32 => site.demand = Demand::TlsPair,
        Op::TlsDescriptorPc32 => site.demand = Demand::TlsDescriptor,
        Op::TlsModulePc32 => site.demand = Demand::TlsModule,
        Op::TpOff32 | Op::TpOff64 if target.preemptible => return refused,
        Op::TpOff32 | Op::TpOff64 | Op::DtpOff32 | Op::DtpOff64 => {}
        op if target.preemptible => {
            if op.is_branch() || matches!(kind, elf::R_X86_64_PLT32 | elf::R_X86_64_PLTOFF64) {
                site.demand = Demand::Plt;
            } else if op == Op::Abs64 && writable {
                site.dynamic = Dynamic::Symbolic;
                // The loader stores the address, whatever the image has there, a PLT entry or none.
                site.s = 0;
            } else if bases.shared {
                return refused;
            } else if target.imported {
                // No load-time relocation fits these fields: the address must be one of this image.
                if bases.position_independent && !op.is_pc_relative() {
                    return refused;
                }
                site.demand = Demand::Address;
                // Only weak references ask for it, of a library that is not needed: calls may have an entry all the same.
                if !target.canonical {
                    site.s = 0;
                }
            }
        }
        op => {
            if op == Op::Abs64 && bases.position_independent && site.relative {
                if !writable {
                    return refused;
                }
                site.dynamic = Dynamic::Relative;
            }
            if target.ifunc {
                site.demand = Demand::Plt;
            }
        }
    }
    Ok(())
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
    let (atom, indirect) = match target.kind() {
        TargetKind::Symbol(row) => {
            let view = places.symbol(row);
            (view.atom, view.flags & (symbol_flags::IFUNC | symbol_flags::PREEMPTIBLE) != 0)
        }
        TargetKind::Atom(row) => (row, false),
        TargetKind::None => return false,
    };
    !indirect
        && place::is_atom(atom)
        && places.atom(atom).1 & (atom_flags::LIVE | atom_flags::MERGE) == atom_flags::LIVE
}

/// What relocations of debug information against one section symbol have in common.
#[derive(Clone, Copy)]
enum Base<'o> {
    /// The address of the symbol.
    Address(u64),
    /// The address of the pool, the section whose pieces went there, and the symbol's offset in it.
    Pool(u64, &'o MergeInput, u64),
}

/// Section symbols that a debug section refers to, by their index.
///
/// Nearly all relocations of debug information are absolute ones against the symbols of a few sections: of a unit of 6.8 MB
/// 82,122 of 82,124, against 218 symbols. What [`lower`] finds out about such a symbol it finds out once; with 530
/// instructions for each relocation they were two thirds of a patch.
pub(crate) struct SectionSymbols<'o>([Option<(u32, Base<'o>)>; KNOWN_SYMBOLS]);

/// Symbols whose indexes differ by less have entries of their own.
const KNOWN_SYMBOLS: usize = 64;

impl<'o> SectionSymbols<'o> {
    pub(crate) fn new() -> SectionSymbols<'o> {
        SectionSymbols([None; KNOWN_SYMBOLS])
    }

    /// Value and width of a relocation of debug information, if it is one of those; for any other, and for one that is an
    /// error, [`lower`] has the answer. A debug build compares the answers.
    #[inline]
    pub(crate) fn value<P: Places>(
        &mut self,
        places: &P,
        object: &'o Object,
        rela: &Rela,
    ) -> Option<(u64, usize)> {
        let width = match rela.r_type(LittleEndian, false).0 {
            elf::R_X86_64_64 => 8,
            elf::R_X86_64_32 => 4,
            _ => return None,
        };
        let symbol = rela.r_sym(LittleEndian, false);
        let entry = &mut self.0[symbol as usize % KNOWN_SYMBOLS];
        let base = match entry {
            Some((known, base)) if *known == symbol => *base,
            _ => {
                let base = section_base(places, object, symbol as usize)?;
                *entry = Some((symbol, base));
                base
            }
        };
        let addend = rela.r_addend.get(LittleEndian);
        let value = match base {
            Base::Address(address) => address.wrapping_add_signed(addend),
            Base::Pool(address, input, value) => {
                address.wrapping_add(input.map(value.wrapping_add_signed(addend))?)
            }
        };
        (width == 8 || value <= u32::MAX.into()).then_some((value, width))
    }
}

fn section_base<'o, P: Places>(places: &P, object: &'o Object, index: usize) -> Option<Base<'o>> {
    let TargetKind::Atom(row) = object.targets.get(index)?.kind() else { return None };
    let symbol = object.parsed.symbols().get(index)?;
    let (address, flags) = places.atom(row);
    if symbol.st_type().0 != elf::STT_SECTION || flags & atom_flags::LIVE == 0 {
        return None;
    }
    let value = symbol.st_value.get(LittleEndian);
    let formats::object_file::SymbolPlace::Section(section) = object.parsed.symbol_place(index) else {
        return None;
    };
    match object.uses.get(section as usize) {
        Some(SectionUse::Merge(_, merge)) => {
            let input = object.merges.get(*merge as usize)?;
            Some(Base::Pool(places.atom(places.pool(input.pool)?).0, input, value))
        }
        _ => Some(Base::Address(address.wrapping_add(value))),
    }
}

/// The operands of a site's operation.
#[inline]
pub(crate) fn values(bases: &Bases, site: &Site, address: u64) -> Values {
    Values {
        s: site.s,
        a: site.plan.addend,
        p: address.wrapping_add(site.plan.offset),
        got_slot: bases.got_address.wrapping_add(8 * u64::from(site.got.wrapping_sub(1))),
        tls_pair: bases.tls_pairs.wrapping_add(16 * u64::from(site.tls_pair.wrapping_sub(1))),
        tls_descriptor: bases
            .tls_descriptors
            .wrapping_add(16 * u64::from(site.tls_descriptor.wrapping_sub(1))),
        tls_module: bases.tls_module,
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
        let address = self.addresses.get(row.index()).copied().unwrap_or(0);
        SymbolView::of(&self.symbols[row.index()], address)
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
            shared: self.kind.is_shared(),
            dynamic: self.kind.is_dynamic(),
            undefined_allowed: self.undefined_allowed,
            text_relocations: self.text_relocations,
            tp: self.tp,
            tls_start: self.tls_start,
            got_base: self.got_base,
            got_address: self.got_address,
            tls_pairs: self.tls_pairs_address,
            tls_descriptors: self.tls_descriptors_address,
            tls_module: self.tls_module_address,
        }
    }
}
