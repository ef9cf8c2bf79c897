//! TLS before a server that speaks none, with a certificate that can be changed while connections stand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Identity;

/// Listens on 127.0.0.1; its connections end with it.
pub struct TlsFront {
    address: SocketAddr,
    config: watch::Sender<Arc<ServerConfig>>,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    /// Before 127.0.0.1:`port`.
    pub async fn before(port: u16, identity: &Identity) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (config, seen) = watch::channel(server_config(identity)?);
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let accepting = tokio::spawn(accept(listener, upstream, seen));
        Ok(Self { address, config, accepting })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Shows another certificate from now on, and ends every connection that stands.
    pub fn become_another(&self, identity: &Identity) -> Result<()> {
        self.config.send_replace(server_config(identity)?);
        Ok(())
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    config: watch::Receiver<Arc<ServerConfig>>,
) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(client, upstream, config.clone()));
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut config: watch::Receiver<Arc<ServerConfig>>,
) {
    let now = Arc::clone(&config.borrow_and_update());
    let Ok(mut client) = TlsAcceptor::from(now).accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        // Whichever side ends it.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = config.changed() => {}
    }
}
