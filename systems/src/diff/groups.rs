//! COMDAT groups of a changed object. Who owns a signature is part of the resolution table: the first object in link
//! order. Groups come and go; behind the wide gate one may change hands (`owners.rs`).

use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::records::GroupRecord;
use relink_engine::report::GateReason;
use relink_engine::store::hash_name;

use super::Context;
use super::rows::{is_vacant_group, vacant_group};
use crate::view::name_of;

/// Pairs groups by signature and fills the object's `owns`.
pub(super) fn match_groups(context: &mut Context<'_>, input: &mut Input) -> Result<(), StoreError> {
    let mut known = Vec::new();
    for row in input.record.groups.and(input.record.more_groups) {
        let group = context.store.groups.get(row)?;
        if !is_vacant_group(&group) {
            known.push((context.store.strings.bytes(group.signature)?.to_vec(), row, group));
        }
    }
    for index in 0..input.object.parsed.groups.len() {
        let group = &input.object.parsed.groups[index];
        let signature = input.object.parsed.group_signature(group).to_vec();
        if let Some(position) = known.iter().position(|(name, ..)| *name == signature) {
            let (_, row, group) = known.swap_remove(position);
            input.object.owns[index] = context.plan.groups.get(&row).unwrap_or(&group).owner != 0;
            continue;
        }
        let owns = if group.comdat { add_group(context, input, &signature)? } else { None };
        let reason = changed(input, &signature);
        match owns {
            Some(owns) => {
                input.object.owns[index] = owns;
                context.frame.differ(reason);
            }
            None => context.frame.refuse(reason),
        }
    }
    known.sort_unstable_by_key(|&(_, row, _)| row);
    for (signature, row, group) in known {
        let reason = changed(input, &signature);
        if remove_group(context, &signature, row, &group)? {
            context.frame.differ(reason);
        } else {
            context.frame.refuse(reason);
        }
    }
    Ok(())
}

fn changed(input: &Input, signature: &[u8]) -> GateReason {
    let group = String::from_utf8_lossy(signature).into_owned();
    GateReason::ComdatChanged { group, input: input.object.name.clone() }
}

/// A row for a new group, and whether its object owns it; `None` if it would have to take it from another one.
fn add_group(context: &mut Context<'_>, input: &Input, signature: &[u8]) -> Result<Option<bool>, StoreError> {
    if let Some(owner) = context.owners.get(signature).copied().filter(|owner| owner.input == input.row) {
        let Some(row) = context.take_group(input.row)? else { return Ok(None) };
        let name = context.add_name(signature);
        let record = GroupRecord { signature: name, input: input.row, owner: 1, copies: owner.copies };
        context.plan.groups.insert(row, record);
        return Ok(context.index_group(signature, row).then_some(true));
    }
    let owner = find_owner(context, signature)?;
    if owner.is_none() && context.owners.contains_key(signature) {
        // Its owner is behind it in the frame, and before it in the link.
        return Ok(None);
    }
    if let Some((_, record)) = owner
        && !context.is_before(record.input, input.row)?
    {
        return Ok(None);
    }
    let Some(row) = context.take_group(input.row)? else { return Ok(None) };
    let name = context.add_name(signature);
    let record =
        GroupRecord { signature: name, input: input.row, owner: u32::from(owner.is_none()), copies: 0 };
    context.plan.groups.insert(row, record);
    match owner {
        Some((owner, record)) => {
            context.plan.groups.insert(owner, GroupRecord { copies: record.copies + 1, ..record });
        }
        None if !context.index_group(signature, row) => return Ok(None),
        None => {}
    }
    Ok(Some(owner.is_none()))
}

/// Plans that a group goes; `false` if another object's copy would have to take its place.
fn remove_group(
    context: &mut Context<'_>,
    signature: &[u8],
    row: u32,
    group: &GroupRecord,
) -> Result<bool, StoreError> {
    if group.owner != 0 {
        let now = context.plan.groups.get(&row).copied().unwrap_or(*group);
        if now.copies != 0 {
            return Ok(false);
        }
    } else if let Some((owner, record)) = find_owner(context, signature)? {
        context.plan.groups.insert(owner, GroupRecord { copies: record.copies.saturating_sub(1), ..record });
    } else if let Some(owner) = context.owners.get_mut(signature) {
        owner.copies = owner.copies.saturating_sub(1);
    }
    context.plan.groups.insert(row, vacant_group());
    Ok(true)
}

impl Context<'_> {
    /// Notes which row owns a signature; `false` if the index has no room for it.
    pub(super) fn index_group(&mut self, signature: &[u8], row: u32) -> bool {
        let entries = &mut self.plan.image.group_entries;
        *entries += 1;
        self.plan.new_signatures.insert(signature.to_vec(), row);
        u64::from(*entries) * 4 <= u64::from(self.store.group_slots.len()) * 3
    }
}

/// The row of the group that owns a signature.
pub(super) fn find_owner(
    context: &Context<'_>,
    signature: &[u8],
) -> Result<Option<(u32, GroupRecord)>, StoreError> {
    let (store, plan) = (context.store, &*context.plan);
    if let Some(&row) = plan.new_signatures.get(signature) {
        return Ok(plan.groups.get(&row).map(|group| (row, *group)));
    }
    let len = store.group_slots.len();
    let mut slot = hash_name(signature) as u32 & len.wrapping_sub(1);
    for _ in 0..len {
        let entry = store.group_slots.get(slot)?;
        let Some(row) = entry.checked_sub(1) else { return Ok(None) };
        let group = match plan.groups.get(&row) {
            Some(group) => *group,
            None => store.groups.get(row)?,
        };
        // A vacant row in the index is a group that went; the chain goes on behind it.
        if group.owner == 1 && name_of(store, plan, group.signature)? == signature {
            return Ok(Some((row, group)));
        }
        slot = (slot + 1) & (len - 1);
    }
    Ok(None)
}
