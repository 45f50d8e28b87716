//! `/set`, `/fetch` and `/query` on a network of three nodes.

use serde_json::{Value, json};

use super::Gateway;
use super::http::Http;
use crate::harness::Network;

fn key(number: usize) -> Value {
    json!({ "encoding": "string", "data": format!("key {number}") })
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_survive_the_loss_of_a_node() {
    let mut network = Network::start(3).await;
    let gateway = Gateway::start(&network).await;
    let http = Http::new(false);
    let value = json!({ "encoding": "binary", "data": "0110" });
    let pairs: Vec<Value> =
        (0..300).map(|number| json!({ "key": key(number), "value": value })).collect();
    let body = Value::Array(pairs.clone()).to_string();
    let set = http.send("PUT", &gateway.url("/set"), &[], body).await;
    let added = json!([{ "keys_added": 300, "keys_failed": [] }]);
    assert_eq!((set.status, set.json()), (200, added));

    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    let all = http.send("GET", &gateway.url("/fetch"), &[], "").await;
    let all = all.json();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 300);
    assert!(pairs.iter().all(|pair| all.contains(pair)));
    let keys = json!([key(7), key(300)]).to_string();
    let told = http.send("POST", &gateway.url("/query"), &[], keys.clone()).await;
    assert_eq!(told.status, 200);
    assert_eq!((&told.json()[0]["value"], &told.json()[1]["value"]), (&true.into(), &false.into()));
    let found = http.send("POST", &gateway.url("/fetch"), &[], keys).await;
    assert_eq!((found.status, &found.json()[0]["value"]), (206, &value));
    assert!(found.json()[1]["value"].is_null());
    assert_eq!(http.send("POST", &gateway.url("/query"), &[], "{").await.status, 400);
    assert_eq!(http.send("GET", &gateway.url("/fetch/all"), &[], "").await.status, 501);
}
