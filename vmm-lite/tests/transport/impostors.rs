//! Peers that claim to be another host.

use crate::{TIMEOUT, friends, host, says, trusting};
use migrate::{PROTOCOL_VERSION, wire::Message};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
};
use vmm::migration::{
    Error,
    connection::{Connection, Incoming, LinkError, Transport},
    tls::TlsError,
};
use vmm::vm::CallOff;
use vmm_lite_lab::accept::accept;

/// A certificate for one key, and another key: what a thief of certificates has.
#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    use rustls::{
        client::Resumption,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject,
        },
        sign::{CertifiedKey, SingleCertAndKey},
    };
    let (a, b, thief) = (host(), host(), host());
    let Transport::Tls(credentials) = trusting(&b, &[(a.public(), true, true)]) else { panic!() };
    let key =
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from_pem_slice(thief.pem().0.as_bytes()).unwrap());
    let stolen = CertificateDer::from_pem_slice(a.pem().1.as_bytes()).unwrap();
    let pair = CertifiedKey::new(vec![stolen], ring::sign::any_supported_type(&key).unwrap());
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![format!("vmm-lite-migration/{PROTOCOL_VERSION}").into_bytes()];
    config.resumption = Resumption::disabled();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let there = thread::spawn(move || {
        let stream = Arc::new(accept(&listener).unwrap());
        Connection::accept(stream, &Transport::Tls(credentials), TIMEOUT).unwrap_err().to_string()
    });
    let mut session =
        rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("x").unwrap())
            .unwrap();
    let mut stream = TcpStream::connect(to).unwrap();
    let _ = rustls::Stream::new(&mut session, &mut stream).write_all(b"hello");
    says(&there.join().unwrap(), &["TLS with the other side failed"]);
}

/// Accepts every server certificate.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

#[test]
fn a_late_query_is_sent_only_to_the_same_host() {
    let (a, b, c) = (host(), host(), host());
    let source = trusting(&a, &[(b.public(), true, true), (c.public(), true, true)]);
    let destination = trusting(&c, &[(a.public(), true, true)]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let there = thread::spawn(move || {
        let stream = Arc::new(accept(&listener).unwrap());
        Connection::accept(stream, &destination, TIMEOUT).unwrap_err()
    });
    match Connection::open(&to, &source, Some(b.public().0), TIMEOUT, &CallOff::NEVER) {
        Err(Error::Link(LinkError::Tls(TlsError::Another { began }))) => {
            assert_eq!(began, b.public())
        }
        other => panic!("{other:?}"),
    }
    there.join().unwrap();
}

#[test]
fn a_handshake_that_was_recorded_is_worth_nothing() {
    let (source, destination) = friends();
    // Records what the source sends to the destination.
    let real = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", relay.local_addr().unwrap()).parse().unwrap();
    let real_at = real.local_addr().unwrap();
    let recorder = thread::spawn(move || {
        let mut from = accept(&relay).unwrap();
        let mut on = TcpStream::connect(real_at).unwrap();
        let (mut back_from, mut back_to) = (on.try_clone().unwrap(), from.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let (mut recorded, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            recorded.extend_from_slice(&buffer[..n]);
            on.write_all(&buffer[..n]).unwrap();
        }
        recorded
    });
    let there = {
        let destination = destination.clone();
        thread::spawn(move || {
            let stream = Arc::new(accept(&real).unwrap());
            let mut connection = Connection::accept(stream, &destination, TIMEOUT).unwrap();
            assert!(matches!(connection.receive(0), Ok(Incoming::Message(Message::Hello(_)))));
            let again = Arc::new(accept(&real).unwrap());
            Connection::accept(again, &destination, TIMEOUT).unwrap_err()
        })
    };
    let mut connection = Connection::open(&to, &source, None, TIMEOUT, &CallOff::NEVER).unwrap();
    connection.send(&Message::Hello([1; 16])).unwrap();
    connection.stream().shutdown(Shutdown::Write).unwrap();
    let recorded = recorder.join().unwrap();
    assert!(recorded.len() > 500);
    let mut again = TcpStream::connect(real_at).unwrap();
    again.write_all(&recorded).unwrap();
    assert!(matches!(there.join().unwrap(), LinkError::Tls(TlsError::Tls(_))));
}
