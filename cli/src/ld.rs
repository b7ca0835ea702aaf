//! The linker's personality: a command line of ld, a link, and messages.

mod act;
mod command;
mod fallback;
mod help;
mod keyword;
mod listings;
mod parse;
mod reproduce;
mod response;
mod table;
mod texts;
mod value;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relink::host::{
    self, Command, HostError, HostRequest, Io, JobTokens, ResolveError, ResolvedInputs, StateTrust, SystemIo,
};
use relink::{BuildId, GateKind, LinkError, LinkOptions, LinkSession};

use self::command::{Environment, LdCommand, Show};
use crate::console;

/// Runs a command line (without the program's name); the exit code.
pub(crate) fn run(args: Vec<OsString>) -> i32 {
    let io: Arc<dyn Io> = Arc::new(SystemIo);
    let (args, errors) = response::expand(&*io, args);
    let environment = Environment::of_process();
    let mut command = parse::parse(&args, &environment);
    command.errors.splice(0..0, errors);
    console::use_colors(command.color);
    if let Some(show) = command.show {
        match show {
            Show::Version => console::line(help::VERSION),
            Show::Help => console::print(help::help()),
        }
        return 0;
    }
    if command.announce {
        console::line(help::VERSION);
        if command.emulations {
            console::line("  Supported emulations:\n   elf_x86_64");
        }
        if command.inputs.is_empty() && command.errors.is_empty() {
            return 0;
        }
    }
    let inputs = resolve(&io, &mut command, Claims::Trusted);
    if let (Some(linker), Some(why)) = (&command.fallback_linker, &command.out_of_reach) {
        return fallback::run(linker, why, &args);
    }
    if !command.suppress_warnings && command.fatal_warnings {
        let warnings = std::mem::take(&mut command.warnings);
        command.errors.extend(warnings);
    }
    show_warnings(&command, &command.warnings);
    if !command.errors.is_empty() {
        return show_errors(&command);
    }
    let tokens = take_tokens(&io, &mut command, &environment);
    let to_pack = command.reproduce.is_some().then(|| (inputs.dependencies.clone(), inputs.files.clone()));
    let mut found = Some(inputs);
    let linked = host::while_inputs_change(|| match found.take() {
        Some(inputs) if inputs.partial => match link(&io, &command, inputs, &args)? {
            Some(code) => Ok(code),
            // No patch: what is said of the inputs counts for nothing any more.
            None => link_again(&io, &command, &environment, &args),
        },
        Some(inputs) => Ok(link(&io, &command, inputs, &args)?.unwrap_or(1)),
        None => link_again(&io, &command, &environment, &args),
    });
    drop(tokens);
    if let (Some(path), Some((files, sources))) = (&command.reproduce, to_pack) {
        // A link that fails is one to be reproduced; only after it is known which members thin archives gave.
        let members = sources.iter().flat_map(|file| file.members_read());
        let files = files.into_iter().chain(members).collect();
        if let Err(error) = reproduce::write(&*io, path, &args, files) {
            console::error(error);
            return 1;
        }
    }
    match (linked, &command.fallback_linker) {
        (Ok(code), _) => code,
        (Err(error), Some(linker)) if let Some(why) = fallback::reason(&error) => {
            fallback::run(linker, &why, &args)
        }
        (Err(error), _) => {
            show_failure(&command, &error);
            1
        }
    }
}

/// A command line, understood: what would be linked, and how.
#[derive(Debug)]
pub struct Understood {
    /// Options of the link.
    pub options: LinkOptions,
    /// What is linked.
    pub inputs: ResolvedInputs,
    /// Everything that is wrong; if there is anything, nothing would be linked.
    pub errors: Vec<String>,
    /// What else the user would be told.
    pub warnings: Vec<String>,
}

/// Understands a command line (without the program's name), reads the response files and texts that it names, and
/// finds its inputs; links nothing and prints nothing.
pub fn understand(io: &Arc<dyn Io>, args: Vec<OsString>) -> Understood {
    let (args, mut errors) = response::expand(&**io, args);
    let mut command = parse::parse(&args, &Environment::default());
    let inputs = resolve(io, &mut command, Claims::Checked);
    errors.append(&mut command.errors);
    Understood { options: command.options, inputs, errors, warnings: command.warnings }
}

/// Whether a command line's word for what changed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    /// A patch may be made without a look at the rest.
    Trusted,
    /// They were looked into already, and are not enough.
    Checked,
    /// This is no link.
    Ignored,
}

/// Finds the inputs: those that are said to have changed, if that is enough, or all.
fn find(io: &Arc<dyn Io>, command: &mut LdCommand, claims: Claims) -> ResolvedInputs {
    for path in std::mem::take(&mut command.changed_lists) {
        match texts::lines(&**io, &path) {
            Ok(names) => command.changed.get_or_insert_default().extend(names),
            Err(error) => command.error(format!("--changed-list: {error}")),
        }
    }
    let LdCommand { output, trust, search, inputs, .. } = &*command;
    let claimed = match &command.changed {
        Some(changed) if claims == Claims::Trusted && command.incremental => {
            // A version script, say, is read in any link.
            let is_text = |path: &&PathBuf| !command.texts.iter().any(|(_, _, text)| text == *path);
            let changed: Vec<PathBuf> = changed.iter().filter(is_text).cloned().collect();
            host::resolve_claimed(io, output, *trust, search, inputs, &changed)
        }
        _ => None,
    };
    let mut found = claimed.unwrap_or_else(|| host::resolve_inputs(io, search, inputs));
    if command.trust_mtime {
        found.trust_modification_times();
    }
    found
}

/// Finds the inputs; what is missing joins the errors of the command line.
fn resolve(io: &Arc<dyn Io>, command: &mut LdCommand, claims: Claims) -> ResolvedInputs {
    if command.out_of_reach.is_some() {
        return ResolvedInputs::default();
    }
    let mut found = find(io, command, claims);
    for error in found.errors.drain(..) {
        match error {
            ResolveError::OutOfReach { .. } => command.out_of_reach(error.to_string()),
            _ => command.error(explain(&error)),
        }
    }
    let texts = texts::read(&**io, command);
    if let (Some(changed), false) = (&command.changed, found.partial || claims == Claims::Ignored) {
        for error in host::unknown_inputs(&**io, &found, &texts, changed) {
            command.errors.push(explain(&error));
        }
    }
    found.dependencies.extend(texts);
    command.decide_kind(found.has_shared_libraries);
    if command.options.entry.is_none() {
        command.options.entry = found.entry.take();
    }
    if let BuildId::Uuid(bytes) = &mut command.options.build_id {
        let random =
            io.open_read(Path::new("/dev/urandom")).and_then(|file| io.read_at(&file, 0, bytes.len()));
        match random {
            Ok(random) if random.len() == bytes.len() => bytes.copy_from_slice(&random),
            _ => command.errors.push("--build-id=uuid: the system gives no random bytes".to_owned()),
        }
    }
    found
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A missing input in words, with what may have been meant.
fn explain(error: &ResolveError) -> String {
    let mut text = error.to_string();
    if let ResolveError::NotChanged { path, known } = error {
        let path = path.to_string_lossy();
        let near = value::nearest(&path, known.iter().map(String::as_str));
        let same_name = || known.iter().map(String::as_str).find(|name| file_name(name) == file_name(&path));
        if let Some(near) = near.or_else(same_name) {
            text += &format!("\n>>> did you mean: --changed={near}");
        }
    }
    if let ResolveError::LibraryNotFound { name, known, static_only, shared, directories } = error {
        if let Some(near) = value::nearest(name, known.iter().map(String::as_str)) {
            text += &format!("\n>>> did you mean: -l{near}");
        }
        if shared.is_none() && !name.starts_with(':') {
            let files = match static_only {
                true => format!("lib{name}.a is"),
                false => format!("lib{name}.so and lib{name}.a are"),
            };
            text += &match directories {
                0 => "\n>>> no directory was searched: none is given by -L".to_owned(),
                1 => format!("\n>>> {files} not in the one directory given by -L"),
                count => format!("\n>>> {files} in none of the {count} directories given by -L"),
            };
        }
    }
    text
}

/// The command line once its inputs are read as those that a linked session has.
pub(crate) struct Recorded {
    /// With the options, without inputs.
    pub(crate) options: LinkOptions,
    /// Found again.
    pub(crate) inputs: ResolvedInputs,
}

/// Understands a command line that was kept; the messages if it does not work any more.
pub(crate) fn reread(io: &Arc<dyn Io>, args: &[String]) -> Result<Recorded, Vec<String>> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let mut command = parse::parse(&args, &Environment::default());
    // What made the link incremental may have been the environment.
    command.options.incremental = Some(command.incremental_options.clone());
    command.options.compress_debug = None;
    let inputs = resolve(io, &mut command, Claims::Ignored);
    match command.errors.is_empty() {
        true => Ok(Recorded { options: command.options, inputs }),
        false => Err(command.errors),
    }
}

/// Bounds the threads by what make's job server has left; one of them needs no token.
fn take_tokens(io: &Arc<dyn Io>, command: &mut LdCommand, environment: &Environment) -> Option<JobTokens> {
    let make_flags = environment.make_flags.as_ref()?.to_str()?;
    let threads = &mut command.options.threads;
    let wanted = match *threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let tokens = JobTokens::take(io, make_flags, wanted - 1)?;
    *threads = 1 + tokens.len();
    Some(tokens)
}

/// Links; no exit code if a patch is all that there may be, since not all inputs were looked at, and none is possible.
fn link(
    io: &Arc<dyn Io>,
    command: &LdCommand,
    inputs: ResolvedInputs,
    args: &[OsString],
) -> Result<Option<i32>, HostError> {
    let listed = command.dependency_file.as_ref().map(|_| inputs.dependencies.clone());
    let partial = inputs.partial;
    let request = HostRequest {
        output: command.output.clone(),
        inputs,
        names_changes: command.changed.is_some(),
        incremental: command.incremental,
        verify: command.verify,
        trust: command.trust,
        command: command.incremental.then(|| recorded(command, args)),
    };
    // The process ends right after: giving back the memory of a large program piece by piece would only take time.
    let mut session = ManuallyDrop::new(LinkSession::new(command.options.clone())?);
    let result = match partial {
        true => match host::patch_with(&mut *session, request, &**io)? {
            Some(result) => result,
            None => return Ok(None),
        },
        false => host::link_with(&mut *session, request, &**io)?,
    };
    if let Some(path) = &command.report {
        let text = serde_json::to_vec_pretty(&result.report).map_err(std::io::Error::from);
        let text = text.map_err(|source| HostError::Io { action: "write", path: path.clone(), source })?;
        host::write_file(&**io, path, &text)?;
    }
    listings::write(&**io, command, &session, &listed.unwrap_or_default())?;
    show_warnings(command, &result.warnings);
    let failed = command.fatal_warnings && !command.suppress_warnings && !result.warnings.is_empty();
    Ok(Some(i32::from(failed)))
}

/// The same once more, since what was read of the inputs has changed meanwhile.
fn link_again(
    io: &Arc<dyn Io>,
    first: &LdCommand,
    environment: &Environment,
    args: &[OsString],
) -> Result<i32, HostError> {
    let mut command = parse::parse(args, environment);
    command.options.threads = first.options.threads;
    let inputs = resolve(io, &mut command, Claims::Checked);
    match command.errors.is_empty() {
        true => Ok(link(io, &command, inputs, args)?.unwrap_or(1)),
        false => Ok(show_errors(&command)),
    }
}

/// Whose state the tools may look at.
pub(crate) fn trusted_state() -> StateTrust {
    LdCommand::new(&Environment::of_process()).trust
}

/// The command line as `relink verify` needs it: what changed since when is of no use to it.
fn recorded(command: &LdCommand, args: &[OsString]) -> Command {
    let passing = |word: &parse::Word<'_>| match &word.kind {
        parse::Kind::Option(found) => {
            found.spec.names.iter().any(|name| [table::CHANGED, table::CHANGED_LIST].contains(name))
        }
        _ => false,
    };
    let words = parse::words(args).filter(|word| !passing(word)).flat_map(|word| word.args);
    // The environment may have asked for the gate.
    let wide = command.incremental_options.gate_kind == GateKind::Wide;
    let gate = wide.then(|| OsString::from("--gate=wide"));
    let words = gate.iter().chain(words);
    Command {
        args: words.map(|arg| arg.to_string_lossy().into_owned()).collect(),
        cwd: std::env::current_dir().unwrap_or_default(),
    }
}

fn show_warnings(command: &LdCommand, warnings: &[String]) {
    if !command.suppress_warnings {
        warnings.iter().for_each(console::warning);
    }
}

/// All errors of the command line.
fn show_errors(command: &LdCommand) -> i32 {
    command.errors.iter().for_each(console::error);
    1
}

/// Why there is no output.
fn show_failure(command: &LdCommand, error: &HostError) {
    match error {
        HostError::Link(error) => show_link_error(error, command.demangle),
        other => console::error(other),
    }
}

/// The errors of a link, one block each.
pub(crate) fn show_link_error(error: &LinkError, demangled: bool) {
    let names: &dyn Fn(&str) -> String = match demangled {
        true => &crate::demangle::demangle,
        false => &str::to_owned,
    };
    for (index, diagnostic) in error.diagnostics.iter().enumerate() {
        let text = diagnostic.render(names);
        console::error(&text);
        if text.contains('\n') && index + 1 < error.diagnostics.len() {
            console::gap();
        }
    }
    if error.omitted > 0 {
        let plural = if error.omitted == 1 { "error" } else { "errors" };
        console::error(format_args!("{} more {plural} (--error-limit=0 shows all)", error.omitted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_explained() {
        let error = ResolveError::LibraryNotFound {
            name: "sqlit3".into(),
            known: vec!["m".into(), "sqlite3".into()],
            static_only: true,
            shared: None,
            directories: 2,
        };
        assert_eq!(
            explain(&error),
            "unable to find library -lsqlit3\n>>> did you mean: -lsqlite3\n\
             >>> libsqlit3.a is in none of the 2 directories given by -L"
        );
    }
}
