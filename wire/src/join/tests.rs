use super::*;

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4400);

fn token_in_file(content: &[u8], wanted: Role) -> Result<Token, TokenError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, content).unwrap();
    find_token(SERVER.into(), wanted, Some(&file))
}

#[test]
fn a_token_is_read_from_the_file_that_is_named() {
    let token = Token::generate(Role::Node, Fingerprint::of(b"authority"));
    let found = token_in_file(format!("{token}\n").as_bytes(), Role::Node);
    assert_eq!(found.unwrap(), token);
}

#[test]
fn a_token_must_be_for_what_is_wanted() {
    const ROLES: [Role; 4] = [Role::Server, Role::Node, Role::Client, Role::Admin];
    for found in ROLES {
        let token = Token::generate(found, Fingerprint::of(b"authority"));
        for wanted in ROLES {
            let outcome = token_in_file(token.to_string().as_bytes(), wanted);
            // An administrator may do whatever a client may.
            if found == wanted || (found, wanted) == (Role::Admin, Role::Client) {
                assert_eq!(outcome.unwrap(), token);
            } else {
                assert!(matches!(outcome, Err(TokenError::Role { .. })), "{found} for {wanted}");
            }
        }
    }
}

#[test]
fn a_file_without_a_token_is_told_by_its_name_and_not_by_its_content() {
    let token = Token::generate(Role::Node, Fingerprint::of(b"authority")).to_string();
    for content in [&b""[..], b"\xff\xfe", &token.as_bytes()[1..]] {
        let error = token_in_file(content, Role::Node).unwrap_err();
        assert!(matches!(error, TokenError::Invalid { .. }), "{error}");
        assert!(!error.to_string().contains(&token[10..]), "{error}");
        assert!(error.to_string().contains("/token: not a dkv join token"), "{error}");
    }
    let absent = find_token(SERVER.into(), Role::Node, Some(Path::new("/nowhere/token")));
    assert_eq!(
        absent.unwrap_err().to_string(),
        "cannot read the token: /nowhere/token: no such file"
    );
}
