//! The description of the interface, compared with the routes, and `OPTIONS *`.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::memory_store::{MemoryStore, TestResponse, ask};

async fn send(method: &str, path: &str) -> TestResponse {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    ask(&MemoryStore::default(), request).await
}

#[tokio::test]
async fn the_description_agrees_with_the_routes() {
    let description: Value =
        serde_json::from_slice(&send("GET", "/openapi.json").await.body).unwrap();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() >= 8, "{:?}", paths.keys());
    for (path, described) in paths {
        let path = path.replace("{key}", "k");
        // PATCH is supported nowhere, so its refusal lists the supported methods.
        let refused = send("PATCH", &path).await;
        assert_eq!(refused.status, 405, "{path}");
        let allowed: Vec<&str> = refused.field("allow").split(", ").collect();
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            // A description of GET covers HEAD.
            let name = if method == "HEAD" { "get" } else { &method.to_lowercase() };
            let is_described = described.get(name).is_some();
            assert_eq!(allowed.contains(&method), is_described, "{method} {path}");
            let is_served = send(method, &path).await.status != 405;
            assert_eq!(is_served, is_described, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn options_of_the_whole_server_lists_all_methods() {
    let answer = send("OPTIONS", "*").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(answer.field("allow"), "GET, HEAD, PUT, POST, DELETE, OPTIONS");
    assert_eq!(send("GET", "*").await.status, 404);
    assert_eq!(send("OPTIONS", "/nothing").await.status, 404);
}
