//! A command line of ld: its grammar, the response files, scripts and lists that it names, and the link that it asks
//! for.

use std::ffi::OsString;
use std::sync::{Arc, OnceLock};

use relink::host::Io;
use relink::{LinkSession, Outcome};
use relink_cli::Understood;

use super::MemoryIo;
use super::tiny;

/// The name of the response file with the command line.
const ARGUMENTS: &str = "args";
/// Names of the other texts of an input, in order: response files, scripts, lists.
const TEXTS: [&str; 4] = ["1", "2", "3", "4"];

/// Objects and libraries that every command line can name.
struct Files {
    start: Vec<u8>,
    work: [Vec<u8>; 2],
    archive: Vec<u8>,
    library: Vec<u8>,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let work = [tiny::work(1, 0), tiny::work(2, 200)];
        let options =
            relink::LinkOptions { output_kind: relink::OutputKind::SharedLibrary, ..tiny::options(false) };
        let mut library = LinkSession::new(options).expect("the options are sound");
        library.add_input(relink::Input::bytes("part.o", tiny::library()));
        library.resolve().expect("the library links");
        Files {
            start: tiny::start(),
            archive: tiny::archive(&[
                ("work.o", &work[0], &["first"]),
                ("part.o", &tiny::library(), &["part"]),
            ]),
            work,
            library: library.image().into_owned(),
        }
    })
}

/// No panic. A link that succeeds gives an image that can be read; of an incremental one, an edit is patched rightly.
///
/// The input is the text of a response file, and behind NUL bytes the texts of up to four more files.
pub(super) fn judge(data: &[u8]) {
    links(data);
}

/// The same; whether a link succeeded, and whether its edit was patched.
pub fn links(data: &[u8]) -> (bool, bool) {
    let Some(understood) = understand(data, 0) else { return (false, false) };
    let options = understood.options.clone();
    let Some(mut session) = session(&options, understood) else { return (false, false) };
    if session.resolve().is_err() {
        return (false, false);
    }
    super::assert_readable(&session.image());
    if options.incremental.is_none() {
        return (true, false);
    }
    let mut state = Vec::new();
    session.serialize_state(&mut state).expect("memory can be written");
    let again = understand(data, 1).and_then(|understood| self::session(&options, understood));
    let Some(mut again) = again else { return (true, false) };
    again.set_prior_state(state.into());
    let patched = again.resolve() == Ok(Outcome::Patched);
    if patched {
        assert_eq!(again.verify().expect("a full link of it works"), []);
        super::assert_readable(&again.image());
    }
    (true, patched)
}

/// The command line of an input, if nothing is wrong with it; `work.o` is the first one or the edited one.
fn understand(data: &[u8], edition: usize) -> Option<Understood> {
    let files = files();
    let mut parts = data.splitn(1 + TEXTS.len(), |&byte| byte == 0);
    let arguments = parts.next().unwrap_or_default();
    let known = [
        ("start.o", &files.start[..]),
        ("work.o", &files.work[edition]),
        ("lib.a", &files.archive),
        ("libx.a", &files.archive),
        ("libx.so", &files.library),
        ("lib.so", &files.library),
        (ARGUMENTS, arguments),
    ];
    let io: Arc<dyn Io> = Arc::new(MemoryIo::new(known.into_iter().chain(TEXTS.into_iter().zip(parts))));
    let understood = relink_cli::understand(&io, vec![OsString::from(format!("@{ARGUMENTS}"))]);
    (understood.errors.is_empty() && !understood.inputs.inputs.is_empty()).then_some(understood)
}

fn session(options: &relink::LinkOptions, understood: Understood) -> Option<LinkSession> {
    // Threads that come and go with each of millions of links would be all that is seen.
    let mut session = LinkSession::new(relink::LinkOptions { threads: 1, ..options.clone() }).ok()?;
    for input in understood.inputs.inputs {
        session.add_input(input);
    }
    Some(session)
}

/// Options and keywords of a text of help, for a dictionary.
pub fn words_of_help(help: &str) -> Vec<String> {
    let words =
        help.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '|' | '{' | '}' | '(' | ')'));
    let mut words: Vec<String> = words
        .filter(|word| word.len() > 1 && word.starts_with('-'))
        .map(|word| word.trim_end_matches(['.', ';', ':']).to_owned())
        .collect();
    words.sort();
    words.dedup();
    words
}
