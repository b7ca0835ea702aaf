//! Links the files of the command line statically: `cold OUT FILE...`.
use relink::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut options = LinkOptions { eh_frame_hdr: true, build_id: BuildId::Tree { len: 20 }, ..Default::default() };
    if std::env::var_os("PIE").is_some() { options.output_kind = OutputKind::StaticPie; }
    if std::env::var_os("GC").is_some() { options.gc_sections = true; }
    if std::env::var_os("INC").is_some() { options.incremental = Some(Default::default()); }
    let mut session = LinkSession::new(options).unwrap();
    for file in &args[2..] {
        session.add_input(Input::bytes(file.clone(), std::fs::read(file).unwrap()));
    }
    match session.resolve() {
        Ok(outcome) => { std::fs::write(&args[1], &*session.image()).unwrap(); println!("{outcome} {:?}", session.report().unwrap()); }
        Err(error) => { println!("{error}"); std::process::exit(1); }
    }
}
