//! A headless browser, driven over a pipe (the DevTools protocol of Chromium).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

use crate::harness::PATIENCE;

/// Names of the Chromium binary.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "chrome-headless-shell", "google-chrome"];

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: pipe::Sender,
    from: BufReader<pipe::Receiver>,
    session: Option<String>,
    number: u64,
    /// Errors and warnings of the page.
    complaints: Vec<String>,
}

impl Browser {
    /// Starts a browser and opens a page; `None` if no browser is installed.
    pub(crate) async fn open(directory: &Path, url: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .flat_map(|directory| NAMES.map(|name| directory.join(name)))
            .find(|program| program.is_file())?;
        let (to, from) = (directory.join("to-browser"), directory.join("from-browser"));
        for fifo in [&to, &from] {
            nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        // It reads commands from descriptor 3, and answers on 4.
        let start = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
                     --remote-debugging-pipe --user-data-dir=\"$3\" --window-size=1200,900 \
                     about:blank 3<\"$1\" 4>\"$2\"";
        let process = Command::new("sh")
            .args(["-c", start])
            .args([program.as_path(), &to, &from, &directory.join("browser")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Both ends are opened at once, so that neither waits for the other.
        let mut options = pipe::OpenOptions::new();
        options.read_write(true);
        let from = BufReader::new(options.open_receiver(&from).unwrap());
        let to = options.open_sender(&to).unwrap();
        let mut browser =
            Self { process, to, from, session: None, number: 0, complaints: Vec::new() };
        let blank = json!({ "url": "about:blank" });
        let page = browser.call("Target.createTarget", blank).await;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        // Enabled before the page loads, so that no event is missed.
        for domain in ["Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        browser.call("Page.navigate", json!({ "url": url })).await;
        Some(browser)
    }

    /// Sends a command, and waits for its result.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let answered = async {
            self.to.write_all(format!("{message}\0").as_bytes()).await.unwrap();
            loop {
                let mut said = Vec::new();
                self.from.read_until(0, &mut said).await.unwrap();
                said.pop();
                let mut said: Value = serde_json::from_slice(&said).unwrap();
                self.complaints.extend(complaint(&said));
                if said["id"] == self.number {
                    assert!(said["error"].is_null(), "{method}: {said}");
                    return said["result"].take();
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("the browser does not answer")
    }

    /// Returns the complaints since the page was loaded: errors and warnings of its scripts, and of
    /// the browser, such as missing files.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Evaluates an expression on the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true on the page.
    pub(crate) async fn until(&mut self, expression: &str) {
        let waiting = async {
            while self.evaluate(expression).await != Value::Bool(true) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let page = self.evaluate("document.body.innerText").await;
            panic!("it never came to {expression}: {page}");
        }
    }

    /// Saves a screenshot of the page, if `DKV_PICTURES` names a directory for them.
    pub(crate) async fn picture(&mut self, name: &str, width: u32, height: u32, dark: bool) {
        let Some(directory) = std::env::var_os("DKV_PICTURES") else { return };
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", whole).await;
        let data = data_encoding::BASE64.decode(picture["data"].as_str().unwrap().as_bytes());
        let file = Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(file, data.unwrap()).unwrap();
    }
}

/// Returns the complaint in an event, if it is one.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    let level = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => "error",
        "Runtime.consoleAPICalled" => params["type"].as_str()?,
        "Log.entryAdded" => params["entry"]["level"].as_str()?,
        _ => return None,
    };
    ["error", "warning", "assert"].contains(&level).then(|| params.to_string())
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
