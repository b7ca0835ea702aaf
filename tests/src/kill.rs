//! A real process of `ld.relink` that is killed, or whose call fails, at one of its system calls; and one that may only
//! write so many bytes of a file.
//!
//! strace delivers the kill or the error when the process enters the call, so the points between two calls are all
//! there. What a short write leaves comes from the kernel itself, by a limit on the size of files.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cc::{Cc, Opt};
use crate::fixture::{self, App, Core};
use crate::ld::{self, Workplace};
use crate::program::{self, Inputs};
use crate::tools::{self, Said};

/// What a process is interrupted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A patch of an earlier image.
    Patch,
    /// A patch by which a name and its function come.
    Wide,
    /// A link without state over an image that was linked without state.
    Cold,
    /// A full link because a patch could not be proven right.
    Fallback,
}

impl Scene {
    /// All of them.
    pub const ALL: [Scene; 4] = [Scene::Patch, Scene::Wide, Scene::Cold, Scene::Fallback];
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends as it enters its call of this name, the one of this number from 1.
    Kill(String, usize),
    /// That call fails with an error.
    Error(String, usize, &'static str),
    /// No file may have more than so many bytes; a write that reaches further is cut, the next one fails.
    FileSize(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(call, number) => write!(f, "kill at {call} number {number}"),
            Fault::Error(call, number, error) => write!(f, "{error} of {call} number {number}"),
            Fault::FileSize(bytes) => write!(f, "files of at most {bytes} bytes"),
        }
    }
}

/// Calls that a disk can make fail.
const OF_FILES: [&str; 30] = [
    "open",
    "openat",
    "read",
    "pread64",
    "readv",
    "write",
    "pwrite64",
    "writev",
    "close",
    "stat",
    "fstat",
    "newfstatat",
    "statx",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "ioctl",
    "fchmod",
    "fchown",
    "utimensat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdirat",
    "getdents64",
    "flock",
];
const ERRORS: [&str; 2] = ["EIO", "ENOSPC"];
/// Steps of the limit on the size of files, bytes.
const FILE_SIZE_STEP: u64 = 512;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Points that were tried.
    pub points: usize,
    /// After them the old image, or the new one, was there.
    pub old: usize,
    /// See `old`.
    pub new: usize,
    /// What the next links were.
    pub next: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.points += other.points;
        self.old += other.old;
        self.new += other.new;
        for (outcome, count) in &other.next {
            *self.next.entry(outcome.clone()).or_insert(0) += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} points: {} old, {} new; next links: {:?}", self.points, self.old, self.new, self.next)
    }
}

/// A folder with a program before the link that is interrupted, and the images of before and after.
struct Place {
    scene: Scene,
    place: Workplace,
    inputs: [Inputs; 2],
    images: [Vec<u8>; 2],
    /// The new image as a full link makes it, after an error that costs the patch.
    fallback: Vec<u8>,
    answers: [i32; 2],
}

/// `state.o` with a function, a global name and data more.
fn with_more() -> Vec<u8> {
    let more = "static int calls = 3;\nint state_more(int x);\nint state_more(int x)\n{\n    return x + ++calls;\n}\n";
    let text = format!("{}{more}", fixture::source("state"));
    let include = format!("-I{}", fixture::dir().display());
    Cc::freestanding(Opt::O0).with([include]).text("state.c", &text)
}

impl Place {
    fn new(scene: Scene) -> Place {
        let core = Core::new(Opt::O0);
        let edited = match scene {
            Scene::Patch | Scene::Cold => core.edited("table", &["TBL_GET_EDIT"]),
            Scene::Wide => core.replaced("state", with_more()),
            Scene::Fallback => core.edited("state", &["NEW_GLOBAL"]),
        };
        let inputs = [core.inputs(App::A), edited.inputs(App::A)];
        let answers = inputs.each_ref().map(|inputs| program::reference(inputs).0);
        let gate = if scene == Scene::Wide { "--gate=wide" } else { "--gate=strict" };
        let flags = ["--incremental", "--threads=1", gate];
        let place = Workplace::new(&inputs[0], &flags);
        let fresh = Workplace::new(&inputs[1], &flags);
        fresh.link().assert_outcome("full");
        let fallback = crate::read(fresh.out());
        let mut place = Place { scene, place, inputs, images: Default::default(), fallback, answers };
        place.learn();
        place
    }

    /// Makes both images in the way in which each point makes them.
    fn learn(&mut self) {
        if self.scene == Scene::Cold {
            let place = Workplace::new(&self.inputs[0], &["--threads=1"]);
            place.link();
            self.images[0] = crate::read(place.out());
        } else {
            self.place.link().assert_outcome("full");
        }
        let outcome = match self.scene {
            Scene::Patch | Scene::Wide => "patched",
            Scene::Cold => "full",
            Scene::Fallback => "fell_back_full",
        };
        // The second time all is as it will be each time.
        for _ in 0..2 {
            self.set();
            self.place.link().assert_outcome(outcome);
            self.images[1] = crate::read(self.place.out());
            if self.scene != Scene::Cold {
                self.place.write(&self.inputs[0]);
                self.place.link().assert_outcome(outcome);
                self.images[0] = crate::read(self.place.out());
            }
        }
        assert!(self.images[0] != self.images[1], "the edit shows");
    }

    /// Before the link that is interrupted.
    fn set(&self) {
        if self.scene == Scene::Cold {
            let _ = std::fs::remove_dir_all(self.place.path(".relink"));
            let _ = std::fs::remove_file(self.place.out());
            program::save(&self.images[0], &self.place.out());
        }
        self.place.write(&self.inputs[1]);
    }

    /// The link under strace; only these calls stop.
    fn under_strace(&self, calls: &str, inject: Option<&str>) -> Said {
        let mut strace = tools::STRACE.command();
        strace
            .args(["-f", "-qq", "-o"])
            .arg(self.place.path("trace"))
            .args(["-e", &format!("trace={calls}")]);
        if let Some(inject) = inject {
            strace.args(["-e", &format!("inject={inject}")]);
        }
        strace.arg(ld::bin_dir().join("ld.relink"));
        self.place.arguments(&mut strace);
        tools::say(&mut strace)
    }

    /// All points of this scene.
    fn points(&self) -> Vec<Fault> {
        self.set();
        self.under_strace("all", None).ok();
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in String::from_utf8_lossy(&crate::read(self.place.path("trace"))).lines() {
            // A call that another thread's lines stand in has a second line, `<... read resumed>`.
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                *counts.entry((call.to_owned(), thread.to_owned())).or_insert(0) += 1;
            }
        }
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for ((call, _), count) in counts {
            // strace counts the calls of each thread by themselves.
            let known = most.entry(call).or_insert(0);
            *known = count.max(*known);
        }
        let mut points = Vec::new();
        for (call, count) in most {
            for number in 1..=count {
                points.push(Fault::Kill(call.clone(), number));
                if OF_FILES.contains(&call.as_str()) {
                    points.extend(ERRORS.map(|error| Fault::Error(call.clone(), number, error)));
                }
            }
        }
        let largest = std::fs::read_dir(self.place.path(".relink/out")).into_iter().flatten().flatten();
        let largest = largest.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0);
        points.extend((0..=largest / FILE_SIZE_STEP).map(|step| Fault::FileSize(step * FILE_SIZE_STEP)));
        self.restore();
        points
    }

    /// From the new image back to the old one.
    fn restore(&self) {
        if self.scene != Scene::Cold {
            self.place.write(&self.inputs[0]);
            self.place.link();
        }
    }

    fn interrupt(&self, fault: &Fault) -> Said {
        match fault {
            Fault::Kill(call, number) => {
                self.under_strace(call, Some(&format!("{call}:signal=SIGKILL:when={number}")))
            }
            Fault::Error(call, number, error) => {
                self.under_strace(call, Some(&format!("{call}:error={error}:when={number}")))
            }
            Fault::FileSize(bytes) => {
                // Without its signal the limit is an error of the write.
                let mut shell = Command::new("sh");
                shell.args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\"", &bytes.to_string()]);
                shell.arg(ld::bin_dir().join("ld.relink"));
                self.place.arguments(&mut shell);
                tools::say(&mut shell)
            }
        }
    }

    /// The old image (0) or the new one (1). An error may cost the patch; a kill may not.
    fn which(&self, killed: bool, what: &str) -> usize {
        let image = crate::read(self.place.out());
        match self.images.iter().position(|known| *known == image) {
            Some(which) => which,
            None if !killed && image == self.fallback => 1,
            None => panic!("neither the old image nor the new one: {what}"),
        }
    }

    /// Interrupts one link and judges what is left and what comes after. Also tells whether the place is as it was.
    fn judge(&self, fault: &Fault) -> (Tally, bool) {
        self.set();
        let said = self.interrupt(fault);
        let killed = matches!(fault, Fault::Kill(..));
        let hit = match fault {
            Fault::FileSize(_) => String::new(),
            _ => self.hit(killed),
        };
        let what = format!("{:?}, {fault} ({hit})\n{said}", self.scene);
        let which = self.which(killed, &what);
        assert!(said.status != 0 || which == 1, "a link that says it is good is good: {what}");
        assert_eq!(self.place.run().status, self.answers[which], "{what}");
        if said.status != 0 && !killed && !hit.contains("write(2,") {
            assert!(said.stderr.contains("error"), "a failure is explained: {what}");
            assert!(!said.stderr.contains("panicked"), "{what}");
        }
        let mut tally = Tally { points: 1, ..Tally::default() };
        tally.old += usize::from(which == 0);
        tally.new += usize::from(which == 1);
        // The next link, and one more.
        self.place.write(&self.inputs[1]);
        let next = self.place.link();
        if killed && self.scene == Scene::Patch {
            assert_eq!(next.outcome(), "patched", "the link after a kill: {what}\n{:#}", next.report);
        }
        *tally.next.entry(next.outcome().to_owned()).or_insert(0) += 1;
        assert_eq!(self.which(killed, &what), 1, "the image of the next link: {what}");
        assert_eq!(self.place.run().status, self.answers[1], "after {what}");
        self.place.relink(["verify", "out"]).ok();
        let usual = crate::read(self.place.out()) == self.images[1];
        self.restore();
        if self.scene != Scene::Cold {
            self.place.relink(["verify", "out"]).ok();
            let back = crate::read(self.place.out());
            assert!(!usual || back == self.images[0], "the image of the link back: {what}");
            assert_eq!(self.place.run().status, self.answers[0], "after {what}");
        }
        let known = ["out", ".relink", "report.json", "trace"];
        let stays = |name: &String| {
            known.contains(&name.as_str()) || self.inputs[0].iter().any(|(input, _)| input == name)
        };
        let left: Vec<String> = std::fs::read_dir(self.place.path("."))
            .expect("the folder")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            // A report that was being written is beside its place, and nobody's to tidy.
            .filter(|name| !stays(name) && !name.contains("report.json"))
            .collect();
        assert!(left.is_empty(), "{left:?} is left: {what}");
        (tally, usual)
    }

    /// The line of the call that was hit.
    fn hit(&self, killed: bool) -> String {
        let trace = String::from_utf8_lossy(&crate::read(self.place.path("trace"))).into_owned();
        let injected = trace.lines().rev().find(|line| line.contains("INJECTED"));
        let line =
            injected.or(trace.lines().rev().find(|line| killed && line.contains('('))).unwrap_or_default();
        line.chars().take(200).collect()
    }
}

/// Panics with what is missing, where processes can't be traced.
#[track_caller]
pub fn assert_can_trace() {
    let dir = crate::scratch();
    let mut strace = tools::STRACE.command();
    let said = tools::say(strace.args(["-f", "-qq", "-o"]).arg(dir.path().join("trace")).arg("true"));
    assert!(
        said.status == 0,
        "strace can't trace a process here: the kernel must allow ptrace (in a container: --cap-add=SYS_PTRACE, or a \
         seccomp profile that has it)\n{said}"
    );
    let prlimit = tools::say(tools::PRLIMIT.command().arg("--version"));
    assert!(prlimit.status == 0, "{prlimit}");
}

/// Tries every `every`th point of a scene, from the point `first` on, on so many threads.
///
/// # Errors
/// What was wrong, point by point.
pub fn run(scene: Scene, every: usize, first: usize, threads: usize) -> Result<Tally, String> {
    assert_can_trace();
    let points = Place::new(scene).points();
    let chosen: Vec<&Fault> = points.iter().skip(first).step_by(every).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new((Tally::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut place = Place::new(scene);
                loop {
                    let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let judged = catch_unwind(AssertUnwindSafe(|| place.judge(fault)));
                    let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match judged {
                        Ok((tally, usual)) => {
                            found.0.add(&tally);
                            drop(found);
                            if !usual {
                                place = Place::new(scene);
                            }
                        }
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned();
                            found.1.push(text.unwrap_or_else(|| format!("{fault}: a panic without words")));
                            drop(found);
                            // Whatever it left is not what the next point starts from.
                            place = Place::new(scene);
                        }
                    }
                }
            });
        }
    });
    let (tally, failures) = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    match failures.is_empty() {
        true => Ok(tally),
        false => Err(format!(
            "{scene:?}: {} of {} points failed:\n{}",
            failures.len(),
            chosen.len(),
            failures.join("\n\n")
        )),
    }
}
