//! Outputs and state folders among other users of a machine: programs that run, other accounts, small disks, make.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use relink::host::{self, HostRequest, InputArg, InputName, Io, SearchPath, StateTrust, SystemIo};
use relink_tests::cc::{Cc, Opt};
use relink_tests::fixture::{App, Core};
use relink_tests::ld::{self, Workplace};
use relink_tests::program::{self, Inputs, reference};
use relink_tests::scene::{Scene, Stage};
use relink_tests::tools::{self, Said};
use relink_tests::{read, scratch};

/// Somebody else.
const OTHER: u32 = 65534;

fn inputs(defines: &[&str]) -> Inputs {
    let core = Core::new(Opt::O0);
    if defines.is_empty() { core } else { core.edited("table", defines) }.inputs(App::A)
}

/// The edits that tests go back and forth between.
fn edits() -> [Inputs; 2] {
    [inputs(&["TBL_GET_EDIT"]), inputs(&[])]
}

#[track_caller]
fn assert_right(place: &Workplace, inputs: &Inputs) {
    let said = place.run();
    assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
    place.relink(["verify", "out"]).ok();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Names, owners, modes, sizes and times of all below a folder.
fn listing(dir: &Path) -> Vec<(PathBuf, u32, u32, u64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            found.extend(listing(&path));
        }
        found.push((path, meta.uid(), meta.mode(), meta.len(), meta.mtime_nsec()));
    }
    found.sort();
    found
}

/// A program that says what it is, waits for a line, and says it again.
const PATIENT: &str = r#"
#include <stdio.h>
int own(void);
int main(void)
{
    char line[9];
    printf("%d\n", own());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    printf("%d\n", own());
    return 0;
}
"#;

/// One that was started and waits.
struct Patient {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Patient {
    #[track_caller]
    fn start(program: &Path) -> Patient {
        let mut command = Command::new(program);
        command.current_dir(program.parent().unwrap()).env("LD_LIBRARY_PATH", ".");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => break other.unwrap(),
            }
        };
        let lines = BufReader::new(child.stdout.take().unwrap());
        Patient { child, lines }
    }

    #[track_caller]
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// What it says last.
    #[track_caller]
    fn finish(mut self) -> String {
        writeln!(self.child.stdin.take().unwrap(), "go").unwrap();
        let said = self.says();
        assert!(self.child.wait().unwrap().success());
        said
    }
}

fn patient(value: u32, library: bool) -> Scene {
    let own = format!("int own(void) {{ return {value}; }}\n");
    let scene =
        Scene::new().c("main", "-O0 -fPIE -g", PATIENT).c("own", "-O0 -fPIC -g -ffunction-sections", &own);
    match library {
        true => scene.link("-shared -o libown.so own.o").link("-pie -o main main.o libown.so"),
        false => scene.link("-pie -o main main.o own.o"),
    }
}

/// Edits a program or its library while it runs, and lets each instance finish.
#[track_caller]
fn edit_while_running(library: bool, changes: &str) {
    let (stage, _): (Stage, _) = patient(0, library).incremental();
    let mut running = Vec::new();
    let mut inodes = Vec::new();
    for value in 0..5 {
        if value > 0 {
            let linked = patient(value, library).again(&stage);
            linked.iter().for_each(|linked| linked.assert_outcome("patched"));
            stage.verify(changes);
        }
        let mut started = Patient::start(&stage.path("main"));
        assert_eq!(started.says(), value.to_string());
        running.push(started);
        inodes.push(stage.path(changes).metadata().unwrap().ino());
    }
    let all = inodes.len();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), all, "a file that is running or mapped is never the next output");
    for (value, started) in running.into_iter().enumerate() {
        assert_eq!(started.finish(), value.to_string(), "what runs is what was started");
    }
    // None of them runs any more, so files take turns again.
    for value in 6..9 {
        patient(value, library).again(&stage).iter().for_each(|linked| linked.assert_outcome("patched"));
        let mut started = Patient::start(&stage.path("main"));
        assert_eq!((started.says(), started.finish()), (value.to_string(), value.to_string()));
    }
}

#[test]
fn running_programs_keep_what_they_run() {
    edit_while_running(false, "main");
}

#[test]
fn mapped_libraries_keep_what_is_mapped() {
    edit_while_running(true, "libown.so");
}

/// Standard output is a pipe here, a file there; the image goes into it, and nothing is kept beside it.
#[test]
fn standard_output_takes_the_image() {
    let inputs = inputs(&[]);
    let place = Workplace::new(&inputs, &["--incremental"]);
    let mut command = place.command();
    let piped = command.args(["-o", "/dev/stdout"]).stdout(Stdio::piped()).output().unwrap();
    assert!(piped.status.success());
    let file = place.path("file");
    let to_file = command.stdout(std::fs::File::create(&file).unwrap()).status().unwrap();
    assert!(to_file.success());
    for image in [piped.stdout, read(&file)] {
        let said = program::run(&image);
        assert_eq!((said.status, said.stdout.clone()), reference(&inputs), "{said}");
    }
    assert!(!Path::new("/dev/.relink").exists());
}

#[test]
fn many_links_of_one_output_at_once() {
    const ROUNDS: usize = 12;
    const AT_ONCE: usize = 3;
    let place = Workplace::new(&inputs(&[]), &["--incremental", "--report=/dev/null"]);
    place.link();
    for (round, inputs) in edits().iter().cycle().take(ROUNDS).enumerate() {
        if round % 5 == 4 {
            // All of them find nothing, and make a first link.
            std::fs::remove_dir_all(place.path(".relink")).unwrap();
        }
        place.write(inputs);
        let links: Vec<Said> = std::thread::scope(|scope| {
            let links: Vec<_> =
                (0..AT_ONCE).map(|_| scope.spawn(|| tools::say(&mut place.command()))).collect();
            links.into_iter().map(|link| link.join().unwrap()).collect()
        });
        links.into_iter().for_each(|said| assert_eq!((said.status, &*said.stderr), (0, ""), "{said}"));
        assert_right(&place, inputs);
        let log = String::from_utf8(read(place.path(".relink/out/log"))).unwrap();
        let lines = log.lines().count();
        assert_eq!(
            lines % AT_ONCE,
            usize::from(round < 4),
            "a link has no line, so was made beside the folder: {log}"
        );
    }
}

#[test]
fn two_outputs_of_one_folder_have_a_state_each() {
    let place = Workplace::new(&inputs(&[]), &["--incremental"]);
    let second = |outcome: &str| {
        let mut command = ld::command();
        place.arguments(&mut command);
        tools::say(command.args(["-o", "second"])).ok();
        let report: serde_json::Value = serde_json::from_slice(&read(place.path("report.json"))).unwrap();
        assert_eq!(report["outcome"], outcome);
    };
    place.link().assert_outcome("full");
    second("full");
    for inputs in edits() {
        place.write(&inputs);
        place.link().assert_outcome("patched");
        let first = read(place.out());
        second("patched");
        assert!(read(place.out()) == first, "the link of one output leaves the other alone");
        assert_right(&place, &inputs);
        place.relink(["verify", "second"]).ok();
        let said = tools::run_image(&place.path("second"), &[]);
        assert_eq!((said.status, said.stdout.clone()), reference(&inputs), "{said}");
    }
}

/// Links with a state folder that is somebody else's or may be: right, and nothing of it is used or written.
#[track_caller]
fn refuses(place: &Workplace, why: &str, edited: &Inputs) {
    place.write(edited);
    let before = listing(&place.path(".relink"));
    let linked = place.link();
    linked.assert_outcome("full");
    assert!(linked.said.stderr.contains(why), "{why} is not in {}", linked.said);
    assert!(linked.said.stderr.contains("warning: not incremental: "), "{}", linked.said);
    let warnings = linked.report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|text| text.as_str().unwrap().contains(why)), "{:#}", linked.report);
    assert!(listing(&place.path(".relink")) == before, "{why}: nothing is written there");
    let said = place.run();
    assert_eq!((said.status, said.stdout.clone()), reference(edited), "{said}");
}

/// A place with state that has been patched once.
#[track_caller]
fn linked_place() -> Workplace {
    let place = Workplace::new(&inputs(&["TBL_SUM_GROW=1"]), &["--incremental"]);
    place.link().assert_outcome("full");
    place
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn state_that_others_may_write_to_is_refused() {
    let [get, old] = edits();
    for (folder, mode) in
        [(".relink", 0o770), (".relink", 0o707), (".relink/out", 0o720), (".relink/out", 0o1777)]
    {
        let place = linked_place();
        chmod(&place.path(folder), mode);
        refuses(&place, "other users may write to it", &get);
        // Who knows better says so.
        for (how, inputs) in [(None, &old), (Some("1"), &get)] {
            place.write(inputs);
            let mut command = place.command();
            match how {
                None => command.arg("--trust-state"),
                Some(value) => command.env("RELINK_TRUST_STATE", value),
            };
            let said = tools::say(&mut command).ok();
            assert_eq!(said.stderr, "");
            let report: serde_json::Value = serde_json::from_slice(&read(place.path("report.json"))).unwrap();
            assert_eq!(report["outcome"], "patched", "{folder} {mode:o}");
            // The tools trust what the environment says.
            let verify = |trusted: bool| {
                let mut command = ld::relink();
                let command = command.current_dir(place.path(".")).args(["verify", "out"]);
                tools::say(if trusted { command.env("RELINK_TRUST_STATE", "1") } else { command })
            };
            verify(true).ok();
            assert!(verify(false).stderr.contains("other users may write to it"));
        }
        // As the user mends it: what was linked in the meantime does not matter.
        chmod(&place.path(folder), 0o700);
        place.write(&old);
        place.link().assert_outcome("patched");
        assert_right(&place, &old);
    }
    // A umask that lets the group in opens no folder of ours, and takes nothing away.
    let place = Workplace::new(&old, &["--incremental"]);
    for (inputs, outcome) in [(&old, "full"), (&get, "patched")] {
        place.write(inputs);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 002; exec \"$0\" \"$@\""]).arg(ld::bin_dir().join("ld.relink"));
        place.arguments(&mut command);
        tools::say(&mut command).ok();
        let report: serde_json::Value = serde_json::from_slice(&read(place.path("report.json"))).unwrap();
        assert_eq!(report["outcome"], outcome);
        for folder in [".relink", ".relink/out"] {
            assert_eq!(place.path(folder).metadata().unwrap().mode() & 0o7777, 0o700);
        }
        assert_eq!(place.out().metadata().unwrap().mode() & 0o7777, 0o775);
    }
}

#[test]
fn symbolic_links_and_pipes_in_the_place_of_state_are_not_followed() {
    let [get, old] = edits();
    for folder in [".relink", ".relink/out"] {
        let place = linked_place();
        let elsewhere = place.path("elsewhere");
        std::fs::rename(place.path(folder), &elsewhere).unwrap();
        symlink(&elsewhere, place.path(folder)).unwrap();
        let before = listing(&elsewhere);
        for flags in [&[][..], &["--trust-state"]] {
            place.write(&get);
            let said = tools::say(place.command().args(flags)).ok();
            assert!(said.stderr.contains("not incremental: cannot open state folder"), "{said}");
            assert!(listing(&elsewhere) == before, "{folder}");
            let said = place.run();
            assert_eq!((said.status, said.stdout.clone()), reference(&get), "{said}");
        }
    }
    // Files of the folder: what can't be believed is replaced, what is behind a link is left alone.
    for name in ["current", "state-1", "image-1", "patch-4", "current.new", "patch-3"] {
        for pipe in [false, true] {
            let place = linked_place();
            for inputs in [&get, &old, &get] {
                place.write(inputs);
                place.link().assert_outcome("patched");
            }
            let is_spare = ["current.new", "patch-3"].contains(&name);
            let folder = place.path(".relink/out");
            let elsewhere = place.path("elsewhere");
            std::fs::rename(folder.join(name), &elsewhere).unwrap();
            let bytes = read(&elsewhere);
            match pipe {
                true => assert!(Command::new("mkfifo").arg(folder.join(name)).status().unwrap().success()),
                false => symlink(&elsewhere, folder.join(name)).unwrap(),
            }
            place.write(&old);
            place.link().assert_outcome(if is_spare { "patched" } else { "full" });
            assert!(read(&elsewhere) == bytes, "{name}");
            assert_right(&place, &old);
            let log = place.relink(["log", "out"]).ok().stdout;
            assert_eq!(log.contains("the earlier state can't be used"), !is_spare, "{name}: {log}");
            place.write(&get);
            place.link().assert_outcome("patched");
            assert_right(&place, &get);
        }
    }
}

/// A command that is run by another user.
fn as_other(program: &Path) -> Command {
    let mut command = tools::SETPRIV.command();
    let id = OTHER.to_string();
    command.args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()]);
    command.arg(program);
    command
}

/// Root and somebody else link one output in turns. (Only root can be two users; that an owner is asked for at all is
/// tested everywhere: `host::link::tests::folder_of_another_user_is_ignored`.)
#[test]
fn state_of_another_user_is_refused() {
    let [get, old] = edits();
    let place = linked_place();
    if !is_root() {
        // Nobody but root gives files away: a folder of ours that is in the way is all that there can be.
        chmod(&place.path(".relink"), 0o500);
        place.write(&get);
        place.link().assert_outcome("patched");
        return assert_right(&place, &get);
    }
    for (folder, deep) in [(".relink/out", false), (".relink", false), (".relink", true)] {
        let place = linked_place();
        let mut chown = Command::new("chown");
        if deep {
            chown.arg("-R");
        }
        assert!(chown.arg(OTHER.to_string()).arg(place.path(folder)).status().unwrap().success());
        refuses(&place, "it belongs to another user", &get);
    }
    // The other way round: the other user may write to the folder with the objects and the output, but root's state
    // is none of theirs.
    let linker = place.path("ld.relink");
    program::save(&read(ld::bin_dir().join("ld.relink")), &linker);
    chmod(&place.path("."), 0o777);
    for (inputs, outcome) in [(&get, "full"), (&old, "full")] {
        place.write(inputs);
        let before = listing(&place.path(".relink"));
        let _ = std::fs::remove_file(place.path("report.json"));
        let mut command = as_other(&linker);
        place.arguments(&mut command);
        let said = tools::say(&mut command).ok();
        assert!(said.stderr.contains("not incremental: cannot open state folder"), "{said}");
        let report: serde_json::Value = serde_json::from_slice(&read(place.path("report.json"))).unwrap();
        assert_eq!(report["outcome"], outcome);
        assert!(listing(&place.path(".relink")) == before);
        let said = place.run();
        assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
        assert_eq!(place.out().metadata().unwrap().uid(), OTHER);
    }
    // Root patches on, from its own state; the output keeps the owner that it has by now.
    let _ = std::fs::remove_file(place.path("report.json"));
    place.write(&get);
    place.link().assert_outcome("patched");
    assert_eq!(place.out().metadata().unwrap().uid(), OTHER);
    assert_right(&place, &get);
}

#[test]
fn lost_state_means_a_full_link() {
    let [get, old] = edits();
    let place = linked_place();
    let folder = place.path(".relink/out");
    let names = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    place.write(&get);
    place.link().assert_outcome("patched");
    let kinds =
        ["command", "current", "current.new", "image-", "lock", "log", "patch-", "resolved", "state-"];
    assert!(names().iter().zip(kinds).all(|(name, kind)| name.starts_with(kind)), "{:?}", names());
    for (number, kind) in kinds.iter().enumerate() {
        // Of two patches the one that counts.
        let name =
            names().into_iter().rfind(|name| name == kind || name.starts_with(kind) && kind.ends_with('-'));
        let name = name.unwrap();
        std::fs::remove_file(folder.join(&name)).unwrap();
        let inputs = [&old, &get][number % 2];
        place.write(inputs);
        let needed = !["command", "current.new", "lock", "log", "resolved"].contains(kind);
        place.link().assert_outcome(if needed { "full" } else { "patched" });
        assert_right(&place, inputs);
        // A patch file of its own for the next turn.
        place.write([&get, &old][number % 2]);
        place.link().assert_outcome("patched");
        assert_right(&place, [&get, &old][number % 2]);
    }
    for folder in [".relink/out", ".relink"] {
        std::fs::remove_dir_all(place.path(folder)).unwrap();
        place.link().assert_outcome("full");
        place.write(&get);
        place.link();
        place.write(&old);
        place.link().assert_outcome("patched");
        assert_right(&place, &old);
    }
}

/// A disk of four MiB.
struct Disk(PathBuf);

impl Disk {
    /// None where that is not allowed.
    fn mount(dir: &Path) -> Option<Disk> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs"]).arg(dir);
        (is_root() && tools::say(&mut command).status == 0).then(|| Disk(dir.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A small disk where one can be had, else a limit that the kernel puts on files: either way writes stop in the middle.
#[test]
fn small_disk_keeps_the_old_output() {
    let [get, old] = edits();
    let dir = scratch();
    let disk = Disk::mount(dir.path());
    let mounted = disk.is_some();
    let output = dir.path().join("out");
    let place = Workplace::new(&old, &["--incremental"]);
    // Left to a link, in blocks of 512 bytes; none is no limit.
    let link = |flags: &[&str], blocks: Option<usize>| {
        let limit = blocks.map_or("unlimited".to_owned(), |blocks| blocks.to_string());
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(ld::bin_dir().join("ld.relink"));
        place.arguments(&mut command);
        tools::say(command.args(flags).args(["--report=/dev/null", "-o"]).arg(&output))
    };
    let says = |inputs: &Inputs| {
        let said = tools::run_image(&output, &[]);
        assert_eq!((said.status, said.stdout.clone()), reference(inputs), "{said}");
    };
    link(&[], None).ok();
    says(&old);
    let filler = dir.path().join("filler");
    for (number, inputs) in [&get, &old, &get, &old].into_iter().enumerate() {
        let before = read(&output);
        // From full to just too small for state and two images.
        let room = [0, 64, 300, 700][number] << 10;
        if mounted {
            let mut file = std::fs::File::create(&filler).unwrap();
            while file.write_all(&[0; 512]).is_ok() {}
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(room) & !4095).unwrap();
        }
        place.write(inputs);
        let said = link(&["--incremental"], (!mounted).then_some(room as usize / 512));
        match said.status {
            0 => says(inputs),
            _ => {
                assert!(read(&output) == before, "{said}");
                let why = if mounted { "No space left on device" } else { "File too large" };
                assert!(said.stderr.contains(why) && said.stderr.contains("error: cannot"), "{said}");
            }
        }
        assert!(number > 0 || said.status == 1, "nothing fits where nothing is free: {said}");
        let _ = std::fs::remove_file(&filler);
        let names = |dir: &Path| -> Vec<_> {
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert!(names(dir.path()).iter().all(|name| name == "out" || name == ".relink"), "{said}");
        // Room again: all is well.
        let said = link(&["--incremental"], None).ok();
        assert_eq!(said.stderr, "");
        says(inputs);
        let mut verify = ld::relink();
        tools::say(verify.arg("verify").arg(&output)).ok();
    }
}

/// What a user adds to an output (attributes, access lists, capabilities) belongs to those bytes: the next output has
/// none of it, and no file that had some comes back later. Mode and, for root, owner stay.
#[test]
fn extended_attributes_end_with_the_bytes_they_were_given_to() {
    let place = Workplace::new(&inputs(&[]), &["--incremental"]);
    place.link();
    let name = "user.relink-test";
    let attributes = || rustix_names(&place.out());
    rustix::fs::setxattr(place.out(), name, b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    assert_eq!(attributes(), [name]);
    let held = std::fs::File::open(place.out()).unwrap();
    for (number, inputs) in edits().iter().cycle().take(6).enumerate() {
        place.write(inputs);
        place.link().assert_outcome("patched");
        assert_eq!(attributes(), [""; 0], "{number}");
        assert_right(&place, inputs);
    }
    let mut value = [0; 8];
    assert_eq!(rustix::fs::fgetxattr(&held, name, &mut value).unwrap(), 5, "the old file has them still");
    // Nor does an unchanged link lose them: it touches no byte.
    rustix::fs::setxattr(place.out(), name, b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    chmod(&place.out(), 0o4751);
    place.write(&inputs(&["TBL_GET_EDIT"]));
    place.link().assert_outcome("patched");
    assert_eq!(place.out().metadata().unwrap().mode() & 0o7777, 0o751, "no bits that give rights");
}

fn rustix_names(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| name.starts_with("user."))
        .collect()
}

/// make goes by times: after a link that says it is good, nothing is older than what it was made of.
#[test]
fn make_finds_nothing_to_do_after_a_link() {
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let unit = |value: u32| {
        Cc::new(["-O0", "-g", "-ffunction-sections"])
            .text("own.c", &format!("int own(void) {{ return {value}; }}\n"))
    };
    relink_tests::write(
        path("main.o"),
        Cc::new(["-O0", "-g"]).text("main.c", "int own(void);\nint main(void) { return own(); }\n"),
    );
    relink_tests::write(path("own.o"), unit(1));
    let rule = format!("gcc -B{}/ -o main main.o own.o", ld::gcc_prefix().display());
    relink_tests::write(path("Makefile"), format!("main: main.o own.o\n\t{rule}\n"));
    let make = |question: bool| {
        let mut command = tools::MAKE.command();
        command.current_dir(dir.path()).env("RELINK_INCREMENTAL", "1").env("RELINK_REPORT", path("report"));
        command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        tools::say(if question { command.arg("-q") } else { &mut command })
    };
    let outcome = || {
        let report: serde_json::Value = serde_json::from_slice(&read(path("report"))).unwrap();
        let written = report["counters"]["bytes_written"].as_u64().unwrap();
        (report["outcome"].as_str().unwrap().to_owned(), written > 0)
    };
    let status = || tools::run_image(&path("main"), &[]).status;
    #[track_caller]
    fn expect(said: Said, status: i32) {
        assert_eq!(said.status, status, "{said}");
    }
    expect(make(false), 0);
    assert_eq!((outcome().0.as_str(), status()), ("full", 1));
    expect(make(true), 0);
    for (value, edited) in [(2, true), (2, false), (3, true), (3, false), (3, false)] {
        // Time stamps advance in steps of the clock.
        std::thread::sleep(Duration::from_millis(30));
        relink_tests::write(path("own.o"), unit(value));
        expect(make(true), 1);
        expect(make(false), 0);
        assert_eq!((outcome(), status()), (("patched".to_owned(), edited), value as i32));
        expect(make(true), 0);
        let said = make(false).ok();
        assert!(said.stdout.contains("is up to date"), "{said}");
    }
    // A mode, an attribute or a name more makes nothing newer.
    std::fs::hard_link(path("own.o"), path("name")).unwrap();
    expect(make(true), 0);
}

/// Hundreds of patches: state and log stay within their bounds, and the log is short enough to be replayed each time.
#[test]
fn hundreds_of_patches_keep_the_state_within_its_bounds() {
    const PATCHES: usize = 320;
    const KIB: usize = 1 << 10;
    let dir = scratch();
    let units: Vec<Inputs> =
        (0..8).map(|grown| inputs(&[&*format!("TBL_SUM_GROW={}", grown % 3), GET[grown / 4]])).collect();
    let io: std::sync::Arc<dyn Io> = std::sync::Arc::new(SystemIo);
    let link = |inputs: &Inputs| {
        inputs.iter().for_each(|(name, bytes)| relink_tests::write(dir.path().join(name), bytes));
        let args = inputs.iter().map(|(name, _)| InputArg {
            static_only: true,
            ..InputArg::new(InputName::File(dir.path().join(name)))
        });
        let inputs = host::resolve_inputs(&io, &SearchPath::default(), &args.collect::<Vec<_>>());
        let (output, trust) = (dir.path().join("out"), StateTrust::Own);
        let request = HostRequest {
            output,
            inputs,
            names_changes: false,
            incremental: true,
            verify: false,
            trust,
            command: None,
        };
        host::link(program::incremental(), request, &*io).unwrap().report
    };
    assert_eq!(link(&units[0]).outcome, relink::Outcome::Full);
    let folder = dir.path().join(".relink/out");
    let (mut states, mut records_max, mut falls) = (Vec::new(), 0, 0);
    for number in 1..=PATCHES {
        let report = link(&units[number % units.len()]);
        if report.outcome != relink::Outcome::Patched {
            // What moves leaves holes; a limit of them is a full link now and then.
            let kinds: Vec<_> = report.reasons.iter().map(relink::GateReason::kind).collect();
            assert_eq!(kinds, ["debris-limit"], "{number}");
            falls += 1;
        }
        let marker: serde_json::Value = serde_json::from_slice(&read(folder.join("current"))).unwrap();
        let current = &marker["current"];
        let number_of = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let generation = number_of(&current["state"]["generation"]);
        let state = read(folder.join(format!("state-{generation}")));
        let (base, counted) = (number_of(&current["state_base"]), number_of(&current["state"]["bytes"]));
        assert_eq!(state.len(), counted, "{number}: nothing lies behind what counts");
        assert!(
            counted - base <= (base / 4).max(64 * KIB),
            "{number}: a log of {} behind {base}",
            counted - base
        );
        // Records: magic, length, checksum; then as many bytes.
        let (mut records, mut at) = (0, base);
        while at < counted {
            assert_eq!(&state[at..at + 4], b"rlog", "{number}");
            at += 16 + u32::from_le_bytes(state[at + 4..at + 8].try_into().unwrap()) as usize;
            records += 1;
        }
        records_max = records_max.max(records);
        if states.last() != Some(&generation) {
            states.push(generation);
        }
    }
    // A state costs as much as replaying two MiB; no record is shorter than its head and a count for each column.
    assert!(states.len() > 2 && states.len() < PATCHES / 8, "written anew now and then: {states:?}");
    assert!(records_max <= 213, "{records_max} records are replayed");
    assert!(falls < PATCHES / 8, "{falls} full links");
    let said = tools::run_image(&dir.path().join("out"), &[]);
    let last = &units[PATCHES % units.len()];
    assert_eq!((said.status, said.stdout.clone()), reference(last), "{said}");
    let stored = host::open_stored(&*io, &dir.path().join("out"), StateTrust::Own).unwrap();
    let options = relink::LinkOptions { output_name: String::new(), ..program::incremental() };
    let mut session = relink::LinkSession::new(options).unwrap();
    for (name, bytes) in last {
        session.add_input(relink::Input::bytes(dir.path().join(name).display().to_string(), bytes.clone()));
    }
    session.set_prior_parts(stored.state.clone(), stored.image.clone());
    session.resolve().unwrap();
    assert_eq!(session.verify().unwrap(), []);
}

/// What `relink inspect` says of a state adds up to the file.
#[test]
fn state_is_accounted_for_column_by_column() {
    let [get, old] = edits();
    let place = Workplace::new(&old, &["--incremental"]);
    place.link().assert_outcome("full");
    for records in 0..3 {
        if records > 0 {
            place.write([&old, &get][records as usize % 2]);
            place.link().assert_outcome("patched");
        }
        let state = read(place.path(".relink/out/state-1"));
        let layout = relink::state_layout(&state).unwrap();
        let columns: u64 = layout.columns.iter().map(|column| column.bytes).sum();
        assert_eq!(layout.prefix_bytes + columns + layout.log_bytes, state.len() as u64);
        assert_eq!((layout.log_records, layout.log_bytes > 0), (records, records > 0));
        for column in &layout.columns {
            let rows = u64::from(column.rows) * u64::from(column.row_bytes);
            // A checksum of 8 bytes in 512, what no row fits into, and the end of the last block.
            assert!(rows <= column.bytes && column.bytes <= rows * 8 / 7 + 2 * 512, "{column:?}");
        }
        let said = place.relink(["inspect", "out"]).ok().stdout;
        for column in layout.columns.iter().filter(|column| column.rows > 0) {
            let line = said.lines().find(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.len() > 5 && words[0] == column.name
            });
            let words: Vec<&str> =
                line.unwrap_or_else(|| panic!("{}: {said}", column.name)).split_whitespace().collect();
            let numbers = [u64::from(column.rows), u64::from(column.row_bytes), column.bytes];
            assert_eq!(words[1..4], numbers.map(|number| number.to_string()), "{said}");
        }
        assert!(said.contains(&format!("{records} records")), "{said}");
        let mut damaged = state.clone();
        damaged[60] ^= 1;
        assert!(relink::state_layout(&damaged).unwrap_err().contains("checksum"));
        assert!(relink::state_layout(&state[..state.len() - 1]).unwrap_err().contains("state"));
    }
}

/// The table's other function, as it is and edited.
const GET: [&str; 2] = ["TBL_GET_AS_IT_IS", "TBL_GET_EDIT"];
