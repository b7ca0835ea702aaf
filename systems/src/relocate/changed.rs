//! Relocate of a warm frame: the changed inputs' atoms are derived anew from pristine bytes; of unchanged ones only
//! the fields whose target has moved.

use bevy_ecs::prelude::{Commands, Query, Res, ResMut};
use formats::reloc::{self, Op, Values};
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Input, Relocation, RelocationPool, Slot};
use relink_engine::frame::{Frame, Request};
use relink_engine::image::{Draft, Image};
use relink_engine::options::GateKind;
use relink_engine::plan::Plan;
use relink_engine::program::Object;
use relink_engine::records::{
    AtomRecord, RelocRecord, SymbolRecord, atom_flags, image_flags, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, RelocRow, Span, SymbolRow, Target, TargetKind};
use relink_engine::store::Store;
use relink_formats as formats;

use super::dynamic_relocs::DynamicRelocs;
use super::dynamic_symbols::{Changes, Tables};
use super::got::take_spare_slot;
use crate::commit::bulk::{foreign_relocs, record_of};
use crate::debug::changed::Stop;
use crate::kernel::{Demand, Dynamic, Places, Site, SiteError, lower, store as store_site};
use crate::place::names::is_reversed;
use crate::view::{Memo, View, text_of};

/// Derives the bytes of changed atoms and of retargeted sites.
#[expect(clippy::too_many_arguments, reason = "each is a resource or a query of the frame")]
pub(crate) fn relocate_changed_atoms(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    image: Option<Res<'_, Image>>,
    mut plan: ResMut<'_, Plan>,
    mut draft: ResMut<'_, Draft>,
    mut frame: ResMut<'_, Frame>,
    inputs: Query<'_, '_, &Input>,
    atoms: Query<'_, '_, (&Atom, &Slot)>,
    mut pool: ResMut<'_, RelocationPool>,
    mut relocations: Query<'_, '_, &mut Relocation>,
    mut commands: Commands<'_, '_>,
) {
    let (Some(store), Some(image)) = (store, image) else { return };
    if !frame.warm() {
        return;
    }
    let sites: Vec<Relocation> = pool.entities[..pool.used]
        .iter()
        .filter_map(|&entity| relocations.get(entity).ok())
        .copied()
        .collect();
    for site in &sites {
        let result = retarget_site(&store, &plan, &image, &mut draft, &site.record);
        match frame.check(result) {
            Some(Ok(())) => frame.counters.relocations_applied += 1,
            Some(Err(reason)) => frame.refuse(reason),
            None => return,
        }
    }
    let placed: Vec<(&Atom, &Slot)> =
        plan.atom_entities.iter().filter_map(|&entity| atoms.get(entity).ok()).collect();
    let wide = request.options.incremental.as_ref().map(|options| options.gate_kind) == Some(GateKind::Wide);
    let dynamic = plan.image.flags & image_flags::DYNAMIC != 0;
    let (mut changes, mut before) = (Changes::default(), Vec::new());
    let mut spans = Vec::with_capacity(placed.len());
    // Pointers that go make room for those that come.
    for (row, old) in plan.removed_atoms.clone() {
        let result = drop_pointers(&store, &plan, &image, &mut draft, &old);
        match frame.check(result) {
            Some(true) => {}
            Some(false) => {
                let section = store.text(old.name);
                let input = store.inputs.get(old.input.0).map(|input| store.text(input.name));
                let input = input.unwrap_or_default();
                frame.refuse(GateReason::DynamicRelocationChanged { section, input });
            }
            None => return,
        }
        before.push(old.relocs);
        spans.push((row, 0..0));
    }
    let (exports, dropped) = (std::mem::take(&mut plan.exports), std::mem::take(&mut plan.dropped_exports));
    let mut tables = Tables {
        request: &request,
        store: &store,
        image: &image,
        plan: &mut plan,
        draft: &mut draft,
        changes: &mut changes,
    };
    let changed = tables.change_exports(&exports, &dropped);
    if !follow(&mut frame, changed) {
        return;
    }
    let (mut at, mut added) = (sites.len(), Vec::new());
    for (atom, slot) in placed {
        let Ok(input) = inputs.get(atom.input) else { continue };
        let new = |record: &RelocRecord| Relocation { row: RelocRow::default(), record: *record };
        if atom.old.flags & atom_flags::DEBUG != 0 {
            // Its bytes come with the other debug information; here, what of it speaks of other objects.
            let mut records = Vec::new();
            let view = View::new(&store, tables.plan);
            let (section, flags) = (atom.section as usize, atom.old.flags);
            foreign_relocs(&view, &input.object, section, atom.row, flags, &mut records);
            let damage = view.damage();
            if frame.check(damage).is_none() {
                return;
            }
            added.extend(records.iter().map(new));
            spans.push((atom.row, at..at + records.len()));
            at += records.len();
            continue;
        }
        let result = derive_with_slots(&mut tables, input, atom, slot, wide);
        let derived = match frame.check(result) {
            Some(Ok(derived)) => derived,
            Some(Err(reason)) => {
                if matches!(reason, GateReason::DeadAtomReferenced { .. }) {
                    let dead = dead_neighbours(&View::new(&store, tables.plan), &input.object, atom.section);
                    frame.wanted.neighbours.extend(dead);
                }
                frame.refuse(reason);
                continue;
            }
            None => return,
        };
        frame.counters.relocations_applied += derived.records.len() as u64;
        let result = write_atom(&mut tables, atom, slot, &derived);
        match frame.check(result) {
            Some(Ok(changed)) => {
                if changed {
                    frame.counters.atoms_changed += 1;
                    if frame.changed_atoms.len() < CHANGED_ATOMS_SHOWN {
                        let section = text_of(&store, tables.plan, atom.old.name);
                        let name = format!("{}:({section})", input.object.name);
                        frame.changed_atoms.push(name);
                    }
                }
            }
            Some(Err(reason)) => frame.refuse(reason),
            None => return,
        }
        if !atom.unplaced {
            before.push(atom.old.relocs);
        }
        added.extend(derived.records.iter().map(new));
        spans.push((atom.row, at..at + derived.records.len()));
        at += derived.records.len();
    }
    if dynamic && frame.warm() {
        let after: Vec<RelocRecord> = added.iter().map(|relocation| relocation.record).collect();
        let atoms = spans.iter().map(|(row, _)| *row).collect();
        let dropped = tables.follow_uses(&before, &after, &atoms, wide);
        let finished = dropped.and_then(|()| tables.finish());
        if !follow(&mut frame, finished) {
            return;
        }
        frame.counters.dynamic_symbols_written += tables.changes.written;
        frame.counters.dynamic_symbols_hashed += tables.changes.names_hashed;
    }
    crate::pool::extend(&mut pool, &mut relocations, &mut commands, added);
    plan.relocs = spans;
}

/// Notes what stops the frame; `false` if something does.
fn follow(frame: &mut Frame, result: Result<(), Stop>) -> bool {
    match result {
        Ok(()) => true,
        Err(Stop::Reason(reason)) => {
            frame.refuse(reason);
            false
        }
        Err(Stop::Damage(error)) => {
            frame.check::<()>(Err(error));
            false
        }
    }
}

/// The inputs whose dropped atoms a section refers to.
fn dead_neighbours(view: &View<'_>, object: &Object, section: u32) -> Vec<InputRow> {
    let mut dead = Vec::new();
    for rela in object.parsed.relocations(section as usize) {
        let target = object.targets.get(rela.r_sym(LittleEndian, false) as usize);
        let row = match target.map(|target| target.kind()) {
            Some(TargetKind::Atom(row)) => row,
            Some(TargetKind::Symbol(row)) => view.symbol_record(row).atom,
            _ => continue,
        };
        if place::is_atom(row) {
            let atom = view.atom_record(row);
            dead.extend((atom.flags & atom_flags::DEAD != 0).then_some(atom.input));
        }
    }
    dead
}

/// Names of changed atoms that a report carries.
const CHANGED_ATOMS_SHOWN: usize = 100;

struct Derived {
    /// The whole slot: body, then what fills its slack.
    bytes: Vec<u8>,
    records: Vec<RelocRecord>,
    /// RELATIVE relocations: address and value.
    relative: Vec<(u64, u64)>,
    /// Symbols that need an entry of a table and have none.
    lacking: Vec<(SymbolRow, Lack)>,
}

/// What a site asks for that the image does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Slot,
    PltEntry,
    /// A PLT entry of an IFUNC.
    Resolved,
    Address,
    /// The same, for who can do without.
    WeakAddress,
    Symbol,
}

/// Derives an atom, after a second look if it refers to entries of tables that had to be taken first.
fn derive_with_slots(
    tables: &mut Tables<'_>,
    input: &Input,
    atom: &Atom,
    slot: &Slot,
    wide: bool,
) -> Result<Result<Derived, GateReason>, StoreError> {
    let (store, image) = (tables.store, tables.image);
    let view = View::new(store, tables.plan);
    let mut derived = derive_atom(&view, image, input, atom, slot, wide);
    view.damage()?;
    // Addresses come first: what is copied lacks nothing else any more.
    for addresses in [true, false] {
        let lacking = match &derived {
            Ok(derived) => derived.lacking.clone(),
            Err(_) => return Ok(derived),
        };
        let now = |lack: Lack| matches!(lack, Lack::Address | Lack::WeakAddress) == addresses;
        let mut taken = false;
        for (row, lack) in lacking.into_iter().filter(|&(_, lack)| now(lack)) {
            taken = true;
            match take(tables, row, lack, wide) {
                Ok(()) => {}
                Err(Stop::Reason(reason)) => return Ok(Err(reason.of_input(&input.object.name))),
                Err(Stop::Damage(error)) => return Err(error),
            }
        }
        if taken {
            let view = View::new(store, tables.plan);
            derived = derive_atom(&view, image, input, atom, slot, wide);
            view.damage()?;
        }
    }
    Ok(derived)
}

/// Gives a symbol what it lacks.
fn take(tables: &mut Tables<'_>, row: SymbolRow, lack: Lack, wide: bool) -> Result<(), Stop> {
    match lack {
        Lack::Slot => {
            let record = tables.record(row)?;
            if wide && record.flags & symbol_flags::PREEMPTIBLE != 0 {
                return tables.need_slot(row);
            }
            if wide && record.flags & symbol_flags::IFUNC != 0 {
                tables.need_resolved(row)?;
            }
            if take_spare_slot(tables.store, tables.plan, tables.image, tables.draft, row)? {
                return Ok(());
            }
            let symbol = text_of(tables.store, tables.plan, record.name);
            Err(Stop::Reason(GateReason::GotSlotAdded { symbol, input: String::new() }))
        }
        Lack::PltEntry => tables.need_plt(row),
        Lack::Resolved => tables.need_resolved(row),
        Lack::WeakAddress if !tables.has_library(row)? => {
            let record = tables.record(row)?;
            Err(tables.refused(&record, "an address in the program, if its library were needed"))
        }
        Lack::Address | Lack::WeakAddress => tables.need_address(row),
        Lack::Symbol if !wide => Err(tables.refused(&tables.record(row)?, "an import")),
        Lack::Symbol => tables.need_symbol(row).map(|_| ()),
    }
}

fn derive_atom(
    view: &View<'_>,
    image: &Image,
    input: &Input,
    atom: &Atom,
    slot: &Slot,
    wide: bool,
) -> Result<Derived, GateReason> {
    let object = &input.object;
    let section = atom.section as usize;
    let flags = atom.old.flags;
    let pristine = object.parsed.section_bytes(section);
    let mut derived =
        Derived { bytes: Vec::new(), records: Vec::new(), relative: Vec::new(), lacking: Vec::new() };
    if flags & atom_flags::NOBITS != 0 {
        return Ok(derived);
    }
    let filler = if flags & atom_flags::CODE != 0 { 0xcc } else { 0 };
    derived.bytes = image
        .padded(pristine, slot.capacity, filler)
        .map_err(|error| GateReason::StateUnusable { why: error.to_string() })?;
    let places = Memo::new(view);
    let bases = view.bases();
    let relocs = object.parsed.relocations(section);
    let reversed = is_reversed(object.parsed.section_name(section)).then_some(pristine.len() as u64);
    let unpatchable = |why: String| GateReason::RelocationUnpatchable { input: object.name.clone(), why };
    let mut next = 0;
    while next < relocs.len() {
        let at = next;
        next += 1;
        let site = lower(&places, object, flags, pristine, relocs, at).map_err(|error| match error {
            SiteError::Reloc(error) => unpatchable(error.to_string()),
            SiteError::Undefined(row) => GateReason::NewUndefined {
                symbol: text_of(view.store, view.plan, view.symbol_record(row).name),
                input: object.name.clone(),
            },
            SiteError::Dropped => GateReason::DeadAtomReferenced {
                section: String::from_utf8_lossy(object.parsed.section_name(section)).into_owned(),
                input: object.name.clone(),
            },
        })?;
        next += usize::from(site.plan.skip_next);
        if let TargetKind::Symbol(row) = site.target.kind()
            && let Some(lack) = lack_of(view, &site, row, wide)
        {
            derived.lacking.push((row, lack));
            continue;
        }
        check_demand(view, object, &site)?;
        let body = &mut derived.bytes[..pristine.len()];
        store_site(&bases, &site, body, slot.address).map_err(|error| unpatchable(error.to_string()))?;
        if site.plan.op == Op::None || site.target == Target::NONE {
            continue;
        }
        let record = record_of(&site, atom.row, flags, reversed);
        if record.flags & reloc_flags::DYNAMIC != 0 {
            let value = site.s.wrapping_add_signed(site.plan.addend);
            derived.relative.push((slot.address.wrapping_add(record.offset.into()), value));
        }
        derived.records.push(record);
    }
    if reversed.is_some() {
        return Err(unpatchable("it has .ctors".to_owned()));
    }
    Ok(derived)
}

/// What a site lacks that a patch can give it.
fn lack_of(view: &View<'_>, site: &Site, row: SymbolRow, wide: bool) -> Option<Lack> {
    if site.demand == Demand::None && site.weak && is_unlisted_import(view, row) {
        return Some(Lack::Symbol);
    }
    if !wide {
        let slot = site.demand == Demand::GotSlot && site.got == 0 && !is_new_import(view, row);
        return slot.then_some(Lack::Slot);
    }
    let missing = |has: bool, lack: Lack| (!has).then_some(lack);
    if site.demand == Demand::None && site.dynamic != Dynamic::Symbolic {
        return None;
    }
    let record = view.symbol_record(row);
    let preemptible = record.flags & symbol_flags::PREEMPTIBLE != 0;
    match site.demand {
        Demand::GotSlot => missing(site.got != 0, Lack::Slot),
        Demand::Plt => missing(record.plt != 0, if preemptible { Lack::PltEntry } else { Lack::Resolved }),
        Demand::Address => {
            let lack = if site.weak { Lack::WeakAddress } else { Lack::Address };
            missing(record.flags & symbol_flags::CANONICAL_PLT != 0, lack)
        }
        _ if site.dynamic == Dynamic::Symbolic => missing(record.dynsym != 0, Lack::Symbol),
        _ => None,
    }
}

/// Whether a symbol is left to the loader once live code refers to it, and none did before.
fn is_unlisted_import(view: &View<'_>, row: SymbolRow) -> bool {
    let record = view.symbol_record(row);
    let nowhere = matches!(record.atom, place::UNDEFINED | place::LAZY);
    nowhere && record.flags & symbol_flags::PREEMPTIBLE != 0 && record.dynsym == 0
}

/// Whether a symbol is one of a shared library that the image does not import.
fn is_new_import(view: &View<'_>, row: SymbolRow) -> bool {
    let record = view.symbol_record(row);
    record.atom == place::SHARED && record.dynsym == 0
}

/// What a site needs beside its bytes must be in the image already.
fn check_demand(view: &View<'_>, object: &Object, site: &Site) -> Result<(), GateReason> {
    let record = match site.target.kind() {
        _ if site.demand == Demand::None => return Ok(()),
        TargetKind::Symbol(row) => view.symbol_record(row),
        _ => SymbolRecord::default(),
    };
    let canonical = record.flags & symbol_flags::CANONICAL_PLT != 0;
    let missing = match site.demand {
        Demand::GotSlot => (site.got == 0).then_some("an import"),
        Demand::Plt => (record.plt == 0).then_some("a PLT entry"),
        Demand::Address => (!canonical).then_some("an address in the program"),
        Demand::TlsPair => (site.tls_pair == 0).then_some("a TLS pair"),
        Demand::TlsDescriptor => (site.tls_descriptor == 0).then_some("a TLS descriptor"),
        Demand::TlsModule => (view.bases().tls_module == 0).then_some("the module's TLS pair"),
        Demand::None => None,
    };
    let Some(need) = missing else { return Ok(()) };
    let (symbol, input) = (text_of(view.store, view.plan, record.name), object.name.clone());
    Err(GateReason::ImportNeedAdded { symbol, need: need.to_owned(), input })
}

/// Takes the pointers of an atom that goes out of the loader's table.
fn drop_pointers(
    store: &Store,
    plan: &Plan,
    image: &Image,
    draft: &mut Draft,
    old: &AtomRecord,
) -> Result<bool, StoreError> {
    let live = atom_flags::LIVE | atom_flags::ALLOC;
    if old.flags & live != live {
        return Ok(true);
    }
    let places = DynamicPlaces::of_store(store, old.relocs)?;
    let mut table = DynamicRelocs::new(store, plan, image, draft)?;
    let place = |offset: u32| old.address.wrapping_add(offset.into());
    Ok(places.relative.iter().all(|&offset| table.remove(place(offset)))
        && places.symbolic.iter().all(|&(offset, ..)| table.remove_symbolic(place(offset)))
        && table.finish())
}

/// Writes an atom's slot; tells whether a byte differs from the image.
fn write_atom(
    tables: &mut Tables<'_>,
    atom: &Atom,
    slot: &Slot,
    derived: &Derived,
) -> Result<Result<bool, GateReason>, StoreError> {
    let Tables { store, plan, image, draft, .. } = tables;
    let (plan, draft): (&Plan, &mut Draft) = (plan, draft);
    if atom.old.flags & atom_flags::NOBITS != 0 {
        // Where its bytes would be in the file the file may have ended.
        return Ok(Ok(false));
    }
    let view = View::new(store, plan);
    let record = view.atom_record(atom.row);
    let offset = view.file_offset(&record);
    view.damage()?;
    let names = || {
        let input =
            store.inputs.get(atom.old.input.0).map(|input| store.text(input.name)).unwrap_or_default();
        (text_of(store, plan, atom.old.name), input)
    };
    let changed = !image.matches(offset, &derived.bytes);
    if changed && atom.old.flags & atom_flags::CODE != 0 && atom.old.flags & atom_flags::EXACT != 0
        || changed && atom.old.flags & atom_flags::FIXED != 0
    {
        let (section, input) = names();
        return Ok(Err(GateReason::OrderedSectionChanged { section, input }));
    }
    if !draft.write(image, offset, &derived.bytes) {
        return Err(StoreError::Malformed(format!("a slot at {offset:#x} is outside the image")));
    }
    let old = if atom.unplaced { Span::default() } else { atom.old.relocs };
    let old = (atom.old.address, DynamicPlaces::of_store(store, old)?);
    let new = (slot.address, DynamicPlaces::of(derived.records.iter()));
    let mut table = DynamicRelocs::new(store, plan, image, draft)?;
    // Which of the two tables has a pointer, its section's alignment decides.
    let stays = old.0 == new.0 && old.1.relative == new.1.relative;
    let unknown = table.is_packed() && atom.align == 0 && !stays && !new.1.relative.is_empty();
    let followed = !unknown && follow_pointers(&mut table, &view, &old, &new, &derived.relative);
    view.damage()?;
    if !followed || !table.finish() {
        let (section, input) = names();
        return Ok(Err(GateReason::DynamicRelocationChanged { section, input }));
    }
    Ok(Ok(changed))
}

/// An atom's dynamic relocations: offsets of RELATIVE ones, and what those that name a symbol say.
#[derive(Default, PartialEq, Eq)]
struct DynamicPlaces {
    relative: Vec<u32>,
    symbolic: Vec<(u32, Target, i64)>,
}

impl DynamicPlaces {
    fn of<'a>(records: impl Iterator<Item = &'a RelocRecord>) -> DynamicPlaces {
        let mut places = DynamicPlaces::default();
        for reloc in records.filter(|reloc| reloc.flags & reloc_flags::DEAD == 0) {
            match reloc.flags & (reloc_flags::DYNAMIC | reloc_flags::SYMBOLIC) {
                0 => {}
                reloc_flags::DYNAMIC => places.relative.push(reloc.offset),
                _ => places.symbolic.push((reloc.offset, reloc.target, reloc.addend)),
            }
        }
        places.relative.sort_unstable();
        places.symbolic.sort_unstable();
        places
    }

    fn of_store(store: &Store, span: Span) -> Result<DynamicPlaces, StoreError> {
        let mut records = Vec::new();
        for entry in store.relocs.span(span) {
            records.push(entry?.1);
        }
        Ok(DynamicPlaces::of(records.iter()))
    }
}

/// The loader's table follows an atom: `false` if it can't. `old` is where and what it had.
fn follow_pointers(
    table: &mut DynamicRelocs<'_>,
    view: &View<'_>,
    old: &(u64, DynamicPlaces),
    new: &(u64, DynamicPlaces),
    relative: &[(u64, u64)],
) -> bool {
    let stays = old.0 == new.0;
    let place = |base: u64, offset: u32| base.wrapping_add(offset.into());
    let removed = old.1.relative.iter().all(|offset| {
        stays && new.1.relative.binary_search(offset).is_ok() || table.remove(place(old.0, *offset))
    }) && old.1.symbolic.iter().all(|entry| {
        stays && new.1.symbolic.binary_search(entry).is_ok() || table.remove_symbolic(place(old.0, entry.0))
    });
    let dynsym = |target: Target| match target.kind() {
        TargetKind::Symbol(row) => view.symbol_record(row).dynsym,
        _ => 0,
    };
    removed
        && relative.iter().all(|&(at, value)| {
            let offset = u32::try_from(at.wrapping_sub(new.0)).unwrap_or(u32::MAX);
            if stays && old.1.relative.binary_search(&offset).is_ok() {
                table.update(at, value)
            } else {
                table.insert(at, value)
            }
        })
        && new.1.symbolic.iter().all(|entry| {
            let &(offset, target, addend) = entry;
            stays && old.1.symbolic.binary_search(entry).is_ok()
                || table.insert_symbolic(dynsym(target), place(new.0, offset), addend)
        })
}

/// Applies one stored relocation again: its target has moved.
fn retarget_site(
    store: &Store,
    plan: &Plan,
    image: &Image,
    draft: &mut Draft,
    record: &RelocRecord,
) -> Result<Result<(), GateReason>, StoreError> {
    let view = View::new(store, plan);
    let atom = view.atom_record(record.atom);
    let op = u8::try_from(record.op).ok().and_then(Op::from_u8);
    let op = op.ok_or_else(|| StoreError::Malformed(format!("unknown operation {}", record.op)))?;
    let TargetKind::Symbol(symbol) = record.target.kind() else { return Ok(Ok(())) };
    let mut symbol = view.symbol(symbol);
    if record.flags & reloc_flags::DEBUG != 0 && place::is_atom(symbol.atom) {
        // Debug information speaks of the code itself, not of its PLT entry.
        symbol.address = view.atom_record(symbol.atom).address.wrapping_add(symbol.value);
    }
    let bases = view.bases();
    let place = atom.address.wrapping_add(u64::from(record.offset));
    let values = Values {
        s: symbol.address,
        a: record.addend,
        p: place,
        got_slot: bases.got_address.wrapping_add(8 * u64::from(symbol.got.wrapping_sub(1))),
        tls_pair: bases.tls_pairs.wrapping_add(16 * u64::from(symbol.tls_pair.wrapping_sub(1))),
        tls_descriptor: bases
            .tls_descriptors
            .wrapping_add(16 * u64::from(symbol.tls_descriptor.wrapping_sub(1))),
        tls_module: bases.tls_module,
        got_base: bases.got_base,
        tp: bases.tp,
        tls_start: bases.tls_start,
        size: symbol.size,
    };
    let mut field = [0; 8];
    let offset = view.file_offset(&atom).wrapping_add(u64::from(record.offset));
    view.damage()?;
    if u64::from(record.offset) + op.width() as u64 > atom.size {
        return Err(StoreError::Malformed("a relocation is outside its atom".to_owned()));
    }
    if let Err(error) = reloc::apply(op, &mut field, &values) {
        let input = store.text(store.inputs.get(atom.input.0)?.name);
        return Ok(Err(GateReason::RelocationUnpatchable { input, why: error.to_string() }));
    }
    if !draft.write(image, offset, &field[..op.width()]) {
        return Err(StoreError::Malformed("a relocation is outside the image".to_owned()));
    }
    let value = symbol.address.wrapping_add_signed(record.addend);
    if record.flags & reloc_flags::DYNAMIC != 0
        && !DynamicRelocs::new(store, plan, image, draft)?.update(place, value)
    {
        let section = store.text(atom.name);
        let input = store.text(store.inputs.get(atom.input.0)?.name);
        return Ok(Err(GateReason::DynamicRelocationChanged { section, input }));
    }
    Ok(Ok(()))
}
