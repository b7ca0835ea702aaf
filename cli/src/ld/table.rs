//! The options of ld: one table of names, forms of value, and what each of them does. Those that only this linker has
//! stand in `table/own.rs`.

mod own;

use std::ffi::OsStr;

use anstream::ColorChoice;
use relink::{Discard, HashStyle, Strip, Symbolic, Unresolved};

use super::act;
use super::command::{LdCommand, Shape, Show, TextUse};
use super::keyword;
use super::value::{address, build_id, choice, number, put, text};
pub(super) use own::{CHANGED, CHANGED_LIST, OWN};

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
    /// Takes a value that may be out of reach.
    Try(fn(&mut LdCommand, &OsStr) -> Result<(), String>),
    /// Nothing: it is done anyway, or nobody would see a difference.
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

/// All options.
pub(super) fn options() -> impl Iterator<Item = &'static Spec> + Clone {
    OPTIONS.iter().chain(OWN)
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

use Act::{Do, Ignore, Refuse, Set, Try, WithoutEffect};

pub(super) const OTHER_LINKER: &str =
    "choose another linker for this one (gcc -fuse-ld=bfd, or --fallback-linker)";

/// Those that other linkers have too.
#[rustfmt::skip]
const OPTIONS: &[Spec] = &[
    // Inputs.
    with(&["-l", "--library"], "NAME", Do(act::library),
        "Link the library libNAME.so or libNAME.a; :NAME is a file name"),
    with(&["-L", "--library-path"], "DIR", Do(act::directory),
        "Search libraries in DIR; a leading = stands for the system root"),
    with(&["--sysroot"], "DIR", Do(|c, v| put(&mut c.search.sysroot, Ok((!v.is_empty()).then(|| v.into())))),
        "The system root"),
    flag(&["--start-group", "-("], Set(|c| c.groups_open += 1),
        "Begin a group (archives are always searched as one group)"),
    flag(&["--end-group", "-)"], Do(act::end_group), "End a group"),
    flag(&["--whole-archive"], Set(|c| c.position.whole_archive = true),
        "Link all members of the archives that follow"),
    flag(&["--no-whole-archive"], Set(|c| c.position.whole_archive = false), "Link needed members only"),
    flag(&["--as-needed"], Set(|c| c.position.as_needed = true),
        "Name a shared library that follows only if it is used"),
    flag(&["--no-as-needed"], Set(|c| c.position.as_needed = false), "Name it in any case"),
    flag(&["--push-state"], Set(|c| c.saved_positions.push(c.position)),
        "Save --whole-archive, --as-needed and -Bstatic"),
    flag(&["--pop-state"], Do(act::pop_state), "Restore them"),
    flag(&["-Bstatic", "-dn", "-non_shared"], Set(|c| c.position.static_only = true), "Search archives only"),
    flag(&["-Bdynamic", "-dy", "-call_shared"], Set(|c| c.position.static_only = false),
        "Search shared libraries too"),
    // Output.
    with(&["-o", "--output"], "FILE", Do(|c, v| put(&mut c.output, Ok(v.into()))),
        "Output; a.out if none is given"),
    flag(&["-shared", "-Bshareable"], Set(|c| c.shape = Shape::Shared), "Make a shared library"),
    flag(&["-pie", "--pic-executable"], Set(|c| c.shape = Shape::Pie), "Make a program that runs at any address"),
    flag(&["-no-pie", "--no-pic-executable"], Set(|c| c.shape = Shape::Fixed),
        "Make a program with a fixed address"),
    flag(&["-static"], Set(act::static_link), "Link no shared libraries"),
    with(&["-dynamic-linker", "-I"], "FILE", Do(|c, v| put(&mut c.dynamic().interpreter, act::name(v))),
        "The program interpreter"),
    flag(&["--no-dynamic-linker"], Set(|c| c.no_dynamic_linker = true), "Name no program interpreter"),
    with(&["-m"], "EMULATION", Try(act::emulation), "Only elf_x86_64"),
    with(&["-e", "--entry"], "SYMBOL", Do(|c, v| put(&mut c.options.entry, Ok(Some(text(v)?.to_owned())))),
        "Where the program starts; _start if none is given"),
    with(&["--image-base"], "ADDRESS", Do(|c, v| act::base(c, number(text(v)?))),
        "Lowest address of the program"),
    with(&["-Ttext-segment"], "ADDRESS", Do(|c, v| act::base(c, address(text(v)?))),
        "The same, hexadecimal"),
    maybe(&["--build-id"], "STYLE", Do(|c, v| put(&mut c.options.build_id, build_id(text(v)?))),
        "Note that identifies the bytes: none, fast, md5, sha1, tree, uuid, 0xHEX"),
    flag(&["--eh-frame-hdr"], Set(|c| c.options.eh_frame_hdr = true), "Make .eh_frame_hdr"),
    flag(&["--no-eh-frame-hdr"], Set(|c| c.options.eh_frame_hdr = false), ""),
    flag(&["-s", "--strip-all"], Set(|c| c.options.strip = Strip::All), "Drop symbols and debug information"),
    flag(&["-S", "--strip-debug"], Do(act::strip_debug), "Drop debug information"),
    with(&["--compress-debug-sections"], "FORMAT", Do(act::compress),
        "Compress debug information: none, zlib, zstd; not with --incremental"),
    flag(&["-x", "--discard-all"], Set(|c| c.options.discard = Discard::All), "Drop local symbols"),
    flag(&["-X", "--discard-locals"], Set(|c| c.options.discard = Discard::Locals), "Drop local labels"),
    flag(&["--discard-none"], Set(|c| c.options.discard = Discard::Default), ""),
    with(&["-z"], "KEYWORD", Do(|c, v| keyword::apply(c, text(v)?)),
        "[no]relro now lazy defs undefs [no]text [no]execstack [no]separate-code [no]start-stop-gc\n\
         muldefs [no]pack-relative-relocs ibt origin nodelete nodlopen initfirst interpose\n\
         max-page-size= stack-size="),
    // Loading.
    with(&["-soname", "-h"], "NAME", Do(act::soname), "The name that programs know the library by"),
    with(&["-rpath"], "DIR", Do(|c, v| act::rpath(c, text(v)?)), "Where the loader looks for libraries"),
    with(&["-R"], "DIR", Do(act::rpath_or_file), "The same"),
    with(&["-rpath-link"], "DIR", Do(act::rpath_link), "Accepted; what libraries need is not searched"),
    flag(&["--enable-new-dtags"], Set(|c| c.dynamic().new_dtags = true), "-rpath is RUNPATH"),
    flag(&["--disable-new-dtags"], Set(|c| c.dynamic().new_dtags = false), "-rpath is RPATH"),
    with(&["--hash-style"], "STYLE", Do(|c, v| put(&mut c.dynamic().hash_style, choice(text(v)?, HASHES))),
        "sysv, gnu, both"),
    with(&["-init"], "SYMBOL", Do(|c, v| put(&mut c.dynamic().init, Ok(text(v)?.to_owned()))),
        "Called when the library is loaded; _init if none is given"),
    with(&["-fini"], "SYMBOL", Do(|c, v| put(&mut c.dynamic().fini, Ok(text(v)?.to_owned()))),
        "Called when it is unloaded; _fini if none is given"),
    with(&["--pack-dyn-relocs"], "FORMAT", Do(act::pack_relocations), "none, relr (as -z pack-relative-relocs)"),
    // Which symbols the loader sees.
    flag(&["-E", "--export-dynamic"], Set(|c| c.dynamic().export_dynamic = true), "Export all symbols of a program"),
    flag(&["--no-export-dynamic"], Set(|c| c.dynamic().export_dynamic = false), ""),
    with(&["--export-dynamic-symbol"], "PATTERN", Do(act::export_symbol), "Export symbols of this name"),
    with(&["--export-dynamic-symbol-list"], "FILE",
        Do(|c, v| act::text_file(c, "--export-dynamic-symbol-list", TextUse::ExportList, v)),
        "The same for the patterns of a list"),
    with(&["--dynamic-list"], "FILE", Do(|c, v| act::text_file(c, "--dynamic-list", TextUse::DynamicList, v)),
        "Export these symbols of a program; only these of a library can be preempted"),
    flag(&["--dynamic-list-cpp-new"], Set(|c| act::dynamic_list(c, "_Znw*; _Zna*; _Zdl*; _Zda*;")),
        "The same for C++'s operators new and delete"),
    flag(&["--dynamic-list-cpp-typeinfo"], Set(|c| act::dynamic_list(c, "_ZTI*; _ZTS*;")),
        "The same for C++'s type information"),
    with(&["--version-script"], "FILE",
        Do(|c, v| act::text_file(c, "--version-script", TextUse::VersionScript, v)),
        "Versions of the symbols, and which of them are local"),
    with(&["--exclude-libs"], "ARCHIVES", Do(act::exclude_libraries), "Export nothing of these archives, or of ALL"),
    flag(&["-Bsymbolic"], Set(|c| c.dynamic().symbolic = Symbolic::All),
        "A library's own definitions can't be preempted"),
    flag(&["-Bsymbolic-functions"], Set(|c| c.dynamic().symbolic = Symbolic::Functions),
        "Its own functions can't"),
    flag(&["-Bno-symbolic"], Set(|c| c.dynamic().symbolic = Symbolic::None), ""),
    // Undefined symbols.
    flag(&["--no-undefined"], Set(|c| c.dynamic().unresolved = Unresolved::Error),
        "Undefined symbols are errors in libraries too (as -z defs)"),
    with(&["--unresolved-symbols"], "METHOD", Do(act::unresolved),
        "report-all, ignore-all, ignore-in-object-files, ignore-in-shared-libs"),
    flag(&["--warn-unresolved-symbols"], Set(|c| c.warn_unresolved = true),
        "Leave them to the loader, with a warning each"),
    flag(&["--error-unresolved-symbols"], Set(|c| c.warn_unresolved = false), ""),
    flag(&["--allow-shlib-undefined"], Set(|c| c.dynamic().allow_shlib_undefined = Some(true)),
        "What libraries need and nobody defines is left to the loader"),
    flag(&["--no-allow-shlib-undefined"], Set(|c| c.dynamic().allow_shlib_undefined = Some(false)),
        "It is an error"),
    // Symbols and sections.
    with(&["-u", "--undefined", "--require-defined"], "SYMBOL", Do(act::undefined), "Need SYMBOL from the start"),
    with(&["--defsym"], "NAME=VALUE", Do(act::define), "Define a symbol as a number or SYMBOL[+-NUMBER]"),
    with(&["--wrap"], "SYMBOL", Do(act::wrap), "Calls of SYMBOL go to __wrap_SYMBOL, those of __real_SYMBOL to it"),
    flag(&["--gc-sections"], Set(|c| c.options.gc_sections = true), "Drop sections that nothing refers to"),
    flag(&["--no-gc-sections"], Set(|c| c.options.gc_sections = false), ""),
    flag(&["--print-gc-sections"], Set(|c| c.print_gc_sections = true), "List what --gc-sections drops"),
    flag(&["--no-print-gc-sections"], Set(|c| c.print_gc_sections = false), ""),
    flag(&["--allow-multiple-definition"], Set(|c| c.options.allow_multiple_definition = true),
        "Take the first of several definitions"),
    flag(&["--no-allow-multiple-definition"], Set(|c| c.options.allow_multiple_definition = false), ""),
    // Messages and running.
    with(&["-Map"], "FILE", Do(act::map), "Write a map; - is standard output"),
    flag(&["-M", "--print-map"], Set(|c| c.map_to_output = true), "Print a map"),
    flag(&["-t", "--trace"], Set(|c| c.trace = true), "Print the name of each object that is linked"),
    with(&["-y", "--trace-symbol"], "SYMBOL", Do(act::trace_symbol), "Print the objects that have SYMBOL"),
    flag(&["--cref"], Set(|c| c.cross_reference = true), "Print the objects of each symbol, or add them to the map"),
    flag(&["--no-cref"], Set(|c| c.cross_reference = false), ""),
    with(&["--dependency-file"], "FILE", Do(|c, v| put(&mut c.dependency_file, Ok(Some(v.into())))),
        "Write what the output depends on, for make"),
    with(&["--reproduce"], "FILE", Do(|c, v| put(&mut c.reproduce, Ok(Some(v.into())))),
        "Write a tar file with all inputs and a command line that links them"),
    with(&["--error-limit"], "N", Do(|c, v| put(&mut c.options.error_limit, number(text(v)?).map(|n| n as usize))),
        "Show at most N errors; 0 shows all"),
    maybe(&["--color-diagnostics"], "WHEN", Do(act::color), "always, never or auto"),
    flag(&["--no-color-diagnostics"], Set(|c| c.color = ColorChoice::Never), ""),
    maybe(&["--demangle"], "STYLE", Set(|c| c.demangle = true), "Show names as their authors wrote them"),
    flag(&["--no-demangle"], Set(|c| c.demangle = false), ""),
    flag(&["--fatal-warnings"], Set(|c| c.fatal_warnings = true), "Warnings are errors"),
    flag(&["--no-fatal-warnings"], Set(|c| c.fatal_warnings = false), ""),
    flag(&["-w", "--no-warnings"], Set(|c| c.suppress_warnings = true), "No warnings"),
    maybe(&["--threads"], "N", Do(|c, v| put(&mut c.options.threads, act::threads(v))),
        "Use N threads; one per core if none is given"),
    with(&["--thread-count"], "N", Do(|c, v| put(&mut c.options.threads, act::threads(v))), ""),
    flag(&["--no-threads"], Set(|c| c.options.threads = 1), ""),
    flag(&["--version"], Set(|c| c.show = Some(c.show.unwrap_or(Show::Version))),
        "Print the version and end"),
    flag(&["-v", "--verbose"], Set(|c| c.announce = true), "Print the version and link"),
    flag(&["-V"], Set(act::announce_all), "The same, with the emulations"),
    flag(&["--help", "--target-help"], Set(|c| c.show = Some(Show::Help)), "Print this"),

    // Without meaning for this linker, or done anyway.
    flag(&["-nostdlib"], Ignore, ""),
    flag(&["--no-undefined-version", "--undefined-version", "--no-define-common", "--define-common"], Ignore, ""),
    flag(&[
        "--enable-linker-version", "--disable-linker-version", "--copy-dt-needed-entries",
        "--no-copy-dt-needed-entries", "--no-add-needed", "--add-needed",
    ], Ignore, ""),
    flag(&["-EL", "-d", "-dc", "-dp", "-g", "-qmagic", "-Qy"], Ignore, ""),
    flag(&[
        "--relax", "--no-relax", "--keep-memory", "--no-keep-memory", "--reduce-memory-overheads",
        "--no-map-whole-files", "--map-whole-files", "--mmap-output-file", "--no-mmap-output-file",
        "--check-sections", "--no-check-sections", "--accept-unknown-input-arch",
        "--no-accept-unknown-input-arch", "--force-exe-suffix", "--traditional-format",
    ], Ignore, ""),
    flag(&[
        "--no-omagic", "--no-nmagic", "--no-ld-generated-unwind-info", "--ld-generated-unwind-info",
        "--no-rosegment", "--rosegment", "--merge-exidx-entries", "--no-merge-exidx-entries",
        "--fix-cortex-a53-843419", "--fix-cortex-a53-835769", "--no-fix-cortex-a53-843419", "--be8",
        "--no-call-graph-profile-sort", "--no-warn-mismatch", "--warn-backrefs", "--no-warn-backrefs",
        "--no-warn-symbol-ordering", "--warn-symbol-ordering", "--no-gnu-unique", "--gnu-unique",
        "--no-strip-discarded", "--strip-discarded", "--no-ctors-in-init-array", "--ctors-in-init-array",
        "--fork", "--no-fork", "--detect-odr-violations", "--no-detect-odr-violations", "--no-gdb-index",
        "--no-print-icf-sections", "--gc-keep-exported", "--no-gc-keep-exported",
        "--ctf-variables", "--no-ctf-variables",
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
        "-a", "-A", "-G", "-Y", "--package-metadata", "--max-cache-size", "--hash-size", "-flavor",
        "--orphan-handling", "--spare-dynamic-tags", "--ctf-share-types", "--out-implib", "--assert",
        "--task-link",
    ], "VALUE", Ignore, ""),
    // Link-time optimization: drivers pass these always, and they mean nothing to objects of machine code.
    with(&[
        "-plugin", "-plugin-opt", "-mllvm", "--lto-O", "--lto-partitions", "--lto-obj-path",
        "--lto-cs-profile-file", "--lto-sample-profile", "--thinlto-jobs", "--thinlto-cache-dir",
        "--thinlto-cache-policy",
    ], "VALUE", Ignore, ""),
    flag(&[
        "-plugin-save-temps", "--lto-O0", "--lto-O1", "--lto-O2", "--lto-O3", "--lto-CGO0", "--lto-CGO1",
        "--lto-CGO2", "--lto-CGO3", "--lto-whole-program-visibility", "--no-lto-whole-program-visibility",
    ], Ignore, ""),

    // Not done yet, and the output is right without.
    flag(&[
        "--gdb-index", "--print-memory-usage", "--stats", "--noinhibit-exec", "--print-icf-sections",
        "--time-trace", "--print-archive-stats", "-Bgroup", "-Bsymbolic-non-weak",
        "-Bsymbolic-non-weak-functions", "--dynamic-list-data",
    ], WithoutEffect, ""),
    with(&[
        "--symbol-ordering-file", "--section-ordering-file",
        "--call-graph-ordering-file", "--why-live", "--print-symbol-order",
    ], "VALUE", WithoutEffect, ""),
    maybe(&["--time-trace"], "FILE", WithoutEffect, ""),

    // Not done yet, and the output would be wrong without.
    flag(&["-r", "-i", "--relocatable", "-Ur"],
        Refuse("it makes an object of objects; choose another linker for this one (ld.bfd -r, or --fallback-linker)"),
        "Not supported yet"),
    with(&["-T", "--script", "-dT", "--default-script", "-c", "--mri-script"], "FILE",
        Refuse("sections can't be laid out by a script; scripts that only name inputs may be given as inputs"),
        "Not supported yet"),
    with(&["-Ttext", "-Tdata", "-Tbss", "-Trodata-segment", "-Tldata-segment", "--section-start"], "ADDRESS",
        Refuse("sections can't be placed one by one; --image-base moves the whole program"), "Not supported yet"),
    with(&["--retain-symbols-file"], "FILE",
        Refuse("the symbol table can't be chosen by a list; objcopy --keep-symbols=FILE does it afterwards"),
        "Not supported yet"),
    with(&["--just-symbols"], "FILE", Refuse("the addresses of another program can't be used; give them by --defsym"),
        "Not supported yet"),
    with(&["--icf"], "MODE", Try(act::icf), "Only none"),
    flag(&["-q", "--emit-relocs"], Refuse(OTHER_LINKER), "Not supported yet"),
    with(&["--oformat", "-b", "--format"], "FORMAT", Try(act::format), "Only elf64-x86-64"),
    flag(&["-N", "--omagic", "-n", "--nmagic", "-EB", "--default-symver"], Refuse(OTHER_LINKER), ""),
    with(&["-f", "--auxiliary", "-F", "--filter", "--audit", "--depaudit", "-P"], "NAME",
        Refuse("the loader can't be told of other libraries so"), ""),
    with(&["--undefined-glob", "--remap-inputs", "--remap-inputs-file", "--ignore-unresolved-symbol"], "VALUE",
        Refuse(OTHER_LINKER), ""),
    flag(&["--start-lib", "--end-lib"], Refuse("put the objects in an archive"), ""),
];

const HASHES: &[(&str, HashStyle)] =
    &[("sysv", HashStyle::Sysv), ("gnu", HashStyle::Gnu), ("both", HashStyle::Both)];
