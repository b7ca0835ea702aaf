//! What a link is asked to do.

use formats::compress::Algorithm;
use formats::units::VirtAddr;
use relink_formats as formats;

/// The kind of file that a link makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// `-static`: fixed addresses, no loader.
    #[default]
    StaticExecutable,
    /// `-static -pie`: relocates itself at start.
    StaticPie,
    /// Fixed addresses, started by a program interpreter that loads shared libraries.
    Executable,
    /// `-pie`: the same at any address.
    Pie,
    /// `-shared`.
    SharedLibrary,
}

impl OutputKind {
    /// Whether the image may be loaded at any address.
    pub fn is_position_independent(self) -> bool {
        matches!(self, OutputKind::StaticPie | OutputKind::Pie | OutputKind::SharedLibrary)
    }

    /// Whether a loader binds its names: it can refer to shared libraries.
    pub fn is_dynamic(self) -> bool {
        matches!(self, OutputKind::Executable | OutputKind::Pie | OutputKind::SharedLibrary)
    }

    /// Whether it is a shared library itself.
    pub fn is_shared(self) -> bool {
        self == OutputKind::SharedLibrary
    }
}

/// `-Bsymbolic`, `-Bsymbolic-functions`: which of a shared library's own definitions can't be preempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Symbolic {
    /// None.
    #[default]
    None,
    /// Functions.
    Functions,
    /// All.
    All,
}

/// `--hash-style`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashStyle {
    /// `.hash`.
    Sysv,
    /// `.gnu.hash`.
    Gnu,
    /// Both. The default.
    #[default]
    Both,
}

/// `--unresolved-symbols`, `-z defs`: what a name is that neither objects nor shared libraries define.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unresolved {
    /// An error in programs, left to the loader in shared libraries.
    #[default]
    ByKind,
    /// An error.
    Error,
    /// Left to the loader; zero where there is none.
    Ignore,
    /// The same, each with a warning.
    Warn,
}

/// What is asked of a dynamic output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DynamicOptions {
    /// `-dynamic-linker`: contents of `.interp`. A dynamic program without one gets glibc's.
    pub interpreter: Option<String>,
    /// `-soname`.
    pub soname: Option<String>,
    /// `-rpath`, in order, each entry as given.
    pub rpaths: Vec<String>,
    /// `--enable-new-dtags`: `DT_RUNPATH` and not `DT_RPATH`. On by default.
    pub new_dtags: bool,
    /// `--export-dynamic`.
    pub export_dynamic: bool,
    /// `--export-dynamic-symbol`, patterns.
    pub export_symbols: Vec<String>,
    /// `--dynamic-list`: text of the files, in order.
    pub dynamic_lists: Vec<String>,
    /// `--version-script`: text of the files, in order.
    pub version_scripts: Vec<String>,
    /// `--exclude-libs`: archives whose symbols are not exported; `ALL` for all.
    pub exclude_libs: Vec<String>,
    /// `-Bsymbolic` and its kin.
    pub symbolic: Symbolic,
    /// `--hash-style`.
    pub hash_style: HashStyle,
    /// `-z defs`, `--unresolved-symbols`.
    pub unresolved: Unresolved,
    /// `--allow-shlib-undefined`; by kind if absent: allowed in shared libraries only.
    pub allow_shlib_undefined: Option<bool>,
    /// `-init`; `_init` by default.
    pub init: String,
    /// `-fini`; `_fini` by default.
    pub fini: String,
    /// `-z notext`: relocations in read-only sections are allowed.
    pub text_relocations: bool,
    /// `-z pack-relative-relocs`.
    pub pack_relative_relocs: bool,
    /// `-z origin`.
    pub origin: bool,
    /// `-z nodelete`.
    pub nodelete: bool,
    /// `-z nodlopen`.
    pub nodlopen: bool,
    /// `-z initfirst`.
    pub initfirst: bool,
    /// `-z interpose`.
    pub interpose: bool,
    /// `-z ibt`, `-z force-ibt`: use an indirect-branch-tracking PLT whatever the inputs say.
    pub force_ibt: bool,
}

impl Default for DynamicOptions {
    fn default() -> Self {
        DynamicOptions {
            interpreter: None,
            soname: None,
            rpaths: Vec::new(),
            new_dtags: true,
            export_dynamic: false,
            export_symbols: Vec::new(),
            dynamic_lists: Vec::new(),
            version_scripts: Vec::new(),
            exclude_libs: Vec::new(),
            symbolic: Symbolic::default(),
            hash_style: HashStyle::default(),
            unresolved: Unresolved::default(),
            allow_shlib_undefined: None,
            init: "_init".to_owned(),
            fini: "_fini".to_owned(),
            text_relocations: false,
            pack_relative_relocs: false,
            origin: false,
            nodelete: false,
            nodlopen: false,
            initfirst: false,
            interpose: false,
            force_ibt: false,
        }
    }
}

/// `--build-id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum BuildId {
    /// No note.
    #[default]
    None,
    /// The first `len` bytes (8, 16 or 20) of the image's BLAKE2b tree digest.
    Tree {
        /// Bytes of the note's descriptor.
        len: u8,
    },
    /// 16 random bytes, fixed by the caller.
    Uuid([u8; 16]),
    /// Bytes given by the user.
    Hex(Vec<u8>),
}

/// `-s`, `-S`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strip {
    /// Keep everything.
    #[default]
    None,
    /// Drop debug sections.
    Debug,
    /// Drop debug sections and the symbol table.
    All,
}

/// `-x`, `-X`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Keep local symbols; `.L` labels into mergeable sections are dropped.
    #[default]
    Default,
    /// `-X`: drop all `.L` labels.
    Locals,
    /// `-x`: drop all local symbols.
    All,
}

/// The value of `--defsym NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DefsymValue {
    /// A number.
    Absolute(u64),
    /// Another symbol plus an offset.
    Symbol(String, i64),
}

/// How an atom that outgrew its slot is moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MoveKind {
    /// A jump stays at the old entry; branches keep their bytes.
    #[default]
    Island,
    /// Every reference is rewritten; nothing stays behind.
    Retarget,
    /// Retarget up to a number of branches, an island above it.
    Auto,
}

/// How new slots are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PlaceKind {
    /// In place if it fits, else the first free range, the reserve last.
    #[default]
    FirstFit,
    /// In place if it fits, else always at the end of the used reserve.
    Append,
}

/// How strictly the gate decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GateKind {
    /// The resolution table, the set of inputs and the layout contract must stay as they are.
    #[default]
    Strict,
    /// Functions, data, names and groups of changed objects may come and go as well, as far as the image has room.
    Wide,
    /// Never patch: the do-nothing twin, to compare with.
    Closed,
}

/// Which executor runs the frame's schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScheduleKind {
    /// One thread; ten idle systems cost 0.5 µs. The default.
    #[default]
    SingleThreaded,
    /// bevy's multi-threaded executor; pays for frames above 1 ms.
    MultiThreaded,
}

/// What an incremental link reserves, and its policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IncrementalOptions {
    /// Slack of a code slot, percent of its size. Default 25: with it half of real commits patch without a move.
    pub code_slack_percent: u32,
    /// Slack of a data slot, percent of its size. Default 25: literals of 97 % of real edits grow by less.
    pub data_slack_percent: u32,
    /// Free room for moved code, percent of all code. Default 5: it buys more than any slack per function.
    pub text_reserve_percent: u32,
    /// Slack of a debug contribution, percent. Default 10: enough for 99 % of real C commits.
    pub debug_slack_percent: u32,
    /// How atoms move.
    pub move_kind: MoveKind,
    /// How slots are chosen.
    pub place_kind: PlaceKind,
    /// How strict the gate is.
    pub gate_kind: GateKind,
}

impl Default for IncrementalOptions {
    fn default() -> Self {
        IncrementalOptions {
            code_slack_percent: 25,
            data_slack_percent: 25,
            text_reserve_percent: 5,
            debug_slack_percent: 10,
            move_kind: MoveKind::default(),
            place_kind: PlaceKind::default(),
            gate_kind: GateKind::default(),
        }
    }
}

/// Everything that a link is asked to do, apart from its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkOptions {
    /// Kind of output.
    pub output_kind: OutputKind,
    /// What is asked of a dynamic output.
    pub dynamic: DynamicOptions,
    /// File name of the output: what a library without `-soname` is called in its base version.
    pub output_name: String,
    /// `--wrap`: a reference to `NAME` means `__wrap_NAME`, one to `__real_NAME` means `NAME`.
    pub wrap: Vec<String>,
    /// `-e`; `_start` if none is given.
    pub entry: Option<String>,
    /// `-u`: names to treat as undefined, in order.
    pub undefined: Vec<String>,
    /// `--defsym`, in order.
    pub defsyms: Vec<(String, DefsymValue)>,
    /// `--gc-sections`.
    pub gc_sections: bool,
    /// `--build-id`.
    pub build_id: BuildId,
    /// `--eh-frame-hdr`.
    pub eh_frame_hdr: bool,
    /// `-z relro`, on by default.
    pub relro: bool,
    /// `-z now`: recorded in a PIE's `.dynamic`.
    pub now: bool,
    /// `-z execstack`/`-z noexecstack`; `None` asks the objects' `.note.GNU-stack`.
    pub exec_stack: Option<bool>,
    /// `-z separate-code`: code shares no file page with data.
    pub separate_code: bool,
    /// `-z max-page-size`, bytes, a power of two. Default 4096.
    pub max_page_size: u64,
    /// `-z stack-size`, bytes.
    pub stack_size: u64,
    /// `-s`, `-S`.
    pub strip: Strip,
    /// `-x`, `-X`.
    pub discard: Discard,
    /// `--compress-debug-sections`; without effect on incremental links, whose patches need the plain bytes.
    pub compress_debug: Option<Algorithm>,
    /// `--image-base`; 0x400000 for fixed addresses, 0 for PIE.
    pub image_base: Option<VirtAddr>,
    /// `-z muldefs`, `--allow-multiple-definition`.
    pub allow_multiple_definition: bool,
    /// `-z start-stop-gc`/`nostart-stop-gc`: whether `__start_` references keep their sections. Default: they keep them.
    pub start_stop_gc: bool,
    /// `--error-limit`; 0 is no limit.
    pub error_limit: usize,
    /// `--threads`; 0 is one per core.
    pub threads: usize,
    /// Present if state is to be kept and patches are wanted.
    pub incremental: Option<IncrementalOptions>,
    /// Executor of the schedule.
    pub schedule_kind: ScheduleKind,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions {
            output_kind: OutputKind::default(),
            dynamic: DynamicOptions::default(),
            output_name: String::new(),
            wrap: Vec::new(),
            entry: None,
            undefined: Vec::new(),
            defsyms: Vec::new(),
            gc_sections: false,
            build_id: BuildId::None,
            eh_frame_hdr: false,
            relro: true,
            now: false,
            exec_stack: None,
            separate_code: false,
            max_page_size: 4096,
            stack_size: 0,
            strip: Strip::None,
            discard: Discard::Default,
            compress_debug: None,
            image_base: None,
            allow_multiple_definition: false,
            start_stop_gc: false,
            error_limit: 20,
            threads: 0,
            incremental: None,
            schedule_kind: ScheduleKind::default(),
        }
    }
}
