//! `warm OUT N FILE... -- NEWFILE`: links, replaces file N by NEWFILE, links again.
use relink::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let options = LinkOptions { eh_frame_hdr: true, build_id: BuildId::Tree { len: 20 }, incremental: Some(Default::default()), ..Default::default() };
    let mut session = LinkSession::new(options.clone()).unwrap();
    let split = args.iter().position(|a| a == "--").unwrap();
    let mut ids = vec![];
    for file in &args[3..split] {
        ids.push(session.add_input(Input::bytes(file.clone(), std::fs::read(file).unwrap())));
    }
    println!("{:?}", session.resolve().map_err(|e| println!("{e}")));
    println!("cold {} us", session.report().unwrap().total_ns / 1000);
    let n: usize = args[2].parse().unwrap();
    for (i, new) in args[split + 1..].iter().enumerate() {
        if std::env::var_os("FRESH").is_some() {
            let mut state = Vec::new(); session.serialize_state(&mut state).unwrap();
            session = LinkSession::new(options.clone()).unwrap(); ids.clear();
            for file in &args[3..split] { ids.push(session.add_input(Input::bytes(file.clone(), std::fs::read(file).unwrap()))); }
            println!("state {} bytes", state.len());
            session.set_prior_state(state.into());
        }
        session.replace_input(ids[n], Input::bytes(args[3 + n].clone(), std::fs::read(new).unwrap())).unwrap();
        let outcome = session.resolve().unwrap();
        let report = session.report().unwrap();
        println!("{new}: {outcome} {} us {:?} {:?}\n  {:?}\n {:?}", report.total_ns / 1000, report.reasons.iter().map(|r| r.to_string()).collect::<Vec<_>>(), report.changed_atoms, report.counters, report.timings_ns.iter().map(|t| (t.set, t.ns/1000)).collect::<Vec<_>>());
        println!("verify: {:?}", session.verify());
        std::fs::write(format!("{}.{i}", args[1]), &*session.image()).unwrap();
    }
}
