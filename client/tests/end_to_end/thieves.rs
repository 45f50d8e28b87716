//! What a thief can do with stolen node credentials. A token yields the certificate of a node,
//! which only admits; the key of a member allows plausible messages of that member, and nothing
//! else.

use std::time::Duration;

use dkv_api::{GroupId, KeyspaceId, NodeId, Role};
use dkv_base::id::{Number, Stamp, Term};
use dkv_node::fuzzing::{forgeries, introduce};
use dkv_wire::certificate::Credentials;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::incarnation::{BootId, Incarnation};
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, Command, ControlGroup, CoordinatorReport, Deposited, LedGroup, Measures, Operation,
    Refusal, RequestBody, ServerAnswer, ServerRefusal, ServerRequest,
};
use dkv_wire::network::{NodeInfo, NodeState};

use crate::harness::direct::{Direct, ask, ask_server};
use crate::harness::{Network, eventually};

/// Time limit for an answer, or for a refusal without an answer.
const HEARD: Duration = Duration::from_millis(300);
const KEY: &[u8] = b"stolen";

/// Returns the terms of all groups at each node, the control group first.
async fn terms(network: &Network) -> Vec<Vec<u64>> {
    let mut terms = Vec::new();
    for index in network.running() {
        let status = network.status_of(index).await;
        terms.push(status.groups.iter().map(|group| group.term.0).collect());
    }
    terms
}

/// Returns the terms of the control group, which reveal an election. Terms of shards also rise when
/// primaries move for balance.
async fn control_terms(network: &Network) -> Vec<u64> {
    terms(network).await.into_iter().map(|terms| terms[0]).collect()
}

/// Sends every node all messages of every group that a thief could forge in these terms. First it
/// claims to be a newer run of its node.
async fn forge(
    network: &Network,
    thief: &Direct,
    before: Incarnation,
    terms: &[u64],
    but: Option<NodeId>,
) {
    let run = before.next(BootId(1 << 40)).open(1 << 40);
    let from = thief.credentials.identity.as_node().unwrap();
    for node in network.nodes.iter().filter(|node| Some(node.id()) != but) {
        for (group, term) in (0..=4).flat_map(|group| terms.iter().map(move |term| (group, *term)))
        {
            for forged in forgeries(from, node.id(), GroupId(group), term) {
                let connection = thief.to_node(node.address()).await.unwrap();
                assert_eq!(introduce(&connection, from, &run).await, Some(true));
                let (send, receive) = connection.open_bi().await.unwrap();
                let mut writer = FrameWriter::new(send);
                writer.push(&forged.opening);
                forged.frames.iter().for_each(|frame| writer.push_bytes(frame));
                // The message may be refused before it is complete.
                let _ = writer.flush().await;
                let mut reader = FrameReader::new(receive, FRAME_BYTES_MAX);
                let _ = tokio::time::timeout(HEARD, reader.next()).await;
            }
        }
    }
}

/// Checks that the attack had no effect: no node has ended or is marked as damaged, and all serve.
async fn unharmed(network: &mut Network) {
    network.assert_alive();
    for node in &network.nodes {
        assert!(!node.dir.join("damaged").exists(), "a node was marked as damaged");
    }
    let client = network.client().await;
    client.write("k", "after").await.unwrap();
    assert_eq!(client.read("k").await.unwrap().value, "after");
    client.close().await;
}

/// Returns the last run of a node, as a thief would read it from its directory.
fn last_run(network: &Network, id: NodeId) -> Incarnation {
    let node = network.nodes.iter().find(|node| node.id() == id).unwrap();
    let text = std::fs::read(node.dir.join("starts.json")).unwrap();
    let mut envelope: serde_json::Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(envelope["content"].take()).unwrap()
}

/// Returns the claim to lead a group alone.
fn led(id: NodeId, group: GroupId, term: u64) -> LedGroup {
    LedGroup {
        group,
        term: Term(term),
        voters: vec![id],
        learners: Vec::new(),
        is_joint: false,
        bytes: 0,
        last_index: u64::MAX,
        members: Vec::new(),
        is_changing: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_node_token_captures_no_client() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    network.settled().await;
    let before = control_terms(&network).await;
    let view = client.refresh().await.unwrap();
    let thief = Direct::join(&network, Role::Node).await;
    let id = thief.credentials.identity.as_node().unwrap();

    let next = view.term.0 + 1;
    forge(&network, &thief, Incarnation::default(), &[next, next + 1_000_000, u64::MAX], None)
        .await;
    let led = (0..=4).map(|group| led(id, GroupId(group), u64::MAX));
    let measures = Measures { leads: led.collect(), ..Measures::default() };
    let write = Command::Deposited(Deposited {
        node: id,
        number: Number(1),
        after: Number(0),
        stamp: Stamp(1 << 40),
        key: KEY,
        operation: Operation::Put(b"by a thief"),
    });
    for node in &network.nodes {
        let connection = thief.to_node(node.address()).await.unwrap();
        for body in [
            RequestBody::Measures(Box::new(measures.clone())),
            RequestBody::HandOver { shard: GroupId(1), to: network.nodes[0].id() },
            RequestBody::Departed(GroupId(1)),
            RequestBody::Committed { shard: GroupId(1), followed: Some(Term(u64::MAX)) },
            RequestBody::Leaving,
            RequestBody::Propose {
                shard: view.shard_of(KeyspaceId::DEFAULT, KEY).unwrap().group,
                everywhere: false,
                command: dkv_wire::codec::encode(&write),
            },
        ] {
            let answer = ask(&connection, body.clone()).await.unwrap();
            assert!(answer.is_err(), "{body:?} is answered {answer:?}");
        }
        // It may ask whether it is a member, and learns that it is not.
        let body = RequestBody::Member { group: GroupId::CONTROL, node: id };
        assert_eq!(ask(&connection, body).await.unwrap(), Ok(Answer::Member(false)));
    }

    // It claims to the server that it leads and votes, and reports whom to deny.
    let server = thief.to_server(&network).await.unwrap();
    for term in [view.term.0, next, u64::MAX] {
        let mut forged = view.clone();
        (forged.term, forged.coordinator) = (Term(term), Some(id));
        forged.denied = view.nodes.iter().map(|node| node.id.into()).collect();
        let address = thief.endpoint.local_address().unwrap();
        let (name, region, state) = ("thief".to_owned(), None, NodeState::Live);
        forged.nodes = vec![NodeInfo { id, name, address, region, state }];
        let voters = vec![id];
        let control = ControlGroup { term: Term(term), leader: Some(id), index: 1 << 30, voters };
        let address = network.nodes[0].address();
        let (name, said) = (Some("thief".into()), Some(control.clone()));
        let register = ServerRequest::Register { name, address, region: None, control: said };
        assert!(matches!(ask_server(&server, &register).await, ServerAnswer::Admitted(_)));
        let report = CoordinatorReport { term: Term(term), view: forged, control };
        let answer = ask_server(&server, &ServerRequest::Report(report)).await;
        let denied = matches!(&answer, ServerAnswer::Refused(ServerRefusal::Denied(_)));
        assert!(denied, "{answer:?}");
    }

    unharmed(&mut network).await;
    assert_eq!(control_terms(&network).await, before, "there was an election");
    let most = terms(&network).await.into_iter().flatten().max().unwrap();
    assert!(most < 1000, "a term jumped to {most}");
    assert!(client.read(KEY).await.is_err(), "the thief wrote a value");
    let status = client.status().await;
    let server = status.server.unwrap();
    assert_ne!(server.coordinator.unwrap().0, id);
    for view in [server.view.unwrap(), client.refresh().await.unwrap()] {
        assert!(view.denied.is_empty() && view.node(id).is_none(), "{view:?}");
    }
    for node in &mut network.nodes {
        let said = node.running().said();
        let told = said.lines().filter(|line| line.contains("refused what a node sent"));
        let told: Vec<_> = told.filter(|line| line.contains(&id.to_string())).collect();
        assert!(!told.is_empty(), "the thief is not named: {said}");
        assert!(told.len() < 50, "it is named {} times", told.len());
    }

    // All nodes restart normally.
    for index in network.running() {
        network.kill_node(index);
    }
    for index in 0..3 {
        network.start_node(index).await;
    }
    network.settled().await;
    network.same_state().await;
    unharmed(&mut network).await;
}

/// A thief with a token for nodes has the network take it in, and does then what only leaders do.
#[tokio::test(flavor = "multi_thread")]
async fn a_thief_that_the_network_has_taken_in_leads_nothing_and_can_be_thrown_out() {
    let mut network = Network::start(5).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    network.settled().await;
    let before = control_terms(&network).await;
    let view = client.refresh().await.unwrap();
    let thief = Direct::join(&network, Role::Node).await;
    let id = thief.credentials.identity.as_node().unwrap();
    let coordinator = network.nodes[network.coordinator().await].address();
    let announce = |name: &str| RequestBody::Announce {
        name: name.to_owned(),
        address: thief.endpoint.local_address().unwrap(),
        region: None,
    };
    let connection = thief.to_node(coordinator).await.unwrap();
    assert_eq!(ask(&connection, announce("thief")).await.unwrap(), Ok(Answer::Done));
    eventually("it is not listed everywhere", async || {
        for node in &network.nodes {
            let connection = thief.to_node(node.address()).await.unwrap();
            match ask(&connection, RequestBody::View).await.unwrap() {
                Ok(Answer::View(view)) if view.node(id).is_some() => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    })
    .await;

    // It takes shards over, above all those that the coordinator knows by reports only.
    let report = |term: u64| {
        let leads = view.shards.iter().map(|shard| led(id, shard.group, term));
        let keeps_writes = true;
        let leads = leads.collect();
        RequestBody::Measures(Box::new(Measures { leads, keeps_writes, ..Measures::default() }))
    };
    let most = terms(&network).await.into_iter().flatten().max().unwrap();
    for node in &network.nodes {
        let connection = thief.to_node(node.address()).await.unwrap();
        for term in [most, most + 1, most + 2] {
            let answer = ask(&connection, report(term)).await.unwrap();
            assert!(matches!(answer, Err(Refusal::Invalid(_))), "{answer:?}");
        }
        let body = RequestBody::MayLead { group: GroupId::CONTROL, node: id };
        assert_eq!(ask(&connection, body).await.unwrap(), Ok(Answer::Member(false)));
    }
    let next = view.term.0 + 1;
    forge(&network, &thief, Incarnation::default(), &[next, most + 1], None).await;
    unharmed(&mut network).await;
    assert_eq!(control_terms(&network).await, before, "there was an election");
    let after = client.refresh().await.unwrap();
    for shard in &after.shards {
        assert_ne!(shard.primary, Some(id), "{shard:?}");
        assert!(!shard.voters.contains(&id), "{shard:?}");
    }

    // The administrator throws it out, whatever it says.
    let refused = network.dkv(&["revoke", &id.to_string()]).await;
    assert!(text_of(&refused).contains("--at-once"), "{refused:?}");
    let unsure = network.dkv(&["remove", "thief", "--at-once"]).await;
    assert_eq!(unsure.status.code(), Some(2), "{unsure:?}");
    let thrown_out = network.dkv(&["remove", "thief", "--at-once", "--yes", "thief"]).await;
    assert!(thrown_out.status.success(), "{thrown_out:?}");
    let admin = network.admin().await;
    eventually("it is still listed", async || {
        if let Ok(connection) = thief.to_node(coordinator).await {
            let _ = ask(&connection, report(most + 1)).await;
        }
        // A client does not show a denied node even while the directory still has it.
        let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
        let is_there = placement.nodes.iter().any(|places| places.node == id);
        if is_there { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(client.refresh().await.unwrap().denied.contains(&id.into()));
    unharmed(&mut network).await;
    network.settled().await;
}

/// Nodes that hold data, and one that leads the network, are thrown out while clients come.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_replicas_is_thrown_out_and_nobody_misses_it() {
    let mut network = Network::start(5).await;
    let client = network.client().await;
    for number in 0..50 {
        client.write(format!("k{number}"), vec![7; 10_000]).await.unwrap();
    }
    network.settled().await;
    let coordinator = network.coordinator().await;
    let view = client.refresh().await.unwrap();
    let holds = |index: &usize| {
        let id = network.nodes[*index].id();
        *index != coordinator && view.shards.iter().any(|shard| shard.voters.contains(&id))
    };
    let follower = (0..5).find(holds).unwrap();
    let victims = [follower, coordinator].map(|index| network.nodes[index].id());
    for (id, leads) in victims.into_iter().zip([false, true]) {
        let victim = network.index_of(id);
        let name = view.node(id).unwrap().name.clone();
        let thrown_out = network.dkv(&["remove", &name, "--at-once", "--yes", &name]).await;
        // The coordinator may not live to tell.
        let may_be = if leads { &[0, 6, 8][..] } else { &[0] };
        assert!(may_be.contains(&thrown_out.status.code().unwrap()), "{thrown_out:?}");
        // A client that comes now finds the network, and nobody goes by what that node says.
        let late = network.client_as(Role::Client, &network.path(&format!("late-{name}"))).await;
        late.write("late", name.clone()).await.unwrap();
        for reader in [&late, &client] {
            let value = reader.read("late").await.unwrap().value;
            assert_eq!(value.as_ref(), name.as_bytes());
            assert!(reader.read("k7").await.is_ok());
        }
        let status = network.nodes[victim].running().ended().await;
        assert_eq!(status.code(), Some(1), "a node that was thrown out ends");
        network.nodes.remove(victim);
        let admin = network.admin().await;
        eventually("it is still listed", async || {
            let placement = admin.placement(false).await.map_err(|error| error.to_string())?;
            let is_there = placement.nodes.iter().any(|places| places.node == id);
            if is_there { Err("it is there".to_owned()) } else { Ok(()) }
        })
        .await;
        network.settled().await;
    }
    for number in 0..50 {
        assert!(client.read(format!("k{number}")).await.is_ok(), "k{number}");
    }
    network.same_state().await;
}

/// A thief with the key of a voter reports lies about its groups, which would keep it in or have
/// the network believe that they cannot do without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_thief_with_a_vote_does_not_keep_itself_in_by_lies() {
    let mut network = Network::start(4).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    network.settled().await;
    let coordinator = network.coordinator().await;
    let view = client.refresh().await.unwrap();
    let votes = |index: &usize| {
        let id = network.nodes[*index].id();
        *index != coordinator && view.shards.iter().any(|shard| shard.voters.contains(&id))
    };
    let stolen = (0..4).find(votes).unwrap();
    let id = network.nodes[stolen].id();
    let credentials = Credentials::load(&network.nodes[stolen].dir.join("credentials"));
    let thief = Direct::with(credentials.unwrap().unwrap());
    network.kill_node(stolen);
    client.write("k", "by another").await.unwrap();

    let most = terms(&network).await.into_iter().flatten().max().unwrap();
    let accomplice = network.nodes[(stolen + 1) % 4].id();
    let voted = view.shards.iter().filter(|shard| shard.voters.contains(&id));
    let lies = voted.map(|shard| LedGroup {
        is_changing: true,
        voters: vec![id, accomplice],
        ..led(id, shard.group, most + 1)
    });
    let leads: Vec<LedGroup> = lies.collect();
    let measures = Measures { leads, keeps_writes: true, ..Measures::default() };
    let connection = thief.to_node(network.nodes[coordinator].address()).await.unwrap();
    let body = RequestBody::Measures(Box::new(measures));
    assert_eq!(ask(&connection, body.clone()).await.unwrap(), Ok(Answer::Done));
    // It insists for as long as anybody hears it: the command tries again while it is refused.
    let lies = async {
        while ask(&connection, body.clone()).await.is_ok() {
            tokio::time::sleep(HEARD).await;
        }
        std::future::pending::<()>().await;
    };
    let name = &view.node(id).unwrap().name;
    let remove = ["remove", name, "--at-once", "--yes", name];
    let thrown_out = tokio::select! {
        thrown_out = network.dkv(&remove) => thrown_out,
        () = lies => unreachable!(),
    };
    assert!(thrown_out.status.success(), "{thrown_out:?}");
    network.nodes.remove(stolen);
    network.settled().await;
    assert_eq!(client.read("k").await.unwrap().value.as_ref(), b"by another");
    network.same_state().await;
}

/// Returns what a command wrote.
fn text_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_member_cannot_stop_nodes_or_elections() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    client.write("k", "v").await.unwrap();
    network.settled().await;
    let stolen = (network.coordinator().await + 1) % 3;
    let id = network.nodes[stolen].id();
    let credentials = Credentials::load(&network.nodes[stolen].dir.join("credentials"));
    let thief = Direct::with(credentials.unwrap().unwrap());
    network.kill_node(stolen);

    // Messages that the member cannot send, and impossible ones.
    let before = last_run(&network, id);
    forge(&network, &thief, before, &[u64::MAX, u64::MAX - 1, 1 << 62, 1 << 40], Some(id)).await;
    unharmed(&mut network).await;
    let most = terms(&network).await.into_iter().flatten().max().unwrap();
    assert!(most < 1000, "a term jumped to {most}");

    // Elections still work. The others took the thief for a newer run of the node; an administrator
    // corrects this.
    network.start_node(stolen).await;
    let address = network.nodes[stolen].address();
    let kept = network.dkv(&["keep", &id.to_string(), &address.to_string()]).await;
    assert!(kept.status.success(), "{kept:?}");
    network.settled().await;
    let coordinator = network.coordinator().await;
    network.kill_node(coordinator);
    client.write("k", "by another").await.unwrap();
    network.start_node(coordinator).await;
    network.settled().await;
    network.same_state().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_name_after_another_claimed_it() {
    let mut network = Network::start(3).await;
    let client = network.client().await;
    let index = (network.coordinator().await + 1) % 3;
    let id = network.nodes[index].id();
    let view = client.refresh().await.unwrap();
    let name = view.node(id).unwrap().name.clone();
    network.kill_node(index);
    let record = async || {
        let server = client.status().await.server.map_err(|error| error.to_string())?;
        let record = server.nodes.into_iter().find(|node| node.id == id);
        record.ok_or_else(|| "it is not in the books".to_owned())
    };
    eventually("the node is not reported as down", async || match record().await? {
        record if record.state == NodeState::Down => Ok(()),
        record => Err(format!("{record:?}")),
    })
    .await;

    let other = Direct::join(&network, Role::Node).await;
    let server = other.to_server(&network).await.unwrap();
    let (wanted, address) = (Some(name.clone()), network.nodes[index].address());
    let register = ServerRequest::Register { name: wanted, address, region: None, control: None };
    match ask_server(&server, &register).await {
        ServerAnswer::Admitted(admission) => assert_eq!(admission.name, name),
        answer => panic!("{answer:?}"),
    }

    network.start_node(index).await;
    network.settled().await;
    eventually("the node does not have its name", async || match record().await? {
        record if record.name == name && record.state == NodeState::Live => Ok(()),
        record => Err(format!("{record:?}")),
    })
    .await;
    let said = ask_server(&server, &register).await;
    let taken = matches!(said, ServerAnswer::Refused(ServerRefusal::NameTaken(_)));
    assert!(taken, "{said:?}");
    network.assert_alive();
}
