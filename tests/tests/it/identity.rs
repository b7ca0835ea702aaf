//! What is an edit and what is none: files by their times and contents, libraries that come to be, projects that move.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use relink::host::{
    self, FaultyIo, HostError, HostRequest, HostResult, InputArg, InputName, Io, SearchPath, StateTrust,
};
use relink_tests::cc::{self, Cc, Opt};
use relink_tests::fixture;
use relink_tests::ld::{self, Linked, Workplace};
use relink_tests::program::{self, Inputs, reference};
use relink_tests::scene::Scene;
use relink_tests::tools;
use relink_tests::{read, scratch};

/// The fixture with its units as objects, the table compiled with some definitions.
fn objects(defines: &[&str]) -> Inputs {
    let units = [("app_a", &[][..]), ("arith", &[]), ("table", defines), ("state", &[]), ("weakdef", &[])];
    units.map(|(unit, defines)| (format!("{unit}.o"), fixture::unit(Opt::O0, unit, defines))).into()
}

/// Until a time stamp of now is no proof of being new any more.
fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

#[track_caller]
fn set_modified(path: &Path, time: SystemTime) {
    File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

/// The program does what the same inputs do under another linker, and the oracle finds nothing.
#[track_caller]
fn assert_right(place: &Workplace, inputs: &Inputs) {
    let said = place.run();
    assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
    let said = place.relink(["verify", "out"]).ok();
    assert!(!said.stdout.contains("older than its inputs"), "{said}");
}

/// A place that was linked, and again, so that every input is known by its identity.
#[track_caller]
fn settled(inputs: &Inputs) -> Workplace {
    let place = Workplace::new(inputs, &["--incremental"]);
    settle();
    place.link().assert_outcome("full");
    place.link().assert_outcome("patched");
    assert_right(&place, inputs);
    place
}

#[track_caller]
fn assert_untouched(linked: &Linked) {
    linked.assert_outcome("patched");
    for counter in ["atoms_changed", "bytes_written", "inputs_parsed", "image_file_bytes"] {
        assert_eq!(linked.counter(counter), 0, "{counter}: {:#}", linked.report);
    }
}

#[test]
fn other_contents_with_an_older_time_are_an_edit() {
    let place = settled(&objects(&[]));
    let edited = objects(&["TBL_GET_EDIT"]);
    place.write(&edited);
    set_modified(&place.path("table.o"), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    let linked = place.link();
    linked.assert_outcome("patched");
    assert!(linked.counter("atoms_changed") > 0);
    assert_right(&place, &edited);
}

#[test]
fn touch_is_no_edit() {
    let inputs = objects(&[]);
    let place = settled(&inputs);
    let image = read(place.out());
    for (name, _) in &inputs {
        set_modified(&place.path(name), SystemTime::now());
    }
    assert_untouched(&place.link());
    settle();
    assert_untouched(&place.link());
    assert!(read(place.out()) == image);
    assert_right(&place, &inputs);
}

#[test]
fn other_contents_of_the_same_file_size_and_time_are_an_edit() {
    // Bytes behind an object's last section are nobody's.
    let pad = |mut inputs: Inputs| -> Inputs {
        inputs.iter_mut().for_each(|(_, bytes)| bytes.resize(bytes.len().next_multiple_of(1 << 14), 0));
        inputs
    };
    let [old, new] = [&[][..], &["TBL_GET_EDIT"]].map(|defines| pad(objects(defines)));
    assert!(old != new && old.iter().zip(&new).all(|(old, new)| old.1.len() == new.1.len()));
    let place = settled(&old);
    let table = place.path("table.o");
    for inputs in [&new, &old] {
        let before = (ino(&table), modified(&table));
        place.write(inputs);
        set_modified(&table, before.1);
        assert_eq!((ino(&table), modified(&table)), before, "only the time of the last change is another");
        settle();
        let linked = place.link();
        linked.assert_outcome("patched");
        assert!(linked.counter("atoms_changed") > 0, "the edit is noticed: {:#}", linked.report);
        assert_right(&place, inputs);
    }
    // Another name, another mode: the contents decide.
    std::fs::hard_link(&table, place.path("name")).unwrap();
    assert_untouched(&place.link());
}

/// Who trusts modification times, as make does, has no file read for a new name or mode; and is believed.
#[test]
fn modification_times_are_trusted_on_request() {
    let pad = |mut inputs: Inputs| -> Inputs {
        inputs.iter_mut().for_each(|(_, bytes)| bytes.resize(bytes.len().next_multiple_of(1 << 14), 0));
        inputs
    };
    let [old, new] = [&[][..], &["TBL_GET_EDIT"]].map(|defines| pad(objects(defines)));
    let place = settled(&old);
    let table = place.path("table.o");
    let time = modified(&table);
    let link = |trusts: &dyn Fn(&mut std::process::Command)| {
        let mut command = place.command();
        trusts(&mut command);
        let said = tools::say(&mut command).ok();
        let linked =
            Linked { said, report: serde_json::from_slice(&read(place.path("report.json"))).unwrap() };
        linked.assert_outcome("patched");
        linked.counter("atoms_changed") > 0
    };
    // From here on the time of the last change is not kept.
    assert!(!link(&|command| _ = command.arg("--trust-mtime")));
    place.write(&new);
    set_modified(&table, time);
    // The option, and the variable; without a wait, for the time of the last change proves nothing.
    assert!(!link(&|command| _ = command.arg("--trust-mtime")));
    assert!(!link(&|command| _ = command.env("RELINK_TRUST_MTIME", "1")));
    assert_eq!(place.run().status, reference(&old).0);
    settle();
    assert!(link(&|command| _ = command.env("RELINK_TRUST_MTIME", "0")), "it is looked at again");
    assert_right(&place, &new);
    place.write(&old);
    settle();
    assert!(link(&|command| _ = command.arg("--trust-mtime")), "another time is an edit");
    assert_right(&place, &old);
}

/// Gives each object a name of this session, as rustc does, instead of those of the one before; the names.
fn begin_session(dir: &Path, inputs: &Inputs, session: &str) -> Vec<String> {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".rcgu.o") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let name = |unit: &String| format!("app-1c.{}.{session}.rcgu.o", unit.strip_suffix(".o").unwrap());
    let names: Vec<String> = inputs.iter().map(|(unit, _)| name(unit)).collect();
    for ((unit, _), name) in inputs.iter().zip(&names) {
        std::fs::hard_link(dir.join("cache").join(unit), dir.join(name)).unwrap();
    }
    names
}

#[test]
fn objects_that_get_new_names_are_known_by_their_contents() {
    // More than one thread takes.
    let filler = |number| {
        let text = format!("int filler_{number}(void) {{ return {number}; }}\n");
        (format!("filler_{number}.o"), Cc::new(["-O1"]).text("filler.c", &text))
    };
    let pad = |mut inputs: Inputs| -> Inputs {
        inputs.extend((0..40).map(filler));
        inputs.iter_mut().for_each(|(_, bytes)| bytes.resize(bytes.len().next_multiple_of(1 << 14), 0));
        inputs
    };
    let [old, new] = [&[][..], &["TBL_GET_EDIT"]].map(|defines| pad(objects(defines)));
    let root = scratch();
    let (dir, cache) = (root.path(), root.path().join("cache"));
    std::fs::create_dir(&cache).unwrap();
    old.iter().for_each(|(unit, bytes)| relink_tests::write(cache.join(unit), bytes));
    let link = |session: &str, outcome: &str, inputs: &Inputs| {
        let names = begin_session(dir, inputs, session);
        settle();
        let times = |inputs: &Inputs| -> Vec<(i64, i64)> {
            let unit = |(unit, _): &(String, Vec<u8>)| cache.join(unit).metadata().unwrap();
            use std::os::unix::fs::MetadataExt;
            inputs.iter().map(unit).map(|metadata| (metadata.ctime(), metadata.ctime_nsec())).collect()
        };
        let before = times(inputs);
        let mut command = ld::command();
        command.current_dir(dir).args(["--incremental", "-static", "--build-id", "--eh-frame-hdr"]);
        let said = tools::say(command.args(["--report=report", "-o", "out"]).args(&names)).ok();
        let report = serde_json::from_slice(&read(dir.join("report"))).unwrap();
        let linked = Linked { said, report };
        linked.assert_outcome(outcome);
        assert_eq!(times(inputs) == before, outcome == "patched", "what is kept needs no other link");
        let ran = tools::run_image(&dir.join("out"), &[]);
        assert_eq!((ran.status, ran.stdout.clone()), reference(inputs), "{ran}");
        // Also without the names of this session.
        begin_session(dir, &Inputs::new(), "none");
        tools::say(ld::relink().current_dir(dir).args(["verify", "out"])).ok();
        linked
    };
    link("a", "full", &old);
    for session in ["b", "c"] {
        assert_untouched(&link(session, "patched", &old));
    }
    let table = cache.join("table.o");
    for (session, inputs) in [("d", &new), ("e", &old)] {
        let before = (ino(&table), modified(&table));
        let bytes = &inputs.iter().find(|(unit, _)| unit == "table.o").unwrap().1;
        relink_tests::write(&table, bytes);
        set_modified(&table, before.1);
        assert_eq!((ino(&table), modified(&table)), before, "only the time of the last change is another");
        let linked = link(session, "patched", inputs);
        assert_eq!(linked.counter("inputs_parsed"), 1, "{:#}", linked.report);
        assert!(linked.counter("atoms_changed") > 0, "the edit is noticed: {:#}", linked.report);
    }
}

fn ino(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap())
}

#[test]
fn two_members_of_one_name() {
    let unit = |name: &str, body: &str| {
        let text = format!("int {name}(int x) {{ {body} return x; }}\n");
        Cc::new(["-O0", "-ffunction-sections", "-g"]).text("x.c", &text)
    };
    let archive = |one: &str, two: &str| {
        let dir = scratch();
        for (folder, bytes) in [("1", unit("one", one)), ("2", unit("two", two))] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            relink_tests::write(dir.path().join(folder).join("x.o"), bytes);
        }
        for args in [&["qcD", "lib.a", "1/x.o", "2/x.o"][..], &["sD", "lib.a"]] {
            tools::say(tools::AR.command().current_dir(dir.path()).args(args)).ok();
        }
        read(dir.path().join("lib.a"))
    };
    let main = "#include <stdio.h>\nint one(int), two(int);\n\
                int main(void) { printf(\"%d %d\\n\", one(1), two(2)); return 0; }\n";
    let scene = |one: &str, two: &str| {
        let scene = Scene::new().c("main", "-O0 -g -fPIE", main).file("lib.a", archive(one, two));
        scene.link("-pie -o main main.o lib.a")
    };
    let first = scene("x += 1;", "x += 2;");
    let (stage, _) = first.incremental();
    first.compare(&stage);
    for (one, two) in [("x += 1;", "x += 7;"), ("x += 8;", "x += 7;"), ("x += 9;", "x += 10;")] {
        let edited = scene(one, two);
        edited.again(&stage)[0].assert_outcome("patched");
        edited.compare(&stage);
    }
}

/// A link of the fixture's objects through `relink::host`.
fn host_link(io: FaultyIo, dir: &Path, inputs: &Inputs) -> Result<HostResult, HostError> {
    let io: Arc<dyn Io> = Arc::new(io);
    host::while_inputs_change(|| {
        let file = |(name, _): &(String, Vec<u8>)| InputArg::new(InputName::File(dir.join(name)));
        let args: Vec<InputArg> = inputs.iter().map(file).collect();
        let inputs = host::resolve_inputs(&io, &SearchPath::default(), &args);
        assert!(inputs.errors.is_empty(), "{:?}", inputs.errors);
        let (output, trust) = (dir.join("out"), StateTrust::Own);
        let request = HostRequest {
            output,
            inputs,
            names_changes: false,
            incremental: true,
            verify: false,
            trust,
            command: None,
        };
        host::link(program::incremental(), request, &*io)
    })
}

/// A folder with inputs that were linked through the library.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(inputs: &Inputs) -> Bench {
        let bench = Bench { dir: scratch() };
        bench.write(inputs);
        settle();
        bench.link(FaultyIo::counting(), inputs).unwrap();
        bench
    }

    fn write(&self, inputs: &Inputs) {
        inputs.iter().for_each(|(name, bytes)| relink_tests::write(self.path(name), bytes));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn link(&self, io: FaultyIo, inputs: &Inputs) -> Result<HostResult, HostError> {
        host_link(io, self.dir.path(), inputs)
    }

    #[track_caller]
    fn assert_right(&self, inputs: &Inputs) {
        let said = tools::run_image(&self.path("out"), &[]);
        assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
        // The oracle: a session with the same options and the stored state.
        let stored = host::open_stored(&relink::host::SystemIo, &self.path("out"), StateTrust::Own).unwrap();
        let mut session = relink::LinkSession::new(relink::LinkOptions {
            output_name: "out".to_owned(),
            ..program::incremental()
        })
        .unwrap();
        for (name, bytes) in inputs {
            let name = self.path(name).display().to_string();
            session.add_input(relink::Input::bytes(name, bytes.clone()));
        }
        session.set_prior_parts(stored.state.clone(), stored.image.clone());
        session.resolve().unwrap();
        assert_eq!(session.verify().unwrap(), []);
        assert_eq!(stored.output_differs, None);
    }
}

#[test]
fn input_that_changes_while_it_is_read_is_read_again() {
    for times in [1, 2, usize::MAX] {
        let old = objects(&[]);
        let bench = Bench::new(&old);
        let before = read(bench.path("out"));
        let new = objects(&["TBL_GET_EDIT"]);
        let table = bench.path("table.o");
        // Written to between being opened and being read, so many times.
        relink_tests::write(&table, [&old[2].1[..], &[0]].concat());
        let count = Arc::new(AtomicUsize::new(0));
        let io = FaultyIo::counting().with_meddler({
            let (table, bytes, count) = (table.clone(), new[2].1.clone(), count.clone());
            move |path| {
                let number = if path == table { count.fetch_add(1, Ordering::SeqCst) } else { usize::MAX };
                if number < times {
                    let bytes = [&bytes[..], &vec![0; number % 7]].concat();
                    std::fs::write(path, bytes).unwrap();
                }
            }
        });
        let result = bench.link(io, &old);
        match result {
            Ok(result) => {
                assert!(times < 3, "the last attempt met a change, too");
                assert_eq!(result.report.outcome, relink::Outcome::Patched);
                let mut now = old.clone();
                now[2].1 = read(&table);
                bench.assert_right(&now);
                assert_ne!(read(bench.path("out")), before);
            }
            Err(error) => {
                // Three attempts, and each reads the file for a patch, then for a full link.
                assert_eq!((times, count.load(Ordering::SeqCst)), (usize::MAX, 6), "{error}");
                let text = error.to_string();
                assert!(text.contains("table.o: changed while it was being linked"), "{text}");
                assert!(read(bench.path("out")) == before, "the output is the old one");
                bench.write(&new);
                assert_eq!(
                    bench.link(FaultyIo::counting(), &new).unwrap().report.outcome,
                    relink::Outcome::Patched
                );
                bench.assert_right(&new);
            }
        }
    }
}

#[test]
fn clock_that_goes_back_hides_no_edit() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let (old, new) = (objects(&[]), objects(&["TBL_GET_EDIT"]));
    let bench = Bench::new(&old);
    for (offset, inputs) in [(0, &new), (-HOUR_NS, &old), (-2 * HOUR_NS, &new), (HOUR_NS, &old)] {
        let io = || FaultyIo::counting().with_clock(offset);
        // The objects' times are of a clock that went back as well; then of one that runs ahead of the linker's.
        for shift in [offset, -offset] {
            bench.write(inputs);
            let now = SystemTime::now();
            let shifted = Duration::from_nanos(shift.unsigned_abs());
            let time = if shift < 0 { now - shifted } else { now + shifted };
            inputs.iter().for_each(|(name, _)| set_modified(&bench.path(name), time));
            assert_eq!(bench.link(io(), inputs).unwrap().report.outcome, relink::Outcome::Patched);
            bench.assert_right(inputs);
        }
        settle();
        let report = bench.link(io(), inputs).unwrap().report;
        assert_eq!((report.outcome, report.counters.bytes_written), (relink::Outcome::Patched, 0));
    }
}

/// Every file below a folder: name, inode, time, bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, u64, SystemTime, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => files.extend(contents(&path)),
            false => files.push((path.clone(), ino(&path), modified(&path), read(&path))),
        }
    }
    files.sort();
    files
}

#[test]
fn project_that_was_moved_or_copied_is_patched_where_it_is() {
    let root = scratch();
    let dir = |name: &str| root.path().join(name);
    let units = ["app_a.o", "arith.o", "table.o", "state.o", "weakdef.o"];
    let write = |name: &str, inputs: &Inputs| {
        for (unit, bytes) in inputs {
            let path = dir(name).join(unit);
            if std::fs::read(&path).ok().as_ref() != Some(bytes) {
                // As a compiler that removes its output first: a copy by hard links keeps its object.
                let _ = std::fs::remove_file(&path);
                relink_tests::write(&path, bytes);
            }
        }
    };
    #[track_caller]
    fn link(dir: &Path, units: &[&str], outcome: &str, inputs: &Inputs) {
        let mut command = ld::command();
        command.current_dir(dir).args(["--incremental", "-static", "--build-id", "--eh-frame-hdr"]);
        let said = tools::say(command.args(["--report=report", "-o", "out"]).args(units)).ok();
        let report: serde_json::Value = serde_json::from_slice(&read(dir.join("report"))).unwrap();
        assert_eq!(report["outcome"], outcome, "{said}\n{report:#}");
        let ran = tools::run_image(&dir.join("out"), &[]);
        assert_eq!((ran.status, ran.stdout.clone()), reference(inputs), "{ran}");
        tools::say(ld::relink().current_dir(dir).args(["verify", "out"])).ok();
    }
    let [old, get, sum] = [&[][..], &["TBL_GET_EDIT"], &["TBL_SUM_GROW=1"]].map(objects);
    std::fs::create_dir(dir("first")).unwrap();
    write("first", &old);
    link(&dir("first"), &units, "full", &old);
    write("first", &get);
    link(&dir("first"), &units, "patched", &get);

    std::fs::rename(dir("first"), dir("moved")).unwrap();
    write("moved", &old);
    link(&dir("moved"), &units, "patched", &old);

    for how in ["-a", "-al", "-r"] {
        let copy = format!("copy{how}");
        let copied = Command::new("cp").arg(how).arg(dir("moved")).arg(dir(&copy)).status().unwrap();
        assert!(copied.success());
        let original = contents(&dir("moved"));
        // Of a copy that keeps no times the image may have been written to.
        let outcome = if how == "-r" { "full" } else { "patched" };
        for (number, inputs) in [&get, &sum, &old].into_iter().enumerate() {
            write(&copy, inputs);
            link(&dir(&copy), &units, if number == 0 { outcome } else { "patched" }, inputs);
            let now = contents(&dir("moved"));
            let names = |files: &[(PathBuf, u64, SystemTime, Vec<u8>)]| -> Vec<PathBuf> {
                files.iter().map(|file| file.0.clone()).collect()
            };
            assert_eq!(names(&now), names(&original), "{how}");
            for (before, after) in original.iter().zip(&now) {
                assert!(before == after, "{how}: the copy wrote to {}", after.0.display());
            }
        }
        // Both go on, each with its own state.
        for (inputs, others) in [(&sum, &get), (&get, &old)] {
            write("moved", inputs);
            link(&dir("moved"), &units, "patched", inputs);
            write(&copy, others);
            link(&dir(&copy), &units, "patched", others);
        }
        write("moved", &old);
        link(&dir("moved"), &units, "patched", &old);
    }
}

const CALLER: &str = "#include <stdio.h>\nint own(void);\n\
                      int main(void) { printf(\"%d\\n\", own()); return 0; }\n";

fn own(value: u32) -> Vec<u8> {
    let text = format!("int own(void) {{ return {value}; }}\n");
    Cc::new(["-O1", "-fPIC", "-ffunction-sections"]).text("own.c", &text)
}

#[track_caller]
fn assert_fell_back(scene: &Scene, stage: &relink_tests::scene::Stage, reasons: &[&str]) {
    let linked = scene.again(stage);
    let last = linked.last().unwrap();
    last.assert_outcome("fell_back_full");
    let found = last.reasons();
    assert!(found.iter().any(|reason| reasons.contains(reason)), "{found:?}, not {reasons:?}");
    scene.compare(stage);
    let again = scene.again(stage);
    assert_untouched(again.last().unwrap());
}

#[test]
fn library_that_appears_in_an_earlier_directory_is_noticed() {
    let archive = |members: &[(&str, u32)]| {
        let members: Vec<_> = members.iter().map(|&(name, value)| (name, own(value))).collect();
        cc::archive(&members)
    };
    let scene = |link: &str| {
        let scene = Scene::new().c("main", "-O1 -fPIE", CALLER).file("own.o", own(3));
        scene.file("one/.keep", "").file("two/libown.a", archive(&[("own.o", 1)])).link(link)
    };
    let link = "-pie -o main main.o -Lone -Ltwo -lown -Wl,-rpath,$ORIGIN/one";
    let first = scene(link);
    let (stage, _) = first.incremental();
    first.compare(&stage);
    // An archive of the same members and other contents; the earlier directory has it from now on.
    let second = first.clone().file("one/libown.a", archive(&[("own.o", 2)]));
    second.again(&stage)[0].assert_outcome("patched");
    second.compare(&stage);
    // One of other members.
    let third = second.clone().file("one/libown.a", archive(&[("rest.o", 5)]));
    assert_fell_back(&third, &stage, &["archive-changed"]);
    // A shared library beside it, which comes first.
    let shared = {
        let maker = Scene::new().file("own.o", own(3)).link("-shared -o libown.so own.o");
        read(maker.built(None).path("libown.so"))
    };
    let fourth = third.clone().file("one/libown.so", &shared);
    assert_fell_back(&fourth, &stage, &["input-set-changed", "options-changed"]);
    assert_eq!(stage.run("main").stdout, "3\n");
    // And away again.
    std::fs::remove_file(stage.path("one/libown.so")).unwrap();
    std::fs::remove_file(stage.path("one/libown.a")).unwrap();
    assert_fell_back(&first, &stage, &["input-set-changed", "archive-changed", "options-changed"]);
    assert_eq!(stage.run("main").stdout, "1\n");
}

#[test]
fn shared_library_that_appears_in_an_earlier_directory_is_noticed() {
    let shared = |value: u32, more: &str| {
        let text = format!("int own(void) {{ return {value}; }}\n{more}");
        let maker = Scene::new().c("own", "-O1 -fPIC", &text).link("-shared -o libown.so own.o");
        read(maker.built(None).path("libown.so"))
    };
    let first = Scene::new()
        .c("main", "-O1 -fPIE", CALLER)
        .file("one/.keep", "")
        .file("two/libown.so", shared(1, ""))
        .link("-pie -o main main.o -Lone -Ltwo -lown -Wl,-rpath,$ORIGIN/one:$ORIGIN/two");
    let (stage, _) = first.incremental();
    first.compare(&stage);
    // What it offers is the same, so the program stays as it is; the loader finds the new one.
    let second = first.clone().file("one/libown.so", shared(2, ""));
    second.again(&stage)[0].assert_outcome("patched");
    second.compare(&stage);
    let third = second.clone().file("one/libown.so", shared(3, "int more(void) { return 0; }\n"));
    assert_fell_back(&third, &stage, &["shared-library-changed"]);
}

#[test]
fn library_without_a_name_is_needed_as_the_command_line_writes_it() {
    let shared = {
        let maker = Scene::new().file("own.o", own(3)).link("-shared -o libown.so own.o");
        read(maker.built(None).path("libown.so"))
    };
    let scene = |words: &str| {
        let scene = Scene::new().c("main", "-O1 -fPIE", CALLER).file("libown.so", &shared);
        scene.file("sub/libown.so", &shared).link(&format!("-pie -o main main.o {words}"))
    };
    let (stage, _) = scene("libown.so").incremental();
    let needed = |name: &str| {
        let lines = stage.lines("-d", "main", "(NEEDED)");
        assert!(lines[0].contains(&format!("[{name}]")), "{name} is not in {lines:?}");
    };
    needed("libown.so");
    for words in ["./libown.so", "sub/libown.so", "sub/../libown.so"] {
        // The same file, or the same bytes; what the output says of it differs.
        assert_fell_back(&scene(words), &stage, &["input-set-changed"]);
        needed(words);
    }
}

#[test]
fn thin_archives_are_looked_into() {
    let members =
        |value: u32| [("own.o", own(value)), ("rest.o", Cc::new(["-O1"]).text("r.c", "int rest;\n"))];
    let scene = |value: u32| {
        let mut scene = Scene::new().c("main", "-O1 -fPIE", CALLER);
        for (name, bytes) in members(value) {
            scene = scene.file(name, bytes);
        }
        scene.link("-pie -o main main.o thin.a")
    };
    let thin = |letters: &str, names: &[(&str, Vec<u8>)]| cc::archive_with(letters, names);
    let first = scene(1).file("thin.a", thin("rcsTD", &members(1)));
    let (stage, _) = first.incremental();
    assert!(read(stage.path("thin.a")).starts_with(b"!<thin>"));
    settle();
    first.compare(&stage);
    assert_untouched(&first.again(&stage)[0]);
    // The archive itself is the same file with the same bytes, size and time.
    let second = scene(2).file("thin.a", read(stage.path("thin.a")));
    second.again(&stage)[0].assert_outcome("patched");
    second.compare(&stage);
    let third = scene(2).file("thin.a", thin("rcsTD", &members(2)[..1]));
    assert_fell_back(&third, &stage, &["archive-changed"]);
}

#[test]
fn texts_that_name_inputs_or_symbols_are_read_each_time() {
    let unit = |value| own(value);
    let base = || Scene::new().c("main", "-O1 -fPIE", CALLER).file("a.o", unit(1)).file("b.o", unit(2));
    let groups = |name: &str, value| cc::archive(&[(format!("{name}.o"), own(value))]);
    // INPUT and GROUP of other files.
    let input = |text: &str| {
        let scene =
            base().file("libs.so", text).file("one.a", groups("one", 4)).file("two.a", groups("two", 5));
        scene.link("-pie -o main main.o libs.so")
    };
    let first = input("INPUT(a.o)\n");
    let (stage, _) = first.incremental();
    first.compare(&stage);
    let second = input("INPUT(b.o)\n");
    // Another object in the place of the first: what is in it decides.
    second.again(&stage)[0].assert_outcome("patched");
    second.compare(&stage);
    assert_fell_back(&input("GROUP(one.a)\n"), &stage, &["input-set-changed"]);
    assert_fell_back(&input("GROUP(two.a one.a)\n"), &stage, &["input-set-changed", "archive-changed"]);
    assert_fell_back(&input("INPUT(a.o two.a)\n"), &stage, &["input-set-changed", "archive-changed"]);

    // Version scripts and dynamic lists decide what is exported.
    let library = |version: &str, list: &str| {
        Scene::new()
            .c("main", "-O1 -fPIE", CALLER)
            .file("lib.o", unit(3))
            .file("version", version)
            .file("list", list)
            .link("-shared -o libown.so lib.o -Wl,--version-script=version")
            .link("-pie -o main main.o libown.so -Wl,--dynamic-list=list")
    };
    let first = library("V1 { global: own; local: *; };", "{ own; };");
    let (stage, _) = first.incremental();
    first.compare(&stage);
    let linked = library("V2 { global: own; local: *; };", "{ own; };").again(&stage);
    linked[0].assert_outcome("fell_back_full");
    assert_eq!(linked[0].reasons(), ["options-changed"]);
    linked[1].assert_outcome("fell_back_full");
    assert_eq!(linked[1].reasons(), ["shared-library-changed"]);
    let third = library("V2 { global: own; local: *; };", "{ main; };");
    third.compare_after(&stage, |linked| {
        linked[0].assert_outcome("patched");
        linked[1].assert_outcome("fell_back_full");
        assert_eq!(linked[1].reasons(), ["options-changed"]);
    });
    assert_eq!(stage.lines("--dyn-syms", "main", " main").len(), 1, "main is exported by now");
}
