//! The rows of the store: flat, little-endian, the same in memory and in the state file.

#![expect(missing_debug_implementations, reason = "zerocopy's derive makes helper types without Debug")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::rows::{
    AtomRow, CieRow, FdeRow, FileRow, InputRow, IslandRow, PoolRow, RelocRow, SectionRow, Span, SymbolRow,
    Target,
};

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

records! {
    /// A file of the command line. Its row stays when others come or go in front of it.
    FileRecord = 88 {
        /// Name as given, in the string column.
        name: Span,
        /// Its loaded objects: one for an object file, the pulled members of an archive, some of which may have gone.
        inputs: Span,
        /// Device number.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Size, bytes.
        size: u64,
        /// Modification time, nanoseconds.
        mtime_ns: i64,
        /// Time of the last change of any kind, nanoseconds.
        changed_ns: i64,
        /// [`file_flags`].
        flags: u32,
        /// Number of members (archives).
        members: u32,
        /// xxh3 of an archive's names and members' layout, to notice a change of its index.
        index_hash: u64,
        /// xxh3 of the name that the output needs a shared library by, if that is its path; 0 otherwise.
        needed_hash: u64,
        /// Rows of members that frames pulled; some may be unused.
        more_inputs: Span,
    }
    /// A loaded object.
    InputRecord = 112 {
        /// `a.o` or `libx.a(m.o)`.
        name: Span,
        /// The file that it came from; none if the row is unused.
        file: FileRow,
        /// Ordinal of the member in its archive; 0 for a plain object.
        member: u32,
        /// Its sections that are placed, dropped or mere debug contributions, in section order.
        atoms: Span,
        /// Its local symbols in symbol order: named ones and files, not section symbols.
        locals: Span,
        /// Its global symbols in symbol order: rows in the column `globals`.
        globals: Span,
        /// Its frame descriptions in the order of its `.eh_frame`.
        fdes: Span,
        /// Its COMDAT groups: rows in the column `groups`.
        groups: Span,
        /// `GNU_PROPERTY_X86_FEATURE_1_AND`, or `!0` for none.
        feature_1_and: u32,
        /// Other properties, folded: ISA needs, stack note.
        properties: u32,
        /// xxh3 of the object's bytes, to prove a touched file unchanged without a parse.
        bytes_hash: u64,
        /// Rows of atoms that frames brought; some may be vacant. So are the other spans of this kind.
        more_atoms: Span,
        /// See above.
        more_locals: Span,
        /// See above.
        more_globals: Span,
        /// See above.
        more_fdes: Span,
        /// See above.
        more_groups: Span,
    }
    /// The smallest thing that is placed.
    AtomRecord = 72 {
        /// Name of the input section.
        name: Span,
        /// The object; none for what the linker makes.
        input: InputRow,
        /// Index of the section in the object, as it was when last parsed.
        section: u32,
        /// The section of the image; none if dropped.
        output: SectionRow,
        /// [`atom_flags`].
        flags: u32,
        /// Where it is: a virtual address, or the offset in a section without addresses.
        address: u64,
        /// Bytes in use.
        size: u64,
        /// Bytes reserved; `capacity - size` is slack.
        capacity: u64,
        /// Its relocations.
        relocs: Span,
        /// First relocation that refers to it by its section symbol.
        first_incoming: RelocRow,
        /// The jump at its first slot.
        island: IslandRow,
        /// `sh_type`.
        kind: u32,
        /// Exponent of the alignment.
        align: u32,
    }
    /// A name or a label.
    SymbolRecord = 64 {
        /// Name in the string column.
        name: Span,
        /// The object that defines it; for a lazy or shared one the file row of the archive or library. A lazy one without a row:
        /// the archives have to be asked.
        input: InputRow,
        /// The atom that holds it, or one of [`place`].
        atom: AtomRow,
        /// Offset in the atom, an absolute value, or a library's symbol index.
        value: u64,
        /// `st_size`.
        size: u64,
        /// `st_info`.
        info: u8,
        /// `st_other`.
        other: u8,
        /// [`symbol_flags`].
        flags: u16,
        /// 1 + its slot in `.got`; 0 for none.
        got: u32,
        /// 1 + its entry in the PLT; 0 for none.
        plt: u32,
        /// Index in `.symtab`; 0 for none.
        symtab: u32,
        /// First relocation that refers to it.
        first_incoming: RelocRow,
        /// Index in `.dynsym`; 0 for none.
        dynsym: u32,
        /// 1 + its GOT pair of module and offset; 0 for none.
        tls_pair: u32,
        /// 1 + its TLS descriptor; 0 for none.
        tls_descriptor: u32,
    }
    /// A global symbol as an object's own table has it.
    GlobalRecord = 16 {
        /// The name's row.
        symbol: SymbolRow,
        /// `st_info`.
        info: u8,
        /// `st_other`.
        other: u8,
        /// [`global_state`].
        state: u16,
        /// `store::hash_name` of the name: an unchanged reference is matched without a look at the symbol.
        name_hash: u64,
    }
    /// A relocation as it was applied, after relaxation.
    RelocRecord = 32 {
        /// The atom that holds the field.
        atom: AtomRow,
        /// Offset of the field in the atom.
        offset: u32,
        /// What it refers to.
        target: Target,
        /// `relink_formats::reloc::Op`.
        op: u16,
        /// [`reloc_flags`].
        flags: u16,
        /// Addend as applied.
        addend: i64,
        /// The relocation before this one in the list of the target's incoming ones.
        previous: RelocRow,
        /// The one behind it.
        next: RelocRow,
    }
    /// A section of the image.
    SectionRecord = 72 {
        /// Name in the string column.
        name: Span,
        /// `sh_addr`; 0 for a section without addresses.
        address: u64,
        /// `sh_offset`.
        offset: u64,
        /// `sh_size`.
        size: u64,
        /// Bytes reserved in the file, from `offset`; what is above `size` is the tail.
        capacity: u64,
        /// `sh_flags`.
        flags: u64,
        /// `sh_type`.
        kind: u32,
        /// Exponent of the alignment.
        align: u32,
        /// Index of its header.
        index: u32,
        /// `relink_formats::dwarf::DebugSection` or a [`section_role`].
        role: u32,
        /// Free bytes in it that were in use before.
        dead_bytes: u64,
    }
    /// A free range of a section, the address of its atoms being the unit. The column that it is in tells its level.
    FreeRecord = 24 {
        /// The section.
        section: SectionRow,
        /// Unused.
        reserved: u32,
        /// First free address or offset.
        start: u64,
        /// Bytes; 0 for an unused row.
        len: u64,
    }
    /// A frame description entry in the image.
    FdeRecord = 24 {
        /// The code that it describes.
        atom: AtomRow,
        /// Offset of `pc_begin`'s target in the atom.
        start: u32,
        /// Offset in `.eh_frame`.
        offset: u32,
        /// Its length with the length word, and what a later one may use there.
        capacity: u32,
        /// Its CIE.
        cie: CieRow,
        /// The object that it came from.
        input: InputRow,
    }
    /// A common information entry in the image.
    CieRecord = 16 {
        /// Offset in `.eh_frame`.
        offset: u32,
        /// Length with the length word.
        len: u32,
        /// The personality routine.
        personality: Target,
        /// Offset of the personality pointer in the entry.
        personality_offset: u32,
    }
    /// A jump left at an atom's first slot.
    IslandRecord = 40 {
        /// The atom that went away.
        atom: AtomRow,
        /// Index of its symbol in `.symtab`.
        symtab: u32,
        /// Where it stands.
        address: u64,
        /// Bytes of the jump.
        size: u32,
        /// Its frame description.
        fde: FdeRow,
        /// Bytes of the slot that it keeps.
        capacity: u64,
        /// The symbol whose entry it is.
        symbol: SymbolRow,
        /// Unused.
        reserved: u32,
    }
    /// A pool of merged pieces.
    PoolRecord = 48 {
        /// The atom that holds its bytes.
        atom: AtomRow,
        /// Bytes a character or constant.
        entsize: u32,
        /// 1 for strings.
        strings: u32,
        /// Exponent of the pieces' alignment.
        align: u32,
        /// Bytes in use.
        used: u64,
        /// The part of the column `pool_slots` that is its index: a power of two.
        slots: Span,
        /// Pieces in it.
        pieces: u32,
        /// Unused.
        reserved: u32,
        /// The section of the image.
        output: SectionRow,
        /// The pool's own row, to catch a mix-up.
        row: PoolRow,
    }
    /// A COMDAT group of an object.
    GroupRecord = 20 {
        /// Its signature in the string column.
        signature: Span,
        /// The object.
        input: InputRow,
        /// 1 if this object owns it.
        owner: u32,
        /// Other objects that hold it; the owner's row counts them.
        copies: u32,
    }
    /// Facts of the whole image, one row.
    ImageRecord = 288 {
        /// Bytes of the image.
        len: u64,
        /// File offset of the build-id's descriptor; 0 for none.
        build_id_offset: u64,
        /// Its length.
        build_id_len: u64,
        /// Thread pointer: the aligned end of the TLS block.
        tp: u64,
        /// Start of the TLS block.
        tls_start: u64,
        /// Value of `_GLOBAL_OFFSET_TABLE_`.
        got_base: u64,
        /// Address of `.got`.
        got_address: u64,
        /// Address of the first entry that is called of the PLT.
        plt_address: u64,
        /// Address of the GOT pairs of thread-local symbols.
        tls_pairs: u64,
        /// Address of the TLS descriptors.
        tls_descriptors: u64,
        /// Address of the GOT pair of this module.
        tls_module: u64,
        /// File offset of the section headers.
        section_headers: u64,
        /// Frame number, 0 for the cold link.
        generation: u64,
        /// Frames that patched since the cold link.
        patches: u64,
        /// Section rows of the parts that frames touch.
        eh_frame: SectionRow,
        /// See above.
        eh_frame_hdr: SectionRow,
        /// See above.
        symtab: SectionRow,
        /// See above.
        strtab: SectionRow,
        /// See above.
        rela_dyn: SectionRow,
        /// See above.
        dynsym: SectionRow,
        /// Entries of `.rela.dyn` that are RELATIVE; they stand first.
        relative_relocs: u32,
        /// See above.
        debug_abbrev: SectionRow,
        /// First free index of the hole of null locals in `.symtab`.
        next_local: u32,
        /// End of the hole.
        locals_end: u32,
        /// Entries in `.eh_frame_hdr`.
        hdr_entries: u32,
        /// Entries that fit.
        hdr_capacity: u32,
        /// Offset of the filler abbreviations in `.debug_abbrev`.
        filler_abbrev: u32,
        /// Offset of the permanent filler unit in `.debug_info`.
        filler_unit: u32,
        /// 4 or 5.
        filler_version: u32,
        /// [`image_flags`].
        flags: u32,
        /// Global symbols.
        globals: u32,
        /// The symbol that execution starts at.
        entry: SymbolRow,
        /// Slots of `.got` that symbols have; those behind them are spare.
        got_used: u32,
        /// All slots of `.got`.
        got_slots: u32,
        /// Of the RELATIVE entries of `.rela.dyn` those at its start that stand in the order of their places. Behind them are spare
        /// ones.
        sorted_relocs: u32,
        /// Entries in use in `name_slots`.
        name_entries: u32,
        /// Entries in use in `group_slots`, those of groups that are gone included.
        group_entries: u32,
        /// Files of the command line.
        places: u32,
        /// Unused.
        reserved: u32,
        /// Section rows of the other tables of dynamic symbols.
        dynstr: SectionRow,
        /// See above.
        gnu_hash: SectionRow,
        /// See above.
        hash: SectionRow,
        /// See above.
        versym: SectionRow,
        /// See above.
        verneed: SectionRow,
        /// See above.
        dynamic: SectionRow,
        /// The part of the PLT that is called.
        plt: SectionRow,
        /// The part that binds late, if that is another one.
        lazy_plt: SectionRow,
        /// See above.
        got_plt: SectionRow,
        /// See above.
        rela_plt: SectionRow,
        /// The part of the column `owners` that says whose each entry of `.dynsym` is, with room for those that come.
        dynsym_owners: Span,
        /// The same of `.got`.
        got_owners: Span,
        /// The same of the PLT.
        plt_owners: Span,
        /// First entry of `.dynsym` that `.gnu.hash` holds.
        first_hashed: u32,
        /// First entry of `.dynsym` that is not local.
        dynsym_locals: u32,
        /// Entries of the PLT that have relocations; those behind them are spare.
        plt_used: u32,
    }
}

/// How an object's symbol table has a global name.
pub mod global_state {
    /// A reference.
    pub const UNDEFINED: u16 = 0;
    /// A definition in a section.
    pub const DEFINED: u16 = 1;
    /// A common symbol.
    pub const COMMON: u16 = 2;
    /// An absolute value.
    pub const ABSOLUTE: u16 = 3;
}

/// Flags of [`FileRecord`].
pub mod file_flags {
    /// The identity fields are valid.
    pub const IDENTITY: u32 = 1;
    /// It is an archive.
    pub const ARCHIVE: u32 = 2;
    /// `--whole-archive`.
    pub const WHOLE: u32 = 4;
    /// It is a shared library; `index_hash` is that of its interface.
    pub const SHARED: u32 = 8;
    /// `--as-needed`.
    pub const AS_NEEDED: u32 = 0x10;
    /// The row is unused: its file is gone from the command line.
    pub const VACANT: u32 = 0x20;
}

/// Flags of [`ImageRecord`].
pub mod image_flags {
    /// It may be loaded at any address.
    pub const POSITION_INDEPENDENT: u32 = 1;
    /// A shared library.
    pub const SHARED: u32 = 2;
    /// A loader binds its names.
    pub const DYNAMIC: u32 = 4;
    /// What nothing defines is left to the loader.
    pub const UNDEFINED_ALLOWED: u32 = 8;
    /// `-z notext`.
    pub const TEXT_RELOCATIONS: u32 = 0x10;
    /// RELATIVE relocations of even places stand in `.relr.dyn`.
    pub const PACKED_RELATIVE: u32 = 0x20;
    /// The full link had warnings.
    pub const WARNED: u32 = 0x40;
}

/// Flags of [`AtomRecord`].
pub mod atom_flags {
    /// Placed in the image.
    pub const LIVE: u32 = 1;
    /// Machine code.
    pub const CODE: u32 = 2;
    /// Writable.
    pub const WRITE: u32 = 4;
    /// Takes addresses at run time.
    pub const ALLOC: u32 = 8;
    /// No bytes in the file.
    pub const NOBITS: u32 = 0x10;
    /// A debug contribution.
    pub const DEBUG: u32 = 0x20;
    /// Thread-local.
    pub const TLS: u32 = 0x40;
    /// Its size may not change: ordered or bounded by `__start_`/`__stop_`.
    pub const EXACT: u32 = 0x80;
    /// In a COMDAT group that another object owns.
    pub const DISCARDED: u32 = 0x100;
    /// Dropped by garbage collection.
    pub const DEAD: u32 = 0x200;
    /// Made by the linker.
    pub const SYNTHETIC: u32 = 0x400;
    /// Mergeable: its pieces are in a pool.
    pub const MERGE: u32 = 0x800;
    /// In a COMDAT group.
    pub const COMDAT: u32 = 0x1000;
    /// Kept for its presence or bytes only; any change is a full link (notes and the like).
    pub const FIXED: u32 = 0x2000;
    /// An `.eh_frame` section: split into CIEs and FDEs.
    pub const EH_FRAME: u32 = 0x4000;
    /// A common symbol's storage.
    pub const COMMON: u32 = 0x8000;
    /// Read-only once the loader is done.
    pub const RELRO: u32 = 0x1_0000;
    /// The row is unused: its section is gone from the object.
    pub const VACANT: u32 = 0x2_0000;
}

/// What a symbol's `atom` says when it is no atom.
pub mod place {
    use crate::rows::AtomRow;
    /// Nothing defines it.
    pub const UNDEFINED: AtomRow = AtomRow(u32::MAX);
    /// `value` is its address.
    pub const ABSOLUTE: AtomRow = AtomRow(u32::MAX - 1);
    /// An archive's member would define it, but nothing has pulled it. As far as is known: an archive may have lost it since.
    pub const LAZY: AtomRow = AtomRow(u32::MAX - 2);
    /// A shared library defines it.
    pub const SHARED: AtomRow = AtomRow(u32::MAX - 3);
    /// The row is unused: the symbol is gone from its object.
    pub const VACANT: AtomRow = AtomRow(u32::MAX - 4);
    /// Whether a row is a real atom.
    pub const fn is_atom(row: AtomRow) -> bool {
        row.0 < u32::MAX - 4
    }
}

/// Flags of [`SymbolRecord`].
pub mod symbol_flags {
    /// Global or weak: resolved by name.
    pub const GLOBAL: u16 = 1;
    /// Defined by the linker.
    pub const LINKER_DEFINED: u16 = 2;
    /// A loaded object refers to it, or did since the last full link: a patch sets this, and takes it back only from imports.
    pub const REFERENCED: u16 = 4;
    /// All references to it are weak.
    pub const WEAK_REFERENCE: u16 = 8;
    /// Defined by an IFUNC resolver.
    pub const IFUNC: u16 = 0x10;
    /// Thread-local.
    pub const TLS: u16 = 0x20;
    /// A library of the command line offers the name as well: what no object defines is taken from there.
    pub const OFFERED: u16 = 0x40;
    /// A common symbol.
    pub const COMMON: u16 = 0x80;
    /// Fixed by an option: `--defsym`, `-u`, `-e`.
    pub const OPTION: u16 = 0x100;
    /// Several candidates: other objects define it as well; or an archive offers what another object defines, or, beside a
    /// shared library, what none does: then the place of the first mention decides.
    pub const CONTESTED: u16 = 0x200;
    /// Another module's definition may prevail at load time.
    pub const PREEMPTIBLE: u16 = 0x400;
    /// A shared library's datum whose storage is a copy in this image.
    pub const COPIED: u16 = 0x800;
    /// Its PLT entry is its address for everyone.
    pub const CANONICAL_PLT: u16 = 0x1000;
    /// An archive's member offers the name, and a shared library behind it.
    pub const MEMBER: u16 = 0x200;
    /// Other modules may refer to it.
    pub const EXPORTED: u16 = 0x2000;
    /// A live atom refers to it.
    pub const USED: u16 = 0x4000;
    /// Not only by weak references.
    pub const STRONG: u16 = 0x8000;
}

/// Flags of [`RelocRecord`].
pub mod reloc_flags {
    /// The field still holds the address of the target's island.
    pub const VIA_ISLAND: u16 = 1;
    /// The row is unused.
    pub const DEAD: u16 = 2;
    /// The place is in a debug contribution.
    pub const DEBUG: u16 = 4;
    /// A dynamic relocation (RELATIVE) goes with it.
    pub const DYNAMIC: u16 = 8;
    /// A dynamic relocation that names its target goes with it.
    pub const SYMBOLIC: u16 = 0x10;
    /// The object refers to the target weakly, and has no definition of it.
    pub const WEAK: u16 = 0x20;
}

/// Roles of sections that are no debug section.
pub mod section_role {
    /// Nothing special.
    pub const PLAIN: u32 = 0x100;
    /// `.eh_frame`.
    pub const EH_FRAME: u32 = 0x101;
    /// Zero-filled, not in the file.
    pub const NOBITS: u32 = 0x102;
    /// Code: free bytes trap.
    pub const CODE: u32 = 0x103;
}
