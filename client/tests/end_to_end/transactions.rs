//! Transactions: branches, and that each is executed once, whatever dies or is lost meanwhile.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

use dkv_api::{
    Compare, Error, KeyRange, KeyspaceId, OperationResult, Relation, Role, Test, Transaction,
    TransactionOperation, Unfit,
};
use dkv_test_support::output;
use serde_json::{Value, json};

use crate::harness::direct::Direct;
use crate::harness::{Network, for_a_while};
use crate::retries::{Relayed, shard_of};

const CLIENTS: i64 = 16;
const INCREMENTS: i64 = 40;

/// Checks the exit status of a command, and returns what it printed.
fn ended(line: &[&str], ended: &Output, status: i32) -> String {
    let said = output(&ended.stderr);
    assert_eq!(ended.status.code(), Some(status), "{line:?}: {said}");
    if status != 0 {
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{line:?}: {said}");
        return said.to_owned();
    }
    output(&ended.stdout).to_owned()
}

fn value_of(result: &OperationResult) -> &[u8] {
    match result {
        OperationResult::Got(Some(version)) | OperationResult::Changed(version) => {
            version.value.as_deref().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_executes_one_of_its_branches() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let client = network.client().await;
    let order = Transaction::new()
        .when(Compare::absent("order"))
        .then(TransactionOperation::get("order"))
        .then(TransactionOperation::put("order", "bolt"))
        .then(TransactionOperation::get("order"))
        .then(TransactionOperation::increment("stock", -1))
        .otherwise(TransactionOperation::get("order"));
    let done = client.transact(order.clone()).await.unwrap();
    let results = done.results.unwrap();
    assert!(done.succeeded && done.changed);
    assert_eq!(results[0], OperationResult::Got(None));
    assert_eq!((value_of(&results[2]), value_of(&results[3])), (&b"bolt"[..], &b"-1"[..]));
    for key in ["order", "stock"] {
        assert_eq!(client.read(key).await.unwrap().receipt.revision, done.receipt.revision);
    }
    let again = client.transact(order).await.unwrap();
    assert!(!again.succeeded && !again.changed);
    assert_eq!(value_of(&again.results.unwrap()[0]), b"bolt");

    // With one shard, ranges of keys too.
    let prefix = KeyRange::Prefix("o".into());
    let all = Transaction::new()
        .when(Compare::of(prefix.clone(), Test::Version(Relation::Equal, 1)))
        .then(TransactionOperation::List { keys: prefix.clone(), keys_max: 10 })
        .then(TransactionOperation::DeleteAll(prefix));
    let results = client.transact(all).await.unwrap().results.unwrap();
    assert!(matches!(&results[0], OperationResult::Listed { keys, .. } if keys.len() == 1));
    assert_eq!(results[1], OperationResult::Deleted(1));

    // An operation that cannot be executed undoes all of it.
    client.write("word", "blue").await.unwrap();
    let unfit = Transaction::new()
        .then(TransactionOperation::put("other", "1"))
        .then(TransactionOperation::increment("word", 1));
    let unfit = client.transact(unfit).await.unwrap_err();
    assert_eq!(unfit, Error::Unfit { operation: 1, why: Unfit::NotANumber });
    assert!(matches!(client.read("other").await, Err(Error::NotFound { .. })));
    assert_eq!(client.append("word", "ish").await.unwrap(), "blueish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_a_text_for_the_command() {
    let network = Network::with(json!({ "shards": 1 }), 3).await;
    let file = network.path("transaction.txt");
    let path = file.to_str().unwrap();
    let text = "# takes a lock\nif lock absent\nthen\nput lock 'the owner'\nincrement taken\n\
        get nothing\nelse\nget lock\n";
    std::fs::write(&file, text).unwrap();
    let run = ["txn", path];
    let said = ended(&run, &network.dkv(&run).await, 0);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("then: executed at revision "), "{said}");
    assert_eq!(lines[1..], ["put lock created", "increment taken 1", "get nothing absent"]);
    let said = ended(&run, &network.dkv(&run).await, 0);
    assert!(said.starts_with("else: nothing changed") && said.contains("the owner"), "{said}");
    let run = ["txn", path, "--json"];
    let said = ended(&run, &network.dkv(&run).await, 0);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&document["command"], &document["branch"]), (&json!("txn"), &json!("else")));
    assert_eq!(document["results"][0]["value"], "the owner");

    // The JSON of HTTP is read too.
    let form = json!({
        "if": [{ "key": "lock", "exists": true }],
        "then": [{ "op": "get", "key": "lock" }],
        "encoding": "base64",
    });
    std::fs::write(&file, form.to_string()).unwrap();
    let said = ended(&run, &network.dkv(&run).await, 0);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&document["branch"], &document["changed"]), (&json!("then"), &json!(false)));
    assert_eq!(document["results"][0]["value_base64"], "dGhlIG93bmVy");

    for (line, says) in [
        (&["increment", "visits"][..], "1\n"),
        (&["increment", "visits", "-5"], "-4\n"),
        (&["append", "log", "a line"], "log has 6 bytes at revision "),
        (&["get", "visits"], "-4\n"),
    ] {
        let said = ended(line, &network.dkv(line).await, 0);
        assert!(said.starts_with(says), "{line:?}: {said}");
    }
    for (line, status, says) in [
        (&["increment", "log"][..], 1, "log was not incremented: the value is not a decimal"),
        (&["increment", ""], 2, "the key is empty"),
        (&["append", "log", "@/nowhere"], 1, "cannot read the value from /nowhere"),
        (&["txn", "/nowhere"], 1, "cannot read the transaction from /nowhere"),
    ] {
        let said = ended(line, &network.dkv(line).await, status);
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let many = format!("then\n{}", "get k\n".repeat(129));
    for (text, status, says) in [
        ("if lock absent\nthen\nput lock me\n", 4, "a condition does not hold"),
        ("if lock absent\nput lock me\n", 2, "transaction.txt, line 2: operations come after"),
        ("then\nput lock\n", 2, "line 2: put has other operands; write put KEY VALUE"),
        ("{\"then\":[{\"op\":\"put\"}]}", 2, "operation of then 1: the key is missing"),
        ("then\nput k 'v\n", 2, "line 2: a quote ' is not closed"),
        ("", 2, "line 1: the transaction ends without an operation"),
        ("then\nput k 1\ndelete k\n", 1, "the transaction writes key \"k\" twice"),
        ("then\nput '' 1\n", 1, "a key has at least one byte"),
        ("then\nput k 1\nincrement log\n", 1, "operation 2 (increment log): the value is not"),
        (&many, 1, "at most 128 operations, not 129"),
    ] {
        std::fs::write(&file, text).unwrap();
        let run = ["txn", path];
        let said = ended(&run, &network.dkv(&run).await, status);
        assert!(said.contains(says), "{text:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_are_exact_while_the_primary_dies() {
    let mut network = Network::alone(json!({}), 3).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(network.client().await);
    }
    let client = clients[0].clone();
    let counting = clients.into_iter().map(|client| {
        tokio::spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..INCREMENTS {
                sums.push(client.increment("counter", 1).await.unwrap());
                for_a_while(10).await;
            }
            sums
        })
    });
    let counting: Vec<_> = counting.collect();
    for_a_while(200).await;
    let view = client.refresh().await.unwrap();
    let primary = view.shard_of(KeyspaceId::DEFAULT, b"counter").unwrap().primary.unwrap();
    let index = network.index_of(primary);
    network.kill_node(index);
    assert!(counting.iter().any(|task| !task.is_finished()), "the death came too late");
    let mut sums = BTreeSet::new();
    for task in counting {
        sums.extend(task.await.unwrap());
    }
    // Each increment returned another sum, and none is missing.
    assert!(sums.into_iter().eq(1..=CLIENTS * INCREMENTS));
    let total = (CLIENTS * INCREMENTS).to_string();
    assert_eq!(client.read("counter").await.unwrap().value, total);
    network.start_node(index).await;
    network.settled().await;
    network.same_state().await;

    // Keys in two shards are no obstacle; a range is.
    let shard = shard_of(&client, "counter").await;
    let mut other = String::new();
    for number in 0.. {
        other = format!("other-{number}");
        if shard_of(&client, &other).await != shard {
            break;
        }
    }
    let two = Transaction::new()
        .then(TransactionOperation::increment("counter", 1))
        .then(TransactionOperation::get(&other));
    let done = client.transact(two).await.unwrap();
    assert_eq!((done.receipt.shard, done.parts.len()), (shard, 1));
    assert_eq!(client.read("counter").await.unwrap().value, (CLIENTS * INCREMENTS + 1).to_string());
    let all = KeyRange::Prefix("c".into());
    let range = Transaction::new().then(TransactionOperation::DeleteAll(all));
    let error = client.transact(range).await.unwrap_err();
    assert_eq!(error, Error::SeveralShards);
    let file = network.path("transaction.txt");
    std::fs::write(&file, format!("then\nincrement counter\nput {other} value\n")).unwrap();
    let run = ["txn", file.to_str().unwrap()];
    let said = ended(&run, &network.dkv(&run).await, 0);
    assert!(said.contains("(shard") && said.contains("from revision 1 on"), "{said}");
    let sum = (CLIENTS * INCREMENTS + 2).to_string();
    assert_eq!(client.read("counter").await.unwrap().value, sum);
    assert_eq!(client.read(&other).await.unwrap().value, "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_reply_is_lost_is_executed_once() {
    let relayed = Relayed::start().await;
    let network = &relayed.network;
    let client = network.client().await;
    let direct = Direct::join(network, Role::Client).await;
    let shard = shard_of(&client, "counter").await;
    assert_eq!(client.increment("counter", 5).await.unwrap(), 5);
    relayed.lose_replies(true);
    let writer = client.clone();
    let transact = tokio::spawn(async move {
        let add = Transaction::new()
            .when(Compare::value("counter", Relation::Equal, "5"))
            .then(TransactionOperation::increment("counter", 1))
            .timeout(Duration::from_secs(30));
        writer.transact(add).await
    });
    relayed.wait_for(&direct, shard, "counter", "6").await;
    // Long enough for the client to drop its connections and to repeat the transaction.
    for_a_while(3000).await;
    assert!(!transact.is_finished(), "the client got a reply");
    relayed.lose_replies(false);
    let done = transact.await.unwrap().unwrap();
    assert!(done.succeeded && done.changed, "a second execution would not succeed");
    assert_eq!(value_of(&done.results.unwrap()[0]), b"6");
    assert_eq!(client.read("counter").await.unwrap().value, "6");
    network.same_state().await;
}
