//! How the cluster is reached, and who we are to it: nodes, credentials and authority, of which the last two come
//! from files that may be replaced while we run.
//!
//! The lock is held for a few instructions and never over an await.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::transport::{MultiNodeConnectionPool, Transport, TransportBuilder};
use tracing::info;

use super::client::ClientError;
use crate::config::reread_secret;
use crate::settings::{ElasticsearchSettings, SearchCredentials};

/// Clones share what was read last.
#[derive(Clone)]
pub(super) struct Access {
    settings: Arc<ElasticsearchSettings>,
    now: Arc<Mutex<Now>>,
}

struct Now {
    transport: Transport,
    credentials: SearchCredentials,
    /// The authority's file, as it was read.
    authority: Option<Vec<u8>>,
    /// How often either was replaced.
    renewals: u64,
}

impl Access {
    /// Reads the authority's file; nothing is sent yet.
    pub(super) fn new(settings: &ElasticsearchSettings) -> Result<Self, ClientError> {
        let authority = match &settings.ca_file {
            Some(path) => {
                Some(std::fs::read(path).map_err(|error| unusable(path, error.to_string()))?)
            }
            None => None,
        };
        let credentials = settings.credentials.clone();
        let transport = build(settings, &credentials, authority.as_deref())?;
        let now = Now { transport, credentials, authority, renewals: 0 };
        Ok(Self { settings: Arc::new(settings.clone()), now: Arc::new(Mutex::new(now)) })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> &ElasticsearchSettings {
        &self.settings
    }

    /// What requests go through now.
    pub(super) fn transport(&self) -> Transport {
        self.now().transport.clone()
    }

    /// How often secret or authority were replaced: what was sent before such a time may be sent again.
    pub(super) fn renewals(&self) -> u64 {
        self.now().renewals
    }

    /// Reads the file of the password or API key again: whoever rotates a secret revokes the old one at some
    /// moment. Whether there is one to use now.
    pub(super) async fn reread_secret(&self) -> bool {
        let Some(path) = &self.settings.secret_file else { return false };
        let Some(secret) = reread_secret(path).await else { return false };
        let credentials = match &self.settings.credentials {
            SearchCredentials::None => return false,
            SearchCredentials::Basic { username, .. } => {
                SearchCredentials::Basic { username: username.clone(), password: secret }
            }
            SearchCredentials::ApiKey(_) => SearchCredentials::ApiKey(secret),
        };
        let mut now = self.now();
        if now.credentials == credentials {
            return true;
        }
        if let Some(sent) = as_sent(&credentials) {
            now.transport.set_auth(sent);
        }
        now.credentials = credentials;
        now.renewals += 1;
        info!("the cluster's secret was replaced: using the new one");
        true
    }

    /// Reads the authority's file again. One that cannot be used is left alone: it may be half written.
    pub(super) async fn reread_authority(&self) {
        let Some(path) = &self.settings.ca_file else { return };
        let Ok(authority) = tokio::fs::read(path).await else { return };
        let mut now = self.now();
        if now.authority.as_ref() == Some(&authority) {
            return;
        }
        let Ok(transport) = build(&self.settings, &now.credentials, Some(&authority)) else {
            return;
        };
        now.transport = transport;
        now.authority = Some(authority);
        now.renewals += 1;
        info!("the cluster's authority was replaced: trusting the new one");
    }
}

/// A transport of the configured nodes, asked in turn.
fn build(
    settings: &ElasticsearchSettings,
    credentials: &SearchCredentials,
    authority: Option<&[u8]>,
) -> Result<Transport, ClientError> {
    let pool = MultiNodeConnectionPool::round_robin(settings.addresses.clone(), None);
    let mut builder = TransportBuilder::new(pool)
        // A proxy of the environment is not the way to a cluster beside us.
        .disable_proxy()
        .enable_meta_header(false)
        .request_body_compression(settings.compression);
    if let Some(credentials) = as_sent(credentials) {
        builder = builder.auth(credentials);
    }
    if let Some((path, pem)) = settings.ca_file.as_deref().zip(authority) {
        let chain =
            Certificate::from_pem(pem).map_err(|error| unusable(path, error.to_string()))?;
        builder = builder.cert_validation(CertificateValidation::Full(chain));
    }
    builder.build().map_err(|error| ClientError::Build(error.to_string()))
}

fn unusable(path: &Path, reason: String) -> ClientError {
    ClientError::CaFile { path: path.display().to_string(), reason }
}

fn as_sent(credentials: &SearchCredentials) -> Option<Credentials> {
    match credentials {
        SearchCredentials::None => None,
        SearchCredentials::Basic { username, password } => {
            Some(Credentials::Basic(username.clone(), password.reveal().to_owned()))
        }
        SearchCredentials::ApiKey(key) => Some(Credentials::EncodedApiKey(key.reveal().to_owned())),
    }
}
