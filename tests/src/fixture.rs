//! The acceptance fixture: its units, its edits, its archive.

use std::path::PathBuf;

use crate::cc::{self, Cc, Opt};

/// Units of `libcore.a`, in its order.
pub const CORE: [&str; 5] = ["arith", "table", "state", "weakdef", "optional"];

/// The archive's name on the command line.
pub const ARCHIVE: &str = "libcore.a";

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Uses both functions of the table, the name and the feature level.
    A,
    /// Overlaps with it: the table and the state.
    B,
}

impl App {
    /// Both.
    pub const BOTH: [App; 2] = [App::A, App::B];

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            App::A => "app_a",
            App::B => "app_b",
        }
    }
}

/// Where the sources are.
pub fn dir() -> PathBuf {
    crate::root().join("tests/acceptance/fixture")
}

/// A source as text.
pub fn source(unit: &str) -> String {
    String::from_utf8(crate::read(dir().join(format!("{unit}.c")))).expect("the fixture is ASCII")
}

/// The line (from 1) of the only place in a unit that holds `needle`.
#[track_caller]
pub fn line_of(unit: &str, needle: &str) -> u32 {
    let text = source(unit);
    let mut lines = (1u32..).zip(text.lines()).filter(|(_, line)| line.contains(needle)).map(|(n, _)| n);
    let line = lines.next().unwrap_or_else(|| panic!("{unit}.c has no `{needle}`"));
    assert!(lines.next().is_none(), "{unit}.c has `{needle}` twice");
    line
}

/// One unit as an object; `defines` as `NAME` or `NAME=VALUE`.
#[track_caller]
pub fn unit(opt: Opt, unit: &str, defines: &[&str]) -> Vec<u8> {
    let cc = Cc::freestanding(opt).with(["-Wextra", "-Werror"]);
    crate::read(cc.with(defines.iter().map(|d| format!("-D{d}"))).file(&dir().join(format!("{unit}.c"))))
}

/// The core units of one state of the sources.
#[derive(Clone, Debug)]
pub struct Core {
    opt: Opt,
    members: Vec<(String, Vec<u8>)>,
}

impl Core {
    /// The sources as they are.
    #[track_caller]
    pub fn new(opt: Opt) -> Core {
        let members = CORE.map(|name| (format!("{name}.o"), unit(opt, name, &[])));
        Core { opt, members: members.into() }
    }

    /// The same with one unit compiled again.
    #[track_caller]
    pub fn edited(&self, name: &str, defines: &[&str]) -> Core {
        self.replaced(name, unit(self.opt, name, defines))
    }

    /// The same with the bytes of one member given.
    #[track_caller]
    pub fn replaced(&self, name: &str, bytes: Vec<u8>) -> Core {
        let mut core = self.clone();
        let member = core.members.iter_mut().find(|(member, _)| *member == format!("{name}.o"));
        member.unwrap_or_else(|| panic!("no unit {name}")).1 = bytes;
        core
    }

    /// `libcore.a`.
    #[track_caller]
    pub fn archive(&self) -> Vec<u8> {
        cc::archive(&self.members)
    }

    /// The members.
    pub fn members(&self) -> &[(String, Vec<u8>)] {
        &self.members
    }

    /// The inputs of a program: its object and the archive.
    #[track_caller]
    pub fn inputs(&self, app: App) -> crate::program::Inputs {
        vec![
            (format!("{}.o", app.unit()), unit(self.opt, app.unit(), &[])),
            (ARCHIVE.to_owned(), self.archive()),
        ]
    }
}
