//! Several registration servers: any may be lost with its disk, and none is missed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::{Client, Error, Role};
use dkv_base::durable::copy_dir;
use dkv_base::id::HolderId;
use dkv_test_support::{Process, output, text};
use dkv_wire::certificate::Credentials;
use dkv_wire::join::{JoinError, join};
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, BooksChange, BooksVersion, JoinRefusal, Refusal, RequestBody, ServerAnswer,
    ServerRefusal, ServerRequest,
};
use dkv_wire::quic::Endpoint;
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use dkv_wire::token::Token;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::direct::{Direct, ask, ask_server};
use crate::harness::network::free_port;
use crate::harness::process::spawn;
use crate::harness::{Network, eventually};

/// Time within which joining goes on when a server dies.
const GOES_ON: Duration = Duration::from_secs(1);

/// A server beside the one that has founded the network.
struct Another {
    process: Option<Process>,
    address: SocketAddr,
    dir: PathBuf,
}

impl Another {
    /// Has an administrator create a token at one server, and a server join with it.
    async fn join(network: &Network, name: &str, at: SocketAddr) -> Self {
        let token = create_token(&admin_at(network, at).await, Role::Server).await;
        let file = network.path(&format!("{name}.token"));
        std::fs::write(&file, token).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut another = Self { process: None, address, dir: network.path(name) };
        let join = ["--join", &at.to_string(), "--token-file", text(&file)];
        another.start(network, &join).await;
        another
    }

    async fn start(&mut self, network: &Network, more: &[&str]) {
        let address = self.address.to_string();
        let own = ["server", "--listen", &address, "--data-dir", text(&self.dir)];
        let log = self.dir.with_extension("log");
        let mut process = spawn(&[&own[..], more].concat(), &network.home(), &log);
        assert_eq!(process.ready().await, Ok(self.address));
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }
}

/// Connects as an administrator by the address of one server.
async fn admin_at(network: &Network, server: SocketAddr) -> Client {
    let client = Client::builder()
        .server(server.to_string())
        .role(Role::Admin)
        .token_file(network.token_file(Role::Admin))
        .home(network.home());
    client.connect().await.unwrap()
}

async fn create_token(admin: &Client, role: Role) -> String {
    admin.create_token(role, Some(Duration::from_secs(600)), Some(1)).await.unwrap()
}

/// Joins at one server, and returns how long it took.
async fn join_at(server: SocketAddr, token: &str) -> Result<Duration, JoinError> {
    let (token, begun): (Token, _) = (token.parse().unwrap(), Instant::now());
    let joiner = Endpoint::dial_only(None).unwrap();
    join(&joiner, server, &token).await.map(|_| begun.elapsed())
}

/// Waits until every node knows all servers, so that the coordinator reports to each.
async fn known(network: &Network, servers: usize) {
    let client = network.client().await;
    eventually("the servers are not known", async || {
        let status = client.status().await;
        let listed = status.view.map_or(0, |view| view.servers.len());
        let live = status.servers.iter().filter(|(_, status)| status.is_ok()).count();
        if listed == servers { Ok(()) } else { Err(format!("{listed} are, {live} live")) }
    })
    .await;
    client.close().await;
}

/// Connects a client that has never been here, and checks that it does not take long.
async fn connect_new(network: &Network, servers: &str, token: &str, name: &str) {
    let file = network.path(&format!("{name}.token"));
    std::fs::write(&file, token).unwrap();
    let begun = Instant::now();
    let client = Client::builder().server(servers).token_file(file);
    let client = client.home(network.path(name)).connect().await.unwrap();
    assert!(begun.elapsed() < GOES_ON, "joining took {:?}", begun.elapsed());
    client.write("k", "v").await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_goes_on_when_either_server_dies() {
    let mut network = Network::start(3).await;
    let first = network.address;
    let mut second = Another::join(&network, "second", first).await;
    known(&network, 2).await;
    let both = format!("{first},{}", second.address);
    let tokens: Vec<String> = {
        let admin = admin_at(&network, first).await;
        let mut tokens = Vec::new();
        for _ in 0..2 {
            tokens.push(create_token(&admin, Role::Client).await);
        }
        tokens
    };

    // A client that has never been here joins at the other server, whichever is dead.
    network.kill_server();
    connect_new(&network, &both, &tokens[0], "ada").await;
    network.start_server().await;
    second.kill();
    connect_new(&network, &both, &tokens[1], "bob").await;

    // So does a node.
    second.start(&network, &[]).await;
    network.kill_server();
    let token = create_token(&admin_at(&network, second.address).await, Role::Node).await;
    let file = network.path("late.token");
    std::fs::write(&file, token).unwrap();
    let first_only = std::mem::replace(&mut network.address, second.address);
    let list = format!("{first_only},{}", second.address);
    network.spawn_node_at(&list, &["--listen", "127.0.0.1:0", "--token-file", text(&file)]);
    network.nodes[3].running().ready().await.unwrap();
    let client = admin_at(&network, second.address).await;
    eventually("the node is not in the network", async || {
        let view = client.status().await.view.ok_or("no view")?;
        view.node(network.nodes[3].id()).map(drop).ok_or("it is not there".to_owned())
    })
    .await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_use_admits_one_whichever_servers_are_asked() {
    let network = Network::start(3).await;
    let first = network.address;
    let second = Another::join(&network, "second", first).await;
    let admin = admin_at(&network, first).await;
    for round in 0..20 {
        let token = create_token(&admin, Role::Client).await;
        // Two at each server, all at the same moment.
        let servers = [first, second.address, first, second.address];
        let joins = servers.map(|server| {
            let token = token.clone();
            tokio::spawn(async move { join_at(server, &token).await })
        });
        let mut admitted = 0;
        for join in joins {
            match join.await.unwrap() {
                Ok(_) => admitted += 1,
                Err(JoinError::Refused(JoinRefusal::UsedUp)) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        assert_eq!(admitted, 1, "round {round}");
    }
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_decides_holds_at_the_other() {
    let network = Network::start(3).await;
    let first = network.address;
    let second = Another::join(&network, "second", first).await;
    known(&network, 2).await;
    let (here, there) = (admin_at(&network, first).await, admin_at(&network, second.address).await);

    // A token that is new at one is good at the other at once, and so is its end.
    let kept = here.create_token(Role::Client, None, None).await.unwrap();
    join_at(second.address, &kept).await.unwrap();
    let id = kept.parse::<Token>().unwrap().id;
    there.revoke_token(id).await.unwrap();
    let refused = join_at(first, &kept).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Unknown))), "{refused:?}");

    // A holder that is revoked through the network is refused by both.
    let token = here.create_token(Role::Client, None, None).await.unwrap().parse().unwrap();
    let joiner = Endpoint::dial_only(None).unwrap();
    let stranger = Direct::with(join(&joiner, first, &token).await.unwrap());
    here.revoke(stranger.credentials.identity.holder).await.unwrap();
    for server in [first, second.address] {
        eventually("the revoked holder is served", async || {
            let connected = stranger.endpoint.connect(server, Expect::Server).await;
            let Ok(connection) = connected else { return Ok(()) };
            let lookup = &ServerRequest::Lookup;
            let answer: Result<ServerAnswer, _> =
                call(&connection, None::<&()>, lookup, SERVER_FRAME_BYTES_MAX, GOES_ON).await;
            match answer {
                Err(_) | Ok(ServerAnswer::Refused(_)) => Ok(()),
                Ok(_) => Err("it is served".to_owned()),
            }
        })
        .await;
    }
    // Both list the same holders.
    let ids = async |admin: &Client| -> Vec<HolderId> {
        let mut ids: Vec<_> = admin.list_holders().await.unwrap().iter().map(|it| it.id).collect();
        ids.sort();
        ids
    };
    eventually("the inventories differ", async || {
        let (one, other) = (ids(&here).await, ids(&there).await);
        if one == other { Ok(()) } else { Err(format!("{} and {}", one.len(), other.len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_founding_server_may_be_lost_with_its_disk() {
    let mut network = Network::start(3).await;
    let first = network.address;
    let second = Another::join(&network, "second", first).await;
    known(&network, 2).await;
    let admin = admin_at(&network, first).await;
    let (used, unused) =
        (create_token(&admin, Role::Client).await, create_token(&admin, Role::Client).await);
    join_at(first, &used).await.unwrap();
    admin.close().await;
    let holders = admin_at(&network, second.address).await.list_holders().await.unwrap().len();

    network.kill_server();
    // The token files are the administrators', not the server's.
    let kept = network.path("kept.token");
    std::fs::copy(network.token_file(Role::Admin), kept).unwrap();
    std::fs::rename(network.path("server"), network.path("lost")).unwrap();

    let again = join_at(second.address, &used).await;
    assert!(matches!(again, Err(JoinError::Refused(JoinRefusal::UsedUp))), "{again:?}");
    join_at(second.address, &unused).await.unwrap();

    // A third one joins at the second, and knows everything.
    let file = network.path("lost/tokens");
    std::fs::create_dir_all(network.path("server")).unwrap();
    std::fs::rename(file, network.path("server/tokens")).unwrap();
    let third = Another::join(&network, "third", second.address).await;
    for used in [&used, &unused] {
        let again = join_at(third.address, used).await;
        assert!(matches!(again, Err(JoinError::Refused(JoinRefusal::UsedUp))), "{again:?}");
    }
    let admin = admin_at(&network, third.address).await;
    // One more client, and the third server.
    assert!(admin.list_holders().await.unwrap().len() >= holders + 2);
    let token = create_token(&admin, Role::Client).await;
    join_at(second.address, &token).await.unwrap();
    admin.write("k", "v").await.unwrap();
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_node_token_makes_no_server() {
    let network = Network::start(3).await;
    let thief = Direct::join(&network, Role::Node).await;
    let change = BooksChange {
        id: uuid::Uuid::from_u128(1),
        at: BooksVersion { number: 1, change: uuid::Uuid::nil() },
        complete: true,
        records: Vec::new(),
        servers: vec![(HolderId::random(), Some(network.address))],
    };
    let bodies = [
        RequestBody::Books { after: None, known: None },
        RequestBody::ChangeBooks(Box::new(change)),
    ];
    let admin = Direct::join(&network, Role::Admin).await;
    for node in &network.nodes {
        for who in [&thief, &admin] {
            let connection = who.to_node(node.address()).await.unwrap();
            for body in &bodies {
                let answer = ask(&connection, body.clone()).await.unwrap();
                assert!(matches!(answer, Err(Refusal::Denied(_))), "{answer:?}");
            }
        }
    }
    for who in [&thief, &admin] {
        let connection = who.to_server(&network).await.unwrap();
        let answer = ask_server(&connection, &ServerRequest::Enlist).await;
        let denied = ServerAnswer::Refused(ServerRefusal::Denied(
            "this requires a certificate of role server, and yours has role ".to_owned()
                + who.credentials.identity.role.as_str(),
        ));
        assert_eq!(answer, denied);
    }
    // Nor does a node's token in the place of a server's.
    let file = network.token_file(Role::Node);
    let (address, dir) = (network.address.to_string(), network.path("false"));
    let joined = network
        .dkv_as(
            &[
                "server",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                text(&dir),
                "--join",
                &address,
                "--token-file",
                text(&file),
            ],
            &network.home(),
        )
        .await;
    assert!(!joined.status.success());
    let said = output(&joined.stderr);
    assert!(said.contains("a server token is required"), "{said}");
    assert!(!dir.exists(), "a failed start leaves nothing behind");
    // Only an administrator creates a token for one.
    let client = network.client().await;
    let created = client.create_token(Role::Server, None, None).await;
    assert!(matches!(created, Err(Error::Denied(_))), "{created:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_joining_waits_and_says_so() {
    let mut network = Network::with(json!({ "shards": 2 }), 3).await;
    let admin = network.admin().await;
    let token = create_token(&admin, Role::Client).await;
    admin.close().await;
    network.kill_node(1);
    network.kill_node(2);
    let waits = join_at(network.address, &token).await;
    let Err(JoinError::Refused(JoinRefusal::Waiting(why))) = waits else { panic!("{waits:?}") };
    assert!(why.contains("the control group does not answer"), "{why}");
    // A known node gets its certificate all the same.
    let node = Direct::with(
        Credentials::load(&network.nodes[0].dir.join("credentials")).unwrap().unwrap(),
    );
    let connection = node.to_server(&network).await.unwrap();
    let public_key = node.credentials.public_key().unwrap();
    let renewed = ask_server(&connection, &ServerRequest::Renew { public_key }).await;
    assert!(matches!(renewed, ServerAnswer::Certificate(_)), "{renewed:?}");
    network.start_node(1).await;
    eventually("joining does not go on", async || match join_at(network.address, &token).await {
        Ok(_) | Err(JoinError::Refused(JoinRefusal::UsedUp)) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_a_quorum_answers_no_server() {
    let mut network = Network::with(json!({ "shards": 2 }), 3).await;
    let admin = network.admin().await;
    let token: Token = create_token(&admin, Role::Server).await.parse().unwrap();
    admin.close().await;
    let joiner = Endpoint::dial_only(None).unwrap();
    let server = Direct::with(join(&joiner, network.address, &token).await.unwrap());
    let coordinator = network.coordinator().await;
    let connection = server.to_node(network.nodes[coordinator].address()).await.unwrap();
    let books = RequestBody::Books { after: None, known: None };
    let answer = ask(&connection, books.clone()).await.unwrap();
    assert!(matches!(answer, Ok(Answer::Books(_))), "{answer:?}");
    // Others may have elected a new one, and changed the books.
    for index in (0..3).filter(|index| *index != coordinator) {
        network.pause_node(index);
    }
    let answer = ask(&connection, books).await.unwrap();
    assert!(
        matches!(answer, Err(Refusal::Unavailable(_) | Refusal::NotPrimary { .. })),
        "{answer:?}"
    );
    for index in (0..3).filter(|index| *index != coordinator) {
        network.resume_node(index);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_though_the_first_server_in_its_list_is_cut_off() {
    let mut network = Network::with(json!({ "shards": 2 }), 1).await;
    // A copy of the server knows the node where it was.
    network.kill_server();
    network.kill_node(0);
    let dir = network.path("cut-off");
    copy_dir(&network.path("server"), &dir).unwrap();
    network.start_server().await;
    network.respawn_node(0, &["--listen", "127.0.0.1:0"]);
    network.nodes[0].running().ready().await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut cut_off = Another { process: None, address, dir };
    cut_off.start(&network, &[]).await;
    let file = network.token_file(Role::Node);
    let waits = join_at(address, &std::fs::read_to_string(&file).unwrap()).await;
    assert!(matches!(waits, Err(JoinError::Refused(JoinRefusal::Waiting(_)))), "{waits:?}");

    let list = format!("{address},{}", network.address);
    let more = ["--listen", "127.0.0.1:0", "--token-file", text(&file)];
    let index = network.spawn_node_at(&list, &more);
    let credentials = network.nodes[index].dir.join("credentials");
    eventually("the node does not join", async || match Credentials::load(&credentials) {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    cut_off.kill();
    network.nodes[index].running().ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_advertises_a_wrong_address_is_not_taken_for_lost() {
    let mut network = Network::with(json!({ "shards": 2 }), 1).await;
    network.kill_server();
    let (address, dir) = (network.address, network.path("server"));
    let mut server = Another { process: None, address, dir };
    let wrong = format!("127.0.0.1:{}", free_port());
    server.start(&network, &["--advertise", &wrong]).await;
    eventually("the status does not say what is wrong", async || {
        let said = network.dkv(&["status"]).await;
        let said = format!("{}{}", output(&said.stdout), output(&said.stderr));
        let is_there = said.contains(&format!("answers, but not at {wrong}"))
            && said.contains("start it with --advertise");
        if is_there && !said.contains("revoke") { Ok(()) } else { Err(said) }
    })
    .await;
}
