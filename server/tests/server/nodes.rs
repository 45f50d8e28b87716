//! Registration and reports of nodes, across crashes of the server.

use dkv_base::id::Term;
use dkv_wire::identity::Role;
use dkv_wire::message::{Confirmation, ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::network::NodeState;

use crate::support::{Peer, Place, TIMEOUT, create_token, register, register_with};

#[tokio::test]
async fn one_of_many_concurrent_nodes_bootstraps() {
    let place = std::sync::Arc::new(Place::new());
    let server = place.start().await;
    let address = server.address();
    let nodes: Vec<_> = (0..12_u16)
        .map(|number| {
            let place = std::sync::Arc::clone(&place);
            tokio::spawn(async move {
                let node = place.peer(address, Role::Node).await;
                let admission = node.register(4401 + number).await;
                (node, admission)
            })
        })
        .collect();
    let mut told = Vec::new();
    for node in nodes {
        told.push(node.await.unwrap());
    }
    assert_eq!(told.iter().filter(|(_, admission)| admission.bootstrap).count(), 1);
    let mut names: Vec<_> = told.iter().map(|(_, admission)| admission.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 12, "every name is given once");

    // Killed right after it answered, the server gives the same answers again.
    drop(server);
    let server = place.start().await;
    for (index, (node, admission)) in told.iter().enumerate().rev() {
        let again = node.again(server.address()).await.register(4401 + index as u16).await;
        assert_eq!((again.bootstrap, &again.name), (admission.bootstrap, &admission.name));
        assert_eq!(again.peers.len(), 12);
    }
}

#[tokio::test]
async fn an_older_coordinator_is_never_confirmed_after_a_newer_one() {
    let place = Place::new();
    let server = place.start().await;
    let first = place.peer(server.address(), Role::Node).await;
    let second = place.peer(server.address(), Role::Node).await;
    first.register(4401).await;
    second.register(4402).await;
    let both = [&first, &second];
    assert_eq!(first.report(4, &both, &[]).await, Confirmation::Confirmed);
    assert_eq!(second.report(5, &both, &[]).await, Confirmation::Confirmed);
    let outdated = Confirmation::Outdated { confirmed: Term(5) };
    assert_eq!(first.report(4, &both, &[]).await, outdated);
    assert_eq!(first.report(5, &both, &[]).await, outdated);

    drop(server);
    let server = place.start().await;
    let first = first.again(server.address()).await;
    assert_eq!(first.report(4, &both, &[]).await, outdated);
    let ServerAnswer::View(Some(view)) = first.ask(&ServerRequest::Lookup).await else { panic!() };
    assert_eq!((view.coordinator, view.term), (Some(second.node()), Term(5)));
    let ServerAnswer::Status(status) = first.ask(&ServerRequest::Status).await else { panic!() };
    assert_eq!(status.coordinator, Some((second.node(), Term(5))));
    assert!(status.nodes.iter().all(|node| node.state == NodeState::Live));
    assert_eq!(first.report(6, &both, &[]).await, Confirmation::Confirmed);
}

#[tokio::test]
async fn a_full_disk_fails_only_durable_updates() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let other = place.peer(server.address(), Role::Node).await;
    node.register(4401).await;

    // A directory in place of the registry file fails every write, even for root.
    let books = place.data_dir().join("books.json");
    let fail = || {
        let kept = std::fs::read(&books).unwrap();
        std::fs::remove_file(&books).unwrap();
        std::fs::create_dir(&books).unwrap();
        kept
    };
    let recover = |kept: Vec<u8>| {
        std::fs::remove_dir(&books).unwrap();
        std::fs::write(&books, kept).unwrap();
    };
    let kept = fail();
    let token = place.token(Role::Admin);
    let joiner = dkv_wire::quic::Endpoint::dial_only(None).unwrap();
    let error = dkv_wire::join::join(&joiner, server.address(), &token).await.unwrap_err();
    assert!(error.to_string().contains("cannot write to its data directory"), "{error}");
    recover(kept);
    // The server recovers by itself once there is room.
    let admin = place.peer(server.address(), Role::Admin).await;
    let create = create_token(Role::Node, None);
    assert!(matches!(admin.ask(&create).await, ServerAnswer::Token(_)));

    node.report(1, &[&node], &[]).await;
    let kept = fail();
    assert!(matches!(other.refusal(&register(4402)).await, ServerRefusal::Storage(_)));
    assert_eq!(node.report(1, &[&node], &[]).await, Confirmation::Confirmed);
    let newer = ServerRequest::Report(node.report_of(2, &[&node], &[]));
    assert!(matches!(node.refusal(&newer).await, ServerRefusal::Storage(_)));
    let ServerAnswer::Status(status) = node.ask(&ServerRequest::Status).await else { panic!() };
    assert_eq!(status.coordinator, Some((node.node(), Term(1))), "nothing was changed");
    assert_eq!(status.nodes.len(), 1, "nothing was changed");

    recover(kept);
    assert_eq!(other.register(4402).await.name, "n2");
    assert_eq!(node.report(2, &[&node, &other], &[]).await, Confirmation::Confirmed);
}

#[tokio::test]
async fn a_stranger_that_claims_a_control_group_does_not_withdraw_the_order_to_begin() {
    let place = Place::new();
    let server = place.start().await;
    let founder = place.peer(server.address(), Role::Node).await;
    let thief = place.peer(server.address(), Role::Node).await;
    assert!(founder.register(4401).await.bootstrap);
    let claim = register_with(4402, &thief, &[&thief], 1);
    assert!(matches!(thief.ask(&claim).await, ServerAnswer::Admitted(_)));
    // It may have crashed before it had written the order down.
    assert!(founder.register(4401).await.bootstrap);
    let begun = founder.ask(&register_with(4401, &founder, &[&founder], 1)).await;
    let ServerAnswer::Admitted(admission) = begun else { panic!("{begun:?}") };
    assert!(!admission.bootstrap, "it has obeyed");
}

#[tokio::test]
async fn new_voters_are_adopted_after_downtime_and_strangers_are_not() {
    let place = Place::new();
    let server = place.start().await;
    let mut nodes = Vec::new();
    for number in 0..5 {
        let node = place.peer(server.address(), Role::Node).await;
        let admission = node.register(4401 + number).await;
        // Until the first report, the founder is the only trusted node.
        let founder = nodes.first().unwrap_or(&node).node();
        assert_eq!(admission.vouched, [founder]);
        nodes.push(node);
    }
    // Afterwards, the control group decides who joins, and these nodes are none.
    let stranger = place.peer(server.address(), Role::Node).await;
    let all: Vec<&Peer> = nodes.iter().collect();
    let mut report = nodes[0].report_of(2, &all, &[]);
    report.control.voters.truncate(3);
    let answer = nodes[0].ask(&ServerRequest::Report(report)).await;
    assert_eq!(answer, ServerAnswer::Confirmed(Confirmation::Confirmed));
    drop(server);

    let server = place.start().await;
    let mut again = Vec::new();
    for node in &nodes {
        again.push(node.again(server.address()).await);
    }
    let stranger = stranger.again(server.address()).await;
    // The new coordinator became a voter while the server was down; a stranger claims the same.
    for (node, voters) in
        [(&again[3], [&again[3], &again[4], &again[2]]), (&stranger, [&stranger; 3])]
    {
        assert!(matches!(
            node.ask(&register_with(4404, node, &voters, 9)).await,
            ServerAnswer::Admitted(_)
        ));
        let all: Vec<&Peer> = again.iter().collect();
        let report = ServerRequest::Report(node.report_of(7, &all, &[nodes[0].holder()]));
        assert!(matches!(node.refusal(&report).await, ServerRefusal::Denied(_)));
    }
    // Two of the three voters that the server knew agree.
    let voters = [&again[3], &again[4], &again[2]];
    for old in &again[1..3] {
        let said = old.ask(&register_with(4402, old, &voters, 9)).await;
        assert!(matches!(said, ServerAnswer::Admitted(_)), "{said:?}");
    }
    let all: Vec<&Peer> = again.iter().collect();
    assert_eq!(again[3].report(7, &all, &[]).await, Confirmation::Confirmed);
    let report = ServerRequest::Report(stranger.report_of(8, &[&stranger], &[]));
    assert!(matches!(stranger.refusal(&report).await, ServerRefusal::Denied(_)));
}

#[tokio::test]
async fn joining_waits_for_the_control_group_and_renewing_does_not() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let admin = place.peer(server.address(), Role::Admin).await;
    node.register(4401).await;
    // From the first report on, the books belong to the control group, and here nobody answers.
    node.report(1, &[&node], &[]).await;
    let joiner = dkv_wire::quic::Endpoint::dial_only(None).unwrap();
    let token = place.token(Role::Node);
    let begun = std::time::Instant::now();
    let error = dkv_wire::join::join(&joiner, server.address(), &token).await.unwrap_err();
    assert!(error.to_string().contains("the control group does not answer"), "{error}");
    assert!(begun.elapsed() < TIMEOUT, "the answer comes in time");
    let create = create_token(Role::Node, None);
    assert!(matches!(admin.refusal(&create).await, ServerRefusal::Waiting(_)));
    // Nor does anybody else wait meanwhile.
    let public_key = node.credentials.public_key().unwrap();
    let renewed = node.ask(&ServerRequest::Renew { public_key }).await;
    assert!(matches!(renewed, ServerAnswer::Certificate(_)), "{renewed:?}");
    assert_eq!(node.report(1, &[&node], &[]).await, Confirmation::Confirmed);
    // It is the same after a restart.
    drop(server);
    let server = place.start().await;
    let error = dkv_wire::join::join(&joiner, server.address(), &token).await.unwrap_err();
    assert!(error.to_string().contains("the control group does not answer"), "{error}");
}
