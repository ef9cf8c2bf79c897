//! The `elasticsearch` section: addresses and credentials that contradict each other are found here.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::keys;
use super::layers::{Given, Layer, Layers, Noted};
use super::problem::Place;
use crate::settings::{CircuitBreakerSettings, ElasticsearchSettings, SearchCredentials, Secret};

/// One way to authenticate that was given.
struct Candidate {
    layer: Layer,
    place: Place,
    what: &'static str,
    credentials: SearchCredentials,
    /// The file that holds the secret.
    secret_file: Option<PathBuf>,
}

/// Reads the whole section.
pub(super) fn resolve(layers: &mut Layers<'_>) -> Result<ElasticsearchSettings, Noted> {
    let addresses = addresses(layers);
    let (addresses, in_url) = match addresses {
        Ok((urls, in_url)) => (Ok(urls), in_url),
        Err(noted) => (Err(noted), None),
    };
    let credentials = credentials(layers, in_url);
    let ca_file = ca_file(layers);
    let bulk_size = layers.quantity(&keys::BULK_SIZE);
    let bulk_bytes = layers.quantity(&keys::BULK_BYTES);
    let flush_interval = layers.quantity(&keys::FLUSH_INTERVAL);
    let concurrency = layers.quantity(&keys::CONCURRENCY);
    let request_timeout = layers.quantity(&keys::REQUEST_TIMEOUT);
    let max_retries = layers.quantity(&keys::MAX_RETRIES);
    let circuit_breaker = circuit_breaker(layers);
    let compression = layers.switch(&keys::COMPRESSION);
    let (credentials, secret_file) = credentials?;
    Ok(ElasticsearchSettings {
        addresses: addresses?,
        credentials,
        secret_file,
        ca_file: ca_file?,
        bulk_size: super::to_usize(bulk_size?),
        bulk_bytes: super::to_usize(bulk_bytes?),
        flush_interval: Duration::from_millis(flush_interval?),
        concurrency: super::to_usize(concurrency?),
        request_timeout: Duration::from_millis(request_timeout?),
        max_retries: u32::try_from(max_retries?).unwrap_or(u32::MAX),
        circuit_breaker: circuit_breaker?,
        compression: compression?,
    })
}

fn circuit_breaker(layers: &mut Layers<'_>) -> Result<CircuitBreakerSettings, Noted> {
    let min_requests = layers.quantity(&keys::BREAKER_MIN_REQUESTS);
    let failure_ratio = layers.quantity(&keys::BREAKER_FAILURE_RATIO);
    let interval = layers.quantity(&keys::BREAKER_INTERVAL);
    let open_for = layers.quantity(&keys::BREAKER_OPEN_FOR);
    let thousandths = u32::try_from(failure_ratio?).unwrap_or(u32::MAX);
    Ok(CircuitBreakerSettings {
        min_requests: u32::try_from(min_requests?).unwrap_or(u32::MAX),
        failure_ratio: f64::from(thousandths) / 1000.0,
        interval: Duration::from_millis(interval?),
        open_for: Duration::from_millis(open_for?),
    })
}

/// The nodes, and the credentials that stand in their URLs, which are taken out of them.
fn addresses(layers: &mut Layers<'_>) -> Result<(Vec<Url>, Option<Candidate>), Noted> {
    let given = layers.all(&keys::ADDRESSES)?;
    let mut urls = Vec::new();
    let mut found: Option<Candidate> = None;
    let mut failed = None;
    for (one, text) in given.iter().flat_map(|one| one.text.split(',').map(move |t| (one, t))) {
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let (url, credentials) = match address(text) {
            Ok(read) => read,
            Err(message) => {
                failed = Some(layers.refuse(&keys::ADDRESSES, one, &message));
                continue;
            }
        };
        if urls.contains(&url) {
            failed = Some(layers.refuse(&keys::ADDRESSES, one, "is given twice"));
        }
        urls.push(url);
        let Some(credentials) = credentials else { continue };
        match &found {
            Some(other) if other.credentials != credentials => {
                let complaint = "has another user name or password than the address before it";
                failed = Some(layers.refuse(&keys::ADDRESSES, one, complaint));
            }
            Some(_) => {}
            None => {
                let (layer, place) = (one.layer, one.place.clone());
                let what = "a user name and password in the address";
                found = Some(Candidate { layer, place, what, credentials, secret_file: None });
            }
        }
    }
    match failed {
        Some(noted) => Err(noted),
        None if urls.is_empty() => Err(layers.missing(&keys::ADDRESSES)),
        None => Ok((urls, found)),
    }
}

/// One base URL without user info, and the user info. No error quotes the text.
fn address(text: &str) -> Result<(Url, Option<SearchCredentials>), String> {
    const EXPECTED: &str = "must be a URL like https://es1:9200";
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err(format!("{EXPECTED}, beginning with http:// or https://"));
    }
    let mut url = Url::parse(text).map_err(|error| format!("{EXPECTED}: {error}"))?;
    let in_authority = !url.username().is_empty() || url.password().is_some();
    if !in_authority && text.contains('@') {
        return Err("has a user name or password with a character that must be percent-encoded \
                    (\"/\" is %2F, \"?\" is %3F, \"#\" is %23)"
            .to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a part after \"?\" or \"#\"".to_owned());
    }
    if !in_authority {
        return Ok((url, None));
    }
    let decode = |part: &str| super::postgres_url::percent_decode(part);
    let username = decode(url.username()).unwrap_or_default();
    let password = url.password().and_then(decode).unwrap_or_default();
    if username.is_empty() || password.is_empty() {
        return Err("has a user name without a password, or the other way round".to_owned());
    }
    // Both only fail for URLs without a host, which http and https always have.
    let stripped = url.set_username("").and_then(|()| url.set_password(None));
    stripped.map_err(|()| EXPECTED.to_owned())?;
    let password = Secret::new(password);
    Ok((url, Some(SearchCredentials::Basic { username, password })))
}

/// The way to authenticate that wins: of the strongest layer; two of one layer contradict each other.
fn credentials(
    layers: &mut Layers<'_>,
    in_url: Option<Candidate>,
) -> Result<(SearchCredentials, Option<PathBuf>), Noted> {
    let api_key = api_key(layers);
    let basic = basic(layers);
    let mut candidates: Vec<Candidate> = [api_key?, basic?, in_url].into_iter().flatten().collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.layer));
    let mut candidates = candidates.into_iter();
    let Some(first) = candidates.next() else { return Ok((SearchCredentials::None, None)) };
    match candidates.next() {
        Some(second) if second.layer == first.layer => {
            let message = format!("both {} and {} are given; keep one", first.what, second.what);
            Err(layers.note(&second.place, message))
        }
        _ => Ok((first.credentials, first.secret_file)),
    }
}

fn api_key(layers: &mut Layers<'_>) -> Result<Option<Candidate>, Noted> {
    let Some((key, given, secret_file)) = layers.secret(&keys::API_KEY, &keys::API_KEY_FILE)?
    else {
        return Ok(None);
    };
    let complaint = if key.reveal().contains(':') {
        "holds a \":\": give the key's encoded form, the base64 of id:key"
    } else if !key.reveal().chars().all(|c| c.is_ascii_graphic()) {
        "holds a blank or a character that no API key has"
    } else {
        let (layer, place) = (given.layer, given.place);
        let credentials = SearchCredentials::ApiKey(key);
        let what = "an API key";
        return Ok(Some(Candidate { layer, place, what, credentials, secret_file }));
    };
    Err(layers.note(&given.place, format!("the API key {complaint}")))
}

fn basic(layers: &mut Layers<'_>) -> Result<Option<Candidate>, Noted> {
    let username = layers.find(&keys::USERNAME);
    let password = layers.secret(&keys::PASSWORD, &keys::PASSWORD_FILE);
    match (username?, password?) {
        (None, None) => Ok(None),
        (Some(username), Some((password, given, secret_file))) => {
            if username.text.contains(':') {
                // RFC 7617: the first colon ends the user name.
                return Err(layers.refuse(&keys::USERNAME, &username, "must not contain \":\""));
            }
            let stronger = if given.layer > username.layer { &given } else { &username };
            Ok(Some(Candidate {
                layer: stronger.layer,
                place: stronger.place.clone(),
                what: "a user name and password",
                credentials: SearchCredentials::Basic { username: username.text, password },
                secret_file,
            }))
        }
        (Some(username), None) => Err(half(layers, &username, "username", &keys::PASSWORD)),
        (None, Some((_, given, _))) => Err(half(layers, &given, "password", &keys::USERNAME)),
    }
}

fn half(layers: &mut Layers<'_>, given: &Given, one: &str, other: &keys::Key) -> Noted {
    let message = format!("a {one} without a {}; give {} too", other.name(), other.ways());
    layers.note(&given.place, message)
}

fn ca_file(layers: &mut Layers<'_>) -> Result<Option<PathBuf>, Noted> {
    let Some(given) = layers.find(&keys::CA_FILE)? else { return Ok(None) };
    let path = PathBuf::from(&given.text);
    match layers.check_certificates(&path) {
        Ok(()) => Ok(Some(path)),
        Err(complaint) => Err(layers.refuse(&keys::CA_FILE, &given, &complaint)),
    }
}
