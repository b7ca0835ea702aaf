//! A command line of ld, understood.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anstream::ColorChoice;
use relink::host::{InputArg, InputName, SearchPath};
use relink::{IncrementalOptions, LinkOptions, OutputKind};

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
    /// `RELINK_INCREMENTAL`.
    pub(super) incremental: Option<OsString>,
    /// `RELINK_REPORT`.
    pub(super) report: Option<OsString>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Environment {
        Environment {
            incremental: std::env::var_os("RELINK_INCREMENTAL"),
            report: std::env::var_os("RELINK_REPORT"),
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

/// Everything that a command line asks for.
#[derive(Debug)]
pub(super) struct LdCommand {
    pub(super) output: PathBuf,
    pub(super) options: LinkOptions,
    pub(super) inputs: Vec<InputArg>,
    pub(super) search: SearchPath,
    /// `--incremental`, whatever its place among the options that tune it.
    pub(super) incremental: bool,
    pub(super) incremental_options: IncrementalOptions,
    pub(super) verify: bool,
    pub(super) show: Option<Show>,
    /// `-v`: the version, then the link if there is anything to link.
    pub(super) announce: bool,
    pub(super) emulations: bool,
    pub(super) map: Option<PathBuf>,
    pub(super) map_to_output: bool,
    pub(super) trace: bool,
    pub(super) print_gc_sections: bool,
    pub(super) report: Option<PathBuf>,
    pub(super) dependency_file: Option<PathBuf>,
    pub(super) color: ColorChoice,
    pub(super) demangle: bool,
    pub(super) fatal_warnings: bool,
    pub(super) suppress_warnings: bool,

    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// The kind of output is one that can't be made, so that searching its inputs would only add noise.
    pub(super) hopeless: bool,

    pub(super) position: Position,
    pub(super) saved_positions: Vec<Position>,
    pub(super) groups_open: usize,
    pub(super) static_link: bool,
    pub(super) pie: bool,
    pub(super) dynamic_linker: bool,
    pub(super) no_dynamic_linker: bool,
}

impl LdCommand {
    /// What an empty command line asks for.
    pub(super) fn new(environment: &Environment) -> LdCommand {
        let on = |value: &OsString| !value.is_empty() && value != "0";
        LdCommand {
            output: PathBuf::from("a.out"),
            options: LinkOptions::default(),
            inputs: Vec::new(),
            search: SearchPath::default(),
            incremental: environment.incremental.as_ref().is_some_and(on),
            incremental_options: IncrementalOptions::default(),
            verify: false,
            show: None,
            announce: false,
            emulations: false,
            map: None,
            map_to_output: false,
            trace: false,
            print_gc_sections: false,
            report: environment.report.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from),
            dependency_file: None,
            color: ColorChoice::Auto,
            demangle: true,
            fatal_warnings: false,
            suppress_warnings: false,
            errors: Vec::new(),
            warnings: Vec::new(),
            hopeless: false,
            position: Position::default(),
            saved_positions: Vec::new(),
            groups_open: 0,
            static_link: false,
            pie: false,
            dynamic_linker: false,
            no_dynamic_linker: false,
        }
    }

    /// What an incremental link reserves, and its policies.
    pub(super) fn tuning(&mut self) -> &mut IncrementalOptions {
        &mut self.incremental_options
    }

    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
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
        let Position { whole_archive, static_only, .. } = self.position;
        self.inputs.push(InputArg { name, whole_archive, static_only });
    }

    /// What can be said only when all options are known.
    pub(super) fn finish(&mut self) {
        if self.groups_open > 0 {
            self.error("--start-group without --end-group");
        }
        self.finish_kind();
        if self.static_link {
            // No shared library can be used anyway, so -Bdynamic does not make one be looked for.
            self.inputs.iter_mut().for_each(|input| input.static_only = true);
        }
        self.options.incremental = self.incremental.then(|| self.incremental_options.clone());
        let nothing_to_do = self.show.is_some() || (self.announce && self.inputs.is_empty());
        if self.inputs.is_empty() && !nothing_to_do && self.errors.is_empty() {
            self.error("no input files");
        }
    }

    fn finish_kind(&mut self) {
        if self.hopeless {
            return;
        }
        let is_static = self.static_link || self.no_dynamic_linker;
        if self.pie {
            self.options.output_kind = OutputKind::StaticPie;
        }
        let dynamic = match (self.dynamic_linker, self.pie) {
            _ if is_static => return,
            (true, _) => "-dynamic-linker",
            (false, true) => "-pie",
            (false, false) => return,
        };
        self.hopeless = true;
        self.error(format!(
            "{dynamic} without -static: programs that load shared libraries are not supported yet\n\
             >>> link with gcc -static or gcc -static-pie, or choose another linker (gcc -fuse-ld=bfd)"
        ));
    }
}
