//! The texts of join tokens, identities and roles.

use dkv_wire::identity::{Identity, Role};
use dkv_wire::token::{Fingerprint, InvalidToken, Token};

pub(super) fn read(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // The error has no content: the text may hold most of a secret.
    let token: Result<Token, InvalidToken> = text.parse();
    if let Ok(token) = token {
        assert_eq!(token.to_string(), text.trim(), "a token has one spelling");
    }
    if let Ok(identity) = Identity::from_dns_name(&text) {
        assert_eq!(Identity::from_dns_name(&identity.dns_name()).as_ref(), Ok(&identity));
    }
    if let Ok(role) = text.parse::<Role>() {
        assert_eq!(role.to_string(), text);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let roles = [Role::Server, Role::Node, Role::Client, Role::Admin, Role::Reader];
    let tokens = roles.map(|role| Token::generate(role, Fingerprint([7; 32])).to_string());
    let names = ["node", "client", "00000000-0000-0000-0000-000000000001.node.dkv"];
    tokens.into_iter().chain(names.map(String::from)).map(String::into_bytes).collect()
}
