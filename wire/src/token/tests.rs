use super::*;

fn token() -> Token {
    Token::generate(Role::Node, Fingerprint::of(b"a certificate"))
}

/// The parts of a token's text, to be put together otherwise.
fn parts(token: &Token) -> Vec<String> {
    token.to_string().split('.').map(str::to_owned).collect()
}

fn parse(text: &str) -> Result<Token, InvalidToken> {
    text.parse()
}

#[test]
fn a_token_survives_being_written_down() {
    for role in [Role::Server, Role::Node, Role::Client, Role::Admin] {
        let token = Token { role, ..token() };
        let text = token.to_string();
        assert!(text.len() <= TOKEN_BYTES_MAX / 2, "{}", text.len());
        assert_eq!(parse(&text), Ok(token.clone()));
        assert_eq!(parse(&format!("  {text}\r\n")), Ok(token), "as editors and shells leave it");
    }
}

#[test]
fn the_text_is_what_it_was_in_the_first_version() {
    let token = Token {
        role: Role::Client,
        id: Uuid::from_bytes([0x11; 16]),
        secret: [0xfb; 32],
        authority: Fingerprint([0; 32]),
    };
    let text = "dkv1.client.EREREREREREREREREREREQ.-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s.\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(token.to_string(), text);
    assert_eq!(parse(text), Ok(token));
}

#[test]
fn tokens_differ() {
    let (one, other) = (token(), token());
    assert_ne!(one.id, other.id);
    assert_ne!(one.secret, other.secret);
    assert_ne!(one.secret, [0; 32]);
}

#[test]
fn every_malformed_text_is_refused() {
    let good = parts(&token());
    let with = |index: usize, part: &str| {
        let mut parts = good.clone();
        parts[index] = part.to_owned();
        parts.join(".")
    };
    let id_of = |bytes: usize| BASE64URL_NOPAD.encode(&vec![1; bytes]);
    let text = good.join(".");
    let malformed = [
        String::new(),
        ".".into(),
        "....".into(),
        text.to_uppercase(),
        with(0, "dkv2"),
        with(0, "DKV1"),
        with(0, ""),
        with(1, "root"),
        with(1, "Node"),
        with(1, ""),
        with(2, &id_of(15)),
        with(2, &id_of(17)),
        with(2, ""),
        with(3, &id_of(31)),
        with(3, &id_of(33)),
        with(3, ""),
        with(4, &id_of(31)),
        with(4, &id_of(33)),
        with(3, &format!("{}=", good[3])),
        with(3, &good[3].replace(|_| true, "+")),
        with(3, &format!(" {}", good[3])),
        with(3, &format!("{}é", &good[3][1..])),
        format!("{text}."),
        format!("{text}.{}", good[4]),
        good[..4].join("."),
        format!("{text} {text}"),
        format!("{text}{}", "A".repeat(TOKEN_BYTES_MAX)),
        "A".repeat(1 << 20),
    ];
    for text in malformed {
        assert_eq!(parse(&text), Err(InvalidToken), "{text}");
    }
    // Bits that no byte uses would give one token several texts.
    let other_last = format!("{}B", &good[4][..good[4].len() - 1]);
    assert_eq!(parse(&with(4, &other_last)), Err(InvalidToken));
}

#[test]
fn no_way_of_printing_but_display_shows_the_secret() {
    let token = token();
    let secret = &parts(&token)[3];
    assert!(token.to_string().contains(secret));
    let debug = format!("{token:?} {token:#?}");
    let bytes = format!("{:?}", token.secret);
    assert!(!debug.contains(secret) && !debug.contains(bytes.trim_matches(['[', ']'])), "{debug}");
    assert!(debug.contains(&parts(&token)[2]), "it can still be told from others: {debug}");
    let wrong = parse(&format!("{token}x")).unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains(secret));
}

#[test]
fn a_hash_matches_its_secret_only() {
    let token = token();
    let hash = token.secret_hash();
    assert!(hash.matches(&token.secret));
    for bit in 0..256 {
        let mut other = token.secret;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!hash.matches(&other), "{bit}");
    }
    assert!(!hash.matches(&[0; 32]));
    let kept = crate::codec::encode(&hash);
    assert_ne!(*kept, token.secret, "what is kept is not the secret");
    assert!(crate::codec::decode::<SecretHash>(&kept).unwrap().matches(&token.secret));
}

/// The abbreviation of FIPS 180-4: "abc".
#[test]
fn a_fingerprint_is_sha_256() {
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let known = data_encoding::HEXLOWER.decode(known.as_bytes()).unwrap();
    assert_eq!(Fingerprint::of(b"abc").0, *known);
}
