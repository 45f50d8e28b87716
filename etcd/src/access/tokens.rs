//! Tokens: what a user gets for a password, and shows with each request.
//!
//! Every face of a network has to take the tokens of the others, also after a restart, so a token
//! says itself whom it stands for and is signed: a JSON Web Token (RFC 7519). Each face makes a key
//! when it starts, keeps the private half in memory, and adds the public one to what the faces
//! share; or it has the keys of files (`jwt,...`), as other programs sign with.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, HEXLOWER};
use dkv_base::sync::lock;
use dkv_console::units::{DurationError, parse_duration};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::state::{AuthState, Signer};
use crate::error::{Code, EtcdError};

/// Time for which a token is valid, unless an option says otherwise; as etcd's.
pub(crate) const TOKEN_TTL: Duration = Duration::from_secs(300);
/// Tokens whose use prolongs them; further ones end when they say.
const RECENT_MAX: usize = 16_384;

/// How tokens are made.
#[derive(Clone)]
pub enum TokenKind {
    /// They are signed with a key of the face that makes them, and each use prolongs them.
    Simple {
        /// Time for which a token is valid after its last use.
        ttl: Duration,
    },
    /// They are signed with keys of files, as etcd does it.
    Jwt(Box<JwtKeys>),
}

impl Default for TokenKind {
    fn default() -> Self {
        Self::Simple { ttl: TOKEN_TTL }
    }
}

/// The keys of files.
#[derive(Clone)]
pub struct JwtKeys {
    algorithm: Algorithm,
    /// None if this face checks tokens of others only.
    encoding: Option<EncodingKey>,
    decoding: DecodingKey,
    ttl: Duration,
}

/// A text is no kind of tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenKindError {
    /// It is neither kind.
    #[error(
        "use `simple`, or `jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=10m` as for etcd"
    )]
    Syntax,
    /// There is no such algorithm.
    #[error(
        "sign-method is one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, \
         ES256, ES384 and EdDSA"
    )]
    Algorithm,
    /// The time is not one.
    #[error("ttl: {0}")]
    Ttl(DurationError),
    /// A file cannot be read.
    #[error("cannot read {file}: {why}")]
    File {
        /// The file.
        file: String,
        /// The error of the system.
        why: std::io::Error,
    },
    /// A file has no such key.
    #[error("{file} has no key for {algorithm:?}: {why}")]
    Key {
        /// The file.
        file: String,
        /// The algorithm.
        algorithm: Algorithm,
        /// The error of the library.
        why: jsonwebtoken::errors::Error,
    },
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The keys do not belong together.
    #[error("the keys of pub-key and priv-key do not belong together")]
    Mismatch,
}

impl fmt::Debug for TokenKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple { ttl } => formatter.debug_struct("Simple").field("ttl", ttl).finish(),
            // Never log keys.
            Self::Jwt(keys) => formatter.debug_tuple("Jwt").field(&keys.algorithm).finish(),
        }
    }
}

impl FromStr for TokenKind {
    type Err = TokenKindError;

    fn from_str(text: &str) -> Result<Self, TokenKindError> {
        let mut parts = text.split(',');
        match parts.next() {
            Some("simple") if parts.next().is_none() => return Ok(Self::default()),
            Some("jwt") => {}
            _ => return Err(TokenKindError::Syntax),
        }
        let (mut method, mut public, mut private, mut ttl) = (None, None, None, TOKEN_TTL);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(TokenKindError::Syntax)?;
            match name {
                "sign-method" => method = Some(value),
                "pub-key" => public = Some(value),
                "priv-key" => private = Some(value),
                "ttl" => ttl = parse_duration(value).map_err(TokenKindError::Ttl)?,
                _ => return Err(TokenKindError::Syntax),
            }
        }
        let method = method.ok_or(TokenKindError::Missing("sign-method"))?;
        let algorithm = method.parse().map_err(|_| TokenKindError::Algorithm)?;
        Ok(Self::Jwt(Box::new(JwtKeys::read(algorithm, public, private, ttl)?)))
    }
}

impl JwtKeys {
    fn read(
        algorithm: Algorithm,
        public: Option<&str>,
        private: Option<&str>,
        ttl: Duration,
    ) -> Result<Self, TokenKindError> {
        let family = algorithm.family();
        let encoding = match private {
            None => None,
            Some(file) => {
                let pem = read(file)?;
                let key = match family {
                    AlgorithmFamily::Hmac => EncodingKey::from_secret(&pem),
                    AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
                    AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
                    AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&pem),
                };
                Some(key.map_err(|why| TokenKindError::Key {
                    file: file.into(),
                    algorithm,
                    why,
                })?)
            }
        };
        let file = match family {
            // It has one key, for both.
            AlgorithmFamily::Hmac => private.ok_or(TokenKindError::Missing("priv-key"))?,
            _ => public.ok_or(TokenKindError::Missing("pub-key"))?,
        };
        let pem = read(file)?;
        let decoding = match family {
            AlgorithmFamily::Hmac => DecodingKey::from_secret(&pem),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem),
        };
        let decoding =
            decoding.map_err(|why| TokenKindError::Key { file: file.into(), algorithm, why })?;
        let keys = Self { algorithm, encoding, decoding, ttl };
        if keys.encoding.is_some() {
            let claims =
                Claims { username: String::new(), revision: 1, exp: u64::MAX / 2, since: 0 };
            let token = keys.sign(&claims).map_err(|_| TokenKindError::Mismatch)?;
            keys.verify(&token).ok_or(TokenKindError::Mismatch)?;
        }
        Ok(keys)
    }

    fn sign(&self, claims: &Claims) -> Result<String, EtcdError> {
        let Some(key) = &self.encoding else {
            return Err(unknown("auth: token signing attempted with verify-only key"));
        };
        jsonwebtoken::encode(&Header::new(self.algorithm), claims, key).map_err(unsigned)
    }

    fn verify(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(self.algorithm);
        // Those who issued it may have one in mind.
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 0;
        Some(jsonwebtoken::decode(token, &self.decoding, &validation).ok()?.claims)
    }
}

fn read(file: &str) -> Result<Vec<u8>, TokenKindError> {
    fs::read(Path::new(file)).map_err(|why| TokenKindError::File { file: file.into(), why })
}

fn unsigned(error: jsonwebtoken::errors::Error) -> EtcdError {
    unknown(format!("auth: a token cannot be signed: {error}"))
}

fn unknown(why: impl Into<std::borrow::Cow<'static, str>>) -> EtcdError {
    EtcdError::new(Code::Unknown, why)
}

/// What a token says, under etcd's names.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    username: String,
    /// The revision of the users and roles for which it was made.
    revision: u64,
    /// When it ends, in seconds since 1970.
    exp: u64,
    /// The revision since which the user has the password that was shown.
    #[serde(default)]
    since: u64,
}

/// The tokens of a face.
pub(crate) struct Tokens {
    kind: TokenKind,
    own: Option<OwnKey>,
    /// Simple tokens that were used, so that their signatures need not be checked each time.
    recent: Mutex<HashMap<String, Recent>>,
}

/// The key of this face for simple tokens.
struct OwnKey {
    private: EncodingKey,
    public: Signer,
}

struct Recent {
    signer: String,
    username: String,
    since: u64,
    used: Instant,
}

impl OwnKey {
    fn new() -> Option<Self> {
        let key = Ed25519KeyPair::generate().ok()?;
        let private = key.to_pkcs8v1().ok()?;
        let public = Signer {
            id: HEXLOWER.encode(&rand::random::<[u8; 8]>()),
            key: BASE64.encode(key.public_key().as_ref()),
        };
        Some(Self { private: EncodingKey::from_ed_der(private.as_ref()), public })
    }
}

impl Tokens {
    pub(crate) fn new(kind: TokenKind) -> Self {
        let own = match kind {
            TokenKind::Simple { .. } => OwnKey::new(),
            TokenKind::Jwt(_) => None,
        };
        Self { kind, own, recent: Mutex::default() }
    }

    /// Returns what others have to know to check the tokens of this face, if they are simple.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.own.as_ref().map(|own| &own.public)
    }

    /// Makes a token for a user, whose password has been checked.
    ///
    /// # Errors
    /// There is no key to sign with.
    pub(crate) fn make(&self, state: &AuthState, user: &str) -> Result<String, EtcdError> {
        let ttl = match &self.kind {
            TokenKind::Simple { ttl } => *ttl,
            TokenKind::Jwt(keys) => keys.ttl,
        };
        let claims = Claims {
            username: user.to_owned(),
            revision: state.revision,
            exp: now().saturating_add(ttl.as_secs()),
            since: state.since(user).unwrap_or_default(),
        };
        match (&self.kind, &self.own) {
            (TokenKind::Jwt(keys), _) => keys.sign(&claims),
            (TokenKind::Simple { .. }, Some(own)) => {
                let mut header = Header::new(Algorithm::EdDSA);
                header.kid = Some(own.public.id.clone());
                jsonwebtoken::encode(&header, &claims, &own.private).map_err(unsigned)
            }
            (TokenKind::Simple { .. }, None) => Err(unknown("auth: this face has no key")),
        }
    }

    /// Returns the user of a token.
    ///
    /// # Errors
    /// It is invalid or has ended; it was made before the last change of the users and roles, if it
    /// is one of files' keys.
    pub(crate) fn user(&self, state: &AuthState, token: &str) -> Result<String, EtcdError> {
        match &self.kind {
            TokenKind::Simple { ttl } => {
                self.simple(state, token, *ttl).ok_or(EtcdError::INVALID_AUTH_TOKEN)
            }
            TokenKind::Jwt(keys) => {
                let claims = keys.verify(token).ok_or(EtcdError::INVALID_AUTH_TOKEN)?;
                if claims.revision < state.revision {
                    return Err(EtcdError::AUTH_OLD_REVISION);
                }
                Ok(claims.username)
            }
        }
    }

    fn simple(&self, state: &AuthState, token: &str, ttl: Duration) -> Option<String> {
        let instant = Instant::now();
        let is_recent = |recent: &Recent| instant - recent.used < ttl;
        {
            let mut known = lock(&self.recent);
            if let Some(found) = known.get_mut(token) {
                let counts = state.since(&found.username) == Some(found.since)
                    && state.signer(&found.signer).is_some();
                if counts && is_recent(found) {
                    found.used = instant;
                    return Some(found.username.clone());
                }
                known.remove(token);
            }
        }
        let signer = jsonwebtoken::decode_header(token).ok()?.kid?;
        let key = BASE64.decode(state.signer(&signer)?.key.as_bytes()).ok()?;
        let (key, validation) = (DecodingKey::from_ed_der(&key), Validation::new(Algorithm::EdDSA));
        let Claims { username, since, exp, .. } =
            jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims;
        if exp <= now() || state.since(&username) != Some(since) {
            return None;
        }
        let mut known = lock(&self.recent);
        if known.len() >= RECENT_MAX {
            known.retain(|_, recent| is_recent(recent));
        }
        if known.len() < RECENT_MAX {
            let recent = Recent { signer, username: username.clone(), since, used: instant };
            known.insert(token.to_owned(), recent);
        }
        Some(username)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> AuthState {
        let mut state = AuthState::default();
        state.add_user("root", Some("hash".into())).unwrap();
        state.grant_role("root", "root").unwrap();
        state.enable().unwrap();
        state
    }

    /// Returns a face's tokens, which all others take.
    fn tokens(state: &mut AuthState, ttl: Duration) -> Tokens {
        let tokens = Tokens::new(TokenKind::Simple { ttl });
        state.add_signer(tokens.signer().unwrap()).unwrap();
        tokens
    }

    #[test]
    fn a_token_stands_for_its_user_until_the_password_changes() {
        let mut state = state();
        let (here, there) = (tokens(&mut state, TOKEN_TTL), tokens(&mut state, TOKEN_TTL));
        let token = here.make(&state, "root").unwrap();
        assert_eq!(there.user(&state, &token), Ok("root".to_owned()), "another face takes it");
        state.add_user("mars", None).unwrap();
        assert_eq!(there.user(&state, &token), Ok("root".to_owned()));
        let forged = format!("{token}x");
        assert_eq!(there.user(&state, &forged), Err(EtcdError::INVALID_AUTH_TOKEN));
        state.change_password("root", "other".into()).unwrap();
        assert_eq!(there.user(&state, &token), Err(EtcdError::INVALID_AUTH_TOKEN));
    }

    #[test]
    fn tokens_end_with_authentication_and_by_time_unless_they_are_used() {
        let mut state = state();
        let ended = tokens(&mut state, Duration::ZERO);
        let token = ended.make(&state, "root").unwrap();
        assert_eq!(ended.user(&state, &token), Err(EtcdError::INVALID_AUTH_TOKEN));
        let face = tokens(&mut state, TOKEN_TTL);
        let token = face.make(&state, "root").unwrap();
        assert_eq!(face.user(&state, &token), Ok("root".to_owned()));
        // It is used from time to time, beyond what it says itself.
        let is_recent = Recent {
            signer: face.signer().unwrap().id.clone(),
            username: "root".into(),
            since: state.since("root").unwrap(),
            used: Instant::now(),
        };
        face.recent.lock().unwrap().insert("ended".into(), is_recent);
        assert_eq!(face.user(&state, "ended"), Ok("root".to_owned()));
        state.disable().unwrap();
        for token in ["ended", &token] {
            assert_eq!(face.user(&state, token), Err(EtcdError::INVALID_AUTH_TOKEN));
        }
    }

    #[test]
    fn a_token_of_another_algorithm_or_another_key_is_none() {
        let mut state = state();
        let face = tokens(&mut state, TOKEN_TTL);
        let id = &face.signer().unwrap().id;
        let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        let claims = r#"{"username":"root","revision":3,"exp":99999999999,"since":2}"#;
        for alg in ["none", "HS256", "EdDSA"] {
            let header = format!(r#"{{"alg":"{alg}","kid":"{id}"}}"#);
            let token = format!("{}.{}.", encode(&header), encode(claims));
            assert_eq!(face.user(&state, &token), Err(EtcdError::INVALID_AUTH_TOKEN), "{alg}");
        }
        // The public half of a key signs nothing.
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.clone());
        let claims = Claims { username: "root".into(), revision: 3, exp: u64::MAX / 2, since: 2 };
        let public = EncodingKey::from_secret(face.signer().unwrap().key.as_bytes()).unwrap();
        let forged = jsonwebtoken::encode(&header, &claims, &public).unwrap();
        assert_eq!(face.user(&state, &forged), Err(EtcdError::INVALID_AUTH_TOKEN));
        let stranger = Tokens::new(TokenKind::default());
        let token = stranger.make(&state, "root").unwrap();
        assert_eq!(face.user(&state, &token), Err(EtcdError::INVALID_AUTH_TOKEN));
    }

    #[test]
    fn keys_of_files_make_tokens_as_etcd_does() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let (public, private) =
            (write("pub", &key.public_key_pem()), write("priv", &key.serialize_pem()));
        let other = write("other", &rcgen::KeyPair::generate().unwrap().public_key_pem());
        let kind = |text: String| text.parse::<TokenKind>();
        let both =
            kind(format!("jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=10m"));
        let signs = Tokens::new(both.unwrap());
        let checks = Tokens::new(kind(format!("jwt,pub-key={public},sign-method=ES256")).unwrap());
        let mut state = state();
        let token = signs.make(&state, "root").unwrap();
        assert_eq!(checks.user(&state, &token), Ok("root".to_owned()));
        assert!(checks.make(&state, "root").is_err(), "it has no key to sign with");
        state.add_user("mars", None).unwrap();
        assert_eq!(checks.user(&state, &token), Err(EtcdError::AUTH_OLD_REVISION));
        let error = |text: String| kind(text).err().unwrap().to_string();
        assert!(
            error(format!("jwt,pub-key={other},priv-key={private},sign-method=ES256"))
                .contains("together")
        );
        assert!(
            error(format!("jwt,pub-key={public},sign-method=ES999")).contains("sign-method is")
        );
        assert!(error("jwt,sign-method=RS256".into()).contains("pub-key is missing"));
        assert!(
            error(format!("jwt,pub-key={public},sign-method=RS256")).contains("no key for RS256")
        );
        assert!(error("jwt,pub-key=/nowhere,sign-method=RS256".into()).contains("cannot read"));
        assert!(error("bearer".into()).contains("use `simple`"));
        let secret = write("secret", "some secret");
        let hmac = kind(format!("jwt,priv-key={secret},sign-method=HS256")).unwrap();
        let token = Tokens::new(hmac.clone()).make(&state, "root").unwrap();
        assert_eq!(Tokens::new(hmac).user(&state, &token), Ok("root".to_owned()));
    }
}
