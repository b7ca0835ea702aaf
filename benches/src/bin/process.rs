//! `process [--rounds N] [--relink FILE] [--peer NAME=COMMAND]... CORPUS...`: what links cost from the start of the
//! process to its exit, interleaved, as a table for each corpus (`relink_benches::process::corpus` says what one is).
//!
//! Rows: nothing changed; one function edited that fits its slot; one that outgrew it; a function and a literal more;
//! full links of ours and of each peer; and the floors: a program that only looks at each input, reads what changed and
//! writes the pages that change. Without `--relink` our linker is built. Peers are lld and mold if they are installed,
//! and the program in `$WILD`; system calls are counted by strace, in a run of their own.

#![expect(clippy::print_stdout, reason = "a bench speaks to its user")]

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use relink_benches::process::corpus::{Corpus, Variant};
use relink_benches::process::floor::Floor;
use relink_benches::process::measure::{adopt, run, system_calls};
use relink_benches::process::table::{Row, markdown};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The first argument of the process that is the floor.
const FLOOR: &str = "--floor";
/// Rounds of what needs a full link before each.
const RESET_ROUNDS_MAX: usize = 5;

struct Options {
    rounds: usize,
    relink: Option<PathBuf>,
    peers: Vec<(String, String)>,
    corpora: Vec<PathBuf>,
}

fn main() -> Outcome {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [flag, list, image] = &args[..]
        && flag == FLOOR
    {
        return Ok(Floor::work(Path::new(list), Path::new(image))?);
    }
    let mut options = options(args)?;
    let relink = match options.relink.take() {
        Some(relink) => relink,
        None => build()?,
    };
    adopt()?;
    let folder = tempfile::tempdir()?;
    // The name decides what the program is.
    let relink = install(&relink, &folder.path().join("ld.relink"))?;
    let floor = install(&std::env::current_exe()?, &folder.path().join("floor"))?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{processors} processors, load {}, {} rounds",
        load.split(' ').next().unwrap_or(""),
        options.rounds
    );
    for folder in &options.corpora {
        Bench { corpus: Corpus::open(folder)?, relink: &relink, floor: &floor, options: &options }.run()?;
    }
    Ok(())
}

fn options(args: Vec<OsString>) -> Outcome<Options> {
    let mut options = Options { rounds: 15, relink: None, peers: Vec::new(), corpora: Vec::new() };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().and_then(|value| value.into_string().ok()).ok_or("a value is missing");
        match arg.to_str() {
            Some("--rounds") => options.rounds = value()?.parse()?,
            Some("--relink") => options.relink = Some(value()?.into()),
            Some("--peer") => {
                let peer = value()?;
                let (name, command) = peer.split_once('=').ok_or("--peer NAME=COMMAND")?;
                options.peers.push((name.to_owned(), command.to_owned()));
            }
            _ => options.corpora.push(arg.into()),
        }
    }
    if options.corpora.is_empty() {
        return Err("usage: process [--rounds N] [--relink FILE] [--peer NAME=COMMAND]... CORPUS...".into());
    }
    if options.peers.is_empty() {
        options.peers = installed_peers();
    }
    Ok(options)
}

/// Linkers as a user gets them. wild also without its second process, which it leaves behind to free the memory.
fn installed_peers() -> Vec<(String, String)> {
    let runs = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|said| said.status.success())
    };
    let mut peers = Vec::new();
    if let Some(lld) = ["ld.lld-19", "ld.lld"].into_iter().find(|lld| runs(lld)) {
        peers.push(("lld".to_owned(), lld.to_owned()));
    }
    if runs("mold") {
        peers.push(("mold".to_owned(), "mold".to_owned()));
    }
    if let Some(wild) = std::env::var("WILD").ok().filter(|wild| runs(wild)) {
        peers.push(("wild --no-fork".to_owned(), format!("{wild} --no-fork")));
        peers.push(("wild".to_owned(), wild));
    }
    peers
}

/// Copies a program, as the peers were when they were installed: a file that was written through a mapping, as that of a
/// build is, lies in the page cache in single pages, and a process that runs it takes a third of a millisecond more.
fn install(program: &Path, installed: &Path) -> Outcome<PathBuf> {
    fs::copy(program, installed)?;
    Ok(installed.to_owned())
}

/// Builds `ld.relink` and says where it is.
fn build() -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--release", "-q", "-p", "relink-cli"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    if !built.success() {
        return Err("the linker could not be built".into());
    }
    Ok(std::env::current_exe()?.with_file_name("ld.relink"))
}

struct Bench<'a> {
    corpus: Corpus,
    relink: &'a Path,
    floor: &'a Path,
    options: &'a Options,
}

// Rows of a table, in order.
const NOTHING: usize = 0;
const NOTHING_FLOOR: usize = 1;
const EDIT: usize = 2;
const EDIT_FLOOR: usize = 3;
const EDIT_FLOOR_READ: usize = 4;
const EDIT_TRUSTED: usize = 5;
const GROWN: usize = 6;
const ADDED: usize = 7;
const ADDED_WIDE: usize = 8;
/// What is renamed is not read.
const TRUST: (&str, &str) = ("RELINK_TRUST_MTIME", "1");
/// The gate that lets what comes and goes pass.
const WIDE: &str = "wide";
const FULL: usize = 9;
const FULL_INCREMENTAL: usize = 10;
const PEERS: usize = 11;

impl Bench<'_> {
    fn messages(&self) -> PathBuf {
        self.corpus.path("messages")
    }

    /// A link of a variant into an output of the work folder.
    fn link(&self, linker: &str, variant: &Variant, output: &str) -> Command {
        let mut words = linker.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("@args.rsp").arg("-o").arg(self.corpus.path(output));
        command.current_dir(&variant.dir).env_remove("RELINK_REPORT").env_remove("RELINK_INCREMENTAL");
        command
    }

    fn ours(&self, variant: &Variant) -> Command {
        let mut command = self.link(&self.relink.to_string_lossy(), variant, "out");
        command.env("RELINK_INCREMENTAL", "1");
        command
    }

    /// How the last link went, by the log.
    fn outcome(&self) -> Outcome<String> {
        let log = fs::read_to_string(self.corpus.path(".relink/out/log"))?;
        let entry: serde_json::Value = serde_json::from_str(log.lines().last().unwrap_or_default())?;
        let reason = entry["reasons"][0]["kind"].as_str().map_or(String::new(), |kind| format!(": {kind}"));
        Ok(format!("{}{reason}", entry["outcome"].as_str().unwrap_or("?")))
    }

    fn floor(&self, list: &str) -> Outcome<Command> {
        let mut command = Command::new(self.floor);
        command.arg(FLOOR).arg(self.corpus.path(list)).arg(self.corpus.path("out.floor"));
        Ok(command)
    }

    fn forget(&self) {
        // What is not there need not be removed.
        let _ = fs::remove_dir_all(self.corpus.path(".relink"));
        let _ = fs::remove_file(self.corpus.path("out"));
    }

    /// Measures a link of ours and notes how it went.
    fn measure(&self, row: &mut Row, variant: &Variant) -> Outcome {
        self.measure_with(("RELINK_INCREMENTAL", "1"), row, variant)
    }

    /// The same with a variable of the environment.
    fn measure_with(&self, (name, value): (&str, &str), row: &mut Row, variant: &Variant) -> Outcome {
        let mut command = self.ours(variant);
        row.costs.push(run(command.env(name, value), &self.messages())?);
        let outcome = self.outcome()?;
        if !row.outcome.contains(&outcome) {
            row.outcome =
                if row.outcome.is_empty() { outcome } else { format!("{}, {outcome}", row.outcome) };
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::new("nothing changed", Some(NOTHING_FLOOR)),
            Row::new("its floor", None),
            Row::new("one function edited, it fits", Some(EDIT_FLOOR)),
            Row::new("its floor", None),
            Row::new("its floor, and what was renamed read", None),
            Row::new("the edit, --trust-mtime", Some(EDIT_FLOOR)),
            Row::new("one function grown, it moves", None),
            Row::new("a function and a literal more", None),
            Row::new("the same, --gate=wide", None),
            Row::new("full: relink", None),
            Row::new("full: relink --incremental", None),
        ];
        rows.extend(self.options.peers.iter().map(|(name, _)| Row::new(format!("full: {name}"), None)));
        rows
    }

    fn run(&self) -> Outcome {
        let mut rows = self.rows();
        let base = &self.corpus.variants[0];
        let edit = self.corpus.edit("edit").ok_or("the corpus has no edit")?;
        let floor = self.first_links(base, edit)?;
        let messages = self.messages();
        for round in 0..self.options.rounds {
            let variant = if round % 2 == 0 { base } else { edit };
            variant.compile()?;
            self.measure(&mut rows[EDIT], variant)?;
            rows[EDIT_FLOOR].costs.push(run(&mut self.floor("edit.floor")?, &messages)?);
            if edit.renamed_files().next().is_some() {
                let cost = run(&mut self.floor("renamed.floor")?, &messages)?;
                rows[EDIT_FLOOR_READ].costs.push(cost);
            }
            // The one before proves that nothing changed: a file that was written this moment may change unseen.
            std::thread::sleep(std::time::Duration::from_millis(30));
            run(&mut self.ours(variant), &messages)?;
            self.measure(&mut rows[NOTHING], variant)?;
            rows[NOTHING_FLOOR].costs.push(run(&mut self.floor("nothing.floor")?, &messages)?);
            let relink = self.relink.to_string_lossy();
            rows[FULL].costs.push(run(&mut self.link(&relink, base, "out.full"), &messages)?);
            for ((_, command), row) in self.options.peers.iter().zip(&mut rows[PEERS..]) {
                row.costs.push(run(&mut self.link(command, base, "out.peer"), &messages)?);
            }
        }
        if edit.renamed_files().next().is_some() {
            self.forget();
            base.compile()?;
            run(self.ours(base).env(TRUST.0, TRUST.1), &messages)?;
            for round in 0..self.options.rounds {
                let variant = if round % 2 == 0 { edit } else { base };
                variant.compile()?;
                self.measure_with(TRUST, &mut rows[EDIT_TRUSTED], variant)?;
            }
            self.forget();
            run(&mut self.ours(base), &messages)?;
        }
        self.count_calls(&mut rows, base, edit)?;
        for _ in 0..self.options.rounds.min(RESET_ROUNDS_MAX) {
            for (index, name) in [(GROWN, "grow"), (ADDED, "edit-add")] {
                let Some(variant) = self.corpus.edit(name) else { continue };
                self.forget();
                base.compile()?;
                self.measure(&mut rows[FULL_INCREMENTAL], base)?;
                variant.compile()?;
                self.measure(&mut rows[index], variant)?;
            }
            if let Some(variant) = self.corpus.edit("edit-add") {
                self.forget();
                base.compile()?;
                run(self.ours(base).env("RELINK_INCREMENTAL", WIDE), &messages)?;
                variant.compile()?;
                self.measure_with(("RELINK_INCREMENTAL", WIDE), &mut rows[ADDED_WIDE], variant)?;
            }
        }
        self.show(&rows, base, &floor)
    }

    /// Links once, then after the edit; what must be done for that at least.
    fn first_links(&self, base: &Variant, edit: &Variant) -> Outcome<Floor> {
        base.compile()?;
        run(&mut self.ours(base), &self.messages())?;
        let old = fs::read(self.corpus.path("out"))?;
        fs::write(self.corpus.path("out.floor"), &old)?;
        edit.compile()?;
        run(&mut self.ours(edit), &self.messages())?;
        let outcome = self.outcome()?;
        let changed: Vec<PathBuf> = edit.own_files().map(Path::to_path_buf).collect();
        let pages = match outcome.as_str() {
            "patched" => Floor::pages_between(&old, &self.corpus.path("out"))?,
            _ => return Err(format!("{}: the edit was not patched: {outcome}", self.corpus.name).into()),
        };
        let floor = Floor { inputs: edit.inputs.clone(), changed, pages };
        floor.write(&self.corpus.path("edit.floor"))?;
        let mut renamed = floor.clone();
        renamed.changed.extend(edit.renamed_files().map(Path::to_path_buf));
        renamed.write(&self.corpus.path("renamed.floor"))?;
        Floor { inputs: floor.inputs.clone(), ..Floor::default() }
            .write(&self.corpus.path("nothing.floor"))?;
        Ok(floor)
    }

    fn count_calls(&self, rows: &mut [Row], base: &Variant, edit: &Variant) -> Outcome {
        let messages = self.messages();
        let variant = if self.options.rounds.is_multiple_of(2) { base } else { edit };
        variant.compile()?;
        rows[EDIT].calls = system_calls(&self.ours(variant), &messages)?;
        std::thread::sleep(std::time::Duration::from_millis(30));
        run(&mut self.ours(variant), &messages)?;
        rows[NOTHING].calls = system_calls(&self.ours(variant), &messages)?;
        rows[EDIT_FLOOR].calls = system_calls(&self.floor("edit.floor")?, &messages)?;
        rows[NOTHING_FLOOR].calls = system_calls(&self.floor("nothing.floor")?, &messages)?;
        let relink = self.relink.to_string_lossy();
        rows[FULL].calls = system_calls(&self.link(&relink, base, "out.full"), &messages)?;
        for ((_, command), row) in self.options.peers.iter().zip(&mut rows[PEERS..]) {
            row.calls = system_calls(&self.link(command, base, "out.peer"), &messages)?;
        }
        Ok(())
    }

    fn show(&self, rows: &[Row], base: &Variant, floor: &Floor) -> Outcome {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let bytes = |paths: &[PathBuf]| paths.iter().map(|path| size(path)).sum::<u64>() as f64 / 1e6;
        println!(
            "\n{}: {} inputs of {:.1} MB; the edit changes {} of them, {:.2} MB, and {} pages of an image of {:.1} MB\n",
            self.corpus.name,
            base.inputs.len(),
            bytes(&base.inputs),
            floor.changed.len(),
            bytes(&floor.changed),
            floor.pages.len(),
            size(&self.corpus.path("out")) as f64 / 1e6,
        );
        let fastest =
            rows[PEERS..].iter().map(Row::wall_ms).filter(|&wall| wall > 0.0).min_by(f64::total_cmp);
        print!("{}", markdown(rows, fastest));
        Ok(())
    }
}
