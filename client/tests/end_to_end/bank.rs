//! A bank whose accounts are spread over the shards: whatever dies, money is neither made nor lost,
//! and nobody sees a transfer by half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dkv_api::{
    Client, Error, KeyspaceId, OperationResult, ScanOptions, Snapshot, Transaction,
    TransactionOperation,
};
use dkv_test_support::{eventually, output};
use serde_json::json;

use crate::harness::{Network, for_a_while};

const ACCOUNTS: u64 = 12;
const OPENING: i64 = 100;
const TELLERS: u64 = 6;

fn account(number: u64) -> String {
    format!("account-{number:02}")
}

fn number(value: &[u8]) -> i64 {
    output(value).parse().unwrap()
}

/// Moves money until told to stop, by one command or by a function that reads first. Returns how
/// often it did.
async fn transfers(client: Client, teller: u64, stop: Arc<AtomicBool>) -> u64 {
    let (mut round, mut done) = (teller, 0);
    while !stop.load(Ordering::SeqCst) {
        round += TELLERS;
        let from = account(round % ACCOUNTS);
        let to = account((round * 7 + 1 + teller) % ACCOUNTS);
        if from == to {
            continue;
        }
        let moved = if round.is_multiple_of(2) {
            let transfer = Transaction::new()
                .then(TransactionOperation::increment(&from, -3))
                .then(TransactionOperation::increment(&to, 3));
            client.transact(transfer).await.map(|done| assert!(done.succeeded))
        } else {
            let (from, to) = (&from, &to);
            let moved = client.transaction(|open| async move {
                let (there, here) = (open.get(from).await?, open.get(to).await?);
                let (there, here) = (number(&there.unwrap()), number(&here.unwrap()));
                open.put(from, (there - 5).to_string());
                open.put(to, (here + 5).to_string());
                Ok::<(), Error>(())
            });
            moved.await
        };
        match moved {
            Ok(()) => done += 1,
            // Such a transfer happened or did not, as a whole.
            Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    done
}

/// Returns the sum of all accounts, as one transaction reads them.
async fn audited(client: &Client) -> Result<i64, Error> {
    let all = (0..ACCOUNTS).fold(Transaction::new(), |all, number| {
        all.then(TransactionOperation::get(account(number)))
    });
    // A repetition after a failover says only that it was executed.
    let Some(results) = client.transact(all).await?.results else {
        return Err(Error::Unavailable("the results are forgotten".into()));
    };
    let balances = results.iter().map(|result| match result {
        OperationResult::Got(Some(version)) => number(version.value.as_deref().unwrap()),
        other => panic!("{other:?}"),
    });
    Ok(balances.sum())
}

async fn sum_of(snapshot: &Snapshot) -> Result<i64, Error> {
    let mut scan = snapshot.scan(ScanOptions::prefix("account-"));
    let (mut sum, mut accounts) = (0, 0);
    while let Some(pair) = scan.next().await? {
        sum += number(&pair.value.unwrap());
        accounts += 1;
    }
    assert_eq!(accounts, ACCOUNTS);
    Ok(sum)
}

/// Looks at the sum until told to stop, in two ways. Returns how often it saw it.
async fn audits(client: Client, stop: Arc<AtomicBool>, seen: Arc<AtomicU64>) {
    const ALL: i64 = OPENING * ACCOUNTS as i64;
    while !stop.load(Ordering::SeqCst) {
        match audited(&client).await {
            Ok(sum) => {
                assert_eq!(sum, ALL, "a transaction saw half of a transfer");
                seen.fetch_add(1, Ordering::SeqCst);
            }
            Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let snapshot = match client.snapshot().await {
            Ok(snapshot) => sum_of(&snapshot).await,
            Err(error) => Err(error),
        };
        match snapshot {
            Ok(sum) => {
                assert_eq!(sum, ALL, "a snapshot shows half of a transfer");
                seen.fetch_add(1, Ordering::SeqCst);
            }
            Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost_while_primaries_die() {
    let mut network = Network::with(json!({ "shards": 4 }), 3).await;
    let client = network.client().await;
    for number in 0..ACCOUNTS {
        client.write(account(number), OPENING.to_string()).await.unwrap();
    }
    let view = client.refresh().await.unwrap();
    let shards: std::collections::BTreeSet<_> = (0..ACCOUNTS)
        .map(|number| view.shard_of(KeyspaceId::DEFAULT, account(number).as_bytes()).unwrap().group)
        .collect();
    assert!(shards.len() >= 3, "{shards:?}");
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tellers = Vec::new();
    for teller in 0..TELLERS {
        let client = network.client().await;
        tellers.push(tokio::spawn(transfers(client, teller, Arc::clone(&stop))));
    }
    let auditor = network.client().await;
    let auditing = tokio::spawn(audits(auditor, Arc::clone(&stop), Arc::clone(&seen)));
    for round in 0..3 {
        for_a_while(1000).await;
        let view = client.refresh().await.unwrap();
        let shard = view.shards.iter().filter(|shard| shard.primary.is_some()).nth(round).unwrap();
        let index = network.index_of(shard.primary.unwrap());
        network.kill_node(index);
        for_a_while(1500).await;
        network.start_node(index).await;
        network.settled().await;
    }
    eventually("the accounts are not audited", async || match seen.load(Ordering::SeqCst) {
        0 | 1 => Err("fewer than two audits have ended".to_owned()),
        _ => Ok(()),
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let mut moved = 0;
    for teller in tellers {
        moved += teller.await.unwrap();
    }
    auditing.await.unwrap();
    let seen = seen.load(Ordering::SeqCst);
    assert!(moved >= 20 && seen >= 2, "{moved} transfers, {seen} audits");
    // No lock stays.
    eventually("the accounts stay locked", async || match audited(&client).await {
        Ok(sum) if sum == OPENING * ACCOUNTS as i64 => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    network.settled().await;
    network.same_state().await;
    println!("{moved} transfers, {seen} audits");
}
