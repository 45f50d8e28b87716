//! `/kvs`: a main instance and a forwarding one.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::http::Http;
use crate::harness::Process;
use crate::harness::process::command;

/// An instance, configured by environment variables.
async fn instance(home: &TempDir, port: u16, main: Option<SocketAddr>) -> (Process, SocketAddr) {
    let mut command = command(&["gateway"], home.path());
    command.env("IP", "127.0.0.1").env("PORT", port.to_string()).env("TMPDIR", home.path());
    match main {
        Some(main) => command.env("MAINIP", main.to_string()),
        None => command.env_remove("MAINIP"),
    };
    let mut process = Process::spawn(command, &home.path().join("instance.log"));
    let address = process.ready().await.unwrap();
    (process, address)
}

async fn ask(method: &str, at: SocketAddr, body: &'static str) -> (u16, Value) {
    let url = format!("http://{at}/kvs/foo");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = Http::new(false).send(method, &url, &form, body).await;
    assert_eq!(answer.field("content-type"), "application/json");
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_instance_and_one_that_forwards() {
    let home = tempfile::tempdir().unwrap();
    let (mut first, main) = instance(&home, 0, None).await;
    let (mut second, other) = instance(&home, 0, Some(main)).await;
    let missing = (404, json!({ "msg": "error", "error": "key does not exist" }));
    assert_eq!(ask("GET", other, "").await, missing);
    let written = |status, replaced| (status, json!({ "replaced": replaced, "msg": "success" }));
    assert_eq!(ask("PUT", other, "val=bart").await, written(201, 0));
    assert_eq!(ask("PUT", main, "val=lisa").await, written(200, 1));
    let read = (200, json!({ "msg": "success", "value": "lisa" }));
    for at in [main, other] {
        assert_eq!(ask("GET", at, "").await, read);
    }
    assert_eq!(ask("DELETE", other, "").await, (200, json!({ "msg": "success" })));
    assert_eq!(ask("DELETE", main, "").await, missing);
    let huge = "a".repeat(1_500_000);
    let url = format!("http://{other}/kvs/huge");
    let http = Http::new(false);
    assert_eq!(http.send("PUT", &url, &[], format!("val={huge}")).await.status, 201);
    assert_eq!(http.send("GET", &url, &[], "").await.json()["value"], huge.as_str());

    // One connection is kept throughout, as clients do.
    let url = format!("http://{other}/kvs/foo");
    for killed in [true, false] {
        if killed {
            first.kill();
        } else {
            assert!(first.stop().await.success());
        }
        let begun = Instant::now();
        for method in ["GET", "PUT", "DELETE"] {
            let answer = http.send(method, &url, &[], "val=1").await;
            let down = json!({ "msg": "error", "error": "service is not available" });
            assert_eq!((answer.status, answer.json()), (404, down));
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        (first, _) = instance(&home, main.port(), None).await;
        assert_eq!(http.send("PUT", &url, &[], "val=2").await.status, 201);
        assert_eq!(http.send("GET", &url, &[], "").await.json()["value"], "2");
    }
    assert!(second.stop().await.success());
    assert_eq!(ask("GET", main, "").await.0, 200);

    // Instances that forward to each other do not loop.
    let (_one, one) = instance(&home, 0, Some(main)).await;
    let (_other, other) = instance(&home, 0, Some(one)).await;
    assert_eq!(ask("GET", other, "").await.1["error"], "service is not available");
}
