//! A server of Redis or Valkey, read by SCAN while it runs.
//!
//! Keys that exist throughout come once at least; those that change meanwhile come as they were at
//! some moment.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Found, ImportError, LeftOut, Lines};

/// Keys that are asked for at a time.
const KEYS_AT_ONCE: &str = "512";
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest string that is taken.
const STRING_BYTES_MAX: usize = 512 << 20;
/// Most elements of an answer.
const ELEMENTS_MAX: usize = 1 << 20;

/// An answer.
#[derive(Debug)]
enum Answer {
    Done,
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Nothing,
    /// A list of no more than two levels.
    List(Vec<Answer>),
}

struct Connection {
    stream: BufStream<TcpStream>,
}

/// A server, as a URL names it.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// Host and port.
    address: String,
    user: String,
    password: Option<String>,
    database: String,
}

/// Returns a URL without its password.
pub(super) fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

/// Parses `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`.
fn parse(url: &str) -> Result<Server, ImportError> {
    let malformed = || {
        let why = "write the address as redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], with % \
                   and two hexadecimal digits for bytes that have a meaning there";
        ImportError::Malformed(why.into())
    };
    if url.starts_with("rediss://") {
        let why = "TLS is not supported; import a dump instead, or through a tunnel";
        return Err(ImportError::Malformed(why.into()));
    }
    let rest = url.strip_prefix("redis://").ok_or_else(malformed)?;
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let (host, database) = place.split_once('/').unwrap_or((place, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:6379") };
    let (user, password) = match credentials.map(|it| it.split_once(':').unwrap_or(("", it))) {
        Some((user, password)) => (user, Some(password)),
        None => ("", None),
    };
    let user = decoded(user).ok_or_else(malformed)?;
    let password = match password.filter(|password| !password.is_empty()) {
        Some(password) => Some(decoded(password).ok_or_else(malformed)?),
        None => None,
    };
    Ok(Server { address, user, password, database: database.to_owned() })
}

/// Replaces `%` and two hexadecimal digits by the byte that they name.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Reads all keys of a server that hold a string. `password` is for a URL without one.
///
/// # Errors
/// It does not answer, or not as a server of Redis does.
pub(super) async fn scan(
    url: &str,
    password: Option<String>,
) -> Result<(Lines, LeftOut), ImportError> {
    let Server { address, user, password: own, database } = parse(url)?;
    let connecting = timeout(ANSWER, TcpStream::connect(&address));
    let stream = connecting.await.map_err(|_| silent())??;
    let mut server = Connection { stream: BufStream::new(stream) };
    if let Some(password) = own.or(password) {
        let command: Vec<&[u8]> = match user.as_str() {
            "" => vec![b"AUTH", password.as_bytes()],
            user => vec![b"AUTH", user.as_bytes(), password.as_bytes()],
        };
        server.send(&command).await?;
        server.flush().await?;
        if let Answer::Error(_) = server.receive().await? {
            // What it says may repeat the password.
            return Err(ImportError::Malformed("it refuses the password".into()));
        }
    }
    if !database.is_empty() {
        server.ask(&[b"SELECT", database.as_bytes()]).await?;
    }
    let (mut lines, mut left_out) = (Lines::new()?, LeftOut::default());
    let mut cursor = b"0".to_vec();
    loop {
        let page = server.ask(&[b"SCAN", &cursor, b"COUNT", KEYS_AT_ONCE.as_bytes()]).await?;
        let Answer::List(page) = page else { return Err(foreign()) };
        let [Answer::Bytes(next), Answer::List(keys)] = page.as_slice() else {
            return Err(foreign());
        };
        let keys: Vec<&Vec<u8>> = keys
            .iter()
            .filter_map(|key| if let Answer::Bytes(key) = key { Some(key) } else { None })
            .collect();
        for key in &keys {
            server.send(&[b"GET", key]).await?;
            server.send(&[b"PTTL", key]).await?;
        }
        server.flush().await?;
        for key in keys {
            let (value, ttl) = (server.receive().await?, server.receive().await?);
            match (value, ttl) {
                (Answer::Bytes(value), Answer::Number(ttl)) => {
                    let ttl_ms = match ttl {
                        -1 => None,
                        1.. => u64::try_from(ttl).ok(),
                        // It expired between the two questions.
                        _ => {
                            left_out.expired += 1;
                            continue;
                        }
                    };
                    lines.add(&Found { key: key.clone(), value, ttl_ms })?;
                }
                (Answer::Nothing, _) => left_out.expired += 1,
                (Answer::Error(why), _) if why.starts_with("WRONGTYPE") => {
                    left_out.other_types += 1;
                }
                (Answer::Error(why), _) => return Err(ImportError::Malformed(why)),
                _ => return Err(foreign()),
            }
        }
        if next == b"0" {
            return Ok((lines, left_out));
        }
        cursor.clone_from(next);
    }
}

fn foreign() -> ImportError {
    ImportError::Malformed("it does not answer as a server of Redis does".into())
}

fn silent() -> ImportError {
    ImportError::Malformed(format!("it did not answer within {} s", ANSWER.as_secs()))
}

impl Connection {
    async fn send(&mut self, command: &[&[u8]]) -> Result<(), ImportError> {
        self.stream.write_all(format!("*{}\r\n", command.len()).as_bytes()).await?;
        for part in command {
            self.stream.write_all(format!("${}\r\n", part.len()).as_bytes()).await?;
            self.stream.write_all(part).await?;
            self.stream.write_all(b"\r\n").await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        Ok(self.stream.flush().await?)
    }

    /// Sends a command and returns its answer, which is no error.
    async fn ask(&mut self, command: &[&[u8]]) -> Result<Answer, ImportError> {
        self.send(command).await?;
        self.flush().await?;
        match self.receive().await? {
            Answer::Error(why) => Err(ImportError::Malformed(format!("it says: {why}"))),
            Answer::Done | Answer::Number(_) | Answer::Bytes(_) | Answer::Nothing
                if command[0] == b"SCAN" =>
            {
                Err(foreign())
            }
            answer => Ok(answer),
        }
    }

    async fn receive(&mut self) -> Result<Answer, ImportError> {
        timeout(ANSWER, async {
            match self.line().await?.as_str().split_at_checked(1) {
                Some(("*", count)) => {
                    let mut all = Vec::new();
                    for _ in 0..length(count, ELEMENTS_MAX)? {
                        let line = self.line().await?;
                        all.push(match line.split_at_checked(1) {
                            Some(("*", count)) => {
                                let mut inner = Vec::new();
                                for _ in 0..length(count, ELEMENTS_MAX)? {
                                    let line = self.line().await?;
                                    inner.push(self.single(&line).await?);
                                }
                                Answer::List(inner)
                            }
                            _ => self.single(&line).await?,
                        });
                    }
                    Ok(Answer::List(all))
                }
                Some((kind, rest)) => {
                    let line = format!("{kind}{rest}");
                    self.single(&line).await
                }
                None => Err(foreign()),
            }
        })
        .await
        .map_err(|_| silent())?
    }

    async fn line(&mut self) -> Result<String, ImportError> {
        let mut line = Vec::new();
        (&mut self.stream).take(1 << 16).read_until(b'\n', &mut line).await?;
        let line = line.strip_suffix(b"\r\n").ok_or_else(foreign)?;
        String::from_utf8(line.to_vec()).map_err(|_| foreign())
    }

    /// Returns an answer that is no list.
    async fn single(&mut self, line: &str) -> Result<Answer, ImportError> {
        let (kind, rest) = line.split_at_checked(1).ok_or_else(foreign)?;
        Ok(match kind {
            "+" => Answer::Done,
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Number(rest.parse().map_err(|_| foreign())?),
            "$" if rest == "-1" => Answer::Nothing,
            "$" => {
                let length = length(rest, STRING_BYTES_MAX)?;
                let mut bytes = Vec::new();
                (&mut self.stream).take(length as u64).read_to_end(&mut bytes).await?;
                let mut end = [0; 2];
                self.stream.read_exact(&mut end).await?;
                if bytes.len() != length || end != *b"\r\n" {
                    return Err(foreign());
                }
                Answer::Bytes(bytes)
            }
            _ => return Err(foreign()),
        })
    }
}

fn length(text: &str, most: usize) -> Result<usize, ImportError> {
    text.parse().ok().filter(|length| *length <= most).ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("redis://:secret@h:1/0"), "redis://h:1/0");
        assert_eq!(without_password("redis://h"), "redis://h");
    }

    #[test]
    fn urls_name_servers() {
        let server = |address: &str, user: &str, password: Option<&str>, database: &str| Server {
            address: address.into(),
            user: user.into(),
            password: password.map(str::to_owned),
            database: database.into(),
        };
        for (url, expected) in [
            ("redis://h", server("h:6379", "", None, "")),
            ("redis://h:1/2", server("h:1", "", None, "2")),
            ("redis://:p%40%2fw%25@h", server("h:6379", "", Some("p@/w%"), "")),
            ("redis://a%3ab:p@h", server("h:6379", "a:b", Some("p"), "")),
            ("redis://p@h", server("h:6379", "", Some("p"), "")),
        ] {
            assert_eq!(parse(url).unwrap(), expected, "{url}");
        }
        for wrong in ["http://h", "rediss://h", "redis://:%4@h", "redis://:%zz@h", "redis://:%+1@h"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Answers one connection by a script. Returns the address, and what was asked.
    async fn scripted(answers: &'static [u8]) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answers).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut asked = Vec::new();
            let _ = stream.read_to_end(&mut asked).await;
            String::from_utf8(asked).unwrap()
        });
        (address.to_string(), asked)
    }

    /// Returns commands as they are sent.
    fn commands(all: &[&[&str]]) -> String {
        let part = |part: &&str| format!("${}\r\n{part}\r\n", part.len());
        let command = |parts: &&[&str]| {
            format!("*{}\r\n{}", parts.len(), parts.iter().map(part).collect::<String>())
        };
        all.iter().map(command).collect()
    }

    #[tokio::test]
    async fn keys_come_page_by_page() {
        let (address, asked) = scripted(
            b"+OK\r\n+OK\r\n\
              *2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$1\r\nl\r\n\
              $3\r\none\r\n:-1\r\n-WRONGTYPE not a string\r\n:-1\r\n\
              *2\r\n$1\r\n0\r\n*4\r\n$1\r\nb\r\n$4\r\ngone\r\n$4\r\nlate\r\n$3\r\nnow\r\n\
              $0\r\n\r\n:5000\r\n$-1\r\n:-2\r\n$1\r\nx\r\n:-2\r\n$1\r\nx\r\n:0\r\n",
        )
        .await;
        let url = format!("redis://:s%65cret@{address}/1");
        let (lines, left_out) = scan(&url, Some("not this one".into())).await.unwrap();
        assert_eq!((lines.count, left_out.other_types, left_out.expired), (2, 1, 3));
        let mut written = lines.finish().unwrap();
        std::io::Seek::rewind(&mut written).unwrap();
        let text = std::io::read_to_string(written).unwrap();
        assert_eq!(
            text,
            "{\"key\":\"a\",\"value\":\"one\"}\n{\"key\":\"b\",\"ttl_ms\":5000,\"value\":\"\"}\n"
        );
        let expected = commands(&[
            &["AUTH", "secret"],
            &["SELECT", "1"],
            &["SCAN", "0", "COUNT", KEYS_AT_ONCE],
            &["GET", "a"],
            &["PTTL", "a"],
            &["GET", "l"],
            &["PTTL", "l"],
            &["SCAN", "17", "COUNT", KEYS_AT_ONCE],
        ]);
        let asked = asked.await.unwrap();
        assert!(asked.starts_with(&expected), "{asked}");
        assert!(asked.ends_with(&commands(&[&["GET", "now"], &["PTTL", "now"]])), "{asked}");
    }

    #[tokio::test]
    async fn a_password_comes_from_elsewhere_and_is_never_repeated() {
        let (address, asked) = scripted(b"-ERR wrong number of arguments: 'secret'\r\n").await;
        let refused = scan(&format!("redis://secret@{address}"), None).await.err().unwrap();
        assert_eq!(refused.to_string(), "it refuses the password");
        assert_eq!(asked.await.unwrap(), commands(&[&["AUTH", "secret"]]));
        let (address, asked) = scripted(b"-WRONGPASS\r\n").await;
        assert!(scan(&format!("redis://Ada:@{address}"), Some("secret".into())).await.is_err());
        assert_eq!(asked.await.unwrap(), commands(&[&["AUTH", "Ada", "secret"]]));
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        for answers in
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"+OK\r\n-NOAUTH no\r\n", b"*1\r\n"]
        {
            let (address, _) = scripted(answers).await;
            assert!(scan(&format!("redis://:secret@{address}/1"), None).await.is_err());
        }
    }
}
