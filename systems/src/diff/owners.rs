//! COMDAT groups that change hands: the first object that has a signature gave it up, or one before it has it now.

use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::Object;
use relink_engine::records::{GlobalRecord, GroupRecord, global_state, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{InputRow, SymbolRow};
use relink_engine::store::hash_name;
use relink_formats::object_file::{Group, SymbolPlace};

use super::Context;
use super::groups::find_owner;
use super::rows::{is_vacant_global, is_vacant_group};

/// Who owns a signature from now on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub input: InputRow,
    /// Its group's row, if it had one before.
    row: Option<u32>,
    /// How many others have the group.
    pub copies: u32,
}

/// A signature that its owner can't keep.
struct Given {
    row: u32,
    record: GroupRecord,
    /// The owner has the group as before, and is not the first one any more.
    stays: bool,
}

/// Finds who takes over what changes hands. Both sides have to be looked at: `false` if one is not yet, or if a full link has to.
/// O(groups of all objects), and only if there is such a signature.
pub(super) fn choose_owners(context: &mut Context<'_>, inputs: &[&Input]) -> Result<bool, StoreError> {
    let (mut given, mut leaving) = (HashMap::new(), HashSet::new());
    let mut claims: HashMap<Vec<u8>, InputRow> = HashMap::new();
    for input in inputs {
        let parsed = &input.object.parsed;
        let groups = parsed.groups.iter().filter(|group| group.comdat);
        let mut new: HashSet<&[u8]> = groups.map(|group| parsed.group_signature(group)).collect();
        for row in input.record.groups.and(input.record.more_groups) {
            let group = context.store.groups.get(row)?;
            if is_vacant_group(&group) {
                continue;
            }
            let signature = context.store.strings.bytes(group.signature)?;
            if new.remove(signature) {
                continue;
            }
            leaving.insert((input.row, signature.to_vec()));
            if group.owner != 0 {
                given.insert(signature.to_vec(), Given { row, record: group, stays: false });
            }
        }
        for signature in new {
            match claims.get_mut(signature) {
                Some(first) if context.is_before(input.row, *first)? => *first = input.row,
                Some(_) => {}
                None => _ = claims.insert(signature.to_vec(), input.row),
            }
        }
    }
    for (signature, &claimant) in &claims {
        if !given.contains_key(signature)
            && let Some((row, record)) = find_owner(context, signature)?
            && context.is_before(claimant, record.input)?
        {
            given.insert(signature.clone(), Given { row, record, stays: true });
        }
    }
    given.retain(|signature, given| given.record.copies != 0 || claims.contains_key(signature));
    if given.is_empty() {
        return Ok(true);
    }
    let owners = first_holders(context, &given, &leaving, &claims)?;
    let mut signatures: Vec<_> = given.into_iter().collect();
    signatures.sort_unstable_by_key(|(_, given)| given.row);
    let mut followed = true;
    for (signature, given) in signatures {
        let group = String::from_utf8_lossy(&signature).into_owned();
        let name = context.store.text(context.store.inputs.get(given.record.input.0)?.name);
        let Some(&owner) = owners.get(&signature) else {
            // All that have it give it up at once.
            context.plan.groups.insert(given.row, GroupRecord { copies: 0, ..given.record });
            continue;
        };
        let unseen = [owner.input, given.record.input].into_iter().find(|row| !context.changed.contains(row));
        if let Some(unseen) = unseen {
            context.frame.wanted.neighbours.push(unseen);
            context.frame.refuse(GateReason::ComdatChanged { group, input: name });
            followed = false;
        } else if followed && !hand_over(context, inputs, &signature, &given, owner)? {
            context.frame.refuse(GateReason::ComdatChanged { group, input: name });
            return Ok(false);
        }
    }
    Ok(followed)
}

/// The first object of each of these signatures, as it will be.
fn first_holders(
    context: &Context<'_>,
    given: &HashMap<Vec<u8>, Given>,
    leaving: &HashSet<(InputRow, Vec<u8>)>,
    claims: &HashMap<Vec<u8>, InputRow>,
) -> Result<HashMap<Vec<u8>, Owner>, StoreError> {
    let mut owners: HashMap<Vec<u8>, Owner> = HashMap::new();
    for (signature, given) in given {
        if let Some(&input) = claims.get(signature) {
            let copies = given.record.copies + u32::from(given.stays);
            owners.insert(signature.clone(), Owner { input, row: None, copies });
        }
    }
    for (input, record) in context.staying_inputs()? {
        for row in record.groups.and(record.more_groups) {
            let group = context.store.groups.get(row)?;
            if is_vacant_group(&group) || group.owner != 0 {
                continue;
            }
            let signature = context.store.strings.bytes(group.signature)?;
            let Some(given) = given.get(signature) else { continue };
            if leaving.contains(&(input, signature.to_vec())) {
                continue;
            }
            let first = match owners.get(signature) {
                Some(owner) => context.is_before(input, owner.input)?,
                None => true,
            };
            if first {
                let copies = (given.record.copies + u32::from(given.stays)).saturating_sub(1);
                owners.insert(signature.to_vec(), Owner { input, row: Some(row), copies });
            }
        }
    }
    Ok(owners)
}

/// Plans that a signature changes hands: the groups, and whose definitions their names are. `false` if the two groups differ
/// in what they define.
fn hand_over(
    context: &mut Context<'_>,
    inputs: &[&Input],
    signature: &[u8],
    given: &Given,
    owner: Owner,
) -> Result<bool, StoreError> {
    let find = |row: InputRow| inputs.iter().find(|input| input.row == row).copied();
    let (Some(new), Some(old)) = (find(owner.input), find(given.record.input)) else { return Ok(false) };
    context.plan.groups.insert(given.row, GroupRecord { owner: 0, copies: 0, ..given.record });
    if given.stays {
        for (symbol, global) in definitions(context, old, signature)? {
            context.released.insert(symbol, global);
            context.lost.insert((old.row, symbol));
        }
    }
    if let Some(row) = owner.row {
        let record = context.store.groups.get(row)?;
        context.plan.groups.insert(row, GroupRecord { owner: 1, copies: owner.copies, ..record });
        if !context.index_group(signature, row) {
            return Ok(false);
        }
        for (symbol, _) in definitions(context, new, signature)? {
            // Somebody who has the name in no group may come before the heir.
            let contested = context.store.symbols.get(symbol.0)?.flags & symbol_flags::CONTESTED != 0;
            if contested || !context.released.contains_key(&symbol) {
                return Ok(false);
            }
            context.heirs.insert(symbol, new.row);
        }
    }
    context.owners.insert(signature.to_vec(), owner);
    Ok(true)
}

/// The global names that an object's group defines, among those that it had before.
fn definitions(
    context: &Context<'_>,
    input: &Input,
    signature: &[u8],
) -> Result<Vec<(SymbolRow, GlobalRecord)>, StoreError> {
    let hashes = names_of_group(&input.object, signature);
    let mut found = Vec::with_capacity(hashes.len());
    for row in input.record.globals.and(input.record.more_globals) {
        let global = context.store.globals.get(row)?;
        if !is_vacant_global(&global)
            && global.state == global_state::DEFINED
            && hashes.contains(&global.name_hash)
        {
            found.push((global.symbol, global));
        }
    }
    Ok(found)
}

fn names_of_group(object: &Object, signature: &[u8]) -> HashSet<u64> {
    let parsed = &object.parsed;
    let own = |group: &&Group| group.comdat && parsed.group_signature(group) == signature;
    let Some(group) = parsed.groups.iter().find(own) else { return HashSet::new() };
    let globals = parsed.first_global as usize..parsed.symbols().len();
    globals
        .filter(|&index| match parsed.symbol_place(index) {
            SymbolPlace::Section(section) => group.sections.contains(&section),
            _ => false,
        })
        .map(|index| hash_name(parsed.symbol_name(index)))
        .collect()
}
