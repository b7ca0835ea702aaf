//! How much room a cold incremental link leaves for later frames. Canonical links leave none.

use formats::dwarf::DebugSection;
use relink_engine::options::IncrementalOptions;
use relink_engine::records::{AtomRecord, atom_flags};
use relink_formats as formats;

/// A code slot takes an island with `endbr64` and never less than this.
const CODE_SLOT_ALIGN: u64 = 16;
/// Code that moves in a small program: the acceptance suite grows one function by 10 KiB, twice.
const TEXT_RESERVE_MIN: u64 = 64 << 10;
/// A unit's debug information that outgrows its slot moves to the tail of its section.
const DEBUG_TAIL_MIN: u64 = 32 << 10;
const POOL_RESERVE_MIN: u64 = 4 << 10;
const DATA_RESERVE_MIN: u64 = 8 << 10;

/// Bytes to reserve for an atom; `size` for what must not have a hole.
pub(crate) fn capacity(options: &IncrementalOptions, atom: &AtomRecord, debug: Option<DebugSection>) -> u64 {
    let size = atom.size;
    let flags = atom.flags;
    let grown = |percent: u32| size.saturating_add(size.saturating_mul(u64::from(percent)) / 100);
    // A section without contents may claim any size, which a patch does not bound before it looks for room.
    let aligned = |size: u64, to: u64| size.checked_next_multiple_of(to).unwrap_or(u64::MAX);
    if flags & (atom_flags::EXACT | atom_flags::FIXED | atom_flags::COMMON) != 0 {
        size
    } else if flags & atom_flags::SYNTHETIC != 0 {
        match flags & (atom_flags::ALLOC | atom_flags::DEBUG) {
            0 => size,
            _ => grown(options.data_slack_percent.min(10)) + POOL_RESERVE_MIN,
        }
    } else if flags & atom_flags::DEBUG != 0 {
        debug_capacity(options, size, debug)
    } else if size == 0 {
        0
    } else if flags & atom_flags::CODE != 0 {
        aligned(grown(options.code_slack_percent), CODE_SLOT_ALIGN)
    } else {
        aligned(grown(options.data_slack_percent), 8)
    }
}

/// A debug contribution's hole must be one that a filler can stand in.
fn debug_capacity(options: &IncrementalOptions, size: u64, debug: Option<DebugSection>) -> u64 {
    let Some(debug) = debug else { return size };
    if size == 0 {
        return 0;
    }
    let hole =
        (size.saturating_mul(u64::from(options.debug_slack_percent)) / 100).max(64).next_multiple_of(16);
    // Tables of some sections take their holes in (`formats::dwarf::extend`).
    if debug.fillable(hole) { size.saturating_add(hole) } else { size }
}

/// Free bytes at the end of `.text`.
pub(crate) fn text_reserve(options: &IncrementalOptions, code: u64) -> u64 {
    (code / 100 * u64::from(options.text_reserve_percent)).max(TEXT_RESERVE_MIN).next_multiple_of(4096)
}

/// Free bytes at the end of a section of data: constants that an edit adds, data that outgrew their slots.
pub(crate) fn data_reserve(size: u64) -> u64 {
    (size / 16).max(DATA_RESERVE_MIN).next_multiple_of(64)
}

/// Spare RELATIVE entries of `.rela.dyn`: pointers that an edit adds.
pub(crate) fn relative_spare(relocs: u32) -> u32 {
    relocs / 16 + 64
}

/// Spare entries of `.relr.dyn`: a pointer apart from all others takes one, a table of them a few.
pub(crate) fn packed_spare(entries: u64) -> u64 {
    entries / 8 + 64
}

/// Spare entries of `.rela.dyn` for pointers that name symbols.
pub(crate) fn symbolic_spare(relocs: u32) -> u32 {
    relocs / 16 + 32
}

/// Entries of global symbols behind `.symtab`, outside its `sh_size`.
pub(crate) fn global_tail(globals: u32) -> u64 {
    u64::from(globals / 16 + 64)
}

/// Free bytes behind a debug section, outside its `sh_size`.
pub(crate) fn debug_tail(size: u64) -> u64 {
    (size / 8).max(DEBUG_TAIL_MIN).next_multiple_of(16)
}

/// Free bytes in `.eh_frame`, in front of its terminator.
pub(crate) fn unwind_reserve(len: u32) -> u32 {
    (len / 16).max(1024).next_multiple_of(8)
}

/// Entries that `.eh_frame_hdr` has room for.
pub(crate) fn header_entries(fdes: usize) -> usize {
    fdes + fdes / 16 + 64
}

/// COMDAT groups that frames bring, which a small program's index of signatures has room for, too.
pub(crate) const GROUPS: usize = 32;

/// Nameless local symbols for islands and for local symbols that an edit adds. Only code leaves islands, one for an atom:
/// what counts is the atoms of code, whatever their symbols' binding. The same share as `string_tail`: neither runs out
/// long before the other.
pub(crate) fn symbol_hole(code_atoms: usize) -> u32 {
    u32::try_from(code_atoms / 16).unwrap_or(u32::MAX).saturating_add(64)
}

/// Free bytes behind `.strtab`.
pub(crate) fn string_tail(len: u32) -> u32 {
    len / 16 + 8192
}

/// Spare GOT slots.
pub(crate) fn got_spare(slots: usize) -> usize {
    slots / 4 + 8
}

/// Entries of `.dynsym` that imports of later frames may take.
pub(crate) fn import_spare(imports: usize) -> u32 {
    u32::try_from(imports / 8).unwrap_or(u32::MAX).saturating_add(32)
}

/// The same for names that a hash table holds: a bucket that gains one goes to the end, and leaves its places.
pub(crate) fn export_spare(exports: usize) -> u32 {
    u32::try_from(exports / 16).unwrap_or(u32::MAX).saturating_add(64)
}

/// Free bytes at the end of `.dynstr`, for so many names.
pub(crate) fn name_spare(len: usize, names: u32) -> u64 {
    (len as u64 / 16).max(24 * u64::from(names))
}

/// Free bytes behind `.gnu.version_r`: two libraries and eight versions.
pub(crate) const VERSION_SPARE: u64 = 2 * 16 + 8 * 16;

/// Spare entries of the PLT.
pub(crate) fn plt_spare(entries: usize) -> u32 {
    u32::try_from(entries / 8).unwrap_or(u32::MAX).saturating_add(16)
}
