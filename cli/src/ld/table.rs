//! The options of ld: one table of names, forms of value, and what each of them does.

use std::ffi::OsStr;
use std::path::PathBuf;

use anstream::ColorChoice;
use relink::{Discard, GateKind, MoveKind, PlaceKind, ScheduleKind, Strip, VirtAddr};

use super::command::{LdCommand, Show};
use super::keyword;
use super::value::{address, build_id, choice, defsym, number, percent};

/// How an option is given its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// No value.
    None,
    /// `--name=value` or `--name value`; of one letter: `-nvalue` or `-n value`.
    Required(&'static str),
    /// `--name` or `--name=value`; of one letter: `-n` or `-nvalue`.
    Optional(&'static str),
}

/// What an option does.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// Sets something.
    Set(fn(&mut LdCommand)),
    /// Takes a value that may be wrong.
    Do(fn(&mut LdCommand, &OsStr) -> Result<(), String>),
    /// Nothing, and nobody would see a difference in a static program.
    Ignore,
    /// Nothing yet, which is said.
    WithoutEffect,
    /// It can't be done; what to do instead.
    Refuse(&'static str),
}

/// An option.
pub(super) struct Spec {
    /// Names with the dashes that people write; one dash and two mean the same, except before an `o`.
    pub(super) names: &'static [&'static str],
    pub(super) value: Value,
    pub(super) act: Act,
    /// One line of `--help`; empty for what is listed by name only.
    pub(super) help: &'static str,
}

const fn flag(names: &'static [&'static str], act: Act, help: &'static str) -> Spec {
    Spec { names, value: Value::None, act, help }
}

const fn with(names: &'static [&'static str], value: &'static str, act: Act, help: &'static str) -> Spec {
    Spec { names, value: Value::Required(value), act, help }
}

const fn maybe(names: &'static [&'static str], value: &'static str, act: Act, help: &'static str) -> Spec {
    Spec { names, value: Value::Optional(value), act, help }
}

/// A value that must be text.
fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("'{}' is not UTF-8", value.to_string_lossy()))
}

/// Puts a good value in its place.
fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

use Act::{Do, Ignore, Refuse, Set, WithoutEffect};

const OTHER_LINKER: &str = "choose another linker for this one (gcc -fuse-ld=bfd)";

/// All of them.
#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    // Inputs.
    with(&["-l", "--library"], "NAME", Do(library), "Link the library libNAME.a; :NAME is a file name"),
    with(&["-L", "--library-path"], "DIR", Do(directory),
        "Search libraries in DIR; a leading = stands for the system root"),
    with(&["--sysroot"], "DIR", Do(|c, v| put(&mut c.search.sysroot, Ok((!v.is_empty()).then(|| v.into())))),
        "The system root"),
    flag(&["--start-group", "-("], Set(|c| c.groups_open += 1),
        "Begin a group (archives are always searched as one group)"),
    flag(&["--end-group", "-)"], Do(end_group), "End a group"),
    flag(&["--whole-archive"], Set(|c| c.position.whole_archive = true),
        "Link all members of the archives that follow"),
    flag(&["--no-whole-archive"], Set(|c| c.position.whole_archive = false), "Link needed members only"),
    flag(&["--as-needed"], Set(|c| c.position.as_needed = true), "Accepted; concerns shared libraries"),
    flag(&["--no-as-needed"], Set(|c| c.position.as_needed = false), ""),
    flag(&["--push-state"], Set(|c| c.saved_positions.push(c.position)),
        "Save --whole-archive, --as-needed and -Bstatic"),
    flag(&["--pop-state"], Do(pop_state), "Restore them"),
    flag(&["-Bstatic", "-dn", "-non_shared"], Set(|c| c.position.static_only = true), "Search archives only"),
    flag(&["-Bdynamic", "-dy", "-call_shared"], Set(|c| c.position.static_only = false),
        "Search shared libraries too"),
    // Output.
    with(&["-o", "--output"], "FILE", Do(|c, v| put(&mut c.output, Ok(v.into()))),
        "Output; a.out if none is given"),
    flag(&["-static"], Set(static_link), "Make a static program"),
    flag(&["-pie", "--pic-executable"], Set(|c| c.pie = true),
        "With -static: a program that runs at any address"),
    flag(&["-no-pie"], Set(|c| c.pie = false), "A program with a fixed address"),
    flag(&["--no-dynamic-linker"], Set(|c| c.no_dynamic_linker = true), "Name no program interpreter"),
    with(&["-dynamic-linker", "-I"], "FILE", Set(|c| c.dynamic_linker = true), ""),
    with(&["-m"], "EMULATION", Do(emulation), "Only elf_x86_64"),
    with(&["-e", "--entry"], "SYMBOL", Do(|c, v| put(&mut c.options.entry, Ok(Some(text(v)?.to_owned())))),
        "Where the program starts; _start if none is given"),
    with(&["--image-base"], "ADDRESS", Do(|c, v| base(c, number(text(v)?))),
        "Lowest address of the program"),
    with(&["-Ttext-segment"], "ADDRESS", Do(|c, v| base(c, address(text(v)?))),
        "The same, hexadecimal"),
    maybe(&["--build-id"], "STYLE", Do(|c, v| put(&mut c.options.build_id, build_id(text(v)?))),
        "Note that identifies the bytes: none, fast, md5, sha1, tree, uuid, 0xHEX"),
    flag(&["--eh-frame-hdr"], Set(|c| c.options.eh_frame_hdr = true), "Make .eh_frame_hdr"),
    flag(&["--no-eh-frame-hdr"], Set(|c| c.options.eh_frame_hdr = false), ""),
    flag(&["-s", "--strip-all"], Set(|c| c.options.strip = Strip::All), "Drop symbols and debug information"),
    flag(&["-S", "--strip-debug"], Do(strip_debug), "Drop debug information"),
    flag(&["-x", "--discard-all"], Set(|c| c.options.discard = Discard::All), "Drop local symbols"),
    flag(&["-X", "--discard-locals"], Set(|c| c.options.discard = Discard::Locals), "Drop local labels"),
    with(&["-z"], "KEYWORD", Do(|c, v| keyword::apply(c, text(v)?)),
        "[no]relro now lazy [no]execstack [no]separate-code [no]start-stop-gc muldefs max-page-size= stack-size="),
    // Symbols and sections.
    with(&["-u", "--undefined", "--require-defined"], "SYMBOL", Do(undefined), "Need SYMBOL from the start"),
    with(&["--defsym"], "NAME=VALUE", Do(define), "Define a symbol as a number or SYMBOL[+-NUMBER]"),
    flag(&["--gc-sections"], Set(|c| c.options.gc_sections = true), "Drop sections that nothing refers to"),
    flag(&["--no-gc-sections"], Set(|c| c.options.gc_sections = false), ""),
    flag(&["--print-gc-sections"], Set(|c| c.print_gc_sections = true), "List what --gc-sections drops"),
    flag(&["--no-print-gc-sections"], Set(|c| c.print_gc_sections = false), ""),
    flag(&["--allow-multiple-definition"], Set(|c| c.options.allow_multiple_definition = true),
        "Take the first of several definitions"),
    flag(&["--no-allow-multiple-definition"], Set(|c| c.options.allow_multiple_definition = false), ""),
    // Incremental links.
    flag(&["--incremental"], Set(|c| c.incremental = true),
        "Keep state in .relink beside the output and patch it next time (or RELINK_INCREMENTAL=1)"),
    flag(&["--no-incremental"], Set(|c| c.incremental = false), ""),
    with(&["--code-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().code_slack_percent, percent(text(v)?))),
        "Free room after each function"),
    with(&["--data-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().data_slack_percent, percent(text(v)?))),
        "Free room after each datum"),
    with(&["--text-reserve"], "PERCENT", Do(|c, v| put(&mut c.tuning().text_reserve_percent, percent(text(v)?))),
        "Free room for code that moves"),
    with(&["--debug-slack"], "PERCENT", Do(|c, v| put(&mut c.tuning().debug_slack_percent, percent(text(v)?))),
        "Free room after each unit's debug information"),
    with(&["--move"], "POLICY", Do(|c, v| put(&mut c.tuning().move_kind, choice(text(v)?, MOVES))),
        "What becomes of code that outgrew its place: island, retarget, auto"),
    with(&["--place"], "POLICY", Do(|c, v| put(&mut c.tuning().place_kind, choice(text(v)?, PLACES))),
        "How a new place is chosen: first-fit, append"),
    with(&["--gate"], "POLICY", Do(|c, v| put(&mut c.tuning().gate_kind, choice(text(v)?, GATES))),
        "When to patch: strict, closed (never)"),
    with(&["--schedule"], "POLICY", Do(|c, v| put(&mut c.options.schedule_kind, choice(text(v)?, SCHEDULES))),
        "How a frame is run: single, multi"),
    with(&["--report"], "FILE", Do(|c, v| put(&mut c.report, Ok(Some(v.into())))),
        "Write outcome, reasons, counters and times as JSON (or RELINK_REPORT=FILE)"),
    flag(&["--verify"], Set(|c| c.verify = true),
        "Compare the image with a full link before it is published"),
    // Messages and running.
    with(&["-Map"], "FILE", Do(map), "Write a map; - is standard output"),
    flag(&["-M", "--print-map"], Set(|c| c.map_to_output = true), "Print a map"),
    flag(&["-t", "--trace"], Set(|c| c.trace = true), "Print the name of each object that is linked"),
    with(&["--dependency-file"], "FILE", Do(|c, v| put(&mut c.dependency_file, Ok(Some(v.into())))),
        "Write what the output depends on, for make"),
    with(&["--error-limit"], "N", Do(|c, v| put(&mut c.options.error_limit, number(text(v)?).map(|n| n as usize))),
        "Show at most N errors; 0 shows all"),
    maybe(&["--color-diagnostics"], "WHEN", Do(color), "always, never or auto"),
    flag(&["--no-color-diagnostics"], Set(|c| c.color = ColorChoice::Never), ""),
    maybe(&["--demangle"], "STYLE", Set(|c| c.demangle = true), "Show names as their authors wrote them"),
    flag(&["--no-demangle"], Set(|c| c.demangle = false), ""),
    flag(&["--fatal-warnings"], Set(|c| c.fatal_warnings = true), "Warnings are errors"),
    flag(&["--no-fatal-warnings"], Set(|c| c.fatal_warnings = false), ""),
    flag(&["-w", "--no-warnings"], Set(|c| c.suppress_warnings = true), "No warnings"),
    maybe(&["--threads"], "N", Do(|c, v| put(&mut c.options.threads, threads(v))),
        "Use N threads; one per core if none is given"),
    with(&["--thread-count"], "N", Do(|c, v| put(&mut c.options.threads, threads(v))), ""),
    flag(&["--no-threads"], Set(|c| c.options.threads = 1), ""),
    flag(&["--version"], Set(|c| c.show = Some(c.show.unwrap_or(Show::Version))),
        "Print the version and end"),
    flag(&["-v", "--verbose"], Set(|c| c.announce = true), "Print the version and link"),
    flag(&["-V"], Set(announce_all), "The same, with the emulations"),
    flag(&["--help"], Set(|c| c.show = Some(Show::Help)), "Print this"),

    // Without meaning for a static program, or for this linker.
    flag(&["-nostdlib"], Ignore, ""),
    flag(&["-export-dynamic", "-E", "--no-export-dynamic"], Ignore, ""),
    flag(&[
        "-Bsymbolic", "-Bsymbolic-functions", "-Bsymbolic-non-weak", "-Bsymbolic-non-weak-functions",
        "-Bno-symbolic", "-Bgroup",
    ], Ignore, ""),
    flag(&[
        "--no-undefined", "--allow-shlib-undefined", "--no-allow-shlib-undefined", "--no-undefined-version",
        "--undefined-version", "--no-define-common", "--define-common",
    ], Ignore, ""),
    flag(&[
        "--enable-new-dtags", "--disable-new-dtags", "--enable-linker-version", "--disable-linker-version",
        "--copy-dt-needed-entries", "--no-copy-dt-needed-entries", "--no-add-needed", "--add-needed",
    ], Ignore, ""),
    flag(&["-EL", "-d", "-dc", "-dp", "-g", "-qmagic", "-Qy"], Ignore, ""),
    flag(&[
        "--relax", "--no-relax", "--keep-memory", "--no-keep-memory", "--reduce-memory-overheads",
        "--no-map-whole-files", "--map-whole-files", "--mmap-output-file", "--no-mmap-output-file",
        "--check-sections", "--no-check-sections", "--accept-unknown-input-arch",
        "--no-accept-unknown-input-arch", "--force-exe-suffix",
    ], Ignore, ""),
    flag(&[
        "--no-omagic", "--no-nmagic", "--no-ld-generated-unwind-info", "--ld-generated-unwind-info",
        "--no-rosegment", "--rosegment", "--merge-exidx-entries", "--no-merge-exidx-entries",
        "--fix-cortex-a53-843419", "--fix-cortex-a53-835769", "--no-fix-cortex-a53-843419", "--be8",
        "--no-call-graph-profile-sort", "--no-warn-mismatch", "--warn-backrefs", "--no-warn-backrefs",
        "--no-warn-symbol-ordering", "--warn-symbol-ordering", "--no-gnu-unique", "--gnu-unique",
        "--no-strip-discarded", "--strip-discarded", "--no-ctors-in-init-array", "--ctors-in-init-array",
        "--fork", "--no-fork", "--detect-odr-violations",
        "--no-detect-odr-violations", "--no-gdb-index",
        "--no-print-icf-sections",
    ], Ignore, ""),
    flag(&[
        "--warn-common", "--no-warn-common", "--warn-constructors", "--warn-multiple-gp", "--warn-once",
        "--warn-section-align", "--warn-textrel", "--warn-shared-textrel", "--warn-alternate-em",
        "--warn-execstack", "--no-warn-execstack", "--warn-execstack-objects", "--error-execstack",
        "--no-error-execstack", "--warn-rwx-segments", "--no-warn-rwx-segments", "--error-rwx-segments",
        "--no-error-rwx-segments", "--no-warn-search-mismatch", "--warn-ifunc-textrel",
       
    ], Ignore, ""),
    flag(&["--sort-common", "--no-sort-common"], Ignore, ""),
    maybe(&["--sort-common"], "ORDER", Ignore, ""),
    with(&["--sort-section"], "ORDER", Ignore, ""),
    maybe(&["-O"], "LEVEL", Ignore, ""),
    with(&[
        "--hash-style", "-soname", "-h", "-rpath", "-rpath-link", "-init", "-fini", "-a", "-A", "-G", "-Y",
        "--exclude-libs", "--dynamic-list", "--export-dynamic-symbol", "--export-dynamic-symbol-list", "-f",
        "-F", "--auxiliary", "--filter", "--audit", "--depaudit", "-P", "--package-metadata",
        "--max-cache-size", "--hash-size", "-flavor", "-mllvm", "--plugin-opt", "-plugin",
        "-plugin-save-temps", "--lto-O", "--thinlto-jobs", "--thinlto-cache-dir", "--pack-dyn-relocs",
        "--out-implib", "--assert", "--task-link",
    ], "VALUE", Ignore, ""),
    flag(&["--dynamic-list-data", "--dynamic-list-cpp-new", "--dynamic-list-cpp-typeinfo"], Ignore, ""),

    // Not done yet, and the program is right without.
    flag(&[
        "--cref", "--gdb-index", "--print-memory-usage", "--stats", "--warn-unresolved-symbols",
        "--noinhibit-exec", "--print-icf-sections", "--time-trace", "--print-archive-stats",
    ], WithoutEffect, ""),
    with(&[
        "-y", "--trace-symbol", "--symbol-ordering-file", "--section-ordering-file",
        "--call-graph-ordering-file", "--why-live", "--print-symbol-order", "--reproduce",
    ], "VALUE", WithoutEffect, ""),
    maybe(&["--time-trace"], "FILE", WithoutEffect, ""),
    with(&["--compress-debug-sections"], "FORMAT", Do(|c, v| none_or_warning(c, "--compress-debug-sections", v)),
        ""),
    with(&["--unresolved-symbols"], "METHOD", Do(unresolved), ""),

    // Not done yet, and the program would be wrong without.
    flag(&["-shared", "-Bshareable"],
        Refuse("it makes a shared library; choose another linker for this one (gcc -fuse-ld=bfd)"),
        "Not supported yet"),
    flag(&["-r", "-i", "--relocatable", "-Ur"],
        Refuse("it makes an object of objects; choose another linker for this one (ld.bfd -r)"),
        "Not supported yet"),
    with(&["-T", "--script", "-dT", "--default-script", "-c", "--mri-script"], "FILE",
        Refuse("sections can't be laid out by a script; scripts that only name inputs may be given as inputs"),
        "Not supported yet"),
    with(&["--version-script"], "FILE", Refuse("versions are for shared libraries; leave it out of a static link"),
        "Not supported yet"),
    with(&["--icf"], "MODE", Do(icf), "Only none"),
    flag(&["-q", "--emit-relocs"], Refuse(OTHER_LINKER), "Not supported yet"),
    with(&["--oformat", "-b", "--format"], "FORMAT", Do(format), "Only elf64-x86-64"),
    flag(&["-N", "--omagic", "-n", "--nmagic", "-EB"], Refuse(OTHER_LINKER), ""),
    with(&[
        "--wrap", "-R", "--just-symbols", "--retain-symbols-file", "-Ttext", "-Tdata", "-Tbss",
        "-Trodata-segment", "-Tldata-segment", "--section-start", "--undefined-glob", "--remap-inputs",
    ], "VALUE", Refuse(OTHER_LINKER), ""),
    flag(&["--start-lib", "--end-lib"], Refuse("put the objects in an archive"), ""),
];

const MOVES: &[(&str, MoveKind)] =
    &[("island", MoveKind::Island), ("retarget", MoveKind::Retarget), ("auto", MoveKind::Auto)];
const PLACES: &[(&str, PlaceKind)] = &[("first-fit", PlaceKind::FirstFit), ("append", PlaceKind::Append)];
const GATES: &[(&str, GateKind)] = &[("strict", GateKind::Strict), ("closed", GateKind::Closed)];
const SCHEDULES: &[(&str, ScheduleKind)] =
    &[("single", ScheduleKind::SingleThreaded), ("multi", ScheduleKind::MultiThreaded)];

fn library(command: &mut LdCommand, name: &OsStr) -> Result<(), String> {
    command.add_library(name);
    Ok(())
}

fn directory(command: &mut LdCommand, path: &OsStr) -> Result<(), String> {
    command.search.directories.push(path.into());
    Ok(())
}

fn undefined(command: &mut LdCommand, symbol: &OsStr) -> Result<(), String> {
    command.options.undefined.push(text(symbol)?.to_owned());
    Ok(())
}

fn define(command: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    command.options.defsyms.push(defsym(text(value)?)?);
    Ok(())
}

fn static_link(command: &mut LdCommand) {
    command.static_link = true;
    command.position.static_only = true;
}

fn announce_all(command: &mut LdCommand) {
    command.announce = true;
    command.emulations = true;
}

fn end_group(command: &mut LdCommand, _: &OsStr) -> Result<(), String> {
    command.groups_open = command.groups_open.checked_sub(1).ok_or("there is no --start-group before it")?;
    Ok(())
}

fn pop_state(command: &mut LdCommand, _: &OsStr) -> Result<(), String> {
    command.position = command.saved_positions.pop().ok_or("there is no --push-state before it")?;
    Ok(())
}

fn emulation(command: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    if value == "elf_x86_64" {
        return Ok(());
    }
    command.hopeless = true;
    Err(format!("'{}' is not supported; this linker makes elf_x86_64", value.to_string_lossy()))
}

/// `-s -S` is `-s`.
fn strip_debug(command: &mut LdCommand, _: &OsStr) -> Result<(), String> {
    if command.options.strip == Strip::None {
        command.options.strip = Strip::Debug;
    }
    Ok(())
}

fn map(command: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    match value == "-" {
        true => command.map_to_output = true,
        false => command.map = Some(PathBuf::from(value)),
    }
    Ok(())
}

fn color(command: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    let choices = [("", ColorChoice::Always), ("always", ColorChoice::Always), ("never", ColorChoice::Never)];
    command.color = match text(value)? {
        "auto" => ColorChoice::Auto,
        other => {
            choice(other, &choices).map_err(|_| format!("'{other}' is not one of always, never, auto"))?
        }
    };
    Ok(())
}

fn base(command: &mut LdCommand, address: Result<u64, String>) -> Result<(), String> {
    put(&mut command.options.image_base, address.map(|address| Some(VirtAddr(address))))
}

/// More than any machine has is a mistake; no number is one per core.
fn threads(value: &OsStr) -> Result<usize, String> {
    if value.is_empty() {
        return Ok(0);
    }
    match number(text(value)?)? {
        0 => Err("a link needs at least one thread".to_owned()),
        count @ 1..=4096 => Ok(count as usize),
        count => Err(format!("{count} threads are too many")),
    }
}

fn none_or_warning(command: &mut LdCommand, option: &str, value: &OsStr) -> Result<(), String> {
    if value != "none" {
        command.warn(format!("{option}={} has no effect yet", value.to_string_lossy()));
    }
    Ok(())
}

fn unresolved(command: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    if value != "report-all" && value != "ignore-in-shared-libs" {
        let value = value.to_string_lossy();
        command.warn(format!("--unresolved-symbols={value} has no effect yet: undefined symbols are errors"));
    }
    Ok(())
}

fn icf(_: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    match value == "none" {
        true => Ok(()),
        false => Err("not supported yet; leave it out, or use --icf=none".to_owned()),
    }
}

fn format(_: &mut LdCommand, value: &OsStr) -> Result<(), String> {
    match value.to_str() {
        Some("elf64-x86-64" | "elf" | "default") => Ok(()),
        _ => Err(format!("'{}' is not supported yet; {OTHER_LINKER}", value.to_string_lossy())),
    }
}
