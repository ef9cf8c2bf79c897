//! The fake cluster keeps the rules that real ones were seen to keep.

use super::cluster::Cluster;
use crate::support::vectors::{Answer, FIELD, LEFT, STALE, STEPS, Step};

const ALIAS: &str = "documents-write";

fn answered(cluster: &mut Cluster, step: &Step) -> Answer {
    let body = step.body("documents");
    let items = match Cluster::parse(body.as_bytes()) {
        Ok(items) => items,
        Err(status) => return Answer::Refused(status),
    };
    let answered = cluster.apply(&items[0]);
    match answered.error {
        None => Answer::Done(answered.status),
        Some(_) => Answer::Failed(answered.status),
    }
}

#[test]
fn the_fake_cluster_follows_the_vectors() {
    let mut cluster = Cluster::default();
    cluster.create(ALIAS, "documents");
    for step in STEPS {
        assert_eq!(answered(&mut cluster, &step), step.answer, "{}", step.what);
    }
    let left = cluster.documents(ALIAS).into_iter().flatten().filter_map(|(id, stored)| {
        let value = stored.source.as_ref()?[FIELD].as_str()?;
        Some((id.as_str(), u64::try_from(stored.version).ok()?, value))
    });
    assert_eq!(left.collect::<Vec<_>>(), LEFT);

    let mut restarted = cluster.clone();
    restarted.restart(|| false);
    assert_eq!(answered(&mut restarted, &STALE), STALE.answer, "after a restart");
    cluster.now = 100;
    cluster.expire_tombstones(99);
    assert_eq!(answered(&mut cluster, &STALE), STALE.answer, "after gc_deletes");
}
