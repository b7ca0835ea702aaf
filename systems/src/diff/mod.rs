//! Diff: pairs what a changed input has with what the store knows, by name and content, never by index.
//!
//! Every difference that the strict gate refuses is noted as a reason; what is left is a list of atoms whose bytes
//! may differ and of symbols whose values may.

pub(crate) mod anonymous;
mod pieces;
mod sections;
mod symbols;
mod unwind;

use bevy_ecs::prelude::{Commands, Query, Res, ResMut};
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Input, Slot, Symbol};
use relink_engine::frame::{Frame, Request};
use relink_engine::image::Image;
use relink_engine::options::Strip;
use relink_engine::plan::Plan;
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::store::Store;

/// What the verbs of Diff share.
pub(crate) struct Context<'a> {
    pub store: &'a Store,
    pub image: &'a Image,
    pub plan: &'a mut Plan,
    pub frame: &'a mut Frame,
    pub strip: Strip,
    /// `--wrap`.
    pub wrap: &'a [String],
}

/// Compares each changed input with its rows.
pub(crate) fn diff_inputs(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    image: Option<Res<'_, Image>>,
    mut plan: ResMut<'_, Plan>,
    mut frame: ResMut<'_, Frame>,
    mut inputs: Query<'_, '_, &mut Input>,
    mut commands: Commands<'_, '_>,
) {
    let (Some(store), Some(image)) = (store, image) else { return };
    if !frame.warm() {
        return;
    }
    for entity in plan.inputs.clone() {
        let Ok(mut input) = inputs.get_mut(entity) else { continue };
        let strip = request.options.strip;
        let wrap = &request.options.wrap;
        let mut context =
            Context { store: &store, image: &image, plan: &mut plan, frame: &mut frame, strip, wrap };
        let result = diff_input(&mut context, &mut input, entity, &mut commands);
        frame.check(result);
    }
    if frame.reasons.is_empty() {
        for archive in std::mem::take(&mut plan.changed_archives) {
            frame.refuse(GateReason::ArchiveChanged { archive });
        }
    }
}

fn diff_input(
    context: &mut Context<'_>,
    input: &mut Input,
    entity: bevy_ecs::prelude::Entity,
    commands: &mut Commands<'_, '_>,
) -> Result<(), StoreError> {
    let known = context.store.inputs.get(input.row.0)?;
    let new = crate::commit::bulk::property_of(&input.object.parsed);
    if new != (known.feature_1_and, known.properties) {
        context.frame.refuse(GateReason::PropertyChanged { input: input.object.name.clone() });
    }
    let matched = sections::match_sections(context, input)?;
    sections::match_groups(context, input)?;
    pieces::match_pieces(context, input)?;
    let symbols = symbols::match_symbols(context, input)?;
    unwind::match_fdes(context, input, &symbols)?;
    context.frame.counters.atoms_diffed += matched.len() as u64;
    for (row, section, old) in matched {
        if old.flags & (atom_flags::DISCARDED | atom_flags::DEAD | atom_flags::MERGE | atom_flags::EH_FRAME)
            != 0
        {
            if old.section != section {
                // How a nameless atom is known from now on.
                context.plan.atoms.insert(row.0, AtomRecord { section, ..old });
            }
            continue;
        }
        let size = input.object.parsed.sections[section as usize].size;
        let slot = Slot { address: old.address, capacity: old.capacity, size };
        context
            .plan
            .atom_entities
            .push(commands.spawn((Atom { row, input: entity, section, old }, slot)).id());
    }
    for (row, old, new) in symbols {
        // Also those that keep their record: their atom may move.
        if old != new {
            context.plan.symbols.insert(row.0, new);
        }
        context.plan.symbol_entities.push(commands.spawn(Symbol { row, old, new }).id());
    }
    Ok(())
}
