//! Inputs that the fuzz targets found or start from, judged again: `fuzz/kept/TARGET/`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use relink::Outcome;
use relink_tests::fuzz::{TARGETS, judge};
use relink_tests::root;

/// All of them together.
const BYTES_MAX: u64 = 300 << 10;

fn kept() -> PathBuf {
    root().join("fuzz/kept")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn kept_inputs_of_all_targets_hold() {
    let mut failed = Vec::new();
    for (target, judge) in TARGETS {
        for path in files(&kept().join(target)) {
            let bytes = relink_tests::read(&path);
            if catch_unwind(AssertUnwindSafe(|| judge(&bytes))).is_err() {
                failed.push(path.display().to_string());
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail:\n{}", failed.join("\n"));
}

#[test]
fn every_target_has_inputs_and_a_program() {
    let folders: Vec<_> = files(&kept()).iter().map(|dir| dir.file_name().unwrap().to_owned()).collect();
    assert_eq!(folders, TARGETS.map(|(name, _)| std::ffi::OsString::from(name)), "a folder for each target");
    let mut bytes = 0;
    for (target, _) in TARGETS {
        let inputs = files(&kept().join(target));
        assert!(inputs.len() > 2, "{target} has {} inputs", inputs.len());
        bytes += inputs.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
        let program = relink_tests::read(root().join(format!("fuzz/fuzz_targets/{target}.rs")));
        assert!(String::from_utf8_lossy(&program).contains(&format!("judge(\"{target}\")")), "{target}");
    }
    assert!(
        bytes < BYTES_MAX,
        "the kept inputs have {bytes} bytes, at most {BYTES_MAX} are for the repository"
    );
}

/// Judges that find nothing in anything would pass all the rest.
#[test]
fn judges_reach_what_they_judge() {
    let state = |edits: &[u8]| catch_unwind(|| judge("state")(edits));
    assert!(state(&[0]).is_ok());
    let line = b"--incremental -static -e first --defsym=x=4 start.o work.o";
    let reached = relink_tests::fuzz::links(line);
    assert_eq!(reached, (true, true), "a good command line is linked and patched");
    assert_eq!(relink_tests::fuzz::links(b"--no-such-option start.o"), (false, false));
    let kept = files(&kept().join("rows"));
    let outcomes = kept.iter().flat_map(|path| relink_tests::fuzz::outcomes(&relink_tests::read(path)));
    let (patched, others) = outcomes.partition::<Vec<_>, _>(|outcome| *outcome == Some(Outcome::Patched));
    assert!(
        patched.len() > others.len(),
        "{} of {} frames patched",
        patched.len(),
        patched.len() + others.len()
    );
}
