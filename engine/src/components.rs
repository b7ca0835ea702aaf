//! What the world holds during a warm frame: the changed inputs, and what follows from them. Plain facts, no logic.
//!
//! Relocations live in a pool: entities of one archetype that frames overwrite instead of spawning anew, since a
//! spawned and despawned relocation costs 0.21-0.36 µs and a pooled one 0.05-0.22.

use bevy_ecs::prelude::{Component, Entity, Resource};

use crate::program::Object;
use crate::records::{AtomRecord, InputRecord, RelocRecord, SymbolRecord};
use crate::rows::{AtomRow, FdeRow, InputRow, RelocRow, SymbolRow};

/// What becomes of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It has a place on the command line, as before.
    #[default]
    Stays,
    /// It had none.
    Comes,
    /// It has none any more: its new object is empty.
    Goes,
}

/// A changed input: what the store has of it, and what was parsed now.
#[derive(Component, Debug)]
pub struct Input {
    /// Its row.
    pub row: InputRow,
    /// Whether it comes or goes.
    pub fate: Fate,
    /// The row's contents; without rows if it is new.
    pub record: InputRecord,
    /// The new object, with its sections and symbols matched to the store's rows.
    pub object: Object,
    /// The rows of the object's FDEs, in their order.
    pub fde_rows: Vec<FdeRow>,
}

/// An atom of a changed input.
#[derive(Component, Clone, Copy, Debug)]
pub struct Atom {
    /// Its row.
    pub row: AtomRow,
    /// The input's entity.
    pub input: Entity,
    /// Section of the new object.
    pub section: u32,
    /// The row's contents before the frame; those that it starts from if it is new.
    pub old: AtomRecord,
    /// It has no slot yet.
    pub unplaced: bool,
    /// Exponent of the alignment that it needs now.
    pub align: u32,
}

/// Where an atom is after the frame.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Address, or the offset in a section without addresses.
    pub address: u64,
    /// Bytes reserved.
    pub capacity: u64,
    /// Bytes in use.
    pub size: u64,
}

/// The atom's slot is not the one that it had.
#[derive(Component, Clone, Copy, Debug)]
#[component(storage = "SparseSet")]
pub struct Moved;

/// A symbol of a changed input whose address or size changes.
#[derive(Component, Clone, Copy, Debug)]
pub struct Symbol {
    /// Its row.
    pub row: SymbolRow,
    /// Before the frame.
    pub old: SymbolRecord,
    /// After it.
    pub new: SymbolRecord,
}

/// A relocation that the frame applies: of a changed input, or a site elsewhere whose target has moved.
#[derive(Component, Clone, Copy, Debug, Default)]
pub struct Relocation {
    /// The row that it rewrites; none for one that is new.
    pub row: RelocRow,
    /// Its new contents.
    pub record: RelocRecord,
}

/// The pool of relocation entities; the first `used` of them belong to this frame.
#[derive(Debug, Default, Resource)]
pub struct RelocationPool {
    /// All that were ever spawned.
    pub entities: Vec<Entity>,
    /// How many this frame uses.
    pub used: usize,
}
