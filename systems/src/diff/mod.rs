//! Diff: pairs what a changed input has with what the store knows, by name and content, never by index.
//!
//! Every difference that the strict gate refuses is noted as a reason; what is left is a list of atoms whose bytes
//! may differ and of symbols whose values may.

pub(crate) mod anonymous;
mod exports;
mod groups;
mod imports;
mod liveness;
mod names;
mod pieces;
mod references;
pub(crate) mod rows;
mod sections;
pub(crate) mod symbols;
mod unwind;

use bevy_ecs::prelude::{Commands, Entity, Query, Res, ResMut};
use formats::elf;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::{Atom, Input, Slot, Symbol};
use relink_engine::frame::{Frame, Request};
use relink_engine::image::Image;
use relink_engine::options::{Discard, LinkOptions, Strip};
use relink_engine::plan::Plan;
use relink_engine::records::{AtomRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, SymbolRow};
use relink_engine::store::Store;
use relink_formats as formats;

use sections::Matched;
use symbols::{Change, Mentions};

use crate::place::symtab::is_retained;

/// What the verbs of Diff share.
pub(crate) struct Context<'a> {
    pub store: &'a Store,
    pub image: &'a Image,
    pub plan: &'a mut Plan,
    pub frame: &'a mut Frame,
    pub options: &'a LinkOptions,
    /// The changed inputs.
    changed: HashSet<InputRow>,
    /// Names that their new objects refer to.
    referenced: HashSet<SymbolRow>,
    /// New names that other modules may see, and what to say if one does.
    exposed: Vec<exports::Exposed>,
    /// Rows of frame descriptions that are in use.
    taken_fdes: HashSet<u32>,
    /// How far the rows of an input have been searched for vacant ones.
    cursors: HashMap<(u32, rows::Kind), usize>,
}

/// What is known of a changed input between the verbs.
pub(super) struct Unit {
    entity: Entity,
    matched: Vec<Matched>,
    changes: Vec<Change>,
    mentions: Mentions,
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
    let mut context = Context {
        store: &store,
        image: &image,
        plan: &mut plan,
        frame: &mut frame,
        options: &request.options,
        changed: inputs.iter().map(|input| input.row).collect(),
        referenced: HashSet::new(),
        exposed: Vec::new(),
        taken_fdes: HashSet::new(),
        cursors: HashMap::new(),
    };
    let result = diff_units(&mut context, &request, &mut inputs, &mut commands);
    frame.check(result);
    if frame.reasons.is_empty() {
        let changed = std::mem::take(&mut plan.changed_archives);
        // A planned difference explains a changed index, too.
        for (archive, offers_known) in changed {
            if frame.planned.is_empty() || !offers_known {
                frame.refuse(GateReason::ArchiveChanged { archive });
            }
        }
    }
}

/// Definitions of all inputs come before references of any: one edit may add a function and a call of it elsewhere.
fn diff_units(
    context: &mut Context<'_>,
    request: &Request,
    inputs: &mut Query<'_, '_, &mut Input>,
    commands: &mut Commands<'_, '_>,
) -> Result<(), StoreError> {
    let mut units = Vec::new();
    for entity in context.plan.inputs.clone() {
        let Ok(mut input) = inputs.get_mut(entity) else { continue };
        let new = crate::commit::bulk::property_of(&input.object.parsed);
        if new != (input.record.feature_1_and, input.record.properties) {
            context.frame.refuse(GateReason::PropertyChanged { input: input.object.name.clone() });
        }
        groups::match_groups(context, &mut input)?;
        let matched = sections::match_sections(context, &mut input)?;
        pieces::match_pieces(context, &mut input)?;
        let (changes, mentions) = symbols::match_definitions(context, &mut input)?;
        units.push(Unit { entity, matched, changes, mentions });
    }
    exports::plan_exports(context, request, &mut units)?;
    for unit in &mut units {
        let Ok(mut input) = inputs.get_mut(unit.entity) else { continue };
        references::match_references(context, request, &mut input, &mut unit.mentions)?;
    }
    for unit in &mut units {
        let Ok(input) = inputs.get(unit.entity) else { continue };
        references::drop_mentions(context, request, input, std::mem::take(&mut unit.mentions))?;
        for (row, old, new) in &unit.changes {
            if old != new {
                context.plan.symbols.insert(row.0, *new);
            }
        }
    }
    liveness::revive_atoms(context, inputs, &mut units)?;
    for unit in units {
        let Ok(mut input) = inputs.get_mut(unit.entity) else { continue };
        unwind::match_fdes(context, &mut input, &unit.changes)?;
        hydrate(context, &input, unit, commands)?;
    }
    Ok(())
}

/// Spawns what the later sets work on.
fn hydrate(
    context: &mut Context<'_>,
    input: &Input,
    unit: Unit,
    commands: &mut Commands<'_, '_>,
) -> Result<(), StoreError> {
    context.frame.counters.atoms_diffed += unit.matched.len() as u64;
    for Matched { row, section, old, unplaced } in unit.matched {
        let record = context.atom(row)?;
        let dropped = atom_flags::DISCARDED | atom_flags::DEAD;
        if record.flags & (dropped | atom_flags::MERGE | atom_flags::EH_FRAME) != 0 {
            if record.section != section {
                // How a nameless atom is known from now on.
                context.plan.atoms.insert(row.0, AtomRecord { section, ..record });
            }
            continue;
        }
        let parsed = &input.object.parsed.sections[section as usize];
        let (size, align) = (parsed.size, old.align.max(parsed.align.exponent().into()));
        let slot = Slot { address: old.address, capacity: old.capacity, size };
        let atom = Atom { row, input: unit.entity, section, old, unplaced, align };
        context.plan.atom_entities.push(commands.spawn((atom, slot)).id());
    }
    for (row, old, new) in unit.changes {
        if new.symtab == 0 && has_entry(context, &new)? {
            context.plan.added_symbols.push(row);
        }
        // Also those that keep their record: their atom may move.
        context.plan.symbol_entities.push(commands.spawn(Symbol { row, old, new }).id());
    }
    Ok(())
}

/// Whether a symbol that has no entry of `.symtab` gets one: the rule of `place/symtab.rs`.
fn has_entry(context: &Context<'_>, symbol: &SymbolRecord) -> Result<bool, StoreError> {
    if context.options.strip == Strip::All {
        return Ok(false);
    }
    let global = symbol.flags & symbol_flags::GLOBAL != 0;
    let name = crate::view::name_of(context.store, context.plan, symbol.name)?;
    if !is_retained(name, context.options) {
        return Ok(false);
    }
    if !global && (context.options.discard == Discard::All || name.is_empty() || name.starts_with(b".L")) {
        return Ok(false);
    }
    Ok(match symbol.atom {
        place::ABSOLUTE => true,
        atom if place::is_atom(atom) => context.atom(atom)?.flags & atom_flags::LIVE != 0,
        _ => !global && symbol.info & 0xf == elf::STT_FILE,
    })
}
