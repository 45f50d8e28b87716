//! Leases, times to live and locks on real networks, over the death of holders and coordinators.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use dkv_api::recipes::{
    Elections, Leadership, Lock, LockOptions, Queue, RateCounter, Registration, instances, leader,
};
use dkv_api::{
    Attach, Client, Compare, Error, LeaseId, Lifetime, Relation, Revision, ScanOptions,
    Transaction, TransactionOperation, Unfit, WriteOptions,
};
use dkv_test_support::{output, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::harness::process::command;
use crate::harness::{Network, eventually, for_a_while};

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(20);

fn text(ended: &Output) -> &str {
    assert!(ended.status.success(), "{}", output(&ended.stderr));
    output(&ended.stdout)
}

async fn exists(file: &Path) {
    eventually("the lock is not held", async || match file.exists() {
        true => Ok(()),
        false => Err("no file".to_owned()),
    })
    .await;
}

async fn is_gone(client: &Client, key: &str) {
    eventually("a key outlives its time", async || match client.read(key).await {
        Err(Error::NotFound { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_end_with_their_time_or_their_lease() {
    let network = Network::start(3).await;
    let client = network.client().await;
    let ttl = WriteOptions::default().ttl(2 * SECOND);
    let begun = Instant::now();
    client.write_with("short", "v", ttl).await.unwrap();
    let Lifetime::Ttl { ttl, remaining } = client.ttl("short").await.unwrap() else { panic!() };
    assert!(ttl == 2 * SECOND && remaining <= ttl, "{remaining:?}");
    assert_eq!(
        client.ttl("none").await.map_err(|error| error.to_string()),
        Err("key not found".into())
    );

    // One lease has keys in several shards.
    let lease = client.grant_lease(60 * SECOND).await.unwrap();
    let keys: Vec<String> = (0..20).map(|number| format!("leased/{number:02}")).collect();
    for key in &keys {
        client.write_with(key, "v", WriteOptions::default().lease(lease)).await.unwrap();
    }
    let put = TransactionOperation::put_attached("leased/txn", "v", Attach::Lease(lease));
    client.transact(Transaction::new().then(put)).await.unwrap();
    let info = client.lease(lease).await.unwrap();
    assert_eq!((info.keys, info.missing.len(), info.ttl), (21, 0, 60 * SECOND));
    assert_eq!(client.leases().await.unwrap().len(), 1);
    let found = client.lease_keys(lease, 5).await.unwrap();
    assert_eq!(
        (found.keys.len(), found.more, found.keys[0].as_ref()),
        (5, true, &b"leased/00"[..])
    );
    assert!(
        matches!(client.ttl("leased/00").await, Ok(Lifetime::Lease { lease: id, .. }) if id == lease)
    );
    // A plain put frees a key of its lease.
    client.write("leased/00", "w").await.unwrap();
    assert_eq!(client.ttl("leased/00").await, Ok(Lifetime::Unlimited));
    assert_eq!(client.refresh_lease(lease).await, Ok(60 * SECOND));
    assert_eq!(client.revoke_lease(lease).await, Ok(20));
    for key in &keys[1..] {
        assert!(matches!(client.read(key).await, Err(Error::NotFound { .. })), "{key}");
    }
    assert_eq!(client.read("leased/00").await.unwrap().value, "w");
    for ended in [
        client.revoke_lease(lease).await.unwrap_err(),
        client.lease(lease).await.unwrap_err(),
        client.refresh_lease(lease).await.unwrap_err(),
        client.keep_lease(lease).await.unwrap_err(),
        client.write_with("k", "v", WriteOptions::default().lease(lease)).await.unwrap_err(),
    ] {
        assert_eq!(ended, Error::NoLease { lease });
    }
    let put = TransactionOperation::put_attached("k", "v", Attach::Lease(lease));
    let unfit = client.transact(Transaction::new().then(put)).await.unwrap_err();
    assert_eq!(unfit, Error::Unfit { operation: 0, why: Unfit::NoLease });
    let out = client.grant_lease(Duration::from_millis(999)).await.unwrap_err();
    assert!(matches!(out, Error::TtlOutOfBounds { .. }), "{out}");

    is_gone(&client, "short").await;
    assert!(begun.elapsed() >= 2 * SECOND, "it ended early, after {:?}", begun.elapsed());
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_while_the_coordinator_dies() {
    let mut network = Network::alone(json!({}), 3).await;
    let client = network.client().await;
    let keeper = client.hold_lease(3 * SECOND).await.unwrap();
    let lease = keeper.id();
    client.write_with("held", "v", WriteOptions::default().lease(lease)).await.unwrap();
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    for _ in 0..16 {
        for_a_while(500).await;
        assert!(!keeper.is_lost());
        assert_eq!(client.read("held").await.unwrap().value, "v");
    }
    network.start_node(coordinator).await;
    // The lease ends once its keeper is dropped.
    drop(keeper);
    is_gone(&client, "held").await;
    // The shards end it one by one.
    eventually("a shard keeps the lease", async || match client.lease(lease).await {
        Err(Error::NoLease { .. }) => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    // A client that revokes it ends it for its keeper.
    let keeper = client.hold_lease(3 * SECOND).await.unwrap();
    client.revoke_lease(keeper.id()).await.unwrap();
    let lost = within(SOON, "the loss", keeper.lost()).await;
    assert_eq!(lost, Error::NoLease { lease: keeper.id() });
    assert!(keeper.is_lost() && keeper.remaining().is_zero());
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_leases() {
    let network = Network::start(1).await;
    let run = async |line: &[&str]| network.dkv(line).await;
    let json = async |line: &[&str]| -> Value {
        let ended = network.dkv(&[line, &["--output", "json"]].concat()).await;
        serde_json::from_str(text(&ended).lines().next().unwrap_or("null")).unwrap()
    };
    text(&run(&["put", "session", "Ada", "--ttl", "1h"]).await);
    let said = json(&["ttl", "session"]).await;
    assert_eq!((&said["ttl_ms"], &said["lease"]), (&json!(3_600_000), &Value::Null));
    assert!(said["remaining_ms"].as_u64().unwrap() <= 3_600_000);
    let granted = run(&["lease", "grant", "1m"]).await;
    let id = text(&granted).trim().to_owned();
    assert!(id.parse::<LeaseId>().is_ok(), "{id}");
    text(&run(&["insert", "mine", "v", "--lease", &id]).await);
    assert!(text(&run(&["ttl", "mine"]).await).starts_with(&format!("as long as lease {id}, ")));
    text(&run(&["put", "plain", "v"]).await);
    assert_eq!(text(&run(&["ttl", "plain"]).await), "until it is deleted\n");
    let said = json(&["lease", "list"]).await;
    assert_eq!((&said["lease"], &said["keys"]), (&json!(id), &json!(1)));
    let said = json(&["lease", "show", &id]).await;
    assert_eq!(
        (&said["command"], &said["first_keys"]),
        (&json!("lease show"), &json!([{ "key": "mine" }]))
    );
    let said = text(&run(&["lease", "revoke", &id]).await).to_owned();
    assert_eq!(said, format!("lease {id} has ended; 1 key deleted\n"));
    for (line, status, says) in [
        (&["ttl", "mine"][..], 3, "key not found: mine"),
        (&["lease", "show", &id], 3, "does not exist; it may have ended"),
        (&["lease", "keep", &id], 3, "does not exist; it may have ended"),
        (&["put", "k", "v", "--lease", &id], 4, "k was not written: lease"),
        (&["put", "k", "v", "--ttl", "1ms"], 2, "a time to live of 1ms is out of bounds"),
        (&["put", "k", "v", "eventual", "--ttl", "1s"], 2, "an eventual write takes no time"),
        (&["lease", "grant", "500ms"], 2, "is out of bounds: it is from 1s to 3650 days"),
        (&["lease", "revoke", "x"], 2, "a lease id is a hexadecimal number"),
    ] {
        let ended = run(line).await;
        let said = output(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{line:?}: {said}");
        assert!(said.contains(says), "{line:?}: {said}");
    }
    // Keeping ends with Ctrl-C, and with the lease.
    let client = network.client().await;
    let lease = client.grant_lease(2 * SECOND).await.unwrap();
    let server = network.address.to_string();
    let keep = |id: LeaseId| {
        let id = id.to_string();
        let words = [server.as_str(), "lease", "keep", &id];
        let mut command = Command::from(command(&words, &network.home()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap()
    };
    let kept = keep(lease);
    for_a_while(5000).await;
    assert!(client.lease(lease).await.unwrap().remaining > Duration::ZERO);
    kill(Pid::from_raw(kept.id().unwrap() as i32), Signal::SIGINT).unwrap();
    assert!(kept.wait_with_output().await.unwrap().status.success());
    let lease = client.grant_lease(60 * SECOND).await.unwrap();
    let kept = keep(lease);
    for_a_while(1000).await;
    client.revoke_lease(lease).await.unwrap();
    // The keeper learns it when it next keeps the lease alive.
    let lease = client.grant_lease(3 * SECOND).await.unwrap();
    let short = keep(lease);
    for_a_while(1000).await;
    client.revoke_lease(lease).await.unwrap();
    let ended = within(SOON, "the end of keep", short.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", output(&ended.stderr));
    kill(Pid::from_raw(kept.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    assert!(kept.wait_with_output().await.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_after_the_other() {
    let mut network = Network::alone(json!({}), 3).await;
    let client = network.client().await;
    let options = || LockOptions::default().ttl(3 * SECOND);
    let first = Lock::acquire(&client, "lock/a", options()).await.unwrap();
    assert!(Lock::try_acquire(&client, "lock/a", options()).await.unwrap().is_none());
    // A lock whose name begins with that of another one is another one.
    let other = Lock::try_acquire(&client, "lock/a/b", options()).await.unwrap();
    other.unwrap().release().await.unwrap();
    let stopped = Lock::acquire_until(&client, "lock/a", options(), for_a_while(300)).await;
    assert_eq!(stopped.unwrap().map(|lock| lock.fence()), Err(()));

    // Those that wait get it in their order, and each while nobody else has it.
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let own = network.client().await;
        waiting.push(tokio::spawn(async move {
            let lock = Lock::acquire(&own, "lock/a", options()).await.unwrap();
            let begun = Instant::now();
            let inside = own.increment("inside", 1).await.unwrap();
            assert_eq!(inside, 1, "two are inside");
            for_a_while(300).await;
            let left = Transaction::new()
                .when(lock.condition())
                .then(TransactionOperation::increment("inside", -1));
            // The key and the lock may be in different shards.
            match own.transact(left).await {
                Ok(done) => assert!(done.succeeded),
                Err(Error::SeveralShards) => {
                    own.increment("inside", -1).await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            assert!(!lock.is_lost());
            let fence = lock.fence();
            lock.release().await.unwrap();
            (fence, begun)
        }));
        for_a_while(100).await;
    }
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    let fence = first.fence();
    first.release().await.unwrap();
    let mut held = Vec::new();
    for task in waiting {
        held.push(within(SOON, "the lock", task).await.unwrap());
    }
    // The fence is the place in the queue: a slow machine may have let one in before an earlier
    // task.
    held.sort_by_key(|(fence, _)| *fence);
    assert!(held[0].0 > fence);
    assert!(held.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1), "{held:?}");
    network.start_node(coordinator).await;

    // A holder loses the lock with its lease.
    let lock = Lock::acquire(&client, "lock/a", options()).await.unwrap();
    let paused = lock.condition();
    client.revoke_lease(lock.lease()).await.unwrap();
    let next = Lock::try_acquire(&client, "lock/a", options()).await.unwrap().unwrap();
    assert!(next.fence() > lock.fence());
    let late = Transaction::new().when(paused).otherwise(TransactionOperation::get("x"));
    if let Ok(done) = client.transact(late).await {
        assert!(!done.succeeded, "a holder that was paused went on");
    }
    assert!(matches!(within(SOON, "the loss", lock.lost()).await, Error::NoLease { .. }));
    next.release().await.unwrap();
    eventually("leases are left", async || match client.leases().await {
        Ok(leases) if leases.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_recipes() {
    let network = Network::start(3).await;
    let client = network.client().await;
    // An election.
    let mut elections = Elections::new(&client, "election/e").await.unwrap();
    assert_eq!(elections.next().await, Ok(None));
    let ttl = 3 * SECOND;
    let one = Leadership::campaign(&client, "election/e", "one", ttl).await.unwrap();
    assert_eq!(elections.next().await.unwrap().unwrap().value, "one");
    let own = client.clone();
    let two =
        tokio::spawn(async move { Leadership::campaign(&own, "election/e", "two", ttl).await });
    for_a_while(500).await;
    assert_eq!(leader(&client, "election/e").await.unwrap().unwrap().term, one.term());
    let term = one.term();
    one.resign().await.unwrap();
    let two = within(SOON, "the election", two).await.unwrap().unwrap();
    let shown = within(SOON, "the news", elections.next()).await.unwrap().unwrap();
    assert_eq!((shown.value.as_ref(), shown.term), (&b"two"[..], two.term()));
    assert!(two.term() > term);
    drop(two);
    assert_eq!(within(SOON, "the news", elections.next()).await, Ok(None));

    // Registrations.
    let mut web = Registration::new(&client, "service", "web", "1", ttl).await.unwrap();
    let api = Registration::new(&client, "service", "api", "2", ttl).await.unwrap();
    web.update("3").await.unwrap();
    let list = async || {
        let all = instances(&client, "service").await.unwrap();
        all.into_iter().map(|it| (it.name, it.value)).collect::<Vec<_>>()
    };
    assert_eq!(list().await, [("api".into(), "2".into()), ("web".into(), "3".into())]);
    api.withdraw().await.unwrap();
    assert_eq!(list().await, [("web".into(), "3".into())]);
    let mut again = Registration::new(&client, "service", "web", "4", ttl).await.unwrap();
    assert!(matches!(web.update("5").await, Err(Error::NoLease { .. })));
    drop(web);
    for_a_while(500).await;
    assert_eq!(list().await, [("web".into(), "4".into())]);
    again.update("6").await.unwrap();

    // A queue: each item is done once, although a worker gives some back.
    let queue = Queue::open(&client, "queue/q").await.unwrap();
    for number in 1..=30_u64 {
        assert_eq!(queue.push(number.to_string()).await, Ok(number));
    }
    let workers = (0..3).map(|worker| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let (mut done, mut seen) = (Vec::new(), 0);
            while let Some(item) = queue.try_take(ttl).await.unwrap() {
                seen += 1;
                if worker == 0 && seen == 2 {
                    item.give_back().await.unwrap();
                    continue;
                }
                done.push(item.number());
                item.done().await.unwrap();
            }
            done
        })
    });
    let mut done = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        done.extend(within(4 * SOON, "a worker", worker).await.unwrap());
    }
    done.sort_unstable();
    assert!(done.into_iter().eq(1..=30));
    let waiting = queue.clone();
    let waiting = tokio::spawn(async move { waiting.take(ttl).await });
    for_a_while(300).await;
    queue.push("late").await.unwrap();
    let item = within(SOON, "the item", waiting).await.unwrap().unwrap();
    assert_eq!((item.value().as_ref(), item.number()), (&b"late"[..], 31));
    // A worker that was cut off for too long does not do it a second time.
    client.revoke_lease(item.lease().unwrap()).await.unwrap();
    let next = within(SOON, "the item", queue.take(ttl)).await.unwrap();
    assert!(next.fence() > item.fence());
    next.done().await.unwrap();
    assert!(matches!(item.done().await, Err(Error::NoLease { .. })));

    // A rate.
    let rate = RateCounter::new(&client, "rate/r", 2 * SECOND).unwrap();
    let begun = Instant::now();
    for count in 1..=5 {
        let said = rate.add(1).await.unwrap();
        assert!(said == count || begun.elapsed() > 2 * SECOND, "{said}");
    }
    is_gone(&client, "rate/r").await;
    assert!(begun.elapsed() >= 2 * SECOND);
    assert_eq!(rate.add(3).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_while_it_has_the_lock() {
    let mut network = Network::alone(json!({}), 3).await;
    let client = network.client().await;
    let server = network.address.to_string();
    let home = network.home();
    let lock = |more: &[&str], script: &str| {
        let words = [&[server.as_str(), "lock", "job"], more, &["--", "sh", "-c", script]].concat();
        let mut command = Command::from(command(&words, &home));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap()
    };
    let run = async |more: &[&str], script: &str| {
        within(SOON, "dkv lock", lock(more, script).wait_with_output()).await.unwrap()
    };
    // The command knows the lock, and its status is passed on.
    let ended = run(&[], "echo $DKV_LOCK $DKV_LOCK_FENCE $DKV_LOCK_LEASE; exit 7").await;
    assert_eq!(ended.status.code(), Some(7), "{}", output(&ended.stderr));
    let said: Vec<&str> = output(&ended.stdout).split_whitespace().collect();
    let fence: u64 = said[1].parse().unwrap();
    assert!(said[0] == "job" && said[2].parse::<LeaseId>().is_ok(), "{said:?}");
    assert_eq!(run(&[], "kill -9 $$").await.status.code(), Some(137));
    let words = [server.as_str(), "lock", "job", "--", "/nowhere"];
    let mut nothing = Command::from(command(&words, &home));
    let ended = nothing.output().await.unwrap();
    assert_eq!(ended.status.code(), Some(127), "{}", output(&ended.stderr));

    // Others wait in their order; the death of the coordinator changes nothing.
    let file = network.path("order");
    let write = |name: &str| format!("echo {name} $DKV_LOCK_FENCE >> {}; sleep 1", file.display());
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(lock(&["--ttl", "3s"], &write(name)));
        for_a_while(400).await;
    }
    let refused = run(&["--no-wait"], "true").await;
    assert_eq!(refused.status.code(), Some(4), "{}", output(&refused.stderr));
    let refused = run(&["--wait", "100ms"], "true").await;
    assert_eq!(refused.status.code(), Some(4), "{}", output(&refused.stderr));
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    for one in all {
        let ended = within(SOON, "dkv lock", one.wait_with_output()).await.unwrap();
        assert!(ended.status.success(), "{}", output(&ended.stderr));
    }
    network.start_node(coordinator).await;
    let order = std::fs::read_to_string(&file).unwrap();
    let order: Vec<(&str, u64)> = order
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, fence)| (name, fence.parse().unwrap()))
        .collect();
    assert_eq!(order.iter().map(|(name, _)| *name).collect::<String>(), "abc");
    assert!(fence < order[0].1 && order[0].1 < order[1].1 && order[1].1 < order[2].1);

    // A holder that is killed is followed once its time is over.
    let held = network.path("held");
    let mut holder = lock(&["--ttl", "2s"], &format!("touch {}; exec sleep 3", held.display()));
    exists(&held).await;
    holder.start_kill().unwrap();
    assert_eq!(holder.wait().await.unwrap().signal(), Some(9));
    let begun = Instant::now();
    assert!(run(&[], "true").await.status.success());
    assert!(begun.elapsed() > SECOND / 2, "{:?}", begun.elapsed());

    // The loss of the lock ends the command, at the latest with SIGKILL.
    let lost = network.path("lost");
    let script = format!(
        "echo $DKV_LOCK_LEASE > {}; trap '' TERM; while :; do sleep 1; done",
        lost.display()
    );
    let stubborn = lock(&["--ttl", "2s", "--grace", "500ms"], &script);
    let lease = eventually("the lock is not held", async || {
        let text = std::fs::read_to_string(&lost).unwrap_or_default();
        text.trim().parse::<LeaseId>().map_err(|error| error.to_string())
    })
    .await;
    client.revoke_lease(lease).await.unwrap();
    let ended = within(SOON, "dkv lock", stubborn.wait_with_output()).await.unwrap();
    let said = output(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{said}");
    assert!(said.contains("was lost while the command ran") && said.contains("SIGKILL"), "{said}");

    // Ctrl-C ends the command, and the lock is free at once.
    let trapped = network.path("trapped");
    let script =
        format!("trap 'exit 3' INT; touch {}; while :; do sleep 0.1; done", trapped.display());
    let interrupted = lock(&["--ttl", "60s"], &script);
    exists(&trapped).await;
    let waiting = lock(&["--ttl", "60s"], "true");
    for_a_while(1000).await;
    kill(Pid::from_raw(waiting.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let ended = within(SOON, "dkv lock", waiting.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", output(&ended.stderr));
    kill(Pid::from_raw(interrupted.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let ended = within(SOON, "dkv lock", interrupted.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", output(&ended.stderr));
    let free = Lock::try_acquire(&client, "lock/job", LockOptions::default()).await.unwrap();
    free.expect("the lock is free").release().await.unwrap();
}

/// A process that has a lock stands still for longer than its time, and does not know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_paused_is_fenced_off() {
    let network = Network::alone(json!({ "shards": 2 }), 3).await;
    let client = network.client().await;
    let (server, home, held) = (network.address.to_string(), network.home(), network.path("held"));
    let script = format!("echo $DKV_LOCK_FENCE $DKV_LOCK_LEASE > {}; sleep 60", held.display());
    let words = [server.as_str(), "lock", "job", "--ttl", "2s", "--", "sh", "-c", &script];
    let mut command = Command::from(command(&words, &home));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let holder = command.kill_on_drop(true).spawn().unwrap();
    let (fence, lease) = eventually("the lock is not held", async || {
        let text = std::fs::read_to_string(&held).unwrap_or_default();
        let (fence, lease) = text.trim().split_once(' ').ok_or("nothing yet")?;
        Ok((Revision(fence.parse().unwrap()), lease.to_owned()))
    })
    .await;
    // What the command changes in the network, it changes under this condition.
    let mut scan = client.scan(ScanOptions::prefix("lock/job/"));
    let own = scan.next().await.unwrap().unwrap();
    assert!(output(&own.key).contains(&lease) && own.revision == fence, "{own:?}");
    let write = async |value: &str| {
        let write = Transaction::new()
            .when(Compare::created(&own.key, Relation::Equal, fence))
            .then(TransactionOperation::put("resource", value.to_owned()));
        client.transact(write).await.unwrap().succeeded
    };
    assert!(write("of the first").await);
    let process = Pid::from_raw(holder.id().unwrap() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    let paused = Instant::now();
    let options = LockOptions::default().ttl(10 * SECOND);
    let next = within(SOON, "the next holder", Lock::acquire(&client, "lock/job", options)).await;
    let next = next.unwrap();
    assert!(paused.elapsed() > SECOND, "the lock ended early: {:?}", paused.elapsed());
    assert!(next.fence() > fence);
    let taken = Transaction::new()
        .when(next.condition())
        .then(TransactionOperation::put("resource", "of the next"));
    assert!(client.transact(taken).await.unwrap().succeeded);
    // The command of the first goes on all the while, and changes nothing.
    assert!(!write("of the first again").await);
    assert_eq!(client.read("resource").await.unwrap().value, "of the next");
    kill(process, Signal::SIGCONT).unwrap();
    let ended =
        within(SOON, "the holder that was paused", holder.wait_with_output()).await.unwrap();
    let said = output(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{said}");
    assert!(said.contains("was lost while the command ran"), "{said}");
    assert!(!next.is_lost());
    next.release().await.unwrap();
}
