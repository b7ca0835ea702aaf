//! Commit of a warm frame: the draft becomes the image, the plan's rows go to the store. Nothing can fail any more
//! but damage of the state, which is met before the first write where it can be.

use bevy_ecs::prelude::{Query, Res, ResMut, World};
use relink_engine::column::{Column, Record, StoreError};
use relink_engine::components::{Relocation, RelocationPool};
use relink_engine::frame::{Frame, FrameKind, Patch, Request};
use relink_engine::image::{Draft, Image};
use relink_engine::plan::Plan;
use relink_engine::records::{
    FdeRecord, FileRecord, FreeRecord, GlobalRecord, InputRecord, RelocRecord, file_flags, reloc_flags,
};
use relink_engine::rows::{AtomRow, IslandRow, RelocRow, Span, TargetKind};
use relink_engine::store::{Store, hash_name};

use crate::diff::rows::{vacant_atom, vacant_group, vacant_symbol};

/// Publishes a patch.
#[expect(clippy::too_many_arguments, reason = "each is a resource or a query of the frame")]
pub(crate) fn commit_patch(
    request: Res<'_, Request>,
    store: Option<ResMut<'_, Store>>,
    image: Option<ResMut<'_, Image>>,
    plan: Res<'_, Plan>,
    draft: Res<'_, Draft>,
    mut patch: ResMut<'_, Patch>,
    mut frame: ResMut<'_, Frame>,
    pool: Res<'_, RelocationPool>,
    relocations: Query<'_, '_, &Relocation>,
) {
    let (Some(mut store), Some(mut image)) = (store, image) else { return };
    if !frame.warm() {
        return;
    }
    let _ = request;
    let writes = draft.patch(&image);
    let relocations: Vec<Relocation> = pool.entities[..pool.used]
        .iter()
        .filter_map(|&entity| relocations.get(entity).ok())
        .copied()
        .collect();
    let result = commit_rows(&mut store, &plan, &relocations, !writes.is_empty());
    if frame.check(result).is_none() {
        return;
    }
    for (offset, bytes) in &writes {
        image.write(*offset, bytes);
        frame.counters.bytes_written += bytes.len() as u64;
    }
    patch.writes = writes;
    frame.committed = true;
}

fn commit_rows(
    store: &mut Store,
    plan: &Plan,
    relocations: &[Relocation],
    written: bool,
) -> Result<(), StoreError> {
    extend_columns(store, plan);
    for (&row, record) in &plan.files {
        store.files.set(row, *record)?;
    }
    commit_order(store, plan)?;
    for &(row, hash) in &plan.input_hashes {
        store.inputs.update(row, |input| input.bytes_hash = hash)?;
    }
    for (&row, record) in &plan.input_records {
        store.inputs.update(row, |input| {
            let bytes_hash = input.bytes_hash;
            *input = *record;
            input.bytes_hash = bytes_hash;
        })?;
    }
    for (&row, record) in &plan.globals {
        store.globals.set(row, *record)?;
    }
    for (&row, record) in &plan.groups {
        store.groups.set(row, *record)?;
    }
    let mut names: Vec<_> = plan.new_names.iter().collect();
    names.sort_unstable_by_key(|(_, row)| **row);
    for (name, row) in names {
        index_entry(&mut store.name_slots, name, row.0)?;
    }
    let mut signatures: Vec<_> = plan.new_signatures.iter().collect();
    signatures.sort_unstable_by_key(|(_, row)| **row);
    for (signature, row) in signatures {
        index_entry(&mut store.group_slots, signature, *row)?;
    }
    for (&row, record) in &plan.atoms {
        let known = store.atoms.get(row)?;
        if known != *record {
            store.atoms.set(row, *record)?;
        }
    }
    for (&row, record) in &plan.symbols {
        // The list of references belongs to the relocations, which are committed below.
        store.symbols.update(row, |symbol| {
            let first_incoming = symbol.first_incoming;
            *symbol = *record;
            symbol.first_incoming = first_incoming;
        })?;
    }
    for (&row, record) in &plan.sections {
        store.sections.set(row, *record)?;
    }
    commit_pieces(store, plan)?;
    for &(row, flags) in &plan.reloc_flags {
        store.relocs.update(row.0, |reloc| reloc.flags = flags)?;
    }
    for site in relocations.iter().filter(|site| site.row.some().is_some()) {
        let flags = site.record.flags;
        if store.relocs.get(site.row.0)?.flags != flags {
            store.relocs.update(site.row.0, |reloc| reloc.flags = flags)?;
        }
    }
    for (atom, range) in &plan.relocs {
        let records: Vec<RelocRecord> = relocations
            .get(range.clone())
            .unwrap_or_default()
            .iter()
            .map(|relocation| relocation.record)
            .collect();
        commit_relocs(store, *atom, &records)?;
    }
    if let Some(free) = &plan.free {
        commit_free(&mut store.free_slots, &free.slots)?;
        commit_free(&mut store.free_blocks, &free.blocks)?;
    }
    for (&row, &owner) in &plan.owners {
        store.owners.set(row, owner)?;
    }
    for &(row, record) in &plan.fdes {
        store.fdes.set(row.0, record)?;
    }
    for island in plan.islands.iter().filter(|island| island.row.some().is_none()) {
        let row = IslandRow(store.islands.push(island.record));
        store.atoms.update(island.record.atom.0, |atom| atom.island = row)?;
    }
    for &(node, digest) in &plan.digests {
        store.digests.set(node as u32, digest)?;
    }
    let mut record = plan.image;
    record.generation += u64::from(written);
    record.patches += u64::from(written);
    if record != store.image_record()? {
        store.image.set(0, record)?;
    }
    Ok(())
}

/// Which file stands where on the command line.
fn commit_order(store: &mut Store, plan: &Plan) -> Result<(), StoreError> {
    let Some(order) = &plan.order else { return Ok(()) };
    for (place, file) in (0..).zip(order) {
        if place >= store.order.len() {
            store.order.push(file.0);
        } else if store.order.get(place)? != file.0 {
            store.order.set(place, file.0)?;
        }
    }
    Ok(())
}

/// Names and rows that the frame brings; those that it has no use for yet are vacant.
fn extend_columns(store: &mut Store, plan: &Plan) {
    store.strings.append(&plan.names);
    let ends = &plan.ends;
    extend(&mut store.files, ends.files, FileRecord { flags: file_flags::VACANT, ..Default::default() });
    extend(&mut store.inputs, ends.inputs, InputRecord::default());
    extend(&mut store.atoms, ends.atoms, vacant_atom());
    extend(&mut store.symbols, ends.symbols, vacant_symbol());
    extend(&mut store.globals, ends.globals, GlobalRecord::default());
    extend(&mut store.fdes, ends.fdes, FdeRecord::default());
    extend(&mut store.groups, ends.groups, vacant_group());
}

fn extend<T: Record>(column: &mut Column<T>, end: u32, vacant: T) {
    while column.len() < end {
        column.push(vacant);
    }
}

/// Puts a row into an index, which has room: Diff has counted its entries.
fn index_entry(slots: &mut Column<u32>, name: &[u8], row: u32) -> Result<(), StoreError> {
    let len = slots.len();
    let mut slot = hash_name(name) as u32 & len.wrapping_sub(1);
    for _ in 0..len {
        if slots.get(slot)? == 0 {
            return slots.set(slot, row + 1);
        }
        slot = (slot + 1) & (len - 1);
    }
    Err(StoreError::Malformed("an index is full".to_owned()))
}

fn commit_pieces(store: &mut Store, plan: &Plan) -> Result<(), StoreError> {
    for (&row, pool) in &plan.pools {
        store.pools.set(row, *pool)?;
    }
    for piece in &plan.pieces {
        let pool = store.pools.get(piece.pool.0)?;
        let mask = pool.slots.len.saturating_sub(1);
        let mut slot = hash_name(&piece.bytes) as u32 & mask;
        for _ in 0..pool.slots.len {
            if store.pool_slots.get(pool.slots.start + slot)? == 0 {
                store.pool_slots.set(pool.slots.start + slot, piece.offset + 1)?;
                break;
            }
            slot = (slot + 1) & mask;
        }
    }
    Ok(())
}

/// Replaces an atom's relocations. Rows that stay as they are are not touched; the others leave their target's list
/// and join the new one's.
fn commit_relocs(store: &mut Store, atom: AtomRow, records: &[RelocRecord]) -> Result<(), StoreError> {
    let span = store.atoms.get(atom.0)?.relocs;
    let same = |old: &RelocRecord, new: &RelocRecord| {
        (old.offset, old.target, old.op, old.flags, old.addend)
            == (new.offset, new.target, new.op, new.flags, new.addend)
    };
    let fits = records.len() as u32 <= span.len;
    for row in span.range() {
        let old = store.relocs.get(row)?;
        let new = records.get((row - span.start) as usize).filter(|_| fits);
        if new.is_some_and(|new| same(&old, new)) {
            continue;
        }
        unlink(store, RelocRow(row))?;
        match new {
            Some(new) => link(store, RelocRow(row), *new)?,
            None => store.relocs.update(row, |reloc| {
                *reloc = RelocRecord { atom, flags: reloc_flags::DEAD, ..RelocRecord::default() };
            })?,
        }
    }
    if fits {
        return Ok(());
    }
    let start = store.relocs.len();
    for record in records {
        let row = RelocRow(store.relocs.push(*record));
        link(store, row, *record)?;
    }
    store.atoms.update(atom.0, |atom| atom.relocs = Span::new(start, records.len() as u32))
}

fn unlink(store: &mut Store, row: RelocRow) -> Result<(), StoreError> {
    let reloc = store.relocs.get(row.0)?;
    if reloc.flags & reloc_flags::DEAD != 0 {
        return Ok(());
    }
    match reloc.previous.some() {
        Some(previous) => store.relocs.update(previous.0, |other| other.next = reloc.next)?,
        None => set_head(store, &reloc, row, reloc.next)?,
    }
    if let Some(next) = reloc.next.some() {
        store.relocs.update(next.0, |other| other.previous = reloc.previous)?;
    }
    Ok(())
}

fn link(store: &mut Store, row: RelocRow, record: RelocRecord) -> Result<(), StoreError> {
    let head = match record.target.kind() {
        TargetKind::Symbol(symbol) => store.symbols.get(symbol.0)?.first_incoming,
        TargetKind::Atom(atom) => store.atoms.get(atom.0)?.first_incoming,
        TargetKind::None => RelocRow::default(),
    };
    if let Some(next) = head.some() {
        store.relocs.update(next.0, |other| other.previous = row)?;
    }
    store.relocs.set(row.0, RelocRecord { previous: RelocRow::default(), next: head, ..record })?;
    match record.target.kind() {
        TargetKind::Symbol(symbol) => store.symbols.update(symbol.0, |symbol| symbol.first_incoming = row),
        TargetKind::Atom(atom) => store.atoms.update(atom.0, |atom| atom.first_incoming = row),
        TargetKind::None => Ok(()),
    }
}

/// Makes `next` the head of the list that `row` is the head of.
fn set_head(store: &mut Store, reloc: &RelocRecord, row: RelocRow, next: RelocRow) -> Result<(), StoreError> {
    match reloc.target.kind() {
        TargetKind::Symbol(symbol) if store.symbols.get(symbol.0)?.first_incoming == row => {
            store.symbols.update(symbol.0, |symbol| symbol.first_incoming = next)
        }
        TargetKind::Atom(atom) if store.atoms.get(atom.0)?.first_incoming == row => {
            store.atoms.update(atom.0, |atom| atom.first_incoming = next)
        }
        _ => Ok(()),
    }
}

fn commit_free(column: &mut Column<FreeRecord>, rows: &[FreeRecord]) -> Result<(), StoreError> {
    for (row, record) in rows.iter().enumerate() {
        if row as u32 >= column.len() {
            column.push(*record);
        } else if column.get(row as u32)? != *record {
            column.set(row as u32, *record)?;
        }
    }
    Ok(())
}

/// Empties the world of what the frame had hydrated; the pool stays for the next one.
pub(crate) fn clear_frame(world: &mut World) {
    let plan = world.resource_mut::<Plan>();
    let entities: Vec<_> =
        plan.inputs.iter().chain(&plan.atom_entities).chain(&plan.symbol_entities).copied().collect();
    for entity in entities {
        world.despawn(entity);
    }
    *world.resource_mut::<Plan>() = Plan::default();
    world.resource_mut::<Draft>().clear();
    let cold = world.resource::<Frame>().kind == FrameKind::Cold;
    if cold {
        world.resource_mut::<RelocationPool>().used = 0;
    }
}
