//! The columns of a cold frame: a whole program, in flat rows, with the parsed inputs that they speak of.

use bevy_ecs::prelude::Resource;
use formats::Bytes;
use formats::archive::Archive;
use formats::expression::Expression;
use formats::object_file::ObjectFile;
use formats::shared_object::SharedObject;
use hashbrown::{HashMap, HashTable};
use relink_formats as formats;

use crate::image::{ImageBytes, ImageMemory};
use crate::options::OutputKind;
use crate::records::{AtomRecord, RelocRecord, SymbolRecord};
use crate::rows::{AtomRow, FileRow, NONE, SectionRow, Span, SymbolRow, Target};
use crate::store::hash_name;

/// A name in one of the program's sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameRef {
    /// Index in [`Names::sources`].
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

/// All global names: interned once, rows in order of first sight.
#[derive(Debug, Default)]
pub struct Names {
    /// What the names lie in; the first is the linker's own.
    pub sources: Vec<Bytes>,
    own: Vec<u8>,
    table: HashTable<u32>,
    /// The name of each global row.
    pub names: Vec<NameRef>,
    hashes: Vec<u64>,
}

impl Names {
    /// Where own names go; the bytes are in `own`, not in a source.
    const OWN: u32 = NONE;

    /// Adds a source and returns its index.
    pub fn add_source(&mut self, bytes: Bytes) -> u32 {
        self.sources.push(bytes);
        self.sources.len() as u32 - 1
    }

    /// The bytes of a name.
    #[inline]
    pub fn bytes(&self, name: NameRef) -> &[u8] {
        let range = name.start as usize..name.start as usize + name.len as usize;
        let source = if name.source == Names::OWN {
            &self.own[..]
        } else {
            self.sources.get(name.source as usize).map_or(&[][..], |bytes| &bytes[..])
        };
        source.get(range).unwrap_or_default()
    }

    /// The name of a global row.
    pub fn of(&self, row: SymbolRow) -> &[u8] {
        self.names.get(row.index()).map_or(&[], |&name| self.bytes(name))
    }

    /// The row of a name, new or known.
    pub fn intern(&mut self, name: NameRef, hash: u64) -> SymbolRow {
        let Names { sources, own, table, names, hashes } = self;
        let bytes_of = |name: NameRef| {
            let range = name.start as usize..name.start as usize + name.len as usize;
            let source =
                if name.source == Names::OWN { &own[..] } else { &sources[name.source as usize][..] };
            &source[range]
        };
        let bytes = bytes_of(name);
        let entry = table.entry(
            hash,
            |&row| hashes[row as usize] == hash && bytes_of(names[row as usize]) == bytes,
            |&row| hashes[row as usize],
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => SymbolRow(*entry.get()),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let row = names.len() as u32;
                entry.insert(row);
                names.push(name);
                hashes.push(hash);
                SymbolRow(row)
            }
        }
    }

    /// The row of one of the linker's own names, new or known.
    pub fn intern_own(&mut self, name: &[u8]) -> SymbolRow {
        if let Some(row) = self.find(name) {
            return row;
        }
        let start = self.own.len() as u32;
        self.own.extend_from_slice(name);
        self.intern(NameRef { source: Names::OWN, start, len: name.len() as u32 }, hash_name(name))
    }

    /// The row of a name, if it is known.
    pub fn find(&self, name: &[u8]) -> Option<SymbolRow> {
        let hash = hash_name(name);
        let same = |&row: &u32| self.hashes[row as usize] == hash && self.of(SymbolRow(row)) == name;
        self.table.find(hash, same).map(|&row| SymbolRow(row))
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The hash of a row's name.
    pub fn hash(&self, row: SymbolRow) -> u64 {
        self.hashes[row.index()]
    }
}

/// What becomes of a section of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SectionUse {
    /// Not part of the image: symbol tables, relocations, groups, markers.
    #[default]
    None,
    /// Placed as a whole (or dropped: see the atom's flags).
    Atom(AtomRow),
    /// Cut into pieces; the index is into [`Object::merges`].
    Merge(AtomRow, u32),
    /// Cut into CIEs and FDEs.
    EhFrame(AtomRow),
}

impl SectionUse {
    /// The atom row, whatever the use.
    pub fn atom(self) -> Option<AtomRow> {
        match self {
            SectionUse::None => None,
            SectionUse::Atom(row) | SectionUse::Merge(row, _) | SectionUse::EhFrame(row) => Some(row),
        }
    }
}

/// A mergeable section and where its pieces went.
#[derive(Clone, Debug, Default)]
pub struct MergeInput {
    /// Section of the object.
    pub section: u32,
    /// Bytes of the section.
    pub size: u64,
    /// Index of the pool; [`NONE`] while it is unknown or if the section is dropped.
    pub pool: u32,
    /// Start of each piece in the section, ascending.
    pub starts: Vec<u32>,
    /// Where each is in the pool.
    pub offsets: Vec<u32>,
    /// For each granule of the section, how many pieces start at or before its first byte. Empty if there are few.
    granules: Vec<u32>,
}

/// Bytes of a granule: about one string of a C++ unit's debug information, several of a C unit's.
const GRANULE_BYTES: u64 = 64;
/// Pieces from which on an index of granules is made: a bisection of fewer takes no longer.
const INDEXED_PIECES_MIN: usize = 32;

impl MergeInput {
    /// A section that no pool has taken yet.
    pub fn new(section: u32, size: u64) -> MergeInput {
        MergeInput { section, size, pool: NONE, ..MergeInput::default() }
    }

    /// Takes the start of each piece.
    ///
    /// Of a large section a step of a bisection is a cache miss, and debug information has more references than strings:
    /// with 81,264 to 47,449 of them [`MergeInput::map`] was the most expensive function of a patch.
    pub fn set_starts(&mut self, starts: Vec<u32>) {
        self.granules.clear();
        if starts.len() >= INDEXED_PIECES_MIN {
            let mut piece = 0;
            self.granules.extend((0..=self.size / GRANULE_BYTES).map(|granule| {
                while starts.get(piece).is_some_and(|&start| u64::from(start) <= granule * GRANULE_BYTES) {
                    piece += 1;
                }
                piece as u32
            }));
        }
        self.starts = starts;
    }

    /// The offset in the pool of an offset in the section; `None` if that is outside. The end is inside: assemblers
    /// write a label behind the last piece as section and size.
    pub fn map(&self, offset: u64) -> Option<u64> {
        if offset > self.size {
            return None;
        }
        let granule = usize::try_from(offset / GRANULE_BYTES).ok()?;
        let pieces = |granule: usize| self.granules.get(granule).map(|&pieces| pieces as usize);
        let (low, high) = (pieces(granule).unwrap_or(0), pieces(granule + 1).unwrap_or(self.starts.len()));
        let after = self.starts.get(low..high)?.partition_point(|&start| u64::from(start) <= offset);
        let piece = (low + after).checked_sub(1)?;
        let within = offset - u64::from(self.starts[piece]);
        u64::from(*self.offsets.get(piece)?).checked_add(within)
    }
}

/// A CIE or FDE of an object that goes into the image.
#[derive(Clone, Copy, Debug, Default)]
pub struct EhPiece {
    /// Section of the object.
    pub section: u32,
    /// Start in that section.
    pub start: u32,
    /// Bytes with the length word.
    pub len: u32,
    /// Offset in the image's `.eh_frame`.
    pub offset: u32,
    /// Bytes there; at least `len`.
    pub capacity: u32,
    /// Index into [`Program::cies`].
    pub cie: u32,
    /// The code that a FDE describes.
    pub atom: AtomRow,
    /// Offset in it.
    pub atom_offset: u32,
    /// First relocation of the piece, an index into those of the section.
    pub relocs: Span,
}

/// A CIE of the image.
#[derive(Clone, Debug, Default)]
pub struct Cie {
    /// The object whose bytes it has.
    pub object: u32,
    /// Its bytes there.
    pub piece: EhPiece,
    /// Its personality routine.
    pub personality: Target,
    /// Offset of the pointer to it in the entry.
    pub personality_offset: u32,
}

/// A loaded object with what the link knows of it.
#[derive(Debug)]
pub struct Object {
    /// The parsed file.
    pub parsed: ObjectFile,
    /// `a.o` or `libx.a(m.o)`.
    pub name: String,
    /// The file of the command line.
    pub file: FileRow,
    /// Offset in its archive, for the order of members.
    pub member_offset: u64,
    /// Its bytes among the names' sources.
    pub source: u32,
    /// What becomes of each section.
    pub uses: Vec<SectionUse>,
    /// Its atoms.
    pub atoms: Span,
    /// Its local symbols' rows.
    pub locals: Span,
    /// What each symbol refers to, by symbol index.
    pub targets: Vec<Target>,
    /// Its mergeable sections.
    pub merges: Vec<MergeInput>,
    /// Its FDEs that go into the image.
    pub fdes: Vec<EhPiece>,
    /// Which of its groups it owns.
    pub owns: Vec<bool>,
    /// RELATIVE relocations that its atoms need, known after the scan.
    pub dynamic_relocs: u32,
    /// Dynamic relocations of its atoms that name a symbol.
    pub symbolic_relocs: u32,
    /// Offset of its first name in `.strtab`.
    pub strtab: u32,
    /// Index of its first symbol in `.symtab`.
    pub symtab: u32,
}

/// A shared library of the command line.
#[derive(Debug)]
pub struct SharedLibrary {
    /// The parsed file.
    pub parsed: SharedObject,
    /// Its name, for messages.
    pub name: String,
    /// The file of the command line.
    pub file: FileRow,
    /// Its bytes among the names' sources.
    pub source: u32,
    /// What the output's `DT_NEEDED` says.
    pub needed_name: Vec<u8>,
    /// Whether it is named in the output.
    pub needed: bool,
    /// Offset of that name in `.dynstr`.
    pub name_offset: u32,
}

/// Relocations as Relocate applied them, for the store.
#[derive(Debug, Default)]
pub struct Applied {
    /// Atoms, and how many records each has.
    pub atoms: Vec<(AtomRow, u32)>,
    /// The records, atom by atom.
    pub records: Vec<RelocRecord>,
}

/// A section of the image, with its atoms in order.
#[derive(Clone, Debug, Default)]
pub struct OutputSection {
    /// Name.
    pub name: Vec<u8>,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Exponent of the alignment.
    pub align: u8,
    /// `sh_entsize`.
    pub entsize: u64,
    /// Where it stands among the others.
    pub rank: u32,
    /// Atoms in order of address.
    pub atoms: Vec<AtomRow>,
    /// `sh_addr`.
    pub address: u64,
    /// `sh_offset`.
    pub offset: u64,
    /// `sh_size`.
    pub size: u64,
    /// Of its atoms' bytes those at the end that `sh_size` leaves out: room of a table that the loader reads.
    pub tail: u64,
    /// Bytes in the file.
    pub capacity: u64,
    /// Header index; 0 for a section that was left out.
    pub index: u32,
    /// `sh_link`.
    pub link: u32,
    /// `sh_info`.
    pub info: u32,
    /// An option says where it starts: it is the first of its loaded segment.
    pub fixed: bool,
    /// Free ranges: start and length in the unit of its atoms' addresses.
    pub free: Vec<(u64, u64)>,
}

/// A pool of pieces.
#[derive(Debug, Default)]
pub struct Pool {
    /// Name of the output section.
    pub output_name: Vec<u8>,
    /// Flags of it.
    pub flags: u64,
    /// Bytes a character or constant.
    pub entsize: u64,
    /// Strings, not constants.
    pub strings: bool,
    /// Exponent of the alignment.
    pub align: u8,
    /// Its atom.
    pub atom: AtomRow,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its index: offset and length of each piece.
    pub table: HashTable<(u32, u32)>,
}

/// A program header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// `p_offset`.
    pub offset: u64,
    /// `p_vaddr`.
    pub address: u64,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`.
    pub memory_size: u64,
    /// `p_align`.
    pub align: u64,
}

/// Sections that the linker fills by itself, as rows of [`Program::outputs`] or atoms.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "each is named after its section")]
pub struct Synthetic {
    pub got: AtomRow,
    pub got_plt: AtomRow,
    pub plt: AtomRow,
    pub rela: AtomRow,
    pub eh_frame: AtomRow,
    pub eh_frame_hdr: AtomRow,
    pub build_id: AtomRow,
    pub property: AtomRow,
    pub dynamic: AtomRow,
    pub dynsym: AtomRow,
    pub dynstr: AtomRow,
    pub gnu_hash: AtomRow,
    pub hash: AtomRow,
    pub interp: AtomRow,
    pub versym: AtomRow,
    pub verdef: AtomRow,
    pub verneed: AtomRow,
    pub rela_plt: AtomRow,
    pub relr: AtomRow,
    pub lazy_plt: AtomRow,
    pub filler_unit: AtomRow,
    pub filler_abbrev: AtomRow,
    pub symtab: SectionRow,
    pub strtab: SectionRow,
    pub shstrtab: SectionRow,
}

/// The dynamic symbol table and what hangs on it, before its addresses are known.
#[derive(Debug, Default)]
pub struct DynamicTables {
    /// Symbols in the order of `.dynsym`, from index 1 on; none for an entry that imports of later frames may take.
    pub symbols: Vec<SymbolRow>,
    /// Offset of each name in `.dynstr`.
    pub names: Vec<u32>,
    /// `.gnu.version`, the null symbol included.
    pub versions: Vec<u16>,
    /// `.dynstr`.
    pub strings: Vec<u8>,
    /// `.gnu.hash`.
    pub gnu_hash: Vec<u8>,
    /// `.hash`.
    pub hash: Vec<u8>,
    /// `.gnu.version_d` and how many entries it has.
    pub definitions: (Vec<u8>, u32),
    /// `.gnu.version_r` and how many libraries it names.
    pub needs: (Vec<u8>, u32),
    /// `.dynamic` but for what depends on addresses: tag and value or what it stands for.
    pub entries: Vec<(u32, DynamicValue)>,
    /// Names that a `.symver` (`name@@V`) gives their version.
    pub default_versions: Vec<(SymbolRow, Vec<u8>)>,
    /// Versions that a version script gives: index of its node.
    pub scripted_versions: HashMap<SymbolRow, u16>,
    /// The nodes of the version script: name (empty for the anonymous one), and parents.
    pub script_nodes: Vec<(Vec<u8>, Vec<u16>)>,
    /// First entry of `.dynsym` that is not local.
    pub locals: u32,
    /// First entry that `.gnu.hash` holds.
    pub first_hashed: u32,
    /// Entries behind the last one, for later frames.
    pub tail: u32,
}

/// The value of an entry of `.dynamic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicValue {
    /// Itself.
    Word(u64),
    /// Address of a section.
    Address(&'static [u8]),
    /// Size of a section.
    Size(&'static [u8]),
    /// Address of a symbol.
    Symbol(SymbolRow),
    /// Number of RELATIVE relocations.
    RelativeCount,
}

/// What a name in an expression means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// The definition that the name has in the end.
    Name(SymbolRow),
    /// A place: what the inputs defined before an option took the name.
    Place(AtomRow, u64),
}

/// A name that an option defines by an expression: computed once addresses are known.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The name.
    pub name: SymbolRow,
    /// What it is, without what needs no address.
    pub expression: Expression,
    /// Meaning of the symbols in it.
    pub terms: HashMap<String, Term>,
}

/// A whole program.
#[derive(Debug, Default, Resource)]
pub struct Program {
    /// Global names.
    pub names: Names,
    /// Archives of the command line, by file.
    pub archives: Vec<Option<Archive>>,
    /// Objects in link order.
    pub objects: Vec<Object>,
    /// Atoms: each object's in a run, then those that the linker makes.
    pub atoms: Vec<AtomRecord>,
    /// Symbols: the globals, then each object's local ones.
    pub symbols: Vec<SymbolRecord>,
    /// The final address of each symbol: what relocations use.
    pub addresses: Vec<u64>,
    /// How many of the symbols are global.
    pub globals: u32,
    /// Names that expressions define, each behind those that it refers to.
    pub assignments: Vec<Assignment>,
    /// Pools of merged pieces.
    pub pools: Vec<Pool>,
    /// CIEs of the image.
    pub cies: Vec<Cie>,
    /// Bytes of `.eh_frame` in use.
    pub eh_frame_len: u32,
    /// Sections of the image in file order.
    pub outputs: Vec<OutputSection>,
    /// Program headers.
    pub segments: Vec<Segment>,
    /// What the linker makes.
    pub synthetic: Synthetic,
    /// Shared libraries of the command line, in order.
    pub shared: Vec<SharedLibrary>,
    /// The dynamic symbol table and what hangs on it.
    pub dynamic: DynamicTables,
    /// Symbols with a GOT slot, in slot order.
    pub got: Vec<SymbolRow>,
    /// Slots behind those, for later frames.
    pub got_spare: u32,
    /// Symbols with a GOT pair of module and offset.
    pub tls_pairs: Vec<SymbolRow>,
    /// Symbols with a TLS descriptor.
    pub tls_descriptors: Vec<SymbolRow>,
    /// Whether there is a GOT pair of this module.
    pub has_tls_module: bool,
    /// Symbols with a PLT entry, in order: first those that the loader binds, then IFUNCs.
    pub plt: Vec<SymbolRow>,
    /// How many of them the loader binds.
    pub jump_slots: u32,
    /// PLT entries behind those, for later frames.
    pub plt_spare: u32,
    /// Copied data: the symbol, its storage, the library.
    pub copies: Vec<(SymbolRow, AtomRow, u32)>,
    /// Address of the first PLT entry that is called.
    pub plt_address: u64,
    /// Address of the GOT pairs.
    pub tls_pairs_address: u64,
    /// Address of the TLS descriptors.
    pub tls_descriptors_address: u64,
    /// Address of the GOT pair of this module.
    pub tls_module_address: u64,
    /// Start of the TLS block.
    pub tls_start: u64,
    /// Thread pointer.
    pub tp: u64,
    /// Value of `_GLOBAL_OFFSET_TABLE_`.
    pub got_base: u64,
    /// Address of `.got`.
    pub got_address: u64,
    /// It may be loaded at any address.
    pub position_independent: bool,
    /// What kind of output it is.
    pub kind: OutputKind,
    /// What nothing defines is left to the loader.
    pub undefined_allowed: bool,
    /// Each of them is to be named in a warning.
    pub undefined_warned: bool,
    /// `-z notext`.
    pub text_relocations: bool,
    /// RELATIVE relocations of even places stand in `.relr.dyn`.
    pub pack_relative: bool,
    /// Those places of atoms: the atom and the offset in it, known after the scan.
    pub packed_places: Vec<(AtomRow, u64)>,
    /// Entry point.
    pub entry: u64,
    /// Entries of `.symtab` that are local, holes included.
    pub symtab_locals: u32,
    /// First null local of the hole.
    pub symtab_hole: u32,
    /// Entries of `.symtab`.
    pub symtab_len: u32,
    /// Bytes of `.strtab` in use.
    pub strtab_len: u32,
    /// Offset of the first global name in `.strtab`.
    pub strtab_globals: u32,
    /// File offset of the section headers.
    pub section_headers: u64,
    /// Bytes of the image.
    pub image_len: u64,
    /// Merged properties of all objects.
    pub property: formats::property::Property,
    /// Some object asks for an executable stack.
    pub exec_stack: bool,
    /// The image; empty until it is written.
    pub image: ImageBytes,
    /// What was lent for it: zeros, as many as the image has bytes.
    pub memory: Option<Box<dyn ImageMemory>>,
    /// What each task of Relocate applied, if the store is to know it.
    pub applied: Vec<Applied>,
    /// Nodes of its digest tree.
    pub digests: Vec<[u8; 32]>,
    /// Sections that garbage collection dropped: object and section index.
    pub dropped: Vec<(u32, u32)>,
    /// Entries of `.rela.dyn`.
    pub dynamic_relocs: u32,
    /// How many of them are RELATIVE.
    pub relative_relocs: u32,
    /// Those of them that no pointer has yet, beside the spare slots' own.
    pub relative_spare: u32,
    /// Entries for pointers that name symbols, and that none has yet.
    pub symbolic_spare: u32,
}

impl Program {
    /// A section by name.
    pub fn output(&self, name: &[u8]) -> Option<&OutputSection> {
        self.outputs.iter().find(|section| section.name == name)
    }

    /// The file offset of an atom.
    pub fn file_offset(&self, atom: &AtomRecord) -> Option<u64> {
        let section = self.outputs.get(atom.output.some()?.index())?;
        Some(section.offset + atom.address.checked_sub(section.address)?)
    }

    /// The object of an atom.
    pub fn object(&self, atom: &AtomRecord) -> Option<&Object> {
        self.objects.get(atom.input.some()?.index())
    }

    /// The name of an atom's section, for messages.
    pub fn section_name(&self, atom: &AtomRecord) -> String {
        let name =
            self.object(atom).map_or(&b""[..], |object| object.parsed.section_name(atom.section as usize));
        String::from_utf8_lossy(name).into_owned()
    }
}
