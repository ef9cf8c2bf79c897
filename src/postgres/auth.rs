//! Logging in (PostgreSQL docs, "SASL Authentication").
//!
//! SCRAM-SHA-256 is the way, bound to the TLS channel where there is one. An md5 password is
//! answered only if the operator asked for it, and the password itself is sent only to a server
//! whose certificate was checked: who answers the port must not get the secret by asking for it.
//! The number of SCRAM iterations is capped in `postgres-protocol` (RUSTSEC-2026-0179).

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::{backend, frontend};

use crate::config::reread_secret;
use crate::settings::{PostgresSettings, Secret};

use super::PostgresError;
use super::wire::{Frame, Wire, unexpected};

/// Codes of the authentication request ("Message Formats", `Authentication…`).
const CODE_OK: u32 = 0;
const CODE_CLEARTEXT: u32 = 3;
const CODE_MD5: u32 = 5;
const CODE_SASL: u32 = 10;
const CODE_SASL_CONTINUE: u32 = 11;
const CODE_SASL_FINAL: u32 = 12;

/// What a password may be sent as to this server, for both kinds of connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PasswordPolicy {
    pub(super) allows_md5: bool,
    pub(super) allows_cleartext: bool,
    /// Whether one is configured at all.
    pub(super) has_password: bool,
}

impl PasswordPolicy {
    /// Refuses a request for the password in a form that is not allowed.
    pub(super) fn check(self, code: u32) -> Result<(), PostgresError> {
        match code {
            CODE_CLEARTEXT if !self.allows_cleartext => Err(PostgresError::CleartextRefused),
            CODE_MD5 if !self.allows_md5 => Err(PostgresError::Md5Refused),
            CODE_CLEARTEXT | CODE_MD5 | CODE_SASL if !self.has_password => {
                Err(PostgresError::PasswordMissing)
            }
            _ => Ok(()),
        }
    }
}

/// Answers the server's requests until it says that the login is good.
pub(super) async fn authenticate(
    wire: &mut Wire,
    settings: &PostgresSettings,
) -> Result<(), PostgresError> {
    let policy = PasswordPolicy {
        allows_md5: settings.allow_md5,
        allows_cleartext: wire.transport().verified,
        has_password: settings.password.is_some(),
    };
    let (code, body) = request(wire).await?;
    policy.check(code)?;
    let password = current_password(settings).await;
    let password = || {
        let password = password.as_ref().ok_or(PostgresError::PasswordMissing)?;
        Ok::<_, PostgresError>(password.reveal().as_bytes())
    };
    match code {
        CODE_OK => return Ok(()),
        CODE_CLEARTEXT => {
            frontend::password_message(password()?, &mut wire.outbox)?;
        }
        CODE_MD5 => {
            let salt = body.first_chunk::<4>().ok_or_else(|| broken("md5 salt"))?;
            let answer = md5_hash(settings.user.as_bytes(), password()?, *salt);
            frontend::password_message(answer.as_bytes(), &mut wire.outbox)?;
        }
        CODE_SASL => scram(wire, &body, password()?).await?,
        code => return Err(PostgresError::MethodUnsupported { code }),
    }
    wire.flush().await?;
    match request(wire).await? {
        (CODE_OK, _) => Ok(()),
        (code, _) => {
            Err(PostgresError::Protocol(format!("authentication request {code} at the end")))
        }
    }
}

/// The password as it is now: one from a file may have been rotated since the start.
pub(super) async fn current_password(settings: &PostgresSettings) -> Option<Secret> {
    let reread = match &settings.password_file {
        Some(path) => reread_secret(path).await,
        None => None,
    };
    reread.or_else(|| settings.password.clone())
}

fn broken(what: &str) -> PostgresError {
    PostgresError::Protocol(format!("the {what} is incomplete"))
}

/// The next authentication request: its code and what follows.
async fn request(wire: &mut Wire) -> Result<(u32, Vec<u8>), PostgresError> {
    let Frame { tag, body } = wire.receive().await?;
    if tag != backend::AUTHENTICATION_TAG {
        return Err(unexpected(tag, "during the login"));
    }
    let (code, rest) =
        body.split_first_chunk::<4>().ok_or_else(|| broken("authentication request"))?;
    Ok((u32::from_be_bytes(*code), rest.to_vec()))
}

/// Which mechanism to use, given those offered and what is known of the channel. When we could bind
/// and the server does not offer it, we say so (`y,,`): a server that does offer it then knows that
/// somebody in between has taken it out.
fn mechanism(
    offered: &[u8],
    end_point: Option<Vec<u8>>,
) -> Result<(&'static str, ChannelBinding), PostgresError> {
    let offers = |name: &str| offered.split(|&byte| byte == 0).any(|text| text == name.as_bytes());
    match end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)))
        }
        Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        Some(_) | None => Err(PostgresError::Scram {
            reason: "the server offers no mechanism that is known here".to_owned(),
        }),
    }
}

async fn scram(wire: &mut Wire, offered: &[u8], password: &[u8]) -> Result<(), PostgresError> {
    let failed = |error: std::io::Error| PostgresError::Scram { reason: error.to_string() };
    let (name, binding) = mechanism(offered, wire.transport().end_point.clone())?;
    let mut scram = ScramSha256::new(password, binding);
    frontend::sasl_initial_response(name, scram.message(), &mut wire.outbox)?;
    wire.flush().await?;

    let (code, challenge) = request(wire).await?;
    if code != CODE_SASL_CONTINUE {
        return Err(PostgresError::Protocol(format!("authentication request {code} within SCRAM")));
    }
    scram.update(&challenge).map_err(failed)?;
    frontend::sasl_response(scram.message(), &mut wire.outbox)?;
    wire.flush().await?;

    let (code, proof) = request(wire).await?;
    if code != CODE_SASL_FINAL {
        return Err(PostgresError::Protocol(format!("authentication request {code} within SCRAM")));
    }
    tracing::debug!(mechanism = name, "logged in to Postgres");
    scram.finish(&proof).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";

    #[test]
    fn the_channel_is_bound_where_both_sides_can() {
        let chosen = |offered, end_point| mechanism(offered, end_point).map(|(name, _)| name).ok();
        assert_eq!(chosen(BOTH, Some(vec![1])), Some(SCRAM_SHA_256_PLUS));
        assert_eq!(chosen(BOTH, None), Some(SCRAM_SHA_256));
        assert_eq!(chosen(PLAIN, Some(vec![1])), Some(SCRAM_SHA_256));
        assert_eq!(chosen(b"OAUTHBEARER\0\0", None), None);
    }

    #[test]
    fn a_secret_is_not_given_to_whoever_asks() {
        let strict =
            PasswordPolicy { allows_md5: false, allows_cleartext: false, has_password: true };
        assert!(matches!(strict.check(CODE_CLEARTEXT), Err(PostgresError::CleartextRefused)));
        assert!(matches!(strict.check(CODE_MD5), Err(PostgresError::Md5Refused)));
        let lax = PasswordPolicy { allows_md5: true, allows_cleartext: true, has_password: true };
        assert!(lax.check(CODE_CLEARTEXT).is_ok() && lax.check(CODE_MD5).is_ok());
    }

    #[test]
    fn a_password_that_is_asked_for_and_not_configured_is_named() {
        let without =
            PasswordPolicy { allows_md5: true, allows_cleartext: true, has_password: false };
        for code in [CODE_CLEARTEXT, CODE_MD5, CODE_SASL] {
            assert!(matches!(without.check(code), Err(PostgresError::PasswordMissing)));
        }
        assert!(without.check(CODE_OK).is_ok());
    }
}
