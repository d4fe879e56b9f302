//! How peers prove to each other that they know the same token, without sending it.
//!
//! Needs the token and nonces of both ends; yields proofs of each end, and a key of the session for what follows. A proof names
//! the end and the versions, so that it cannot be sent back or be used for another.

use super::PeerError;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use std::{fmt, io};

/// Shortest token, bytes.
pub const SHORTEST_TOKEN: usize = 16;
/// Random bytes of a token that is made here.
const GENERATED: usize = 16;
/// Length of a nonce and of a proof, bytes.
pub(super) const NONCE: usize = 32;
pub(super) const TAG: usize = 32;

/// A key of HMAC-SHA-256, as long as a block of the hash: shorter ones are filled up with zeros (RFC 2104).
type Block = [u8; 64];

/// What both peers know.
#[derive(Clone)]
pub struct Token(Block);

impl fmt::Debug for Token {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// One that both ends were given; blanks around it are not part of it.
    ///
    /// # Errors
    /// [`PeerError::ShortToken`] for one that could be guessed.
    pub fn new(text: &str) -> Result<Self, PeerError> {
        let text = text.trim();
        if text.len() < SHORTEST_TOKEN {
            return Err(PeerError::ShortToken { bytes: text.len() });
        }
        Ok(Self(block(&Sha256::digest(text))))
    }

    /// A new one of 128 bits, and how it is written.
    ///
    /// # Errors
    /// [`PeerError::System`] when the kernel has no random bytes.
    pub fn generate() -> Result<(Self, String), PeerError> {
        let text: String = random::<GENERATED>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((Self::new(&text)?, text))
    }
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

impl End {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Server => b"server",
        }
    }
}

/// What both ends said at the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greetings {
    pub(super) version: u16,
    pub(super) client: [u8; NONCE],
    pub(super) server: [u8; NONCE],
}

fn block(hash: &[u8]) -> Block {
    let mut block = [0; size_of::<Block>()];
    block.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    block
}

fn mac(key: Block) -> Hmac<Sha256> {
    Hmac::new(&key.into())
}

impl Greetings {
    fn mac(&self, token: &Token, label: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(token.0);
        for part in [b"nettrace bench ", label, &self.version.to_be_bytes(), &self.client, &self.server] {
            mac.update(part);
        }
        mac
    }

    /// An end's proof that it knows the token.
    pub(super) fn proof(&self, token: &Token, end: End) -> [u8; TAG] {
        self.mac(token, end.label()).finalize().into_bytes().into()
    }

    /// Whether a proof is that of an end. Takes the same time whichever bytes differ.
    pub(super) fn proves(&self, token: &Token, end: End, proof: &[u8]) -> bool {
        self.mac(token, end.label()).verify_slice(proof).is_ok()
    }

    /// The key of what follows.
    pub(super) fn session(&self, token: &Token) -> Session {
        Session(block(&self.mac(token, b"session").finalize().into_bytes()))
    }
}

/// The key of the messages of a session.
#[derive(Clone)]
pub(super) struct Session(Block);

impl Session {
    fn mac(&self, from: End, number: u64, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(self.0);
        for part in [from.label(), &number.to_be_bytes(), message] {
            mac.update(part);
        }
        mac
    }

    /// Of a message, the `number`-th of its sender.
    pub(super) fn tag(&self, from: End, number: u64, message: &[u8]) -> [u8; TAG] {
        self.mac(from, number, message).finalize().into_bytes().into()
    }

    /// Whether a message is what its sender sent. Takes the same time whichever bytes differ.
    pub(super) fn is_good(&self, from: End, number: u64, message: &[u8], tag: &[u8]) -> bool {
        self.mac(from, number, message).verify_slice(tag).is_ok()
    }
}

/// Random bytes of the kernel.
pub(super) fn random<const N: usize>() -> Result<[u8; N], PeerError> {
    let mut bytes = [0; N];
    let failed = |source| PeerError::System { action: "get random bytes", source };
    // Up to 256 bytes come whole.
    match getrandom(&mut bytes[..], GetRandomFlags::empty()) {
        Ok(n) if n == N => Ok(bytes),
        Ok(_) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_hold_for_one_end_one_token_and_one_greeting() {
        let (token, text) = Token::generate().unwrap();
        let same = Token::new(&format!(" {text}\n")).unwrap();
        let (other, _) = Token::generate().unwrap();
        let greetings = Greetings { version: 1, client: random().unwrap(), server: random().unwrap() };
        let proof = greetings.proof(&token, End::Client);
        assert!(greetings.proves(&same, End::Client, &proof));
        assert!(!greetings.proves(&token, End::Server, &proof), "a proof sent back");
        assert!(!greetings.proves(&other, End::Client, &proof));
        assert!(!greetings.proves(&token, End::Client, &proof[..31]));
        let again = Greetings { server: random().unwrap(), ..greetings };
        assert!(!again.proves(&token, End::Client, &proof), "a proof of another session");
        let session = greetings.session(&token);
        let tag = session.tag(End::Server, 3, b"message");
        assert!(session.is_good(End::Server, 3, b"message", &tag));
        assert!(!session.is_good(End::Server, 4, b"message", &tag), "a message that comes again");
        assert!(!session.is_good(End::Server, 3, b"messagf", &tag));
    }

    #[test]
    fn tokens_that_can_be_guessed_are_refused_and_none_is_printed() {
        assert!(matches!(Token::new("  secret  "), Err(PeerError::ShortToken { bytes: 6 })));
        let (token, text) = Token::generate().unwrap();
        assert_eq!(text.len(), 32);
        assert!(!format!("{token:?}").contains(&text));
    }
}
