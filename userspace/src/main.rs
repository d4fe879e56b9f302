//! The `nettrace` command.
fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    let mut l = nettrace::load::load(&Default::default()).unwrap();
    println!("missing {:?}", l.missing);
    let sel = nettrace::probes::select(&[]);
    let a = nettrace::attach::attach(&mut l, &sel, nettrace::probes::PROBES);
    for p in a.programs { println!("{} {:?}", p.0, p.1); }
}
