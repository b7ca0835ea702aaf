//! Diff: pairs what a changed input has with what the store knows, by name and content, never by index.
//!
//! Every difference that the strict gate refuses is noted as a reason; what is left is a list of atoms whose bytes
//! may differ and of symbols whose values may.

pub(crate) mod anonymous;
mod asked;
mod exports;
mod groups;
mod heirs;
mod imports;
mod liveness;
mod members;
mod names;
mod owners;
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
use relink_engine::components::{Atom, Fate, Input, Slot, Symbol};
use relink_engine::frame::{Frame, Request};
use relink_engine::image::Image;
use relink_engine::options::{Discard, GateKind, LinkOptions, Strip};
use relink_engine::plan::Plan;
use relink_engine::records::{AtomRecord, GlobalRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, NONE, SymbolRow};
use relink_engine::store::Store;
use relink_formats as formats;

use sections::Matched;
use symbols::{Change, Mentions};

use crate::place::symtab::is_retained;

/// What the verbs of Diff share.
pub(crate) struct Context<'a> {
    request: &'a Request,
    pub store: &'a Store,
    pub image: &'a Image,
    pub plan: &'a mut Plan,
    pub frame: &'a mut Frame,
    pub options: &'a LinkOptions,
    /// The changed inputs.
    changed: HashSet<InputRow>,
    /// Those of them that go.
    going: HashSet<InputRow>,
    /// The place of each file on the command line, if files do not stand there in the order of their rows.
    places: Vec<u32>,
    /// The place of the first shared library; none is behind all.
    libraries: u32,
    /// Names that their new objects refer to.
    referenced: HashSet<SymbolRow>,
    /// Of these the ones that are not only weak references.
    wanting: HashSet<SymbolRow>,
    /// Of these the ones that are not only references of an archive's member.
    rooted: HashSet<SymbolRow>,
    /// Definitions that changed inputs give up.
    released: HashMap<SymbolRow, GlobalRecord>,
    /// Definitions that new objects do not have any more, by input.
    undefined: HashSet<(InputRow, SymbolRow)>,
    /// Of the definitions that are given up, those that another object has as well, and which one prevails.
    heirs: HashMap<SymbolRow, InputRow>,
    /// Signatures of groups that change hands.
    owners: HashMap<Vec<u8>, owners::Owner>,
    /// Definitions of groups that an object has as before and does not own any more.
    lost: HashSet<(InputRow, SymbolRow)>,
    /// Members of archives that may have nothing any more that wants them.
    doubtful: members::Doubtful,
    /// Names of which all mentions must be known.
    questions: asked::Questions,
    /// What can be planned may pass.
    wide: bool,
    /// Those of them that another one has taken over.
    rehomed: HashSet<SymbolRow>,
    /// Those that an object leaves to the owner of its group, and what to say if that does not take them over.
    yielded: Vec<(SymbolRow, GateReason)>,
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
    let gate = request.options.incremental.as_ref().map(|options| options.gate_kind);
    let mut context = Context {
        request: &request,
        store: &store,
        image: &image,
        plan: &mut plan,
        frame: &mut frame,
        options: &request.options,
        changed: inputs.iter().map(|input| input.row).collect(),
        going: inputs.iter().filter(|input| input.fate == Fate::Goes).map(|input| input.row).collect(),
        places: Vec::new(),
        libraries: u32::MAX,
        referenced: HashSet::new(),
        wanting: HashSet::new(),
        rooted: HashSet::new(),
        released: HashMap::new(),
        undefined: HashSet::new(),
        heirs: HashMap::new(),
        owners: HashMap::new(),
        lost: HashSet::new(),
        doubtful: members::Doubtful::new(),
        questions: asked::Questions::new(),
        wide: gate == Some(GateKind::Wide),
        rehomed: HashSet::new(),
        yielded: Vec::new(),
        exposed: Vec::new(),
        taken_fdes: HashSet::new(),
        cursors: HashMap::new(),
    };
    let result = diff_units(&mut context, &request, &mut inputs, &mut commands);
    frame.check(result);
}

/// Definitions of all inputs come before references of any: one edit may add a function and a call of it elsewhere.
fn diff_units(
    context: &mut Context<'_>,
    request: &Request,
    inputs: &mut Query<'_, '_, &mut Input>,
    commands: &mut Commands<'_, '_>,
) -> Result<(), StoreError> {
    context.places = places_of_files(context)?;
    if context.wide {
        context.libraries = members::first_library(context)?;
        for entity in context.plan.inputs.clone() {
            if let Ok(input) = inputs.get(entity) {
                heirs::note_released(context, input)?;
            }
        }
        heirs::choose_heirs(context)?;
        let changed: Vec<&Input> =
            context.plan.inputs.iter().filter_map(|&entity| inputs.get(entity).ok()).collect();
        if !owners::choose_owners(context, &changed)? {
            return Ok(());
        }
    }
    let mut units = Vec::new();
    for entity in context.plan.inputs.clone() {
        let Ok(mut input) = inputs.get_mut(entity) else { continue };
        if !keeps_properties(context, &input)? {
            context.frame.refuse(GateReason::PropertyChanged { input: input.object.name.clone() });
        }
        groups::match_groups(context, &mut input)?;
        let matched = sections::match_sections(context, &mut input)?;
        pieces::match_pieces(context, &mut input)?;
        let (changes, mentions) = symbols::match_definitions(context, &mut input)?;
        units.push(Unit { entity, matched, changes, mentions });
    }
    names::judge_yielded(context);
    exports::plan_exports(context, request, &mut units)?;
    for unit in &mut units {
        let Ok(mut input) = inputs.get_mut(unit.entity) else { continue };
        references::match_references(context, &mut input, &mut unit.mentions)?;
    }
    for unit in &mut units {
        let Ok(input) = inputs.get(unit.entity) else { continue };
        references::drop_mentions(context, request, input, std::mem::take(&mut unit.mentions))?;
        for (row, old, new) in &mut unit.changes {
            if context.referenced.contains(row) {
                new.flags |= symbol_flags::REFERENCED;
            }
            if old != new {
                context.plan.symbols.insert(row.0, *new);
            }
        }
    }
    references::note_references(context)?;
    asked::answer_questions(context)?;
    members::judge_members(context, inputs)?;
    liveness::revive_atoms(context, inputs, &mut units)?;
    for unit in units {
        let Ok(mut input) = inputs.get_mut(unit.entity) else { continue };
        unwind::match_fdes(context, &mut input, &unit.changes)?;
        hydrate(context, &input, unit, commands)?;
    }
    Ok(())
}

/// The place of each file, by row; nothing if that is its row.
fn places_of_files(context: &Context<'_>) -> Result<Vec<u32>, StoreError> {
    let order = match &context.plan.order {
        None if context.store.order.is_empty() => return Ok(Vec::new()),
        None => context.store.places()?,
        Some(order) => order.clone(),
    };
    let mut places = vec![NONE; context.plan.ends.files as usize];
    for (place, file) in (0..).zip(order) {
        if let Some(at) = places.get_mut(file.index()) {
            *at = place;
        }
    }
    Ok(places)
}

/// Whether the image's own properties stay: they depend on which ones its objects have, not on how many have them.
fn keeps_properties(context: &Context<'_>, input: &Input) -> Result<bool, StoreError> {
    let old = (input.record.feature_1_and, input.record.properties);
    if input.fate == Fate::Stays {
        return Ok(crate::commit::bulk::property_of(&input.object.parsed) == old);
    }
    let others = context.staying_inputs()?;
    Ok(others.iter().any(|(row, other)| *row != input.row && (other.feature_1_and, other.properties) == old))
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
        if record.size == 0 && record.output.some().is_none() {
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
