//! Works under a lock: `cargo run -p dkv-api --example lock -- ADDRESS`.
//!
//! Start it several times: one works at a time, in the order in which they were started. Kill the
//! one that works: the next one goes on after its time to live.

use std::time::Duration;

use dkv_api::Client;
use dkv_api::recipes::{Lock, LockOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4400".to_owned());
    let client = Client::connect(address).await?;
    println!("waiting for the lock");
    let options = LockOptions::default().ttl(Duration::from_secs(5));
    let lock = Lock::acquire(&client, "lock/example", options).await?;
    println!("fence {}", lock.fence());
    tokio::select! {
        why = lock.lost() => println!("stopping: {why}"),
        () = tokio::time::sleep(Duration::from_secs(10)) => {
            println!("done; a store of files would refuse a fence below {}", lock.fence());
            lock.release().await?;
        }
    }
    client.close().await;
    Ok(())
}
