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

mod faults;
mod growth;

const SLOT: usize = 16;

/// A process that is being started has what all threads of this one have open. Tests that start one write-lock this,
/// tests that mind read-lock it.
static STARTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

#[derive(Default)]
struct Stub {
    inputs: Vec<Input>,
    prior: Option<Vec<u8>>,
    prior_record: Vec<u8>,
    unusable: bool,
    image: Vec<u8>,
    lent: Option<Box<dyn ImageMemory>>,
    patch: Option<Vec<PatchBytes>>,
    report: Option<FrameReport>,
    library: bool,
    /// Slots in front of those of the inputs.
    filler: usize,
    violation: Option<&'static str>,
    /// Part of the state that the image does not depend on.
    remark: String,
}

impl Stub {
    fn record(&self) -> Vec<u8> {
        [&self.image[self.filler * SLOT..], self.remark.as_bytes()].concat()
    }
}

impl Session for Stub {
    fn add_input(&mut self, input: Input) {
        self.inputs.push(input);
    }
    fn makes_program(&self) -> bool {
        !self.library
    }
    fn keeps_state(&self) -> bool {
        true
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
        let filler = self.filler * SLOT;
        let image_of_state = &last.unwrap()[..image.len() - filler];
        assert_eq!(image_of_state, &image[filler..], "a torn pair got as far as the session");
        self.prior = Some(image);
        self.prior_record = last.unwrap().to_vec();
    }
    fn resolve_into(&mut self, lend: Lend<'_>) -> Result<Outcome, LinkError> {
        self.image.resize(self.filler * SLOT, 0x5a);
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
        if outcome != Outcome::Patched {
            self.lent = lend(self.image.len() as u64);
        }
        if let Some(memory) = &mut self.lent {
            assert!(memory.bytes().iter().all(|&byte| byte == 0));
            memory.bytes_mut().copy_from_slice(&self.image);
        }
        self.report = Some(empty_report(outcome));
        Ok(outcome)
    }
    fn release_image(&mut self, bytes: Bytes) {
        assert_eq!(bytes, self.image, "the file has what was written to the memory");
        self.lent = None;
    }
    fn try_patch(&mut self) -> Result<Outcome, Vec<GateReason>> {
        self.resolve_into(&mut |_| None).map_err(|_| Vec::new())
    }
    fn image(&self) -> Cow<'_, [u8]> {
        self.lent.as_ref().map_or(&self.image[..], |memory| memory.bytes()).into()
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
            names_changes: false,
            verify: false,
            trust: StateTrust::Own,
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

    fn inode(&self, name: &str) -> u64 {
        self.path(name).metadata().unwrap().ino()
    }

    fn state_name(&self) -> String {
        self.folder_names().into_iter().find(|name| name.starts_with("state-")).unwrap()
    }

    fn image_name(&self) -> String {
        self.folder_names().into_iter().find(|name| name.starts_with("image-")).unwrap()
    }

    /// One file of each kind is left, and at most one spare one.
    #[track_caller]
    fn assert_tidy(&self) {
        let names = self.folder_names();
        let mut kinds: Vec<&str> = names.iter().map(|name| name.split('-').next().unwrap()).collect();
        kinds.retain(|kind| {
            *kind != "patch" || names.iter().filter(|name| name.starts_with("patch-")).count() > 2
        });
        // A full link that could not write the list of files is none the worse.
        kinds.retain(|kind| !["resolved", "current.new", "command.new"].contains(kind));
        assert_eq!(kinds, ["command", "current", "image", "lock", "log", "state"], "{names:?}");
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

fn text_of(path: &Path) -> String {
    text(&fs::read(path).unwrap())
}

fn text(image: &[u8]) -> String {
    let slot = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    image.chunks(SLOT).map(slot).collect::<Vec<_>>().join(" ")
}

fn last_log(work: &Work) -> serde_json::Value {
    read_log(&SystemIo, &work.path("out"), StateTrust::Own).unwrap().pop().unwrap()
}

#[test]
fn output_and_kept_image_change_places() {
    let _nobody_starts = STARTING.read().unwrap();
    let work = Work::new();
    assert_eq!(work.link().report.outcome, Outcome::Full);
    assert_eq!(work.output(), "one two");
    assert_eq!(work.folder_names(), ["command", "current", "image-1", "lock", "log", "resolved", "state-1"]);
    assert_eq!(work.folder().metadata().unwrap().mode() & 0o777, 0o700);
    let inodes = || [work.inode("out"), work.inode(".relink/out/image-1")];
    let [output, kept] = inodes();
    assert_ne!(output, kept);
    fs::set_permissions(work.path("out"), fs::Permissions::from_mode(0o750)).unwrap();
    work.link(); // Somebody changed the output's mode: it is replaced, and known from then on.

    let [output, kept] = inodes();
    for (number, text) in ["edited", "again", "and again"].into_iter().enumerate() {
        work.edit("b.o", text);
        assert_eq!(work.link().report.outcome, Outcome::Patched);
        assert_eq!(work.output(), format!("one {text}"));
        let expected = if number % 2 == 0 { [kept, output] } else { [output, kept] };
        assert_eq!(inodes(), expected);
        // With the spare ones of marker and patch.
        let patch = |number| format!("patch-{number}");
        let patches = [patch(number + 2), patch(number + 3)];
        let names = ["command", "current", "current.new", "image-1", "lock", "log"].map(str::to_owned);
        let behind = ["resolved", "state-1"].map(str::to_owned);
        assert_eq!(work.folder_names(), [&names[..], &patches, &behind].concat());
        assert_eq!(work.path("out").metadata().unwrap().mode() & 0o7777, 0o750);
    }
    let log = last_log(&work);
    assert_eq!(log["outcome"], "patched");
    assert!(log["total_ns"].as_u64().unwrap() > 0);
}

#[test]
fn nothing_changed_keeps_the_image_and_publishes_again() {
    let work = Work::new();
    work.link();
    let before = work.path("out").metadata().unwrap();
    let counters = work.link().report.counters;
    let after = work.path("out").metadata().unwrap();
    assert_eq!((counters.image_file_bytes, before.ino()), (0, after.ino()));
    assert!(after.modified().unwrap() > before.modified().unwrap(), "who builds by times sees a new output");
    // As cargo does before each link.
    fs::hard_link(work.path("out"), work.path("uplifted")).unwrap();
    fs::remove_file(work.path("out")).unwrap();
    assert_eq!(work.link().report.outcome, Outcome::Patched);
    assert_eq!(work.output(), "one two");
    assert_ne!(work.inode("out"), work.inode("uplifted"));
    for text in ["three", "four", "five"] {
        work.edit("a.o", text);
        work.link();
        assert_eq!(work.output(), format!("{text} two"));
        assert_eq!(text_of(&work.path("uplifted")), "one two");
        work.assert_tidy();
    }
}

#[test]
fn hard_link_taken_at_any_time_keeps_its_bytes() {
    let work = Work::new();
    work.link();
    let mut links = Vec::new();
    for number in 0..6 {
        let held = work.path(&format!("held{number}"));
        fs::hard_link(work.path("out"), &held).unwrap();
        links.push((work.output(), held));
        for text in ["x", "y", "z"] {
            work.edit("a.o", &format!("{text}{number}"));
            work.link();
            assert_eq!(work.output(), format!("{text}{number} two"));
            if number % 2 == 1 && text == "y" {
                // Between the turns of its file.
                let other = work.path(&format!("other{number}"));
                fs::hard_link(work.folder().join(work.image_name()), &other).unwrap();
                links.push((text_of(&other), other));
            }
        }
    }
    for (before, link) in links {
        assert_eq!(text_of(&link), before);
    }
    work.assert_tidy();
}

#[test]
fn output_that_others_changed_is_replaced_and_never_kept() {
    type Change = fn(&Path);
    let changes: [Change; 6] = [
        |out| fs::write(out, b"stripped").unwrap(),
        // In place, of the same size, within the step of the clock.
        |out| fs::write(out, [b'x'; 2 * SLOT]).unwrap(),
        |out| {
            let file = fs::File::options().write(true).open(out).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"?", 1).unwrap();
            file.set_modified(modified).unwrap();
        },
        |out| fs::File::options().write(true).open(out).unwrap().set_len(3).unwrap(),
        |out| {
            fs::copy(out, out.with_extension("new")).unwrap();
            fs::rename(out.with_extension("new"), out).unwrap();
        },
        |out| {
            fs::remove_file(out).unwrap();
            fs::write(out, b"another").unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let work = Work::new();
        work.link();
        work.edit("a.o", "other");
        work.link();
        change(&work.path("out"));
        for text in ["later", "and later", "at last"] {
            work.edit("b.o", text);
            assert_eq!(work.link().report.outcome, Outcome::Patched, "{number}");
            assert_eq!(work.output(), format!("other {text}"), "{number}");
            work.assert_tidy();
        }
    }
}

#[test]
fn kept_image_that_others_wrote_to_means_a_full_link() {
    for patches in [0, 1, 2] {
        let work = Work::new();
        work.link();
        for number in 0..patches {
            work.edit("b.o", &format!("edit {number}"));
            work.link();
        }
        let kept = work.folder().join(work.image_name());
        let file = fs::File::options().write(true).open(kept).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"?", 1).unwrap();
        work.edit("b.o", "later");
        let result = work.link();
        assert_eq!((result.report.outcome, work.output().as_str()), (Outcome::Full, "one later"));
        assert!(result.notes[0].contains("was written to"), "{:?}", result.notes);
        work.edit("b.o", "last");
        assert_eq!(work.link().report.outcome, Outcome::Patched);
    }
}

#[test]
fn shared_library_is_a_new_file_each_time() {
    let work = Work::new();
    let link = || {
        let mut stub = Stub { library: true, ..Stub::default() };
        link_with(&mut stub, work.request(), &SystemIo).unwrap().report
    };
    link();
    let mut held = Vec::new();
    for number in 0..5 {
        held.push((fs::File::open(work.path("out")).unwrap(), work.output()));
        work.edit("a.o", &format!("edit {number}"));
        assert_eq!(link().outcome, Outcome::Patched);
        assert_eq!(work.output(), format!("edit {number} two"));
        for (file, before) in &mut held {
            let mut bytes = vec![0; 2 * SLOT];
            std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
            assert_eq!(&text(&bytes), before, "one that is mapped");
        }
        work.assert_tidy();
    }
}

#[test]
fn output_that_somebody_reads_or_maps_keeps_its_bytes() {
    let work = Work::new();
    work.link();
    let mut held = Vec::new();
    for number in 0..8 {
        let file = fs::File::open(work.path("out")).unwrap();
        let map = (number % 2 == 0).then(|| SystemIo.map(&file, 2 * SLOT).unwrap());
        held.push((map.is_none().then_some(file), map, work.output()));
        work.edit("a.o", &format!("edit {number}"));
        assert_eq!(work.link().report.outcome, Outcome::Patched);
        assert_eq!(work.output(), format!("edit {number} two"));
        for (file, map, before) in &held {
            let read = file.as_ref().map(|file| SystemIo.read_at(file, 0, 2 * SLOT).unwrap());
            let bytes = map.as_deref().or(read.as_deref()).unwrap();
            assert_eq!(&text(bytes), before);
        }
        work.assert_tidy();
    }
}

#[test]
fn symbolic_link_stays_and_what_it_leads_to_takes_turns() {
    let work = Work::new();
    fs::create_dir(work.path("real")).unwrap();
    std::os::unix::fs::symlink("real/program", work.path("out")).unwrap();
    for number in 0..4 {
        work.edit("a.o", &format!("edit {number}"));
        work.link();
        assert_eq!(work.output(), format!("edit {number} two"));
        assert!(work.path("out").symlink_metadata().unwrap().is_symlink());
    }
    assert!(work.path("real/.relink/program/patch-4").exists());
    assert!(!work.path(".relink").exists());
}

#[test]
fn lost_folder_is_made_again() {
    let work = Work::new();
    for text in ["a", "b", "c"] {
        work.edit("a.o", text);
        assert_eq!(work.link().report.outcome, Outcome::Full);
        work.edit("a.o", &text.repeat(2));
        assert_eq!(work.link().report.outcome, Outcome::Patched);
        assert_eq!(work.output(), format!("{} two", text.repeat(2)));
        fs::remove_dir_all(work.path(".relink")).unwrap();
    }
}

#[test]
fn program_that_runs_is_never_written_to() {
    let _nobody_else = STARTING.write().unwrap();
    // A copy of a program that waits stands for the output; each time it is what is kept next.
    let work = Work::new();
    let sleep = fs::read("/bin/sleep").unwrap();
    let mut inputs: Vec<Vec<u8>> = sleep.chunks(SLOT).map(<[u8]>::to_vec).collect();
    inputs.push(b"end".to_vec());
    let link = |inputs: &[Vec<u8>]| {
        let mut request = work.request();
        request.inputs.files.clear();
        request.inputs.inputs = inputs.iter().map(|bytes| Input::bytes("slot", bytes.clone())).collect();
        link_with(&mut Stub::default(), request, &SystemIo).unwrap().report
    };
    link(&inputs);
    let mut running = Vec::new();
    for number in 0..5u8 {
        let child = std::process::Command::new(work.path("out")).arg("60").spawn().unwrap();
        running.push((child, fs::read(work.path("out")).unwrap()));
        *inputs.last_mut().unwrap() = vec![number + 1; SLOT];
        assert_eq!(link(&inputs).outcome, Outcome::Patched);
        assert!(fs::read(work.path("out")).unwrap().ends_with(&[number + 1; SLOT]));
        for (child, before) in &running {
            assert_eq!(&fs::read(format!("/proc/{}/exe", child.id())).unwrap(), before);
        }
    }
    for (mut child, _) in running {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Now nobody is in the way.
    let bytes: Vec<u64> = (10..13)
        .map(|number| {
            *inputs.last_mut().unwrap() = vec![number; SLOT];
            link(&inputs).counters.image_file_bytes
        })
        .collect();
    // Of a range of both patches only the later bytes.
    assert_eq!(bytes[1..], [SLOT as u64; 2]);
}

#[test]
fn patch_of_a_large_image_writes_what_it_changes() {
    let _nobody_starts = STARTING.read().unwrap();
    const SLOTS: usize = 30 << 20 >> 4;
    let work = Work::new();
    let link = |edit: &[u8]| {
        let mut stub = Stub { filler: SLOTS, ..Stub::default() };
        fs::write(work.path("new"), edit).unwrap();
        fs::rename(work.path("new"), work.path("b.o")).unwrap();
        let io = FaultyIo::counting();
        let report = link_with(&mut stub, work.request(), &io).unwrap().report;
        let counted = report.counters.image_file_bytes + report.counters.state_file_bytes;
        let log = 4 << 10; // The line of the log, and the command the first time.
        assert!((counted..=counted + log).contains(&io.bytes_written()), "{counted} {}", io.bytes_written());
        (report.outcome, io.bytes_written())
    };
    let (outcome, bytes) = link(b"first");
    assert_eq!(outcome, Outcome::Full);
    assert!(bytes > 60 << 20);
    for edit in ["second", "third", "fourth"] {
        let (outcome, bytes) = link(edit.as_bytes());
        assert_eq!(outcome, Outcome::Patched);
        assert!(bytes < 8 << 10, "{edit}: {bytes}");
        assert!(fs::read(work.path("out")).unwrap().ends_with(&{
            let mut slot = edit.as_bytes().to_vec();
            slot.resize(SLOT, 0);
            slot
        }));
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
fn folder_of_another_user_is_ignored() {
    let work = Work::new();
    work.link();
    let before = text_of(&work.folder().join("log"));
    work.edit("a.o", "later");
    for (trust, outcome) in [(StateTrust::Own, Outcome::Full), (StateTrust::Any, Outcome::Patched)] {
        let io = FaultyIo::counting().with_owner(12_345);
        let request = HostRequest { trust, ..work.request() };
        let result = link_with(&mut Stub::default(), request, &io).unwrap();
        assert_eq!((result.report.outcome, work.output().as_str()), (outcome, "later two"));
        match trust {
            StateTrust::Own => {
                assert!(result.warnings[0].contains("it belongs to another user"), "{:?}", result.warnings);
                assert_eq!(result.report.warnings, result.warnings);
                assert_eq!(text_of(&work.folder().join("log")), before, "nothing is written there");
            }
            StateTrust::Any => assert_eq!(result.warnings, [""; 0]),
        }
    }
}

#[test]
fn second_linker_waits_for_the_first() {
    let work = Arc::new(Work::new());
    work.link();
    let slot = match publish::locate(&SystemIo, &work.path("out")).unwrap() {
        Target::File(slot) => slot,
        other => panic!("{other:?}"),
    };
    let held = StateFolder::open(&SystemIo, &slot.dir, &slot.name, StateTrust::Own, true).unwrap();
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
    work.assert_tidy();
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
    let stored = open_stored(&SystemIo, &work.path("out"), StateTrust::Own).unwrap();
    assert_eq!((text(&stored.image).as_str(), stored.output_differs), ("one two", None));
    assert_eq!(stored.command.unwrap().args, ["a.o"]);
}

#[test]
fn changed_output_is_noticed_and_replaced() {
    let work = Work::new();
    work.link();
    fs::write(work.path("out"), b"stripped").unwrap();
    let stored = open_stored(&SystemIo, &work.path("out"), StateTrust::Own).unwrap();
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
    let lines = read_log(&SystemIo, &work.path("out"), StateTrust::Own).unwrap();
    assert!((500..600).contains(&lines.len()), "{}", lines.len());
    assert_eq!(lines.last().unwrap()["outcome"], "patched");
    let name = Path::new("none");
    assert!(
        read_log(&SystemIo, name, StateTrust::Own)
            .unwrap_err()
            .to_string()
            .contains("never linked with --incremental")
    );
}

#[test]
fn torn_line_of_the_log_costs_that_line_only() {
    let work = Work::new();
    work.link();
    let log = work.folder().join("log");
    let text = fs::read(&log).unwrap();
    fs::write(&log, &text[..text.len() / 2]).unwrap();
    work.link();
    let lines = read_log(&SystemIo, &work.path("out"), StateTrust::Own).unwrap();
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
