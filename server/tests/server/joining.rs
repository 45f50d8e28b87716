//! Enrolment: tokens, certificates and renewals.

use std::time::Duration;

use dkv_base::id::{HolderId, NetworkId};
use dkv_wire::certificate::{Authority, Credentials, generate_key, identity_of};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::join::{JoinError, join, readmit, recertify};
use dkv_wire::limits::{CERTIFICATE_LIFE, RECERTIFY_WITHIN};
use dkv_wire::local::find_token;
use dkv_wire::message::{
    JoinRefusal, JoinRequest, Joining, RecertifyRequest, ServerAnswer, ServerRequest,
};
use dkv_wire::quic::{ConnectError, Endpoint};
use dkv_wire::token::{Fingerprint, Token};

use crate::support::{Peer, Place, TIMEOUT};

async fn try_join(server: std::net::SocketAddr, token: &Token) -> Result<Credentials, JoinError> {
    join(&Endpoint::dial_only(None).unwrap(), server, token).await
}

async fn refusal(server: std::net::SocketAddr, token: &Token) -> JoinRefusal {
    match try_join(server, token).await {
        Err(JoinError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn create(admin: &Peer, role: Role, life_s: Option<u64>, uses: Option<u32>) -> Token {
    match admin
        .ask(&ServerRequest::CreateToken { role, life_s, uses, name: None, user: None })
        .await
    {
        ServerAnswer::Token(text) => text.parse().unwrap(),
        other => panic!("no token: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_grants_its_role() {
    let place = Place::new();
    let server = place.start().await;
    for role in [Role::Node, Role::Client, Role::Admin] {
        let credentials = try_join(server.address(), &place.token(role)).await.unwrap();
        assert_eq!(credentials.identity.role, role);
        assert_eq!(credentials.identity.network, server.network());
        Peer::connect(server.address(), credentials).await.unwrap();
    }
}

#[tokio::test]
async fn wrong_secrets_and_unknown_tokens_look_the_same() {
    let place = Place::new();
    let server = place.start().await;
    let token = place.token(Role::Node);
    let wrong = Token { secret: [0; 32], ..token.clone() };
    assert_eq!(refusal(server.address(), &wrong).await, JoinRefusal::Unknown);
    let unknown = Token { id: uuid::Uuid::new_v4(), ..token };
    assert_eq!(refusal(server.address(), &unknown).await, JoinRefusal::Unknown);
}

#[tokio::test]
async fn a_token_of_another_network_is_noticed_before_its_secret_is_sent() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (server, _other) = (place.start().await, elsewhere.start().await);
    let error = try_join(server.address(), &elsewhere.token(Role::Node)).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherNetwork(_)), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_network_does_not_open_a_connection() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (server, other) = (place.start().await, elsewhere.start().await);
    let stranger = elsewhere.peer(other.address(), Role::Admin).await;
    assert!(Peer::connect(server.address(), stranger.credentials).await.is_err());

    // Not even if the peer trusts our authority and claims to be of our network.
    let forged = Authority::create(server.network(), std::time::SystemTime::now()).unwrap();
    let (key, public_key) = generate_key().unwrap();
    let identity = Identity {
        network: server.network(),
        role: Role::Admin,
        holder: HolderId::random(),
        user: None,
    };
    let certificate = forged.sign(identity, &public_key, std::time::SystemTime::now()).unwrap();
    let ours = place.peer(server.address(), Role::Client).await.credentials.authority;
    let credentials = Credentials::new(&certificate, &ours, key).unwrap();
    // TLS 1.3 lets the client finish first; the first answer never comes.
    if let Ok(peer) = Peer::connect(server.address(), credentials).await {
        assert!(peer.try_ask(&ServerRequest::Status).await.is_err());
    }
}

#[tokio::test]
async fn used_up_expired_and_revoked_tokens_admit_nobody() {
    let place = Place::new();
    let server = place.start().await;
    let admin = place.peer(server.address(), Role::Admin).await;

    let twice = create(&admin, Role::Client, None, Some(2)).await;
    try_join(server.address(), &twice).await.unwrap();
    try_join(server.address(), &twice).await.unwrap();
    assert_eq!(refusal(server.address(), &twice).await, JoinRefusal::UsedUp);

    let short = create(&admin, Role::Node, Some(1), None).await;
    try_join(server.address(), &short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(refusal(server.address(), &short).await, JoinRefusal::Expired);

    let revoked = create(&admin, Role::Node, None, None).await;
    try_join(server.address(), &revoked).await.unwrap();
    assert_eq!(admin.ask(&ServerRequest::RevokeToken(revoked.id)).await, ServerAnswer::Done);
    assert_eq!(refusal(server.address(), &revoked).await, JoinRefusal::Unknown);

    // A killed server remembers all of it.
    drop(server);
    let server = place.start().await;
    assert_eq!(refusal(server.address(), &twice).await, JoinRefusal::UsedUp);
    assert_eq!(refusal(server.address(), &short).await, JoinRefusal::Expired);
    assert_eq!(refusal(server.address(), &revoked).await, JoinRefusal::Unknown);
    let admin = admin.again(server.address()).await;
    let ServerAnswer::Tokens(tokens) = admin.ask(&ServerRequest::ListTokens).await else {
        panic!()
    };
    let used = tokens.iter().find(|token| token.id == twice.id).unwrap();
    assert_eq!((used.used, used.uses, used.admitted.len()), (2, Some(2), 2));
}

#[tokio::test]
async fn concurrent_joiners_do_not_exceed_the_uses_of_a_token() {
    let place = Place::new();
    let server = place.start().await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let token = create(&admin, Role::Client, None, Some(5)).await;
    let address = server.address();
    let joins: Vec<_> = (0..20)
        .map(|_| {
            let token = token.clone();
            tokio::spawn(async move { try_join(address, &token).await.is_ok() })
        })
        .collect();
    let mut admitted = 0;
    for join in joins {
        admitted += u32::from(join.await.unwrap());
    }
    assert_eq!(admitted, 5);
}

#[tokio::test]
async fn an_unusable_key_is_refused_and_costs_no_use() {
    let place = Place::new();
    let server = place.start().await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let token = create(&admin, Role::Node, None, Some(1)).await;
    let endpoint = Endpoint::dial_only(None).unwrap();
    for key in [&b""[..], b"not a key", &[0x30; 91]] {
        let connection = endpoint.connect_to_join(server.address(), token.authority).await.unwrap();
        let public_key = bytes::Bytes::copy_from_slice(key);
        let request =
            Joining::Join(JoinRequest { token: token.id, secret: token.secret, public_key });
        let answer: Result<dkv_wire::message::JoinAnswer, JoinRefusal> =
            dkv_wire::rpc::call(&connection, None::<&()>, &request, 4096, TIMEOUT).await.unwrap();
        assert_eq!(answer.unwrap_err(), JoinRefusal::Key);
    }
    try_join(server.address(), &token).await.unwrap();
}

/// Credentials that the authority of this place signed, and that expired long ago.
fn expired(place: &Place, server: &dkv_server::Server, role: Role) -> Credentials {
    signed_before(place, server, role, 3 * CERTIFICATE_LIFE)
}

/// Credentials that the authority of this place signed so long ago.
fn signed_before(
    place: &Place,
    server: &dkv_server::Server,
    role: Role,
    before: Duration,
) -> Credentials {
    let file = |name: &str| std::fs::read(place.data_dir().join(name)).unwrap();
    let authority = file("authority.der");
    let signer = Authority::from_der(server.network(), &authority, &file("authority-key.der"));
    let (key, public_key) = generate_key().unwrap();
    let identity =
        Identity { network: server.network(), role, holder: HolderId::random(), user: None };
    let then = std::time::SystemTime::now() - before;
    let certificate = signer.unwrap().sign(identity, &public_key, then).unwrap();
    Credentials::new(&certificate, &authority, key).unwrap()
}

#[tokio::test]
async fn a_holder_with_an_expired_certificate_is_recertified_by_its_key() {
    let place = Place::new();
    let server = place.start().await;
    let old = expired(&place, &server, Role::Node);
    // A client learns that its certificate was refused only when it uses the connection.
    if let Ok(peer) = Peer::connect(server.address(), old.clone()).await {
        assert!(peer.try_ask(&ServerRequest::Lookup).await.is_err());
    }
    let endpoint = Endpoint::dial_only(None).unwrap();
    let new = recertify(&endpoint, server.address(), &old).await.unwrap();
    assert_eq!(new.identity, old.identity);
    let peer = Peer::connect(server.address(), new).await.unwrap();
    assert!(peer.try_ask(&ServerRequest::Lookup).await.is_ok());
}

#[tokio::test]
async fn a_key_alone_does_not_suffice_long_after_expiry() {
    let place = Place::new();
    let server = place.start().await;
    let endpoint = Endpoint::dial_only(None).unwrap();
    let refusal = |result: Result<Credentials, JoinError>| match result {
        Err(JoinError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    };
    let day = Duration::from_secs(24 * 3600);
    let limit = CERTIFICATE_LIFE + RECERTIFY_WITHIN;
    let in_time = signed_before(&place, &server, Role::Node, limit - day);
    assert!(recertify(&endpoint, server.address(), &in_time).await.is_ok());
    let old = signed_before(&place, &server, Role::Node, limit + day);
    let alone = recertify(&endpoint, server.address(), &old).await;
    assert_eq!(refusal(alone), JoinRefusal::Lapsed);
    // A token of another role, or a wrong secret, does not help.
    let again = async |token: Token| readmit(&endpoint, server.address(), &old, &token).await;
    assert_eq!(refusal(again(place.token(Role::Client)).await), JoinRefusal::Unknown);
    let wrong = Token { secret: [0; 32], ..place.token(Role::Node) };
    assert_eq!(refusal(again(wrong).await), JoinRefusal::Unknown);
    // A token of its own role does, and the identity stays the same.
    let admitted = again(place.token(Role::Node)).await.unwrap();
    assert_eq!(admitted.identity, old.identity);
    let coordinator = Peer::connect(server.address(), admitted).await.unwrap();
    coordinator.register(1).await;
    let admin = place.peer(server.address(), Role::Admin).await;
    let ServerAnswer::Holders(holders) = admin.ask(&ServerRequest::ListHolders).await else {
        panic!()
    };
    let listed = holders.iter().find(|holder| holder.id == old.identity.holder).unwrap();
    assert_eq!(listed.token, Some(place.token(Role::Node).id));
    // A removed holder does not return by a token either.
    let removed = signed_before(&place, &server, Role::Node, limit + day);
    coordinator.report(1, &[&coordinator], &[removed.identity.holder]).await;
    let token = place.token(Role::Node);
    let denied = readmit(&endpoint, server.address(), &removed, &token).await;
    assert_eq!(refusal(denied), JoinRefusal::Denied);
}

#[tokio::test]
async fn recertification_requires_the_key_and_membership() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (server, other) = (place.start().await, elsewhere.start().await);
    let endpoint = Endpoint::dial_only(None).unwrap();
    // The certificate of another holder, with one's own key.
    let victim = expired(&place, &server, Role::Node);
    let own = expired(&place, &server, Role::Client);
    let fingerprint = Fingerprint::of(&victim.authority);
    let connection = endpoint.connect_to_join(server.address(), fingerprint).await.unwrap();
    let material = dkv_wire::quic::proof_material(&connection).unwrap();
    let request = Joining::Recertify(RecertifyRequest {
        certificate: bytes::Bytes::copy_from_slice(&victim.certificate),
        proof: own.prove(&material).unwrap(),
    });
    let answer: Result<dkv_wire::message::JoinAnswer, JoinRefusal> =
        dkv_wire::rpc::call(&connection, None::<&()>, &request, 4096, TIMEOUT).await.unwrap();
    assert_eq!(answer.unwrap_err(), JoinRefusal::Certificate);
    // A certificate of another network is not even sent: the server is not the expected one.
    let foreign = expired(&elsewhere, &other, Role::Node);
    let error = recertify(&endpoint, server.address(), &foreign).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherNetwork(_)), "{error}");
    // A removed holder.
    let coordinator = place.peer(server.address(), Role::Node).await;
    coordinator.register(1).await;
    coordinator.report(1, &[&coordinator], &[victim.identity.holder]).await;
    let error = recertify(&endpoint, server.address(), &victim).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(JoinRefusal::Denied)), "{error}");
}

#[tokio::test]
async fn certificates_are_renewed_for_the_same_holder() {
    let place = Place::new();
    let server = place.start().await;
    let client = place.peer(server.address(), Role::Client).await;
    let public_key = client.credentials.public_key().unwrap();
    let answer = client.ask(&ServerRequest::Renew { public_key }).await;
    let ServerAnswer::Certificate(certificate) = answer else { panic!("{answer:?}") };
    let renewed = client.credentials.renewed(&certificate).unwrap();
    assert_ne!(renewed.certificate, client.credentials.certificate);
    Peer::connect(server.address(), renewed).await.unwrap();
    let public_key = bytes::Bytes::from_static(b"not a key");
    client.refusal(&ServerRequest::Renew { public_key }).await;
}

#[tokio::test]
async fn the_server_renews_its_own_certificate_while_it_runs() {
    let place = Place::new();
    let server = place.start().await;
    let before = place.peer(server.address(), Role::Client).await;
    server.renew_certificate().unwrap();
    let after = before.again(server.address()).await;
    let shown = |peer: &Peer| {
        let chain = peer.connection.peer_identity().unwrap();
        let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
        assert_eq!(identity_of(&chain[0]).unwrap().role, Role::Server);
        chain[0].clone()
    };
    assert_ne!(shown(&before), shown(&after));
    for peer in [before, after] {
        peer.ask(&ServerRequest::Lookup).await;
    }
}

#[tokio::test]
async fn tokens_are_published_to_this_user_until_they_are_revoked() {
    let place = Place::new();
    let server = place.start().await;
    let find = |role| find_token(&place.home(), server.address(), role).unwrap();
    for role in [Role::Node, Role::Client, Role::Admin] {
        assert_eq!(find(role), Some(place.token(role)));
    }
    let admin = place.peer(server.address(), Role::Admin).await;
    let node = place.token(Role::Node);
    admin.ask(&ServerRequest::RevokeToken(node.id)).await;
    assert_eq!(find(Role::Node), None);
    assert!(!server.token_file(Role::Node).exists());
    assert_eq!(find(Role::Client), Some(place.token(Role::Client)));

    // A later start does not restore it.
    drop(server);
    let server = place.start().await;
    assert_eq!(find_token(&place.home(), server.address(), Role::Node).unwrap(), None);
    assert_eq!(refusal(server.address(), &node).await, JoinRefusal::Unknown);
}

#[tokio::test]
async fn an_unreachable_server_is_distinguished_from_another_network() {
    let token = Token::generate(Role::Node, Fingerprint::of(NetworkId::random().0.as_bytes()));
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = try_join(free, &token).await.unwrap_err();
    assert!(matches!(error, JoinError::Connect(ConnectError::Unreachable { .. })), "{error}");
}
