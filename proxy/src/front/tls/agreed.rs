//! What a handshake agreed on, as records and metrics have it.

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// By a ticket, without certificates.
    pub(crate) resumed: bool,
}

impl Agreed {
    /// Of a connection whose handshake is over.
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Self { version, cipher: cipher.unwrap_or_default(), resumed }
    }
}
