//! Tests of TLS, with an authority of their own.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{acceptor, common_name};

struct Files {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let files = Self { directory: tempfile::tempdir().expect("a directory"), authority };
        let (certificate, key) = files.issue("server");
        files.write("authority.pem", files.authority.pem());
        files.write("server.pem", certificate.pem());
        files.write("server-key.pem", key.serialize_pem());
        files
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.authority).expect("a certificate"), key)
    }

    fn write(&self, name: &str, text: String) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the name that the server sees in the certificate of a client.
    async fn seen(
        &self,
        client: Option<(rcgen::Certificate, KeyPair)>,
    ) -> Result<Option<String>, String> {
        let authority = self.path("authority.pem");
        let server =
            acceptor(&self.path("server.pem"), &self.path("server-key.pem"), Some(&authority));
        let server = server.map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_root_certificates(roots);
        let config = match client {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from(certificate)];
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                config.with_client_auth_cert(chain, key).expect("a certificate")
            }
            None => config.with_no_client_auth(),
        };
        let (here, there) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let (connected, accepted) =
            tokio::join!(connector.connect(name, here), server.accept(there));
        let accepted = accepted.map_err(|error| error.to_string())?;
        connected.map_err(|error| error.to_string())?;
        Ok(common_name(accepted.get_ref().1))
    }
}

#[tokio::test]
async fn a_client_has_the_common_name_of_its_certificate() {
    let files = Files::new();
    let seen = files.seen(Some(files.issue("alice"))).await;
    assert_eq!(seen, Ok(Some("alice".to_owned())));
}

#[tokio::test]
async fn others_are_not_admitted() {
    let files = Files::new();
    files.seen(None).await.expect_err("no certificate");
    let stranger = Files::new().issue("alice");
    files.seen(Some(stranger)).await.expect_err("a certificate of another authority");
}

#[test]
fn a_wrong_file_is_named() {
    let files = Files::new();
    let (certificate, key) = (files.path("server.pem"), files.path("server-key.pem"));
    let missing = files.path("missing.pem");
    let says = |error: Result<_, super::FileError>| match error {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    };
    assert!(says(acceptor(&missing, &key, None)).contains("missing.pem"));
    assert!(says(acceptor(&certificate, &missing, None)).contains("missing.pem"));
    assert!(says(acceptor(&key, &key, None)).contains("it holds no certificate"));
    assert!(says(acceptor(&certificate, &key, Some(&missing))).contains("missing.pem"));
}
