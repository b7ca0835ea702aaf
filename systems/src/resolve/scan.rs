//! The first look at every relocation: who needs a GOT slot, an indirect PLT entry, a RELATIVE relocation, and
//! which names nothing defines.

use std::sync::atomic::{AtomicU8, Ordering};

use bevy_ecs::prelude::ResMut;
use formats::reloc::Op;
use hashbrown::HashSet;
use object::LittleEndian;
use rayon::prelude::*;
use relink_engine::diagnostic::{Diagnostic, Place};
use relink_engine::frame::Frame;
use relink_engine::options::OutputKind;
use relink_engine::program::{Object, Program, SectionUse};
use relink_engine::records::{atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, SymbolRow, Target, TargetKind};

use super::imports::library_of;
use super::undefined::Missing;
use crate::kernel::{Demand, Dynamic, SiteError, is_plain, lower};
use crate::relocate::bulk::site_offset;
use crate::relocate::dynamic::is_packed;

/// What sites ask for, by symbol.
mod need {
    pub(super) const GOT: u8 = 1;
    pub(super) const PLT: u8 = 2;
    pub(super) const TLS_PAIR: u8 = 4;
    pub(super) const TLS_DESCRIPTOR: u8 = 8;
    pub(super) const ADDRESS: u8 = 0x10;
    pub(super) const USED: u8 = 0x20;
    /// Not only by weak references.
    pub(super) const STRONG: u8 = 0x40;
}

#[derive(Default)]
struct Found {
    dynamic_relocs: u32,
    symbolic_relocs: u32,
    packed: Vec<(AtomRow, u64)>,
    tls_module: bool,
    missing: Vec<Missing>,
    /// Of those that are allowed.
    warned: Vec<Missing>,
    errors: Vec<Diagnostic>,
}

/// Scans all live atoms and assigns GOT slots and PLT entries in the order of symbol rows.
pub(crate) fn scan_relocations(mut program: ResMut<'_, Program>, mut frame: ResMut<'_, Frame>) {
    if !frame.resolving() {
        return;
    }
    let program = &mut *program;
    let (mut found, needs) = scan_program(program);
    let bits = |row: SymbolRow| needs[row.index()].load(Ordering::Relaxed);
    // What only weak references ask for, of a library that is not needed otherwise, is nowhere.
    let mut needed: Vec<bool> = program.shared.iter().map(|library| library.needed).collect();
    for row in (0..program.globals).map(SymbolRow).filter(|&row| bits(row) & need::STRONG != 0) {
        if let Some((library, _)) = library_of(program, &program.symbols[row.index()]) {
            needed[library] = true;
        }
    }
    let (copied, errors) = super::imports::claim_addresses(program, |row, library| {
        bits(row) & need::ADDRESS != 0 && needed[library]
    });
    frame.errors.extend(errors);
    // What was copied is the program's own now, which other sites gain from: they relax, or need no lookup.
    scan_again(program, &copied, &mut found, &needs);
    let needs: Vec<u8> = needs.into_iter().map(AtomicU8::into_inner).collect();
    let (mut missing, mut warned) = (Vec::new(), Vec::new());
    for (object, found) in program.objects.iter_mut().zip(found) {
        object.dynamic_relocs = found.dynamic_relocs;
        object.symbolic_relocs = found.symbolic_relocs;
        program.packed_places.extend(found.packed);
        program.has_tls_module |= found.tls_module;
        missing.extend(found.missing);
        warned.extend(found.warned);
        frame.errors.extend(found.errors);
    }
    frame.errors.extend(super::undefined::report(program, missing));
    frame.warnings.extend(super::undefined::report(program, warned));
    assign_slots(program, &needs);
}

fn scan_program(program: &Program) -> (Vec<Found>, Vec<AtomicU8>) {
    let needs: Vec<AtomicU8> = (0..program.symbols.len()).map(|_| AtomicU8::new(0)).collect();
    let found = program
        .objects
        .par_iter()
        .enumerate()
        .map(|(row, object)| scan_object(program, row, object, &needs))
        .collect();
    // Personality routines are named by unwind tables alone; their address must be one of this image.
    for cie in &program.cies {
        if let TargetKind::Symbol(row) = cie.personality.kind() {
            let bits = need::USED | need::STRONG | need::ADDRESS;
            needs[row.index()].fetch_or(bits, Ordering::Relaxed);
        }
    }
    (found, needs)
}

/// Scans the objects that refer to some symbols once more; what their sites asked of those is forgotten before.
fn scan_again(program: &Program, changed: &[SymbolRow], found: &mut [Found], needs: &[AtomicU8]) {
    let changed: HashSet<SymbolRow> = changed.iter().copied().collect();
    if changed.is_empty() {
        return;
    }
    changed.iter().for_each(|row| needs[row.index()].store(0, Ordering::Relaxed));
    let objects = program.objects.par_iter().zip(found).enumerate();
    objects.for_each(|(row, (object, found))| {
        let refers =
            |target: &Target| matches!(target.kind(), TargetKind::Symbol(row) if changed.contains(&row));
        if object.targets.iter().any(refers) {
            *found = scan_object(program, row, object, needs);
        }
    });
}

/// Gives each symbol the table entries that it needs: those that the loader binds stand first in the PLT.
fn assign_slots(program: &mut Program, needs: &[u8]) {
    let Program { symbols, got, plt, tls_pairs, tls_descriptors, .. } = program;
    let mut ifuncs = Vec::new();
    for (row, &needs) in (0..).map(SymbolRow).zip(needs) {
        let symbol = &mut symbols[row.index()];
        if needs & need::USED != 0 {
            symbol.flags |= symbol_flags::USED;
        }
        if needs & need::STRONG != 0 {
            symbol.flags |= symbol_flags::STRONG;
        }
        if needs & need::GOT != 0 {
            got.push(row);
            symbol.got = got.len() as u32;
        }
        if needs & need::TLS_PAIR != 0 {
            tls_pairs.push(row);
            symbol.tls_pair = tls_pairs.len() as u32;
        }
        if needs & need::TLS_DESCRIPTOR != 0 {
            tls_descriptors.push(row);
            symbol.tls_descriptor = tls_descriptors.len() as u32;
        }
        let preemptible = symbol.flags & symbol_flags::PREEMPTIBLE != 0;
        // An IFUNC's address is that of its entry, in a GOT slot as elsewhere.
        let resolved = needs & need::GOT != 0 && symbol.flags & symbol_flags::IFUNC != 0 && !preemptible;
        if needs & need::PLT != 0 || resolved || symbol.flags & symbol_flags::CANONICAL_PLT != 0 {
            if preemptible {
                plt.push(row);
                symbol.plt = plt.len() as u32;
            } else {
                ifuncs.push(row);
            }
        }
    }
    program.jump_slots = plt.len() as u32;
    for row in ifuncs {
        plt.push(row);
        symbols[row.index()].plt = plt.len() as u32;
    }
}

fn scan_object(program: &Program, row: usize, object: &Object, needs: &[AtomicU8]) -> Found {
    let mut found = Found::default();
    for (index, used) in object.uses.iter().enumerate() {
        let SectionUse::Atom(atom) = *used else { continue };
        let flags = program.atoms[atom.index()].flags;
        if flags & atom_flags::LIVE == 0 || flags & atom_flags::ALLOC == 0 {
            continue;
        }
        let relocs = object.parsed.relocations(index);
        let bytes = object.parsed.section_bytes(index);
        let mut next = 0;
        while next < relocs.len() {
            let at = next;
            next += 1;
            if is_plain(program, object, bytes.len(), &relocs[at]) {
                debug_assert!(lower(program, object, flags, bytes, relocs, at).is_ok_and(|site| {
                    matches!(site.plan.op, Op::Pc32 | Op::Branch32)
                        && site.demand == Demand::None
                        && !site.plan.skip_next
                }));
                continue;
            }
            match lower(program, object, flags, bytes, relocs, at) {
                Ok(site) => {
                    next += usize::from(site.plan.skip_next);
                    if site.dynamic == Dynamic::Relative {
                        let offset = site_offset(object, index, &site);
                        if is_packed(program, &program.atoms[atom.index()], offset) {
                            found.packed.push((atom, offset));
                        } else {
                            found.dynamic_relocs += 1;
                        }
                    }
                    found.symbolic_relocs += u32::from(site.dynamic == Dynamic::Symbolic);
                    let bits = match site.demand {
                        Demand::None => 0,
                        Demand::GotSlot => need::GOT,
                        Demand::Plt => need::PLT,
                        Demand::TlsPair => need::TLS_PAIR,
                        Demand::TlsDescriptor => need::TLS_DESCRIPTOR,
                        Demand::Address => need::ADDRESS,
                        Demand::TlsModule => {
                            found.tls_module = true;
                            0
                        }
                    };
                    if let TargetKind::Symbol(symbol) = site.target.kind() {
                        let strong = if site.weak { 0 } else { need::STRONG };
                        if program.undefined_warned && !site.weak && is_undefined(program, symbol) {
                            let offset = relocs[at].r_offset.get(LittleEndian);
                            let (object, section) = (row as u32, index as u32);
                            found.warned.push(Missing { symbol, object, section, offset });
                        }
                        let bits = bits | need::USED | strong;
                        // Most sites say what others have said: a load is cheaper than a write to a shared line.
                        if needs[symbol.index()].load(Ordering::Relaxed) & bits != bits {
                            needs[symbol.index()].fetch_or(bits, Ordering::Relaxed);
                        }
                    } else if bits != 0 {
                        let why = "a GOT slot for a section symbol".to_owned();
                        found.errors.push(bad_relocation(program, object, index, &relocs[at], why));
                    }
                }
                Err(SiteError::Undefined(symbol)) => found.missing.push(Missing {
                    symbol,
                    object: row as u32,
                    section: index as u32,
                    offset: relocs[at].r_offset.get(LittleEndian),
                }),
                Err(error) => found.errors.push(site_error(program, object, index, &relocs[at], error)),
            }
        }
    }
    found
}

/// Whether neither an object nor a library defines a symbol.
fn is_undefined(program: &Program, row: SymbolRow) -> bool {
    matches!(program.symbols[row.index()].atom, place::UNDEFINED | place::LAZY)
}

/// The message of a relocation that can't be lowered or stored.
pub(crate) fn site_error(
    program: &Program,
    object: &Object,
    section: usize,
    rela: &formats::object_file::Rela,
    error: SiteError,
) -> Diagnostic {
    use formats::reloc::RelocError;
    match error {
        SiteError::Reloc(RelocError::OutOfRange { value, min, max, .. }) => {
            Diagnostic::RelocationOutOfRange {
                kind: formats::reloc::kind_name(rela.r_type(LittleEndian, false).0).to_owned(),
                symbol: target_name(program, object, rela),
                place: site_place(object, section, rela.r_offset.get(LittleEndian)),
                value: i128::from(value),
                min: i128::from(min),
                max: i128::from(max),
            }
        }
        SiteError::Reloc(RelocError::NotPositionIndependent { .. }) => {
            let what = match program.kind {
                OutputKind::SharedLibrary => "when making a shared library; recompile with -fPIC",
                OutputKind::StaticPie | OutputKind::Pie => {
                    "in a position-independent executable; recompile with -fPIE"
                }
                _ => "against a symbol of a shared library here; recompile with -fPIC",
            };
            bad_relocation(program, object, section, rela, format!("it can't be used {what}"))
        }
        SiteError::Reloc(error) => bad_relocation(program, object, section, rela, error.to_string()),
        SiteError::Dropped => {
            let why = "it refers to a section that was discarded with its COMDAT group".to_owned();
            bad_relocation(program, object, section, rela, why)
        }
        SiteError::Undefined(symbol) => Diagnostic::UndefinedSymbol {
            symbol: String::from_utf8_lossy(program.names.of(symbol)).into_owned(),
            references: vec![site_place(object, section, rela.r_offset.get(LittleEndian))],
            reference_count: 1,
            suggestion: None,
        },
    }
}

fn bad_relocation(
    program: &Program,
    object: &Object,
    section: usize,
    rela: &formats::object_file::Rela,
    why: String,
) -> Diagnostic {
    Diagnostic::BadRelocation {
        kind: formats::reloc::kind_name(rela.r_type(LittleEndian, false).0).to_owned(),
        symbol: target_name(program, object, rela),
        place: site_place(object, section, rela.r_offset.get(LittleEndian)),
        why,
    }
}

fn target_name(program: &Program, object: &Object, rela: &formats::object_file::Rela) -> String {
    let index = rela.r_sym(LittleEndian, false) as usize;
    let name = match object.targets.get(index).map(|target| target.kind()) {
        Some(TargetKind::Symbol(row)) if row.0 < program.globals => program.names.of(row),
        _ => match object.parsed.symbol_place(index) {
            formats::object_file::SymbolPlace::Section(section)
                if object.parsed.symbol_name(index).is_empty() =>
            {
                object.parsed.section_name(section as usize)
            }
            _ => object.parsed.symbol_name(index),
        },
    };
    String::from_utf8_lossy(name).into_owned()
}

/// A place in an object with the function around it and its source line.
pub(crate) fn site_place(object: &Object, section: usize, offset: u64) -> Place {
    let symbols = object.parsed.symbols();
    let function = (0..symbols.len()).find(|&index| {
        let symbol = &symbols[index];
        let start = symbol.st_value.get(LittleEndian);
        object.parsed.symbol_place(index) == formats::object_file::SymbolPlace::Section(section as u32)
            && symbol.st_type().0 == formats::elf::STT_FUNC
            && offset >= start
            && offset - start < symbol.st_size.get(LittleEndian).max(1)
    });
    let line = formats::source_line::source_line(&object.parsed, section as u32, offset);
    Place {
        object: object.name.clone(),
        section: String::from_utf8_lossy(object.parsed.section_name(section)).into_owned(),
        offset,
        function: function
            .map(|index| String::from_utf8_lossy(object.parsed.symbol_name(index)).into_owned()),
        line: line.map(|line| (line.file, line.line)),
    }
}

use relink_formats as formats;
