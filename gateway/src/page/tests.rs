//! The files of the page, and its stream of news.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::*;
use crate::limits::{READY_TIMEOUT, SUBSCRIBERS_MAX};
use crate::memory_store::{MemoryStore, ask};

async fn get(path: &str) -> crate::memory_store::TestResponse {
    ask(&MemoryStore::default(), Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_page_loads_only_its_own_files() {
    let page = get("/").await;
    let text = String::from_utf8(page.body).unwrap();
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ";
    let said = page.headers["content-security-policy"].to_str().unwrap();
    assert!(said.starts_with(policy) && !said.contains("unsafe"), "{said}");
    for (name, source) in FILES {
        let path = format!("/page/{name}");
        assert!(is_file(&path) && text.contains(&path), "{name} is not used");
        let file = get(&path).await;
        assert_eq!((file.status.as_u16(), file.body.as_slice()), (200, source.as_bytes()));
        assert!(!source.contains("://") || source.contains("http://www.w3.org/2000/svg"), "{name}");
        assert!(source.lines().count() <= 300, "{name}");
    }
    // A policy without 'unsafe-inline' forbids these.
    for inline in ["style=", " onclick=", "<style", "javascript:", "<script>"] {
        assert!(!text.contains(inline), "{inline}");
    }
    assert_eq!(get("/page/none.js").await.status, 404);
    assert!(!is_file("/page/events") && !is_file("/page/") && !is_file("/page"));
}

async fn next(body: &mut Body) -> Option<String> {
    let frame = timeout(4 * READY_TIMEOUT, body.frame()).await.expect("no news")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_page_receives_the_history_and_then_the_news() {
    let broadcaster = Arc::<Broadcaster>::default();
    let store = MemoryStore::default();
    let running = tokio::spawn(sample(
        Arc::clone(&broadcaster),
        store.clone(),
        "here".into(),
        Arc::default(),
    ));
    while !broadcaster.is_running() {
        tokio::task::yield_now().await;
    }
    let mut first = broadcaster.subscribe(None).unwrap();
    assert!(next(&mut first).await.unwrap().contains("\nevent: history\ndata: {"));
    let news = next(&mut first).await.unwrap();
    assert!(news.contains("\nevent: now\ndata: {") && news.ends_with("}\n\n"), "{news}");
    store.fail_with(dkv_api::Error::Unavailable("nobody answers".into()));
    let fails =
        |text: &str| text.contains("strong reads fail: ") && text.contains("nobody answers");
    // Each sample takes a second, and one may have begun before.
    for attempt in 0.. {
        if fails(&next(&mut first).await.unwrap()) {
            break;
        }
        assert!(attempt < 10, "no event says that reads fail");
    }
    // A page that is opened later learns of it too.
    let mut second = broadcaster.subscribe(None).unwrap();
    let past = next(&mut second).await.unwrap();
    assert!(fails(&past), "{past}");
    // The number of pages is bounded, and their streams end with the gateway.
    let more: Vec<Body> =
        (2..SUBSCRIBERS_MAX).map(|_| broadcaster.subscribe(None).unwrap()).collect();
    assert!(broadcaster.subscribe(None).is_none());
    drop(more);
    assert!(broadcaster.subscribe(None).is_some());
    broadcaster.end();
    while next(&mut first).await.is_some() {}
    assert!(broadcaster.subscribe(None).is_none());
    running.abort();
}
