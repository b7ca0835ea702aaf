//! The store: all columns of one link. Cold link -> columns -> state bytes; another process opens the same bytes.
//!
//! State bytes: header, directory, columns in blocks, then one log record for each later frame.

use std::hash::Hasher as _;
use std::io;
use std::sync::Arc;

use bevy_ecs::prelude::Resource;
use formats::Bytes;
use relink_formats as formats;
use twox_hash::XxHash3_64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::blocks::{BLOCK_BYTES, BlockSink, Blocks, Hasher, Writer, rows_per_block};
use crate::column::{Column, StoreError};
use crate::records::{
    AtomRecord, CieRecord, FdeRecord, FileRecord, FreeRecord, GlobalRecord, GroupRecord, ImageRecord,
    InputRecord, IslandRecord, PoolRecord, RelocRecord, SectionRecord, SymbolRecord,
};
use crate::rows::{FileRow, InputRow, Span, SymbolRow};
use crate::texts::Texts;

/// Bump with every change of a record, a column or their meaning: other versions are never migrated.
pub const SCHEMA: u32 = 9;
const MAGIC: [u8; 8] = *b"relink\0S";
const TARGET_X86_64_ELF: u32 = 62;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    schema: u32,
    target: u32,
    options_hash: u64,
    build_hash: u64,
    /// Bytes of header and directory, a multiple of the block size; the columns follow.
    prefix_len: u64,
    columns_len: u64,
    image_len: u64,
    columns: u32,
    reserved: u32,
    /// Part of the checksum of each block.
    seed: u64,
    /// xxh3 of the prefix with this field zero.
    prefix_hash: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DirectoryEntry {
    /// Number of its first block.
    first: u64,
    len: u32,
    row_bytes: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LogHeader {
    magic: u32,
    len: u32,
    hash: u64,
}
const LOG_MAGIC: u32 = 0x676f_6c72;

/// What a column takes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSize {
    /// Its name; `sums` has the checksums of the names.
    pub name: &'static str,
    /// Rows, without those that the log adds.
    pub rows: u32,
    /// Bytes of a row.
    pub row_bytes: u32,
    /// Bytes with checksums and the unused ends of blocks.
    pub bytes: u64,
}

/// What a state is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateLayout {
    /// In the order of the file.
    pub columns: Vec<ColumnSize>,
    /// Header and directory, bytes.
    pub prefix_bytes: u64,
    /// Bytes of the image, if it is in there.
    pub image_bytes: u64,
    /// Records of the log, one for each frame that changed a row.
    pub log_records: u32,
    /// Their bytes.
    pub log_bytes: u64,
}

macro_rules! store {
    ($($(#[$doc:meta])* $column:ident: $type:ty,)*) => {
        /// All columns of one link.
        #[derive(Debug, Resource)]
        pub struct Store {
            $($(#[$doc])* pub $column: Column<$type>,)*
            /// Names.
            pub strings: Texts,
        }

        /// The rows of a cold link, before they are frozen.
        #[derive(Debug, Default)]
        #[expect(missing_docs, reason = "the fields are those of `Store`")]
        pub struct Rows { $(pub $column: Vec<$type>,)* pub strings: Vec<u8> }

        impl Store {
            /// The columns, and two for the names: bytes and checksums.
            const COLUMNS: usize = [$(stringify!($column)),*].len() + 2;

            /// Names of the columns, in the order of the directory.
            const NAMES: [&str; Store::COLUMNS] = [$(stringify!($column),)* "strings", "sums"];

            /// Freezes a cold link's rows.
            pub fn freeze(rows: Rows) -> Store {
                Store {
                    $($column: Column::owned(stringify!($column), rows.$column),)*
                    strings: Texts::owned(rows.strings),
                }
            }

            /// Each column's name, rows and bytes a row.
            pub fn sizes(&self) -> Vec<(&'static str, u32, usize)> {
                vec![
                    $((stringify!($column), self.$column.len(), size_of::<$type>()),)*
                    ("strings", self.strings.len(), 1),
                ]
            }

            fn directory(&self) -> Vec<DirectoryEntry> {
                let mut first = 0;
                let mut next = |len: u32, row_bytes: usize, blocks: usize| {
                    let entry = DirectoryEntry { first, len, row_bytes: row_bytes as u32 };
                    first += blocks as u64;
                    entry
                };
                let text_blocks = (self.strings.len() as usize).div_ceil(BLOCK_BYTES);
                vec![
                    $(next(
                        self.$column.len(),
                        size_of::<$type>(),
                        (self.$column.len() as usize).div_ceil(rows_per_block::<$type>()),
                    ),)*
                    next(self.strings.len(), 1, text_blocks),
                    next(text_blocks as u32, size_of::<u64>(), text_blocks.div_ceil(rows_per_block::<u64>())),
                ]
            }

            /// Hands all blocks to a sink, in the order of the directory.
            fn write_blocks(&self, sums: &Column<u64>, sink: &mut dyn BlockSink) -> Result<(), StoreError> {
                $(self.$column.write(sink)?;)*
                Texts::write(&self.strings.all()?, sink);
                sums.write(sink)
            }

            fn map(directory: &[DirectoryEntry], blocks: &Arc<Blocks>) -> Result<Store, StoreError> {
                let mut entries = directory.iter();
                let mut next = |name: &'static str, row_bytes: usize| {
                    let entry = entries.next().filter(|entry| entry.row_bytes as usize == row_bytes);
                    let entry = entry.ok_or_else(|| StoreError::Malformed(format!("column {name} is missing")))?;
                    Ok((usize::try_from(entry.first).unwrap_or(usize::MAX), entry.len))
                };
                Ok(Store {
                    $($column: {
                        let (first, len) = next(stringify!($column), size_of::<$type>())?;
                        Column::mapped(stringify!($column), blocks.clone(), first, len)?
                    },)*
                    strings: {
                        let (first, len) = next("strings", 1)?;
                        let (first_sum, sums) = next("sums", size_of::<u64>())?;
                        let sums = Column::mapped("sums", blocks.clone(), first_sum, sums)?;
                        Texts::mapped(blocks.clone(), first, len, sums)?
                    },
                })
            }

            /// What was written since the last call, as one log record; no bytes if that is nothing.
            pub fn take_journal(&mut self) -> Vec<u8> {
                let mut payload = Vec::new();
                $(self.$column.take_journal(&mut payload);)*
                self.strings.take_journal(&mut payload);
                if payload.iter().all(|&byte| byte == 0) {
                    return Vec::new(); // Each column counts its rows: all counts are zero.
                }
                let header = LogHeader {
                    magic: LOG_MAGIC,
                    len: payload.len() as u32,
                    hash: XxHash3_64::oneshot(&payload),
                };
                let mut record = header.as_bytes().to_vec();
                record.append(&mut payload);
                record
            }

            /// Forgets the journal, after the whole state was written.
            pub fn clear_journal(&mut self) {
                $(self.$column.clear_journal();)*
                self.strings.clear_journal();
            }

            fn replay(&mut self, payload: &[u8]) -> Result<(), StoreError> {
                let mut rest = payload;
                $(rest = self.$column.replay(rest)?;)*
                rest = self.strings.replay(rest)?;
                if rest.is_empty() { Ok(()) } else { Err(StoreError::Malformed("log record is too long".to_owned())) }
            }
        }
    };
}

store! {
    /// Facts of the image, one row.
    image: ImageRecord,
    /// Files of the command line.
    files: FileRecord,
    /// The file at each place of the command line; empty as long as files stand there in the order of their rows.
    order: u32,
    /// Loaded objects; in link order but for those that came later.
    inputs: InputRecord,
    /// What is placed, or was dropped.
    atoms: AtomRecord,
    /// Symbols: globals first, then each object's local ones.
    symbols: SymbolRecord,
    /// Objects' global symbols.
    globals: GlobalRecord,
    /// Index of the global names: rows + 1, open addressing by xxh3, a power of two, 0 is empty.
    name_slots: u32,
    /// Relocations of placed atoms.
    relocs: RelocRecord,
    /// Sections of the image.
    sections: SectionRecord,
    /// Free ranges shorter than a file block.
    free_slots: FreeRecord,
    /// Free ranges of at least a file block.
    free_blocks: FreeRecord,
    /// Frame descriptions.
    fdes: FdeRecord,
    /// Common information entries.
    cies: CieRecord,
    /// Islands.
    islands: IslandRecord,
    /// Pools of merged pieces.
    pools: PoolRecord,
    /// Indexes of the pools: offset + 1 of a piece in its pool, open addressing by xxh3, 0 is empty.
    pool_slots: u32,
    /// COMDAT groups of the objects.
    groups: GroupRecord,
    /// Index of the signatures: rows of their owners + 1, open addressing by xxh3, a power of two, 0 is empty.
    group_slots: u32,
    /// Whose an entry of `.dynsym`, `.got` or PLT is: row of the symbol + 1, 0 for nobody's.
    owners: u32,
    /// Nodes of the image's digest tree, leaves first.
    digests: [u8; 32],
}

impl Store {
    /// The whole state: base, no log.
    ///
    /// * `options_hash`, `build_hash`: what must be equal for the state to be used again.
    /// * `image_len`: bytes of the image that the caller puts behind the columns; 0 for none.
    ///
    /// # Errors
    /// If a mapped column is damaged, or the writer fails.
    pub fn write(
        &self,
        options_hash: u64,
        build_hash: u64,
        image: &[u8],
        writer: &mut dyn io::Write,
    ) -> io::Result<()> {
        let directory = self.directory();
        let sums = Column::owned("sums", Texts::sums(&self.strings.all().map_err(io::Error::other)?));
        let mut hashes = Hasher::default();
        self.write_blocks(&sums, &mut hashes).map_err(io::Error::other)?;
        let prefix_len = (size_of::<Header>() + size_of_val(&directory[..])).next_multiple_of(BLOCK_BYTES);
        let mut header = Header {
            magic: MAGIC,
            schema: SCHEMA,
            target: TARGET_X86_64_ELF,
            options_hash,
            build_hash,
            prefix_len: prefix_len as u64,
            columns_len: (hashes.len() * BLOCK_BYTES) as u64,
            image_len: image.len() as u64,
            columns: Store::COLUMNS as u32,
            reserved: 0,
            seed: hashes.seed(),
            prefix_hash: 0,
        };
        let mut prefix = header.as_bytes().to_vec();
        prefix.extend_from_slice(directory.as_slice().as_bytes());
        prefix.resize(prefix_len, 0);
        header.prefix_hash = XxHash3_64::oneshot(&prefix);
        prefix[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        writer.write_all(&prefix)?;
        let mut blocks = Writer::new(hashes, writer);
        self.write_blocks(&sums, &mut blocks).map_err(io::Error::other)?;
        blocks.finish()?;
        writer.write_all(image)
    }

    /// Opens state bytes: O(1) and the log's length; no column is read.
    ///
    /// Returns the store and the image that lies behind the columns, which may be empty.
    ///
    /// # Errors
    /// [`StoreError`] for anything that does not fit; the caller then links from nothing.
    pub fn open(state: Bytes, options_hash: u64, build_hash: u64) -> Result<(Store, Bytes), StoreError> {
        let (header, prefix_len) = Store::header(&state, build_hash)?;
        if header.options_hash != options_hash {
            return Err(malformed("options-changed"));
        }
        let parts = Store::parts(&state, &header, prefix_len)?;
        let blocks = Arc::new(Blocks::new(state.slice(prefix_len..parts.columns_end), header.seed));
        let mut store = Store::map(&parts.directory, &blocks)?;
        each_record(&state[parts.image_end..], |payload| store.replay(payload))?;
        Ok((store, state.slice(parts.columns_end..parts.image_end)))
    }

    /// What takes how much of state bytes. O(columns and log): no row is read.
    ///
    /// # Errors
    /// As [`Store::open`], but for options, which may be any.
    pub fn layout(state: &[u8], build_hash: u64) -> Result<StateLayout, StoreError> {
        let (header, prefix_len) = Store::header(state, build_hash)?;
        let parts = Store::parts(state, &header, prefix_len)?;
        let blocks = (parts.columns_end - prefix_len) as u64 / BLOCK_BYTES as u64;
        let ends = parts.directory.iter().skip(1).map(|next| next.first).chain([blocks]);
        let entries = parts.directory.iter().zip(ends).zip(Store::NAMES);
        let columns = entries.map(|((entry, end), name)| ColumnSize {
            name,
            rows: entry.len,
            row_bytes: entry.row_bytes,
            bytes: end.saturating_sub(entry.first).saturating_mul(BLOCK_BYTES as u64),
        });
        let mut layout = StateLayout {
            columns: columns.collect(),
            prefix_bytes: prefix_len as u64,
            image_bytes: (parts.image_end - parts.columns_end) as u64,
            log_records: 0,
            log_bytes: (state.len() - parts.image_end) as u64,
        };
        each_record(&state[parts.image_end..], |_| {
            layout.log_records += 1;
            Ok(())
        })?;
        Ok(layout)
    }

    /// The header, checked, and the length of the prefix.
    fn header(state: &[u8], build_hash: u64) -> Result<(Header, usize), StoreError> {
        let (mut header, _) =
            Header::read_from_prefix(state).map_err(|_| malformed("it is shorter than its header"))?;
        if header.magic != MAGIC {
            return Err(malformed("it is not a state of relink"));
        }
        if (header.schema, header.build_hash) != (SCHEMA, build_hash) {
            return Err(malformed("another version of relink wrote it"));
        }
        if header.target != TARGET_X86_64_ELF {
            return Err(malformed("it is of another target"));
        }
        let prefix_len = usize::try_from(header.prefix_len).unwrap_or(usize::MAX);
        let prefix = state.get(..prefix_len).ok_or_else(|| malformed("it is shorter than its directory"))?;
        let stored_hash = std::mem::take(&mut header.prefix_hash);
        let mut hasher = XxHash3_64::new();
        hasher.write(header.as_bytes());
        hasher.write(prefix.get(size_of::<Header>()..).unwrap_or_default());
        if hasher.finish() != stored_hash {
            return Err(malformed("checksum of its directory does not match"));
        }
        Ok((header, prefix_len))
    }

    /// Directory, end of the columns, end of the image: all within the state.
    fn parts(state: &[u8], header: &Header, prefix_len: usize) -> Result<Parts, StoreError> {
        let columns_len = usize::try_from(header.columns_len).unwrap_or(usize::MAX);
        let columns_end = prefix_len.checked_add(columns_len).filter(|&end| end <= state.len());
        let columns_end = columns_end.ok_or_else(|| malformed("it is shorter than its columns"))?;
        let directory_len = (header.columns as usize).saturating_mul(size_of::<DirectoryEntry>());
        let directory_bytes =
            state[..prefix_len].get(size_of::<Header>()..size_of::<Header>().saturating_add(directory_len));
        let directory_bytes = directory_bytes.ok_or_else(|| malformed("its directory is cut short"))?;
        let directory = directory_bytes
            .chunks_exact(size_of::<DirectoryEntry>())
            .filter_map(|bytes| DirectoryEntry::read_from_bytes(bytes).ok())
            .collect();
        let image_len = usize::try_from(header.image_len).unwrap_or(usize::MAX);
        let image_end = columns_end.checked_add(image_len).filter(|&end| end <= state.len());
        let image_end = image_end.ok_or_else(|| malformed("it is shorter than its image"))?;
        Ok(Parts { directory, columns_end, image_end })
    }

    /// The options hash of state bytes, if they have a header at all.
    pub fn options_hash(state: &[u8]) -> Option<u64> {
        Header::read_from_prefix(state).ok().map(|(header, _)| header.options_hash)
    }

    /// A name as text, for messages.
    pub fn text(&self, span: Span) -> String {
        self.strings.bytes(span).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// The facts of the image.
    ///
    /// # Errors
    /// If the state is damaged.
    pub fn image_record(&self) -> Result<ImageRecord, StoreError> {
        self.image.get(0)
    }

    /// The file at a place of the command line.
    ///
    /// # Errors
    /// If the state is damaged.
    pub fn file_at(&self, place: u32) -> Result<FileRow, StoreError> {
        let row = if self.order.is_empty() { place } else { self.order.get(place)? };
        if row < self.files.len() { Ok(FileRow(row)) } else { Err(malformed("a place without a file")) }
    }

    /// The files in the order of the command line.
    ///
    /// # Errors
    /// If the state is damaged: also if a file stands at two places.
    pub fn places(&self) -> Result<Vec<FileRow>, StoreError> {
        let mut seen = vec![false; self.files.len() as usize];
        let count = self.image_record()?.places;
        let mut places = Vec::with_capacity(seen.len().min(count as usize));
        for place in 0..count {
            let file = self.file_at(place)?;
            if std::mem::replace(&mut seen[file.index()], true) {
                return Err(malformed("a file at two places"));
            }
            places.push(file);
        }
        Ok(places)
    }

    /// The loaded objects in link order.
    ///
    /// # Errors
    /// If the state is damaged.
    pub fn link_order(&self) -> Result<Vec<InputRow>, StoreError> {
        let mut inputs = Vec::with_capacity(self.inputs.len() as usize);
        for file in self.places()? {
            let file = self.files.get(file.0)?;
            let own = u64::from(file.inputs.len) + u64::from(file.more_inputs.len);
            if own > u64::from(self.inputs.len()).saturating_sub(inputs.len() as u64) {
                return Err(malformed("an object of two files"));
            }
            let mut loaded = Vec::with_capacity(own as usize);
            for row in file.inputs.and(file.more_inputs) {
                let input = self.inputs.get(row)?;
                if input.file.some().is_some() {
                    loaded.push((input.member, InputRow(row)));
                }
            }
            loaded.sort_unstable();
            inputs.extend(loaded.into_iter().map(|(_, row)| row));
        }
        Ok(inputs)
    }

    /// The global symbol of a name.
    ///
    /// # Errors
    /// If the state is damaged.
    pub fn global(&self, name: &[u8]) -> Result<Option<SymbolRow>, StoreError> {
        let slots = self.name_slots.len();
        if slots == 0 {
            return Ok(None);
        }
        let mut slot = hash_name(name) as u32 & (slots - 1);
        for _ in 0..slots {
            match self.name_slots.get(slot)? {
                0 => return Ok(None),
                entry => {
                    let row = SymbolRow(entry - 1);
                    if self.strings.bytes(self.symbols.get(row.0)?.name)? == name {
                        return Ok(Some(row));
                    }
                }
            }
            slot = (slot + 1) & (slots - 1);
        }
        Ok(None)
    }
}

/// Where the parts of a state are.
struct Parts {
    directory: Vec<DirectoryEntry>,
    columns_end: usize,
    image_end: usize,
}

fn malformed(what: &str) -> StoreError {
    StoreError::Malformed(what.to_owned())
}

/// Calls `visit` with the payload of each record of a log, in order.
fn each_record(
    mut log: &[u8],
    mut visit: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    while !log.is_empty() {
        let (record, rest) =
            LogHeader::read_from_prefix(log).map_err(|_| malformed("its log is cut short"))?;
        let payload = rest.get(..record.len as usize).ok_or_else(|| malformed("its log is cut short"))?;
        if record.magic != LOG_MAGIC || XxHash3_64::oneshot(payload) != record.hash {
            return Err(malformed("checksum of its log does not match"));
        }
        visit(payload)?;
        log = &rest[record.len as usize..];
    }
    Ok(())
}

/// The hash of a name in `name_slots` and of a piece in `pool_slots`.
#[inline]
pub fn hash_name(name: &[u8]) -> u64 {
    XxHash3_64::oneshot(name)
}
