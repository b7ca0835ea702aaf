//! What options do whose value takes more than a line to understand.

use std::ffi::OsStr;
use std::path::PathBuf;

use anstream::ColorChoice;
use relink::{CompressionAlgorithm, Strip, Unresolved, VirtAddr};

use super::command::{LdCommand, TextUse};
use super::table::OTHER_LINKER;
use super::value::{choice, defsym, number, put, text};

type Done = Result<(), String>;

/// A name that may be empty to mean none.
pub(super) fn name(value: &OsStr) -> Result<Option<String>, String> {
    let value = text(value)?;
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

pub(super) fn library(command: &mut LdCommand, name: &OsStr) -> Done {
    command.add_library(name);
    Ok(())
}

pub(super) fn directory(command: &mut LdCommand, path: &OsStr) -> Done {
    command.search.directories.push(path.into());
    Ok(())
}

pub(super) fn undefined(command: &mut LdCommand, symbol: &OsStr) -> Done {
    command.options.undefined.push(text(symbol)?.to_owned());
    Ok(())
}

pub(super) fn define(command: &mut LdCommand, value: &OsStr) -> Done {
    command.options.defsyms.push(defsym(text(value)?)?);
    Ok(())
}

pub(super) fn trace_symbol(command: &mut LdCommand, symbol: &OsStr) -> Done {
    push_once(&mut command.traced_symbols, text(symbol)?);
    Ok(())
}

pub(super) fn wrap(command: &mut LdCommand, symbol: &OsStr) -> Done {
    push_once(&mut command.options.wrap, text(symbol)?);
    Ok(())
}

fn push_once(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

pub(super) fn static_link(command: &mut LdCommand) {
    command.static_link = true;
    command.position.static_only = true;
}

pub(super) fn announce_all(command: &mut LdCommand) {
    command.announce = true;
    command.emulations = true;
}

pub(super) fn end_group(command: &mut LdCommand, _: &OsStr) -> Done {
    command.groups_open = command.groups_open.checked_sub(1).ok_or("there is no --start-group before it")?;
    Ok(())
}

pub(super) fn pop_state(command: &mut LdCommand, _: &OsStr) -> Done {
    command.position = command.saved_positions.pop().ok_or("there is no --push-state before it")?;
    Ok(())
}

pub(super) fn emulation(_: &mut LdCommand, value: &OsStr) -> Done {
    match value == "elf_x86_64" {
        true => Ok(()),
        false => Err(format!("'{}' is not supported; this linker makes elf_x86_64", value.to_string_lossy())),
    }
}

/// `-s -S` is `-s`.
pub(super) fn strip_debug(command: &mut LdCommand, _: &OsStr) -> Done {
    if command.options.strip == Strip::None {
        command.options.strip = Strip::Debug;
    }
    Ok(())
}

pub(super) fn map(command: &mut LdCommand, value: &OsStr) -> Done {
    match value == "-" {
        true => command.map_to_output = true,
        false => command.map = Some(PathBuf::from(value)),
    }
    Ok(())
}

pub(super) fn color(command: &mut LdCommand, value: &OsStr) -> Done {
    let choices = [("", ColorChoice::Always), ("always", ColorChoice::Always), ("never", ColorChoice::Never)];
    command.color = match text(value)? {
        "auto" => ColorChoice::Auto,
        other => {
            choice(other, &choices).map_err(|_| format!("'{other}' is not one of always, never, auto"))?
        }
    };
    Ok(())
}

pub(super) fn base(command: &mut LdCommand, address: Result<u64, String>) -> Done {
    put(&mut command.options.image_base, address.map(|address| Some(VirtAddr(address))))
}

/// More than any machine has is a mistake; no number is one per core.
pub(super) fn threads(value: &OsStr) -> Result<usize, String> {
    if value.is_empty() {
        return Ok(0);
    }
    match number(text(value)?)? {
        0 => Err("a link needs at least one thread".to_owned()),
        count @ 1..=4096 => Ok(count as usize),
        count => Err(format!("{count} threads are too many")),
    }
}

pub(super) fn soname(command: &mut LdCommand, value: &OsStr) -> Done {
    put(&mut command.dynamic().soname, name(value))
}

pub(super) fn rpath(command: &mut LdCommand, value: &str) -> Done {
    if !value.is_empty() {
        push_once(&mut command.dynamic().rpaths, value);
    }
    Ok(())
}

/// `-R`.
pub(super) fn rpath_or_file(command: &mut LdCommand, value: &OsStr) -> Done {
    command.rpaths_or_files.push(value.into());
    rpath(command, text(value)?)
}

pub(super) fn rpath_link(command: &mut LdCommand, value: &OsStr) -> Done {
    command.search.rpath_links.extend(std::env::split_paths(value));
    Ok(())
}

pub(super) fn export_symbol(command: &mut LdCommand, pattern: &OsStr) -> Done {
    push_once(&mut command.dynamic().export_symbols, text(pattern)?);
    Ok(())
}

pub(super) fn changed(command: &mut LdCommand, path: &OsStr) -> Done {
    command.changed.get_or_insert_default().push(path.into());
    Ok(())
}

/// The `@` says that the value is a file with names, as it does for arguments; it may be left out.
pub(super) fn changed_list(command: &mut LdCommand, value: &OsStr) -> Done {
    use std::os::unix::ffi::OsStrExt;
    let path = value.as_bytes().strip_prefix(b"@").unwrap_or(value.as_bytes());
    if path.is_empty() {
        return Err("it names no file".to_owned());
    }
    command.changed.get_or_insert_default();
    command.changed_lists.push(OsStr::from_bytes(path).into());
    Ok(())
}

/// Notes a file whose text is wanted: understanding a command line opens nothing.
pub(super) fn text_file(command: &mut LdCommand, option: &'static str, use_: TextUse, path: &OsStr) -> Done {
    command.texts.push((option, use_, path.into()));
    Ok(())
}

/// A dynamic list of fixed patterns.
pub(super) fn dynamic_list(command: &mut LdCommand, patterns: &str) {
    push_once(&mut command.dynamic().dynamic_lists, &format!("{{ {patterns} }};"));
}

/// As every ld: names are parted by commas or colons.
pub(super) fn exclude_libraries(command: &mut LdCommand, value: &OsStr) -> Done {
    for library in text(value)?.split([',', ':']).filter(|library| !library.is_empty()) {
        push_once(&mut command.dynamic().exclude_libs, library);
    }
    Ok(())
}

/// `--unresolved-symbols`: what objects refer to, and what shared libraries do.
pub(super) fn unresolved(command: &mut LdCommand, value: &OsStr) -> Done {
    let methods = [
        ("report-all", (Unresolved::Error, false)),
        ("ignore-all", (Unresolved::Ignore, true)),
        ("ignore-in-object-files", (Unresolved::Ignore, false)),
        ("ignore-in-shared-libs", (Unresolved::Error, true)),
    ];
    let (objects, libraries) = choice(text(value)?, &methods)?;
    command.dynamic().unresolved = objects;
    command.dynamic().allow_shlib_undefined = Some(libraries);
    Ok(())
}

pub(super) fn pack_relocations(command: &mut LdCommand, value: &OsStr) -> Done {
    put(&mut command.dynamic().pack_relative_relocs, choice(text(value)?, &[("none", false), ("relr", true)]))
}

pub(super) fn compress(command: &mut LdCommand, value: &OsStr) -> Done {
    let zlib = Some(CompressionAlgorithm::Zlib);
    let formats =
        [("none", None), ("zlib", zlib), ("zlib-gabi", zlib), ("zstd", Some(CompressionAlgorithm::Zstd))];
    put(&mut command.options.compress_debug, choice(text(value)?, &formats))
}

pub(super) fn icf(_: &mut LdCommand, value: &OsStr) -> Done {
    match value == "none" {
        true => Ok(()),
        false => Err("not supported yet; leave it out, or use --icf=none".to_owned()),
    }
}

pub(super) fn format(_: &mut LdCommand, value: &OsStr) -> Done {
    match value.to_str() {
        Some("elf64-x86-64" | "elf" | "default") => Ok(()),
        _ => Err(format!("'{}' is not supported yet; {OTHER_LINKER}", value.to_string_lossy())),
    }
}
