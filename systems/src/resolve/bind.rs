//! Which names other modules see, and which of ours they may replace.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use formats::version_script::{Assigned, VersionScript};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::{LinkOptions, OutputKind, Symbolic, Unresolved};
use relink_engine::program::Program;
use relink_engine::records::{SymbolRecord, place, symbol_flags};
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use crate::ingest::libraries::split_version;

/// Marks exported and preemptible names. `EXPORTED` comes in as "a shared library mentions it".
pub(crate) fn bind_names(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    program.kind = options.output_kind;
    program.position_independent = program.kind.is_position_independent();
    program.text_relocations = options.dynamic.text_relocations;
    program.pack_relative = options.dynamic.pack_relative_relocs && program.position_independent;
    program.undefined_allowed = match options.dynamic.unresolved {
        Unresolved::ByKind => program.kind.is_shared(),
        Unresolved::Error => false,
        Unresolved::Ignore | Unresolved::Warn => true,
    };
    program.undefined_warned = program.undefined_allowed && options.dynamic.unresolved == Unresolved::Warn;
    let lists = match Lists::read(options) {
        Ok(lists) => lists,
        Err(message) => return frame.errors.push(Diagnostic::Other { message }),
    };
    for row in (0..program.globals).map(SymbolRow) {
        let symbol = program.symbols[row.index()];
        let mentioned = symbol.flags & symbol_flags::EXPORTED != 0;
        let hidden = matches!(symbol.other & 3, elf::STV_HIDDEN | elf::STV_INTERNAL);
        let mut flags = symbol.flags & !(symbol_flags::EXPORTED | symbol_flags::PREEMPTIBLE);
        if program.kind.is_dynamic() && !hidden && symbol.flags & symbol_flags::LINKER_DEFINED == 0 {
            let defined = place::is_atom(symbol.atom) || symbol.atom == place::ABSOLUTE;
            if !defined {
                flags |= symbol_flags::PREEMPTIBLE;
            } else {
                // `.symver` exports what it names, whatever `local: *` says.
                let (name, version) = split_version(program.names.of(row));
                let versioned = version.is_some()
                    || program.dynamic.default_versions.iter().any(|(known, _)| *known == row);
                let object = program.objects.get(symbol.input.index()).map_or("", |object| &object.name);
                let named = Named { name, object, versioned, mentioned };
                let visible = lists.judge(&named, &symbol, options);
                if let Some(version) = visible.version {
                    program.dynamic.scripted_versions.insert(row, version);
                }
                if visible.exported {
                    flags |= symbol_flags::EXPORTED;
                }
                if visible.preemptible {
                    flags |= symbol_flags::PREEMPTIBLE;
                }
            }
        }
        program.symbols[row.index()].flags = flags;
    }
    program.dynamic.script_nodes = lists.nodes();
}

/// Who may see a definition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visible {
    pub exported: bool,
    pub preemptible: bool,
    /// Node of the version script.
    pub version: Option<u16>,
}

/// What a definition is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// Without a version.
    pub name: &'a [u8],
    /// The object that has it.
    pub object: &'a str,
    /// `.symver` says which version of it.
    pub versioned: bool,
    /// A shared library mentions it.
    pub mentioned: bool,
}

/// What the user lists by name.
pub(crate) struct Lists {
    versions: Option<VersionScript>,
    dynamic: Option<VersionScript>,
    /// `--export-dynamic-symbol`, as a list.
    exported: Option<VersionScript>,
    exclude_all: bool,
    excluded: Vec<String>,
}

impl Lists {
    pub(crate) fn read(options: &LinkOptions) -> Result<Lists, String> {
        let dynamic = &options.dynamic;
        let read = |what: &str, texts: &[String]| -> Result<Option<VersionScript>, String> {
            if texts.is_empty() {
                return Ok(None);
            }
            let scripts: Result<Vec<VersionScript>, _> =
                texts.iter().map(|text| VersionScript::parse(text)).collect();
            let merged = scripts.and_then(VersionScript::merge);
            merged.map(Some).map_err(|error| format!("{what}: {error}"))
        };
        let exported: Vec<String> =
            dynamic.export_symbols.iter().map(|pattern| format!("{{ {pattern}; }};")).collect();
        let libraries = dynamic.exclude_libs.iter().flat_map(|list| list.split([',', ':']));
        let excluded: Vec<String> = libraries.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Lists {
            versions: read("--version-script", &dynamic.version_scripts)?,
            dynamic: read("--dynamic-list", &dynamic.dynamic_lists)?,
            exported: read("--export-dynamic-symbol", &exported)?,
            exclude_all: excluded.iter().any(|name| name == "ALL"),
            excluded,
        })
    }

    /// Names of the nodes, empty for the anonymous one, and indexes of their parents.
    pub(crate) fn nodes(&self) -> Vec<(Vec<u8>, Vec<u16>)> {
        let Some(script) = &self.versions else { return Vec::new() };
        let index = |name: &String| script.nodes.iter().position(|node| node.name == *name);
        script
            .nodes
            .iter()
            .map(|node| {
                let parents = node.parents.iter().filter_map(index).map(|index| index as u16).collect();
                (node.name.as_bytes().to_vec(), parents)
            })
            .collect()
    }

    pub(crate) fn judge(&self, named: &Named<'_>, symbol: &SymbolRecord, options: &LinkOptions) -> Visible {
        let Named { name, object, versioned, mentioned } = *named;
        let demangled = || {
            let text = std::str::from_utf8(name).ok()?;
            cpp_demangle::Symbol::new(text).ok()?.demangle().ok()
        };
        let listed = |list: &Option<VersionScript>| {
            list.as_ref().is_some_and(|list| matches!(list.assign(name, demangled), Assigned::Version(_)))
        };
        if self.is_excluded(object) {
            return Visible::default();
        }
        let shared = options.output_kind.is_shared();
        let mut visible = Visible { exported: shared, ..Visible::default() };
        match self.versions.as_ref().map(|script| script.assign(name, demangled)) {
            Some(Assigned::Local) if !versioned => return Visible::default(),
            Some(Assigned::Version(node)) => visible.version = Some(node as u16),
            Some(_) | None => {}
        }
        let in_list = listed(&self.dynamic) || listed(&self.exported);
        visible.exported |= mentioned || options.dynamic.export_dynamic || in_list;
        if shared && symbol.other & 3 == elf::STV_DEFAULT {
            let function = matches!(symbol.info & 0xf, elf::STT_FUNC | elf::STT_GNU_IFUNC);
            let symbolic = match options.dynamic.symbolic {
                Symbolic::None => self.dynamic.is_some(),
                Symbolic::Functions => function,
                Symbolic::All => true,
            };
            visible.preemptible = !symbolic || in_list;
        }
        visible
    }

    /// `--exclude-libs`: archives of these names export nothing.
    fn is_excluded(&self, object: &str) -> bool {
        if self.excluded.is_empty() {
            return false;
        }
        let Some((archive, _)) = object.rsplit_once('(') else { return false };
        self.exclude_all || self.excluded.iter().any(|name| name == archive)
    }
}

/// Whether the kind of output can have names that a loader binds.
pub(crate) fn needs_dynamic_section(kind: OutputKind) -> bool {
    kind.is_dynamic() || kind.is_position_independent()
}
