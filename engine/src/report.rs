//! What a frame tells about itself: outcome, reasons, counters, times.

use std::fmt;

use serde::Serialize;

/// How the image of a frame came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A full link, because there was no earlier link to start from.
    Full,
    /// The earlier image was patched.
    Patched,
    /// The change could not be proven local; a full link was made. The report has the reasons.
    FellBackFull,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Full => "full",
            Outcome::Patched => "patched",
            Outcome::FellBackFull => "fell_back_full",
        })
    }
}

/// Why a frame could not be a patch. Names are those of the objects' symbols and sections, unmangled by nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each field is the name of the thing that its variant's text speaks of")]
pub enum GateReason {
    /// The prior state can't be used: other version, other target, truncated, corrupt.
    StateUnusable { why: String },
    /// The gate policy lets nothing through.
    GateClosed,
    /// Relocatable output (`-r`) is always a full link: nothing in it has an address that could stay.
    RelocatableOutput,
    /// The last full link had warnings, which each link has to repeat: only a full one finds them.
    WarningsToRepeat,
    /// The options differ from those of the earlier link.
    OptionsChanged,
    /// An input was added to, or removed from, the command line.
    InputSetChanged { input: String },
    /// Inputs stand in another order.
    InputOrderChanged { input: String },
    /// The image is not the one that the state describes (strip, patchelf, objcopy, truncation).
    ImageTampered { why: String },
    /// A changed object defines a global symbol that it did not define before.
    NewGlobal { symbol: String, input: String },
    /// A changed object no longer defines a global symbol.
    RemovedGlobal { symbol: String, input: String },
    /// A global symbol became weak, strong, unique or local.
    BindingChanged { symbol: String, input: String },
    /// A global symbol changed its visibility.
    VisibilityChanged { symbol: String, input: String },
    /// A symbol changed its type (function, object, TLS, IFUNC).
    TypeChanged { symbol: String, input: String },
    /// A new reference would pull a member out of an archive, and a patch can't tell which, or only beside another definition.
    ArchiveMemberPulled { symbol: String, member: String },
    /// A reference went away that was the only one to pull its member, or may have been.
    ArchiveMemberDropped { symbol: String, input: String },
    /// The index or the members of an archive changed in a way that may change resolution.
    ArchiveChanged { archive: String },
    /// A new reference to a name that the earlier link did not know.
    NewUndefined { symbol: String, input: String },
    /// A data section outgrew its slot.
    DataGrew { section: String, input: String, by: u64 },
    /// A code section outgrew its slot and no free slot can take it.
    CodeSpaceExhausted { section: String, input: String },
    /// The last look at a name that nothing defines (a weak reference) may be gone.
    RemovedUndefined { symbol: String, input: String },
    /// A section that is placed (code or data) is new in a changed object.
    AtomAdded { section: String, input: String },
    /// A section that was placed is gone from a changed object.
    AtomRemoved { section: String, input: String },
    /// A section changed its flags, type or alignment beyond what its slot allows.
    SectionFlagsChanged { section: String, input: String },
    /// An ordered section (`.init`, `.init_array`, `__start_` tables, notes) changed its size or bytes.
    OrderedSectionChanged { section: String, input: String },
    /// Thread-local data changed its size.
    TlsChanged { section: String, input: String },
    /// A common symbol changed its size or alignment.
    CommonChanged { symbol: String, input: String },
    /// The COMDAT groups of a changed object differ.
    ComdatChanged { group: String, input: String },
    /// A reference needs a GOT slot, and the image has no spare one for it.
    GotSlotAdded { symbol: String, input: String },
    /// A reference needs something of a shared library's symbol that the image does not have: an import, a PLT entry, a
    /// copy, a TLS slot.
    ImportNeedAdded { symbol: String, need: String, input: String },
    /// What a shared library offers to its users has changed.
    SharedLibraryChanged { library: String },
    /// An IFUNC, or a reference to one, appeared or disappeared.
    IfuncChanged { symbol: String, input: String },
    /// A dynamic relocation appeared or disappeared.
    DynamicRelocationChanged { section: String, input: String },
    /// A reference to a section that garbage collection had dropped.
    DeadAtomReferenced { section: String, input: String },
    /// A new mergeable string or constant does not fit the pool's reserve.
    MergePoolExhausted { section: String },
    /// Unwind tables changed in a way that can't be patched.
    UnwindChanged { input: String, why: String },
    /// A debug contribution fits neither its slot nor the reserve of its section.
    DebugSpaceExhausted { section: String, input: String },
    /// Debug information of a kind that is shared between units changed.
    DebugShared { section: String, input: String },
    /// A symbol or string table has no room left.
    SymbolTableExhausted,
    /// Local symbols of a changed object were added or removed.
    LocalSymbolsChanged { symbol: String, input: String },
    /// Properties of the object (CET, executable stack, machine flags) changed.
    PropertyChanged { input: String },
    /// A relocation of a changed object can't be applied in a patch.
    RelocationUnpatchable { input: String, why: String },
    /// Islands and dead bytes exceed their budget.
    DebrisLimit { dead_bytes: u64 },
    /// Another limit of the earlier link's layout.
    LayoutExhausted { what: String },
}

impl GateReason {
    /// The same of an input, if the reason has none yet.
    pub fn of_input(mut self, name: &str) -> GateReason {
        if let GateReason::GotSlotAdded { input, .. }
        | GateReason::ImportNeedAdded { input, .. }
        | GateReason::IfuncChanged { input, .. }
        | GateReason::DynamicRelocationChanged { input, .. }
        | GateReason::RelocationUnpatchable { input, .. } = &mut self
            && input.is_empty()
        {
            name.clone_into(input);
        }
        self
    }

    /// The kind in kebab case, as in the JSON report: `new-global`, `data-grew`, …
    pub fn kind(&self) -> String {
        self.fields().0
    }

    /// Kind and fields out of the JSON form, so that text and report can't drift apart.
    fn fields(&self) -> (String, Vec<String>) {
        let Ok(serde_json::Value::Object(mut map)) = serde_json::to_value(self) else {
            return ("unknown".to_owned(), Vec::new());
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let kind = map.remove("kind").map(text).unwrap_or_default();
        (kind, map.into_iter().map(|(name, value)| format!("{name} {}", text(value))).collect())
    }
}

impl fmt::Display for GateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, fields) = self.fields();
        f.write_str(&kind)?;
        if !fields.is_empty() {
            write!(f, ": {}", fields.join(", "))?;
        }
        Ok(())
    }
}

/// Work counters of a frame. Every counter that a test does not allow must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "names and units say it")]
pub struct Counters {
    pub whole_program_resolutions: u64,
    pub inputs_parsed: u64,
    pub atoms_diffed: u64,
    pub atoms_changed: u64,
    pub atoms_placed: u64,
    pub atoms_moved: u64,
    pub islands_written: u64,
    pub relocations_applied: u64,
    pub sites_retargeted: u64,
    pub debug_contributions_written: u64,
    pub fdes_written: u64,
    pub symbols_written: u64,
    /// Entries of `.dynsym` that came, went or changed their place.
    pub dynamic_symbols_written: u64,
    /// Names of which a hash table of dynamic symbols was made anew.
    pub dynamic_symbols_hashed: u64,
    /// Mentions of names by all objects that were looked through for one more of a name that an object drops.
    pub mentions_examined: u64,
    /// Of the image, once, as the frame changed it.
    pub bytes_written: u64,
    pub pages_hashed: u64,
    /// By the host, to all files that hold an image; blocks that the file system shares are not written.
    pub image_file_bytes: u64,
    /// By the host, to state, patch and marker. The log line and the command line are not counted.
    pub state_file_bytes: u64,
}

/// Time and name of one set of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "names and units say it")]
pub struct SetTime {
    pub set: &'static str,
    pub ns: u64,
}

/// What one frame did and why.
#[derive(Clone, Debug, Serialize)]
pub struct FrameReport {
    /// How the image came to be.
    pub outcome: Outcome,
    /// All reasons against a patch; empty unless the outcome is [`Outcome::FellBackFull`].
    pub reasons: Vec<GateReason>,
    /// Work done.
    pub counters: Counters,
    /// Time of each set in frame order, nanoseconds.
    pub timings_ns: Vec<SetTime>,
    /// Time of the whole frame, nanoseconds.
    pub total_ns: u64,
    /// Names of the inputs whose contents changed.
    pub changed_inputs: Vec<String>,
    /// Names of the sections or functions that were rewritten or moved, at most 100.
    pub changed_atoms: Vec<String>,
    /// What a full link found that is no error because the options say so.
    pub warnings: Vec<String>,
}
