//! What a warm frame intends: rows that would change, and lists that travel from set to set.

use bevy_ecs::prelude::{Entity, Resource};
use formats::archive::{Archive, Member};
use formats::shared_object::SharedObject;
use hashbrown::HashMap;
use relink_formats as formats;

use crate::records::{
    AtomRecord, FdeRecord, FileRecord, FreeRecord, GlobalRecord, GroupRecord, ImageRecord, InputRecord,
    IslandRecord, PoolRecord, SectionRecord, SymbolRecord,
};
use crate::rows::{AtomRow, FdeRow, FileRow, PoolRow, RelocRow, SectionRow, SymbolRow};

/// A piece that is new in a pool.
#[derive(Clone, Debug)]
pub struct NewPiece {
    /// The pool.
    pub pool: PoolRow,
    /// Where it goes.
    pub offset: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An island to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewIsland {
    /// Its row; none for a new one.
    pub row: crate::rows::IslandRow,
    /// Its contents.
    pub record: IslandRecord,
}

/// Free ranges by level ([`crate::policy::FreeLevel`]), in the order of the store's rows; those of length 0 are unused.
#[derive(Clone, Debug, Default)]
pub struct FreeSpace {
    /// Ranges shorter than a file block.
    pub slots: Vec<FreeRecord>,
    /// Longer ones.
    pub blocks: Vec<FreeRecord>,
}

/// Where columns end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are columns of `Store`")]
pub struct RowEnds {
    pub files: u32,
    pub inputs: u32,
    pub atoms: u32,
    pub symbols: u32,
    pub globals: u32,
    pub fdes: u32,
    pub groups: u32,
}

/// An entry of the image's `.symtab` that goes.
#[derive(Clone, Copy, Debug)]
pub struct OldSymbol {
    /// Its index.
    pub index: u32,
    /// Whether it stands among the local ones.
    pub local: bool,
}

/// A set of address ranges whose unit is gone.
#[derive(Clone, Copy, Debug)]
pub struct EmptySet {
    /// `.debug_aranges`.
    pub section: SectionRow,
    /// Where the set is.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
    /// `.debug_info`.
    pub units: SectionRow,
    /// Where the unit is that it names from now on.
    pub unit: u64,
}

/// An archive of the command line that a frame looked into.
#[derive(Debug)]
pub struct OpenedArchive {
    /// Its bytes.
    pub archive: Archive,
    /// Its members, in order.
    pub members: Vec<Member>,
    /// The member that it offers a name by, as the first entry of its index says: ordinals by `store::hash_name`.
    pub offers: HashMap<u64, u32>,
}

/// The plan of a frame. Nothing of it is in store or image before Commit.
#[derive(Debug, Default, Resource)]
pub struct Plan {
    /// Facts of the image after the frame.
    pub image: ImageRecord,
    /// Files by row, as they will be: those found unchanged under a new identity, and those that changed.
    pub files: HashMap<u32, FileRecord>,
    /// The file at each place of the command line, if inputs come or go.
    pub order: Option<Vec<FileRow>>,
    /// Hashes of the changed inputs' bytes.
    pub input_hashes: Vec<(u32, u64)>,
    /// The changed inputs.
    pub inputs: Vec<Entity>,
    /// Their atoms.
    pub atom_entities: Vec<Entity>,
    /// Their symbols that change.
    pub symbol_entities: Vec<Entity>,
    /// Atoms by row, as they will be.
    pub atoms: HashMap<u32, AtomRecord>,
    /// Symbols by row, as they will be.
    pub symbols: HashMap<u32, SymbolRecord>,
    /// Pools by row, as they will be.
    pub pools: HashMap<u32, PoolRecord>,
    /// New pieces.
    pub pieces: Vec<NewPiece>,
    /// Sections by row, as they will be.
    pub sections: HashMap<u32, SectionRecord>,
    /// All free ranges, once one of them is asked for.
    pub free: Option<FreeSpace>,
    /// Atoms that left their slots: row, old record.
    pub moved: Vec<(AtomRow, AtomRecord)>,
    /// Slots that became free: address and length in a section.
    pub freed: Vec<(SectionRow, u64, u64)>,
    /// Sets of address ranges that stay as empty ones.
    pub emptied: Vec<EmptySet>,
    /// What is left of free ranges that were split.
    pub refilled: Vec<(SectionRow, u64, u64)>,
    /// Islands to write.
    pub islands: Vec<NewIsland>,
    /// Relocation rows of unchanged atoms whose flags change.
    pub reloc_flags: Vec<(RelocRow, u16)>,
    /// The changed atoms' relocations: their entities in the pool, by atom.
    pub relocs: Vec<(AtomRow, std::ops::Range<usize>)>,
    /// FDEs that change or are new (none as row).
    pub fdes: Vec<(FdeRow, FdeRecord)>,
    /// Entries of `.eh_frame_hdr` that go: address of the code, offset of the FDE.
    pub hdr_removed: Vec<(u64, u32)>,
    /// Entries that come: the same.
    pub hdr_added: Vec<(u64, u32)>,
    /// Nodes of the digest tree that change.
    pub digests: Vec<(u64, [u8; 32])>,
    /// Symbols whose entry in `.symtab` is to be written.
    pub written_symbols: Vec<SymbolRow>,
    /// Bytes of names that the frame brings; they will stand behind those of the store.
    pub names: Vec<u8>,
    /// Records of inputs that come, go, or whose spans of rows grow, as they will be.
    pub input_records: HashMap<u32, InputRecord>,
    /// Rows of the columns after the frame, if any of them grows.
    pub ends: RowEnds,
    /// Mentions of global names by row, as they will be.
    pub globals: HashMap<u32, GlobalRecord>,
    /// COMDAT groups by row, as they will be.
    pub groups: HashMap<u32, GroupRecord>,
    /// Global names that the frame brings.
    pub new_names: HashMap<Vec<u8>, SymbolRow>,
    /// Signatures whose owners the frame brings, by row of the group.
    pub new_signatures: HashMap<Vec<u8>, u32>,
    /// Atoms whose sections are gone, with the records that they had.
    pub removed_atoms: Vec<(AtomRow, AtomRecord)>,
    /// Symbols that are in `.symtab` for the first time.
    pub added_symbols: Vec<SymbolRow>,
    /// Entries of `.symtab` that go.
    pub removed_symbols: Vec<OldSymbol>,
    /// Owners of table entries by row, as they will be.
    pub owners: HashMap<u32, u32>,
    /// New definitions that other modules may look up, and what `.gnu.version` says of each.
    pub exports: Vec<(SymbolRow, u16)>,
    /// Definitions that go and have entries in tables of the loader, as they were.
    pub dropped_exports: Vec<(SymbolRow, SymbolRecord)>,
    /// Archives that were looked into, by file.
    pub archives: HashMap<u32, OpenedArchive>,
    /// Shared libraries that were looked into, by file.
    pub libraries: HashMap<u32, SharedObject>,
    /// FDEs that go: row, record, address of their code.
    pub removed_fdes: Vec<(FdeRow, FdeRecord, u64)>,
}
