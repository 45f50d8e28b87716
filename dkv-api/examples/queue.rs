//! Pushes items and does them: `cargo run -p dkv-api --example queue -- ADDRESS push TEXT`, and
//! `… -- ADDRESS work` as often as wanted.

use std::time::Duration;

use dkv_api::recipes::Queue;
use dkv_api::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let client = Client::connect(*words.first().unwrap_or(&"127.0.0.1:4400")).await?;
    let queue = Queue::open(&client, "queue/example").await?;
    match words.as_slice() {
        [_, "push", text] => {
            println!("item {}", queue.push((*text).to_owned()).await?);
        }
        [_, "work"] => loop {
            let item = queue.take(Duration::from_secs(5)).await?;
            println!("item {}: {:?}", item.number(), item.value());
            match item.done().await {
                Ok(()) => {}
                Err(Error::NoLease { .. }) => println!("another worker does it"),
                Err(error) => return Err(error.into()),
            }
        },
        _ => println!("give ADDRESS push TEXT, or ADDRESS work"),
    }
    client.close().await;
    Ok(())
}
