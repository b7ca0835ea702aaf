//! Truncated, bit-flipped and otherwise damaged objects, archives and state: an error or a link, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use relink::{Input, LinkError, LinkSession, Outcome};
use relink_tests::cc::Opt;
use relink_tests::fixture::{self, App, Core};
use relink_tests::program::{self, Inputs, Program, assert_behaves};
use relink_tests::rng::Rng;
use relink_tests::state;

/// Mutations of each kind; `RELINK_HOSTILE` asks for more.
fn mutations() -> u64 {
    std::env::var("RELINK_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

/// Damages bytes in one of the ways that find most faults.
fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(3) {
        // Headers and tables are at the ends: half of the time there.
        let at = match rng.below(4) {
            0 => rng.below(64.min(out.len())),
            1 => out.len() - 1 - rng.below(out.len().min(2048)),
            _ => rng.below(out.len()),
        };
        match rng.below(6) {
            0 => out[at] ^= 1 << rng.below(8),
            1 => out[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 | 3 => {
                // A field of four or eight bytes gets an interesting value.
                let width = *rng.pick(&[2, 4, 8]);
                let near = (out.len() as u64).wrapping_add(rng.below(33) as u64).wrapping_sub(16);
                let value = *rng.pick(&[0, 1, u64::MAX, 1 << 31, 1 << 63, u64::MAX - 7, near, 0xffff_ff00]);
                let (at, bytes) = (at & !(width - 1), value.to_le_bytes());
                let end = (at + width).min(out.len());
                out[at..end].copy_from_slice(&bytes[..end - at]);
            }
            4 => {
                // A piece is copied over another.
                let (from, length) = (rng.below(out.len()), 1 + rng.below(64));
                let length = length.min(out.len() - from).min(out.len() - at);
                out.copy_within(from..from + length, at);
            }
            _ => {
                let length = (1 + rng.below(16)).min(out.len() - at);
                out[at..at + length].fill(0);
            }
        }
    }
    out
}

/// Links once; an error is fine, a panic is not.
fn link(options: &relink::LinkOptions, inputs: &[(&str, &[u8])]) -> Result<Outcome, LinkError> {
    let mut session = LinkSession::new(options.clone())?;
    for (name, bytes) in inputs {
        session.add_input(Input::bytes(*name, bytes.to_vec()));
    }
    session.resolve()
}

/// Judges many cases on all cores; panics with those that panicked. `RELINK_CASE` asks for one of them.
#[track_caller]
fn without_panic(what: &str, cases: u64, case: impl Fn(u64) + Sync) {
    if let Some(number) = std::env::var("RELINK_CASE").ok().and_then(|n| n.parse().ok()) {
        return case(number);
    }
    let next = AtomicUsize::new(0);
    let panicked = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (next, panicked, case) = (&next, &panicked, &case);
            scope.spawn(move || {
                // A case that ends the whole process (no memory, no stack) leaves its number here.
                let current = relink_tests::cache_dir("hostile").join(format!("{what}-{worker}"));
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if number >= cases {
                        let _ = std::fs::remove_file(current);
                        return;
                    }
                    relink_tests::write(&current, number.to_string());
                    if catch_unwind(AssertUnwindSafe(|| case(number))).is_err() {
                        panicked.lock().unwrap_or_else(|e| e.into_inner()).push(number);
                    }
                }
            });
        }
    });
    let mut panicked = panicked.into_inner().unwrap_or_else(|e| e.into_inner());
    panicked.sort_unstable();
    let shown: Vec<_> = panicked.iter().take(20).collect();
    assert!(panicked.is_empty(), "{what}: {} of {cases} cases panicked: {shown:?}", panicked.len());
}

fn base() -> (Vec<u8>, Vec<u8>, Core) {
    let core = Core::new(Opt::O1);
    (fixture::unit(Opt::O1, "app_b", &[]), core.archive(), core)
}

#[test]
fn mutated_objects() {
    let (app, archive, core) = base();
    for options in [program::canonical(), program::incremental()] {
        without_panic("objects", mutations(), |seed| {
            let mut rng = Rng::new(seed);
            let member = &core.members()[rng.below(2)].1;
            let mutated = mutate(member, &mut rng);
            let _ = link(&options, &[("app_b.o", &app), ("table.o", &mutated), (fixture::ARCHIVE, &archive)]);
        });
    }
}

#[test]
fn mutated_archives() {
    let (app, archive, _) = base();
    without_panic("archives", mutations(), |seed| {
        let mutated = mutate(&archive, &mut Rng::new(seed ^ 0xa1));
        let _ = link(&program::incremental(), &[("app_b.o", &app), (fixture::ARCHIVE, &mutated)]);
    });
    // The index and the member headers alone: where an archive's own structure is.
    let head = archive.windows(8).position(|w| w == b"arith.o/").unwrap_or(200);
    without_panic("archive heads", mutations(), |seed| {
        let mut rng = Rng::new(seed ^ 0xa2);
        let mut mutated = archive.clone();
        for _ in 0..=rng.below(3) {
            mutated[rng.below(head + 60)] = rng.draw() as u8;
        }
        let _ = link(&program::canonical(), &[("app_b.o", &app), (fixture::ARCHIVE, &mutated)]);
    });
}

#[test]
fn truncated_objects_and_archives_are_errors() {
    let (app, archive, core) = base();
    let table = &core.members()[1].1;
    without_panic("every length of an object", table.len() as u64, |length| {
        let cut = &table[..length as usize];
        let linked =
            link(&program::canonical(), &[("app_b.o", &app), ("table.o", cut), (fixture::ARCHIVE, &archive)]);
        let error = linked.expect_err("the section table is at the end");
        assert!(error.to_string().contains("table.o"), "{error}");
    });
    const STEP: u64 = 5;
    without_panic("lengths of an archive", archive.len() as u64 / STEP, |step| {
        let cut = &archive[..(step * STEP) as usize];
        let _ = link(&program::canonical(), &[("app_b.o", &app), (fixture::ARCHIVE, cut)]);
    });
}

#[test]
fn mutated_edits_of_a_live_session_leave_it_whole() {
    let core = Core::new(Opt::O1);
    let good = core.inputs(App::B);
    let edits: Vec<Inputs> =
        ["TBL_GET_EDIT", "TBL_SUM_GROW=1"].map(|d| core.edited("table", &[d]).inputs(App::B)).into();
    let (table, archive) = (&core.members()[1].1, core.archive());
    let at = archive.windows(table.len()).position(|bytes| bytes == table).expect("the member's bytes");
    without_panic("edits", 8, |thread| {
        let mut rng = Rng::new(thread ^ 0xed17);
        let mut program = Program::linked(program::incremental(), &good);
        for round in 0..mutations() / 16 {
            // Put into the archive as it stands: `ar` would refuse most of them.
            let mut archive = archive.clone();
            archive[at..at + table.len()].copy_from_slice(&mutate(table, &mut rng));
            let before = program.image();
            program.replace(fixture::ARCHIVE, archive);
            if program.session.resolve().is_err() {
                assert!(program.image() == before, "an error leaves the image");
            }
            let edit = rng.pick(&edits);
            program.edit(edit);
            if round % 16 == 0 {
                program.verify();
                assert_behaves(&program.image(), edit);
            }
        }
    });
}

/// The image of a session that starts from damaged state is right: the patched one, or the one from scratch.
#[track_caller]
fn judge_state(inputs: &Inputs, right: &[Vec<u8>], prepare: impl FnOnce(&mut LinkSession)) {
    let mut program = Program::new(program::incremental(), inputs);
    prepare(&mut program.session);
    program.resolve();
    let image = program.image();
    if !right.contains(&image) {
        // Another placement may be right as well, if a harmless field was hit.
        program.verify();
        assert_behaves(&image, inputs);
    }
}

#[test]
fn mutated_state_never_gives_a_wrong_image() {
    let core = Core::new(Opt::O1);
    let linked = Program::linked(program::incremental(), &core.inputs(App::B));
    let (state, image) = (linked.state(), linked.image());
    let mut columns = Vec::new();
    linked.session.serialize_columns(&mut columns).unwrap();
    for define in ["TBL_GET_EDIT", "TBL_SUM_GROW=1"] {
        let edited = core.edited("table", &[define]).inputs(App::B);
        let mut patched = Program::resumed(program::incremental(), &edited, &state);
        patched.resolve();
        let right = [patched.image(), patched.from_scratch()];
        without_panic("columns", mutations(), |seed| {
            let mutated = mutate(&columns, &mut Rng::new(seed ^ 0x57a7e));
            judge_state(&edited, &right, |session| {
                session.set_prior_parts(mutated.into(), image.clone().into());
            });
        });
        // State and image in one: what holds the image's bytes may not be hit, since no link reads all of them.
        let at =
            state.windows(64).position(|bytes| bytes == &image[..64]).expect("the image is in the state");
        let whole = [&state[..at], &state[at + image.len()..]].concat();
        without_panic("state", mutations() / 4, |seed| {
            let mutated = mutate(&whole, &mut Rng::new(seed ^ 0x57a7f));
            let cut = at.min(mutated.len());
            let state = [&mutated[..cut], &image, &mutated[cut..]].concat();
            judge_state(&edited, &right, |session| session.set_prior_state(state.into()));
        });
        const STEP: u64 = 61;
        without_panic("lengths of the state", state.len() as u64 / STEP, |step| {
            let cut = state[..(step * STEP) as usize].to_vec();
            judge_state(&edited, &right, |session| session.set_prior_state(cut.into()));
        });
    }
}

#[test]
fn rows_that_only_a_forger_writes_never_panic() {
    let core = Core::new(Opt::O1);
    let edited = |define: &str| core.edited("table", &[define]).inputs(App::B);
    let mut linked = Program::linked(program::incremental(), &core.inputs(App::B));
    let _ = linked.session.take_state_log();
    let columns = |program: &Program| {
        let mut columns = Vec::new();
        program.session.serialize_columns(&mut columns).unwrap();
        columns
    };
    let first = (columns(&linked), linked.image());
    let outcome = linked.edit(&edited("TBL_SUM_GROW=1"));
    linked.assert_patched(outcome);
    let moved = (columns(&linked), linked.image());
    // The same rows as a record of the log.
    let log = linked.session.take_state_log().unwrap();
    let logged = ([&first.0[..], &log].concat(), linked.image());
    for ((prior, image), edit) in [
        (&first, edited("TBL_GET_EDIT")),
        (&first, edited("TBL_SUM_GROW=1")),
        (&moved, edited("TBL_SUM_GROW=2")),
        (&logged, edited("TBL_SUM_GROW=2")),
    ] {
        // The rows as they are, under checksums of our own making, are good.
        let mut sealed = prior.clone();
        state::seal(&mut sealed);
        assert!(sealed == *prior, "the layout of the state is not the one that is known here");
        let resume = |state: Vec<u8>| {
            let mut program = Program::new(program::incremental(), &edit);
            program.session.set_prior_parts(state.into(), image.clone().into());
            program
        };
        let mut good = resume(sealed);
        let outcome = good.resolve();
        good.assert_patched(outcome);
        without_panic("rows", mutations() / 2, |seed| {
            let mut program = resume(state::damaged(prior, &mut Rng::new(seed ^ 0x57a80)));
            let session = &mut program.session;
            if session.resolve().is_err() {
                return;
            }
            let mut map = Vec::new();
            let _ = (session.write_map(&mut map), session.loaded_inputs(), session.segment_digests());
            if seed % 8 == 0 {
                let _ = session.verify();
            }
        });
    }
}

#[test]
fn state_of_other_programs_and_options_is_refused() {
    let core = Core::new(Opt::O0);
    let state = Program::linked(program::incremental(), &core.inputs(App::A)).state();
    let inputs = core.inputs(App::B);
    let mut program = Program::resumed(program::incremental(), &inputs, &state);
    assert_eq!(program.resolve(), Outcome::FellBackFull);
    assert_eq!(program.image(), program.from_scratch());
    assert_behaves(&program.image(), &inputs);
}
