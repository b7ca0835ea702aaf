//! Relocate of a warm frame: the changed inputs' atoms are derived anew from pristine bytes; of unchanged ones only
//! the fields whose target has moved.

use bevy_ecs::prelude::{Commands, Query, Res, ResMut};
use formats::elf;
use formats::reloc::{self, Op, Values};
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Input, Relocation, RelocationPool, Slot};
use relink_engine::frame::Frame;
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::program::Object;
use relink_engine::records::{
    RelocRecord, SymbolRecord, atom_flags, image_flags, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{RelocRow, SymbolRow, Target, TargetKind};
use relink_engine::store::Store;
use relink_formats as formats;

use super::got::take_spare_slot;
use crate::commit::bulk::record_of;
use crate::kernel::{Demand, Places, Site, SiteError, lower, store as store_site};
use crate::place::names::is_reversed;
use crate::view::View;

/// Derives the bytes of changed atoms and of retargeted sites.
#[expect(clippy::too_many_arguments, reason = "each is a resource or a query of the frame")]
pub(crate) fn relocate_changed_atoms(
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
    let mut placed: Vec<(&Atom, &Slot)> =
        plan.atom_entities.iter().filter_map(|&entity| atoms.get(entity).ok()).collect();
    placed.retain(|(atom, _)| atom.old.flags & atom_flags::DEBUG == 0);
    let mut spans = Vec::with_capacity(placed.len());
    let (mut at, mut added) = (sites.len(), Vec::new());
    for (atom, slot) in placed {
        let Ok(input) = inputs.get(atom.input) else { continue };
        let result = derive_with_slots(&store, &mut plan, &image, &mut draft, input, atom, slot);
        let derived = match frame.check(result) {
            Some(Ok(derived)) => derived,
            Some(Err(reason)) => {
                frame.refuse(reason);
                continue;
            }
            None => return,
        };
        frame.counters.relocations_applied += derived.records.len() as u64;
        let result = write_atom(&store, &plan, &image, &mut draft, atom, slot, &derived);
        match frame.check(result) {
            Some(Ok(changed)) => {
                if changed {
                    frame.counters.atoms_changed += 1;
                    if frame.changed_atoms.len() < CHANGED_ATOMS_SHOWN {
                        let name = format!("{}:({})", input.object.name, store.text(atom.old.name));
                        frame.changed_atoms.push(name);
                    }
                }
            }
            Some(Err(reason)) => frame.refuse(reason),
            None => return,
        }
        let new = |record: &RelocRecord| Relocation { row: RelocRow::default(), record: *record };
        added.extend(derived.records.iter().map(new));
        spans.push((atom.row, at..at + derived.records.len()));
        at += derived.records.len();
    }
    crate::pool::extend(&mut pool, &mut relocations, &mut commands, added);
    plan.relocs = spans;
}

/// Names of changed atoms that a report carries.
const CHANGED_ATOMS_SHOWN: usize = 100;

struct Derived {
    /// The whole slot: body, then what fills its slack.
    bytes: Vec<u8>,
    records: Vec<RelocRecord>,
    /// RELATIVE relocations: address and value.
    relative: Vec<(u64, u64)>,
    /// Symbols that need a GOT slot and have none.
    slotless: Vec<SymbolRow>,
}

/// Derives an atom, after a second look if it refers to GOT slots that had to be taken first.
fn derive_with_slots(
    store: &Store,
    plan: &mut Plan,
    image: &Image,
    draft: &mut Draft,
    input: &Input,
    atom: &Atom,
    slot: &Slot,
) -> Result<Result<Derived, GateReason>, StoreError> {
    let view = View::new(store, plan);
    let derived = derive_atom(&view, image, input, atom, slot);
    view.damage()?;
    let slotless = match &derived {
        Ok(derived) if !derived.slotless.is_empty() => derived.slotless.clone(),
        _ => return Ok(derived),
    };
    for row in slotless {
        if !take_spare_slot(store, plan, image, draft, row)? {
            let symbol = store.text(store.symbols.get(row.0)?.name);
            return Ok(Err(GateReason::GotSlotAdded { symbol, input: input.object.name.clone() }));
        }
    }
    let view = View::new(store, plan);
    let derived = derive_atom(&view, image, input, atom, slot);
    view.damage()?;
    Ok(derived)
}

fn derive_atom(
    view: &View<'_>,
    image: &Image,
    input: &Input,
    atom: &Atom,
    slot: &Slot,
) -> Result<Derived, GateReason> {
    let object = &input.object;
    let section = atom.section as usize;
    let flags = atom.old.flags;
    let pristine = object.parsed.section_bytes(section);
    let mut derived =
        Derived { bytes: Vec::new(), records: Vec::new(), relative: Vec::new(), slotless: Vec::new() };
    if flags & atom_flags::NOBITS != 0 {
        return Ok(derived);
    }
    let filler = if flags & atom_flags::CODE != 0 { 0xcc } else { 0 };
    derived.bytes = image
        .padded(pristine, slot.capacity, filler)
        .map_err(|error| GateReason::StateUnusable { why: error.to_string() })?;
    let bases = view.bases();
    let relocs = object.parsed.relocations(section);
    let reversed = is_reversed(object.parsed.section_name(section)).then_some(pristine.len() as u64);
    let unpatchable = |why: String| GateReason::RelocationUnpatchable { input: object.name.clone(), why };
    let mut next = 0;
    while next < relocs.len() {
        let at = next;
        next += 1;
        let site = lower(view, object, flags, pristine, relocs, at).map_err(|error| match error {
            SiteError::Reloc(error) => unpatchable(error.to_string()),
            SiteError::Undefined(row) => GateReason::NewUndefined {
                symbol: view.store.text(view.symbol_record(row).name),
                input: object.name.clone(),
            },
            SiteError::Dropped => GateReason::DeadAtomReferenced {
                section: String::from_utf8_lossy(object.parsed.section_name(section)).into_owned(),
                input: object.name.clone(),
            },
        })?;
        next += usize::from(site.plan.skip_next);
        if site.demand == Demand::GotSlot
            && site.got == 0
            && let TargetKind::Symbol(row) = site.target.kind()
            && !is_new_import(view, row)
        {
            derived.slotless.push(row);
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

/// Whether a symbol is one of a shared library that the image does not import.
fn is_new_import(view: &View<'_>, row: SymbolRow) -> bool {
    let record = view.symbol_record(row);
    record.atom == place::SHARED && record.dynsym == 0
}

/// What a site needs beside its bytes must be in the image already.
fn check_demand(view: &View<'_>, object: &Object, site: &Site) -> Result<(), GateReason> {
    let record = match site.target.kind() {
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
    let (symbol, input) = (view.store.text(record.name), object.name.clone());
    Err(GateReason::ImportNeedAdded { symbol, need: need.to_owned(), input })
}

/// Writes an atom's slot; tells whether a byte differs from the image.
fn write_atom(
    store: &Store,
    plan: &Plan,
    image: &Image,
    draft: &mut Draft,
    atom: &Atom,
    slot: &Slot,
    derived: &Derived,
) -> Result<Result<bool, GateReason>, StoreError> {
    let view = View::new(store, plan);
    let record = view.atom_record(atom.row);
    let offset = view.file_offset(&record);
    view.damage()?;
    let names = || {
        let input =
            store.inputs.get(atom.old.input.0).map(|input| store.text(input.name)).unwrap_or_default();
        (store.text(atom.old.name), input)
    };
    if !same_dynamic_places(store, atom, slot, derived)? {
        let (section, input) = names();
        return Ok(Err(GateReason::DynamicRelocationChanged { section, input }));
    }
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
    for &(place, value) in &derived.relative {
        if !write_relative(store, plan, image, draft, place, value)? {
            let (section, input) = names();
            return Ok(Err(GateReason::DynamicRelocationChanged { section, input }));
        }
    }
    Ok(Ok(changed))
}

/// Whether an atom has its dynamic relocations where it had them: the table has no room for others. The value of a
/// RELATIVE one may change, symbol and addend of another may not.
fn same_dynamic_places(
    store: &Store,
    atom: &Atom,
    slot: &Slot,
    derived: &Derived,
) -> Result<bool, StoreError> {
    let key = |reloc: &RelocRecord| match reloc.flags & (reloc_flags::DYNAMIC | reloc_flags::SYMBOLIC) {
        0 => None,
        reloc_flags::DYNAMIC => Some((reloc.offset, None)),
        _ => Some((reloc.offset, Some((reloc.target, reloc.addend)))),
    };
    let mut old = Vec::new();
    for entry in store.relocs.span(atom.old.relocs) {
        let (_, reloc) = entry?;
        if reloc.flags & reloc_flags::DEAD == 0 {
            old.extend(key(&reloc));
        }
    }
    let mut new: Vec<_> = derived.records.iter().filter_map(key).collect();
    old.sort_unstable_by_key(|&(offset, _)| offset);
    new.sort_unstable_by_key(|&(offset, _)| offset);
    Ok(old == new && (old.is_empty() || slot.address == atom.old.address))
}

/// Brings the RELATIVE relocation of a place up to date; `false` if the table has none for it.
pub(crate) fn write_relative(
    store: &Store,
    plan: &Plan,
    image: &Image,
    draft: &mut Draft,
    place: u64,
    value: u64,
) -> Result<bool, StoreError> {
    // Places stay: an even one that isn't in the table of odd ones is told by `.relr.dyn`, and holds its value itself.
    let packed = plan.image.flags & image_flags::PACKED_RELATIVE != 0 && place.is_multiple_of(2);
    let Some(section) = plan.image.rela_dyn.some() else { return Ok(packed) };
    let section = store.sections.get(section.0)?;
    // RELATIVE entries stand first, sorted by place; any other kind counts as behind every place.
    let entry = |index: u64| -> Option<u64> {
        let bytes = image.read(section.offset + 24 * index, 16)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        (word(8) == u64::from(elf::R_X86_64_RELATIVE)).then(|| word(0))
    };
    let (mut low, mut high) = (0, section.size / 24);
    while low < high {
        let middle = low.midpoint(high);
        if entry(middle).is_some_and(|known| known < place) { low = middle + 1 } else { high = middle }
    }
    if low >= section.size / 24 || entry(low) != Some(place) {
        return Ok(packed);
    }
    Ok(draft.write(image, section.offset + low * 24 + 16, &value.to_le_bytes()))
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
    if record.flags & reloc_flags::DYNAMIC != 0
        && !write_relative(
            store,
            plan,
            image,
            draft,
            place,
            symbol.address.wrapping_add_signed(record.addend),
        )?
    {
        let section = store.text(atom.name);
        let input = store.text(store.inputs.get(atom.input.0)?.name);
        return Ok(Err(GateReason::DynamicRelocationChanged { section, input }));
    }
    Ok(Ok(()))
}
