//! Which file of the last command line each input of this one is: by name, then by what it defines. The rest came or went.

use formats::archive::Archive;
use formats::object_file::ObjectFile;
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::input::Input;
use relink_engine::records::{file_flags, global_state};
use relink_engine::rows::FileRow;
use relink_engine::store::{Store, hash_name};
use relink_formats as formats;

use super::bulk::is_shared_object;
use super::changed::role;
use crate::commit::bulk::global_records;

/// What the inputs of a request are to the files of the store.
pub(super) enum Pairing {
    /// For each place the file that it is, if it was there before; and the files that are gone.
    Found { known: Vec<Option<FileRow>>, gone: Vec<FileRow> },
    /// Files stand in another order; one that has another place.
    Reordered(String),
}

/// Inputs that are compared by what is in them, with as many files: beyond that they are other ones.
const COMPARED_MAX: usize = 64;

/// Pairs the inputs of a command line with the files at the places of the last one, in order.
pub(super) fn pair_inputs(
    store: &Store,
    places: &[FileRow],
    inputs: &[Input],
) -> Result<Pairing, StoreError> {
    let mut names = Vec::with_capacity(places.len());
    for file in places {
        names.push(store.text(store.files.get(file.0)?.name));
    }
    let mut pairer =
        Pairer { store, places, names: &names, inputs, known: vec![None; inputs.len()], moved: None };
    let gaps = pairer.by_key(&[((0, places.len()), (0, inputs.len()))], role);
    let gaps = pairer.by_key(&gaps, base_name);
    for gap in gaps {
        pairer.by_content(gap)?;
    }
    let Pairer { known, mut moved, .. } = pairer;
    let taken: HashSet<FileRow> = known.iter().flatten().copied().collect();
    let gone: Vec<FileRow> = places.iter().filter(|file| !taken.contains(*file)).copied().collect();
    // What is gone here and came there has moved.
    let mut left = HashSet::new();
    for (file, name) in places.iter().zip(&names).filter(|(file, _)| !taken.contains(*file)) {
        if store.files.get(file.0)?.inputs.len > 0 {
            left.insert(role(name));
        }
    }
    let came = inputs.iter().zip(&known).filter(|(_, known)| known.is_none());
    for (input, _) in came {
        if left.contains(&role(&input.name)) {
            moved.get_or_insert_with(|| input.name.clone());
        }
    }
    Ok(match moved {
        Some(name) => Pairing::Reordered(name),
        None => Pairing::Found { known, gone },
    })
}

/// Files from and to, inputs from and to: what stands between two pairs.
type Gap = ((usize, usize), (usize, usize));

struct Pairer<'a> {
    store: &'a Store,
    places: &'a [FileRow],
    names: &'a [String],
    inputs: &'a [Input],
    known: Vec<Option<FileRow>>,
    moved: Option<String>,
}

impl<'a> Pairer<'a> {
    /// Pairs what has equal keys: at both ends of a gap, and what is the only one of its key on either side.
    fn by_key<K: Eq + std::hash::Hash>(&mut self, gaps: &[Gap], key: fn(&'a str) -> K) -> Vec<Gap> {
        let (names, inputs) = (self.names, self.inputs);
        let mut rest = Vec::new();
        for &gap in gaps {
            let gap = self.trim(gap, key);
            let ((from, to), (first, end)) = gap;
            let mut only: HashMap<K, (Option<usize>, Option<usize>, bool)> = HashMap::new();
            for (at, name) in names.iter().enumerate().take(to).skip(from) {
                let seen = only.entry(key(name)).or_default();
                (seen.0, seen.2) = (Some(at), seen.2 || seen.0.is_some());
            }
            for (at, input) in inputs.iter().enumerate().take(end).skip(first) {
                let seen = only.entry(key(&input.name)).or_default();
                (seen.1, seen.2) = (Some(at), seen.2 || seen.1.is_some());
            }
            let mut pairs: Vec<(usize, usize)> = only
                .into_values()
                .filter_map(|(old, new, several)| Some((old.filter(|_| !several)?, new?)))
                .collect();
            pairs.sort_unstable();
            let mut at = (from, first);
            for (old, new) in pairs {
                if new < at.1 {
                    self.moved.get_or_insert_with(|| self.inputs[new].name.clone());
                    continue;
                }
                self.known[new] = Some(self.places[old]);
                rest.push(self.trim(((at.0, old), (at.1, new)), key));
                at = (old + 1, new + 1);
            }
            rest.push(self.trim(((at.0, to), (at.1, end)), key));
        }
        rest.retain(|(files, inputs)| files.0 < files.1 || inputs.0 < inputs.1);
        rest
    }

    fn trim<K: Eq>(&mut self, gap: Gap, key: fn(&'a str) -> K) -> Gap {
        let (names, inputs) = (self.names, self.inputs);
        let ((mut from, mut to), (mut first, mut end)) = gap;
        while from < to && first < end && key(&names[from]) == key(&inputs[first].name) {
            self.known[first] = Some(self.places[from]);
            (from, first) = (from + 1, first + 1);
        }
        while from < to && first < end && key(&names[to - 1]) == key(&inputs[end - 1].name) {
            (to, end) = (to - 1, end - 1);
            self.known[end] = Some(self.places[to]);
        }
        ((from, to), (first, end))
    }

    /// Pairs what has a definition in common, or is a library of one kind.
    fn by_content(&mut self, ((from, to), (first, end)): Gap) -> Result<(), StoreError> {
        if to - from > COMPARED_MAX || end - first > COMPARED_MAX {
            return Ok(());
        }
        let mut next = from;
        for new in first..end {
            if next == to {
                break;
            }
            let Some(content) = Content::of(&self.inputs[new]) else { continue };
            for old in next..to {
                if content.resembles(self.store, self.places[old])? {
                    self.known[new] = Some(self.places[old]);
                    next = old + 1;
                    break;
                }
            }
        }
        Ok(())
    }
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// What an input is, as far as it tells which file it was.
enum Content {
    Archive,
    Shared,
    /// Hashes of the names that it defines.
    Object(HashSet<u64>),
}

impl Content {
    fn of(input: &Input) -> Option<Content> {
        let bytes = input.source.bytes().ok()?;
        if Archive::is_archive(&bytes) {
            return Some(Content::Archive);
        }
        if is_shared_object(&bytes) {
            return Some(Content::Shared);
        }
        let object = ObjectFile::parse(bytes).ok()?;
        let names = (object.first_global as usize..).zip(global_records(&object));
        let defined = names.filter(|(_, global)| global.state != global_state::UNDEFINED);
        Some(Content::Object(defined.map(|(index, _)| hash_name(object.symbol_name(index))).collect()))
    }

    fn resembles(&self, store: &Store, file: FileRow) -> Result<bool, StoreError> {
        let file = store.files.get(file.0)?;
        let is = |flag: u32| file.flags & flag != 0;
        let names = match self {
            Content::Archive => return Ok(is(file_flags::ARCHIVE)),
            Content::Shared => return Ok(is(file_flags::SHARED)),
            Content::Object(names) => names,
        };
        if is(file_flags::ARCHIVE | file_flags::SHARED) || file.inputs.len != 1 {
            return Ok(false);
        }
        let input = store.inputs.get(file.inputs.start)?;
        for row in input.globals.and(input.more_globals) {
            let global = store.globals.get(row)?;
            if global.state != global_state::UNDEFINED && names.contains(&global.name_hash) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
