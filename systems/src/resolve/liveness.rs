//! Which atoms are part of the image: all that no group discarded, or, with `--gc-sections`, what a root reaches.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{Program, SectionUse};
use relink_engine::records::{atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, SymbolRow, TargetKind};
use relink_formats as formats;

use crate::diff::anonymous::key;
use crate::ingest::classify::is_c_identifier;

/// Garbage collection keeps the section.
pub(crate) const SHF_GNU_RETAIN: u64 = 1 << 21;

/// Marks atoms live; what stays unmarked is dropped.
pub(crate) fn mark_live_atoms(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() {
        return;
    }
    let program = &mut *program;
    if !request.options.gc_sections {
        for atom in &mut program.atoms {
            if atom.flags & atom_flags::DISCARDED == 0 {
                atom.flags |= atom_flags::LIVE;
            }
        }
        return;
    }
    let start_stop_gc = request.options.start_stop_gc;
    let mut marker =
        Marker { live: vec![false; program.atoms.len()], queue: Vec::new(), program, start_stop_gc };
    marker.mark_roots(&request);
    marker.walk();
    let live = marker.live;
    for (row, atom) in program.atoms.iter_mut().enumerate() {
        let debug = atom.flags & atom_flags::DEBUG != 0;
        let eh_frame = atom.flags & atom_flags::EH_FRAME != 0;
        if atom.flags & atom_flags::DISCARDED != 0 {
            continue;
        }
        if live[row] || debug || eh_frame {
            atom.flags |= atom_flags::LIVE;
        } else {
            atom.flags |= atom_flags::DEAD;
            if atom.section != relink_engine::rows::NONE {
                program.dropped.push((atom.input.0, atom.section));
            }
        }
    }
}

struct Marker<'a> {
    program: &'a Program,
    live: Vec<bool>,
    queue: Vec<AtomRow>,
    start_stop_gc: bool,
}

impl Marker<'_> {
    fn mark(&mut self, row: AtomRow) {
        let Some(live) = self.live.get_mut(row.index()) else { return };
        let atom = &self.program.atoms[row.index()];
        if *live || atom.flags & (atom_flags::DISCARDED | atom_flags::EH_FRAME) != 0 {
            return;
        }
        *live = true;
        if atom.flags & atom_flags::MERGE == 0 {
            self.queue.push(row);
        }
    }

    fn mark_symbol(&mut self, row: SymbolRow) {
        let symbol = &self.program.symbols[row.index()];
        if place::is_atom(symbol.atom) {
            self.mark(symbol.atom);
        }
        if symbol.flags & symbol_flags::LINKER_DEFINED != 0 && !self.start_stop_gc {
            self.mark_bounded(row);
        }
    }

    /// `__start_X` and `__stop_X` keep all sections named X.
    fn mark_bounded(&mut self, row: SymbolRow) {
        let name = self.program.names.of(row);
        let Some(section) = name.strip_prefix(b"__start_").or_else(|| name.strip_prefix(b"__stop_")) else {
            return;
        };
        let section = section.to_vec();
        for object in &self.program.objects {
            for (index, used) in object.uses.iter().enumerate() {
                if let Some(row) = used.atom()
                    && object.parsed.section_name(index) == section
                {
                    self.mark(row);
                }
            }
        }
    }

    /// What a loader, the C runtime or the user reaches without a relocation.
    fn mark_roots(&mut self, request: &Request) {
        let options = &request.options;
        let entry = options.entry.as_deref().unwrap_or("_start");
        let names = [entry, &options.dynamic.init, &options.dynamic.fini]
            .into_iter()
            .chain(options.undefined.iter().map(String::as_str));
        for name in names.chain(options.defsyms.iter().map(|(name, _)| name.as_str())) {
            if let Some(row) = self.program.names.find(name.as_bytes()) {
                self.mark_symbol(row);
            }
        }
        for row in (0..self.program.globals).map(SymbolRow) {
            if self.program.symbols[row.index()].flags & symbol_flags::EXPORTED != 0 {
                self.mark_symbol(row);
            }
        }
        for (input, object) in self.program.objects.iter().enumerate() {
            let mut ordinals = HashMap::new();
            for (index, used) in object.uses.iter().enumerate() {
                let Some(row) = used.atom() else { continue };
                let atom = &self.program.atoms[row.index()];
                if !request.kept.is_empty() {
                    let (name, number) = key(object.parsed.section_name(index), index as u32, &mut ordinals);
                    if request.kept.contains(&(input as u32, name.to_vec(), number)) {
                        self.mark(row);
                    }
                }
                let section = &object.parsed.sections[index];
                if atom.flags & atom_flags::ALLOC == 0 {
                    continue;
                }
                let name = object.parsed.section_name(index);
                let kept = section.flags & SHF_GNU_RETAIN != 0
                    || matches!(
                        section.kind,
                        elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY | elf::SHT_NOTE
                    )
                    || (atom.flags & atom_flags::EXACT != 0
                        && atom.flags & atom_flags::TLS == 0
                        && !is_c_identifier(name))
                    || name.starts_with(b".jcr");
                if kept {
                    self.mark(row);
                }
            }
        }
    }

    fn walk(&mut self) {
        // Unwind tables keep what they name (LSDA, personality) once the code that they describe is live; that
        // is a fixed point over all of them, so they are walked again until nothing new appears.
        loop {
            while let Some(row) = self.queue.pop() {
                self.follow(row);
            }
            self.follow_unwind_tables();
            if self.queue.is_empty() {
                return;
            }
        }
    }

    fn follow(&mut self, row: AtomRow) {
        let program = self.program;
        let atom = &program.atoms[row.index()];
        let Some(object) = program.object(atom).filter(|_| atom.section != relink_engine::rows::NONE) else {
            return;
        };
        let section = atom.section as usize;
        for rela in object.parsed.relocations(section) {
            self.follow_symbol(object, rela.r_sym(LittleEndian, false) as usize);
        }
        // A group lives and dies as one.
        let group = object.parsed.sections[section].group;
        if let Some(group) = object.parsed.groups.get((group as usize).wrapping_sub(1)) {
            for &member in &group.sections {
                if let Some(row) = object.uses.get(member as usize).and_then(|used| used.atom())
                    && program.atoms[row.index()].flags & atom_flags::ALLOC != 0
                {
                    self.mark(row);
                }
            }
        }
        // SHF_LINK_ORDER sections live with what they describe.
        for (index, other) in object.parsed.sections.iter().enumerate() {
            if other.flags & u64::from(elf::SHF_LINK_ORDER) != 0
                && other.link as usize == section
                && let Some(row) = object.uses[index].atom()
            {
                self.mark(row);
            }
        }
    }

    fn follow_symbol(&mut self, object: &relink_engine::program::Object, index: usize) {
        match object.targets.get(index).map(|target| target.kind()) {
            Some(TargetKind::Symbol(row)) => self.mark_symbol(row),
            Some(TargetKind::Atom(row)) => self.mark(row),
            _ => {}
        }
    }

    fn follow_unwind_tables(&mut self) {
        let program = self.program;
        for object in &program.objects {
            for (index, used) in object.uses.iter().enumerate() {
                let SectionUse::EhFrame(row) = *used else { continue };
                if program.atoms[row.index()].flags & atom_flags::DISCARDED != 0 {
                    continue;
                }
                let Ok(records) = relink_formats::eh_frame::records(object.parsed.section_bytes(index))
                else {
                    continue;
                };
                let relocs = object.parsed.relocations(index);
                for record in records {
                    self.follow_record(object, relocs, record);
                }
            }
        }
    }

    fn follow_record(
        &mut self,
        object: &relink_engine::program::Object,
        relocs: &[relink_formats::object_file::Rela],
        record: relink_formats::eh_frame::Record,
    ) {
        use relink_formats::eh_frame::Record;
        let (offset, len, fde) = match record {
            Record::Cie { offset, len } => (offset, len, false),
            Record::Fde { offset, len, .. } => (offset, len, true),
            Record::Terminator { .. } => return,
        };
        let inside = |rela: &&relink_formats::object_file::Rela| {
            let at = rela.r_offset.get(LittleEndian);
            at >= u64::from(offset) && at < u64::from(offset) + u64::from(len)
        };
        let mut inside = relocs.iter().filter(inside);
        if fde {
            // The first relocation is pc_begin: the rest counts only if that code is live.
            let Some(first) = inside.next() else { return };
            let target =
                object.targets.get(first.r_sym(LittleEndian, false) as usize).map(|target| target.kind());
            let code = match target {
                Some(TargetKind::Atom(row)) => row,
                Some(TargetKind::Symbol(row)) => self.program.symbols[row.index()].atom,
                _ => return,
            };
            if !self.live.get(code.index()).copied().unwrap_or(false) {
                return;
            }
        }
        for rela in inside {
            self.follow_symbol(object, rela.r_sym(LittleEndian, false) as usize);
        }
    }
}
