//! Which sections the output object has, and which input sections stand where in them.

use std::borrow::Cow;

use formats::eh_frame::{Record, records};
use formats::elf;
use formats::object_file::{Rela, Section, SymbolPlace};
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::options::{LinkOptions, Strip};
use relink_engine::program::{Object, Program};
use relink_engine::records::{atom_flags, place};
use relink_engine::rows::TargetKind;
use relink_formats as formats;
use relink_formats::dwarf;

use crate::kernel::field_width;
use crate::resolve::unwind::{code_of, relocs_within};

/// `SHT_LLVM_ADDRSIG` and both forms of `SHT_LLVM_CALL_GRAPH_PROFILE`: they count symbols, which get other numbers.
const COUNTS_SYMBOLS: [u32; 3] = [0x6fff_4c02, 0x6fff_4c03, 0x6fff_4c09];
const SHF_EXECINSTR: u64 = elf::SHF_EXECINSTR as u64;

/// A section of the output object.
#[derive(Debug, Default)]
pub(crate) struct OutSection<'a> {
    pub name: Vec<u8>,
    pub kind: u32,
    pub flags: u64,
    pub entsize: u64,
    /// Bytes.
    pub align: u64,
    pub size: u64,
    pub parts: Vec<Part<'a>>,
    /// The group of which it is a member, an index into [`Combined::groups`].
    pub group: Option<usize>,
    /// The section that it describes (`SHF_LINK_ORDER`): object and section.
    pub link: Option<(usize, usize)>,
    /// Relocations with places that count from the section's start, and symbols that are the object's.
    pub relocs: Vec<Reloc>,
}

/// An input section in an output section.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// Where it begins.
    pub offset: u64,
    /// What it has; none for zeros.
    pub bytes: Cow<'a, [u8]>,
}

/// A relocation on its way to the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reloc {
    /// From the start of the output section.
    pub offset: u64,
    pub kind: u32,
    /// The object, and its symbol.
    pub symbol: (usize, usize),
    pub addend: i64,
}

/// A group that is kept: the object, its group, and its sections of the output.
#[derive(Debug)]
pub(crate) struct OutGroup {
    pub object: usize,
    pub group: usize,
    pub members: Vec<usize>,
}

/// What stands in the section header table, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Group(usize),
    Section(usize),
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Combined<'a> {
    pub sections: Vec<OutSection<'a>>,
    pub groups: Vec<OutGroup>,
    pub order: Vec<Entry>,
    /// For each object and section: the output section, and where in it.
    pub places: Vec<Vec<Option<(usize, u64)>>>,
    pub warnings: Vec<String>,
}

impl Combined<'_> {
    /// Where an input section went.
    pub(crate) fn place(&self, object: usize, section: usize) -> Option<(usize, u64)> {
        *self.places.get(object)?.get(section)?
    }
}

type Key = (Vec<u8>, u32, u64, u64);

pub(crate) fn arrange<'a>(
    program: &'a Program,
    options: &LinkOptions,
) -> Result<Combined<'a>, Box<Diagnostic>> {
    let mut combined = Combined::default();
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (row, object) in program.objects.iter().enumerate() {
        combined.places.push(vec![None; object.parsed.sections.len()]);
        let mut groups: HashMap<usize, usize> = HashMap::new();
        for (index, section) in object.parsed.sections.iter().enumerate() {
            if !is_kept(program, object, index, section, options.strip) {
                continue;
            }
            let group = (section.group as usize).checked_sub(1);
            let group = group.filter(|&group| is_group(object, group)).map(|group| {
                *groups.entry(group).or_insert_with(|| {
                    combined.groups.push(OutGroup { object: row, group, members: Vec::new() });
                    combined.order.push(Entry::Group(combined.groups.len() - 1));
                    combined.groups.len() - 1
                })
            });
            let ordered = section.flags & u64::from(elf::SHF_LINK_ORDER) != 0;
            let alone = group.is_some() || ordered;
            let mut flags = section.flags;
            if group.is_none() {
                flags &= !u64::from(elf::SHF_GROUP);
            }
            let key = (object.parsed.section_name(index).to_vec(), section.kind, flags, section.entsize);
            let out = match known.get(&key).filter(|_| !alone) {
                Some(&out) => out,
                None => {
                    let out = combined.sections.len();
                    combined.order.push(Entry::Section(out));
                    combined.sections.push(OutSection {
                        name: key.0.clone(),
                        kind: section.kind,
                        flags,
                        entsize: section.entsize,
                        align: 1,
                        group,
                        link: (ordered && section.link != 0).then_some((row, section.link as usize)),
                        ..OutSection::default()
                    });
                    if let Some(group) = group {
                        combined.groups[group].members.push(out);
                    }
                    if !alone {
                        known.insert(key, out);
                    }
                    out
                }
            };
            add_part(program, &mut combined, row, index, out)?;
        }
    }
    add_commons(program, options, &mut combined, &mut known);
    add_notes(program, &mut combined);
    Ok(combined)
}

fn is_group(object: &Object, group: usize) -> bool {
    object.parsed.groups.get(group).is_some_and(|group| !group.sections.is_empty())
}

fn is_kept(program: &Program, object: &Object, index: usize, section: &Section, strip: Strip) -> bool {
    let name = object.parsed.section_name(index);
    let table = matches!(
        section.kind,
        elf::SHT_NULL
            | elf::SHT_SYMTAB
            | elf::SHT_STRTAB
            | elf::SHT_RELA
            | elf::SHT_REL
            | elf::SHT_GROUP
            | elf::SHT_SYMTAB_SHNDX
    );
    let dropped = object.owns.get((section.group as usize).wrapping_sub(1)) == Some(&false);
    // Each object's machine code stays; its intermediate code would speak of an object that is no more.
    let intermediate = name.starts_with(b".gnu.lto_");
    let stripped = strip != Strip::None
        && section.flags & u64::from(elf::SHF_ALLOC) == 0
        && name.starts_with(b".debug_");
    let joined = name == b".note.GNU-stack" || name == b".note.gnu.property";
    if table || dropped || intermediate || stripped || joined || COUNTS_SYMBOLS.contains(&section.kind) {
        return false;
    }
    match object.uses.get(index).and_then(|used| used.atom()) {
        Some(row) => program.atoms[row.index()].flags & atom_flags::LIVE != 0,
        None => true,
    }
}

fn add_part<'a>(
    program: &'a Program,
    combined: &mut Combined<'a>,
    row: usize,
    index: usize,
    out: usize,
) -> Result<(), Box<Diagnostic>> {
    let object = &program.objects[row];
    let section = &object.parsed.sections[index];
    let nobits = section.kind == elf::SHT_NOBITS;
    let unwind = object.parsed.section_name(index) == b".eh_frame" && !nobits;
    let output = &mut combined.sections[out];
    let align = section.align.bytes().max(1);
    output.align = output.align.max(align);
    // A hole between frame descriptions would be their end; they are as aligned as they must be by their lengths.
    let offset = if unwind { output.size } else { output.size.next_multiple_of(align) };
    combined.places[row][index] = Some((out, offset));
    let relocs = object.parsed.relocations(index);
    if unwind {
        let (bytes, moved) = unwind_part(program, object, index)?;
        output.size = offset + bytes.len() as u64;
        output.parts.push(Part { offset, bytes: Cow::Owned(bytes) });
        output.relocs.extend(moved.into_iter().map(|(at, rela)| reloc(rela, offset + at, row)));
        return Ok(());
    }
    output.size = offset.checked_add(section.size).ok_or_else(|| too_large(object))?;
    let mut bytes = Cow::Borrowed(if nobits { &[][..] } else { object.parsed.section_bytes(index) });
    let debug = section.flags & u64::from(elf::SHF_ALLOC) == 0;
    let (mut kept, mut lost) = (Vec::with_capacity(relocs.len()), 0);
    for rela in relocs {
        if refers_to_dropped(program, object, rela) {
            lost += 1;
            if debug {
                let tombstone = dwarf::tombstone(object.parsed.section_name(index));
                let at = rela.r_offset.get(LittleEndian) as usize;
                let width = field_width(rela.r_type(LittleEndian, false).0);
                if let Some(field) = bytes.to_mut().get_mut(at..at + width) {
                    field.copy_from_slice(&tombstone.to_le_bytes()[..width]);
                }
            }
            continue;
        }
        kept.push(reloc(rela, offset + rela.r_offset.get(LittleEndian), row));
    }
    let name = object.parsed.section_name(index);
    // Tables of landing pads stand apart from the group of their function.
    if lost > 0 && !debug && name != b".gcc_except_table" {
        let name = String::from_utf8_lossy(name);
        combined.warnings.push(format!(
            "{}:({name}): {lost} references to sections that are not part of the output are left as they are",
            object.name
        ));
    }
    let output = &mut combined.sections[out];
    output.relocs.extend(kept);
    output.parts.push(Part { offset, bytes });
    Ok(())
}

fn too_large(object: &Object) -> Box<Diagnostic> {
    let why = "a section is too large to be joined".to_owned();
    Box::new(Diagnostic::BadInput { input: object.name.clone(), why })
}

fn reloc(rela: &Rela, offset: u64, row: usize) -> Reloc {
    Reloc {
        offset,
        kind: rela.r_type(LittleEndian, false).0,
        symbol: (row, rela.r_sym(LittleEndian, false) as usize),
        addend: rela.r_addend.get(LittleEndian),
    }
}

/// Whether a relocation names a local symbol of a section that is dropped. A global name has another definition.
fn refers_to_dropped(program: &Program, object: &Object, rela: &Rela) -> bool {
    let index = rela.r_sym(LittleEndian, false) as usize;
    let SymbolPlace::Section(section) = object.parsed.symbol_place(index) else { return false };
    let global = index >= object.parsed.first_global as usize;
    if global {
        // Garbage collection takes the definition with it.
        let Some(TargetKind::Symbol(row)) = object.targets.get(index).map(|target| target.kind()) else {
            return false;
        };
        let atom = program.symbols[row.index()].atom;
        return place::is_atom(atom) && program.atoms[atom.index()].flags & atom_flags::DEAD != 0;
    }
    let atom = object.uses.get(section as usize).and_then(|used| used.atom());
    atom.is_some_and(|row| program.atoms[row.index()].flags & atom_flags::LIVE == 0)
}

type Moved<'a> = Vec<(u64, &'a Rela)>;

/// The frame descriptions of a section without those of dropped code, and its relocations with their new places.
fn unwind_part<'a>(
    program: &Program,
    object: &'a Object,
    index: usize,
) -> Result<(Vec<u8>, Moved<'a>), Box<Diagnostic>> {
    let wrong =
        |why: String| Diagnostic::BadInput { input: object.name.clone(), why: format!(".eh_frame: {why}") };
    let bytes = object.parsed.section_bytes(index);
    let relocs = object.parsed.relocations(index);
    let (mut out, mut moved) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(relocs.len()));
    let mut cies: HashMap<u32, u32> = HashMap::new();
    for record in records(bytes).map_err(|error| wrong(error.to_string()))? {
        let (offset, len, cie) = match record {
            Record::Cie { offset, len } => (offset, len, None),
            Record::Fde { offset, len, cie } => (offset, len, Some(cie)),
            Record::Terminator { .. } => continue,
        };
        let span = relocs_within(relocs, offset, len);
        if cie.is_some() {
            let code = code_of(object, relocs, offset, span);
            let live =
                |row: relink_engine::rows::AtomRow| program.atoms[row.index()].flags & atom_flags::LIVE != 0;
            if !code.is_some_and(|(row, _)| live(row)) {
                continue;
            }
        }
        let start = out.len();
        out.extend_from_slice(bytes.get(offset as usize..(offset + len) as usize).unwrap_or_default());
        match cie {
            None => {
                cies.insert(offset, start as u32);
            }
            Some(cie) => {
                let cie = cies.get(&cie).ok_or_else(|| wrong(format!("no CIE at {cie:#x}")))?;
                // How far the CIE is from the field behind the length.
                let distance = start as u32 + 4 - cie;
                out[start + 4..start + 8].copy_from_slice(&distance.to_le_bytes());
            }
        }
        for rela in relocs.get(span.indexes()).unwrap_or_default() {
            moved.push((start as u64 + (rela.r_offset.get(LittleEndian) - u64::from(offset)), rela));
        }
    }
    Ok((out, moved))
}

/// `-d`: common symbols get their storage here.
fn add_commons(
    program: &Program,
    options: &LinkOptions,
    combined: &mut Combined<'_>,
    known: &mut HashMap<Key, usize>,
) {
    if !options.define_common {
        return;
    }
    let flags = u64::from(elf::SHF_ALLOC | elf::SHF_WRITE);
    for (row, atom) in program.atoms.iter().enumerate() {
        let common = atom_flags::COMMON | atom_flags::LIVE;
        if atom.flags & (common | atom_flags::TLS) != common {
            continue;
        }
        let key = (b".bss".to_vec(), elf::SHT_NOBITS, flags, 0);
        let out = *known.entry(key).or_insert_with(|| {
            combined.order.push(Entry::Section(combined.sections.len()));
            combined.sections.push(OutSection {
                name: b".bss".to_vec(),
                kind: elf::SHT_NOBITS,
                flags,
                align: 1,
                ..OutSection::default()
            });
            combined.sections.len() - 1
        });
        let align = 1_u64 << atom.align;
        let output = &mut combined.sections[out];
        let offset = output.size.next_multiple_of(align);
        output.align = output.align.max(align);
        output.size = offset + atom.size;
        // Behind the places of the objects' sections: those of atoms.
        let places = &mut combined.places;
        places.resize_with(program.objects.len() + 1, Vec::new);
        let commons = &mut places[program.objects.len()];
        commons.resize(commons.len().max(row + 1), None);
        commons[row] = Some((out, offset));
    }
}

/// What all objects say together of stack and processor features.
fn add_notes(program: &Program, combined: &mut Combined<'_>) {
    use formats::object_file::StackNote;
    let mut add = |name: &[u8], kind: u32, flags: u64, align: u64, bytes: Vec<u8>| {
        combined.order.push(Entry::Section(combined.sections.len()));
        combined.sections.push(OutSection {
            name: name.to_vec(),
            kind,
            flags,
            align,
            size: bytes.len() as u64,
            parts: vec![Part { offset: 0, bytes: Cow::Owned(bytes) }],
            ..OutSection::default()
        });
    };
    let property = program.property.encode();
    if !property.is_empty() {
        add(b".note.gnu.property", elf::SHT_NOTE, u64::from(elf::SHF_ALLOC), 8, property);
    }
    let asks = |note: StackNote| program.objects.iter().any(|object| object.parsed.stack == note);
    let flags = if asks(StackNote::Executable) { SHF_EXECINSTR } else { 0 };
    if flags != 0 || asks(StackNote::NonExecutable) {
        add(b".note.GNU-stack", elf::SHT_PROGBITS, flags, 1, Vec::new());
    }
}
