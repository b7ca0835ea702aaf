//! A folder in which gcc links with `ld.relink`, step by step.

use std::path::PathBuf;
use std::process::Command;

use crate::cc::Cc;
use crate::tools::{self, Said, Tool};
use crate::{ld, read, scratch, write};

/// Changes objects in ways that no compiler flag asks for.
const OBJCOPY: Tool = Tool { names: &["objcopy"], package: "binutils" };

/// A folder in which gcc links with `ld.relink`.
#[derive(Debug)]
pub struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "a folder is made, not a value")]
    pub fn new() -> Folder {
        Folder { dir: scratch() }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compiles a text to an object, only if it would be another one: as make does.
    pub fn unit(&self, name: &str, flags: &[&str], text: &str) -> &Folder {
        let object = Cc::new(flags.iter().copied()).text(&format!("{name}.c"), text);
        self.file(&format!("{name}.o"), &object)
    }

    /// Assembles a text.
    pub fn assembled(&self, name: &str, text: &str) -> &Folder {
        write(self.path(&format!("{name}.s")), text);
        let mut gcc = tools::GCC.command();
        gcc.current_dir(self.dir.path()).args(["-c", &format!("{name}.s"), "-o", &format!("{name}.o")]);
        tools::say(&mut gcc).ok();
        self
    }

    /// Writes a file, if it would be another one.
    pub fn file(&self, name: &str, bytes: &[u8]) -> &Folder {
        if std::fs::read(self.path(name)).ok().as_deref() != Some(bytes) {
            write(self.path(name), bytes);
        }
        self
    }

    /// Runs objcopy.
    pub fn objcopy(&self, args: &[&str]) {
        tools::say(OBJCOPY.command().current_dir(self.dir.path()).args(args)).ok();
    }

    /// A command of gcc in the folder.
    pub fn gcc(&self) -> Command {
        let mut gcc = tools::GCC.command();
        gcc.current_dir(self.dir.path());
        gcc
    }

    /// What linking with these arguments of gcc says.
    #[track_caller]
    pub fn try_link(&self, args: &[&str]) -> Said {
        tools::say(self.gcc().arg("-B").arg(ld::gcc_prefix()).args(args))
    }

    /// Links with `ld.relink`.
    #[track_caller]
    pub fn link(&self, args: &[&str]) -> Said {
        self.try_link(args).ok()
    }

    /// The same with the system's linker.
    #[track_caller]
    pub fn link_bfd(&self, args: &[&str]) -> Said {
        tools::say(self.gcc().args(args)).ok()
    }

    /// Links incrementally: outcome and kinds of reasons. The oracle must be content.
    #[track_caller]
    pub fn patch(&self, output: &str, args: &[&str]) -> (String, Vec<String>) {
        self.link(&[args, &["-o", output, "-Wl,--incremental,--report=report.json"]].concat());
        let report: serde_json::Value = serde_json::from_slice(&read(self.path("report.json"))).unwrap();
        tools::say(ld::relink().current_dir(self.dir.path()).args(["verify", output])).ok();
        let reasons = report["reasons"].as_array().unwrap();
        let kinds = reasons.iter().map(|reason| reason["kind"].as_str().unwrap().to_owned());
        (report["outcome"].as_str().unwrap().to_owned(), kinds.collect())
    }

    /// What a program of the folder prints.
    #[track_caller]
    pub fn run(&self, program: &str) -> String {
        tools::run_image(&self.path(program), &[]).ok().stdout
    }

    /// What readelf says of a file of the folder.
    #[track_caller]
    pub fn readelf(&self, flag: &str, image: &str) -> String {
        tools::READELF.run(["-W", flag, &self.path(image).display().to_string()]).ok().stdout
    }
    /// What `ld.relink` says when it is called by itself.
    #[track_caller]
    pub fn ld(&self, args: &[&str]) -> Said {
        tools::say(ld::command().current_dir(self.dir.path()).args(args))
    }

    /// Bytes of a file.
    #[track_caller]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        read(self.path(name))
    }

    /// The error of a link that fails.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        let said = self.try_link(args);
        assert!(said.status != 0 && !said.stderr.contains("panicked"), "{said}");
        said.stderr
    }
}
