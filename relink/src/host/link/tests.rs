//! Publication and state against a session that is a few lines long: its image is its inputs, one per 16 bytes.
//!
//! The session panics if it is ever given a state and an image that do not belong together, so each test here also
//! tests that no failure can produce such a pair.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::super::fault::{Fault, FaultyIo};
use super::super::io::SystemIo;
use super::super::log::read_log;
use super::super::search::{InputArg, InputName, SearchPath, resolve_inputs};
use super::*;

const SLOT: usize = 16;

#[derive(Default)]
struct Stub {
    inputs: Vec<Input>,
    prior: Option<Vec<u8>>,
    prior_record: Vec<u8>,
    unusable: bool,
    image: Vec<u8>,
    patch: Option<Vec<PatchBytes>>,
    report: Option<FrameReport>,
    library: bool,
    violation: Option<&'static str>,
    /// Part of the state that the image does not depend on.
    remark: String,
}

impl Stub {
    fn record(&self) -> Vec<u8> {
        [&self.image, self.remark.as_bytes()].concat()
    }
}

impl Session for Stub {
    fn add_input(&mut self, input: Input) {
        self.inputs.push(input);
    }
    fn makes_program(&self) -> bool {
        !self.library
    }
    fn set_prior_patched(&mut self, state: Bytes, image: Bytes, overlay: &[PatchBytes]) {
        let mut image = image.to_vec();
        for range in overlay {
            image[range.offset as usize..][..range.bytes.len()].copy_from_slice(&range.bytes);
        }
        // The last record counts, as in a state with a log.
        let (mut rest, mut last) = (&state[..], None);
        while let Some((length, behind)) = rest.split_first_chunk() {
            let record;
            (record, rest) = behind.split_at(u32::from_le_bytes(*length) as usize);
            last = Some(record);
        }
        if last.is_some_and(|record| record.starts_with(b"bad")) {
            self.unusable = true;
            return;
        }
        let image_of_state: Vec<u8> = last.unwrap()[..image.len()].to_vec();
        assert_eq!(image_of_state, image, "a torn pair got as far as the session");
        self.prior = Some(image_of_state);
        self.prior_record = last.unwrap().to_vec();
    }
    fn resolve(&mut self) -> Result<Outcome, LinkError> {
        for input in &self.inputs {
            let bytes = input.source.bytes().map_err(|e| LinkError::bad_input(&input.name, e))?;
            if bytes == "undefined" {
                return Err(LinkError::other("undefined symbol: f"));
            }
            let mut slot = bytes.to_vec();
            slot.resize(SLOT, 0);
            self.image.extend(slot);
        }
        let outcome = match &self.prior {
            Some(prior) if prior.len() == self.image.len() => {
                let slots = self.image.chunks(SLOT).enumerate();
                let changed = slots.filter(|(index, slot)| prior.chunks(SLOT).nth(*index) != Some(slot));
                let range = |(index, bytes): (usize, &[u8])| PatchBytes {
                    offset: (index * SLOT) as u64,
                    bytes: bytes.to_vec(),
                };
                self.patch = Some(changed.map(range).collect());
                Outcome::Patched
            }
            Some(_) => Outcome::FellBackFull,
            None if self.unusable => Outcome::FellBackFull,
            None => Outcome::Full,
        };
        self.report = Some(empty_report(outcome));
        Ok(outcome)
    }
    fn image(&self) -> Cow<'_, [u8]> {
        (&self.image).into()
    }
    fn patch(&self) -> Option<&[PatchBytes]> {
        self.patch.as_deref()
    }
    fn serialize_columns(&self, writer: &mut dyn Write) -> io::Result<()> {
        let record = self.record();
        writer.write_all(&(record.len() as u32).to_le_bytes())?;
        writer.write_all(&record)
    }
    fn take_state_log(&mut self) -> Option<Vec<u8>> {
        let mut log = Vec::new();
        if self.record() != self.prior_record {
            self.serialize_columns(&mut log).unwrap();
        }
        Some(log)
    }
    fn report(&self) -> Option<&FrameReport> {
        self.report.as_ref()
    }
    fn verify(&mut self) -> Result<Vec<Violation>, LinkError> {
        Ok(self.violation.iter().map(|&what| Violation { invariant: 5, what: what.to_owned() }).collect())
    }
}

/// A directory with two objects and an output that is not there yet.
struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Work {
        let work = Work(tempfile::tempdir().unwrap());
        work.edit("a.o", "one");
        work.edit("b.o", "two");
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(&self, name: &str, text: &str) {
        // As compilers do it, and never within the step of the clock that makes an identity useless.
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn request(&self) -> HostRequest {
        let names = ["a.o", "b.o"].map(|name| InputArg::new(InputName::File(self.path(name))));
        let system: Arc<dyn Io> = Arc::new(SystemIo);
        HostRequest {
            output: self.path("out"),
            inputs: resolve_inputs(&system, &SearchPath::default(), &names),
            incremental: true,
            verify: false,
            command: Some(Command { args: vec!["a.o".into()], cwd: "/".into() }),
        }
    }

    fn link_by(&self, io: &dyn Io) -> Result<HostResult, HostError> {
        link_with(&mut Stub::default(), self.request(), io)
    }

    fn link(&self) -> HostResult {
        self.link_by(&SystemIo).unwrap()
    }

    fn output(&self) -> String {
        text(&fs::read(self.path("out")).unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.path(".relink/out")
    }

    fn folder_names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn text(image: &[u8]) -> String {
    let slot = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    image.chunks(SLOT).map(slot).collect::<Vec<_>>().join(" ")
}

fn last_log(work: &Work) -> serde_json::Value {
    read_log(&SystemIo, &work.path("out")).unwrap().pop().unwrap()
}

#[test]
fn edit_is_patched_into_our_own_copy() {
    let work = Work::new();
    assert_eq!(work.link().report.outcome, Outcome::Full);
    assert_eq!(work.output(), "one two");
    assert_eq!(work.folder_names(), ["command", "current", "image-1", "lock", "log", "state-1"]);
    assert_eq!(work.folder().metadata().unwrap().mode() & 0o777, 0o700);
    let inodes = [work.path("out"), work.folder().join("image-1")].map(|path| path.metadata().unwrap().ino());
    assert_ne!(inodes[0], inodes[1]);

    work.edit("b.o", "edited");
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "one edited");
    assert_eq!(work.folder_names(), ["command", "current", "image-2", "lock", "log", "state-1"]);
    assert_eq!(work.path("out").metadata().unwrap().mode() & 0o111, 0o111);
    let log = last_log(&work);
    assert_eq!(log["outcome"], "patched");
    assert!(log["total_ns"].as_u64().unwrap() > 0);
}

#[test]
fn nothing_changed_keeps_the_image_and_publishes_again() {
    let work = Work::new();
    work.link();
    // As cargo does before each link.
    fs::hard_link(work.path("out"), work.path("uplifted")).unwrap();
    fs::remove_file(work.path("out")).unwrap();
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "one two");
    assert_eq!(work.folder_names(), ["command", "current", "image-1", "lock", "log", "state-1"]);
    assert_ne!(work.path("out").metadata().unwrap().ino(), work.path("uplifted").metadata().unwrap().ino());
    work.edit("a.o", "three");
    work.link();
    assert_eq!(work.output(), "three two");
    assert_eq!(text(&fs::read(work.path("uplifted")).unwrap()), "one two");
    assert_eq!(work.folder_names(), ["command", "current", "image-2", "lock", "log", "state-1"]);
}

#[test]
fn other_state_of_the_same_image_is_appended_and_long_ones_are_written_anew() {
    let work = Work::new();
    work.link();
    let remarks = ["identities changed".to_owned(), "x".repeat(40 << 10), "y".repeat(40 << 10)];
    let expected = ["state-1", "state-1", "state-2"];
    for (remark, state) in remarks.into_iter().zip(expected) {
        let mut stub = Stub { remark, ..Stub::default() };
        link_with(&mut stub, work.request(), &SystemIo).unwrap();
        assert_eq!(work.folder_names(), ["command", "current", "image-1", "lock", "log", state]);
    }
    work.edit("a.o", "three");
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "three two");
    assert_eq!(work.folder_names(), ["command", "current", "image-3", "lock", "log", "state-2"]);
}

#[test]
fn fault_at_every_call_leaves_old_or_new_and_the_next_link_patches() {
    for fault in [Fault::Fail(28), Fault::Fail(13), Fault::Kill] {
        for index in 0.. {
            let work = Work::new();
            work.link();
            work.edit("b.o", "edited");
            let io = FaultyIo::at(index, fault);
            let result = work.link_by(&io);
            let output = work.output();
            match &result {
                Ok(_) => assert_eq!(output, "one edited", "{fault:?} {index}"),
                Err(_) if fault == Fault::Kill => assert!(output == "one two" || output == "one edited"),
                Err(error) => {
                    assert_eq!(output, "one two", "{fault:?} {index} {error}");
                    assert!(error.to_string().contains(work.0.path().to_str().unwrap()), "{error}");
                }
            }
            let outside = fs::read_dir(work.0.path()).unwrap().count();
            assert_eq!(outside, 4, "{fault:?} {index}: objects, output, state folder, nothing else");

            // The next good frame patches as if nothing had happened, from whichever pair is there.
            work.edit("a.o", "later");
            assert_eq!(work.link().report.outcome, Outcome::Patched, "{fault:?} {index}");
            assert_eq!(work.output(), "later edited", "{fault:?} {index}");
            assert_eq!(work.folder_names().len(), 6, "{fault:?} {index}: {:?}", work.folder_names());
            if io.mutations() <= index {
                assert!(index > 10, "only {index} calls");
                break;
            }
        }
    }
}

#[test]
fn kill_at_every_call_of_the_first_link_leaves_nothing_that_misleads() {
    for index in 0.. {
        let work = Work::new();
        let io = FaultyIo::at(index, Fault::Kill);
        let _ = work.link_by(&io);
        if work.path("out").exists() {
            assert_eq!(work.output(), "one two");
        }
        work.edit("a.o", "later");
        work.link();
        assert_eq!(work.output(), "later two");
        assert_eq!(work.folder_names().len(), 6);
        if io.mutations() <= index {
            break;
        }
    }
}

#[test]
fn full_disk_for_the_state_only_still_gives_the_program() {
    let work = Work::new();
    work.link();
    work.edit("b.o", "edited");
    // Call 0 opens the lock, 1 takes it, 2 opens the state, 3 writes it.
    let result = work.link_by(&FaultyIo::at(3, Fault::Fail(28))).unwrap();
    assert_eq!(work.output(), "one edited");
    let warning = &result.warnings[0];
    assert!(warning.starts_with("nothing kept for the next link: cannot write "), "{warning}");
    assert!(warning.ends_with("No space left on device"), "{warning}");
}

#[test]
fn state_that_cannot_be_trusted_means_a_full_link_and_a_note() {
    type Damage = fn(&Work);
    let damages: [(Damage, &str); 5] = [
        (|work| fs::write(work.folder().join("current"), b"{").unwrap(), "marker is not readable"),
        (|work| fs::write(work.folder().join("state-1"), b"state").unwrap(), "state-1: 5 bytes instead of"),
        (|work| fs::remove_file(work.folder().join("image-1")).unwrap(), "image-1: No such file"),
        (
            |work| replace_in_marker(work, "\"boot\":\"", "\"boot\":\"another "),
            "before the system was started",
        ),
        (|work| replace_in_marker(work, "\"linker\":\"", "\"linker\":\"9."), "written by relink 9."),
    ];
    for (damage, why) in damages {
        let work = Work::new();
        work.link();
        damage(&work);
        work.edit("a.o", "later");
        let result = work.link();
        assert_eq!(result.report.outcome, Outcome::Full, "{why}");
        assert_eq!(work.output(), "later two");
        assert!(result.notes[0].contains(why), "{}", result.notes[0]);
        assert!(last_log(&work)["notes"][0].as_str().unwrap().contains(why));
        work.edit("a.o", "last");
        assert_eq!(work.link().report.outcome, Outcome::Patched);
    }
}

#[test]
fn state_that_the_session_refuses_is_replaced() {
    let work = Work::new();
    work.link();
    let length = fs::metadata(work.folder().join("state-1")).unwrap().len() as usize;
    let bad = [&(length as u32 - 4).to_le_bytes()[..], &b"bad".repeat(length)[..length - 4]].concat();
    fs::write(work.folder().join("state-1"), bad).unwrap();
    assert_eq!(work.link().report.outcome, Outcome::FellBackFull);
    assert_eq!(work.link().report.outcome, Outcome::Patched);
}

fn replace_in_marker(work: &Work, from: &str, to: &str) {
    let path = work.folder().join("current");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn folder_that_others_may_write_to_is_ignored() {
    let work = Work::new();
    work.link();
    fs::set_permissions(work.folder(), fs::Permissions::from_mode(0o770)).unwrap();
    work.edit("a.o", "later");
    let result = work.link();
    assert_eq!((result.report.outcome, work.output().as_str()), (Outcome::Full, "later two"));
    assert!(result.warnings[0].contains("other users may write to it"), "{:?}", result.warnings);

    let work = Work::new();
    fs::create_dir(work.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", work.path(".relink")).unwrap();
    assert!(work.link().warnings[0].starts_with("not incremental"));
    assert_eq!(fs::read_dir(work.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn second_linker_waits_for_the_first() {
    let work = Arc::new(Work::new());
    work.link();
    let slot = match publish::locate(&SystemIo, &work.path("out")).unwrap() {
        Target::File(slot) => slot,
        other => panic!("{other:?}"),
    };
    let held = StateFolder::open(&SystemIo, &slot.dir, &slot.name, true).unwrap();
    let second = std::thread::spawn({
        let work = work.clone();
        move || work.link().report.outcome
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!second.is_finished());
    drop(held);
    assert_eq!(second.join().unwrap(), Outcome::Patched);

    // Many at once end in one of them, whole.
    let links: Vec<_> = (0..8)
        .map(|_| {
            let work = work.clone();
            std::thread::spawn(move || work.link())
        })
        .collect();
    links.into_iter().for_each(|link| drop(link.join().unwrap()));
    assert_eq!(work.output(), "one two");
    assert_eq!(work.folder_names().len(), 6);
}

#[test]
fn failed_link_changes_nothing_but_the_log() {
    let work = Work::new();
    work.link();
    work.edit("a.o", "undefined");
    let error = work.link_by(&SystemIo).unwrap_err();
    assert_eq!(error.to_string(), "undefined symbol: f");
    assert_eq!(work.output(), "one two");
    let log = last_log(&work);
    assert_eq!(
        (log["outcome"].as_str(), log["error"].as_str()),
        (Some("failed"), Some("undefined symbol: f"))
    );
    work.edit("a.o", "good");
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "good two");
}

#[test]
fn violation_is_not_published_and_the_next_link_is_full() {
    let work = Work::new();
    work.link();
    work.edit("a.o", "later");
    let mut stub = Stub { violation: Some("slot 3 overlaps slot 4"), ..Stub::default() };
    let error = link_with(&mut stub, HostRequest { verify: true, ..work.request() }, &SystemIo).unwrap_err();
    assert!(error.to_string().contains("slot 3 overlaps"), "{error}");
    assert_eq!(work.output(), "one two");
    assert_eq!(work.link().report.outcome, Outcome::Full);
}

#[test]
fn image_of_another_length_replaces_all_that_is_kept() {
    let work = Work::new();
    work.link();
    let mut request = work.request();
    request.inputs.inputs.truncate(1);
    link_with(&mut Stub::default(), request, &SystemIo).unwrap();
    assert_eq!(work.output(), "one");
    assert_eq!(work.link().report.outcome, Outcome::FellBackFull);
    assert_eq!(work.output(), "one two");
    let stored = open_stored(&SystemIo, &work.path("out")).unwrap();
    assert_eq!((text(&stored.image).as_str(), stored.output_differs), ("one two", None));
    assert_eq!(stored.command.unwrap().args, ["a.o"]);
}

#[test]
fn changed_output_is_noticed_and_replaced() {
    let work = Work::new();
    work.link();
    fs::write(work.path("out"), b"stripped").unwrap();
    let stored = open_stored(&SystemIo, &work.path("out")).unwrap();
    assert!(stored.output_differs.unwrap().contains("8 bytes, the kept image 32"));
    drop(stored._folder);
    work.link();
    assert_eq!(work.output(), "one two");
}

#[test]
fn long_log_loses_its_older_half() {
    let work = Work::new();
    work.link();
    let log = work.folder().join("log");
    let line = format!("{{\"outcome\":\"full\",\"notes\":[\"{}\"]}}\n", "x".repeat(1000));
    fs::write(&log, line.repeat(1100)).unwrap();
    work.link();
    let lines = read_log(&SystemIo, &work.path("out")).unwrap();
    assert!((500..600).contains(&lines.len()), "{}", lines.len());
    assert_eq!(lines.last().unwrap()["outcome"], "patched");
    let name = Path::new("none");
    assert!(read_log(&SystemIo, name).unwrap_err().to_string().contains("never linked with --incremental"));
}

#[test]
fn torn_line_of_the_log_costs_that_line_only() {
    let work = Work::new();
    work.link();
    let log = work.folder().join("log");
    let text = fs::read(&log).unwrap();
    fs::write(&log, &text[..text.len() / 2]).unwrap();
    work.link();
    let lines = read_log(&SystemIo, &work.path("out")).unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["outcome"], "patched");
}

#[test]
fn output_that_is_no_file_is_not_incremental() {
    let work = Work::new();
    let request = HostRequest { output: "/dev/null".into(), ..work.request() };
    let result = link_with(&mut Stub::default(), request, &SystemIo).unwrap();
    assert_eq!(result.warnings, [""; 0]);
    assert!(!Path::new("/dev/.relink").exists());
}
