//! Commit of a cold frame: the program's rows are frozen into the store.

use bevy_ecs::prelude::{Commands, Res, ResMut};
use formats::archive::Archive;
use formats::object_file::{ObjectFile, StackNote, SymbolPlace};
use formats::reloc::Op;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::frame::{Frame, Request};
use relink_engine::image::Image;
use relink_engine::input::Input;
use relink_engine::policy::FreeLevel;
use relink_engine::program::{Object, OutputSection, Pool, Program};
use relink_engine::records::{
    CieRecord, FdeRecord, FileRecord, FreeRecord, GlobalRecord, GroupRecord, ImageRecord, InputRecord,
    PoolRecord, RelocRecord, SectionRecord, atom_flags, file_flags, global_state, image_flags, reloc_flags,
    section_role,
};
use relink_engine::rows::{
    AtomRow, CieRow, InputRow, NONE, PoolRow, RelocRow, SectionRow, Span, SymbolRow, Target, TargetKind,
};
use relink_engine::store::{Rows, Store, hash_name};
use relink_formats as formats;
use twox_hash::XxHash3_64;

use crate::ingest::bulk::local_symbols;
use crate::kernel::{Dynamic, lower};
use crate::place::arrange::debug_section;
use crate::place::reserve;

/// Publishes the image and, if patches are wanted later, freezes the store.
pub(crate) fn commit_program(
    mut commands: Commands<'_, '_>,
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    frame.counters.bytes_written = program.image.len() as u64;
    if request.options.incremental.is_some() {
        commands.insert_resource(
            Freezer { rows: Rows::default(), known: HashMap::new(), listed: (NONE, Vec::new()) }.freeze(
                &request,
                &program,
                !frame.warnings.is_empty(),
            ),
        );
    }
    program.applied = Vec::new();
    commands.insert_resource(Image::made(std::mem::take(&mut program.image)));
    frame.committed = true;
}

/// Turns a program's rows into the store's.
struct Freezer {
    rows: Rows,
    known: HashMap<Vec<u8>, Span>,
    /// Member offsets of the archive that was listed last.
    listed: (u32, Vec<u64>),
}

impl Freezer {
    fn text(&mut self, bytes: &[u8]) -> Span {
        let start = self.rows.strings.len() as u32;
        self.rows.strings.extend_from_slice(bytes);
        Span::new(start, bytes.len() as u32)
    }

    /// A text that many rows share, as names of sections are.
    fn shared(&mut self, bytes: &[u8]) -> Span {
        if let Some(&span) = self.known.get(bytes) {
            return span;
        }
        let span = self.text(bytes);
        self.known.insert(bytes.to_vec(), span);
        span
    }

    fn freeze(mut self, request: &Request, program: &Program, warned: bool) -> Store {
        self.rows.atoms.clone_from(&program.atoms);
        self.rows.symbols.clone_from(&program.symbols);
        self.rows.digests.clone_from(&program.digests);
        self.freeze_files(request, program);
        self.freeze_names(program);
        for row in 0..program.objects.len() {
            self.freeze_object(program, row);
        }
        self.freeze_groups();
        self.freeze_relocs(program);
        self.freeze_unwind(program);
        self.freeze_pools(program);
        for section in &program.outputs {
            let record = SectionRecord {
                name: self.shared(&section.name),
                address: section.address,
                offset: section.offset,
                size: section.size,
                capacity: section.capacity,
                flags: section.flags,
                kind: section.kind,
                align: u32::from(section.align),
                index: section.index,
                role: role(section),
                dead_bytes: 0,
            };
            let row = SectionRow(self.rows.sections.len() as u32);
            self.rows.sections.push(record);
            for &(start, len) in &section.free {
                self.freeze_free(row, start, len);
            }
        }
        if let Some(row) = program.synthetic.eh_frame.some() {
            let atom = &program.atoms[row.index()];
            let len = atom.size - 4 - u64::from(program.eh_frame_len);
            let start = u64::from(program.eh_frame_len);
            self.freeze_free(atom.output, start, len);
        }
        self.freeze_image(request, program, warned);
        Store::freeze(self.rows)
    }

    fn freeze_files(&mut self, request: &Request, program: &Program) {
        for (row, input) in request.inputs.iter().enumerate() {
            let start = program.objects.partition_point(|object| (object.file.0 as usize) < row);
            let end = program.objects.partition_point(|object| (object.file.0 as usize) <= row);
            let mut record = FileRecord {
                name: self.text(input.name.as_bytes()),
                inputs: Span::new(start as u32, (end - start) as u32),
                ..file_record(input)
            };
            if let Some(archive) = program.archives.get(row).and_then(Option::as_ref) {
                record.flags |= file_flags::ARCHIVE;
                (record.members, record.index_hash) = archive_shape(archive);
            }
            if let Some(library) = program.shared.iter().find(|library| library.file.0 as usize == row) {
                record.flags |= file_flags::SHARED;
                record.index_hash = library.parsed.interface_hash() as u64;
                record.needed_hash = match library.parsed.soname() {
                    Some(_) => 0,
                    None => needed_hash(input),
                };
            }
            self.rows.files.push(record);
        }
    }

    fn freeze_names(&mut self, program: &Program) {
        let slots = (program.names.len() * 2).next_power_of_two().max(16);
        self.rows.name_slots = vec![0; slots];
        for row in 0..program.globals {
            let name = program.names.of(SymbolRow(row));
            self.rows.symbols[row as usize].name = self.text(name);
            let mut slot = program.names.hash(SymbolRow(row)) as usize & (slots - 1);
            while self.rows.name_slots[slot] != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            self.rows.name_slots[slot] = row + 1;
        }
    }

    fn freeze_object(&mut self, program: &Program, row: usize) {
        let object = &program.objects[row];
        let parsed = &object.parsed;
        for (atom, index) in object.atoms.range().zip(placed_sections(object)) {
            self.rows.atoms[atom as usize].name = self.shared(parsed.section_name(index));
        }
        for (local, index) in object.locals.range().zip(local_symbols(parsed)) {
            self.rows.symbols[local as usize].name = self.text(parsed.symbol_name(index));
        }
        let start = self.rows.globals.len() as u32;
        let first = parsed.first_global as usize;
        let named = global_records(parsed).zip(&object.targets[first..]);
        // `name@@V` is the symbol `name`, but an object that defines another version of it is another one.
        let versions = &program.dynamic.default_versions;
        self.rows.globals.extend((first..).zip(named).map(|(index, (global, target))| match target.kind() {
            TargetKind::Symbol(symbol) => {
                let plain = versions.iter().all(|(known, _)| *known != symbol);
                let name_hash =
                    if plain { program.names.hash(symbol) } else { hash_name(parsed.symbol_name(index)) };
                GlobalRecord { symbol, name_hash, ..global }
            }
            _ => global,
        }));
        let globals = Span::new(start, self.rows.globals.len() as u32 - start);
        let groups = Span::new(self.rows.groups.len() as u32, parsed.groups.len() as u32);
        for (index, group) in parsed.groups.iter().enumerate() {
            let signature = self.shared(parsed.group_signature(group));
            let owner = u32::from(object.owns[index]);
            let input = InputRow(row as u32);
            self.rows.groups.push(GroupRecord { signature, input, owner, copies: 0 });
        }
        let fdes = Span::new(self.rows.fdes.len() as u32, object.fdes.len() as u32);
        self.rows.fdes.extend(object.fdes.iter().map(|fde| FdeRecord {
            atom: fde.atom,
            start: fde.atom_offset,
            offset: fde.offset,
            capacity: fde.capacity,
            cie: CieRow(fde.cie),
            input: InputRow(row as u32),
        }));
        let name = self.text(object.name.as_bytes());
        let member = self.member_ordinal(program, object);
        self.rows.inputs.push(InputRecord {
            name,
            file: object.file,
            member,
            atoms: object.atoms,
            locals: object.locals,
            globals,
            fdes,
            groups,
            feature_1_and: property_of(parsed).0,
            properties: property_of(parsed).1,
            bytes_hash: XxHash3_64::oneshot(&parsed.bytes),
            ..Default::default()
        });
    }

    /// The index of signatures; each owner's row counts the copies that were dropped.
    fn freeze_groups(&mut self) {
        let Rows { groups, group_slots, strings, .. } = &mut self.rows;
        let owners = groups.iter().filter(|group| group.owner == 1).count();
        *group_slots = vec![0; ((owners + reserve::GROUPS) * 2).next_power_of_two()];
        let mask = group_slots.len() - 1;
        let text = |group: &GroupRecord| &strings[group.signature.indexes()];
        // Owners first: an object's copy may stand in front of them only if it is no COMDAT group at all.
        for owner in [1, 0] {
            for row in 0..groups.len() {
                if groups[row].owner != owner {
                    continue;
                }
                let mut slot = hash_name(text(&groups[row])) as usize & mask;
                while group_slots[slot] != 0
                    && text(&groups[group_slots[slot] as usize - 1]) != text(&groups[row])
                {
                    slot = (slot + 1) & mask;
                }
                match group_slots[slot] {
                    0 if owner == 1 => group_slots[slot] = row as u32 + 1,
                    0 => {}
                    known => groups[known as usize - 1].copies += 1,
                }
            }
        }
    }

    /// The place of an object in its archive. Members of one archive stand in a row, so one listing is kept.
    fn member_ordinal(&mut self, program: &Program, object: &Object) -> u32 {
        let Some(archive) = program.archives.get(object.file.0 as usize).and_then(Option::as_ref) else {
            return 0;
        };
        if self.listed.0 != object.file.0 {
            let offsets = archive.members().unwrap_or_default().iter().map(|member| member.offset).collect();
            self.listed = (object.file.0, offsets);
        }
        self.listed.1.binary_search(&object.member_offset).unwrap_or(0) as u32
    }

    /// Relocate's records in the order of their atoms, so that a unit's lie beside each other; each joins the list of its
    /// target on the way.
    fn freeze_relocs(&mut self, program: &Program) {
        let mut runs: Vec<&[RelocRecord]> = vec![&[]; program.atoms.len()];
        for applied in &program.applied {
            let mut rest = &applied.records[..];
            for &(atom, len) in &applied.atoms {
                (runs[atom.index()], rest) = rest.split_at(len as usize);
            }
        }
        let Rows { relocs, symbols, atoms, .. } = &mut self.rows;
        relocs.reserve_exact(runs.iter().map(|run| run.len()).sum());
        for (atom, run) in runs.into_iter().enumerate().filter(|(_, run)| !run.is_empty()) {
            atoms[atom].relocs = Span::new(relocs.len() as u32, run.len() as u32);
            for record in run {
                let row = RelocRow(relocs.len() as u32);
                let head = match record.target.kind() {
                    TargetKind::Symbol(symbol) => &mut symbols[symbol.index()].first_incoming,
                    TargetKind::Atom(atom) => &mut atoms[atom.index()].first_incoming,
                    TargetKind::None => &mut RelocRow::default(),
                };
                let next = std::mem::replace(head, row);
                if let Some(next) = next.some() {
                    relocs[next.index()].previous = row;
                }
                relocs.push(RelocRecord { next, ..*record });
            }
        }
    }

    fn freeze_unwind(&mut self, program: &Program) {
        self.rows.cies.extend(program.cies.iter().map(|cie| CieRecord {
            offset: cie.piece.offset,
            len: cie.piece.capacity,
            personality: cie.personality,
            personality_offset: cie.personality_offset,
        }));
    }

    fn freeze_pools(&mut self, program: &Program) {
        for (row, pool) in program.pools.iter().enumerate() {
            let slots = pool_slots(pool);
            let start = self.rows.pool_slots.len() as u32;
            self.rows.pools.push(PoolRecord {
                atom: pool.atom,
                entsize: pool.entsize as u32,
                strings: u32::from(pool.strings),
                align: u32::from(pool.align),
                used: pool.data.len() as u64,
                slots: Span::new(start, slots.len() as u32),
                pieces: pool.table.len() as u32,
                reserved: 0,
                output: program.atoms[pool.atom.index()].output,
                row: PoolRow(row as u32),
            });
            self.rows.pool_slots.extend(slots);
        }
    }

    fn freeze_free(&mut self, section: SectionRow, start: u64, len: u64) {
        let record = FreeRecord { section, start, len, ..Default::default() };
        match FreeLevel::of(len) {
            FreeLevel::Slots => self.rows.free_slots.push(record),
            FreeLevel::Blocks => self.rows.free_blocks.push(record),
        }
    }

    fn freeze_image(&mut self, request: &Request, program: &Program, warned: bool) {
        let note = crate::build_id::note_range(program);
        let output =
            |row: AtomRow| row.some().map_or(SectionRow(NONE), |row| program.atoms[row.index()].output);
        let named = |name: &[u8]| program.outputs.iter().position(|section| section.name == name);
        let fillers = crate::relocate::bulk::filler_context(program);
        let hdr = program.synthetic.eh_frame_hdr.some().map_or(0, |row| program.atoms[row.index()].size);
        let entry = request.options.entry.as_deref().unwrap_or("_start");
        let symbols = [&[SymbolRow::default()], &program.dynamic.symbols[..]].concat();
        let dynsym_owners = match program.synthetic.dynsym.some() {
            Some(_) => self.freeze_owners(&symbols, symbols.len() + program.dynamic.tail as usize),
            None => Span::default(),
        };
        let got_owners = self.freeze_owners(&program.got, program.got.len() + program.got_spare as usize);
        let plt_owners = self.freeze_owners(&program.plt, program.plt.len() + program.plt_spare as usize);
        self.rows.image.push(ImageRecord {
            len: program.image.len() as u64,
            build_id_offset: note.as_ref().map_or(0, |note| note.start),
            build_id_len: note.as_ref().map_or(0, |note| note.end - note.start),
            tp: program.tp,
            tls_start: program.tls_start,
            got_base: program.got_base,
            got_address: program.got_address,
            plt_address: program.plt_address,
            tls_pairs: program.tls_pairs_address,
            tls_descriptors: program.tls_descriptors_address,
            tls_module: if program.has_tls_module { program.tls_module_address } else { 0 },
            section_headers: program.section_headers,
            generation: 0,
            patches: 0,
            eh_frame: output(program.synthetic.eh_frame),
            eh_frame_hdr: output(program.synthetic.eh_frame_hdr),
            symtab: program.synthetic.symtab,
            strtab: program.synthetic.strtab,
            rela_dyn: output(program.synthetic.rela),
            dynsym: output(program.synthetic.dynsym),
            relative_relocs: program.relative_relocs,
            debug_abbrev: named(b".debug_abbrev").map_or(SectionRow(NONE), |row| SectionRow(row as u32)),
            next_local: program.symtab_hole,
            locals_end: program.symtab_locals,
            hdr_entries: program.objects.iter().map(|object| object.fdes.len() as u32).sum(),
            hdr_capacity: hdr as u32,
            filler_abbrev: fillers.abbrev_offset,
            filler_unit: fillers.unit_offset,
            filler_version: u32::from(fillers.version),
            flags: image_flags_of(program) | if warned { image_flags::WARNED } else { 0 },
            globals: program.globals,
            entry: program.names.find(entry.as_bytes()).unwrap_or(SymbolRow(NONE)),
            got_used: program.got.len() as u32,
            got_slots: program.got.len() as u32 + program.got_spare,
            sorted_relocs: sorted_relocs(program),
            name_entries: program.globals,
            group_entries: self.rows.group_slots.iter().filter(|&&entry| entry != 0).count() as u32,
            places: self.rows.files.len() as u32,
            reserved: 0,
            dynstr: output(program.synthetic.dynstr),
            gnu_hash: output(program.synthetic.gnu_hash),
            hash: output(program.synthetic.hash),
            versym: output(program.synthetic.versym),
            verneed: output(program.synthetic.verneed),
            dynamic: output(program.synthetic.dynamic),
            plt: output(program.synthetic.plt),
            lazy_plt: output(program.synthetic.lazy_plt),
            got_plt: output(program.synthetic.got_plt),
            rela_plt: output(program.synthetic.rela_plt),
            dynsym_owners,
            got_owners,
            plt_owners,
            first_hashed: program.dynamic.first_hashed,
            dynsym_locals: program.dynamic.locals,
            plt_used: program.plt.len() as u32,
        });
    }

    /// Whose each entry of a table is; entries that nobody has follow.
    fn freeze_owners(&mut self, used: &[SymbolRow], all: usize) -> Span {
        let start = self.rows.owners.len() as u32;
        self.rows.owners.extend(used.iter().map(|row| row.some().map_or(0, |row| row.0 + 1)));
        self.rows.owners.resize(start as usize + all.max(used.len()), 0);
        Span::new(start, self.rows.owners.len() as u32 - start)
    }
}

/// A hash of the name by which a shared library is needed that has none of its own; never 0.
pub(crate) fn needed_hash(input: &Input) -> u64 {
    let name = input.needed_name.as_deref().unwrap_or(&input.name);
    hash_name(name.as_bytes()) | 1
}

/// A file's record without its name and inputs.
pub(crate) fn file_record(input: &Input) -> FileRecord {
    let identity = input.identity.unwrap_or_default();
    let flags = if input.identity.is_some() { file_flags::IDENTITY } else { 0 }
        | if input.whole_archive { file_flags::WHOLE } else { 0 }
        | if input.as_needed { file_flags::AS_NEEDED } else { 0 };
    FileRecord {
        device: identity.device,
        inode: identity.inode,
        size: identity.size,
        mtime_ns: identity.mtime_ns,
        changed_ns: identity.changed_ns,
        flags,
        ..Default::default()
    }
}

/// Number of members, and a hash of which names they offer: what resolution takes from an archive.
pub(crate) fn archive_shape(archive: &Archive) -> (u32, u64) {
    let offsets: Vec<u64> =
        archive.members().unwrap_or_default().iter().map(|member| member.offset).collect();
    let mut shape = Vec::new();
    for (name, offset) in archive.symbols().ok().flatten().unwrap_or_default() {
        shape.extend_from_slice(archive.bytes.get(name).unwrap_or_default());
        shape.push(0);
        let ordinal = offsets.partition_point(|&known| known < offset) as u32;
        shape.extend_from_slice(&ordinal.to_le_bytes());
    }
    (offsets.len() as u32, XxHash3_64::oneshot(&shape))
}

/// The sections that have rows, in order.
pub(crate) fn placed_sections(object: &Object) -> impl Iterator<Item = usize> + '_ {
    object.uses.iter().enumerate().filter(|(_, used)| used.atom().is_some()).map(|(index, _)| index)
}

/// Properties that the image's own depend on.
pub(crate) fn property_of(parsed: &ObjectFile) -> (u32, u32) {
    let feature = if parsed.property.present { parsed.property.feature_1_and } else { NONE };
    let rest = hash_name(&parsed.property.encode()) as u32 & !3;
    let stack = match parsed.stack {
        StackNote::Absent => 0,
        StackNote::NonExecutable => 1,
        StackNote::Executable => 2,
    };
    (feature, rest | stack)
}

/// An object's global symbols as its own table has them; their rows and names are left out.
pub(crate) fn global_records(parsed: &ObjectFile) -> impl Iterator<Item = GlobalRecord> + '_ {
    (parsed.first_global as usize..parsed.symbols().len()).map(|index| {
        let symbol = &parsed.symbols()[index];
        let state = match parsed.symbol_place(index) {
            SymbolPlace::Undefined => global_state::UNDEFINED,
            SymbolPlace::Absolute => global_state::ABSOLUTE,
            SymbolPlace::Common => global_state::COMMON,
            SymbolPlace::Section(_) => global_state::DEFINED,
        };
        GlobalRecord {
            symbol: SymbolRow(NONE),
            info: symbol.st_info.0,
            other: symbol.st_other.0,
            state,
            name_hash: 0,
        }
    })
}

/// The records of a debug contribution: only of relocations that speak of other objects. A changed unit's own are all
/// derived anew.
pub(crate) fn foreign_relocs<P: crate::kernel::Places>(
    places: &P,
    object: &Object,
    index: usize,
    row: AtomRow,
    flags: u32,
    records: &mut Vec<RelocRecord>,
) {
    let relocs = object.parsed.relocations(index);
    let bytes = object.parsed.section_bytes(index);
    let mut next = 0;
    while next < relocs.len() {
        let at = next;
        next += 1;
        if !is_foreign(places, object, relocs[at].r_sym(LittleEndian, false) as usize) {
            continue;
        }
        let Ok(site) = lower(places, object, flags, bytes, relocs, at) else { continue };
        next += usize::from(site.plan.skip_next);
        if site.plan.op != Op::None && site.target != Target::NONE {
            records.push(record_of(&site, row, flags, None));
        }
    }
}

/// The row of a lowered relocation; `reversed` is the size of a section whose words stand in reverse.
pub(crate) fn record_of(
    site: &crate::kernel::Site,
    atom: AtomRow,
    flags: u32,
    reversed: Option<u64>,
) -> RelocRecord {
    let debug = flags & atom_flags::DEBUG != 0;
    let dynamic = match site.dynamic {
        Dynamic::None => 0,
        Dynamic::Relative => reloc_flags::DYNAMIC,
        Dynamic::Symbolic => reloc_flags::SYMBOLIC,
    };
    let offset = reversed.map_or(site.plan.offset, |size| size.wrapping_sub(8 + site.plan.offset));
    RelocRecord {
        atom,
        offset: offset as u32,
        target: site.target,
        op: site.plan.op as u16,
        flags: if debug { reloc_flags::DEBUG } else { 0 }
            | if site.weak { reloc_flags::WEAK } else { 0 }
            | dynamic,
        addend: site.addend,
        previous: RelocRow(NONE),
        next: RelocRow(NONE),
    }
}

/// RELATIVE entries in front of the spare ones.
fn sorted_relocs(program: &Program) -> u32 {
    let scratch = crate::relocate::dynamic::scratch_slot(program);
    let own = u32::from(scratch.is_some() && !program.pack_relative);
    program.relative_relocs.saturating_sub(program.relative_spare + own)
}

/// [`image_flags`] of a program.
fn image_flags_of(program: &Program) -> u32 {
    [
        (program.position_independent, image_flags::POSITION_INDEPENDENT),
        (program.kind.is_shared(), image_flags::SHARED),
        (program.kind.is_dynamic(), image_flags::DYNAMIC),
        (program.undefined_allowed, image_flags::UNDEFINED_ALLOWED),
        (program.text_relocations, image_flags::TEXT_RELOCATIONS),
        (program.pack_relative, image_flags::PACKED_RELATIVE),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// Whether a debug relocation speaks of code or data of another object: by a name that is not defined here, or
/// whose definition here lost to another one.
fn is_foreign<P: crate::kernel::Places>(places: &P, object: &Object, symbol: usize) -> bool {
    if symbol < object.parsed.first_global as usize {
        return false;
    }
    let TargetKind::Symbol(row) = object.targets[symbol].kind() else { return false };
    let own = match object.parsed.symbol_place(symbol) {
        SymbolPlace::Section(section) => object.uses.get(section as usize).and_then(|used| used.atom()),
        _ => None,
    };
    own != Some(places.symbol(row).atom)
}

/// The index of a pool: at most a quarter full, so that later frames can double the pieces and probes stay short.
/// Even a small pool gets room for the names of a large edit.
fn pool_slots(pool: &Pool) -> Vec<u32> {
    let len = (pool.table.len() * 4).next_power_of_two().max(1024);
    let mut slots = vec![0; len];
    let mut pieces: Vec<(u32, u32)> = pool.table.iter().copied().collect();
    pieces.sort_unstable();
    for (offset, size) in pieces {
        let piece = &pool.data[offset as usize..(offset + size) as usize];
        let mut slot = hash_name(piece) as usize & (len - 1);
        while slots[slot] != 0 {
            slot = (slot + 1) & (len - 1);
        }
        slots[slot] = offset + 1;
    }
    slots
}

fn role(section: &OutputSection) -> u32 {
    if let Some(debug) = debug_section(section) {
        return debug as u32;
    }
    if section.kind == formats::elf::SHT_NOBITS {
        section_role::NOBITS
    } else if section.name == b".eh_frame" {
        section_role::EH_FRAME
    } else if section.flags & u64::from(formats::elf::SHF_EXECINSTR) != 0 {
        section_role::CODE
    } else {
        section_role::PLAIN
    }
}
