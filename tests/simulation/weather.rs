//! Which faults come, and how often.

use rand::RngExt;
use rand::rngs::StdRng;

/// How likely each fault is at each step; a swarm: each seed leaves many out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    // Of the process and its connection.
    pub(crate) crash: f64,
    pub(crate) stop: f64,
    pub(crate) disconnect: f64,
    // Of Postgres.
    pub(crate) source_crash: f64,
    pub(crate) failover: f64,
    pub(crate) checkpoint: f64,
    pub(crate) lag: bool,
    // Of the cluster.
    pub(crate) restart: f64,
    pub(crate) restore: f64,
    // Of requests and answers.
    pub(crate) overload: f64,
    pub(crate) item_overload: f64,
    /// Somebody removes a write alias, and later puts it back.
    pub(crate) alias_gone: f64,
    pub(crate) lost: f64,
    pub(crate) late: f64,
    pub(crate) cut: f64,
    // Of the operator.
    pub(crate) reload: f64,
    pub(crate) tampering: f64,
}

impl Weather {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let mut up_to = |most: f64| {
            if random.random_bool(0.5) { 0.0 } else { random.random_range(0.0..most) }
        };
        Self {
            crash: up_to(0.01),
            stop: up_to(0.005),
            disconnect: up_to(0.01),
            source_crash: up_to(0.01),
            failover: up_to(0.004),
            checkpoint: up_to(0.05),
            restart: up_to(0.02),
            restore: up_to(0.3),
            overload: up_to(0.4),
            item_overload: up_to(0.3),
            alias_gone: up_to(0.01),
            lost: up_to(0.2),
            late: up_to(0.7),
            cut: up_to(0.1),
            reload: up_to(0.3),
            tampering: up_to(0.1),
            lag: up_to(1.0) > 0.0,
        }
    }
}
