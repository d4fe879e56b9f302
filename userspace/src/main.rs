//! The `nettrace` command.
fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let mut c = nettrace::capture::Capture::start(Default::default()).unwrap();
    for _ in 0..150 { std::thread::sleep(std::time::Duration::from_millis(20)); c.tick(); }
    let f = c.stop().unwrap();
    println!("{}", serde_json::to_string_pretty(&f.snapshot).unwrap());
}
