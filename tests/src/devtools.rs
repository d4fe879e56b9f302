//! A page of a server in headless Chromium, driven over its DevTools protocol: sizes, colours, keys, pictures, and what it
//! logged and asked for.
//!
//! Needs `chromium` (Debian package `chromium`); `NETTRACE_SKIP_BROWSER=1` skips and says so. The protocol runs over two
//! pipes, JSON with a zero byte behind each message.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// For what must come about, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
#[derive(Debug)]
pub struct Page {
    browser: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// Messages of the console and of the browser about the page, such as violations of its policy.
    pub console: Vec<String>,
    /// URLs that were asked for.
    pub requests: Vec<String>,
}

impl Page {
    /// A blank page; `None` when browser tests are switched off.
    ///
    /// # Panics
    /// When the browser cannot be run.
    #[must_use]
    pub fn open(dir: &Path, name: &str) -> Option<Self> {
        if std::env::var_os("NETTRACE_SKIP_BROWSER").is_some() {
            // Straight to stderr: the test harness would keep the output of a passing test to itself.
            let _ = writeln!(std::io::stderr(), "{name}: skipped, NETTRACE_SKIP_BROWSER is set");
            return None;
        }
        let profile = dir.join(name);
        let _ = fs::remove_dir_all(&profile);
        fs::create_dir_all(&profile).expect("the target directory can be written");
        // The protocol's pipes are descriptors 3 and 4.
        let mut browser = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 2>/dev/null", "sh", "chromium", "--headless", "--no-sandbox"])
            .args(["--remote-debugging-pipe", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-default-apps", "--disable-extensions", "--hide-scrollbars"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh can be run");
        let to = browser.stdin.take().expect("it is piped");
        let mut out = BufReader::new(browser.stdout.take().expect("it is piped"));
        let (sender, from) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let (console, requests) = (Vec::new(), Vec::new());
        let mut page = Self { browser, to, from, session: None, calls: 0, console, requests };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = page.call("Target.attachToTarget", attach);
        page.session = session["sessionId"].as_str().map(ToOwned::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        Some(page)
    }

    /// Goes to an address.
    ///
    /// # Panics
    /// When the browser does not.
    pub fn go(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
    }

    /// How wide and high it is, in CSS pixels, and whether it is dark.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn look(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What a script comes to.
    ///
    /// # Panics
    /// When it throws.
    pub fn run(&mut self, script: &str) -> Value {
        let what = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let done = self.call("Runtime.evaluate", what);
        assert!(done["exceptionDetails"].is_null(), "{script}: {}", done["exceptionDetails"]);
        done["result"]["value"].clone()
    }

    /// Waits until a script says true.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until(&mut self, script: &str) {
        let end = Instant::now() + PATIENCE;
        while self.run(script) != Value::Bool(true) {
            assert!(Instant::now() < end, "never came: {script}; console {:#?}", self.console);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key.
    ///
    /// # Panics
    /// When the browser does not take it.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 0 };
            let event = json!({ "type": kind, "key": key, "text": if kind == "keyDown" { text } else { "" }, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of what is in the window, PNG.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn picture(&mut self) -> Vec<u8> {
        let taken =
            self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        BASE64.decode(taken["data"].as_str().unwrap_or_default()).expect("a picture is base64")
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect(
            "chromium runs: install the package `chromium`, or set NETTRACE_SKIP_BROWSER=1 to skip these tests",
        );
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(answer) if answer["id"] == self.calls => {
                    assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return answer["result"].clone();
                }
                Ok(event) => self.note(&event),
                Err(RecvTimeoutError::Timeout) => panic!("chromium did not answer {method}"),
                Err(RecvTimeoutError::Disconnected) => panic!(
                    "chromium ended at {method}: install the package `chromium`, or set NETTRACE_SKIP_BROWSER=1"
                ),
            }
        }
    }

    /// Keeps what an event says.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.consoleAPICalled") => self.console.push(params["args"].to_string()),
            Some("Runtime.exceptionThrown") => self.console.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") => self.console.push(params["entry"].to_string()),
            Some("Network.requestWillBeSent") => {
                self.requests.extend(params["request"]["url"].as_str().map(ToOwned::to_owned));
            }
            _ => {}
        }
    }
}

/// The browser goes with the page.
impl Drop for Page {
    fn drop(&mut self) {
        // One that went already is no error.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
