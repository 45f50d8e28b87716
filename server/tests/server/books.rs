//! Whom the server asks about the books, and what it makes of the answers.

use dkv_base::durable::copy_dir;
use dkv_server::{Config, Server, StartError};
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, join, recertify};
use dkv_wire::limits::BOOKS_CHANGE_RECORDS_MAX;
use dkv_wire::message::{
    BooksVersion, Confirmation, HolderInfo, JoinRefusal, RequestBody, ServerAnswer, ServerRefusal,
    ServerRequest,
};
use dkv_wire::quic::Endpoint;
use dkv_wire::token::Token;

use crate::group::Group;
use crate::support::{Peer, Place, create_token, register_with};

/// A server, an administrator, and a control group that has the books.
async fn network(place: &Place) -> (Server, Peer, Peer, Group) {
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let group = Group::start(&node);
    group.register(&node).await;
    group.report(&node, 1).await;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert!(group.state().complete);
    (server, node, admin, group)
}

async fn join_with(server: &Server, token: &Token) -> Result<(), JoinError> {
    let joiner = Endpoint::dial_only(None).unwrap();
    join(&joiner, server.address(), token).await.map(drop)
}

#[tokio::test]
async fn a_stranger_that_has_registered_is_not_asked_about_the_books() {
    let place = Place::new();
    let (server, node, admin, group) = network(&place).await;
    // The stranger has a stolen token, and books of its own that say whatever it wants.
    let stranger = place.peer(server.address(), Role::Node).await;
    let lies = Group::start(&stranger);
    lies.register(&stranger).await;
    {
        let mut lies = lies.state();
        (lies.version.number, lies.complete) = (1000, true);
    }
    // A node that is no voter may have registered; the coordinator steps down, and even names it.
    group.step_down(Some(stranger.node()));
    let mut unknown = place.token(Role::Client);
    unknown.id = uuid::Uuid::from_u128(1);
    let refused = join_with(&server, &unknown).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Unknown))), "{refused:?}");
    assert!(matches!(
        admin.refusal(&create_token(Role::Client, None)).await,
        ServerRefusal::Waiting(_)
    ));
    assert!(group.state().asked.len() > 2);
    assert!(lies.state().asked.is_empty(), "{:?}", lies.state().asked);
    assert_eq!(server.registry().books_version(), Some(group.state().version));

    // Once it is a voter, it is believed.
    let mut report = node.report_of(2, &[&node, &stranger], &[]);
    for (info, group) in report.view.nodes.iter_mut().zip([&group, &lies]) {
        info.address = group.address;
    }
    node.ask(&ServerRequest::Report(report)).await;
    assert!(matches!(admin.ask(&create_token(Role::Client, None)).await, ServerAnswer::Token(_)));
    assert!(!lies.state().asked.is_empty());
}

#[tokio::test]
async fn a_control_group_that_has_lost_entries_is_followed() {
    let place = Place::new();
    let (server, _node, admin, group) = network(&place).await;
    let before = group.state().clone();
    for _ in 0..3 {
        let ServerAnswer::Token(_) = admin.ask(&create_token(Role::Client, None)).await else {
            panic!()
        };
    }
    let lost = group.state().version;
    // The group is set back, as by an offline recovery that lost the last entries.
    *group.state() = before.clone();
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert_eq!(group.state().version.number, before.version.number + 1);
    assert_eq!(server.registry().books_version(), Some(group.state().version));

    // It is set back again, and another server makes as many changes as were lost.
    let ServerAnswer::Token(_) = admin.ask(&create_token(Role::Client, None)).await else {
        panic!()
    };
    let ServerAnswer::Token(_) = admin.ask(&create_token(Role::Client, None)).await else {
        panic!()
    };
    assert_eq!(group.state().version.number, lost.number);
    let others = uuid::Uuid::from_u128(7);
    *group.state() = before;
    group.state().version = BooksVersion { number: lost.number, change: others };
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert_eq!(server.registry().books_version(), Some(group.state().version));
    assert_eq!(server.registry().books_version().unwrap().number, lost.number + 1);
}

#[tokio::test]
async fn a_change_that_the_control_group_has_counts_though_the_disk_is_full() {
    let place = Place::new();
    let (server, _node, admin, group) = network(&place).await;
    let create = create_token(Role::Client, Some(1));
    let ServerAnswer::Token(token) = admin.ask(&create).await else { panic!() };
    let token: Token = token.parse().unwrap();
    let books = place.data_dir().join("books.json");
    let kept = std::fs::read(&books).unwrap();
    std::fs::remove_file(&books).unwrap();
    std::fs::create_dir(&books).unwrap();
    let before = group.state().version.number;
    join_with(&server, &token).await.unwrap();
    assert_eq!(group.state().version.number, before + 1);
    // It cannot go on with the next one, and changes nothing.
    let refused = join_with(&server, &token).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Storage(_)))), "{refused:?}");
    assert_eq!(group.state().version.number, before + 1);
    std::fs::remove_dir(&books).unwrap();
    std::fs::write(&books, kept).unwrap();
    let refused = join_with(&server, &token).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::UsedUp))), "{refused:?}");
}

#[tokio::test]
async fn a_change_that_the_control_group_refuses_for_good_is_refused_and_not_in_doubt() {
    let place = Place::new();
    let (server, _node, admin, group) = network(&place).await;
    group.state().rejection = Some("the books have 20480 records already".into());
    waits(&server, &place.token(Role::Client)).await;
    let refusal = admin.refusal(&create_token(Role::Client, None)).await;
    let ServerRefusal::Invalid(why) = refusal else { panic!("{refusal:?}") };
    assert!(why.contains("20480 records"), "{why}");
    group.state().rejection = None;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_was_deposed_holds_no_joiner_back() {
    let place = Place::new();
    let (server, node, _admin, group) = network(&place).await;
    let next_node = place.peer(server.address(), Role::Node).await;
    let next = Group::start(&next_node);
    next.register(&next_node).await;
    group.report_with(&node, 1, &[(&next_node, &next)]).await;
    {
        let mut after = next.state();
        after.clone_from(&group.state());
        after.change_elsewhere();
    }
    // The server still reaches it, and it still answers with what it has.
    group.state().is_deposed = true;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert_eq!(server.registry().books_version(), Some(next.state().version));

    // Nor does one that takes all the time that there is, if a token is asked for.
    next.state().cut_off = Some(server.address());
    {
        let mut group = group.state();
        group.clone_from(&next.state());
        (group.is_deposed, group.cut_off) = (false, None);
        group.change_elsewhere();
    }
    let mut unknown = place.token(Role::Client);
    unknown.id = uuid::Uuid::from_u128(1);
    for _ in 0..2 {
        join_with(&server, &unknown).await.unwrap_err();
    }
    assert_eq!(server.registry().books_version(), Some(group.state().version));
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_found_behind_those_of_other_servers() {
    let place = Place::new();
    let (server, _node, _admin, group) = network(&place).await;
    group.state().is_mute = true;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert_eq!(server.registry().books_version(), Some(group.state().version));
}

#[tokio::test]
async fn junk_tokens_keep_nobody_from_a_new_certificate() {
    let place = Place::new();
    let (server, node, _admin, group) = network(&place).await;
    group.step_down(None);
    let mut junk = place.token(Role::Client);
    let (mut joiners, address) = (tokio::task::JoinSet::new(), server.address());
    for number in 1..=48 {
        junk.id = uuid::Uuid::from_u128(number);
        let junk = junk.clone();
        joiners.spawn(async move {
            let joiner = Endpoint::dial_only(None).unwrap();
            join(&joiner, address, &junk).await.map(drop)
        });
    }
    // All of them have the books fetched, and wait for that.
    while server.registry().is_kept_by_control_group() && group.state().asked.len() < 4 {
        tokio::task::yield_now().await;
    }
    let begun = std::time::Instant::now();
    let endpoint = Endpoint::dial_only(None).unwrap();
    recertify(&endpoint, server.address(), &node.credentials).await.unwrap();
    assert!(begun.elapsed().as_millis() < 1000, "it took {:?}", begun.elapsed());
    while let Some(refused) = joiners.join_next().await {
        let refused = refused.unwrap();
        assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Unknown))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_new_server_passes_one_that_is_cut_off_from_the_control_group() {
    let (place, cut_off, new) = (Place::new(), Place::new(), Place::new());
    let (server, node, admin, group) = network(&place).await;
    let create = create_token(Role::Server, Some(1));
    let ServerAnswer::Token(token) = admin.ask(&create).await else { panic!() };
    let file = new.root.path().join("token");
    std::fs::write(&file, token).unwrap();
    drop(server);
    copy_dir(&place.data_dir(), &cut_off.data_dir()).unwrap();
    let (server, cut_off) = (place.start().await, cut_off.start().await);
    group.state().cut_off = Some(cut_off.address());
    let node = node.again(server.address()).await;
    group.report(&node, 2).await;
    let list = format!("{},{}", cut_off.address(), server.address());
    let config = Config { join: Some(list), token_file: Some(file), ..new.config() };
    let new = Server::start(config).await.unwrap();
    assert!(!new.is_founding());
}

async fn waits(server: &Server, token: &Token) {
    let waits = join_with(server, token).await;
    assert!(matches!(waits, Err(JoinError::Refused(JoinRefusal::Waiting(_)))), "{waits:?}");
}

#[tokio::test]
async fn the_only_server_admits_nobody_while_the_control_group_is_silent() {
    let place = Place::new();
    let (server, _node, _admin, group) = network(&place).await;
    let token = place.token(Role::Admin);
    group.step_down(None);
    waits(&server, &token).await;
    group.state().refusal = None;
    join_with(&server, &token).await.unwrap();
}

#[tokio::test]
async fn a_server_restored_from_before_the_first_report_decides_nothing_alone() {
    let (place, restored) = (Place::new(), Place::new());
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let group = Group::start(&node);
    group.register(&node).await;
    drop(server);
    copy_dir(&place.data_dir(), &restored.data_dir()).unwrap();
    let server = place.start().await;
    group.report(&node.again(server.address()).await, 1).await;
    let token = place.token(Role::Client);
    let admin = admin.again(server.address()).await;
    assert_eq!(admin.ask(&ServerRequest::RevokeToken(token.id)).await, ServerAnswer::Done);
    drop(server);

    let server = restored.start().await;
    let register = register_with(group.address.port(), &node, &[&node], 1);
    node.again(server.address()).await.ask(&register).await;
    let refused = join_with(&server, &token).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Unknown))), "{refused:?}");
    join_with(&server, &restored.token(Role::Node)).await.unwrap();
    assert_eq!(server.registry().books_version(), Some(group.state().version));
}

#[tokio::test]
async fn the_deny_list_comes_back_to_a_restored_server() {
    let (place, restored) = (Place::new(), Place::new());
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let mallory = place.peer(server.address(), Role::Client).await;
    let group = Group::start(&node);
    group.register(&node).await;
    drop(server);
    // The backup knows nothing of the revocation.
    copy_dir(&place.data_dir(), &restored.data_dir()).unwrap();
    let server = place.start().await;
    let denied = [mallory.credentials.identity.holder];
    let report = |node: &Peer, term| {
        let mut report = node.report_of(term, &[node], &denied);
        report.view.nodes[0].address = group.address;
        ServerRequest::Report(report)
    };
    let node = node.again(server.address()).await;
    let confirmed = ServerAnswer::Confirmed(Confirmation::Confirmed);
    assert_eq!(node.ask(&report(&node, 1)).await, confirmed);
    let endpoint = Endpoint::dial_only(None).unwrap();
    let refused = recertify(&endpoint, server.address(), &mallory.credentials).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Denied))), "{refused:?}");
    drop(server);

    let server = restored.start().await;
    let is_denied = |holders: &[HolderInfo]| {
        let mut holders = holders.iter();
        holders.find(|it| it.id == mallory.credentials.identity.holder).unwrap().revoked
    };
    let listed = async |admin: &Peer| match admin.ask(&ServerRequest::ListHolders).await {
        ServerAnswer::Holders(holders) => holders,
        other => panic!("{other:?}"),
    };
    let admin = admin.again(server.address()).await;
    let node = node.again(server.address()).await;
    group.register(&node).await;
    assert_eq!(node.ask(&report(&node, 1)).await, confirmed);
    assert!(is_denied(&listed(&admin).await));
    let refused = recertify(&endpoint, server.address(), &mallory.credentials).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::Denied))), "{refused:?}");
}

#[tokio::test]
async fn a_server_restored_from_before_the_first_node_orders_nobody_to_bootstrap() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let thief = place.peer(server.address(), Role::Node).await;
    let group = Group::start(&node);
    let register = register_with(group.address.port(), &node, &[&node], 1);
    let ServerAnswer::Admitted(admission) = node.ask(&register).await else { panic!() };
    assert!(!admission.bootstrap);
    let lies = Group::start(&thief);
    for _ in 0..2 {
        assert!(!thief.register(lies.address.port()).await.bootstrap);
    }
    drop(server);
    let server = place.start().await;
    let thief = thief.again(server.address()).await;
    assert!(!thief.register(lies.address.port()).await.bootstrap);
    let report = ServerRequest::Report(thief.report_of(1, &[&thief], &[]));
    assert!(matches!(thief.refusal(&report).await, ServerRefusal::Denied(_)));
    waits(&server, &place.token(Role::Client)).await;
    assert!(lies.state().asked.is_empty());
    drop(server);

    // The operator knows a voter.
    let voter = Some(node.node());
    let server = place.try_start_with(|config| config.trust_voter = voter).await.unwrap();
    let node = node.again(server.address()).await;
    group.register(&node).await;
    group.report(&node, 1).await;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert!(group.state().complete);
}

#[tokio::test]
async fn who_comes_first_is_not_ordered_to_bootstrap_when_the_operator_names_a_voter() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let thief = place.peer(server.address(), Role::Node).await;
    drop(server);
    let voter = Some(node.node());
    let server = place.try_start_with(|config| config.trust_voter = voter).await.unwrap();
    let thief = thief.again(server.address()).await;
    assert!(!thief.register(4402).await.bootstrap);
    let report = ServerRequest::Report(thief.report_of(1, &[&thief], &[]));
    assert!(matches!(thief.refusal(&report).await, ServerRefusal::Denied(_)));
    waits(&server, &place.token(Role::Client)).await;
}

#[tokio::test]
async fn a_server_that_was_removed_ends() {
    let place = Place::new();
    let (server, node, _admin, group) = network(&place).await;
    let mut report = node.report_of(2, &[&node], &[server.registry().server()]);
    report.view.nodes[0].address = group.address;
    node.ask(&ServerRequest::Report(report)).await;
    assert!(matches!(server.failed().await, StartError::Removed));
    drop(server);
    let again = place.try_start().await.map(drop);
    assert!(matches!(again, Err(StartError::Removed)), "{again:?}");
}

#[tokio::test]
async fn a_server_that_voters_refuse_for_good_ends() {
    let place = Place::new();
    let (server, _node, _admin, group) = network(&place).await;
    // It does not hear of its removal by a report.
    group.state().denies = true;
    let token = place.token(Role::Client);
    let (joined, failed) = tokio::join!(join_with(&server, &token), server.failed());
    assert!(joined.is_err());
    assert!(matches!(failed, StartError::Removed));
}

#[tokio::test]
async fn many_books_are_handed_over_in_parts() {
    let place = Place::new();
    let server = place.start().await;
    let admin = place.peer(server.address(), Role::Admin).await;
    // As many as there may be, with those of the first start; the holders make it more than a part.
    let mut created = Vec::new();
    for _ in 3..BOOKS_CHANGE_RECORDS_MAX {
        let ServerAnswer::Token(token) = admin.ask(&create_token(Role::Client, None)).await else {
            panic!()
        };
        created.push(token.parse::<Token>().unwrap());
    }
    let node = place.peer(server.address(), Role::Node).await;
    let group = Group::start(&node);
    group.register(&node).await;
    group.report(&node, 1).await;
    for token in [&created[0], created.last().unwrap()] {
        join_with(&server, token).await.unwrap();
    }
    let state = group.state();
    assert!(state.complete);
    assert_eq!(state.records.len(), BOOKS_CHANGE_RECORDS_MAX + 4);
    let changes = state.asked.iter().filter_map(|body| match body {
        RequestBody::ChangeBooks(change) => Some((change.complete, change.records.len())),
        _ => None,
    });
    let parts: Vec<_> = changes.take(2).collect();
    assert_eq!(parts, [(false, BOOKS_CHANGE_RECORDS_MAX), (true, 2)]);
}

#[tokio::test]
async fn a_distant_control_group_is_reached() {
    let place = Place::new();
    let server = place.start().await;
    let node = place.peer(server.address(), Role::Node).await;
    let group = Group::start(&node);
    // A connection takes longer than the server waits for any answer.
    group.state().distance = std::time::Duration::from_millis(1200);
    group.register(&node).await;
    group.report(&node, 1).await;
    join_with(&server, &place.token(Role::Client)).await.unwrap();
    assert!(group.state().complete);
}
