//! Programs with shared libraries of their own: compiled once, linked by `ld.relink` and by the system's linker, each in a
//! folder of its own, run there and compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cc::Cc;
use crate::ld::{self, Linked};
use crate::readers;
use crate::tools::{self, Said, Tool};

/// What is compiled, linked and run.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(Tool, String)>,
    runs: Vec<String>,
    says: Option<String>,
}

/// A folder in which the steps of a scene were done.
#[derive(Debug)]
pub struct Stage {
    dir: tempfile::TempDir,
    /// `--gate` of links with state.
    gate: &'static str,
}

/// What a link with state says of itself.
const REPORT: &str = "report.json";

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// Writes a file, in a folder that may have to be made.
#[track_caller]
fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of ours");
    crate::write(path, bytes);
}

impl Scene {
    /// An empty one.
    pub fn new() -> Scene {
        Scene::default()
    }

    /// `NAME.o` from C; flags are separated by spaces.
    #[must_use]
    pub fn c(self, name: &str, flags: &str, text: &str) -> Scene {
        let bytes = Cc::new(words(flags)).text(&format!("{name}.c"), text);
        self.file(&format!("{name}.o"), bytes)
    }

    /// `NAME.o` from C++.
    #[must_use]
    pub fn cxx(self, name: &str, flags: &str, text: &str) -> Scene {
        let bytes = Cc::cxx(words(flags)).text(&format!("{name}.cpp"), text);
        self.file(&format!("{name}.o"), bytes)
    }

    /// A file as it is.
    #[must_use]
    pub fn file(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Scene {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), bytes.as_ref().to_vec()));
        self
    }

    /// A link by gcc; arguments are separated by spaces.
    #[must_use]
    pub fn link(mut self, args: &str) -> Scene {
        self.links.push((tools::GCC, args.to_owned()));
        self
    }

    /// A link by another driver.
    #[must_use]
    pub fn link_by(mut self, driver: Tool, args: &str) -> Scene {
        self.links.push((driver, args.to_owned()));
        self
    }

    /// A link by g++.
    #[must_use]
    pub fn linkxx(mut self, args: &str) -> Scene {
        self.links.push((tools::GXX, args.to_owned()));
        self
    }

    /// A run: program and arguments. A scene that names none runs `main`.
    #[must_use]
    pub fn run(mut self, command: &str) -> Scene {
        self.runs.push(command.to_owned());
        self
    }

    /// What every run prints, where the system's linker is no measure.
    #[must_use]
    pub fn says(mut self, stdout: &str) -> Scene {
        self.says = Some(stdout.to_owned());
        self
    }

    /// What a run has to do: as the system linker's image does, unless the scene knows better.
    #[track_caller]
    fn wanted(&self, theirs: &Stage, run: &str) -> Said {
        let known = |says: &String| Said {
            command: run.to_owned(),
            status: 0,
            stdout: says.clone(),
            stderr: String::new(),
        };
        let wanted = self.says.as_ref().map_or_else(|| theirs.run(run), known);
        assert!(wanted.status < 124 && !wanted.stdout.is_empty(), "the run shows something: {wanted}");
        wanted
    }

    fn outputs(&self) -> Vec<&str> {
        let output =
            |args: &'_ str| -> Option<usize> { words(args).position(|word| word == "-o").map(|at| at + 1) };
        self.links.iter().filter_map(|(_, args)| words(args).nth(output(args)?)).collect()
    }

    fn stage(&self) -> Stage {
        let stage = Stage { dir: crate::scratch(), gate: "strict" };
        for (name, bytes) in &self.files {
            put(&stage.path(name), bytes);
        }
        stage
    }

    /// All links by one linker.
    #[track_caller]
    pub fn built(&self, prefix: Option<&Path>) -> Stage {
        let stage = self.stage();
        for (driver, args) in &self.links {
            let said = stage.link(driver, prefix, args).ok();
            assert!(!said.stderr.contains("error:") && !said.stderr.contains("panicked"), "{said}");
        }
        stage
    }

    /// Links with `ld.relink` and the system's linker: same behaviour, and readers as content.
    #[track_caller]
    pub fn judge(&self) -> Stage {
        let ours = self.built(Some(ld::gcc_prefix()));
        let theirs = self.built(None);
        let runs = if self.runs.is_empty() { vec!["main".to_owned()] } else { self.runs.clone() };
        for run in &runs {
            let (found, wanted) = (ours.run(run), self.wanted(&theirs, run));
            let key = |said: &Said| (said.status, said.stdout.clone(), said.stderr.clone());
            assert_eq!(key(&found), key(&wanted), "{run}\n{:?}", self.links);
        }
        for output in self.outputs() {
            let measure = readers::kept_complaints(&theirs.path(output));
            readers::assert_no_worse(&ours.path(output), &measure);
        }
        ours
    }

    /// All links but the last, which fails; what it says.
    #[track_caller]
    pub fn refused(&self) -> String {
        let stage = self.stage();
        let (last, others) = self.links.split_last().expect("a link");
        for (driver, args) in others {
            stage.link(driver, Some(ld::gcc_prefix()), args).ok();
        }
        let said = stage.link(&last.0, Some(ld::gcc_prefix()), &last.1);
        assert!(said.status != 0, "the link must fail: {said}");
        assert!(!said.stderr.contains("panicked"), "{said}");
        said.stderr
    }

    /// The last link fails, in a folder that has its state; what it says.
    #[track_caller]
    pub fn refused_again(&self, stage: &Stage) -> String {
        for (name, bytes) in &self.files {
            put(&stage.path(name), bytes);
        }
        let (driver, args) = self.links.last().expect("a link");
        let said = tools::say(&mut stage.relinking(driver, args));
        assert!(said.status != 0, "the link must fail: {said}");
        assert!(!said.stderr.contains("panicked"), "{said}");
        said.stderr
    }

    /// The first link is done with state beside its output; returns the folder and the report.
    #[track_caller]
    pub fn incremental(&self) -> (Stage, Vec<Linked>) {
        let stage = self.stage();
        let linked = self.links.iter().map(|(driver, args)| stage.relink(driver, args)).collect();
        (stage, linked)
    }

    /// The same under the wide gate, for good.
    #[track_caller]
    pub fn incremental_wide(&self) -> (Stage, Vec<Linked>) {
        let mut stage = self.stage();
        stage.gate = "wide";
        let linked = self.links.iter().map(|(driver, args)| stage.relink(driver, args)).collect();
        (stage, linked)
    }

    /// Writes those files that differ, and links again.
    #[track_caller]
    pub fn again(&self, stage: &Stage) -> Vec<Linked> {
        for (name, bytes) in &self.files {
            if std::fs::read(stage.path(name)).ok().as_ref() != Some(bytes) {
                put(&stage.path(name), bytes);
            }
        }
        self.links.iter().map(|(driver, args)| stage.relink(driver, args)).collect()
    }

    /// Links again, judges the links, and compares.
    #[track_caller]
    pub fn compare_after(&self, stage: &Stage, judge: impl FnOnce(&[Linked])) {
        judge(&self.again(stage));
        self.compare(stage);
    }

    /// The program in a folder does what the system's linker makes of the same files, and the oracle finds nothing.
    #[track_caller]
    pub fn compare(&self, stage: &Stage) {
        self.compare_readers(stage, &self.built(None));
    }

    /// The same, but readers may say what they say of a link from scratch.
    #[track_caller]
    pub fn compare_with_scratch(&self, stage: &Stage) {
        self.compare_readers(stage, &self.built(Some(ld::gcc_prefix())));
    }

    /// The same without readers.
    #[track_caller]
    pub fn compare_behaviour(&self, stage: &Stage) {
        let theirs = self.built(None);
        let runs = if self.runs.is_empty() { vec!["main".to_owned()] } else { self.runs.clone() };
        for run in &runs {
            let (found, wanted) = (stage.run(run), self.wanted(&theirs, run));
            assert_eq!((found.status, &found.stdout), (wanted.status, &wanted.stdout), "{run}: {found}");
        }
        self.outputs().into_iter().for_each(|output| stage.verify(output));
    }

    #[track_caller]
    fn compare_readers(&self, stage: &Stage, measured: &Stage) {
        self.compare_behaviour(stage);
        for output in self.outputs() {
            let measure = readers::kept_complaints(&measured.path(output));
            readers::assert_no_worse(&stage.path(output), &measure);
        }
    }
}

impl Stage {
    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn link(&self, driver: &Tool, prefix: Option<&Path>, args: &str) -> Said {
        let mut command = driver.command();
        command.current_dir(self.dir.path());
        command.env_remove("RELINK_INCREMENTAL").env_remove("RELINK_REPORT");
        if let Some(prefix) = prefix {
            command.arg(format!("-B{}/", prefix.display()));
        }
        tools::say(command.args(words(args)))
    }

    fn relinking(&self, driver: &Tool, args: &str) -> Command {
        let mut command = driver.command();
        command.current_dir(self.dir.path()).arg(format!("-B{}/", ld::gcc_prefix().display()));
        command.arg(format!("-Wl,--gate={}", self.gate));
        command.env("RELINK_INCREMENTAL", "1").env("RELINK_REPORT", self.path(REPORT));
        command.args(words(args));
        command
    }

    /// A link with state.
    #[track_caller]
    fn relink(&self, driver: &Tool, args: &str) -> Linked {
        let report = self.path(REPORT);
        let _ = std::fs::remove_file(&report);
        let said = tools::say(&mut self.relinking(driver, args)).ok();
        let report = serde_json::from_slice(&crate::read(report)).unwrap_or(Value::Null);
        Linked { said, report }
    }

    /// Panics unless the oracle finds nothing.
    #[track_caller]
    pub fn verify(&self, output: &str) {
        let mut command = ld::relink();
        tools::say(command.current_dir(self.dir.path()).args(["verify", output])).ok();
    }

    /// Runs a program of the folder with the libraries of the folder; `VAR=value` may stand in front.
    #[track_caller]
    pub fn run(&self, line: &str) -> Said {
        let mut command = Command::new(tools::TIMEOUT.path());
        command.current_dir(self.dir.path()).args(["--kill-after=5", "60"]);
        command.stdin(std::process::Stdio::null());
        command.env("LC_ALL", "C.UTF-8").env("LD_LIBRARY_PATH", ".");
        let mut rest = words(line).peekable();
        while let Some((name, value)) = rest.peek().and_then(|word| word.split_once('=')) {
            command.env(name, value);
            rest.next();
        }
        command.arg(self.dir.path().join(rest.next().expect("a program"))).args(rest);
        tools::say(&mut command)
    }

    /// What readelf says of a file.
    #[track_caller]
    pub fn readelf(&self, flags: &str, name: &str) -> String {
        tools::READELF.run(words(flags).chain(["-W", &*self.path(name).to_string_lossy()])).ok().stdout
    }

    /// Lines of readelf that hold a text.
    #[track_caller]
    pub fn lines(&self, flags: &str, name: &str, what: &str) -> Vec<String> {
        self.readelf(flags, name).lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }
}
