//! The page's files, and what it is told.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::*;
use crate::limits::{READY_TIMEOUT, TABS_MAX};
use crate::memory_store::{Memory, ask};

async fn get(path: &str) -> crate::memory_store::Answered {
    ask(&Memory::default(), Request::get(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_page_is_its_own_files_and_nothing_else() {
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
    // What a policy without 'unsafe-inline' would not let be.
    for inline in ["style=", " onclick=", "<style", "javascript:", "<script>"] {
        assert!(!text.contains(inline), "{inline}");
    }
    assert_eq!(get("/page/none.js").await.status, 404);
    assert!(!is_file("/page/events") && !is_file("/page/") && !is_file("/page"));
}

async fn next(body: &mut Body) -> Option<String> {
    let frame = timeout(4 * READY_TIMEOUT, body.frame()).await.expect("nothing is told")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_tab_is_told_the_past_and_then_the_present() {
    let hub = Arc::<Hub>::default();
    let store = Memory::default();
    let running = tokio::spawn(run(Arc::clone(&hub), store.clone(), "here".into(), Arc::default()));
    while !hub.is_running() {
        tokio::task::yield_now().await;
    }
    let mut first = hub.tell(None).unwrap();
    assert!(next(&mut first).await.unwrap().contains("\nevent: history\ndata: {"));
    let news = next(&mut first).await.unwrap();
    assert!(news.contains("\nevent: now\ndata: {") && news.ends_with("}\n\n"), "{news}");
    store.fail_with(dkv_api::Error::Unavailable("nobody answers".into()));
    let fails =
        |text: &str| text.contains("strong reads fail: ") && text.contains("nobody answers");
    // Each look takes a second, and one may have begun before.
    for look in 0.. {
        if fails(&next(&mut first).await.unwrap()) {
            break;
        }
        assert!(look < 10, "it is not told that reads fail");
    }
    // One that is opened later learns of it too.
    let mut second = hub.tell(None).unwrap();
    let past = next(&mut second).await.unwrap();
    assert!(fails(&past), "{past}");
    // Tabs have a bound, and end with the gateway.
    let more: Vec<Body> = (2..TABS_MAX).map(|_| hub.tell(None).unwrap()).collect();
    assert!(hub.tell(None).is_none());
    drop(more);
    assert!(hub.tell(None).is_some());
    hub.end();
    while next(&mut first).await.is_some() {}
    assert!(hub.tell(None).is_none());
    running.abort();
}
