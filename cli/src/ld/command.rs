//! A command line of ld, understood.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anstream::ColorChoice;
use relink::host::{InputArg, InputName, SearchPath, StateTrust};
use relink::{DynamicOptions, GateKind, IncrementalOptions, LinkOptions, OutputKind, Unresolved};

/// Text instead of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// `--version`.
    Version,
    /// `--help`.
    Help,
}

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// `RELINK_INCREMENTAL`: empty or `0` is off, `wide` is on with that gate, anything else is on.
    pub(super) incremental: Option<OsString>,
    /// `RELINK_REPORT`.
    pub(super) report: Option<OsString>,
    /// `RELINK_TRUST_STATE`.
    pub(super) trust_state: Option<OsString>,
    /// `RELINK_TRUST_MTIME`.
    pub(super) trust_mtime: Option<OsString>,
    /// `MAKEFLAGS`.
    pub(super) make_flags: Option<OsString>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Environment {
        Environment {
            incremental: std::env::var_os("RELINK_INCREMENTAL"),
            report: std::env::var_os("RELINK_REPORT"),
            trust_state: std::env::var_os("RELINK_TRUST_STATE"),
            trust_mtime: std::env::var_os("RELINK_TRUST_MTIME"),
            make_flags: std::env::var_os("MAKEFLAGS"),
        }
    }
}

/// Options that hold from where they stand until another one of their kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) whole_archive: bool,
    pub(super) static_only: bool,
    pub(super) as_needed: bool,
}

/// `-shared`, `-pie`, `-no-pie`: the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// A program with a fixed address.
    #[default]
    Fixed,
    /// A program that runs at any address.
    Pie,
    /// A shared library.
    Shared,
    /// `-r`: an object.
    Relocatable,
}

/// What the text of a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextUse {
    /// `--version-script`.
    VersionScript,
    /// `--dynamic-list`.
    DynamicList,
    /// `--export-dynamic-symbol-list`.
    ExportList,
    /// `--retain-symbols-file`.
    RetainedSymbols,
    /// `--just-symbols`: no text.
    JustSymbols,
}

/// Everything that a command line asks for.
#[derive(Debug)]
pub(super) struct LdCommand {
    pub(super) output: PathBuf,
    pub(super) options: LinkOptions,
    pub(super) inputs: Vec<InputArg>,
    pub(super) search: SearchPath,
    /// Options whose value is a file with text: the option, what for, the file.
    pub(super) texts: Vec<(&'static str, TextUse, PathBuf)>,
    /// `-R`: taken as `-rpath`, but it is `--just-symbols` if it names a file.
    pub(super) rpaths_or_files: Vec<PathBuf>,
    /// `--incremental`, whatever its place among the options that tune it.
    pub(super) incremental: bool,
    pub(super) incremental_options: IncrementalOptions,
    pub(super) verify: bool,
    /// `--changed`: the inputs that are other ones than at the last link; none if nobody says so.
    pub(super) changed: Option<Vec<PathBuf>>,
    /// `--changed-list`: files with names of such.
    pub(super) changed_lists: Vec<PathBuf>,
    /// `--trust-state`.
    pub(super) trust: StateTrust,
    /// `--trust-mtime`.
    pub(super) trust_mtime: bool,
    pub(super) show: Option<Show>,
    /// `-v`: the version, then the link if there is anything to link.
    pub(super) announce: bool,
    pub(super) emulations: bool,
    pub(super) map: Option<PathBuf>,
    pub(super) map_to_output: bool,
    pub(super) trace: bool,
    /// `--trace-symbol`.
    pub(super) traced_symbols: Vec<String>,
    /// `--cref`.
    pub(super) cross_reference: bool,
    pub(super) print_gc_sections: bool,
    pub(super) report: Option<PathBuf>,
    pub(super) dependency_file: Option<PathBuf>,
    pub(super) reproduce: Option<PathBuf>,
    /// `--fallback-linker`: who makes the links that are out of reach.
    pub(super) fallback_linker: Option<PathBuf>,
    pub(super) color: ColorChoice,
    pub(super) demangle: bool,
    pub(super) fatal_warnings: bool,
    pub(super) suppress_warnings: bool,

    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// The first of the errors that another linker would not have. The inputs are not searched any more: that would
    /// only add noise.
    pub(super) out_of_reach: Option<String>,

    pub(super) position: Position,
    pub(super) saved_positions: Vec<Position>,
    pub(super) groups_open: usize,
    pub(super) static_link: bool,
    pub(super) shape: Shape,
    pub(super) no_dynamic_linker: bool,
    /// `--warn-unresolved-symbols`.
    pub(super) warn_unresolved: bool,
}

impl LdCommand {
    /// What an empty command line asks for.
    pub(super) fn new(environment: &Environment) -> LdCommand {
        let on = |value: &OsString| !value.is_empty() && value != "0";
        let wide = environment.incremental.as_ref().is_some_and(|value| value == "wide");
        let gate = if wide { GateKind::Wide } else { GateKind::default() };
        LdCommand {
            output: PathBuf::from("a.out"),
            options: LinkOptions::default(),
            inputs: Vec::new(),
            search: SearchPath::default(),
            texts: Vec::new(),
            rpaths_or_files: Vec::new(),
            incremental: environment.incremental.as_ref().is_some_and(on),
            incremental_options: IncrementalOptions { gate_kind: gate, ..IncrementalOptions::default() },
            verify: false,
            changed: None,
            changed_lists: Vec::new(),
            trust: if environment.trust_state.as_ref().is_some_and(on) {
                StateTrust::Any
            } else {
                StateTrust::Own
            },
            trust_mtime: environment.trust_mtime.as_ref().is_some_and(on),
            show: None,
            announce: false,
            emulations: false,
            map: None,
            map_to_output: false,
            trace: false,
            traced_symbols: Vec::new(),
            cross_reference: false,
            print_gc_sections: false,
            report: environment.report.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from),
            dependency_file: None,
            reproduce: None,
            fallback_linker: None,
            color: ColorChoice::Auto,
            demangle: true,
            fatal_warnings: false,
            suppress_warnings: false,
            errors: Vec::new(),
            warnings: Vec::new(),
            out_of_reach: None,
            position: Position::default(),
            saved_positions: Vec::new(),
            groups_open: 0,
            static_link: false,
            shape: Shape::default(),
            no_dynamic_linker: false,
            warn_unresolved: false,
        }
    }

    /// What an incremental link reserves, and its policies.
    pub(super) fn tuning(&mut self) -> &mut IncrementalOptions {
        &mut self.incremental_options
    }

    /// What is asked of a dynamic output.
    pub(super) fn dynamic(&mut self) -> &mut DynamicOptions {
        &mut self.options.dynamic
    }

    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    /// An error that `--fallback-linker` is the way out of.
    pub(super) fn out_of_reach(&mut self, text: String) {
        self.out_of_reach.get_or_insert_with(|| text.clone());
        self.error(text);
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub(super) fn add_file(&mut self, path: &OsStr) {
        self.add(InputName::File(PathBuf::from(path)));
    }

    pub(super) fn add_library(&mut self, name: &OsStr) {
        self.add(InputName::Library(name.to_owned()));
    }

    fn add(&mut self, name: InputName) {
        let Position { whole_archive, static_only, as_needed } = self.position;
        self.inputs.push(InputArg { name, whole_archive, static_only, as_needed });
    }

    /// What can be said only when all options are known.
    pub(super) fn finish(&mut self) {
        if self.groups_open > 0 {
            self.error("--start-group without --end-group");
        }
        if self.shape == Shape::Relocatable {
            self.finish_relocatable();
        }
        if self.is_static() || self.shape == Shape::Relocatable {
            // No shared library can be used anyway, so -Bdynamic does not make one be looked for.
            self.inputs.iter_mut().for_each(|input| input.static_only = true);
        }
        self.decide_kind(false);
        let name = self.output.file_name().unwrap_or_default();
        self.options.output_name = name.to_string_lossy().into_owned();
        self.finish_unresolved();
        self.options.incremental = self.incremental.then(|| self.incremental_options.clone());
        if self.incremental && self.options.compress_debug.take().is_some() {
            self.warn(
                "--compress-debug-sections has no effect with --incremental: patches need the plain bytes",
            );
        }
        let nothing_to_do = self.show.is_some() || (self.announce && self.inputs.is_empty());
        if self.inputs.is_empty() && !nothing_to_do && self.errors.is_empty() {
            self.error("no input files");
        }
    }

    /// What makes no sense for an object made of objects.
    fn finish_relocatable(&mut self) {
        if self.options.gc_sections && self.options.entry.is_none() && self.options.undefined.is_empty() {
            self.error("--gc-sections with -r needs a symbol to start from: -e or -u");
        }
        if !self.options.section_starts.is_empty() {
            self.error("sections can't be placed in relocatable output (-r)");
        }
        if std::mem::take(&mut self.verify) {
            self.warn("--verify has no effect with -r: there is no placement to be verified");
        }
        if self.map.take().is_some() || std::mem::take(&mut self.map_to_output) {
            self.warn("-Map has no effect with -r: nothing has an address");
        }
    }

    /// Whether no loader will ever see the output. `-static` between a driver's `-dynamic-linker` and `-Bdynamic` is
    /// `-Bstatic`: `gcc -Wl,-static -lfoo -Wl,-Bdynamic`.
    fn is_static(&self) -> bool {
        let dynamic_again = self.options.dynamic.interpreter.is_some() && !self.position.static_only;
        self.shape != Shape::Shared && (self.no_dynamic_linker || (self.static_link && !dynamic_again))
    }

    /// Settles the kind of output; what is linked has a say in it.
    pub(super) fn decide_kind(&mut self, has_shared_libraries: bool) {
        self.options.output_kind = match self.shape {
            Shape::Shared => OutputKind::SharedLibrary,
            Shape::Relocatable => OutputKind::Relocatable,
            Shape::Pie if self.is_static() => OutputKind::StaticPie,
            Shape::Fixed if self.is_static() => OutputKind::StaticExecutable,
            Shape::Pie => OutputKind::Pie,
            Shape::Fixed if has_shared_libraries || self.options.dynamic.interpreter.is_some() => {
                OutputKind::Executable
            }
            Shape::Fixed => OutputKind::StaticExecutable,
        };
    }

    /// `--warn-unresolved-symbols` turns errors about them into warnings.
    fn finish_unresolved(&mut self) {
        let are_errors = match self.options.dynamic.unresolved {
            Unresolved::ByKind => self.shape != Shape::Shared,
            Unresolved::Error => true,
            Unresolved::Ignore | Unresolved::Warn => false,
        };
        if self.warn_unresolved && are_errors {
            self.options.dynamic.unresolved = Unresolved::Warn;
        }
    }
}
