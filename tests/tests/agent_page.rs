//! Opens the agent's page in headless Chromium, over the real server: it must draw, follow, notice when the agent is gone,
//! ask for a token, log nothing, ask nobody else, and pass axe's rules of accessibility in both themes.
//!
//! Needs `chromium` (Debian package `chromium`); `NETTRACE_SKIP_BROWSER=1` skips these tests and says so. axe-core comes
//! from the npm registry by `npm`, or from `NETTRACE_AXE=axe.min.js`; without both the check is skipped, and says so.
//! `NETTRACE_UPDATE_IMAGES=1` writes the pictures in `docs/images`.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

#[path = "agent_page/life.rs"]
mod life;

use nettrace::{
    agent::{Event, Hub, Status},
    snapshot::sample,
    web::{self, Serving, WebConfig},
};
use nettrace_tests::devtools::Page;
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

/// Version of axe-core, and the digest of the package's archive as the registry names it.
const AXE: &str = "axe-core@4.14.1";

/// A server for a hub.
struct Site {
    runtime: Runtime,
    hub: Arc<Hub>,
    asked: mpsc::Receiver<Event>,
    serving: Serving,
    stop: Option<oneshot::Sender<()>>,
}

impl Site {
    fn new(config: WebConfig) -> Self {
        let runtime = Runtime::new().expect("threads can be made");
        let (requests, asked) = mpsc::channel(8);
        let hub = Hub::new(Status::default(), requests);
        let (stop, stopped) = oneshot::channel();
        let config = WebConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..config };
        let until = async move { drop(stopped.await) };
        let serving = runtime.block_on(web::serve(config, hub.clone(), until)).expect("it listens");
        Self { runtime, hub, asked, serving, stop: Some(stop) }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.serving.address())
    }

    fn stop(&mut self) {
        drop(self.stop.take());
    }
}

fn open(name: &str) -> Option<Page> {
    Page::open(Path::new(env!("CARGO_TARGET_TMPDIR")), name)
}

/// That the page logged nothing and asked this server alone.
fn assert_quiet(page: &Page, site: &Site) {
    assert!(page.console.is_empty(), "console: {:#?}", page.console);
    let foreign: Vec<_> = page
        .requests
        .iter()
        .filter(|url| !url.starts_with(&site.url()) && !url.starts_with("data:"))
        .collect();
    assert!(foreign.is_empty(), "requests: {foreign:#?}");
    assert!(page.requests.len() > 10, "the check sees requests: {:#?}", page.requests);
}

const LIVE: &str = "document.documentElement.dataset.pulse === 'live'";

#[test]
fn the_page_draws_and_follows() {
    let Some(mut page) = open("live") else { return };
    let site = Site::new(WebConfig::default());
    life::lived(&site.hub, 40);
    page.look(1440, 900, false);
    page.go(&site.url());
    page.until(LIVE);
    let text = |page: &mut Page, id: &str| {
        page.run(&format!("document.getElementById('{id}').textContent")).to_string()
    };
    assert!(text(&mut page, "host").contains("node-1"));
    let lanes = page.run("document.querySelectorAll('.lane .range').length");
    assert!(lanes.as_u64() >= Some(12), "{lanes}");
    // Every plot has drawn something in a colour that is not the card's.
    let blank = page.run(
        "[...document.querySelectorAll('.canvas canvas')].filter((c) => {
            const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            const seen = new Set();
            for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) seen.add((data[i] << 16) + (data[i + 1] << 8) + data[i + 2]);
            return seen.size < 3;
        }).length",
    );
    assert_eq!(blank, 0, "plots without a curve");
    assert_eq!(page.run("document.querySelectorAll('.canvas canvas').length"), 9);
    for (id, says) in [
        ("dns-names", "api.example.com"),
        ("drops-table", "NETFILTER_DROP"),
        ("tcp-peers", "10.0.0.2"),
        ("changes-list", "in force"),
        ("budget", "Step 1"),
        ("losses-table", "unmatched"),
        ("findings-list", "nettrace apply --set"),
    ] {
        assert!(text(&mut page, id).contains(says), "{id}: {}", text(&mut page, id));
    }
    let before = text(&mut page, "now-when");
    life::another(&site.hub);
    page.until(&format!("document.getElementById('now-when').textContent !== {before}"));
    page.until(LIVE);
    assert_quiet(&page, &site);
}

#[test]
fn keys_read_plots_choose_moments_and_come_back() {
    let Some(mut page) = open("keys") else { return };
    let site = Site::new(WebConfig::default());
    life::lived(&site.hub, 40);
    page.look(1440, 900, false);
    page.go(&site.url());
    page.until(LIVE);
    page.press("Tab");
    assert_eq!(page.run("document.activeElement.textContent"), "Skip to the figures");
    page.press("1");
    assert_eq!(page.run("document.querySelector('#range [aria-pressed=true]').textContent"), "15 min");
    page.press("q");
    assert_eq!(page.run("document.querySelector('#quantile [aria-pressed=true]').textContent"), "p50");
    page.run("document.querySelector('#plot-latency .plot').focus()");
    page.press("Home");
    let first = page.run("document.activeElement.getAttribute('aria-valuetext')").to_string();
    page.press("ArrowRight");
    let second = page.run("document.activeElement.getAttribute('aria-valuetext')").to_string();
    assert!(first.contains("rx.stack") && first != second, "{first} {second}");
    page.press("Home");
    page.press("Enter");
    page.until("document.getElementById('now-when').textContent.includes('chosen')");
    assert_eq!(page.run("document.getElementById('banner').hidden"), false);
    life::another(&site.hub);
    page.until("document.getElementById('now-when').textContent.includes('chosen')");
    page.press("l");
    page.until("document.getElementById('banner').hidden");
    page.run("document.querySelector('#dns-names th button').click()");
    assert_eq!(page.run("document.querySelector('#dns-names th').getAttribute('aria-sort')"), "ascending");
    page.press("?");
    assert_eq!(page.run("document.getElementById('keys').open"), true);
    assert_quiet(&page, &site);
}

#[test]
fn the_flight_recorder_is_asked_from_the_page() {
    let Some(mut page) = open("flight") else { return };
    let mut site = Site::new(WebConfig::default());
    life::lived(&site.hub, 8);
    page.go(&site.url());
    page.until(LIVE);
    page.run("document.querySelector('#flight input').value = 'slow at noon'; document.querySelector('#flight button').click()");
    page.until("document.querySelector('#flight .note').textContent.includes('asked to write')");
    assert_eq!(site.asked.try_recv().ok(), Some(Event::Flight { reason: "slow at noon".to_owned() }));
    assert_quiet(&page, &site);
}

#[test]
fn it_says_when_the_agent_is_gone_and_follows_when_it_is_back() {
    let Some(mut page) = open("gone") else { return };
    let mut site = Site::new(WebConfig::default());
    life::lived(&site.hub, 8);
    page.go(&site.url());
    page.until(LIVE);
    assert_quiet(&page, &site);
    site.stop();
    page.until("document.documentElement.dataset.pulse === 'gone'");
    assert_eq!(page.run("document.getElementById('banner').textContent.includes('does not answer')"), true);
    let listen = site.serving.address();
    let again = WebConfig { listen, ..WebConfig::default() };
    // The address is free once all of its connections ended.
    let Site { runtime, hub, serving, .. } = site;
    runtime.block_on(serving.ended());
    let back =
        runtime.block_on(web::serve(again, hub.clone(), std::future::pending())).expect("it listens again");
    life::another(&hub);
    page.until(LIVE);
    drop((back, runtime));
}

#[test]
fn it_says_when_no_windows_come() {
    let Some(mut page) = open("stale") else { return };
    let site = Site::new(WebConfig::default());
    life::lived(&site.hub, 8);
    site.hub.update(|status| status.interval_ms = 1_000);
    page.go(&site.url());
    page.until(LIVE);
    page.until("document.documentElement.dataset.pulse === 'stale'");
    assert_eq!(page.run("document.getElementById('banner').textContent.includes('closes no windows')"), true);
    life::another(&site.hub);
    page.until(LIVE);
    assert_quiet(&page, &site);
}

#[test]
fn it_asks_for_the_token_and_keeps_it() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let Some(mut page) = open("token") else { return };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-token");
    fs::write(&path, TOKEN).expect("the target directory can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let site = Site::new(WebConfig { token_file: Some(path), ..WebConfig::default() });
    life::lived(&site.hub, 8);
    page.go(&site.url());
    page.until("document.getElementById('login')?.open === true");
    assert_eq!(
        page.run("document.getElementById('tiles').textContent.includes('waiting')"),
        true,
        "nothing is shown"
    );
    let enter = |text: &str| {
        format!(
            "document.querySelector('#login input').value = '{text}'; document.querySelector('#login button').click()"
        )
    };
    page.run(&enter("not the right one"));
    page.until("document.querySelector('#login .note').textContent.includes('not this agent')");
    page.run(&enter(TOKEN));
    page.until(LIVE);
    page.go(&site.url());
    page.until(LIVE);
    assert_eq!(page.run("localStorage.length + Number(document.cookie.length)"), 0);
    page.run("document.getElementById('forget').click()");
    page.until("document.getElementById('login')?.open === true && !sessionStorage.length");
    // The browser itself logs each answer 401.
    page.console.retain(|line| !line.contains("401"));
    assert_quiet(&page, &site);
}

#[test]
fn hostile_names_stay_text() {
    let Some(mut page) = open("hostile-live") else { return };
    let site = Site::new(WebConfig::default());
    let mut window = sample::hostile();
    (window.meta.start_unix_ns, window.meta.duration_ns) = (1_767_225_600_000_000_000, 5_000_000_000);
    site.hub.put_findings(nettrace::recommend::advise(&window, nettrace::recommend::Profile::Balanced));
    site.hub.put_window(Arc::new(window));
    page.go(&site.url());
    page.until(LIVE);
    assert_eq!(page.run("document.querySelectorAll('main img, main script').length"), 0);
    assert_eq!(page.run("document.body.textContent.includes('<script>alert(1)</script>')"), true);
    assert_eq!(page.run("/[\\u202e\\u001b\\u0007]/.test(document.body.textContent)"), false);
    assert_quiet(&page, &site);
}

#[test]
fn an_agent_that_has_just_begun_is_not_blank() {
    let Some(mut page) = open("young") else { return };
    let site = Site::new(WebConfig::default());
    page.go(&site.url());
    page.until("document.getElementById('findings-list').textContent.includes('No advice yet')");
    site.hub.put_window(Arc::new(sample::empty()));
    page.until("document.getElementById('drops-table').textContent.includes('Nothing was dropped.')");
    assert_eq!(
        page.run("document.getElementById('waterfall').textContent.includes('No latency was measured')"),
        true
    );
    assert_quiet(&page, &site);
}

/// Widths, heights and themes of the pictures in the documents.
const PICTURES: [(u32, u32, bool, &str); 4] = [
    (360, 780, true, "agent-360.png"),
    (800, 1100, false, "agent-800.png"),
    (1440, 1000, false, "agent-1440.png"),
    (1440, 1000, true, "agent-1440-dark.png"),
];

#[test]
fn it_fits_all_widths_and_passes_axe_in_both_themes() {
    let Some(mut page) = open("axe") else { return };
    let axe = axe();
    let site = Site::new(WebConfig::default());
    life::lived(&site.hub, 180);
    page.look(1440, 1000, false);
    page.go(&site.url());
    page.until(LIVE);
    for (width, height, dark, name) in PICTURES {
        page.look(width, height, dark);
        page.until(&format!("innerWidth === {width}"));
        // Plots follow the size in the next frame.
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300))))");
        let over = page.run("document.documentElement.scrollWidth - innerWidth").as_i64();
        assert!(over <= Some(0), "{width}: wider than the window by {over:?}");
        let picture = page.picture();
        if std::env::var_os("NETTRACE_UPDATE_IMAGES").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images").join(name);
            fs::write(&path, &picture).expect("docs can be written");
        }
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), &picture).expect("it can be written");
        if let Some(axe) = &axe {
            page.run("document.querySelectorAll('details').forEach((d) => (d.open = true))");
            page.run(axe);
            let found = page.run("axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html + ' ' + n.failureSummary)]))");
            assert_eq!(found, Value::Array(Vec::new()), "{name}: {found:#}");
            page.run("document.querySelectorAll('details').forEach((d) => (d.open = false))");
        }
    }
    assert_quiet(&page, &site);
}

/// The source of axe-core; none when it cannot be had, which is said.
fn axe() -> Option<String> {
    if let Some(path) = std::env::var_os("NETTRACE_AXE") {
        return Some(fs::read_to_string(&path).expect("NETTRACE_AXE names axe.min.js"));
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let file: PathBuf = dir.join("node_modules/axe-core/axe.min.js");
    if !file.exists() {
        fs::create_dir_all(&dir).expect("the target directory can be written");
        let install = Command::new("npm")
            .args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
            .arg(&dir)
            .arg(AXE)
            .output();
        let said = install.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        if !file.exists() {
            let _ = writeln!(std::io::stderr(), "axe: skipped, npm did not bring {AXE}: {said:?}");
            return None;
        }
    }
    Some(fs::read_to_string(&file).expect("npm wrote it"))
}
