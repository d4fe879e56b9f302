//! A page in headless Chromium: what it became, what it logged and what it asked the network for.
//!
//! Needs `chromium` (Debian package `chromium`); `NETTRACE_SKIP_BROWSER=1` skips and says so.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{fs, io::Write as _, path::Path, process::Command};

/// What a browser made of a page.
#[derive(Debug)]
pub struct Visit {
    /// The document after its script ran.
    pub dom: String,
    /// Console messages.
    pub console: Vec<String>,
    /// URLs that were asked for, other than the page itself.
    pub requests: Vec<String>,
}

/// Opens a page, which is kept in a directory of its name; `None` when browser tests are switched off.
///
/// # Panics
/// When the browser cannot be run.
#[must_use]
pub fn visit(dir: &Path, name: &str, page: &str) -> Option<Visit> {
    if std::env::var_os("NETTRACE_SKIP_BROWSER").is_some() {
        // Straight to stderr: the test harness would keep the output of a passing test to itself.
        let _ = writeln!(std::io::stderr(), "{name}: skipped, NETTRACE_SKIP_BROWSER is set");
        return None;
    }
    let dir = dir.join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the target directory can be written");
    let (file, net_log) = (dir.join("report.html"), dir.join("net.json"));
    fs::write(&file, page).expect("the page can be written");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-default-apps", "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--log-net-log={}", net_log.display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap_or_else(|e| {
            panic!(
                "cannot run chromium ({e}): install the package `chromium`, \
                 or set NETTRACE_SKIP_BROWSER=1 to skip the browser tests"
            )
        });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "chromium failed: {stderr}");
    Some(Visit {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: stderr.lines().filter(|line| line.contains(":CONSOLE")).map(ToOwned::to_owned).collect(),
        requests: requests(&fs::read_to_string(&net_log).expect("chromium wrote its network log")),
    })
}

/// Network URLs named in Chromium's network log, without those of its own services.
fn requests(log: &str) -> Vec<String> {
    const OWN: [&str; 3] = ["google.com", "googleapis.com", "gstatic.com"];
    log.split("\"url\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|url| url.starts_with("http") || url.starts_with("ws"))
        .filter(|url| !OWN.iter().any(|own| url.contains(own)))
        .map(ToOwned::to_owned)
        .collect()
}

/// That the page logged nothing, asked for nothing, and ran its script.
///
/// # Panics
/// When it did not.
pub fn assert_quiet(visit: &Visit) {
    assert!(visit.console.is_empty(), "console: {:#?}", visit.console);
    assert!(visit.requests.is_empty(), "requests: {:#?}", visit.requests);
    assert!(visit.dom.contains("<html lang=\"en\" class=\"js\""), "the script did not run");
}
