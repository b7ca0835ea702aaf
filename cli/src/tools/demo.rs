//! `relink demo`: the main job in four steps. Two programs are linked, a function of both is edited in place, another
//! outgrows its place, and a change that can't be proven local makes full links, which say why.
//!
//! The programs are those of the acceptance tests. They are compiled here if there is a C compiler; else the objects
//! that `cli/prebuilt/make.sh` made of the same sources are used.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use relink::host::{
    self, HostRequest, HostResult, InputArg, InputName, Io, SearchPath, StateTrust, SystemIo,
};
use relink::{BuildId, IncrementalOptions, LinkOptions, LinkSession, Outcome};

use super::{ToolResult, duration, log, size};
use crate::console;

macro_rules! fixture {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../tests/acceptance/fixture/", $name)))),*]
    };
}

macro_rules! prebuilt {
    ($($name:literal)*) => { &[$(($name, include_bytes!(concat!("../../prebuilt/", $name)))),*] };
}

const SOURCES: &[(&str, &str)] =
    fixture!("fixture.h" "app_a.c" "app_b.c" "arith.c" "table.c" "state.c" "weakdef.c");
const PROGRAMS: [&str; 2] = ["app_a", "app_b"];
/// What both programs share.
const CORE: [&str; 4] = ["arith", "table", "state", "weakdef"];
const PREBUILT: &[(&str, &[u8])] = prebuilt!(
    "app_a.o" "app_b.o" "arith.o" "table.o" "state.o" "weakdef.o"
    "table-TBL_GET_EDIT.o" "table-TBL_SUM_GROW=1.o" "state-NEW_GLOBAL.o"
);
/// Those of the acceptance fixture.
const FLAGS: [&str; 6] =
    ["-ffreestanding", "-fno-stack-protector", "-ffunction-sections", "-fdata-sections", "-g", "-O0"];

/// An edit: a unit, compiled with definitions that switch on other text in it.
struct Edit {
    title: &'static str,
    unit: &'static str,
    defines: &'static [&'static str],
}

const EDITS: [Edit; 3] = [
    Edit {
        title: "tbl_get in table.c gains a line: value = arith_add(value, 5);",
        unit: "table",
        defines: &["TBL_GET_EDIT"],
    },
    Edit {
        title: "tbl_sum in table.c grows by 10 KiB, which does not fit its place",
        unit: "table",
        defines: &["TBL_GET_EDIT", "TBL_SUM_GROW=1"],
    },
    Edit {
        title: "state.c gets a new global, int g_extra: no change of one place",
        unit: "state",
        defines: &["NEW_GLOBAL"],
    },
];

pub(super) fn run() -> ToolResult {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("the demo runs programs for x86-64 Linux".to_owned());
    }
    let dir = tempfile::tempdir().map_err(|error| host::reason(&error))?;
    let demo = Demo::new(dir.path())?;
    let origin = match &demo.compiler {
        Some(compiler) => format!("compiled with {compiler}"),
        None => "no C compiler found: prebuilt objects".to_owned(),
    };
    demo.heading(1, &format!("two programs of five units each, four of them shared ({origin})"));
    PROGRAMS.iter().chain(&CORE).try_for_each(|unit| demo.compile(unit, &[]))?;
    let mut statuses = PROGRAMS.map(|_| None);
    demo.link_all(&mut statuses)?;
    for (index, edit) in EDITS.iter().enumerate() {
        demo.heading(index + 2, edit.title);
        demo.compile(edit.unit, edit.defines)?;
        demo.link_all(&mut statuses)?;
    }
    console::line(
        "\nYour program: RELINK_INCREMENTAL=1 gcc -static -B DIR …, with DIR/ld a link to ld.relink",
    );
    Ok(0)
}

struct Demo<'a> {
    io: Arc<dyn Io>,
    dir: &'a Path,
    compiler: Option<String>,
}

impl Demo<'_> {
    fn new(dir: &Path) -> Result<Demo<'_>, String> {
        let demo = Demo { io: Arc::new(SystemIo), dir, compiler: find_compiler() };
        for (name, text) in SOURCES {
            demo.write(name, text.as_bytes())?;
        }
        Ok(demo)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        host::write_file(&*self.io, &self.dir.join(name), bytes).map_err(|error| error.to_string())
    }

    fn heading(&self, number: usize, title: &str) {
        console::line(format_args!(
            "{}{}",
            if number > 1 { "\n" } else { "" },
            console::bold(format!("{number}. {title}"))
        ));
    }

    fn compile(&self, unit: &str, defines: &[&str]) -> Result<(), String> {
        let Some(compiler) = &self.compiler else {
            let name = defines.last().map_or(format!("{unit}.o"), |last| format!("{unit}-{last}.o"));
            let object = PREBUILT.iter().find(|(prebuilt, _)| *prebuilt == name);
            let (_, bytes) = object.ok_or_else(|| format!("there is no prebuilt {name}"))?;
            return self.write(&format!("{unit}.o"), bytes);
        };
        let mut command = Command::new(compiler);
        command.current_dir(self.dir).args(FLAGS).args(defines.iter().map(|define| format!("-D{define}")));
        command.args(["-c", &format!("{unit}.c"), "-o", &format!("{unit}.o")]);
        let output = command.output().map_err(|error| format!("{compiler}: {}", host::reason(&error)))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{compiler}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Links both programs, shows how, and what they answer.
    fn link_all(&self, statuses: &mut [Option<i32>; 2]) -> Result<(), String> {
        for (program, before) in PROGRAMS.iter().zip(statuses) {
            let (result, image_bytes) = self.link(program)?;
            let status = self.answer(program)?;
            let answer = match before.replace(status) {
                Some(before) => format!("exit status {before} -> {status}"),
                None => format!("exit status {status}"),
            };
            show(program, &result, image_bytes, &answer);
        }
        Ok(())
    }

    fn link(&self, program: &str) -> Result<(HostResult, u64), String> {
        let object = |unit: &&str| InputArg::new(InputName::File(self.dir.join(format!("{unit}.o"))));
        let objects: Vec<InputArg> = [&program].into_iter().chain(&CORE).map(object).collect();
        let mut inputs = host::resolve_inputs(&self.io, &SearchPath::default(), &objects);
        for (input, file) in inputs.inputs.iter_mut().zip(&inputs.files) {
            // Reasons name inputs; nobody cares for the temporary directory.
            input.name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        let request = HostRequest {
            output: self.dir.join(program),
            inputs,
            names_changes: false,
            incremental: true,
            verify: false,
            trust: StateTrust::Own,
            command: None,
        };
        let options = LinkOptions {
            build_id: BuildId::Tree { len: 20 },
            eh_frame_hdr: true,
            incremental: Some(IncrementalOptions::default()),
            ..LinkOptions::default()
        };
        let mut session = LinkSession::new(options).map_err(|error| error.to_string())?;
        let result = host::link_with(&mut session, request, &*self.io).map_err(|error| error.to_string())?;
        Ok((result, session.image().len() as u64))
    }

    /// The exit status of a program.
    fn answer(&self, program: &str) -> Result<i32, String> {
        let run = Command::new(self.dir.join(program)).output();
        let run = run.map_err(|error| format!("{program}: {}", host::reason(&error)))?;
        run.status.code().ok_or_else(|| format!("{program} ended with {}", run.status))
    }
}

/// The first C compiler that answers.
fn find_compiler() -> Option<String> {
    let wanted = std::env::var("CC").ok().filter(|cc| !cc.is_empty());
    let known = ["cc", "gcc", "clang"].map(str::to_owned);
    wanted.into_iter().chain(known).find(|compiler| {
        Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success())
    })
}

/// Outcome, time, work and reasons of a link.
fn show(program: &str, result: &HostResult, image_bytes: u64, answer: &str) {
    let report = &result.report;
    let outcome = match report.outcome {
        Outcome::Full => "full link",
        Outcome::Patched => "patched",
        Outcome::FellBackFull => "full link, not a patch",
    };
    let total = duration(report.total_ns);
    console::line(format_args!("   {program}  {} in {total}, {answer}", console::bold(outcome)));
    for reason in &report.reasons {
        let text =
            serde_json::to_value(reason).map_or_else(|_| reason.to_string(), |value| log::reason(&value));
        console::line(format_args!("          because {text}"));
    }
    if report.outcome == Outcome::Patched {
        let counters = &report.counters;
        let names: Vec<&str> = report.changed_atoms.iter().map(String::as_str).collect();
        let written = format!("{} of {} written", size(counters.bytes_written), size(image_bytes));
        let islands = match counters.islands_written {
            0 => String::new(),
            1 => ", 1 jump left behind".to_owned(),
            count => format!(", {count} jumps left behind"),
        };
        console::line(format_args!("          {}: {written}{islands}", log::abbreviated(&names)));
    }
    for warning in &result.warnings {
        console::warning(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_prebuilt_object() {
        let units = PROGRAMS.iter().chain(&CORE).map(|unit| format!("{unit}.o"));
        let edits = EDITS.iter().map(|edit| format!("{}-{}.o", edit.unit, edit.defines.last().unwrap()));
        for name in units.chain(edits) {
            let object = PREBUILT.iter().find(|(prebuilt, _)| *prebuilt == name);
            assert!(object.is_some_and(|(_, bytes)| bytes.starts_with(b"\x7fELF")), "{name}");
        }
    }

    #[test]
    fn edits_are_in_the_sources() {
        for edit in &EDITS {
            let source = SOURCES.iter().find(|(name, _)| *name == format!("{}.c", edit.unit)).unwrap().1;
            for define in edit.defines {
                let name = define.split('=').next().unwrap();
                assert!(source.contains(name), "{} has no {name}", edit.unit);
            }
        }
    }
}
