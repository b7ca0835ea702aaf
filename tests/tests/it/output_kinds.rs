//! Where an image goes: devices, links, folders that can't be written, a disk that is full, a process that is killed.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use relink::host::{
    self, Fault, FaultyIo, HostError, HostRequest, HostResult, InputArg, InputName, Io, SearchPath,
    StateTrust,
};
use relink_tests::cc::Opt;
use relink_tests::fixture::{App, Core};
use relink_tests::ld::{self, Workplace};
use relink_tests::program::{self, Inputs, reference};
use relink_tests::tools::{self, Said};
use relink_tests::{read, scratch};

fn inputs(define: Option<&str>) -> Inputs {
    let core = Core::new(Opt::O0);
    define.map_or_else(|| core.clone(), |define| core.edited("table", &[define])).inputs(App::A)
}

/// Links the fixture to an output.
#[track_caller]
fn link_to(place: &Workplace, output: &Path) -> Said {
    let mut command = ld::command();
    place.arguments(&mut command);
    tools::say(command.arg("-o").arg(output))
}

#[test]
fn null_device_stays_a_device() {
    let before = Path::new("/dev/null").metadata().unwrap();
    for flags in [&[][..], &["--incremental"]] {
        let place = Workplace::new(&inputs(None), flags);
        let said = link_to(&place, Path::new("/dev/null"));
        assert_eq!(said.status, 0, "{said}");
        // gcc's own way to ask what a linker can do.
        link_to(&place, Path::new("/dev/stdout")).ok();
    }
    let after = Path::new("/dev/null").metadata().unwrap();
    assert!(after.file_type().is_char_device());
    let identity = |m: &std::fs::Metadata| (m.ino(), m.rdev(), m.mode(), m.uid());
    assert_eq!(identity(&before), identity(&after));
    assert!(!Path::new("/dev/.relink").exists(), "no state beside a device");
}

#[test]
fn device_of_ones_own_stays_one() {
    // A device in a folder of ours: whoever replaces outputs by rename would replace it.
    let dir = scratch();
    let device = dir.path().join("null");
    let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).output().unwrap();
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    if made.status.success() {
        link_to(&place, &device).ok();
        assert!(device.metadata().unwrap().file_type().is_char_device());
    }
    // A pipe needs no rights.
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || read(pipe)
    });
    link_to(&place, &pipe).ok();
    let image = reader.join().unwrap();
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    assert_eq!(program::run(&image).status, reference(&inputs(None)).0);
}

#[test]
fn symlinked_output_keeps_its_link() {
    for flags in [&[][..], &["--incremental"]] {
        let place = Workplace::new(&inputs(None), flags);
        let real = place.path("real");
        symlink("real", place.path("out")).unwrap();
        for define in [None, Some("TBL_GET_EDIT")] {
            place.write(&inputs(define));
            place.link();
            assert!(place.out().symlink_metadata().unwrap().is_symlink());
            assert!(real.symlink_metadata().unwrap().is_file());
            assert_eq!(place.run().status, reference(&inputs(define)).0);
        }
    }
}

#[test]
fn hard_linked_and_running_outputs_keep_their_bytes() {
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    place.link();
    let held = place.path("held");
    std::fs::hard_link(place.out(), &held).unwrap();
    let before = read(&held);
    place.write(&inputs(Some("TBL_GET_EDIT")));
    place.link().assert_outcome("patched");
    assert!(read(&held) == before, "what somebody holds keeps its bytes");
    assert!(read(place.out()) != before);
    // cargo deletes the output before each link.
    std::fs::remove_file(place.out()).unwrap();
    place.write(&inputs(None));
    place.link().assert_outcome("patched");
    assert_eq!(place.run().status, reference(&inputs(None)).0);
}

#[test]
fn permissions_follow_umask_and_the_old_output() {
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 027; exec \"$0\" \"$@\""]).arg(ld::bin_dir().join("ld.relink"));
    place.arguments(&mut command);
    tools::say(&mut command).ok();
    assert_eq!(place.out().metadata().unwrap().mode() & 0o7777, 0o750);
    std::fs::set_permissions(place.out(), std::fs::Permissions::from_mode(0o711)).unwrap();
    place.write(&inputs(Some("TBL_GET_EDIT")));
    place.link().assert_outcome("patched");
    assert_eq!(place.out().metadata().unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn folder_that_cannot_be_written_is_an_error() {
    // Root may write anywhere but into these.
    for output in ["/proc/relink-test-out", "/nowhere/out", "/sys/relink-test-out"] {
        let place = Workplace::new(&inputs(None), &["--incremental"]);
        let said = link_to(&place, Path::new(output));
        assert_eq!(said.status, 1, "{said}");
        assert!(said.stderr.contains(output) && !said.stderr.contains("panicked"), "{said}");
    }
    let place = Workplace::new(&inputs(None), &[]);
    let said = link_to(&place, &place.path("."));
    assert_eq!(said.status, 1, "{said}");
    assert!(said.stderr.contains("directory"), "{said}");
}

#[test]
fn read_only_folder_is_an_error_for_others_than_root() {
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    let closed = place.path("closed");
    std::fs::create_dir(&closed).unwrap();
    // A copy of the linker, since the path to the original may be closed to others.
    let linker = place.path("ld.relink");
    program::save(&read(ld::bin_dir().join("ld.relink")), &linker);
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if root {
        // `setpriv` is in util-linux, which is essential.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&linker);
        command
    } else {
        Command::new(&linker)
    };
    std::fs::set_permissions(place.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    place.arguments(&mut command);
    let said = tools::say(command.args(["--report=/dev/null", "-o"]).arg(closed.join("out")));
    assert_eq!(said.status, 1, "{said}");
    assert!(said.stderr.contains("ermission denied"), "{said}");
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0, "nothing is left behind");
}

/// System calls that change a disk, and those that open what will.
const CALLS: [&str; 20] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "fchmod",
    "fchown",
    "renameat",
    "rename",
    "renameat2",
    "unlinkat",
    "unlink",
    "utimensat",
    "linkat",
    "ioctl",
    "mkdirat",
    "fsync",
    "flock",
];

/// Runs a link under strace, which makes one call fail or kills the process in it.
#[track_caller]
fn link_under(place: &Workplace, inject: &str) -> Said {
    let mut strace = tools::STRACE.command();
    strace
        .args(["-f", "-qq", "-o"])
        .arg(place.path("trace"))
        .args(["-e", &format!("trace={}", CALLS.join(","))]);
    if !inject.is_empty() {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    strace.arg(ld::bin_dir().join("ld.relink"));
    place.arguments(&mut strace);
    tools::say(strace.arg("--threads=1"))
}

/// How often each call occurs in a thread of a link.
#[track_caller]
fn call_counts(place: &Workplace) -> Vec<(&'static str, usize)> {
    link_under(place, "").ok();
    let trace = String::from_utf8(read(place.path("trace"))).unwrap();
    let count = |call: &str| trace.lines().filter(|line| line.contains(&format!(" {call}("))).count();
    CALLS.iter().map(|&call| (call, count(call))).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn full_disk_and_kill_at_any_call_leave_old_or_new_and_the_next_link_patches() {
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    place.link().assert_outcome("full");
    let [old, new] = [None, Some("TBL_GET_EDIT")].map(inputs);
    let [old_answer, new_answer] = [&old, &new].map(|inputs| reference(inputs).0);
    place.write(&new);
    let counts = call_counts(&place);
    assert!(
        counts.iter().any(|(call, _)| call.starts_with("rename")),
        "outputs are renamed into place: {counts:?}"
    );
    place.write(&old);
    place.link().assert_outcome("patched");
    let names = folder_names(&place);
    for (call, count) in counts {
        for fault in ["error=ENOSPC", "error=EIO", "signal=SIGKILL"] {
            for number in 1..=count {
                let what = format!("{call}:{fault}:when={number}");
                place.write(&new);
                let said = link_under(&place, &what);
                let trace = String::from_utf8_lossy(&read(place.path("trace"))).into_owned();
                let hit = trace.lines().rev().find(|line| line.contains("INJECTED")).or(trace.lines().last());
                let hit = hit.unwrap_or_default();
                // What can't be read can't be believed: that may cost a full link.
                let unread = hit.contains("O_RDONLY") && fault != "signal=SIGKILL";
                let what = format!("{what} ({hit})");
                let answer = place.run().status;
                match said.status {
                    0 => assert_eq!(answer, new_answer, "a link that says it is good is good: {what}"),
                    _ => assert!(
                        [old_answer, new_answer].contains(&answer),
                        "{what}: neither old nor new: {said}"
                    ),
                }
                if said.status != 0 && fault != "signal=SIGKILL" {
                    assert!(said.stderr.contains("error:"), "{what}: {said}");
                    assert!(!said.stderr.contains("panicked"), "{what}: {said}");
                }
                for (inputs, answer) in [(&new, new_answer), (&old, old_answer)] {
                    place.write(inputs);
                    let linked = place.link();
                    let good = linked.outcome() == "patched" || unread;
                    assert!(good, "{} after {what}: {:?}", linked.outcome(), linked.report["reasons"]);
                    assert_eq!(place.run().status, answer, "after {what}");
                }
                place.relink(["verify", "out"]).ok();
            }
        }
    }
    // The last killed link may have left a file; those before it were tidied up. (Reports are nobody's to tidy.)
    let new = |name: &String| !names.contains(name) && !name.contains("report.json");
    let left: Vec<_> = folder_names(&place).into_iter().filter(new).collect();
    assert!(left.len() <= 1, "what killed links left is tidied up: {left:?}");
}

fn folder_names(place: &Workplace) -> Vec<String> {
    let mut names = Vec::new();
    for dir in [".", ".relink"] {
        let entries = std::fs::read_dir(place.path(dir)).unwrap();
        names.extend(entries.map(|entry| format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy())));
    }
    names
}

/// A link through `relink::host`.
fn host_link(io: &Arc<FaultyIo>, dir: &Path) -> Result<HostResult, HostError> {
    let shared: Arc<dyn Io> = io.clone();
    let args = ["app_a.o", "libcore.a"]
        .map(|name| InputArg { static_only: true, ..InputArg::new(InputName::File(dir.join(name))) });
    let inputs = host::resolve_inputs(&shared, &SearchPath::default(), &args);
    if !inputs.errors.is_empty() {
        return Err(relink::LinkError::other("inputs can't be read").into());
    }
    let output = dir.join("out");
    let trust = StateTrust::Own;
    let request = HostRequest {
        output,
        inputs,
        names_changes: false,
        incremental: true,
        verify: false,
        trust,
        command: None,
    };
    host::link(program::incremental(), request, &**io)
}

#[test]
fn library_survives_a_fault_at_every_call() {
    const FULL_DISK: i32 = 28;
    let [old, new] = [None, Some("TBL_GET_EDIT")].map(inputs);
    let [old_answer, new_answer] = [&old, &new].map(|inputs| reference(inputs).0);
    for fault in [Fault::Fail(FULL_DISK), Fault::Kill] {
        let dir = scratch();
        let write = |inputs: &Inputs| {
            for (name, bytes) in inputs {
                relink_tests::write(dir.path().join(name), bytes);
            }
        };
        let answer = || tools::run_image(&dir.path().join("out"), &[]).status;
        let good = || host_link(&Arc::new(FaultyIo::counting()), dir.path()).unwrap();
        write(&old);
        good();
        for call in 0.. {
            write(&new);
            let io = Arc::new(FaultyIo::at(call, fault));
            let result = host_link(&io, dir.path());
            let now = answer();
            match &result {
                Ok(_) => assert_eq!(now, new_answer, "{fault:?} at {call}"),
                Err(_) => assert!([old_answer, new_answer].contains(&now), "{fault:?} at {call}"),
            }
            let reached = io.mutations() > call;
            for (inputs, wanted) in [(&new, new_answer), (&old, old_answer)] {
                write(inputs);
                let outcome = good().report.outcome;
                assert_eq!(outcome, relink::Outcome::Patched, "after {fault:?} at {call}");
                assert_eq!(answer(), wanted, "after {fault:?} at {call}");
            }
            if !reached {
                assert!(call > 3, "a publication takes more than {call} calls");
                break;
            }
        }
    }
}

#[test]
fn two_links_of_one_output_at_once() {
    let place = Workplace::new(&inputs(None), &["--incremental"]);
    place.link();
    place.write(&inputs(Some("TBL_GET_EDIT")));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| tools::say(&mut place.command()).ok());
        }
    });
    assert_eq!(place.run().status, reference(&inputs(Some("TBL_GET_EDIT"))).0);
    place.write(&inputs(None));
    place.link().assert_outcome("patched");
    assert_eq!(place.run().status, reference(&inputs(None)).0);
}
