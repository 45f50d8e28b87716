//! What a person is told who gets no connection: what is the case, and what to do next.

use std::fmt::Write;

use super::*;

#[test]
fn whoever_gets_no_connection_is_told_what_to_do() {
    let server = ([127, 0, 0, 1], 4400).into();
    let refused = |refusal| ConnectError::Join(JoinError::Refused(refusal));
    let removed = JoinRefusal::Denied.to_string();
    let errors = [
        ConnectError::NoAddress,
        ConnectError::Address { address: "host:no".into(), why: "no port".into() },
        ConnectError::Unreachable("no answer".into()),
        ConnectError::Join(JoinError::OtherNetwork(server)),
        refused(JoinRefusal::Unknown),
        refused(JoinRefusal::Expired),
        refused(JoinRefusal::UsedUp),
        refused(JoinRefusal::Busy),
        ConnectError::Expired { role: Role::Client },
        ConnectError::NoCredentials { role: Role::Admin },
        ConnectError::Denied(format!(
            "the certificate has expired, and the server gives no new one: {removed}"
        )),
    ];
    let mut said = String::new();
    for error in &errors {
        writeln!(said, "{}", with_advice(error)).unwrap();
    }
    expect_test::expect![[r#"
        no address of a registration server or node was given; give the address of the server as HOST:PORT
        host:no: no port; give the address of the server as HOST:PORT
        cannot reach the network: no answer; see that the server runs there, or start one with dkv server or dkv local
        the server at 127.0.0.1:4400 belongs to another network than the token (its certificate authority is not the one that the token names); give a token of that server's network with --token-file, or another address
        not admitted: the join token is not one of this network's; ask an administrator of the network for one, and give it with --token-file
        not admitted: the join token has expired; ask an administrator of the network for a new one
        not admitted: the join token has been used up; ask an administrator of the network for a new one
        not admitted: too many are joining at once; try again in a moment
        the stored client certificate has expired; connect once by the address of the registration server, which gives a new one
        no stored admin certificate is accepted by the given nodes; connect once by the address of the registration server
        denied: the certificate has expired, and the server gives no new one: this certificate holder was removed from the network; an administrator has taken you out: ask for a new token, and join with it under another DKV_HOME
    "#]].assert_eq(&said);
}
