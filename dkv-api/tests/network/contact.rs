//! First contact: credentials, tokens, and a server that is another, down or empty.

use std::time::{Duration, Instant, SystemTime};

use dkv_wire::certificate::Credentials;

use crate::fake::{Act, Fake, credentials_of};
use dkv_api::{Client, ConnectError, Error, Identity, Role};

#[tokio::test]
async fn a_stored_certificate_is_used_instead_of_a_token() {
    let fake = Fake::start(1).await;
    let first = fake.builder().connect().await.unwrap();
    let again = fake.builder().connect().await.unwrap();
    assert_eq!(first.identity(), again.identity());
    assert_eq!(fake.joined.lock().unwrap().len(), 1);
    let admin = fake.builder().role(Role::Admin).connect().await.unwrap();
    assert_eq!(admin.identity().role, Role::Admin);
    assert_eq!(fake.joined.lock().unwrap().len(), 2);
}

/// A server was stopped, its data thrown away, and another network started at its address.
#[tokio::test]
async fn another_network_at_the_same_address_is_joined_anew() {
    let old = Fake::start(1).await;
    old.builder().connect().await.unwrap().write("k", "old").await.unwrap();
    let new = Fake::start_at(1, "127.0.0.1:0".parse().unwrap(), Some(old.home.clone())).await;
    // The new one has a port of its own here; what is remembered of the old one's is moved there.
    let known = |port: u16| old.home.join("known").join(format!("127.0.0.1_{port}"));
    std::fs::copy(known(old.address.port()), known(new.address.port())).unwrap();
    let client = new.builder().connect().await.unwrap();
    assert_eq!(client.identity().network, new.network);
    assert!(matches!(client.read("k").await, Err(Error::NotFound { .. })));
    let again = new.builder().connect().await.unwrap();
    assert_eq!(again.identity(), client.identity(), "what was stale is stale no more");
}

#[tokio::test]
async fn an_old_certificate_is_renewed_also_after_its_end() {
    let fake = Fake::start(1).await;
    let identity = fake.builder().connect().await.unwrap().identity();
    let directory = dkv_wire::local::credentials_dir(&fake.home, fake.network, Role::Client);
    let age = |days: u64| age(&fake, identity, days);
    age(5);
    let client = fake.builder().connect().await.unwrap();
    assert_eq!(client.identity(), identity);
    let renewed = Credentials::load(&directory).unwrap().unwrap();
    assert!(renewed.age(SystemTime::now()).unwrap() < Duration::from_secs(60));
    client.write("k", "v").await.unwrap();
    // The proof of its key is enough: no token is used, and the holder is the same.
    age(15);
    let client = fake.builder().connect().await.unwrap();
    assert_eq!(client.identity(), identity);
    client.write("k", "v").await.unwrap();
    assert_eq!(fake.joined.lock().unwrap().len(), 1);
    let kept = Credentials::load(&directory).unwrap().unwrap();
    assert!(kept.age(SystemTime::now()).unwrap() < Duration::from_secs(60));
}

/// As if its certificate had been issued that long ago.
fn age(fake: &Fake, identity: Identity, days: u64) {
    let issued = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    let directory = dkv_wire::local::credentials_dir(&fake.home, fake.network, identity.role);
    credentials_of(&fake.authority, identity, issued).save(&directory).unwrap();
}

#[tokio::test]
async fn stored_credentials_that_cannot_be_used_are_named_and_kept() {
    let fake = Fake::start(1).await;
    let identity = fake.builder().connect().await.unwrap().identity();
    let directory = dkv_wire::local::credentials_dir(&fake.home, fake.network, Role::Client);
    let names = ["certificate.der", "key.der", "authority.der"];
    let whole = names.map(|name| std::fs::read(directory.join(name)).unwrap());
    for (name, whole) in names.iter().zip(&whole) {
        let file = directory.join(name);
        let fails = async |what: &str| {
            let error = fake.builder().connect().await.err();
            let Some(error @ ConnectError::Stored { .. }) = error else {
                panic!("{name} is {what}: {error:?}")
            };
            let said = error.to_string();
            assert!(said.starts_with(file.to_str().unwrap()), "{what}: {said}");
            let advice = format!("to join anew, move the directory {} away", directory.display());
            assert!(said.ends_with(&advice), "{what}: {said}");
        };
        for content in [&b""[..], b"garbage", &whole[..whole.len() / 2]] {
            std::fs::write(&file, content).unwrap();
            fails("spoiled").await;
            assert_eq!(std::fs::read(&file).unwrap(), content, "it was written over");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        fails("a directory").await;
        std::fs::remove_dir(&file).unwrap();
        std::os::unix::fs::symlink("gone", &file).unwrap();
        fails("a link to nothing").await;
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, whole).unwrap();
    }
    // Only root can give files away.
    let key = directory.join("key.der");
    if std::os::unix::fs::chown(&key, Some(65_534), None).is_ok() {
        let said = fake.builder().connect().await.map(drop).unwrap_err().to_string();
        assert!(said.contains("key.der: it belongs to user 65534"), "{said}");
        std::os::unix::fs::chown(&key, Some(0), None).unwrap();
    }
    assert_eq!(fake.builder().connect().await.unwrap().identity(), identity);
    // The memory of the address is gone as well: it joins, and still writes nothing over.
    std::fs::write(&key, "garbage").unwrap();
    std::fs::remove_dir_all(fake.home.join("known")).unwrap();
    assert_eq!(fake.joined.lock().unwrap().len(), 1);
    let _ = fake.builder().connect().await.unwrap();
    assert_eq!(std::fs::read(&key).unwrap(), b"garbage");
}

#[tokio::test]
async fn an_expired_certificate_that_gets_no_new_one_says_why() {
    let fake = Fake::start(1).await;
    let identity = fake.builder().connect().await.unwrap().identity();
    age(&fake, identity, 15);
    // Only the server can help, and it is not there.
    let node = fake.nodes[0].address.to_string();
    let known = |address: std::net::SocketAddr| {
        fake.home.join("known").join(format!("127.0.0.1_{}", address.port()))
    };
    std::fs::copy(known(fake.address), known(fake.nodes[0].address)).unwrap();
    let by_node = Client::builder().node(node).home(&fake.home).connect().await;
    assert!(matches!(by_node, Err(ConnectError::Expired { .. })), "{by_node:?}");
    let why = by_node.unwrap_err().to_string();
    assert!(why.contains("has expired; connect once by the address of the registration"), "{why}");

    // The holder was revoked meanwhile, and is not joined under another name either.
    fake.acceptor.set_denied([identity.holder]);
    let revoked = fake.builder().connect().await;
    let Err(ConnectError::Denied(why)) = revoked else { panic!("{revoked:?}") };
    assert!(why.contains("expired") && why.contains("was removed from the network"), "{why}");
    assert_eq!(fake.joined.lock().unwrap().len(), 1);
    fake.acceptor.set_denied([]);

    // Another network has taken the server's place: that one is joined.
    let other = Fake::start_at(1, "127.0.0.1:0".parse().unwrap(), Some(fake.home.clone())).await;
    std::fs::copy(known(fake.address), known(other.address)).unwrap();
    let client = other.builder().connect().await.unwrap();
    assert_eq!(client.identity().network, other.network);

    fake.server.close().await;
    let down = fake.builder().connect().await;
    let Err(ConnectError::Unreachable(why)) = down else { panic!("{down:?}") };
    assert!(why.contains("has expired, and only the registration server"), "{why}");
}

#[tokio::test]
async fn a_damaged_guess_is_as_good_as_none() {
    let fake = Fake::start(1).await;
    fake.builder().connect().await.unwrap();
    let known = fake.home.join("known").join(format!("127.0.0.1_{}", fake.address.port()));
    std::fs::write(known, b"damaged").unwrap();
    fake.builder().connect().await.unwrap();
}

#[tokio::test]
async fn a_client_that_was_here_before_needs_no_server() {
    let fake = Fake::start(3).await;
    let client = fake.builder().connect().await.unwrap();
    client.write("k", "v").await.unwrap();
    client.close().await;
    // The client writes its files in the background.
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.server.close().await;
    fake.nodes[0].script(|_| Act::Ignore);
    let begun = Instant::now();
    let client = fake.builder().connect().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    fake.nodes[0].behave();
    assert_eq!(client.read("k").await.unwrap().value, "v");
    let status = client.status().await;
    assert!(status.server.is_err());
    assert_eq!(status.nodes.len(), 3);
}

#[tokio::test]
async fn nodes_are_enough_for_whoever_has_credentials() {
    let fake = Fake::start(2).await;
    let by_nodes = || {
        Client::builder()
            .node(fake.nodes[1].address.to_string())
            .home(&fake.home)
            .timeout(Duration::from_secs(5))
    };
    let refused = by_nodes().connect().await;
    assert!(matches!(refused, Err(ConnectError::NoCredentials { .. })), "{refused:?}");
    fake.builder().connect().await.unwrap();
    let client = by_nodes().connect().await.unwrap();
    client.write("k", "v").await.unwrap();
    assert!(client.status().await.server.is_err());
}

#[tokio::test]
async fn the_second_server_is_tried() {
    let fake = Fake::start(1).await;
    let client = Client::builder()
        .servers(["127.0.0.1:1".to_owned(), fake.address.to_string()])
        .token_file(
            dkv_wire::local::tokens_dir(&fake.home, fake.address.port()).join("client.token"),
        )
        .home(&fake.home)
        .connect()
        .await
        .unwrap();
    client.write("k", "v").await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let fake = Fake::start(0).await;
    assert!(matches!(Client::builder().connect().await, Err(ConnectError::NoAddress)));
    let role = fake.builder().role(Role::Node).connect().await;
    assert!(matches!(role, Err(ConnectError::Role(Role::Node))));
    let no_port = Client::connect("host:no").await;
    assert!(matches!(no_port, Err(ConnectError::Address { .. })));
    let empty = tempfile::tempdir().unwrap();
    let no_token = fake.builder().home(empty.path()).connect().await;
    assert!(matches!(no_token, Err(ConnectError::Token(_))), "{no_token:?}");
    let other = Fake::start(0).await;
    let token = dkv_wire::local::tokens_dir(&other.home, other.address.port()).join("client.token");
    let wrong = fake.builder().home(empty.path()).token_file(token).connect().await;
    assert!(matches!(wrong, Err(ConnectError::Join(_))), "{wrong:?}");
}

#[tokio::test]
async fn a_revoked_client_is_denied_and_does_not_join_again() {
    let fake = Fake::start(1).await;
    let client = fake.builder().connect().await.unwrap();
    client.write("k", "v").await.unwrap();
    let holder = client.identity().holder;
    fake.acceptor.set_denied([holder]);
    fake.nodes[0].acceptor.set_denied([holder]);
    let read = client.read("k").await;
    assert!(matches!(read, Err(Error::Denied(_))), "{read:?}");
    let again = fake.builder().connect().await;
    assert!(matches!(again, Err(ConnectError::Denied(_))), "{again:?}");
    assert_eq!(fake.joined.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_wait_for_a_network_that_nobody_has_bootstrapped() {
    let other = Fake::start(1).await;
    let fake = Fake::start(0).await;
    let client = fake.builder().timeout(Duration::from_millis(400)).connect().await.unwrap();
    let outcome = client.write("k", "v").await;
    let Err(Error::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("no coordinator yet"), "{why}");
    assert!(client.view().await.is_err());
    let status = client.status().await;
    assert!(status.server.is_ok() && status.nodes.is_empty() && status.view.is_none());
    drop(other);
}
