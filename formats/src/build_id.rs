//! The build-id: root of a hash tree over the pages of the image, so that k changed pages cost k leaves and
//! their paths instead of the whole file.
//!
//! Anyone can recompute it from the file alone. With `H(person, bytes)` = BLAKE2b with 32 bytes of output, no
//! key, no salt, and `person` padded with zero bytes to 16 as personalisation string:
//!
//! 1. Set the bytes of the build-id note's descriptor to zero.
//! 2. Cut the file in pages of 4096 bytes; the last one may be shorter and is not padded. An empty file has
//!    one empty page. The leaves are `H("relink-leaf-v1", page)`.
//! 3. Pair the digests of a level from the left: `H("relink-node-v1", left || right)`. An odd digest at the
//!    end goes up unchanged. Repeat until one is left.
//! 4. The build-id is `H("relink-root-v1", length of the file as u64, little-endian || that digest)`.
//!
//! The three strings keep a page from posing as a node; the length keeps files apart that differ only in
//! which digest was promoted.
//!
//! # Source
//! RFC 7693 (BLAKE2); "BLAKE2: simpler, smaller, fast as MD5", section 2.5 (personalisation).

use std::ops::Range;

use blake2b_simd::Params;
use blake2b_simd::many::HashManyJob;
use blake2b_simd::many::hash_many;

/// A BLAKE2b hash of 32 bytes.
pub type Digest = [u8; 32];

/// Bytes under one leaf: the page size of x86-64, in which files are mapped and written back.
pub const PAGE_BYTES: usize = 4096;

const LEAF: &[u8; 16] = b"relink-leaf-v1\0\0";
const NODE: &[u8; 16] = b"relink-node-v1\0\0";
const ROOT: &[u8; 16] = b"relink-root-v1\0\0";

/// Jobs given to the SIMD hasher at once. It takes up to 4 side by side (AVX2), and refills lanes as jobs
/// end, so only the last few of a batch run with idle lanes.
const BATCH: usize = 32;

/// Number of leaves of a file. Units: pages. At least 1.
pub fn page_count(len: u64) -> u64 {
    len.div_ceil(PAGE_BYTES as u64).max(1)
}

/// Number of digests on all levels together, which is the length of the array that [`fold`] works on.
pub fn node_count(pages: u64) -> u64 {
    top_index(pages).saturating_add(u64::from(pages > 0))
}

/// Where each level is in the array of all nodes: (index of its first node, number of nodes). Leaves first,
/// the top last. Empty for 0 pages.
pub fn level_offsets(pages: u64) -> Vec<(u64, u64)> {
    levels(pages).collect()
}

/// Index of the one node of the last level.
pub fn top_index(pages: u64) -> u64 {
    levels(pages).last().map_or(0, |(start, _)| start)
}

fn levels(pages: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = (pages > 0).then_some((0_u64, pages));
    std::iter::successors(first, |(start, len)| {
        (*len > 1).then(|| (start.saturating_add(*len), len.div_ceil(2)))
    })
}

/// The digest of one page. `page` is shorter than [`PAGE_BYTES`] only at the end of the file.
pub fn leaf(page: &[u8]) -> Digest {
    digest(LEAF, &[page])
}

/// The digests of a range of pages, several at once.
///
/// * `pages` indexes of pages of `image`; those beyond its end are hashed as empty.
/// * `note`  bytes of the image that count as zero: the descriptor that will hold the build-id.
/// * `out`   shape `[Digest; pages.len()]`; excess digests are left alone.
///
/// Disjoint ranges may run in parallel: a leaf depends on its page only.
pub fn leaves(image: &[u8], pages: Range<u64>, note: Option<Range<u64>>, out: &mut [Digest]) {
    let params = params(LEAF);
    let note = note.filter(|note| note.start < note.end);
    let mut first = pages.start;
    let count = usize::try_from(pages.end.saturating_sub(pages.start)).unwrap_or(usize::MAX).min(out.len());
    for digests in out.get_mut(..count).unwrap_or_default().chunks_mut(BATCH) {
        let next = first.saturating_add(digests.len() as u64);
        let indexes = first..next;
        hash_batch(&params, indexes.clone().map(|index| page(image, index)), digests);
        // At most two pages hold the note: cheaper to hash them twice than to look at each.
        if let Some(note) = &note {
            for (index, digest) in indexes.zip(digests) {
                let start = index.saturating_mul(PAGE_BYTES as u64);
                if note.start < start.saturating_add(PAGE_BYTES as u64) && start < note.end {
                    *digest = noted_leaf(page(image, index), start, note);
                }
            }
        }
        first = next;
    }
}

/// The digests of pages that lie anywhere, several at once.
///
/// * `pages` each at most [`PAGE_BYTES`] long.
/// * `out`   shape `[Digest; pages.len()]`; excess digests are left alone.
pub fn leaves_of<'a>(pages: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut [Digest]) {
    let params = params(LEAF);
    let count = pages.len().min(out.len());
    let mut pages = pages;
    for digests in out[..count].chunks_mut(BATCH) {
        let batch = digests.len();
        hash_batch(&params, pages.by_ref().take(batch), digests);
    }
}

/// The bytes of page `index`, cut at the end of the image.
fn page(image: &[u8], index: u64) -> &[u8] {
    let start = index.saturating_mul(PAGE_BYTES as u64).min(image.len() as u64) as usize;
    let end = start.saturating_add(PAGE_BYTES).min(image.len());
    image.get(start..end).unwrap_or_default()
}

/// The leaf of a page at file offset `start` with the bytes of `note` zeroed.
fn noted_leaf(page: &[u8], start: u64, note: &Range<u64>) -> Digest {
    let mut copy = page.to_vec();
    let position = |offset: u64| offset.saturating_sub(start).min(page.len() as u64) as usize;
    if let Some(zeroed) = copy.get_mut(position(note.start)..position(note.end)) {
        zeroed.fill(0);
    }
    leaf(&copy)
}

/// Hashes `inputs` to `out`, at most [`BATCH`] of them.
fn hash_batch<'a>(params: &Params, inputs: impl Iterator<Item = &'a [u8]>, out: &mut [Digest]) {
    let mut jobs: Vec<HashManyJob<'a>> = Vec::with_capacity(BATCH);
    jobs.extend(inputs.map(|input| HashManyJob::new(params, input)));
    hash_many(jobs.iter_mut());
    for (job, digest) in jobs.iter().zip(out) {
        *digest = to_digest(&job.to_hash());
    }
}

/// Computes all inner nodes from the leaves.
///
/// * `nodes` shape `[Digest; node_count(pages)]` or longer, see [`level_offsets`]; the first `pages` are
///   given. A shorter array is left alone.
pub fn fold(nodes: &mut [Digest], pages: u64) {
    if (nodes.len() as u64) < node_count(pages) {
        return;
    }
    let params = params(NODE);
    let (mut rest, mut len) = (nodes, pages as usize);
    while len > 1 {
        let Some((level, above)) = rest.split_at_mut_checked(len) else { return };
        let parents = len.div_ceil(2);
        for (children, digests) in
            level.chunks(2 * BATCH).zip(above.get_mut(..parents).unwrap_or_default().chunks_mut(BATCH))
        {
            hash_batch(&params, children.chunks_exact(2).map(<[Digest]>::as_flattened), digests);
            if let ([odd], Some(promoted)) = (children.chunks_exact(2).remainder(), digests.last_mut()) {
                *promoted = *odd;
            }
        }
        rest = above;
        len = parents;
    }
}

/// Recomputes the paths from changed leaves to the top.
///
/// * `dirty` ascending indexes of leaves that `get` already answers with their new digest.
/// * `get`   a node by its index in the array of all nodes. What this call `set` is remembered, so `get` may
///   answer with the state from before: writes can be collected and stored later.
/// * `set`   receives each changed node, promoted ones included. Ascending per level, no node twice.
///
/// Result: the number of nodes hashed; at most `dirty.len()` times the number of levels. `None` if `get` had
/// no answer, or `dirty` is not ascending or beyond the last page; some nodes may have been `set` by then.
pub fn update(
    pages: u64,
    dirty: &[u64],
    get: &dyn Fn(u64) -> Option<Digest>,
    set: &mut dyn FnMut(u64, Digest),
) -> Option<u64> {
    let in_order = dirty.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
    if !in_order || dirty.last().is_some_and(|last| *last >= pages) {
        return None;
    }
    // Changed nodes of the current level: index within the level, digest.
    let mut changed: Vec<(u64, Digest)> = Vec::with_capacity(dirty.len());
    for index in dirty {
        if changed.last().is_none_or(|(last, _)| last != index) {
            changed.push((*index, get(*index)?));
        }
    }
    let mut hashed = 0;
    let mut levels = levels(pages).peekable();
    while let Some((start, len)) = levels.next() {
        let Some((above, _)) = levels.peek().copied() else { break };
        let mut parents: Vec<(u64, Digest)> = Vec::with_capacity(changed.len());
        let mut nodes = changed.iter().copied().peekable();
        while let Some((index, digest)) = nodes.next() {
            let sibling = index ^ 1;
            let parent = if sibling >= len {
                digest
            } else {
                let other = match nodes.next_if(|(next, _)| *next == sibling) {
                    Some((_, other)) => other,
                    None => get(start.checked_add(sibling)?)?,
                };
                hashed += 1;
                if index < sibling { inner(&digest, &other) } else { inner(&other, &digest) }
            };
            set(above.checked_add(index / 2)?, parent);
            parents.push((index / 2, parent));
        }
        changed = parents;
    }
    Some(hashed)
}

/// The build-id of a file of `file_len` bytes whose tree ends in `top`.
pub fn root(top: &Digest, file_len: u64) -> Digest {
    digest(ROOT, &[&file_len.to_le_bytes(), top])
}

/// The top of a tree over `leaves` alone: identifies the pages of one segment, wherever in the file they are.
///
/// No leaves give 32 zero bytes.
pub fn segment_digest(leaves: &[Digest]) -> Digest {
    let pages = leaves.len() as u64;
    let mut nodes = leaves.to_vec();
    nodes.resize(node_count(pages) as usize, [0; 32]);
    fold(&mut nodes, pages);
    nodes.last().copied().unwrap_or_default()
}

/// The build-id of a whole file in memory, on one thread. The other functions must agree with this one.
///
/// # Examples
/// ```
/// use relink_formats::build_id::of_image;
/// assert_ne!(of_image(b"a", None), of_image(b"b", None));
/// assert_eq!(of_image(b"a", Some(0..1)), of_image(b"b", Some(0..1)));
/// ```
pub fn of_image(image: &[u8], note: Option<Range<u64>>) -> Digest {
    let pages = page_count(image.len() as u64);
    let mut leaf_digests = vec![[0; 32]; pages as usize];
    leaves(image, 0..pages, note, &mut leaf_digests);
    root(&segment_digest(&leaf_digests), image.len() as u64)
}

fn params(person: &[u8; 16]) -> Params {
    let mut params = Params::new();
    params.hash_length(32).personal(person);
    params
}

fn inner(left: &Digest, right: &Digest) -> Digest {
    digest(NODE, &[left, right])
}

fn digest(person: &[u8; 16], parts: &[&[u8]]) -> Digest {
    let mut state = params(person).to_state();
    for part in parts {
        state.update(part);
    }
    to_digest(&state.finalize())
}

/// The 32 bytes of a hash made with `hash_length(32)`.
fn to_digest(hash: &blake2b_simd::Hash) -> Digest {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blake2::Blake2b256;
    use blake2::Digest as _;
    use blake2::digest::CustomizedInit;

    use super::*;

    /// A generator good enough to vary tests (xorshift64*), seeded so that a failure repeats.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| (self.next() >> 32) as u8).collect()
        }
    }

    fn reference_hash(person: &str, bytes: &[u8]) -> Digest {
        let mut hasher = Blake2b256::new_customized(person.as_bytes());
        hasher.update(bytes);
        hasher.finalize().into()
    }

    /// The recipe of the module docs, word for word, with another implementation of BLAKE2b.
    fn reference(image: &[u8], note: Option<Range<usize>>) -> Digest {
        let mut image = image.to_vec();
        if let Some(note) = note {
            image[note].fill(0);
        }
        let mut level: Vec<Digest> =
            image.chunks(4096).map(|page| reference_hash("relink-leaf-v1", page)).collect();
        if level.is_empty() {
            level.push(reference_hash("relink-leaf-v1", b""));
        }
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| match pair {
                    [one] => *one,
                    pair => reference_hash("relink-node-v1", &pair.concat()),
                })
                .collect();
        }
        let mut bytes = (image.len() as u64).to_le_bytes().to_vec();
        bytes.extend(level[0]);
        reference_hash("relink-root-v1", &bytes)
    }

    #[test]
    fn pages_that_lie_apart_have_the_digests_of_those_side_by_side() {
        let pages: Vec<Vec<u8>> = (0..70_usize).map(|n| vec![n as u8; PAGE_BYTES - n % 3]).collect();
        let mut digests = vec![[0; 32]; 71];
        leaves_of(pages.iter().map(Vec::as_slice), &mut digests);
        assert!(pages.iter().zip(&digests).all(|(page, digest)| leaf(page) == *digest));
        assert_eq!(digests[70], [0; 32]);
    }

    #[test]
    fn build_id_equals_the_reference() {
        let mut random = Random(7);
        for pages in [0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 63, 64, 65, 130] {
            for extra in [0, 1, 4095] {
                let image = random.bytes(pages * 4096 + extra);
                assert_eq!(
                    of_image(&image, None),
                    reference(&image, None),
                    "{pages} pages and {extra} bytes"
                );
            }
        }
    }

    #[test]
    fn build_id_is_pinned() {
        let hex = |digest: Digest| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let image: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        assert_eq!(hex(of_image(&image, None)), hex(reference(&image, None)));
        assert_eq!(hex(of_image(b"", None)), PINNED_EMPTY);
        assert_eq!(hex(of_image(&image, None)), PINNED_IMAGE);
    }

    // From Python's `hashlib.blake2b(page, digest_size=32, person=...)`.
    const PINNED_EMPTY: &str = "dcca2b2344b7d0f63c6c07dcecdf4db7d4ecd168a3353fab18eceb2102a62d93";
    const PINNED_IMAGE: &str = "8410e94a94c8fc6455ecd5f4efbd6b99fefcba60b5399bd86ae3e23d4674f25f";

    #[test]
    fn note_bytes_count_as_zero_even_across_a_page_border() {
        let mut random = Random(11);
        let image = random.bytes(5 * 4096 + 100);
        for note in [0..32, 4090..4110, 8192..12_288, 4000..13_000, 20_570..20_580, 5..5] {
            let id = of_image(&image, Some(note.start as u64..note.end as u64));
            assert_eq!(id, reference(&image, Some(note.clone())), "{note:?}");
            let mut other = image.clone();
            other[note.clone()].fill(0x5a);
            assert_eq!(id, of_image(&other, Some(note.start as u64..note.end as u64)));
        }
        // Beyond the end, reversed, huge: nothing is zeroed, nothing panics.
        let reversed = Range { start: 9, end: 3 };
        for note in [1 << 40..u64::MAX, reversed, u64::MAX - 1..u64::MAX] {
            assert_eq!(of_image(&image, Some(note)), of_image(&image, None));
        }
    }

    #[test]
    fn any_flipped_byte_changes_the_build_id() {
        let mut random = Random(13);
        let mut image = random.bytes(3 * 4096 + 17);
        let id = of_image(&image, Some(64..96));
        for at in (0..image.len()).step_by(97).chain([0, 63, 96, 4095, 4096, 12_287, 12_288, 12_304]) {
            if (64..96).contains(&at) {
                continue;
            }
            image[at] ^= 1 << random.below(8);
            assert_ne!(id, of_image(&image, Some(64..96)), "byte {at}");
            image[at] = random.bytes(1)[0];
            let id_of_other = of_image(&image, Some(64..96));
            assert_eq!(id_of_other, reference(&image, Some(64..96)));
            image = Random(13).bytes(3 * 4096 + 17);
        }
        let mut longer = image.clone();
        longer.push(0);
        assert_ne!(id, of_image(&longer, Some(64..96)));
    }

    fn tree(image: &[u8]) -> (u64, Vec<Digest>) {
        let pages = page_count(image.len() as u64);
        let mut nodes = vec![[0; 32]; node_count(pages) as usize];
        leaves(image, 0..pages, None, &mut nodes[..pages as usize]);
        fold(&mut nodes, pages);
        (pages, nodes)
    }

    #[test]
    fn update_equals_a_rebuild_for_random_dirty_sets() {
        let mut random = Random(17);
        for round in 0..200 {
            let len = 1 + random.below(70 * 4096) as usize;
            let mut image = random.bytes(len);
            let (pages, mut nodes) = tree(&image);
            let mut dirty: Vec<u64> = (0..random.below(9)).map(|_| random.below(pages)).collect();
            dirty.sort_unstable();
            for page in &dirty {
                let at = (*page as usize * 4096 + random.below(4096) as usize).min(len - 1);
                image[at] = image[at].wrapping_add(1);
                leaves(&image, *page..page + 1, None, &mut nodes[*page as usize..*page as usize + 1]);
            }
            // Writes are applied after the call: `update` must not need them through `get`.
            let mut writes = BTreeMap::new();
            let get = |index: u64| nodes.get(index as usize).copied();
            let hashed = update(pages, &dirty, &get, &mut |index, digest| {
                assert!(writes.insert(index, digest).is_none(), "node {index} set twice");
            });
            let hashed = hashed.unwrap();
            assert!(hashed <= dirty.len() as u64 * 7, "round {round}: {hashed} hashes");
            for (index, digest) in writes {
                nodes[index as usize] = digest;
            }
            let (_, rebuilt) = tree(&image);
            assert_eq!(nodes, rebuilt, "round {round}");
            assert_eq!(root(&nodes[top_index(pages) as usize], len as u64), of_image(&image, None));
        }
    }

    #[test]
    fn update_of_one_page_hashes_one_path() {
        let (pages, nodes) = tree(&vec![3; 64 * 4096]);
        let get = |index: u64| nodes.get(index as usize).copied();
        assert_eq!(update(pages, &[9], &get, &mut |_, _| {}), Some(6));
        assert_eq!(update(pages, &[8, 9], &get, &mut |_, _| {}), Some(6));
        assert_eq!(update(pages, &[], &get, &mut |_, _| panic!("nothing is dirty")), Some(0));
        // A promoted node costs no hash: page 64 of 65 is its own parent up to the top.
        let (pages, nodes) = tree(&vec![3; 65 * 4096]);
        let get = |index: u64| nodes.get(index as usize).copied();
        assert_eq!(update(pages, &[64], &get, &mut |_, _| {}), Some(1));
    }

    #[test]
    fn update_refuses_bad_input() {
        let (pages, nodes) = tree(&vec![3; 8 * 4096]);
        let get = |index: u64| nodes.get(index as usize).copied();
        assert_eq!(update(pages, &[8], &get, &mut |_, _| {}), None);
        assert_eq!(update(pages, &[3, 2], &get, &mut |_, _| {}), None);
        assert_eq!(update(pages, &[3], &|_| None, &mut |_, _| {}), None);
        assert_eq!(update(u64::MAX, &[u64::MAX - 1], &get, &mut |_, _| {}), None);
        assert_eq!(update(0, &[], &get, &mut |_, _| {}), Some(0));
    }

    #[test]
    fn levels_cover_the_array() {
        assert_eq!(level_offsets(0), []);
        assert_eq!(level_offsets(1), [(0, 1)]);
        assert_eq!(level_offsets(5), [(0, 5), (5, 3), (8, 2), (10, 1)]);
        assert_eq!((node_count(0), node_count(1), node_count(5)), (0, 1, 11));
        assert_eq!((top_index(1), top_index(5)), (0, 10));
        assert_eq!((page_count(0), page_count(1), page_count(4096), page_count(4097)), (1, 1, 1, 2));
        let _ = (level_offsets(u64::MAX), node_count(u64::MAX), page_count(u64::MAX));
    }

    #[test]
    fn disjoint_ranges_of_leaves_give_the_same_digests() {
        let image = Random(19).bytes(100 * 4096 + 5);
        let mut whole = vec![[0; 32]; 101];
        leaves(&image, 0..101, Some(4090..4100), &mut whole);
        let mut parts = vec![[0; 32]; 101];
        for range in [0..1, 1..40, 40..101] {
            let out = &mut parts[range.start as usize..range.end as usize];
            leaves(&image, range, Some(4090..4100), out);
        }
        assert_eq!(whole, parts);
        // A range beyond the image, and an output that is too short.
        leaves(&image, 200..300, None, &mut parts);
        leaves(&image, u64::MAX - 3..u64::MAX, None, &mut parts);
        leaves(&image, 0..u64::MAX, None, &mut parts[..3]);
    }

    #[test]
    fn fold_ignores_an_array_that_is_too_short() {
        let mut nodes = vec![[1; 32]; 10];
        fold(&mut nodes, 8);
        fold(&mut nodes, u64::MAX);
        assert_eq!(nodes, vec![[1; 32]; 10]);
        fold(&mut nodes, 0);
        assert_eq!(segment_digest(&[]), [0; 32]);
        assert_eq!(segment_digest(&[[9; 32]]), [9; 32]);
    }
}
