//! `ld.relink` and `relink` as programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::program::Inputs;
use crate::tools::{self, Said};

/// The folder with `ld.relink` and `relink`, built from the sources as they are now.
///
/// `cargo test` builds no binaries of other packages, and an old one would be judged in silence; so cargo is asked each
/// time (which costs nothing when nothing changed). `RELINK_BIN_DIR` names a folder to be used as it is.
#[track_caller]
pub fn bin_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("RELINK_BIN_DIR") {
            return dir.into();
        }
        let profile = crate::profile_dir();
        let target = profile.parent().expect("target/<profile>");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(crate::root()).args(["build", "--quiet", "-p", "relink-cli", "--target-dir"]);
        cargo.arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        tools::say(&mut cargo).ok();
        profile.to_owned()
    })
}

/// A command of `ld.relink` that reads nothing from outside.
#[track_caller]
pub fn command() -> Command {
    clean(Command::new(bin_dir().join("ld.relink")))
}

/// A command of `relink`.
#[track_caller]
pub fn relink() -> Command {
    clean(Command::new(bin_dir().join("relink")))
}

fn clean(mut command: Command) -> Command {
    command.stdin(std::process::Stdio::null()).env("LC_ALL", "C.UTF-8");
    for name in ["RELINK_INCREMENTAL", "RELINK_REPORT", "RELINK_TRACE", "RELINK_TRUST_MTIME"] {
        command.env_remove(name);
    }
    command
}

/// A folder with a link `ld` for gcc's `-B`.
#[track_caller]
pub fn gcc_prefix() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| prefix_of(&bin_dir().join("ld.relink"), "ld"))
}

/// A folder of the cache with a link `ld` to a linker.
#[track_caller]
pub(crate) fn prefix_of(linker: &Path, name: &str) -> PathBuf {
    let dir = crate::cache_dir(name);
    let (link, beside) = (dir.join("ld"), dir.join(format!("ld.{}", std::process::id())));
    let _ = std::fs::remove_file(&beside);
    std::os::unix::fs::symlink(linker, &beside).expect("a link in our own folder");
    std::fs::rename(&beside, &link).expect("a link in our own folder");
    dir
}

/// A folder in which one program is linked again and again by `ld.relink`.
#[derive(Debug)]
pub struct Workplace {
    dir: tempfile::TempDir,
    flags: Vec<String>,
    names: Vec<String>,
}

/// What a link said, and its report.
#[derive(Debug)]
pub struct Linked {
    /// Exit status and output.
    pub said: Said,
    /// The `FrameReport`; null if none was written.
    pub report: Value,
}

impl Linked {
    /// `full`, `patched`, `fell_back_full`.
    pub fn outcome(&self) -> &str {
        self.report["outcome"].as_str().unwrap_or("none")
    }

    /// Kinds of the reasons.
    pub fn reasons(&self) -> Vec<&str> {
        let reasons = self.report["reasons"].as_array().map_or(&[][..], Vec::as_slice);
        reasons.iter().filter_map(|reason| reason["kind"].as_str()).collect()
    }

    /// A work counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.report["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {}", self.report))
    }

    /// Panics unless the link was this one.
    #[track_caller]
    pub fn assert_outcome(&self, outcome: &str) {
        assert_eq!(self.outcome(), outcome, "{}\n{:#}", self.said, self.report);
    }
}

impl Workplace {
    /// A folder with inputs, not linked yet; `flags` go before the inputs.
    pub fn new(inputs: &Inputs, flags: &[&str]) -> Workplace {
        let place = Workplace {
            dir: crate::scratch(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            names: inputs.iter().map(|(name, _)| name.clone()).collect(),
        };
        place.write(inputs);
        place
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The output.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes those inputs that differ, as a compiler does.
    pub fn write(&self, inputs: &Inputs) {
        for (name, bytes) in inputs {
            let path = self.path(name);
            if std::fs::read(&path).ok().as_ref() != Some(bytes) {
                crate::write(path, bytes);
            }
        }
    }

    /// The command of a link.
    #[track_caller]
    pub fn command(&self) -> Command {
        let mut command = command();
        self.arguments(&mut command);
        command
    }

    /// Adds folder and arguments of a link to a command that runs `ld.relink` in its own way.
    pub fn arguments(&self, command: &mut Command) {
        command.current_dir(self.dir.path()).args(["-static", "--eh-frame-hdr", "--build-id", "-o", "out"]);
        command.arg("--report=report.json").args(&self.flags).args(&self.names);
    }

    /// Links; the exit status may be anything.
    #[track_caller]
    pub fn try_link(&self) -> Linked {
        let _ = std::fs::remove_file(self.path("report.json"));
        let said = tools::say(&mut self.command());
        let report = std::fs::read(self.path("report.json")).ok();
        let report = report.map_or(Value::Null, |bytes| {
            serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("the report is no JSON: {error}"))
        });
        Linked { said, report }
    }

    /// Links; panics if that fails.
    #[track_caller]
    pub fn link(&self) -> Linked {
        let linked = self.try_link();
        assert!(linked.said.status == 0, "{}", linked.said);
        linked
    }

    /// Runs the output.
    #[track_caller]
    pub fn run(&self) -> Said {
        tools::run_image(&self.out(), &[])
    }

    /// Runs `relink` in the folder.
    #[track_caller]
    pub fn relink<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        tools::say(relink().current_dir(self.dir.path()).args(args))
    }
}
