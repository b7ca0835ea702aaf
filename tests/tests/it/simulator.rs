//! The seeded edit simulator, a bounded number of seeds; `cargo run --release -p relink-tests --bin simulate` runs more.

use relink_tests::program::{reference, reference_of};
use relink_tests::simulate::{self, EditKind};
use relink_tests::tools;

/// Seeds and frames of a run of the tests; `RELINK_SEEDS` and `RELINK_FRAMES` ask for more.
fn amount(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn random_edits_never_give_a_wrong_image() {
    let (seeds, frames) = (amount("RELINK_SEEDS", 8), amount("RELINK_FRAMES", 60));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    let total = std::sync::Mutex::new(simulate::Statistics::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match simulate::simulate(seed as u64, frames) {
                        Ok(statistics) => total.lock().unwrap().add(&statistics),
                        Err(report) => failures.lock().unwrap().push(report),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let total = total.into_inner().unwrap();
    // A gate that lets nothing through would pass all the rest.
    assert!(total.patched > seeds * frames / 4, "patches are the rule: {total:?}");
    assert!(total.moved > 0 && total.fell_back > 0, "moves and fallbacks occur: {total:?}");
}

#[test]
fn seeds_name_the_same_run_for_ever() {
    for seed in 0..20 {
        assert_eq!(simulate::edits(seed, 50), simulate::edits(seed, 50));
        let edits = simulate::edits(seed, 200);
        assert!(edits.iter().any(|edit| edit.kind == EditKind::ChangeConstant));
        let mut models = [simulate::Model::new(seed), simulate::Model::new(seed)];
        for edit in &edits {
            let told = models.each_mut().map(|model| edit.apply(model));
            assert_eq!(told[0], told[1]);
        }
        assert_eq!(format!("{:?}", models[0]), format!("{:?}", models[1]));
    }
}

#[test]
fn generated_programs_run_under_another_linker() {
    let mut answers = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let mut model = simulate::Model::new(seed);
        for edit in simulate::edits(seed, 40) {
            edit.apply(&mut model);
        }
        let inputs = simulate::inputs(&model);
        let (status, output) = reference(&inputs);
        // What is right must not be one linker's taste.
        assert_eq!(reference_of(&tools::LLD, &inputs), (status, output.clone()), "seed {seed}");
        assert!(status < 120 && output.len() == 9, "seed {seed} exits with {status}: {output}");
        answers.insert(output);
    }
    assert!(answers.len() > 10, "programs differ: {answers:?}");
}
