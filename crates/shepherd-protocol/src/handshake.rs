//! How a shepherd and a runner prove to each other that they belong to one launch.
//!
//! Whoever launches a runner gives it a secret of that launch in its environment, the
//! [`Token`]. Before anything else, each side proves that it knows it:
//!
//! ```text
//!   shepherd                                               runner
//!     ◀── ChallengeMessage {challenge: R} ──────────────────  on every connection
//!     ─── ProofMessage {challenge: S, proof: P("shepherd")} ▶  turns away what does not prove it
//!     ◀── ProofMessage {proof: P("runner")} ────────────────
//! ```
//!
//! R and S are random and new for each connection. P(side) is the HMAC-SHA256 of `side`, R
//! and S, separated by line feeds, under the token: as hexadecimal digits. The token itself
//! never travels, and a proof is of no use on another connection or to the other side.
//!
//! # What it keeps off
//! Users of this machine who are neither root nor the one that the runner runs as, and hosts
//! that reach the runner's port. They can connect to a port that a runner listens at, and
//! listen at one before it does. Neither lets them give the runner jobs, read what it is
//! told, or answer for it. It keeps off nobody who can read the runner's environment (that
//! user and root), and nobody who can change what is on its way between the two: messages
//! after the proof carry none. Whoever keeps connecting can keep the shepherd out. Over
//! `ipc://` none of this is possible: only the runner's user can connect to its socket, or
//! make one in its directory.
//!
//! A runner that has no token asks for no proof. Its first message is another one then, and
//! the shepherd's [`Peer`] is [`Peer::Unproven`]: whether that is good enough is for the
//! owner of the connection to say.

use std::fmt::{self, Write as _};

use hmac::{Hmac, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The secret of one launch, which the launched runner and its shepherd share.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The variable of a runner's environment that holds the token.
pub const TOKEN_VARIABLE: &str = "SHEPHERD_TOKEN";
/// The longest challenge that is taken, in bytes.
const MAX_CHALLENGE: usize = 128;

/// What a shepherd knows of whoever listens at its runner's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It said nothing yet, or has not ended its proof.
    Unknown,
    /// It knows the token.
    Proven,
    /// It asked for no proof and gave none: no runner with a token does that, and every runner
    /// that was made before there were tokens.
    Unproven,
    /// It claimed to know the token, and does not. The connection to it has ended.
    Impostor,
}

impl Token {
    /// The token of this text, which the other side was given too.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token that this process was launched with, if it was given one.
    pub fn from_env() -> Option<Self> {
        std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty()).map(Self)
    }

    fn proof(&self, side: &str, runners: &str, shepherds: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("a key may have any length");
        mac.update(format!("{side}\n{runners}\n{shepherds}").as_bytes());
        hexadecimal(&mac.finalize().into_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a str>,
    message_type: &'static str,
}

/// A message of the handshake, of either side.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "message_type")]
enum Message {
    #[serde(rename = "ChallengeMessage")]
    Challenge { challenge: String },
    #[serde(rename = "ProofMessage")]
    Proof { challenge: Option<String>, proof: String },
}

fn read(frame: &[u8]) -> Option<Message> {
    #[derive(Deserialize)]
    struct Frame {
        message: Message,
    }
    let Frame { message } = serde_json::from_slice(frame).ok()?;
    let challenge = match &message {
        Message::Challenge { challenge } => Some(challenge),
        Message::Proof { challenge, .. } => challenge.as_ref(),
    };
    challenge.is_none_or(|challenge| challenge.len() <= MAX_CHALLENGE).then_some(message)
}

fn write(record: &Record<'_>) -> Vec<u8> {
    serde_json::to_vec(record).expect("writing JSON to memory cannot fail")
}

/// What a runner asks of whoever connects.
#[derive(Debug)]
pub(crate) struct Challenge(String);

impl Challenge {
    pub(crate) fn new() -> Self {
        let mut random = [0_u8; 16];
        getrandom(&mut random, GetRandomFlags::empty()).expect("the kernel has random numbers");
        Self(hexadecimal(&random))
    }

    /// The message that asks.
    pub(crate) fn message(&self) -> Vec<u8> {
        write(&Record { challenge: Some(&self.0), proof: None, message_type: "ChallengeMessage" })
    }

    /// The message that proves the runner to a shepherd that sent `frame`; `None` where that
    /// proves nothing.
    pub(crate) fn answer(&self, token: &Token, frame: &[u8]) -> Option<Vec<u8>> {
        let Some(Message::Proof { challenge: Some(theirs), proof }) = read(frame) else { return None };
        let is_proven = is_same(&proof, &token.proof("shepherd", &self.0, &theirs));
        let proof = token.proof("runner", &self.0, &theirs);
        is_proven
            .then(|| write(&Record { challenge: None, proof: Some(&proof), message_type: "ProofMessage" }))
    }
}

/// The proof that a shepherd waits for.
#[derive(Debug)]
pub(crate) struct Awaited(String);

impl Awaited {
    /// The message that proves the shepherd to a runner that sent `frame`, and the proof that is
    /// to follow; `None` where `frame` asks for none.
    pub(crate) fn of(token: &Token, frame: &[u8]) -> Option<(Vec<u8>, Self)> {
        let Some(Message::Challenge { challenge: theirs }) = read(frame) else { return None };
        let Challenge(ours) = Challenge::new();
        let proof = token.proof("shepherd", &theirs, &ours);
        let record = Record { challenge: Some(&ours), proof: Some(&proof), message_type: "ProofMessage" };
        Some((write(&record), Self(token.proof("runner", &theirs, &ours))))
    }

    /// Whether `frame` is that proof.
    pub(crate) fn is(&self, frame: &[u8]) -> bool {
        matches!(read(frame), Some(Message::Proof { proof, .. }) if is_same(&proof, &self.0))
    }
}

/// Compares without telling by the time it takes how much is the same.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What handshake.json says of the handshake: both SDKs are tested with it.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Golden {
        token: String,
        runners: String,
        shepherds: String,
        challenge: String,
        shepherd: String,
        runner: String,
    }

    fn frame(message: Vec<u8>) -> String {
        format!(r#"{{"message":{}}}"#, String::from_utf8(message).unwrap())
    }

    #[test]
    fn the_golden_handshake_is_read_and_written() {
        let golden: Golden = serde_json::from_str(include_str!("../tests/handshake.json")).unwrap();
        let (token, challenge) = (Token::new(golden.token), Challenge(golden.runners.clone()));
        assert_eq!(frame(challenge.message()), golden.challenge);
        assert_eq!(frame(challenge.answer(&token, golden.shepherd.as_bytes()).unwrap()), golden.runner);
        let proof = token.proof("shepherd", &golden.runners, &golden.shepherds);
        let (challenge, proof) = (Some(golden.shepherds.as_str()), Some(proof.as_str()));
        let ours = Record { challenge, proof, message_type: "ProofMessage" };
        assert_eq!(frame(write(&ours)), golden.shepherd);
        let awaited = Awaited(token.proof("runner", &golden.runners, &golden.shepherds));
        assert!(awaited.is(golden.runner.as_bytes()));
    }

    #[test]
    fn each_side_proves_itself_on_each_connection_anew() {
        let (token, other) = (Token::new("secret"), Token::new("guess"));
        let challenge = Challenge::new();
        let asked = frame(challenge.message());
        let prove = |token| {
            let (proof, awaited) = Awaited::of(token, asked.as_bytes()).unwrap();
            (frame(proof), awaited)
        };
        let (proof, awaited) = prove(&token);
        let answer = frame(challenge.answer(&token, proof.as_bytes()).unwrap());
        assert!(awaited.is(answer.as_bytes()));

        let (wrong, _) = prove(&other);
        assert_eq!(challenge.answer(&token, wrong.as_bytes()), None, "another token");
        assert_eq!(Challenge::new().answer(&token, proof.as_bytes()), None, "another connection");
        let (_, later) = prove(&token);
        assert!(!later.is(answer.as_bytes()), "the answer of another connection");
        assert!(!awaited.is(proof.as_bytes()), "our own proof, sent back");
    }

    #[test]
    fn other_messages_are_no_proofs() {
        let (token, challenge) = (Token::new("secret"), Challenge::new());
        let long = frame(Challenge("x".repeat(MAX_CHALLENGE + 1)).message());
        let garbage = ["", "{}", r#"{"message":{"message_type":"ProofMessage"}}"#, &long];
        for frame in garbage.map(str::as_bytes).into_iter().chain([&b"\xff"[..]]) {
            assert!(Awaited::of(&token, frame).is_none());
            assert!(challenge.answer(&token, frame).is_none());
            assert!(!Awaited(String::new()).is(frame));
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(…)");
    }
}
